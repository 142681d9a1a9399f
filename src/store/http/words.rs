//! What errors of the wire say, in one line.

use std::error::Error;

/// The last two texts of the chain: those before them say only that something failed.
pub(in crate::store) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    let from = texts.len().saturating_sub(2);
    let lines: Vec<String> = texts[from..].iter().map(|text| one_line(text)).collect();
    lines.join(": ")
}

/// The search for credentials tells its steps in a list of lines.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join(", ").replace(":,", ":")
}

/// Says what to do about a certificate signed by itself, as `openssl req -x509` makes it: OpenSSL
/// accepts it, and this program's TLS does not.
pub(in crate::store) fn explained_trust(text: String) -> String {
    if text.contains("CaUsedAsEndEntity") {
        return format!(
            "{text} (the service shows an authority's certificate as its own: make one with \
             basicConstraints=CA:FALSE)"
        );
    }
    text
}

/// Whether nobody trusts the certificate. The TLS library's type is not ours to name; its words
/// are fixed.
pub(in crate::store) fn is_trust_failure(text: &str) -> bool {
    text.contains("invalid peer certificate") || text.contains("UnknownIssuer")
}

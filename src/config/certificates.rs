//! PEM bundles: checked here, for the TLS library takes a broken one for a bug and panics.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The certificates of a bundle, written again; whatever else stands between them is left out.
pub(super) fn normalized(pem: &[u8]) -> Result<Vec<u8>, String> {
    let text = std::str::from_utf8(pem).map_err(|_| "is not text, so not PEM".to_owned())?;
    let mut written = String::new();
    for (number, rest) in (1..).zip(text.split(BEGIN).skip(1)) {
        let (body, _) = rest
            .split_once(END)
            .ok_or_else(|| format!("has no end of certificate {number}"))?;
        let compact: String = body.split_whitespace().collect();
        let bytes = STANDARD
            .decode(&compact)
            .map_err(|_| format!("has a broken certificate, number {number}: it is not base64"))?;
        // The very reading that the TLS library does later, and takes for granted.
        webpki::anchor_from_trusted_cert(&CertificateDer::from(bytes.as_slice())).map_err(
            |error| format!("has a broken certificate, number {number}: it is not X.509 ({error})"),
        )?;
        for line in [BEGIN, &STANDARD.encode(bytes), END] {
            written.push_str(line);
            written.push('\n');
        }
    }
    if written.is_empty() {
        return Err("holds no certificate (-----BEGIN CERTIFICATE-----)".to_owned());
    }
    Ok(written.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHORITY: &str = include_str!("../../tests/fixtures/certificates/authority.pem");

    fn authority() -> Vec<u8> {
        let lines = AUTHORITY.lines().filter(|line| !line.starts_with('-'));
        STANDARD.decode(lines.collect::<String>()).unwrap()
    }

    fn block(der: &[u8]) -> String {
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(der))
    }

    #[test]
    fn certificates_are_kept_and_the_rest_left_out() {
        let bundle = format!("# mine\n{AUTHORITY}text\n{AUTHORITY}");
        let kept = normalized(bundle.as_bytes()).unwrap();
        let expected = block(&authority()).repeat(2);
        assert_eq!(kept, expected.into_bytes());
    }

    #[test]
    fn a_broken_bundle_is_refused() {
        let whole = authority();
        for bundle in [
            String::new(),
            "no certificate".to_owned(),
            format!("{BEGIN}\nMAA=\n"),
            format!("{BEGIN}\n!!!\n{END}\n"),
            block(&whole[..whole.len() - 1]),
            block(&[0x30, 0x06, 0x30, 0x02, 0x02, 0x00, 0x03, 0x00]),
            block(&[]),
            block(b"valid base64, and no certificate"),
        ] {
            assert!(normalized(bundle.as_bytes()).is_err(), "{bundle}");
        }
        assert!(normalized(&[0xFF, 0x00]).is_err());
    }
}

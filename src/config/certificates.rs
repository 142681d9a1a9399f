//! PEM bundles: checked here, for the TLS library takes a broken one for a bug and panics.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

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
            .ok()
            .filter(|bytes| is_certificate(bytes))
            .ok_or_else(|| format!("has a broken certificate, number {number}"))?;
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

/// Whether the bytes are one DER sequence that begins with another, each of the length it says.
fn is_certificate(bytes: &[u8]) -> bool {
    let Some((body, [])) = sequence(bytes) else {
        return false;
    };
    sequence(body).is_some_and(|(_, rest)| !rest.is_empty())
}

/// The contents of the DER sequence at the beginning, and what follows it.
fn sequence(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    if tag != 0x30 {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            let fold = |length: usize, digit: &u8| length << 8 | usize::from(*digit);
            (digits.iter().fold(0, fold), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of a certificate: a sequence of a sequence and something more.
    const DER: [u8; 8] = [0x30, 0x06, 0x30, 0x02, 0x02, 0x00, 0x03, 0x00];

    fn block(der: &[u8]) -> String {
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(der))
    }

    #[test]
    fn certificates_are_kept_and_the_rest_left_out() {
        let bundle = format!("# mine\n{}text\n{}", block(&DER), block(&DER));
        let kept = normalized(bundle.as_bytes()).unwrap();
        assert_eq!(kept, format!("{}{}", block(&DER), block(&DER)).into_bytes());
    }

    #[test]
    fn a_broken_bundle_is_refused() {
        for bundle in [
            String::new(),
            "no certificate".to_owned(),
            format!("{BEGIN}\nMAA=\n"),
            format!("{BEGIN}\n!!!\n{END}\n"),
            block(&DER[..7]),
            block(&[0x30, 0x00]),
            block(&[]),
        ] {
            assert!(normalized(bundle.as_bytes()).is_err(), "{bundle}");
        }
        assert!(normalized(&[0xFF, 0x00]).is_err());
    }
}

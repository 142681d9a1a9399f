//! From when until when a certificate is valid, and the certificates of a PEM file.
//!
//! Reads just so much of a certificate (RFC 5280, section 4.1). Pure. Not here: whether it can be
//! trusted (`tls`, and rustls-webpki).

use chrono::{DateTime, NaiveDate, Utc};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// Where the version stands, which may be left out.
const VERSION: u8 = 0xa0;

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: DateTime<Utc>,
    /// The last moment.
    pub not_after: DateTime<Utc>,
}

/// The certificates in a PEM text, in order. Other sections are passed over.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| error.to_string())?;
    if all.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    Ok(all)
}

/// The validity of a certificate; `None` where it is no certificate.
pub fn validity(certificate: &[u8]) -> Option<Validity> {
    let mut certificate = Reader(certificate).enter(SEQUENCE)?;
    let mut body = certificate.enter(SEQUENCE)?;
    if body.0.first() == Some(&VERSION) {
        body.take(VERSION)?;
    }
    body.take(INTEGER)?; // serial number
    body.take(SEQUENCE)?; // algorithm of the signature
    body.take(SEQUENCE)?; // issuer
    let mut validity = body.enter(SEQUENCE)?;
    Some(Validity {
        not_before: validity.time()?,
        not_after: validity.time()?,
    })
}

/// What is left of some DER.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The inside of the next value.
    fn enter(&mut self, tag: u8) -> Option<Self> {
        self.take(tag).map(Reader)
    }

    /// The contents of the next value, which is behind it now.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            let (digits, behind) = rest.split_at_checked(usize::from(first & 0x7f))?;
            rest = behind;
            if digits.is_empty() || digits.len() > 4 {
                return None;
            }
            digits
                .iter()
                .fold(0, |length, &digit| length << 8 | usize::from(digit))
        };
        let (value, behind) = rest.split_at_checked(length)?;
        self.0 = behind;
        (*found == tag).then_some(value)
    }

    /// The next value, a time: `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`.
    fn time(&mut self) -> Option<DateTime<Utc>> {
        let tag = *self.0.first()?;
        let text = str::from_utf8(self.take(tag)?).ok()?.strip_suffix('Z')?;
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (year, rest) = match (tag, text.len()) {
            (UTC_TIME, 12) => {
                let year: i32 = text[..2].parse().ok()?;
                // Two digits: 50 to 99 are of the last century.
                (if year < 50 { 2000 } else { 1900 } + year, &text[2..])
            }
            (GENERALIZED_TIME, 14) => (text[..4].parse().ok()?, &text[4..]),
            _ => return None,
        };
        let number = |at: usize| rest[at..at + 2].parse::<u32>().ok();
        let day = NaiveDate::from_ymd_opt(year, number(0)?, number(2)?)?;
        let time = day.and_hms_opt(number(4)?, number(6)?, number(8)?)?;
        Some(time.and_utc())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(from: (i32, u8, u8), until: (i32, u8, u8)) -> rcgen::Certificate {
        let mut params = CertificateParams::new(["barman-cloud".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(until.0, until.1, until.2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn the_validity_is_read_in_both_forms_of_time() {
        let certificate = certificate((1999, 12, 31), (2051, 2, 3));
        let validity = validity(certificate.der()).unwrap();
        assert_eq!(
            validity.not_before.to_rfc3339(),
            "1999-12-31T00:00:00+00:00"
        );
        assert_eq!(validity.not_after.to_rfc3339(), "2051-02-03T00:00:00+00:00");
    }

    #[test]
    fn what_is_cut_short_is_no_certificate() {
        let certificate = certificate((2020, 1, 1), (2021, 1, 1));
        let whole = certificate.der();
        for length in 0..whole.len() {
            assert_eq!(validity(&whole[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let key = KeyPair::generate().unwrap().serialize_pem();
        assert!(certificates(key.as_bytes()).is_err());
        assert!(certificates(b"").is_err());
        let pem = certificate((2020, 1, 1), (2021, 1, 1)).pem();
        let text = format!("{key}{pem}{pem}");
        assert_eq!(certificates(text.as_bytes()).unwrap().len(), 2);
    }
}

//! Small things of S3's wire format that the SDK leaves to its callers.

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::DateTime as SdkDateTime;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;

/// A key from a listing that was asked for with `encoding-type=url`: `+` is a space there.
pub(super) fn decode_key(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    Some(percent_decode_str(&spaced).decode_utf8().ok()?.into_owned())
}

/// Tags as the header takes them.
pub(super) fn tagging(tags: &[(String, String)]) -> Option<String> {
    if tags.is_empty() {
        return None;
    }
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    Some(query.extend_pairs(tags).finish())
}

/// The whole size out of `bytes 0-9/100`.
pub(super) fn whole_size(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.trim().parse().ok()
}

/// A time of the SDK; the epoch for one out of range.
pub(super) fn time(at: Option<&SdkDateTime>) -> DateTime<Utc> {
    at.and_then(|at| DateTime::from_timestamp(at.secs(), at.subsec_nanos()))
        .unwrap_or(DateTime::UNIX_EPOCH)
}

/// Whether XML 1.0 can say the key: bulk deletes name keys in XML.
pub(super) fn is_xml_text(key: &str) -> bool {
    key.chars()
        .all(|character| matches!(character, ' '..='\u{FFFD}' | '\u{10000}'..))
}

/// The value of Content-MD5.
pub(super) fn md5_of(body: &[u8]) -> String {
    STANDARD.encode(Md5::digest(body))
}

/// Puts a Content-MD5 in place of the SDK's checksum header, which many stores do not know.
#[derive(Debug)]
pub(super) struct ContentMd5;

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for ContentMd5 {
    fn name(&self) -> &'static str {
        "ContentMd5"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        let body = request.body().bytes().ok_or("the body is not in memory")?;
        let digest = md5_of(body);
        let checksums: Vec<String> = request
            .headers()
            .iter()
            .map(|(name, _)| name.to_owned())
            .filter(|name| {
                name.starts_with("x-amz-checksum-") || name == "x-amz-sdk-checksum-algorithm"
            })
            .collect();
        for name in checksums {
            request.headers_mut().remove(name);
        }
        request.headers_mut().insert("content-md5", digest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_keys_are_decoded() {
        for (wire, key) in [
            ("a+b", "a b"),
            ("a%2Bb", "a+b"),
            ("a%2F%2Fb%25", "a//b%"),
            ("%C3%BC", "ü"),
        ] {
            assert_eq!(decode_key(wire).as_deref(), Some(key));
        }
        assert_eq!(decode_key("%FF"), None);
    }

    #[test]
    fn tags_are_a_query() {
        let tags = [
            ("a b".to_owned(), "c&d".to_owned()),
            ("e".into(), String::new()),
        ];
        assert_eq!(tagging(&tags).as_deref(), Some("a+b=c%26d&e="));
        assert_eq!(tagging(&[]), None);
    }

    #[test]
    fn the_whole_size_follows_the_slash() {
        assert_eq!(whole_size("bytes 0-9/100"), Some(100));
        assert_eq!(whole_size("bytes */5"), Some(5));
        assert_eq!(whole_size("bytes 0-9/*"), None);
    }

    #[test]
    fn keys_that_xml_cannot_say_are_known() {
        assert!(is_xml_text("a/b ü\u{1F600}<&>"));
        assert!(!is_xml_text("a\u{1}b") && !is_xml_text("a\r\nb"));
    }
}

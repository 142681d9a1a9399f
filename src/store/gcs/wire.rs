//! Google's wire format: what JSON says of an object, how names become URLs, bodies of many parts.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::store::{ObjectKey, ObjectMeta};

/// What goes through a path and a query as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Between the parts of a body: 128 bits of chance, so that no part has it in it.
#[derive(Debug, Clone)]
pub(super) struct Boundary(String);

impl Boundary {
    pub(super) fn random() -> Self {
        Self(format!("cellarman-{:032x}", fastrand::u128(..)))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The fields of an object that are asked for.
pub(super) const OBJECT_FIELDS: &str = "name,size,generation,timeCreated,crc32c";

/// An object as JSON says it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectResource {
    name: String,
    /// A number of 64 bits, which JSON writes as text.
    size: Option<String>,
    generation: Option<String>,
    time_created: Option<DateTime<Utc>>,
    pub(super) crc32c: Option<String>,
}

impl ObjectResource {
    /// What it says; `None` without a size or a generation.
    pub(super) fn to_meta(&self) -> Option<ObjectMeta> {
        Some(ObjectMeta {
            key: ObjectKey::new(&self.name),
            size: self.size.as_ref()?.parse().ok()?,
            etag: Some(self.generation.clone()?),
            modified: self.time_created.unwrap_or(DateTime::UNIX_EPOCH),
        })
    }
}

/// One page of a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListResource {
    #[serde(default)]
    pub(super) items: Vec<ObjectResource>,
    #[serde(default)]
    pub(super) prefixes: Vec<String>,
    pub(super) next_page_token: Option<String>,
}

/// What a new object is to be.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewObject<'a> {
    pub(super) name: &'a str,
    pub(super) content_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) crc32c: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) storage_class: Option<&'a str>,
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub(super) metadata: serde_json::Map<String, serde_json::Value>,
}

/// Tags as an object's own metadata, where Barman puts them too.
pub(super) fn metadata(tags: &[(String, String)]) -> serde_json::Map<String, serde_json::Value> {
    tags.iter()
        .map(|(name, value)| (name.clone(), value.clone().into()))
        .collect()
}

/// A checksum as JSON says it.
pub(super) fn crc32c_text(crc32c: u32) -> String {
    STANDARD.encode(crc32c.to_be_bytes())
}

/// One element of a path.
pub(super) fn path_element(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A query, with its question mark; nothing of no pairs.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        let sign = if text.is_empty() { '?' } else { '&' };
        let _ = write!(text, "{sign}{name}={}", path_element(value));
    }
    text
}

/// The body of an upload in one request: the description, the bytes, and the end.
pub(super) fn related(boundary: &Boundary, description: &str, body: Bytes) -> [Bytes; 3] {
    let boundary = boundary.as_str();
    let head = format!(
        "--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{description}\r\n\
         --{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
    );
    [head.into(), body, format!("\r\n--{boundary}--\r\n").into()]
}

/// The body of many deletes in one request. Those of `paths` are of this service, without a host.
pub(super) fn batch_of_deletes(boundary: &Boundary, paths: &[String]) -> String {
    let boundary = boundary.as_str();
    let mut text = String::new();
    for (number, path) in (1..).zip(paths) {
        let _ = write!(
            text,
            "--{boundary}\r\nContent-Type: application/http\r\nContent-ID: <{number}>\r\n\r\n\
             DELETE {path} HTTP/1.1\r\n\r\n\r\n"
        );
        let _: u32 = number;
    }
    let _ = write!(text, "--{boundary}--\r\n");
    text
}

/// One answer out of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PartAnswer<'a> {
    /// The number of the question, from 1.
    pub(super) number: usize,
    pub(super) status: u16,
    pub(super) body: &'a str,
}

/// The answers to a batch. `None` for what is no such body.
pub(super) fn batch_answers<'a>(content_type: &str, body: &'a str) -> Option<Vec<PartAnswer<'a>>> {
    let boundary = content_type.split_once("boundary=")?.1;
    let boundary = boundary.split(';').next()?.trim().trim_matches('"');
    let delimiter = format!("--{boundary}");
    let mut answers = Vec::new();
    for part in body.split(delimiter.as_str()).skip(1) {
        if part.starts_with("--") {
            return Some(answers);
        }
        answers.push(part_answer(part)?);
    }
    // Without the last mark it was cut short.
    None
}

fn part_answer(part: &str) -> Option<PartAnswer<'_>> {
    let (head, answer) = split_at_blank_line(part)?;
    let id = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim()
            .eq_ignore_ascii_case("content-id")
            .then(|| value.trim())
    })?;
    // `<response-1>`, or `<response-something+1>`.
    let digits = id.trim_end_matches('>').rsplit(['-', '+', '<']).next()?;
    let (head, body) = split_at_blank_line(answer).unwrap_or((answer, ""));
    let status = head.trim_start().split_ascii_whitespace().nth(1)?;
    Some(PartAnswer {
        number: digits.parse().ok()?,
        status: status.parse().ok()?,
        body: body.trim(),
    })
}

fn split_at_blank_line(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches(['\r', '\n']);
    text.split_once("\r\n\r\n")
        .or_else(|| text.split_once("\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_element_of_a_path() {
        for (name, path) in [
            ("a/b", "a%2Fb"),
            ("a//b c", "a%2F%2Fb%20c"),
            ("..", ".."),
            ("x%41+é?#", "x%2541%2B%C3%A9%3F%23"),
        ] {
            assert_eq!(path_element(name), path);
        }
        assert_eq!(query(&[("a", "b c"), ("d", "&")]), "?a=b%20c&d=%26");
        assert_eq!(query(&[]), "");
    }

    #[test]
    fn a_checksum_is_big_endian_base64() {
        assert_eq!(crc32c_text(crc32c::crc32c(b"hello")), "mnG7TA==");
    }

    #[test]
    fn an_object_without_a_generation_is_none() {
        let read = |text: &str| {
            serde_json::from_str::<ObjectResource>(text)
                .unwrap()
                .to_meta()
        };
        let whole = r#"{"name":"a","size":"5","generation":"17",
            "timeCreated":"2026-11-21T11:00:36.126738Z"}"#;
        let meta = read(whole).unwrap();
        assert_eq!((meta.size, meta.etag.as_deref()), (5, Some("17")));
        assert_eq!(meta.modified.timestamp_subsec_micros(), 126_738);
        assert_eq!(read(r#"{"name":"a","size":"5"}"#), None);
        assert_eq!(read(r#"{"name":"a","size":"-5","generation":"1"}"#), None);
    }

    /// As Google documents it, with its own form of the ids.
    const ANSWER: &str = "--batch_1\r\nContent-Type: application/http\r\n\
        Content-ID: <response-b29c5de2-0db4-490b-b421-6a51b598bd22+1>\r\n\r\n\
        HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n\r\n\
        --batch_1\r\nContent-Type: application/http\r\nContent-ID: <response-2>\r\n\r\n\
        HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n\r\n{\"error\":{}}\r\n\
        --batch_1--";

    #[test]
    fn answers_of_a_batch_are_taken_apart() {
        let answers = batch_answers("multipart/mixed; boundary=\"batch_1\"", ANSWER).unwrap();
        let expected = [(1, 204, ""), (2, 404, "{\"error\":{}}")];
        let expected = expected.map(|(number, status, body)| PartAnswer {
            number,
            status,
            body,
        });
        assert_eq!(answers, expected);
    }

    #[test]
    fn a_batch_cut_short_is_no_answer() {
        for end in [ANSWER.len() - 2, ANSWER.len() - 40, 60, 10, 0] {
            let cut = &ANSWER[..end];
            assert_eq!(
                batch_answers("multipart/mixed; boundary=batch_1", cut),
                None
            );
        }
        assert_eq!(batch_answers("text/html", ANSWER), None);
    }
}

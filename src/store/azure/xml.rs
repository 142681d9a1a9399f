//! The XML of Azure's answers, and of the one request that has some.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;
use serde::Deserialize;

/// A page of a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listing {
    #[serde(default)]
    pub(super) blobs: Blobs,
    /// Where it goes on; empty at the end.
    #[serde(default)]
    pub(super) next_marker: String,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Blobs {
    #[serde(default, rename = "Blob")]
    pub(super) blobs: Vec<Blob>,
    #[serde(default, rename = "BlobPrefix")]
    pub(super) prefixes: Vec<BlobPrefix>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Blob {
    pub(super) name: Name,
    pub(super) properties: Properties,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct BlobPrefix {
    pub(super) name: Name,
}

/// A name, percent-encoded where XML could not say it.
#[derive(Debug, Deserialize)]
pub(super) struct Name {
    #[serde(default, rename = "@Encoded")]
    is_encoded: bool,
    #[serde(default, rename = "$text")]
    text: String,
}

impl Name {
    pub(super) fn decoded(self) -> Result<String, String> {
        if !self.is_encoded {
            return Ok(self.text);
        }
        let decoded = percent_decode_str(&self.text).decode_utf8();
        decoded
            .map(Cow::into_owned)
            .map_err(|_| "a name in the listing is no UTF-8".to_owned())
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Properties {
    #[serde(default, rename = "Content-Length")]
    pub(super) content_length: u64,
    #[serde(default, rename = "Last-Modified")]
    pub(super) last_modified: Option<String>,
    #[serde(default)]
    pub(super) etag: Option<String>,
    /// `directory` for what is none of ours: accounts with a hierarchical namespace list them.
    #[serde(default)]
    pub(super) resource_type: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BlockList {
    #[serde(default)]
    uncommitted_blocks: Blocks,
}

#[derive(Debug, Default, Deserialize)]
struct Blocks {
    #[serde(default, rename = "Block")]
    blocks: Vec<Block>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Block {
    name: String,
}

/// What an error's body says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ErrorBody {
    #[serde(default)]
    pub(super) code: Option<String>,
    #[serde(default)]
    pub(super) message: Option<String>,
    #[serde(default)]
    pub(super) authentication_error_detail: Option<String>,
}

/// A page of a listing.
pub(super) fn listing(body: &[u8]) -> Result<Listing, String> {
    parsed(body)
}

/// The ids of the blocks that no blob has yet.
pub(super) fn uncommitted_blocks(body: &[u8]) -> Result<Vec<String>, String> {
    let list: BlockList = parsed(body)?;
    let blocks = list.uncommitted_blocks.blocks;
    Ok(blocks.into_iter().map(|block| block.name).collect())
}

/// What the body of a refusal says, as far as it says anything.
pub(super) fn error(body: &[u8]) -> ErrorBody {
    parsed(body).unwrap_or_default()
}

fn parsed<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, String> {
    let text = str::from_utf8(body).map_err(|_| "the answer is no UTF-8".to_owned())?;
    // The service puts a byte order mark in front.
    let text = text.trim_start_matches('\u{FEFF}');
    quick_xml::de::from_str(text).map_err(|error| format!("the answer makes no sense: {error}"))
}

/// The body that makes a blob of blocks, in this order.
pub(super) fn block_list<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let mut text = r#"<?xml version="1.0" encoding="utf-8"?><BlockList>"#.to_owned();
    for id in ids {
        text.push_str("<Uncommitted>");
        text.push_str(id);
        text.push_str("</Uncommitted>");
    }
    text.push_str("</BlockList>");
    text
}

/// A time as HTTP writes it; the epoch for none or an odd one.
pub(super) fn time(text: Option<&str>) -> DateTime<Utc> {
    text.and_then(|text| DateTime::parse_from_rfc2822(text).ok())
        .map_or(DateTime::UNIX_EPOCH, |at| at.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_to_the_letter() {
        let text = "\u{FEFF}<?xml version=\"1.0\" encoding=\"utf-8\"?>\
            <EnumerationResults ServiceEndpoint=\"https://a.blob.core.windows.net/\" \
            ContainerName=\"c\"><Prefix>p</Prefix><MaxResults>4</MaxResults><Blobs>\
            <Blob><Name>p/a &amp; b </Name><Properties>\
            <Last-Modified>Sat, 21 Nov 2026 11:00:00 GMT</Last-Modified><Etag>0x8D</Etag>\
            <Content-Length>17</Content-Length><ResourceType>file</ResourceType>\
            </Properties><OrMetadata/></Blob>\
            <BlobPrefix><Name>p/b/</Name></BlobPrefix>\
            <Blob><Name Encoded=\"true\">p%2Fc%EF%BF%BF%20</Name><Properties>\
            <Content-Length>0</Content-Length></Properties></Blob>\
            </Blobs><NextMarker>2!92!x</NextMarker></EnumerationResults>";
        let listing = listing(text.as_bytes()).unwrap();
        assert_eq!(listing.next_marker, "2!92!x");
        let [first, second]: [Blob; 2] = listing.blobs.blobs.try_into().unwrap();
        assert_eq!(first.properties.content_length, 17);
        assert_eq!(first.properties.etag.as_deref(), Some("0x8D"));
        let modified = time(first.properties.last_modified.as_deref());
        assert_eq!(modified.to_rfc3339(), "2026-11-21T11:00:00+00:00");
        assert_eq!(first.name.decoded().unwrap(), "p/a & b ");
        assert_eq!(second.name.decoded().unwrap(), "p/c\u{FFFF} ");
        let [prefix]: [BlobPrefix; 1] = listing.blobs.prefixes.try_into().unwrap();
        assert_eq!(prefix.name.decoded().unwrap(), "p/b/");
    }

    #[test]
    fn empty_and_broken_answers_are_told_apart() {
        let empty = "<EnumerationResults><Blobs /><NextMarker /></EnumerationResults>";
        let page = listing(empty.as_bytes()).unwrap();
        assert!(page.blobs.blobs.is_empty() && page.next_marker.is_empty());
        for broken in ["", "<html>", "<EnumerationResults><Blobs><Blob>", "\u{0}"] {
            assert!(listing(broken.as_bytes()).is_err(), "{broken}");
        }
        assert_eq!(error(b"<html>no</html>").code, None);
    }

    #[test]
    fn blocks_are_listed_and_written() {
        let text = "<BlockList><UncommittedBlocks><Block><Name>AA==</Name><Size>1</Size></Block>\
            <Block><Name>AB==</Name><Size>1</Size></Block></UncommittedBlocks></BlockList>";
        assert_eq!(
            uncommitted_blocks(text.as_bytes()).unwrap(),
            ["AA==", "AB=="]
        );
        assert_eq!(uncommitted_blocks(b"<BlockList/>").unwrap(), [""; 0]);
        assert!(
            block_list(["AA=="].into_iter())
                .ends_with("<BlockList><Uncommitted>AA==</Uncommitted></BlockList>")
        );
    }
}

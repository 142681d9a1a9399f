//! The names of uploads and of their blocks, which Azure leaves to its clients.
//!
//! All blocks of a blob that is not written yet lie together, whoever put them: a name of the
//! upload in each keeps two uploads for one key apart.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::wire;
use crate::store::{PutOptions, UploadId};

/// Hexadecimal digits of an upload's own name, and decimal digits of a block's number.
const NAME_DIGITS: usize = 16;
const NUMBER_DIGITS: usize = 5;

/// An upload's own name and what its last request must say: nothing else remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upload {
    /// Unlike that of any other upload.
    pub(super) name: String,
    /// The blob may not be there yet.
    pub(super) if_absent: bool,
    /// Index tags, in the header's own form.
    pub(super) tags: Option<String>,
}

impl Upload {
    /// A new one.
    pub(super) fn new(options: &PutOptions) -> Self {
        Self {
            name: format!("{:016x}", fastrand::u64(..)),
            if_absent: options.if_absent,
            tags: wire::tags(&options.tags),
        }
    }

    /// Its id: the name, a star if the blob may not be there yet, and the tags after a `?`.
    pub(super) fn to_id(&self) -> UploadId {
        let star = if self.if_absent { "*" } else { "" };
        let tags = self.tags.as_deref().map(|tags| format!("?{tags}"));
        UploadId(format!("{}{star}{}", self.name, tags.unwrap_or_default()))
    }

    /// The upload of that id, if the id is one of ours.
    pub(super) fn of_id(id: &UploadId) -> Option<Self> {
        let (head, tags) = match id.0.split_once('?') {
            Some((head, tags)) => (head, Some(tags.to_owned())),
            None => (id.0.as_str(), None),
        };
        let name = head.trim_end_matches('*');
        is_name(name).then(|| Self {
            name: name.to_owned(),
            if_absent: name != head,
            tags,
        })
    }

    /// The id of block `number`. All ids of a blob's blocks must be equally long.
    pub(super) fn block_id(&self, number: u32) -> String {
        STANDARD.encode(format!("{}{number:05}", self.name))
    }
}

/// The name of the upload that a block belongs to, unless another program has put it.
pub(super) fn name_of_block(block_id: &str) -> Option<String> {
    let text = String::from_utf8(STANDARD.decode(block_id).ok()?).ok()?;
    let (name, number) = text.split_at_checked(NAME_DIGITS)?;
    let is_number =
        number.len() == NUMBER_DIGITS && number.bytes().all(|digit| digit.is_ascii_digit());
    (is_name(name) && is_number).then(|| name.to_owned())
}

fn is_name(text: &str) -> bool {
    text.len() == NAME_DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_what_the_last_request_needs() {
        for (if_absent, tags) in [
            (false, vec![]),
            (true, vec![]),
            (true, vec![("a b".to_owned(), "c?*&=".to_owned())]),
        ] {
            let options = PutOptions {
                if_absent,
                tags,
                ..PutOptions::default()
            };
            let upload = Upload::new(&options);
            assert_eq!(Upload::of_id(&upload.to_id()), Some(upload));
        }
        assert_eq!(Upload::of_id(&UploadId("foreign".to_owned())), None);
    }

    #[test]
    fn blocks_are_told_apart_by_upload_and_number() {
        let (one, other) = (
            Upload::new(&PutOptions::default()),
            Upload::new(&PutOptions::default()),
        );
        assert_ne!(one.block_id(1), other.block_id(1));
        assert_ne!(one.block_id(1), one.block_id(2));
        assert_eq!(one.block_id(1).len(), one.block_id(10_000).len());
        assert_eq!(name_of_block(&other.block_id(7)), Some(other.name));
        // The ids of Barman's blocks, and some that are no ids at all.
        for foreign in ["MDAwMDE=", "", "!", "AAAA"] {
            assert_eq!(name_of_block(foreign), None, "{foreign}");
        }
    }
}

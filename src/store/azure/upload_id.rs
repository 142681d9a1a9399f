//! The names of uploads and of their blocks, which Azure leaves to its clients.
//!
//! All blocks of a blob that is not written yet lie together, whoever put them: a name of the
//! upload in each keeps two uploads for one key apart.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::store::UploadId;

/// Hexadecimal digits of an upload's name, and decimal digits of a block's number.
const NAME_DIGITS: usize = 16;
const NUMBER_DIGITS: usize = 5;

/// A new upload's id, unlike that of any other.
pub(super) fn new() -> UploadId {
    UploadId(format!("{:016x}", fastrand::u64(..)))
}

/// The id of block `number`. All ids of a blob's blocks must be equally long.
pub(super) fn block_id(upload: &UploadId, number: u32) -> String {
    STANDARD.encode(format!("{}{number:05}", upload.0))
}

/// The upload that a block belongs to, unless another program has put it.
pub(super) fn of_block(block_id: &str) -> Option<UploadId> {
    let text = String::from_utf8(STANDARD.decode(block_id).ok()?).ok()?;
    let (name, number) = text.split_at_checked(NAME_DIGITS)?;
    let is_name = name.bytes().all(|digit| digit.is_ascii_hexdigit());
    let is_number =
        number.len() == NUMBER_DIGITS && number.bytes().all(|digit| digit.is_ascii_digit());
    (is_name && is_number).then(|| UploadId(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_told_apart_by_upload_and_number() {
        let (one, other) = (new(), new());
        assert_ne!(block_id(&one, 1), block_id(&other, 1));
        assert_ne!(block_id(&one, 1), block_id(&one, 2));
        assert_eq!(block_id(&one, 1).len(), block_id(&one, 10_000).len());
        assert_eq!(of_block(&block_id(&other, 7)), Some(other));
        // The ids of Barman's blocks, and some that are no ids at all.
        for foreign in ["MDAwMDE=", "", "!", "AAAA"] {
            assert_eq!(of_block(foreign), None, "{foreign}");
        }
    }
}

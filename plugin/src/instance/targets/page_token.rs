//! Where to go on in a list, as a token that callers only pass on. Pure.
//!
//! The token names its archive by a digest, so that one of another archive, or one that somebody
//! changed, is known for what it is. Not here: the list (`cellarman::service::targets::list`).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cellarman::domain::lsn::Lsn;
use cellarman::domain::segment::SegmentNumber;
use cellarman::domain::timeline::TimelineId;
use cellarman::service::targets::list::{Key, Place};

use crate::cluster::ArchiveRef;

/// What tokens of this shape begin with.
const SHAPE: &str = "1";

/// The hexadecimal digits of the digest.
const DIGEST_DIGITS: usize = 16;

/// The token of a place.
pub(super) fn write(place: &Place, archive: &ArchiveRef) -> String {
    let mut fields = vec![
        SHAPE.to_owned(),
        place.timeline.to_string(),
        place.segment.to_u64().to_string(),
    ];
    if let Some(after) = &place.after {
        fields.extend([after.lsn.to_u64().to_string(), after.backup.clone()]);
    }
    let text = fields.join(",");
    URL_SAFE_NO_PAD.encode(format!("{},{text}", digest(&text, archive)))
}

/// The place of a token; `None` for what is none of this archive's.
pub(super) fn read(token: &str, archive: &ArchiveRef) -> Option<Place> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (found, text) = text.split_once(',')?;
    if found != digest(text, archive) {
        return None;
    }
    let mut fields = text.splitn(5, ',');
    if fields.next() != Some(SHAPE) {
        return None;
    }
    let timeline: TimelineId = fields.next()?.parse().ok()?;
    let number: u64 = fields.next()?.parse().ok()?;
    let after = match (fields.next(), fields.next()) {
        (Some(lsn), Some(backup)) => Some(Key {
            lsn: Lsn::new(lsn.parse().ok()?),
            backup: backup.to_owned(),
        }),
        _ => None,
    };
    Some(Place {
        timeline,
        segment: SegmentNumber::default().plus(number)?,
        after,
    })
}

fn digest(text: &str, archive: &ArchiveRef) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [&archive.object_store, &archive.server, text] {
        hasher.update(part.as_bytes());
        hasher.update(b"\n");
    }
    let mut digits = hasher.finalize().to_hex().to_string();
    digits.truncate(DIGEST_DIGITS);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(server: &str) -> ArchiveRef {
        ArchiveRef {
            object_store: "store".to_owned(),
            server: server.to_owned(),
        }
    }

    #[test]
    fn a_token_reads_back_for_its_archive_and_for_no_other() {
        let key = |backup: &str| Key {
            lsn: Lsn::new(7),
            backup: backup.to_owned(),
        };
        for after in [None, Some(key("")), Some(key("20261121T214029"))] {
            let place = Place {
                timeline: TimelineId::FIRST,
                segment: SegmentNumber::MAX,
                after,
            };
            let token = write(&place, &archive("pg"));
            assert_eq!(read(&token, &archive("pg")), Some(place));
            assert_eq!(read(&token, &archive("other")), None);
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let place = Place {
            timeline: TimelineId::FIRST,
            segment: SegmentNumber::default(),
            after: None,
        };
        let good = write(&place, &archive("pg"));
        let changed = good.replace('1', "2").replace('M', "N");
        assert_ne!(good, changed);
        for token in ["x", "AAAA", "é", &good[1..], &format!("{good}AA"), &changed] {
            assert_eq!(read(token, &archive("pg")), None, "{token}");
        }
    }
}

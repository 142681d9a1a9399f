//! Objects as they are written and read.

use super::*;
use crate::domain::log::outline::Ends;
use crate::domain::log::stop::TransactionEnd;
use crate::domain::log::summary::{Checkpoint, RestorePoint, Switch};
use crate::domain::log::xid_set::{XidSet, XidSetBuilder};
use crate::domain::lsn::Lsn;
use crate::domain::timeline::TimelineId;
use chrono::{DateTime, Utc};

fn at(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap()
}

fn set_of(xids: &[u32]) -> XidSet {
    let mut builder = XidSetBuilder::default();
    for xid in xids {
        builder.insert(*xid);
    }
    builder.finish()
}

fn idle(name: &str) -> SegmentSummary {
    SegmentSummary {
        name: name.parse().unwrap(),
        first_record: None,
        last_record_end: None,
        ends: None,
        last_end: None,
        xids: XidSet::default(),
        subtransactions: XidSet::default(),
        restore_points: Vec::new(),
        checkpoints: Vec::new(),
        switches: Vec::new(),
        unread_records: 0,
        is_whole: true,
    }
}

fn busy(name: &str) -> SegmentSummary {
    let end = TransactionEnd {
        xid: 9,
        time: at(1_700_000_000_000_900),
        is_commit: false,
    };
    SegmentSummary {
        first_record: Some(Lsn::new(0x300_0028)),
        last_record_end: Some(Lsn::new(0x3FF_FFF8)),
        ends: Some(Ends {
            commits: 2,
            aborts: 1,
            earliest: at(1_700_000_000_000_000),
            latest: at(1_700_000_000_001_000),
            oldest_xid: 7,
            newest_xid: 9,
        }),
        last_end: Some((Lsn::new(0x3FF_0000), end)),
        xids: set_of(&[7, 9]),
        subtransactions: set_of(&[8]),
        restore_points: vec![RestorePoint {
            lsn: Lsn::new(0x310_0000),
            time: at(1_700_000_000_000_100),
            name: b"before \xff\"midnight\"".to_vec(),
        }],
        checkpoints: vec![Checkpoint {
            lsn: Lsn::new(0x320_0000),
            time: at(1_700_000_000_000_000),
        }],
        switches: vec![Switch {
            lsn: Lsn::new(0x330_0000),
            from: TimelineId::FIRST,
            to: TimelineId::new(2).unwrap(),
        }],
        unread_records: 1,
        ..idle(name)
    }
}

fn object() -> IndexObject {
    IndexObject {
        system_id: SystemId(7_001),
        segment_size: SegmentSize::DEFAULT,
        segments: vec![
            idle("000000010000000000000002"),
            busy("000000010000000000000003"),
        ],
    }
}

/// An object with these lines.
fn stored(lines: &[&str]) -> Vec<u8> {
    zstd::encode_all(lines.join("\n").as_bytes(), 1).unwrap()
}

#[test]
fn an_object_reads_back_as_it_was_written() {
    let object = object();
    let bytes = object.to_bytes().unwrap();
    assert_eq!(IndexObject::parse(&bytes).unwrap(), object);
    let layout = Layout::new("p", &"main".parse().unwrap());
    let written = object.outline().unwrap();
    assert_eq!(written.count, 2);
    assert_eq!(outline(&key(&layout, &written)), Ok(written));
}

#[test]
fn a_damaged_or_shortened_object_is_refused() {
    let bytes = object().to_bytes().unwrap();
    for length in 0..bytes.len() {
        assert!(IndexObject::parse(&bytes[..length]).is_err(), "{length}");
    }
    for place in 0..bytes.len() {
        let mut other = bytes.clone();
        other[place] ^= 0x10;
        let read = IndexObject::parse(&other);
        assert!(read.is_err() || read.unwrap() == object(), "{place}");
    }
}

#[test]
fn lines_that_are_not_what_they_should_be_are_refused() {
    let head = r#"{"format":1,"system_id":"7","segment_size":16777216}"#;
    let segment = r#"{"name":"000000010000000000000002","is_whole":true,"later":1}"#;
    let far = r#"{"name":"000000010000000000000004","is_whole":true}"#;
    let foot = r#"{"segments":1}"#;
    assert!(IndexObject::parse(&stored(&[head, segment, foot])).is_ok());
    for lines in [
        &[head, foot][..],
        &[head, segment],
        &[segment, foot],
        &[head, segment, segment, foot],
        &[head, segment, far, r#"{"segments":2}"#],
        &[
            r#"{"format":2,"system_id":"7","segment_size":16777216}"#,
            segment,
            foot,
        ],
        &[
            r#"{"format":1,"system_id":"7","segment_size":17}"#,
            segment,
            foot,
        ],
        &[head, r#"{"name":"00000001","is_whole":true}"#, foot],
        &[
            head,
            r#"{"name":"000000010000000000000002","first_record":"x","is_whole":true}"#,
            foot,
        ],
    ] {
        assert!(IndexObject::parse(&stored(lines)).is_err(), "{lines:?}");
    }
}

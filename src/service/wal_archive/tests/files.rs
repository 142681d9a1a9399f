//! One file: put, compared, refused.

use super::*;
use crate::store::Learnt;

#[tokio::test]
async fn after_the_first_file_each_takes_one_request() {
    let bed = Bed::new();
    for number in 1..=3 {
        bed.write(segment_name(1, number), number);
    }
    assert!(matches!(
        bed.archive(segment_name(1, 1)).await,
        Archived::Put(_)
    ));
    for number in 2..=3 {
        let (calls, _) = bed.requests(bed.archive(segment_name(1, number))).await;
        assert_eq!(calls, [Call::Put]);
    }
    for number in 1..=3 {
        bed.assert_stored(segment_name(1, number)).await;
    }
}

#[tokio::test]
async fn the_same_bytes_again_are_success_and_others_are_refused() {
    let bed = Bed::new();
    let name = segment_name(1, 1);
    bed.write(name, 1);
    bed.archive(name).await;
    assert!(matches!(bed.archive(name).await, Archived::AlreadyThere(_)));
    let before = bed.content(name, Codec::Zstd).await;
    bed.write(name, 2);
    assert_eq!(bed.kind(name).await, Kind::Conflict);
    assert!(bed.content(name, Codec::Zstd).await == before);
}

#[tokio::test]
async fn a_change_of_codec_makes_no_second_object_of_a_file() {
    let mut bed = Bed::new();
    let name = segment_name(1, 1);
    bed.write(name, 1);
    bed.write(segment_name(1, 2), 2);
    bed.archive(name).await;
    bed.options.compression = "gzip".parse().unwrap();
    let there = bed.archive(name).await;
    let zst = bed
        .repository
        .layout
        .wal(&WalFileName::Segment(name), Codec::Zstd);
    assert!(matches!(there, Archived::AlreadyThere(key) if key == zst));
    assert_eq!(bed.keys().await.len(), 1);
    bed.write(name, 3);
    assert_eq!(bed.kind(name).await, Kind::Conflict);
    let (calls, _) = bed.requests(bed.archive(segment_name(1, 2))).await;
    assert_eq!(calls, [Call::Put], "settled anew by the listing before");
}

#[tokio::test]
async fn what_is_there_and_cannot_be_read_is_not_overwritten() {
    let bed = Bed::new();
    let name = segment_name(1, 1);
    bed.write(name, 1);
    bed.archive(name).await;
    bed.put(&format!("{name}.zst"), b"broken".to_vec()).await;
    assert_eq!(bed.kind(name).await, Kind::Corrupt);
}

#[tokio::test]
async fn where_conditions_are_not_honoured_the_key_is_looked_at_first() {
    let bed = Bed::new();
    let name = segment_name(1, 2);
    bed.write(name, 1);
    let archiver = bed.archiver();
    let known = KnownArchive {
        system_id: None,
        is_put_conditional: false,
        settled: Some(Settled {
            codec: Codec::Zstd,
            after: segment_name(1, 1),
        }),
        empty_for: None,
        learnt: Learnt::default(),
    };
    let pg_wal = PgWal::at(&bed.pg_wal()).unwrap();
    pg_wal
        .remember_archive(&archiver.destination, &known)
        .unwrap();
    let (calls, _) = bed.requests(bed.archive(name)).await;
    assert_eq!(calls, [Call::Head, Call::Put]);
    bed.write(name, 2);
    assert_eq!(bed.kind(name).await, Kind::Conflict);
}

#[tokio::test]
async fn a_store_that_refuses_conditions_is_used_without() {
    let bed = Bed::new();
    let name = segment_name(1, 1);
    bed.write(name, 1);
    bed.archive(name).await;
    bed.write(segment_name(1, 2), 1);
    let unsupported = Trouble::Fails(StoreErrorKind::Unsupported);
    bed.store.add(Fault::next(Call::Put, unsupported));
    let (calls, _) = bed.requests(bed.archive(segment_name(1, 2))).await;
    assert_eq!(calls, [Call::Put, Call::Head, Call::Put]);
    bed.assert_stored(segment_name(1, 2)).await;
}

#[tokio::test]
async fn a_file_that_lies_is_refused_before_any_request() {
    let bed = Bed::new();
    let name = segment_name(1, 1);
    for bytes in [
        Vec::new(),
        vec![0; 1 << 20],
        SegmentBuilder::new(segment_name(1, 2), SYSTEM_ID).bytes(),
        SegmentBuilder::new(name, SYSTEM_ID).bytes()[..4096].to_vec(),
    ] {
        fs::write(bed.path(name), bytes).unwrap();
        let (calls, kind) = bed.requests(bed.kind(name)).await;
        assert_eq!((calls, kind), (Vec::new(), Kind::Corrupt));
    }
    fs::write(bed.pg_wal().join("nonsense"), "").unwrap();
    let archiver = bed.archiver();
    for (file, kind) in [
        ("nonsense", Kind::Usage),
        ("000000010000000000000009", Kind::Local),
    ] {
        let outcome = archiver.archive(&bed.pg_wal().join(file)).await;
        assert_eq!(outcome.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn every_kind_of_file_goes_where_barman_keeps_it() {
    let bed = Bed::new();
    let name = segment_name(1, 1);
    bed.write(name, 1);
    bed.archive(name).await;
    let archiver = bed.archiver();
    fs::copy(bed.path(name), bed.pg_wal().join(format!("{name}.partial"))).unwrap();
    fs::write(
        bed.pg_wal().join(format!("{name}.00000028.backup")),
        "START",
    )
    .unwrap();
    fs::write(bed.pg_wal().join("00000002.history"), "1\t0/100000\tx\n").unwrap();
    for file in [
        format!("{name}.partial"),
        format!("{name}.00000028.backup"),
        "00000002.history".to_owned(),
    ] {
        let outcome = archiver.archive(&bed.pg_wal().join(&file)).await.unwrap();
        let folder = if file.ends_with("history") {
            ""
        } else {
            "0000000100000000/"
        };
        let key = format!("p/main/wals/{folder}{file}.zst");
        assert_eq!(outcome, Archived::Put(ObjectKey::new(key)));
    }
}

#[tokio::test]
async fn a_large_segment_streams_in_parts_unless_little_is_left_of_it() {
    let mut bed = Bed::new();
    let name: SegmentName = "000000010000000000000003".parse().unwrap();
    let bytes = SegmentBuilder::of_size(name, SYSTEM_ID, 64 << 20).bytes();
    fs::write(bed.path(name), bytes).unwrap();
    let (calls, _) = bed.requests(bed.archive(name)).await;
    assert!(calls.ends_with(&[Call::Put]), "{calls:?}");
    bed.options.compression = Compression::NONE;
    let next: SegmentName = "000000010000000000000004".parse().unwrap();
    let bytes = SegmentBuilder::of_size(next, SYSTEM_ID, 64 << 20).bytes();
    fs::write(bed.path(next), bytes).unwrap();
    let (calls, _) = bed.requests(bed.archive(next)).await;
    assert!(
        calls.ends_with(&[Call::PutPart, Call::PutPart, Call::CompleteUpload]),
        "{calls:?}"
    );
    assert!(matches!(bed.archive(next).await, Archived::AlreadyThere(_)));
}

#[tokio::test]
async fn a_large_segment_that_another_primary_has_put_meanwhile_is_compared() {
    let name: SegmentName = "000000010000000000000003".parse().unwrap();
    let of_seed = |seed| SegmentBuilder::of_size(name, SYSTEM_ID, 64 << 20).seed(seed);
    for (theirs, is_same) in [(1, true), (2, false)] {
        let mut bed = Bed::new();
        bed.options.compression = Compression::NONE;
        // The archive is known to be this cluster's.
        let before: SegmentName = "000000010000000000000002".parse().unwrap();
        let bytes = SegmentBuilder::of_size(before, SYSTEM_ID, 64 << 20).bytes();
        fs::write(bed.path(before), bytes).unwrap();
        bed.archive(before).await;
        fs::write(bed.path(name), of_seed(1).bytes()).unwrap();
        bed.put(&name.to_string(), of_seed(theirs).bytes()).await;
        let key = bed
            .repository
            .layout
            .wal(&WalFileName::Segment(name), Codec::None);
        let before = bed.archive.store.head(&key).await.unwrap();
        // They were not done yet when we looked.
        let not_yet = Trouble::Fails(StoreErrorKind::NotFound);
        bed.store.add(Fault::next(Call::Head, not_yet));
        let (calls, archived) = bed.requests(bed.try_archive(name)).await;
        assert!(calls.contains(&Call::CompleteUpload), "{calls:?}");
        assert!(calls.contains(&Call::AbortUpload), "{calls:?}");
        match archived {
            Ok(Archived::AlreadyThere(_)) => assert!(is_same),
            Err(error) => assert!(!is_same && error.kind() == Kind::Conflict, "{error}"),
            other => unreachable!("{other:?}"),
        }
        assert_eq!(bed.archive.store.head(&key).await.unwrap(), before);
    }
}

//! Whose archive it is, and what a crash may leave.

use super::*;

#[tokio::test]
async fn a_recovered_cluster_needs_an_empty_archive() {
    let bed = Bed::new();
    bed.write(segment_name(1, 1), 1);
    bed.archive(segment_name(1, 1)).await;
    let mut recovered = bed.beside();
    recovered.leave_marker();
    let name = segment_name(1, 2);
    recovered.write(name, 2);
    let error = recovered.try_archive(name).await.unwrap_err();
    let found = segment_name(1, 1).to_string();
    assert!(error.to_string().contains(&found) && error.hint().contains("--server"));
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(recovered.marker().exists());
    recovered.options.allows_own_archive = true;
    recovered.archive(name).await;
    assert!(!recovered.marker().exists());
    recovered.options.allows_own_archive = false;
    recovered.write(segment_name(1, 3), 3);
    recovered.archive(segment_name(1, 3)).await;
}

#[tokio::test]
async fn a_marker_is_passed_by_an_empty_archive_and_then_removed() {
    let bed = Bed::new();
    bed.leave_marker();
    fs::write(bed.folder.path().join(".check-empty-wal-archive"), "").unwrap();
    bed.write(segment_name(1, 1), 1);
    bed.archive(segment_name(1, 1)).await;
    assert!(!bed.marker().exists());
    assert!(!bed.folder.path().join(".check-empty-wal-archive").exists());
}

#[tokio::test]
async fn another_clusters_archive_is_refused() {
    let bed = Bed::new();
    bed.write(segment_name(1, 1), 1);
    bed.archive(segment_name(1, 1)).await;
    let other = bed.beside();
    let name = segment_name(1, 2);
    let bytes = SegmentBuilder::new(name, SYSTEM_ID + 1).bytes();
    fs::write(other.path(name), bytes).unwrap();
    let error = other.try_archive(name).await.unwrap_err();
    assert!(matches!(error, ArchiveError::NotOwn { .. }), "{error}");
    assert_eq!(other.keys().await.len(), 1);
}

#[tokio::test]
async fn an_archive_of_barmans_is_known_by_its_segments_and_timelines() {
    for (system_id, timeline, is_own) in
        [(SYSTEM_ID, 1, true), (8, 1, false), (SYSTEM_ID, 2, false)]
    {
        let bed = Bed::new();
        let there = segment_name(timeline, 1);
        let bytes = SegmentBuilder::new(there, system_id).bytes();
        bed.put(&there.to_string(), bytes).await;
        let name = segment_name(1, 2);
        bed.write(name, 2);
        let outcome = bed.try_archive(name).await;
        assert_eq!(
            outcome.is_ok(),
            is_own,
            "{system_id} {timeline}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn nothing_may_lie_beyond_the_fork() {
    for (number, is_own) in [(4, true), (5, true), (6, false)] {
        let mut bed = Bed::new();
        let there = segment_name(1, number);
        bed.put(
            &there.to_string(),
            SegmentBuilder::new(there, SYSTEM_ID).bytes(),
        )
        .await;
        // Byte 0x500000 begins segment 5 of 1 MiB.
        fs::write(
            bed.pg_wal().join("00000002.history"),
            "1\t0/500100\tno recovery target\n",
        )
        .unwrap();
        let name = segment_name(2, 5);
        bed.write(name, 2);
        let outcome = bed.try_archive(name).await;
        assert_eq!(outcome.is_ok(), is_own, "{number}: {outcome:?}");
        bed.options.allows_own_archive = true;
        bed.archive(name).await;
    }
}

#[tokio::test]
async fn a_history_may_be_the_first_file_of_a_recovered_cluster() {
    let bed = Bed::new();
    bed.leave_marker();
    let history = bed.pg_wal().join("00000002.history");
    fs::write(&history, "1\t0/500100\tno recovery target\n").unwrap();
    bed.archiver().archive(&history).await.unwrap();
    assert!(!bed.marker().exists());
    let name = segment_name(2, 5);
    bed.write(name, 2);
    bed.archive(name).await;
    let other = bed.beside();
    fs::copy(&history, other.pg_wal().join("00000002.history")).unwrap();
    other.write(segment_name(2, 6), 2);
    other.archive(segment_name(2, 6)).await;
}

#[tokio::test]
async fn the_control_file_tells_whose_wal_it_must_be() {
    const CONTROL: &[u8] = include_bytes!("../../../../tests/fixtures/postgresql/pg_control-15");
    const ITS_SYSTEM_ID: u64 = 7_710_535_714_366_482_761;
    let bed = Bed::new();
    fs::create_dir(bed.folder.path().join("global")).unwrap();
    fs::write(bed.folder.path().join("global/pg_control"), CONTROL).unwrap();
    let name: SegmentName = "000000010000000000000001".parse().unwrap();
    for (system_id, size, kind) in [
        (ITS_SYSTEM_ID, 16 << 20, None),
        (ITS_SYSTEM_ID, 1 << 20, Some(Kind::Corrupt)),
        (SYSTEM_ID, 16 << 20, Some(Kind::Conflict)),
    ] {
        let bytes = SegmentBuilder::of_size(name, system_id, size).bytes();
        fs::write(bed.path(name), bytes).unwrap();
        let outcome = bed.try_archive(name).await;
        assert_eq!(outcome.err().map(|error| error.kind()), kind);
    }
}

#[tokio::test]
async fn a_file_outside_a_data_directory_is_archived_without_a_memory() {
    let bed = Bed::new();
    fs::remove_dir(bed.pg_wal().join("archive_status")).unwrap();
    for number in 1..=2 {
        let name = segment_name(1, number);
        let bytes = SegmentBuilder::new(name, SYSTEM_ID).bytes();
        fs::write(bed.path(name), bytes).unwrap();
        bed.archive(name).await;
        bed.assert_stored(name).await;
    }
    assert!(!bed.pg_wal().join(FOLDER).exists());
    bed.write_other(segment_name(1, 2));
    assert_eq!(bed.kind(segment_name(1, 2)).await, Kind::Conflict);
}

/// Each request of a first archiving with look-ahead and marker fails once, before or after it
/// took effect: what is acknowledged is in the store, and the next call goes well.
#[tokio::test]
async fn whichever_request_fails_nothing_false_is_said_and_the_next_call_succeeds() {
    for trouble in [
        Trouble::Fails(StoreErrorKind::Unreachable),
        Trouble::ReplyLost,
    ] {
        for skip in 0.. {
            let mut bed = Bed::new();
            bed.options.jobs = 2;
            bed.leave_marker();
            for number in 1..=3 {
                bed.write(segment_name(1, number), number);
            }
            let any = Fault {
                call: None,
                ..Fault::next(Call::Put, trouble)
            };
            bed.store.add(any.after(skip));
            let first = bed.try_archive(segment_name(1, 1)).await;
            let calls = bed.store.calls().len();
            if first.is_ok() {
                bed.assert_stored(segment_name(1, 1)).await;
            }
            for number in 1..=3 {
                // The fault may still lie ahead; a call after it goes well.
                if bed.try_archive(segment_name(1, number)).await.is_err() {
                    bed.archive(segment_name(1, number)).await;
                }
                let _ = fs::remove_file(bed.ready(segment_name(1, number)));
                bed.assert_stored(segment_name(1, number)).await;
            }
            assert_eq!(bed.keys().await.len(), 3);
            assert!(!bed.marker().exists());
            if usize::try_from(skip).unwrap() >= calls {
                break;
            }
        }
    }
}

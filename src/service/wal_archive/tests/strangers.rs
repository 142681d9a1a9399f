//! Servers that must not mix their WAL in one archive, and what a directory remembers of another.

use super::*;

fn write_history(bed: &Bed, text: &str) -> PathBuf {
    let path = bed.pg_wal().join("00000002.history");
    fs::write(&path, text).unwrap();
    fs::write(
        bed.pg_wal().join("archive_status/00000002.history.ready"),
        "",
    )
    .unwrap();
    path
}

#[tokio::test]
async fn of_two_servers_promoted_to_one_timeline_the_second_puts_nothing_on_it() {
    let first = Bed::new();
    first.write(segment_name(1, 1), 1);
    first.archive(segment_name(1, 1)).await;
    let mut second = first.beside();
    second.options.jobs = 4;
    second.write(segment_name(1, 2), 2);
    second.write(segment_name(2, 3), 3);
    second.archive(segment_name(1, 2)).await;
    assert!(
        second
            .content(segment_name(2, 3), Codec::Zstd)
            .await
            .is_none()
    );

    let history = write_history(&first, "1\t0/300100\tno recovery target\n");
    first.archiver().archive(&history).await.unwrap();
    let history = write_history(&second, "1\t0/300200\tno recovery target\n");
    let error = second.archiver().archive(&history).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(
        second
            .content(segment_name(2, 3), Codec::Zstd)
            .await
            .is_none()
    );
}

#[tokio::test]
async fn a_cluster_that_got_another_identity_is_a_stranger_to_its_former_archive() {
    let bed = Bed::new();
    bed.write(segment_name(1, 1), 1);
    bed.archive(segment_name(1, 1)).await;
    let name = segment_name(1, 2);
    let bytes = SegmentBuilder::new(name, SYSTEM_ID + 1).bytes();
    fs::write(bed.path(name), bytes).unwrap();
    let error = bed.try_archive(name).await.unwrap_err();
    assert!(matches!(error, ArchiveError::NotOwn { .. }), "{error}");
    assert_eq!(bed.keys().await.len(), 1);
}

#[tokio::test]
async fn a_marker_that_cannot_be_removed_demands_nothing_of_an_archive_that_passed() {
    let bed = Bed::new();
    bed.leave_marker();
    fs::create_dir(bed.folder.path().join(".check-empty-wal-archive")).unwrap();
    for number in 1..=2 {
        bed.write(segment_name(1, number), number);
        bed.archive(segment_name(1, number)).await;
    }
}

#[tokio::test]
async fn an_archive_of_barmans_is_known_whatever_lies_behind_its_last_segment() {
    let bed = Bed::new();
    let there = segment_name(1, 1);
    let bytes = SegmentBuilder::new(there, SYSTEM_ID).bytes();
    bed.put(&there.to_string(), bytes).await;
    bed.put(&format!("{there}.00000028.backup"), b"START WAL".to_vec())
        .await;
    bed.write(segment_name(1, 2), 2);
    bed.archive(segment_name(1, 2)).await;
}

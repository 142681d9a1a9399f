//! Archiving against a store in memory that fails as told, with segments of a true header.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::*;
use crate::barman::layout::Layout;
use crate::codec::Codec;
use crate::codec::decompress::decompressor;
use crate::domain::segment::SegmentName;
use crate::fault::{Fault as _, Kind};
use crate::service::wal_fixture::{SegmentBuilder, segment_name};
use crate::service::wal_state::{CHECK_EMPTY_MARKER, FOLDER, Settled};
use crate::store::error::StoreErrorKind;
use crate::store::faulty::{Call, Fault, FaultyStore, Trouble};
use crate::store::memory::MemoryStore;
use crate::store::{ListRequest, ObjectStore, PutOptions};

const SYSTEM_ID: u64 = 7;

/// A data directory, an archive, and the wish for how to archive.
struct Bed {
    folder: tempfile::TempDir,
    store: Arc<FaultyStore>,
    /// The archive without faults, to look at.
    archive: Repository,
    repository: Repository,
    options: ArchiveOptions,
}

impl Bed {
    fn new() -> Self {
        Self::with(Arc::new(MemoryStore::new()))
    }

    /// Another data directory for the same archive.
    fn beside(&self) -> Self {
        Self::with(Arc::clone(&self.archive.store))
    }

    fn with(engine: Arc<dyn ObjectStore>) -> Self {
        let store = Arc::new(FaultyStore::new(Arc::clone(&engine)));
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("pg_wal/archive_status")).unwrap();
        let layout = Layout::new("p", &"main".parse().unwrap());
        let repository = Repository::new(Arc::<FaultyStore>::clone(&store), layout.clone());
        Self {
            folder,
            store,
            archive: Repository::new(engine, layout),
            repository,
            options: ArchiveOptions {
                compression: "zstd:1".parse().unwrap(),
                jobs: 1,
                allows_own_archive: false,
                tags: vec![("a".to_owned(), "b".to_owned())],
                history_tags: Vec::new(),
                encryption: None,
            },
        }
    }

    fn archiver(&self) -> Archiver {
        let options = self.options.clone();
        Archiver::new(self.repository.clone(), &StoreConfig::Memory, options)
    }

    fn pg_wal(&self) -> PathBuf {
        self.folder.path().join("pg_wal")
    }

    fn path(&self, name: SegmentName) -> PathBuf {
        self.pg_wal().join(name.to_string())
    }

    /// Writes a segment that waits to be archived.
    fn write(&self, name: SegmentName, seed: u64) -> PathBuf {
        let bytes = SegmentBuilder::new(name, SYSTEM_ID).seed(seed).bytes();
        fs::write(self.path(name), bytes).unwrap();
        fs::write(self.ready(name), "").unwrap();
        self.path(name)
    }

    fn ready(&self, name: SegmentName) -> PathBuf {
        self.pg_wal().join(format!("archive_status/{name}.ready"))
    }

    fn marker(&self) -> PathBuf {
        self.pg_wal().join(FOLDER).join(CHECK_EMPTY_MARKER)
    }

    fn leave_marker(&self) {
        fs::create_dir_all(self.pg_wal().join(FOLDER)).unwrap();
        fs::write(self.marker(), "").unwrap();
    }

    async fn try_archive(&self, name: SegmentName) -> Result<Archived, ArchiveError> {
        let archiver = self.archiver();
        archiver.archive(&self.path(name)).await
    }

    /// Archives as PostgreSQL does: what succeeded does not wait any more.
    async fn archive(&self, name: SegmentName) -> Archived {
        let archived = self.try_archive(name).await.unwrap();
        let _ = fs::remove_file(self.ready(name));
        archived
    }

    async fn kind(&self, name: SegmentName) -> Kind {
        self.try_archive(name).await.unwrap_err().kind()
    }

    async fn requests<T>(&self, work: impl Future<Output = T>) -> (Vec<Call>, T) {
        let before = self.store.calls().len();
        let outcome = work.await;
        let calls = self.store.calls().split_off(before);
        (calls.into_iter().map(|(call, _)| call).collect(), outcome)
    }

    async fn keys(&self) -> Vec<String> {
        let request = ListRequest {
            prefix: self.repository.layout.wals_prefix(),
            ..ListRequest::default()
        };
        let page = self.archive.store.list(&request).await.unwrap();
        page.objects
            .iter()
            .map(|meta| meta.key.base_name().to_owned())
            .collect()
    }

    async fn content(&self, name: SegmentName, codec: Codec) -> Option<Vec<u8>> {
        let key = self
            .repository
            .layout
            .wal(&WalFileName::Segment(name), codec);
        let stored = self.archive.get_small(&key).await.ok()?;
        let mut content = Vec::new();
        let mut reader = decompressor(stored.as_ref(), codec).unwrap();
        io::Read::read_to_end(&mut reader, &mut content).unwrap();
        Some(content)
    }

    /// What an acknowledged file must be: in the store, whole, under its name.
    async fn assert_stored(&self, name: SegmentName) {
        let content = self.content(name, self.options.compression.codec).await;
        assert!(
            content == Some(fs::read(self.path(name)).unwrap()),
            "{name}"
        );
    }

    async fn put(&self, base_name: &str, body: Vec<u8>) {
        let (name, codec) = Layout::parse_wal(base_name).unwrap();
        let key = self.repository.layout.wal(&name, codec);
        let options = PutOptions::default();
        self.archive
            .store
            .put(&key, body.into(), &options)
            .await
            .unwrap();
    }
}

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
        is_put_conditional: false,
        settled: Some(Settled {
            codec: Codec::Zstd,
            after: segment_name(1, 1),
        }),
        empty_for: None,
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
async fn look_ahead_archives_what_waits_and_later_calls_cost_nothing() {
    let mut bed = Bed::new();
    bed.options.jobs = 4;
    for number in 1..=6 {
        bed.write(segment_name(1, number), number);
    }
    bed.archive(segment_name(1, 1)).await;
    for number in 2..=4 {
        bed.assert_stored(segment_name(1, number)).await;
        let (calls, archived) = bed.requests(bed.archive(segment_name(1, number))).await;
        assert_eq!((calls, archived), (Vec::new(), Archived::Ahead));
    }
    assert!(bed.content(segment_name(1, 5), Codec::Zstd).await.is_none());
    assert!(matches!(
        bed.archive(segment_name(1, 5)).await,
        Archived::Put(_)
    ));
    assert_eq!(bed.archive(segment_name(1, 6)).await, Archived::Ahead);
}

#[tokio::test]
async fn a_mark_never_covers_other_bytes() {
    let mut bed = Bed::new();
    bed.options.jobs = 2;
    bed.write(segment_name(1, 1), 1);
    bed.write(segment_name(1, 2), 2);
    bed.archive(segment_name(1, 1)).await;
    bed.write(segment_name(1, 2), 3);
    assert_eq!(bed.kind(segment_name(1, 2)).await, Kind::Conflict);
}

#[tokio::test]
async fn marks_of_files_that_wait_no_more_are_cleaned() {
    let mut bed = Bed::new();
    bed.options.jobs = 3;
    for number in 1..=4 {
        bed.write(segment_name(1, number), number);
    }
    bed.archive(segment_name(1, 1)).await;
    for number in 2..=3 {
        fs::remove_file(bed.ready(segment_name(1, number))).unwrap();
    }
    bed.archive(segment_name(1, 4)).await;
    let marks = fs::read_dir(bed.pg_wal().join(FOLDER).join("archived")).unwrap();
    assert_eq!(marks.count(), 0);
}

#[tokio::test]
async fn a_look_ahead_that_fails_or_hangs_does_not_fail_the_asked_file() {
    for trouble in [Trouble::Fails(StoreErrorKind::Denied), Trouble::Hangs] {
        let mut bed = Bed::new();
        bed.options.jobs = 2;
        bed.write(segment_name(1, 1), 1);
        let ahead = segment_name(1, 2);
        bed.write(ahead, 2);
        let always = Fault::next(Call::Put, trouble).on(ahead.to_string());
        bed.store.add(always.times(1));
        let begun = Instant::now();
        bed.archive(segment_name(1, 1)).await;
        assert!(begun.elapsed() < Duration::from_secs(20));
        bed.assert_stored(segment_name(1, 1)).await;
        bed.archive(ahead).await;
        bed.assert_stored(ahead).await;
    }
}

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
    const CONTROL: &[u8] = include_bytes!("../../../tests/fixtures/postgresql/pg_control-15");
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

impl Bed {
    fn write_other(&self, name: SegmentName) {
        let bytes = SegmentBuilder::new(name, SYSTEM_ID).seed(99).bytes();
        fs::write(self.path(name), bytes).unwrap();
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

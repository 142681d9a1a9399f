//! Restoring from a store in memory that fails as told, with segments of a true header.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::prefetch::Ended;
use super::*;
use crate::barman::layout::Layout;
use crate::codec::Compression;
use crate::codec::compress::Compressor;
use crate::fault::{Fault as _, Kind};
use crate::service::wal_fixture::{SegmentBuilder, segment_name};
use crate::service::wal_state::FOLDER;
use crate::store::PutOptions;
use crate::store::error::StoreErrorKind;
use crate::store::faulty::{Call, Fault, FaultyStore, Trouble};
use crate::store::memory::MemoryStore;

const SYSTEM_ID: u64 = 7;

struct Bed {
    folder: tempfile::TempDir,
    store: Arc<FaultyStore>,
    repository: Repository,
    options: RestoreOptions,
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("pg_wal/archive_status")).unwrap();
        fs::write(folder.path().join("postmaster.pid"), "4711\n").unwrap();
        let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        let layout = Layout::new("p", &"main".parse().unwrap());
        Self {
            folder,
            repository: Repository::new(Arc::<FaultyStore>::clone(&store), layout),
            store,
            options: RestoreOptions {
                takes_partial: true,
                jobs: 2,
                codec_first: Codec::Gzip,
            },
        }
    }

    fn destination(&self) -> PathBuf {
        self.folder.path().join("pg_wal/RECOVERYXLOG")
    }

    fn pg_wal(&self) -> PgWal {
        PgWal::at(&self.folder.path().join("pg_wal")).unwrap()
    }

    fn restorer(&self) -> Restorer {
        Restorer::new(
            self.repository.clone(),
            &StoreConfig::Memory,
            self.options.clone(),
        )
    }

    async fn restore(&self, name: &str) -> Result<Restored, RestoreError> {
        let restorer = self.restorer();
        restorer
            .restore(name.parse().unwrap(), &self.destination())
            .await
    }

    async fn put_stored(&self, base_name: &str, stored: Vec<u8>) {
        let (name, codec) = Layout::parse_wal(base_name).unwrap();
        let key = self.repository.layout.wal(&name, codec);
        let options = PutOptions::default();
        self.repository
            .store
            .put(&key, stored.into(), &options)
            .await
            .unwrap();
    }

    /// Puts `content` under this name, compressed as its suffix says.
    async fn put(&self, base_name: &str, content: &[u8]) {
        let (_, codec) = Codec::split_suffix(base_name);
        self.put_stored(base_name, compressed(content, codec)).await;
    }

    async fn put_segments(&self, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            let name = segment_name(1, number);
            self.put(&format!("{name}.gz"), &segment(number)).await;
        }
    }

    fn restored(&self) -> Option<Vec<u8>> {
        fs::read(self.destination()).ok()
    }

    fn leftovers(&self) -> usize {
        fs::read_dir(self.folder.path().join("pg_wal").join(FOLDER).join("tmp"))
            .map_or(0, Iterator::count)
    }

    fn spooled(&self) -> Vec<String> {
        let spool = Spool::of(&self.pg_wal(), &self.restorer().archive);
        (0..200)
            .map(|number| segment_name(1, number))
            .filter(|name| spool.holds(*name))
            .map(|name| name.to_string())
            .collect()
    }
}

fn segment(number: u64) -> Vec<u8> {
    SegmentBuilder::new(segment_name(1, number), SYSTEM_ID)
        .seed(number)
        .bytes()
}

fn compressed(content: &[u8], codec: Codec) -> Vec<u8> {
    let compression = Compression { codec, level: None };
    let mut compressor = Compressor::new(Vec::new(), compression).unwrap();
    compressor.write_all(content).unwrap();
    compressor.finish().unwrap()
}

#[tokio::test]
async fn every_codec_and_every_kind_of_file_comes_back_as_it_was() {
    for codec in Codec::ALL {
        let bed = Bed::new();
        let suffix = codec.suffix();
        let name = segment_name(1, 5);
        for (file, content) in [
            (name.to_string(), segment(5)),
            ("00000002.history".to_owned(), b"1\t0/1\tx\n".to_vec()),
            (format!("{name}.00000028.backup"), b"START".to_vec()),
            (format!("{name}.partial"), segment(5)),
        ] {
            bed.put(&format!("{file}{suffix}"), &content).await;
            let restored = bed.restore(&file).await.unwrap();
            assert!(
                matches!(restored, Restored::FromStore(key) if key.base_name() == format!("{file}{suffix}"))
            );
            assert!(bed.restored() == Some(content), "{codec} {file}");
        }
        assert_eq!(bed.leftovers(), 0);
    }
}

#[tokio::test]
async fn what_the_store_has_not_is_not_found_and_the_destination_stays() {
    let bed = Bed::new();
    bed.put("000000010000000000000005.00000028.backup", b"x")
        .await;
    fs::write(bed.destination(), "before").unwrap();
    for name in ["000000010000000000000005", "00000009.history"] {
        let error = bed.restore(name).await.unwrap_err();
        assert!(matches!(error, RestoreError::NotInArchive { .. }));
        assert_eq!(bed.restored().unwrap(), b"before");
    }
}

#[tokio::test]
async fn an_unfinished_segment_answers_only_where_there_is_no_whole_one_and_it_may() {
    let mut bed = Bed::new();
    let name = segment_name(1, 5).to_string();
    bed.put(&format!("{name}.partial.zst"), &segment(5)).await;
    bed.options.takes_partial = false;
    let error = bed.restore(&name).await.unwrap_err();
    assert!(matches!(error, RestoreError::NotInArchive { .. }));
    bed.options.takes_partial = true;
    bed.restore(&name).await.unwrap();
    assert!(bed.restored() == Some(segment(5)));
    bed.put(&format!("{name}.zst"), &segment(6)[..]).await;
    let error = bed.restore(&name).await.unwrap_err();
    assert!(
        matches!(error, RestoreError::Misnamed { .. }),
        "the whole one was chosen"
    );
}

#[tokio::test]
async fn the_codec_seen_last_is_tried_first() {
    let bed = Bed::new();
    for number in 5..=6 {
        let name = segment_name(1, number);
        bed.put(&format!("{name}.zst"), &segment(number)).await;
    }
    bed.restore(&segment_name(1, 5).to_string()).await.unwrap();
    let before = bed.store.calls().len();
    bed.restore(&segment_name(1, 6).to_string()).await.unwrap();
    let calls: Vec<Call> = bed.store.calls()[before..]
        .iter()
        .map(|(call, _)| *call)
        .collect();
    assert_eq!(calls, [Call::Get]);
}

#[tokio::test]
async fn a_damaged_object_is_named_and_never_delivered() {
    for codec in Codec::ALL {
        let whole = compressed(&segment(5), codec);
        let base_name = format!("{}{}", segment_name(1, 5), codec.suffix());
        for stored in [
            whole[..whole.len() / 2].to_vec(),
            whole[..whole.len() - 1].to_vec(),
            Vec::new(),
            b"no such thing".to_vec(),
            compressed(&segment(6), codec),
        ] {
            let bed = Bed::new();
            bed.put_stored(&base_name, stored).await;
            let error = bed
                .restore(&segment_name(1, 5).to_string())
                .await
                .unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt, "{codec}: {error}");
            assert!(error.to_string().contains(&base_name));
            assert_eq!((bed.restored(), bed.leftovers()), (None, 0));
        }
    }
}

#[tokio::test]
async fn whichever_request_fails_it_is_never_not_found() {
    for trouble in [
        Trouble::Fails(StoreErrorKind::Unreachable),
        Trouble::Fails(StoreErrorKind::NoContainer),
        Trouble::Fails(StoreErrorKind::Denied),
        Trouble::ReplyLost,
    ] {
        for skip in 0..3 {
            let bed = Bed::new();
            // Found only by the listing: a get in vain, the listing, the get.
            let name = segment_name(1, 5).to_string();
            bed.put(&format!("{name}.lz4"), &segment(5)).await;
            let any = Fault {
                call: None,
                ..Fault::next(Call::Get, trouble)
            };
            bed.store.add(any.after(skip));
            let error = bed.restore(&name).await.unwrap_err();
            assert_ne!(error.kind(), Kind::NotFound);
            assert!(!matches!(error, RestoreError::NotInArchive { .. }));
            assert_eq!((bed.restored(), bed.leftovers()), (None, 0));
            bed.restore(&name).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_never_a_short_file() {
    let bed = Bed::new();
    let name = segment_name(1, 5);
    bed.put(&name.to_string(), &segment(5)).await;
    bed.store.add(
        Fault::next(Call::Get, Trouble::ShortBody(1000))
            .on(format!("{name}"))
            .after(1),
    );
    let error = bed.restore(&name.to_string()).await.unwrap_err();
    assert_ne!(error.kind(), Kind::NotFound);
    assert_eq!((bed.restored(), bed.leftovers()), (None, 0));
}

#[tokio::test]
async fn a_run_fills_the_spool_and_ends_when_all_is_asked_for() {
    let bed = Bed::new();
    bed.put_segments(1..=6).await;
    bed.restore(&segment_name(1, 1).to_string()).await.unwrap();
    let service = bed.restorer();
    let (pg_wal, cancel) = (bed.pg_wal(), CancellationToken::new());
    let run = service.prefetch(&pg_wal, &cancel);
    let replay = async {
        for number in 2..=6 {
            while !bed.spooled().contains(&segment_name(1, number).to_string()) {
                time::sleep(LOOK_EVERY).await;
            }
            let restored = bed.restore(&segment_name(1, number).to_string()).await;
            assert_eq!(restored.unwrap(), Restored::FromSpool);
            assert!(bed.restored() == Some(segment(number)));
        }
    };
    let (ended, ()) = tokio::join!(run, replay);
    assert_eq!(ended.unwrap(), Ended::EndOfArchive);
    assert!(!prefetch::is_running(&pg_wal));
}

#[tokio::test]
async fn a_segment_under_way_in_the_spool_is_waited_for() {
    let bed = Bed::new();
    bed.put_segments(1..=2).await;
    bed.restore(&segment_name(1, 1).to_string()).await.unwrap();
    let slow = Trouble::Slow(Duration::from_millis(500));
    bed.store
        .add(Fault::next(Call::Get, slow).on(segment_name(1, 2).to_string()));
    let spool = Spool::of(&bed.pg_wal(), &bed.restorer().archive);
    let service = bed.restorer();
    let (pg_wal, cancel) = (bed.pg_wal(), CancellationToken::new());
    let run = service.prefetch(&pg_wal, &cancel);
    let replay = async {
        while !prefetch::is_running(&pg_wal) {
            time::sleep(LOOK_EVERY).await;
        }
        spool.create().unwrap();
        fs::write(spool.part(segment_name(1, 2)), "").unwrap();
        let restored = bed.restore(&segment_name(1, 2).to_string()).await.unwrap();
        assert_eq!(restored, Restored::FromSpool);
    };
    tokio::join!(run, replay).0.unwrap();
}

#[tokio::test]
async fn a_run_ends_and_leaves_nothing_when_the_server_is_gone() {
    let bed = Bed::new();
    bed.put_segments(1..=3).await;
    bed.restore(&segment_name(1, 1).to_string()).await.unwrap();
    assert!(prefetch::is_wanted(&bed.pg_wal()));
    let service = bed.restorer();
    let (pg_wal, cancel) = (bed.pg_wal(), CancellationToken::new());
    let run = service.prefetch(&pg_wal, &cancel);
    let stop = async {
        while bed.spooled().len() < 2 {
            time::sleep(LOOK_EVERY).await;
        }
        assert!(!prefetch::is_wanted(&pg_wal), "one is enough");
        let second = service.prefetch(&pg_wal, &cancel).await;
        assert_eq!(second.unwrap(), Ended::Busy);
        fs::remove_file(bed.folder.path().join("postmaster.pid")).unwrap();
    };
    let (ended, ()) = tokio::join!(run, stop);
    assert_eq!(ended.unwrap(), Ended::ServerGone);
    assert!(bed.spooled().is_empty() && !prefetch::is_wanted(&pg_wal));
}

#[tokio::test]
async fn a_run_that_fails_answers_nothing() {
    let bed = Bed::new();
    bed.put_segments(1..=3).await;
    bed.restore(&segment_name(1, 1).to_string()).await.unwrap();
    let down = Trouble::Fails(StoreErrorKind::Unreachable);
    bed.store.add(Fault::next(Call::Get, down).times(2));
    let cancel = CancellationToken::new();
    let ended = bed.restorer().prefetch(&bed.pg_wal(), &cancel).await;
    assert_eq!(ended.unwrap(), Ended::Failed);
    assert!(bed.spooled().is_empty());
    let restored = bed.restore(&segment_name(1, 2).to_string()).await.unwrap();
    assert!(matches!(restored, Restored::FromStore(_)));
}

#[tokio::test]
async fn an_entry_that_cannot_be_moved_holds_nobody_up_for_long() {
    let bed = Bed::new();
    bed.put_segments(1..=2).await;
    bed.restore(&segment_name(1, 1).to_string()).await.unwrap();
    let spool = Spool::of(&bed.pg_wal(), &bed.restorer().archive);
    spool.create().unwrap();
    let bytes = segment(2);
    fs::write(spool.part(segment_name(1, 2)), &bytes).unwrap();
    let size = u64::try_from(bytes.len()).unwrap();
    let mut hasher = crate::codec::digest::Blake3::new();
    hasher.update(&bytes);
    spool
        .commit(segment_name(1, 2), size, hasher.to_hex())
        .unwrap();
    let nowhere = bed.folder.path().join("gone/RECOVERYXLOG");
    let restorer = bed.restorer();
    let pg_wal = bed.pg_wal();
    let taken = restorer.take_from_spool(&pg_wal, segment_name(1, 2), &nowhere);
    let taken = time::timeout(STANDSTILL_MAX * 3, taken).await;
    assert!(!taken.expect("it ends").unwrap());
}

#[tokio::test]
async fn the_first_process_of_a_container_inherits_no_run() {
    let bed = Bed::new();
    fs::write(bed.folder.path().join("postmaster.pid"), "1\n").unwrap();
    assert!(!prefetch::is_wanted(&bed.pg_wal()));
}

#[tokio::test]
async fn outside_a_data_directory_nothing_but_the_file_is_left() {
    let bed = Bed::new();
    bed.put_segments(1..=1).await;
    let folder = tempfile::tempdir().unwrap();
    let destination = folder.path().join("here");
    let name = WalFileName::Segment(segment_name(1, 1));
    bed.restorer().restore(name, &destination).await.unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(fs::read(destination).unwrap() == segment(1));
}

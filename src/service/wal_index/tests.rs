//! The index made by archiving, by `build`, and by reading the log in order: always the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use tokio_util::sync::CancellationToken;

use crate::barman::index_object::IndexObject;
use crate::barman::layout::Layout;
use crate::barman::repository::Repository;
use crate::domain::log::summary::SegmentSummary;
use crate::domain::segment::{SegmentName, SegmentSize};
use crate::domain::wal_file::WalFileName;
use crate::pgfile::wal::log_builder::{LogBuilder, SEGMENT_BYTES};
use crate::pgfile::wal::summary::SegmentSummarizer;
use crate::service::wal_archive::{ArchiveOptions, Archived, Archiver};
use crate::service::wal_fixture::segment_name;
use crate::service::wal_index::build::{BuildOptions, Built, build};
use crate::service::wal_index::set_bytes_max;
use crate::service::wal_state::FOLDER;
use crate::store::config::StoreConfig;
use crate::store::error::StoreErrorKind;
use crate::store::faulty::{Call, Fault, FaultyStore, Trouble};
use crate::store::memory::MemoryStore;
use crate::store::{ListRequest, ObjectKey, PutOptions};

/// The first segment, which begins a group.
pub(crate) const FIRST: u64 = 16;

/// A log of 36 segments: two groups and a part of one.
pub(crate) static LOG: LazyLock<LogBuilder> = LazyLock::new(|| log(36, 40_000));

/// A log of transactions among messages of up to so many bytes.
fn log(segments: usize, message_bytes: u32) -> LogBuilder {
    let mut log = LogBuilder::new(8192);
    log.start = FIRST * u64::try_from(SEGMENT_BYTES).unwrap();
    log.previous = log.start - 64;
    let mut random = fastrand::Rng::with_seed(6);
    while log.bytes.len() < segments * SEGMENT_BYTES {
        log.xid += random.u32(1..4);
        let time = i64::from(log.xid) * 1_000_000;
        let mut main = time.to_le_bytes().to_vec();
        match random.u32(0..10) {
            0 => {
                main.resize(72, 0);
                main[8..11].copy_from_slice(b"one");
                log.record(0, 0x70, &main);
            }
            // A commit or rollback that has subtransactions.
            1..4 => {
                let count = random.u32(0..4000);
                main.extend(2_u32.to_le_bytes());
                main.extend(count.to_le_bytes());
                main.extend((0..count).flat_map(|n| (log.xid + 1 + n).to_le_bytes()));
                log.xid += count;
                let info = *random.choice([0x80, 0xA0]).as_ref().unwrap();
                log.record(1, info, &main);
            }
            _ => {
                let length = random.u32(0..message_bytes);
                log.record(21, 0, &vec![7; usize::try_from(length).unwrap()]);
            }
        }
    }
    log.bytes.truncate(segments * SEGMENT_BYTES);
    log
}

fn name(index: usize) -> SegmentName {
    segment_name(1, FIRST + u64::try_from(index).unwrap())
}

/// What reading the log in order gives.
fn in_order(log: &LogBuilder) -> BTreeMap<SegmentName, SegmentSummary> {
    let size = SegmentSize::new(u64::try_from(SEGMENT_BYTES).unwrap()).unwrap();
    let mut carry = None;
    let summaries = log.segments().enumerate().map(|(index, segment)| {
        let mut summarizer = SegmentSummarizer::new(true, carry.take());
        summarizer.push(segment).unwrap();
        let all = summarizer.finish(name(index), set_bytes_max(size)).unwrap();
        carry = all.carry;
        assert_eq!(all.summary.unread_records, 0);
        (name(index), all.summary)
    });
    summaries.collect()
}

struct Bed {
    folder: tempfile::TempDir,
    store: Arc<FaultyStore>,
    repository: Repository,
    options: ArchiveOptions,
}

impl Bed {
    /// A server with all of the log, and an archive that has nothing yet.
    fn new(compression: &str) -> Self {
        let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("pg_wal/archive_status")).unwrap();
        let layout = Layout::new("p", &"main".parse().unwrap());
        let repository = Repository::new(Arc::<FaultyStore>::clone(&store), layout);
        let bed = Self {
            folder,
            store,
            repository,
            options: ArchiveOptions {
                compression: compression.parse().unwrap(),
                jobs: 1,
                is_resident: false,
                allows_own_archive: false,
                tags: Vec::new(),
                history_tags: Vec::new(),
                encryption: None,
            },
        };
        for (index, segment) in LOG.segments().enumerate() {
            fs::write(bed.path(index), segment).unwrap();
            fs::write(bed.ready(index), "").unwrap();
        }
        bed
    }

    fn path(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("pg_wal/{}", name(index)))
    }

    fn ready(&self, index: usize) -> PathBuf {
        let status = self.folder.path().join("pg_wal/archive_status");
        status.join(format!("{}.ready", name(index)))
    }

    fn archiver(&self) -> Archiver {
        let (repository, options) = (self.repository.clone(), self.options.clone());
        Archiver::new(repository, &StoreConfig::Memory, options)
    }

    /// As a process of its own each.
    async fn archive(&self, indexes: impl IntoIterator<Item = usize>) {
        for index in indexes {
            self.archive_with(&self.archiver(), index).await;
        }
    }

    async fn archive_with(&self, archiver: &Archiver, index: usize) -> Archived {
        let outcome = archiver.archive(&self.path(index)).await.unwrap();
        fs::remove_file(self.ready(index)).unwrap();
        outcome
    }

    /// Puts segments as somebody else does.
    async fn put(&self, index: usize, bytes: Vec<u8>) {
        let file = WalFileName::Segment(name(index));
        let key = self.repository.layout.wal(&file, crate::codec::Codec::None);
        self.put_at(&key, bytes).await;
    }

    async fn put_at(&self, key: &ObjectKey, bytes: Vec<u8>) {
        let options = PutOptions::default();
        let put = self.repository.store.put(key, bytes.into(), &options);
        put.await.unwrap();
    }

    async fn put_log(&self, log: &LogBuilder) {
        for (index, segment) in log.segments().enumerate() {
            self.put(index, segment.to_vec()).await;
        }
    }

    async fn build(&self) -> Built {
        self.build_as(false).await
    }

    async fn build_as(&self, is_rebuild: bool) -> Built {
        let options = BuildOptions {
            from: None,
            jobs: 3,
            is_rebuild,
        };
        let cancel = CancellationToken::new();
        build(&self.repository, options, &cancel, &|_, _| {})
            .await
            .unwrap()
    }

    async fn keys(&self) -> Vec<ObjectKey> {
        let request = ListRequest {
            prefix: self.repository.layout.private("index/").as_str().to_owned(),
            ..ListRequest::default()
        };
        let page = self.repository.store.list(&request).await.unwrap();
        page.objects.into_iter().map(|object| object.key).collect()
    }

    async fn objects(&self) -> Vec<IndexObject> {
        let mut objects = Vec::new();
        for outline in self.repository.index_outlines(None).await.unwrap() {
            objects.push(self.repository.index_object(&outline).await.unwrap());
        }
        objects
    }

    /// How many segments each object has.
    async fn counts(&self) -> Vec<usize> {
        let objects = self.objects().await;
        objects.iter().map(|object| object.segments.len()).collect()
    }

    async fn index(&self) -> BTreeMap<SegmentName, SegmentSummary> {
        let objects = self.objects().await;
        let segments = objects.into_iter().flat_map(|object| object.segments);
        segments.map(|segment| (segment.name, segment)).collect()
    }

    fn index_puts(&self) -> usize {
        let calls = self.store.calls();
        let of_index =
            |(call, key): &&(Call, String)| *call == Call::Put && key.contains("/cellarman/index/");
        calls.iter().filter(of_index).count()
    }

    /// The files that wait, tails among them.
    fn waiting(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().join(format!("pg_wal/{FOLDER}/index"));
        let folders = fs::read_dir(folder).into_iter().flatten().flatten();
        let files = folders.flat_map(|folder| fs::read_dir(folder.path()).unwrap().flatten());
        let mut files: Vec<PathBuf> = files.map(|file| file.path()).collect();
        files.sort();
        files
    }
}

/// The index of `count` segments is what reading in order gives.
async fn check(bed: &Bed, count: usize) {
    let expected: BTreeMap<_, _> = in_order(&LOG).into_iter().take(count).collect();
    assert_eq!(bed.index().await, expected);
}

#[tokio::test]
async fn archiving_in_order_puts_one_object_for_sixteen_segments() {
    for compression in ["none", "zstd:1", "lz4", "gzip:1"] {
        let bed = Bed::new(compression);
        bed.archive(0..31).await;
        assert_eq!(bed.index_puts(), 1, "{compression}");
        bed.archive([31]).await;
        assert_eq!((bed.index_puts(), bed.counts().await), (2, vec![16, 16]));
        check(&bed, 32).await;
        assert_eq!(bed.waiting().len(), 2, "tails");
        let built = bed.build().await;
        assert_eq!(
            (built.read, built.objects_put, built.objects_removed),
            (0, 0, 0)
        );
    }
}

#[tokio::test]
async fn files_archived_ahead_in_a_resident_process_are_indexed() {
    let mut bed = Bed::new("zstd:1");
    (bed.options.jobs, bed.options.is_resident) = (4, true);
    let archiver = bed.archiver();
    for index in 0..36 {
        bed.archive_with(&archiver, index).await;
    }
    archiver.end_of_indexing().await;
    let keys = bed.keys().await;
    assert_eq!((bed.index_puts(), keys.len()), (2, 2), "{keys:?}");
    assert_eq!(bed.counts().await, [16, 16]);
    check(&bed, 32).await;
}

#[tokio::test]
async fn a_new_timeline_and_a_hole_hold_the_index_up_for_sixteen_segments_at_most() {
    let bed = Bed::new("zstd:1");
    bed.archive((3..16).filter(|index| *index != 7)).await;
    assert!(bed.counts().await.is_empty());
    bed.archive(16..23).await;
    assert!(bed.counts().await.is_empty());
    bed.archive([23]).await;
    assert_eq!(bed.counts().await, [4, 8]);
    assert_eq!(bed.index_puts(), 2);
}

#[tokio::test]
async fn an_index_that_cannot_be_put_fails_no_archiving_and_is_tried_once() {
    for trouble in [
        Trouble::Fails(StoreErrorKind::Denied),
        Trouble::Fails(StoreErrorKind::Unreachable),
        Trouble::ReplyLost,
    ] {
        let bed = Bed::new("zstd:1");
        let always = Fault::next(Call::Put, trouble).on("/cellarman/index/");
        bed.store.add(always.times(100));
        bed.archive(0..36).await;
        assert_eq!(bed.index_puts(), 2);
    }
}

#[tokio::test]
async fn what_waits_and_is_torn_lost_or_foreign_is_a_hole() {
    let bed = Bed::new("zstd:1");
    bed.archive(0..15).await;
    let waiting = bed.waiting();
    fs::remove_file(&waiting[2]).unwrap();
    let bytes = fs::read(&waiting[5]).unwrap();
    fs::write(&waiting[5], &bytes[..bytes.len() - 1]).unwrap();
    let mut flipped = fs::read(&waiting[9]).unwrap();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    fs::write(&waiting[9], flipped).unwrap();
    fs::copy(&waiting[11], &waiting[12]).unwrap();
    let strange = waiting[0].parent().unwrap().with_file_name("another-7");
    fs::create_dir(&strange).unwrap();
    fs::write(strange.join(name(1).to_string()), "x").unwrap();
    bed.archive(15..32).await;
    assert!(!strange.exists());
    assert_eq!(bed.counts().await, [2, 2, 3, 2, 3, 16]);
    let built = bed.build().await;
    assert_eq!(bed.counts().await, [16, 16]);
    // The holes, and what lacks its neighbour.
    assert!((4..=8).contains(&built.read), "{built:?}");
    assert_eq!((built.objects_put, built.objects_removed), (1, 5));
    check(&bed, 32).await;
}

/// One history of an archiver that is killed now and then, by a seed.
async fn random_history(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bed = Bed::new(random.choice(["none", "zstd:1", "lz4:1"]).unwrap());
    bed.options.jobs = random.usize(1..5);
    bed.options.is_resident = random.bool();
    let mut archiver = bed.archiver();
    let mut index = 0;
    while index < 36 {
        if random.u32(0..4) == 0 {
            archiver = bed.archiver();
        }
        if random.u32(0..5) == 0 {
            let slow = Trouble::Slow(std::time::Duration::from_millis(random.u64(0..30)));
            bed.store.add(Fault::next(Call::Put, slow));
            let path = bed.path(index);
            let killed = archiver.archive(&path);
            let _ = tokio::time::timeout(std::time::Duration::from_millis(20), killed).await;
            archiver = bed.archiver();
        }
        if random.u32(0..20) == 0
            && let Some(lost) = random.choice(bed.waiting())
        {
            let _ = fs::remove_file(lost);
        }
        bed.archive_with(&archiver, index).await;
        index += 1;
    }
    archiver.end_of_indexing().await;
    let expected = in_order(&LOG);
    for (name, segment) in bed.index().await {
        let is_same = segment == expected[&name];
        assert!(is_same || segment.unread_records > 0, "{seed}: {name}");
    }
    bed.build().await;
    assert_eq!(bed.counts().await, [16, 16, 4], "{seed}");
    check(&bed, 36).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_that_is_killed_and_a_build_behind_it_come_to_the_index_of_the_log() {
    for seed in 0..6 {
        random_history(seed).await;
    }
}

#[tokio::test]
async fn an_index_is_built_of_what_others_archived() {
    let bed = Bed::new("zstd:1");
    bed.put_log(&LOG).await;
    let built = bed.build().await;
    assert_eq!((built.segments, built.read, built.objects_put), (36, 36, 3));
    assert_eq!((built.unread_records, built.not_indexed.len()), (0, 0));
    check(&bed, 36).await;
    let stored = bed.objects().await;
    let stored: usize = stored.iter().map(|o| o.to_bytes().unwrap().len()).sum();
    assert!(stored * 500 < 36 * SEGMENT_BYTES, "{stored} bytes");
    let archived = Bed::new("zstd:1");
    archived.archive(0..36).await;
    assert_eq!(archived.keys().await[..], bed.keys().await[..2]);
    let again = bed.build().await;
    assert_eq!(
        (again.read, again.objects_put, again.objects_removed),
        (0, 0, 0)
    );
    assert_eq!(bed.build_as(true).await.read, 36);
}

#[tokio::test]
async fn a_record_longer_than_segments_is_followed_back_to_its_beginning() {
    let bed = Bed::new("zstd:1");
    let mut log = LogBuilder::new(8192);
    log.start = FIRST * u64::try_from(SEGMENT_BYTES).unwrap();
    log.previous = log.start - 64;
    log.record(21, 0, &vec![1; 17 * SEGMENT_BYTES + 5000]);
    for number in 0..2000_u64 {
        log.record(1, 0, &number.to_le_bytes());
    }
    log.record(0, 0x40, &[]);
    log.fill();
    bed.put_log(&log).await;
    let built = bed.build().await;
    assert_eq!(
        (built.unread_records, built.not_indexed.len()),
        (0, 0),
        "{built:?}"
    );
    assert_eq!(bed.index().await, in_order(&log));
}

#[tokio::test]
async fn segments_that_cannot_be_indexed_are_named_and_cut_the_others_nowhere_else() {
    let bed = Bed::new("zstd:1");
    bed.put_log(&LOG).await;
    let segment = |index: usize| LOG.segments().nth(index).unwrap().to_vec();
    let mut foreign = segment(3);
    foreign[24] ^= 1;
    bed.put(3, foreign).await;
    let mut broken = segment(9);
    broken[500_000..501_000].fill(0xAA);
    bed.put(9, broken).await;
    bed.put(12, segment(13)).await;
    bed.put(20, segment(20)[..SEGMENT_BYTES / 2].to_vec()).await;
    let built = bed.build().await;
    let named: Vec<SegmentName> = built.not_indexed.iter().map(|one| one.name).collect();
    assert_eq!(named, [3, 9, 12, 20].map(name), "{built:?}");
    assert!(
        built.not_indexed[0].reason.contains("system identifier 76"),
        "{built:?}"
    );
    assert!(built.not_indexed[2].reason.contains("another segment"));
    assert_eq!(bed.counts().await, [3, 5, 2, 3, 4, 11, 4]);
    let expected = in_order(&LOG);
    let index = bed.index().await;
    let unread: BTreeSet<SegmentName> = index
        .values()
        .filter(|segment| **segment != expected[&segment.name])
        .inspect(|segment| assert_eq!(segment.unread_records, 1))
        .map(|segment| segment.name)
        .collect();
    assert!(
        unread.is_subset(&[4, 10, 13, 21].map(name).into()),
        "{unread:?}"
    );
    // When they are put right, so is the index.
    bed.put_log(&LOG).await;
    assert_eq!(bed.build().await.not_indexed, []);
    assert_eq!(bed.counts().await, [16, 16, 4]);
    check(&bed, 36).await;
}

#[tokio::test]
async fn objects_that_are_damaged_or_lie_are_made_again() {
    let bed = Bed::new("zstd:1");
    bed.put_log(&LOG).await;
    bed.build().await;
    let keys = bed.keys().await;
    let mut foreign = bed.objects().await.pop();
    let bytes = bed.repository.get_small(&keys[0]).await.unwrap();
    bed.put_at(&keys[0], bytes[..bytes.len() - 7].to_vec())
        .await;
    bed.put_at(&keys[1], bytes.to_vec()).await;
    if let Some(object) = &mut foreign {
        object.system_id = crate::domain::backup::SystemId(5);
        bed.put_at(&keys[2], object.to_bytes().unwrap()).await;
    }
    let built = bed.build().await;
    assert_eq!((built.read, built.objects_put), (36, 3));
    check(&bed, 36).await;
}

#[tokio::test]
async fn what_is_superseded_goes_only_when_the_better_is_there() {
    let bed = Bed::new("zstd:1");
    bed.archive((0..16).filter(|index| *index != 7)).await;
    bed.archive([23 + 8]).await;
    bed.archive([7]).await;
    let before = bed.counts().await;
    assert_eq!(before, [7, 8]);
    let refused = Fault::next(Call::Put, Trouble::Fails(StoreErrorKind::Denied));
    bed.store.add(refused.on("/cellarman/index/"));
    let options = BuildOptions {
        from: None,
        jobs: 1,
        is_rebuild: false,
    };
    let cancel = CancellationToken::new();
    let failed = build(&bed.repository, options, &cancel, &|_, _| {}).await;
    assert!(failed.is_err());
    assert_eq!(bed.counts().await, before);
    let lost = Fault::next(Call::Delete, Trouble::Fails(StoreErrorKind::Denied));
    bed.store.add(lost);
    assert!(
        build(&bed.repository, options, &cancel, &|_, _| {})
            .await
            .is_err()
    );
    assert_eq!(bed.counts().await, [16, 7, 8]);
    assert_eq!(bed.build().await.objects_removed, 2);
    assert_eq!(bed.counts().await, [16, 1]);
}

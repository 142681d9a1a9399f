//! What a read of the catalog asks of the store, and that no cache changes what it says.

use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::counting_store::{CountingStore, Requests};
use super::*;
use crate::store::PutOptions;

const RECORD: &str = include_str!("../backup_info/barman-3.19.info");
const CACHE: &str = "p/srv/cellarman/catalog.jsonl.zst";

struct Bed {
    store: Arc<CountingStore>,
    repository: Repository,
}

impl Bed {
    /// A store with so many backups: a record of its own and a tar each.
    async fn with(count: usize) -> Self {
        let store = Arc::new(CountingStore::default());
        let layout = Layout::new("p", &"srv".parse().unwrap());
        let engine = Arc::clone(&store);
        let repository = Repository::new(engine, layout);
        let bed = Self { store, repository };
        for number in 0..count {
            bed.put_record(number, &format!("n{number}")).await;
            let tar = format!("p/srv/base/{}/data.tar", id(number));
            bed.put(&tar, "tar").await;
        }
        bed.store.take();
        bed
    }

    async fn put(&self, key: &str, text: &str) {
        let body = Bytes::copy_from_slice(text.as_bytes());
        let options = PutOptions::default();
        let key = ObjectKey::new(key);
        self.store.engine.put(&key, body, &options).await.unwrap();
    }

    async fn delete(&self, key: &str) {
        self.store.delete(&[ObjectKey::new(key)]).await.unwrap();
    }

    async fn put_record(&self, number: usize, name: &str) {
        self.put(&record_key(number), &record(name)).await;
    }

    /// What a read says, and what it asked for.
    async fn read(&self) -> (String, Requests) {
        self.store.take();
        let catalog = self.repository.list_backups().await.unwrap();
        (format!("{catalog:#?}"), self.store.take())
    }

    /// What a read says that has no cache and leaves none.
    async fn read_without_cache(&self) -> String {
        let cache = self.cache().await;
        self.delete(CACHE).await;
        let catalog = self.repository.list_backups().await.unwrap();
        self.delete(CACHE).await;
        if let Some(cache) = cache {
            self.put_bytes(cache).await;
        }
        format!("{catalog:#?}")
    }

    async fn cache(&self) -> Option<Bytes> {
        let key = ObjectKey::new(CACHE);
        self.repository.get_small(&key).await.ok()
    }

    async fn put_bytes(&self, cache: Bytes) {
        let options = PutOptions::default();
        let key = ObjectKey::new(CACHE);
        self.store.engine.put(&key, cache, &options).await.unwrap();
    }

    async fn check_same(&self) {
        let cached = self.read().await.0;
        assert_eq!(cached, self.read_without_cache().await);
    }
}

fn id(number: usize) -> String {
    format!("20261121T{number:06}")
}

fn record_key(number: usize) -> String {
    format!("p/srv/base/{}/backup.info", id(number))
}

fn record(name: &str) -> String {
    RECORD.replace("backup_name=bk one", &format!("backup_name={name}"))
}

#[tokio::test]
async fn a_backup_without_the_archive_of_its_data_or_a_tablespace_is_told_apart() {
    let bed = Bed::with(1).await;
    let key = |name: &str| format!("p/srv/base/{}/{name}", id(0));
    for (name, lacks_archives) in [
        ("16384.tar.gz", true),
        ("16385_0001.tar", true),
        ("16385.tar.enc", true),
        ("16385.tar.lz4", false),
    ] {
        bed.put(&key(name), "tar").await;
        let catalog = bed.repository.list_backups().await.unwrap();
        let stored = catalog.backups[0].stored;
        assert_eq!(stored.lacks_archives, lacks_archives, "{name}");
    }
    bed.delete(&key("data.tar")).await;
    let catalog = bed.repository.list_backups().await.unwrap();
    assert!(catalog.backups[0].stored.lacks_archives);
}

#[tokio::test]
async fn a_read_fetches_the_pages_the_cache_and_what_changed() {
    let bed = Bed::with(1200).await;
    for (number, keep) in [(7, "base"), (8, "/base"), (9, "base")] {
        let folder = keep.replace("base", "srv/base");
        let key = format!("p/{folder}/{}/annotations/keep", id(number));
        bed.put(&key, "standalone").await;
    }
    let listing = |gets, puts| Requests {
        // 2402 objects below base/, one under the doubled slash.
        lists: 4,
        gets,
        puts,
        ..Requests::default()
    };
    // The cache that is not there, each record, each mark; and a cache is left for the next.
    assert_eq!(bed.read().await.1, listing(1 + 1200 + 3, 1));
    assert_eq!(bed.read().await.1, listing(1, 0));

    for number in [3, 500, 1199] {
        bed.put_record(number, "changed").await;
    }
    bed.delete(&record_key(8)).await;
    bed.delete(&format!("p/srv/base/{}/annotations/keep", id(9)))
        .await;
    bed.put_record(1200, "new").await;
    assert_eq!(bed.read().await.1, listing(1 + 4, 0));
    bed.check_same().await;

    for number in 20..40 {
        bed.put_record(number, "changed too").await;
    }
    assert_eq!(bed.read().await.1, listing(1 + 4 + 20, 1));
    assert_eq!(bed.read().await.1, listing(1, 0));
    bed.check_same().await;
}

#[tokio::test]
async fn one_backup_is_shown_without_a_look_at_the_others() {
    let bed = Bed::with(30).await;
    let id: BackupId = id(7).parse().unwrap();
    assert_eq!(bed.repository.resolve(&id.to_string()).await.unwrap(), id);
    bed.repository.backup(&id).await.unwrap();
    bed.repository.contents(&id).await.unwrap();
    let requests = Requests {
        // Its folder, and the place of its mark under the doubled slash.
        lists: 2,
        // Its record and its mark.
        gets: 2,
        ..Requests::default()
    };
    assert_eq!(bed.store.take(), requests);
}

#[tokio::test]
async fn few_backups_have_no_cache() {
    let bed = Bed::with(8).await;
    let (_, requests) = bed.read().await;
    assert_eq!((requests.gets, requests.puts), (8, 0));
}

#[tokio::test]
async fn a_cache_of_what_is_gone_is_written_anew() {
    let bed = Bed::with(60).await;
    bed.read().await;
    let full = bed.cache().await.unwrap().len();
    for number in 0..50 {
        bed.delete(&record_key(number)).await;
        bed.delete(&format!("p/srv/base/{}/data.tar", id(number)))
            .await;
    }
    let (_, requests) = bed.read().await;
    assert_eq!((requests.gets, requests.puts), (1, 1));
    assert!(bed.cache().await.unwrap().len() < full);
    assert_eq!(bed.read().await.1.puts, 0);
    bed.check_same().await;
}

#[tokio::test]
async fn what_cannot_be_told_apart_is_never_cached() {
    let bed = Bed::with(20).await;
    for weakness in [&bed.store.is_without_etags, &bed.store.is_young] {
        weakness.store(true, Ordering::SeqCst);
        for _ in 0..2 {
            assert_eq!(bed.read().await.1.gets, 1 + 20);
        }
        weakness.store(false, Ordering::SeqCst);
    }
    assert_eq!(bed.read().await.1.gets, 1 + 20);
    assert_eq!(bed.read().await.1.gets, 1);
    bed.store.is_without_etags.store(true, Ordering::SeqCst);
    assert_eq!(bed.read().await.1.gets, 1 + 20);
}

#[tokio::test]
async fn a_record_put_between_listing_and_reading_is_not_taken_for_the_one_listed() {
    let bed = Bed::with(20).await;
    let (old, new) = (record("n7"), record("m7"));
    let raced = (ObjectKey::new(record_key(7)), Bytes::from(new));
    *bed.store.race.lock().unwrap() = Some(raced);
    assert!(bed.read().await.0.contains("m7"));
    bed.put(&record_key(7), &old).await;
    let (seen, requests) = bed.read().await;
    assert!(seen.contains("n7"));
    assert_eq!(requests.gets, 1 + 1);
}

#[tokio::test]
async fn a_reader_that_may_not_write_reads_all_the_same() {
    let bed = Bed::with(20).await;
    bed.store.is_read_only.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let (_, requests) = bed.read().await;
        assert_eq!((requests.gets, requests.puts), (1 + 20, 1));
    }
    assert!(bed.cache().await.is_none());
}

#[tokio::test]
async fn a_damaged_cache_is_as_good_as_none() {
    let bed = Bed::with(20).await;
    let expected = bed.read().await.0;
    let cache = bed.cache().await.unwrap();
    let step = cache.len() / 60;
    for at in (0..cache.len()).step_by(step.max(1)) {
        let mut flipped = cache.to_vec();
        flipped[at] ^= 0x10;
        for damaged in [flipped.into(), cache.slice(..at)] {
            bed.put_bytes(damaged).await;
            assert_eq!(bed.read().await.0, expected, "byte {at}");
            assert_eq!(bed.cache().await.unwrap(), cache, "it is mended");
        }
    }
    let unknown = zstd::encode_all(&b"{\"header\":{\"version\":2}}\n"[..], 1).unwrap();
    bed.put_bytes(unknown.into()).await;
    assert_eq!(bed.read().await.0, expected);
}

#[tokio::test]
async fn unreadable_records_are_told_alike_with_and_without_the_cache() {
    let bed = Bed::with(20).await;
    bed.put(&record_key(3), "rubbish").await;
    let key = ObjectKey::new(record_key(4));
    let body = Bytes::from_static(b"\xff\xfe");
    let options = PutOptions::default();
    bed.store.engine.put(&key, body, &options).await.unwrap();
    let (first, _) = bed.read().await;
    let (second, requests) = bed.read().await;
    assert_eq!(first, second);
    assert!(first.contains("line 1 has no '='") && first.contains("is not UTF-8"));
    assert_eq!(requests.gets, 1 + 1, "what is no text is not cached");
}

/// What somebody does to the archive.
#[derive(Debug, Clone)]
enum Act {
    Record(usize, u8),
    Delete(usize),
    Keep(usize, bool, u8),
    Release(usize, bool),
    Read,
}

fn act() -> impl Strategy<Value = Act> {
    let backup = 0..16_usize;
    prop_oneof![
        3 => (backup.clone(), 0..4_u8).prop_map(|(n, name)| Act::Record(n, name)),
        1 => backup.clone().prop_map(Act::Delete),
        1 => (backup.clone(), any::<bool>(), 0..3_u8).prop_map(|(n, d, w)| Act::Keep(n, d, w)),
        1 => (backup, any::<bool>()).prop_map(|(n, d)| Act::Release(n, d)),
        2 => Just(Act::Read),
    ]
}

async fn run(bed: &Bed, act: &Act) {
    let mark = |number, is_doubled| {
        let slash = if is_doubled { "/" } else { "" };
        format!("p/{slash}srv/base/{}/annotations/keep", id(number))
    };
    match *act {
        Act::Record(number, 3) => bed.put(&record_key(number), "rubbish").await,
        Act::Record(number, name) => bed.put_record(number, &format!("n{name}")).await,
        Act::Delete(number) => bed.delete(&record_key(number)).await,
        Act::Keep(number, is_doubled, word) => {
            let word = ["full", "standalone", "something else"][usize::from(word)];
            bed.put(&mark(number, is_doubled), word).await;
        }
        Act::Release(number, is_doubled) => bed.delete(&mark(number, is_doubled)).await,
        Act::Read => bed.check_same().await,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_the_cache_changes_nothing(acts in prop::collection::vec(act(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bed = Bed::with(14).await;
            for act in &acts {
                run(&bed, act).await;
            }
            bed.check_same().await;
        });
    }
}

//! What every store must do, as one suite: each engine's tests run it.

mod uploads;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};

use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::{ListPage, ListRequest, ObjectKey, ObjectMeta, ObjectStore, PutOptions};

/// More than one page of a listing, and more than one bulk delete.
const MANY: usize = 1003;

/// What services are known to differ in.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is told apart by its name"
)]
pub struct Traits {
    /// Keys with doubled slashes.
    pub has_doubled_slashes: bool,
    /// Keys with backslashes, told apart from those with slashes.
    pub has_backslashes: bool,
    /// Uploads in parts that are completed only where nothing is.
    pub has_conditional_uploads: bool,
    /// Parts of an upload in any order, each as often as one likes.
    pub has_parts_in_any_order: bool,
    /// Delimited listings that come in pages.
    pub has_delimited_pages: bool,
    /// Answers that always arrive: where one may be lost, an upload that is completed again ends
    /// with [`StoreErrorKind::Exists`], and its caller compares.
    pub has_heard_answers: bool,
}

impl Default for Traits {
    fn default() -> Self {
        Self {
            has_doubled_slashes: true,
            has_backslashes: true,
            has_conditional_uploads: true,
            has_parts_in_any_order: true,
            has_delimited_pages: true,
            has_heard_answers: true,
        }
    }
}

/// Runs the whole suite below `scratch_prefix`, which must be unused, and leaves nothing behind.
///
/// Panics where the store does not do what it must.
pub async fn run(store: Arc<dyn ObjectStore>, scratch_prefix: &str) {
    run_with(store, scratch_prefix, Traits::default()).await;
}

/// As [`run`], for a service that is known to lack something.
pub async fn run_with(store: Arc<dyn ObjectStore>, scratch_prefix: &str, traits: Traits) {
    let suite = Suite {
        store,
        traits,
        prefix: format!("{}/", scratch_prefix.trim_end_matches('/')),
    };
    ok("check", suite.store.check_container().await);
    ok("create", suite.store.create_container().await);
    suite.objects_are_put_read_and_overwritten().await;
    suite.absent_objects_are_not_found().await;
    suite.ranges_are_cut_at_the_end().await;
    suite.a_conditional_put_keeps_what_is_there().await;
    suite.odd_keys_survive().await;
    suite.listings_come_in_pages_and_in_order().await;
    suite.delimited_listings_roll_up().await;
    suite.uploads_appear_whole().await;
    suite.aborted_uploads_leave_nothing().await;
    if traits.has_conditional_uploads {
        suite.a_conditional_upload_keeps_what_is_there().await;
        suite.of_two_conditional_uploads_one_wins().await;
    }
    suite.many_objects_are_deleted_at_once().await;
    assert_eq!(
        suite.all_keys("").await,
        Vec::<String>::new(),
        "the suite leaves nothing behind"
    );
}

struct Suite {
    store: Arc<dyn ObjectStore>,
    traits: Traits,
    prefix: String,
}

fn ok<T>(what: &str, result: Result<T, StoreError>) -> T {
    result
        .map_err(|error| crate::fault::chain(&error))
        .unwrap_or_else(|text| unreachable!("{what}: {text}"))
}

fn kind_of<T>(result: Result<T, StoreError>) -> Option<StoreErrorKind> {
    result.err().map(|error| error.kind)
}

/// Bytes that differ from place to place.
fn pattern(size: usize, seed: u8) -> Bytes {
    (0..size)
        .map(|at| u8::try_from(at % 251).unwrap_or(0) ^ seed)
        .collect()
}

impl Suite {
    fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(format!("{}{name}", self.prefix))
    }

    async fn put(&self, name: &str, body: impl Into<Bytes>) {
        let (key, options) = (self.key(name), PutOptions::default());
        let put = self.store.put(&key, body.into(), &options).await;
        ok(name, put);
    }

    async fn read(&self, name: &str, range: Option<std::ops::Range<u64>>) -> (ObjectMeta, Bytes) {
        let body = ok(name, self.store.get(&self.key(name), range).await);
        let bytes: BytesMut = ok(name, body.chunks.try_collect().await);
        (body.meta, bytes.freeze())
    }

    async fn delete(&self, names: &[&str]) {
        let keys: Vec<ObjectKey> = names.iter().map(|name| self.key(name)).collect();
        ok("delete", self.store.delete(&keys).await);
    }

    /// Every page of a listing below the scratch prefix.
    async fn pages(&self, mut request: ListRequest) -> Vec<ListPage> {
        request.prefix = format!("{}{}", self.prefix, request.prefix);
        let mut pages = Vec::new();
        loop {
            let page = ok("list", self.store.list(&request).await);
            request.token.clone_from(&page.next);
            pages.push(page);
            assert!(pages.len() <= MANY, "a listing ends");
            if request.token.is_none() {
                return pages;
            }
        }
    }

    /// All keys that begin with `prefix`, without the scratch prefix.
    async fn all_keys(&self, prefix: &str) -> Vec<String> {
        let request = ListRequest {
            prefix: prefix.to_owned(),
            ..ListRequest::default()
        };
        let pages = self.pages(request).await;
        let objects = pages.into_iter().flat_map(|page| page.objects);
        objects
            .map(|meta| meta.key.as_str()[self.prefix.len()..].to_owned())
            .collect()
    }

    async fn objects_are_put_read_and_overwritten(&self) {
        self.put("plain", "first").await;
        let (first, bytes) = self.read("plain", None).await;
        assert_eq!((first.size, &bytes[..]), (5, &b"first"[..]));
        assert_eq!(first.key, self.key("plain"));
        self.put("plain", "the second").await;
        let (second, bytes) = self.read("plain", None).await;
        assert_eq!((second.size, &bytes[..]), (10, &b"the second"[..]));
        let head = ok("head", self.store.head(&self.key("plain")).await);
        assert_eq!((head.size, &head.etag), (10, &second.etag));
        assert_ne!(first.etag, second.etag, "the etag tells versions apart");
        let request = ListRequest {
            prefix: second.key.as_str().to_owned(),
            ..ListRequest::default()
        };
        let listed = ok("list", self.store.list(&request).await).objects;
        let bare = |meta: &ObjectMeta| Some(meta.etag.as_ref()?.trim_matches('"').to_owned());
        assert_eq!(
            bare(&listed[0]),
            bare(&second),
            "listings tell the etag too"
        );
        self.put("empty", "").await;
        let (empty, bytes) = self.read("empty", None).await;
        assert_eq!((empty.size, bytes.len()), (0, 0));
        let empty = ok("head", self.store.head(&self.key("empty")).await);
        assert_eq!(empty.size, 0);
        self.delete(&["plain", "empty"]).await;
    }

    async fn absent_objects_are_not_found(&self) {
        self.put("here/inside", "x").await;
        for name in [
            "absent",
            "here",
            "here/",
            "here/inside/below",
            "here//inside",
        ] {
            let key = self.key(name);
            let not_found = Some(StoreErrorKind::NotFound);
            assert_eq!(
                kind_of(self.store.get(&key, None).await),
                not_found,
                "{name}"
            );
            let ranged = self.store.get(&key, Some(0..1)).await;
            assert_eq!(kind_of(ranged), not_found, "{name}");
            assert_eq!(kind_of(self.store.head(&key).await), not_found, "{name}");
            ok("delete of the absent", self.store.delete(&[key]).await);
        }
        for prefix in ["absent", "here//", "here/inside/"] {
            assert_eq!(
                self.all_keys(prefix).await,
                Vec::<String>::new(),
                "{prefix}"
            );
        }
        self.delete(&["absent", "here/inside", "here//inside"])
            .await;
    }

    async fn ranges_are_cut_at_the_end(&self) {
        let whole = pattern(3_000_000, 7);
        self.put("ranged", whole.clone()).await;
        for range in [0..1, 5..5_000, 1_000_000..2_999_999, 2_999_999..3_000_000] {
            let (meta, bytes) = self.read("ranged", Some(range.clone())).await;
            let from = usize::try_from(range.start).expect("it fits");
            let to = usize::try_from(range.end).expect("it fits");
            assert_eq!(meta.size, 3_000_000, "the size is the whole object's");
            assert!(bytes == whole[from..to], "{range:?}");
        }
        let (_, bytes) = self.read("ranged", Some(2_999_990..9_000_000)).await;
        assert_eq!(bytes, whole.slice(2_999_990..));
        for range in [3_000_000..3_000_001, 9_000_000..9_000_001] {
            let get = self.store.get(&self.key("ranged"), Some(range)).await;
            assert_eq!(kind_of(get), Some(StoreErrorKind::Range));
        }
        self.delete(&["ranged"]).await;
    }

    async fn a_conditional_put_keeps_what_is_there(&self) {
        let key = self.key("once");
        let options = PutOptions {
            if_absent: true,
            ..PutOptions::default()
        };
        ok("put", self.store.put(&key, "mine".into(), &options).await);
        let again = self.store.put(&key, "other".into(), &options).await;
        assert_eq!(kind_of(again), Some(StoreErrorKind::Exists));
        assert_eq!(&self.read("once", None).await.1[..], b"mine");
        self.delete(&["once"]).await;
        ok("put", self.store.put(&key, "new".into(), &options).await);
        self.delete(&["once"]).await;

        let racers = (0..8).map(|number: u8| {
            let (store, key, options) = (Arc::clone(&self.store), key.clone(), options.clone());
            async move { store.put(&key, vec![number].into(), &options).await }
        });
        let racers: Vec<_> = racers.collect();
        let ends = futures::future::join_all(racers).await;
        let winners = ends.iter().filter(|end| end.is_ok()).count();
        assert_eq!(winners, 1, "one of several wins: {ends:?}");
        self.delete(&["once"]).await;
    }

    async fn odd_keys_survive(&self) {
        let names = [
            "odd//double",
            "odd///",
            "odd/with space/and more ",
            "odd/plus+sign",
            "odd/percent%41%2F%",
            "odd/ünïcödé/日本語",
            "odd/quote'\"<&>",
            "odd/q?a=b#c;d=e,f:g@h!$(i)*[j]{k}|l^m`n~o",
            "odd/back\\slash",
            "odd/.hidden",
        ];
        let names: Vec<&str> = names
            .into_iter()
            .filter(|name| self.traits.has_doubled_slashes || !name.contains("//"))
            .filter(|name| self.traits.has_backslashes || !name.contains('\\'))
            .collect();
        for name in &names {
            self.put(name, (*name).to_owned()).await;
        }
        for name in &names {
            assert_eq!(
                &self.read(name, None).await.1[..],
                name.as_bytes(),
                "{name}"
            );
            ok(name, self.store.head(&self.key(name)).await);
        }
        let listed: BTreeSet<String> = self.all_keys("odd/").await.into_iter().collect();
        let expected: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
        assert_eq!(listed, expected);
        self.delete(&names[..2]).await;
        self.delete(&names[2..]).await;
        assert_eq!(self.all_keys("odd/").await, Vec::<String>::new());
    }

    async fn listings_come_in_pages_and_in_order(&self) {
        // A directory's slash sorts between other characters: order is of whole keys.
        let mut names: Vec<String> = (0..MANY - 6).map(|at| format!("many/{at:05}")).collect();
        for name in ["b-c", "b/c", "b.c", "b/c-d", "b0", "b/c.d"] {
            names.push(format!("many/{name}"));
        }
        stream::iter(names.clone())
            .for_each_concurrent(16, |name| async move { self.put(&name, "x").await })
            .await;
        names.sort();
        assert_eq!(self.all_keys("many/").await, names);
        assert_eq!(self.all_keys("many/0000").await, names[..10]);
        let request = ListRequest {
            prefix: "many/".to_owned(),
            ..ListRequest::default()
        };
        let pages = self.pages(request.clone()).await;
        assert!(pages.len() > 1 && pages.iter().all(|page| page.objects.len() <= 1000));
        let small = ListRequest {
            page_size_max: Some(400),
            ..request.clone()
        };
        let sizes: Vec<usize> = self
            .pages(small)
            .await
            .iter()
            .map(|page| page.objects.len())
            .collect();
        assert_eq!(sizes, [400, 400, MANY - 800]);
        let after = ListRequest {
            start_after: Some(self.key("many/00990").as_str().to_owned()),
            page_size_max: Some(4),
            ..request
        };
        let pages = self.pages(after).await;
        let found: Vec<&str> = pages
            .iter()
            .flat_map(|page| &page.objects)
            .map(|meta| meta.key.base_name())
            .collect();
        assert_eq!(found.len(), MANY - 991);
        assert_eq!((found[0], found[1]), ("00991", "00992"));
    }

    async fn delimited_listings_roll_up(&self) {
        for name in ["roll/a", "roll/b/1", "roll/b/2/3", "roll/b-", "roll/c/"] {
            self.put(name, "x").await;
        }
        let mut below = vec!["roll/b/", "roll/c/"];
        if self.traits.has_doubled_slashes {
            self.put("roll//d", "x").await;
            below.insert(0, "roll//");
        }
        for (prefix, objects, prefixes) in [
            ("roll/", vec!["roll/a", "roll/b-"], below),
            ("roll/b", vec!["roll/b-"], vec!["roll/b/"]),
            ("roll/b/", vec!["roll/b/1"], vec!["roll/b/2/"]),
            ("roll/c/", vec!["roll/c/"], vec![]),
            ("roll", vec![], vec!["roll/"]),
            ("roll/none/", vec![], vec![]),
        ] {
            for page_size_max in self.delimited_page_sizes() {
                let request = ListRequest {
                    prefix: prefix.to_owned(),
                    is_delimited: true,
                    page_size_max,
                    ..ListRequest::default()
                };
                let (found, rolled) = self.delimited(request).await;
                assert_eq!(found, objects, "{prefix} {page_size_max:?}");
                assert_eq!(rolled, prefixes, "{prefix} {page_size_max:?}");
            }
        }
        let request = ListRequest {
            is_delimited: true,
            page_size_max: self.delimited_page_sizes().pop().flatten(),
            ..ListRequest::default()
        };
        assert_eq!(self.delimited(request).await.1, ["many/", "roll/"]);
        let keys = self.all_keys("roll").await;
        self.delete(&keys.iter().map(String::as_str).collect::<Vec<_>>())
            .await;
    }

    fn delimited_page_sizes(&self) -> Vec<Option<u16>> {
        let mut sizes = vec![None, Some(1)];
        sizes.truncate(if self.traits.has_delimited_pages {
            2
        } else {
            1
        });
        sizes
    }

    async fn delimited(&self, request: ListRequest) -> (Vec<String>, Vec<String>) {
        let pages = self.pages(request).await;
        let strip = |text: &str| text[self.prefix.len()..].to_owned();
        let objects = pages.iter().flat_map(|page| &page.objects);
        let prefixes = pages.iter().flat_map(|page| &page.prefixes);
        (
            objects.map(|meta| strip(meta.key.as_str())).collect(),
            prefixes.map(|prefix| strip(prefix)).collect(),
        )
    }

    async fn many_objects_are_deleted_at_once(&self) {
        let keys = self.all_keys("many/").await;
        assert!(keys.len() > 1000);
        self.delete(&keys.iter().map(String::as_str).collect::<Vec<_>>())
            .await;
        ok("delete of nothing", self.store.delete(&[]).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::config::LocalConfig;
    use crate::store::local::LocalStore;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn memory_conforms() {
        run(Arc::new(MemoryStore::new()), "scratch").await;
    }

    #[tokio::test]
    async fn a_local_directory_conforms() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_path_buf();
        let store = LocalStore::new(LocalConfig { root });
        store.create_container().await.unwrap();
        run(Arc::new(store), "scratch").await;
        run_leaves_no_directories(directory.path());
    }

    fn run_leaves_no_directories(root: &std::path::Path) {
        let left: Vec<_> = std::fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, [".cellarman"]);
    }
}

//! The part of the suite on uploads in parts.

use std::sync::Arc;

use bytes::Bytes;

use super::{Suite, kind_of, ok, pattern};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::{ObjectKey, PartTag, PutOptions, UploadId};

/// The least size of a part that is not the last, on S3.
const PART_BYTES: usize = 5 * 1024 * 1024;

const IF_ABSENT: PutOptions = PutOptions {
    if_absent: true,
    tags: Vec::new(),
    encryption: None,
    sha256: None,
};

impl Suite {
    async fn begin(&self, name: &str) -> UploadId {
        let options = PutOptions::default();
        ok(
            "begin",
            self.store.begin_upload(&self.key(name), &options).await,
        )
    }

    pub(super) async fn uploads_appear_whole(&self) {
        let key = self.key("up/in parts");
        let upload = self.begin("up/in parts").await;
        let bodies = [
            pattern(PART_BYTES, 1),
            pattern(PART_BYTES + 1, 2),
            pattern(9, 3),
        ];
        let mut tags = if self.traits.has_parts_in_any_order {
            self.put_out_of_order(&key, &upload, &bodies).await
        } else {
            self.put_all_at_once(&key, &upload, &bodies).await
        };
        tags.sort_by_key(|tag| tag.number);
        assert_eq!(
            kind_of(self.store.head(&key).await),
            Some(StoreErrorKind::NotFound)
        );
        assert_eq!(self.all_keys("up/").await, Vec::<String>::new());
        let under_way = ok("list uploads", self.store.list_uploads(key.as_str()).await);
        assert_eq!(under_way, [(key.clone(), upload.clone())]);
        let completed = self
            .store
            .complete_upload(&key, &upload, &tags, &PutOptions::default())
            .await;
        self.completed(completed);
        let (meta, bytes) = self.read("up/in parts", None).await;
        assert!(bytes == [&bodies[0][..], &bodies[1][..], &bodies[2][..]].concat());
        assert_eq!(meta.size, u64::try_from(bytes.len()).expect("it fits"));
        let under_way = ok("list uploads", self.store.list_uploads(key.as_str()).await);
        assert_eq!(under_way, []);
        ok(
            "abort of the complete",
            self.store.abort_upload(&key, &upload).await,
        );
        self.delete(&["up/in parts"]).await;
    }

    async fn put_out_of_order(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        bodies: &[Bytes; 3],
    ) -> Vec<PartTag> {
        let mut tags = Vec::new();
        for (number, body) in [
            (2, &bodies[0]),
            (2, &bodies[1]),
            (3, &bodies[2]),
            (1, &bodies[0]),
        ] {
            let put = self.store.put_part(key, upload, number, body.clone()).await;
            tags.retain(|tag: &PartTag| tag.number != number);
            tags.push(ok("put part", put));
        }
        tags
    }

    /// The last part is asked for first. One that was put already may be put again.
    async fn put_all_at_once(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        bodies: &[Bytes; 3],
    ) -> Vec<PartTag> {
        let numbered = [1, 2, 3].into_iter().zip(bodies.iter().cloned());
        let puts = numbered.rev().map(|(number, body)| async move {
            ok(
                "put part",
                self.store.put_part(key, upload, number, body).await,
            )
        });
        let tags = futures::future::join_all(puts).await;
        let again = self.store.put_part(key, upload, 1, bodies[0].clone()).await;
        let again = ok("put part again", again);
        assert!(tags.contains(&again), "the same part has the same tag");
        let other = self.store.put_part(key, upload, 2, bodies[0].clone()).await;
        assert!(other.is_err(), "a part is never replaced in silence");
        tags
    }

    pub(super) async fn aborted_uploads_leave_nothing(&self) {
        let key = self.key("aborted");
        let upload = self.begin("aborted").await;
        let put = self.store.put_part(&key, &upload, 1, pattern(100, 1)).await;
        let tag = ok("put part", put);
        ok("abort", self.store.abort_upload(&key, &upload).await);
        let under_way = ok("list uploads", self.store.list_uploads(key.as_str()).await);
        assert_eq!(under_way, []);
        let late = self
            .store
            .complete_upload(&key, &upload, &[tag], &PutOptions::default())
            .await;
        assert!(late.is_err(), "an aborted upload cannot be completed");
        assert_eq!(
            kind_of(self.store.head(&key).await),
            Some(StoreErrorKind::NotFound)
        );
        ok("abort again", self.store.abort_upload(&key, &upload).await);
    }

    /// Whose object is there, what follows judges by its bytes.
    fn completed(&self, end: Result<(), StoreError>) {
        let may_be_unheard = !self.traits.has_heard_answers;
        match end {
            Err(error) if may_be_unheard && error.kind == StoreErrorKind::Exists => {}
            end => ok("complete", end),
        }
    }

    /// Begins an upload that may only be completed where nothing is, with one part in it.
    async fn begin_if_absent(&self, key: &ObjectKey, body: Bytes) -> (UploadId, PartTag) {
        let begun = self.store.begin_upload(key, &IF_ABSENT).await;
        let upload = ok("begin", begun);
        let put = self.store.put_part(key, &upload, 1, body).await;
        (upload, ok("put part", put))
    }

    pub(super) async fn a_conditional_upload_keeps_what_is_there(&self) {
        let key = self.key("parts once");
        let (upload, tag) = self.begin_if_absent(&key, pattern(100, 1)).await;
        // The other writer is quicker.
        self.put("parts once", "theirs").await;
        let late = self
            .store
            .complete_upload(&key, &upload, std::slice::from_ref(&tag), &IF_ABSENT)
            .await;
        assert_eq!(kind_of(late), Some(StoreErrorKind::Exists));
        assert_eq!(&self.read("parts once", None).await.1[..], b"theirs");
        ok("abort", self.store.abort_upload(&key, &upload).await);
        let under_way = ok("list uploads", self.store.list_uploads(key.as_str()).await);
        assert_eq!(under_way, []);
        assert_eq!(&self.read("parts once", None).await.1[..], b"theirs");
        self.delete(&["parts once"]).await;
        let (upload, tag) = self.begin_if_absent(&key, pattern(100, 2)).await;
        let completed = self
            .store
            .complete_upload(&key, &upload, &[tag], &IF_ABSENT)
            .await;
        self.completed(completed);
        assert_eq!(self.read("parts once", None).await.1, pattern(100, 2));
        self.delete(&["parts once"]).await;
    }

    pub(super) async fn of_two_conditional_uploads_one_wins(&self) {
        let key = self.key("parts race");
        let one = self.begin_if_absent(&key, pattern(100, 1)).await;
        let other = self.begin_if_absent(&key, pattern(100, 2)).await;
        let complete = |(upload, tag): (UploadId, PartTag)| {
            let (store, key) = (Arc::clone(&self.store), key.clone());
            async move {
                store
                    .complete_upload(&key, &upload, &[tag], &IF_ABSENT)
                    .await
            }
        };
        let ends = tokio::join!(complete(one.clone()), complete(other.clone()));
        let stored = self.read("parts race", None).await.1;
        let is_first = stored == pattern(100, 1);
        assert!(
            is_first || stored == pattern(100, 2),
            "a whole object stands"
        );
        match ends {
            (Ok(()), Err(_)) => assert!(is_first, "the winner's object stands"),
            (Err(_), Ok(())) => assert!(!is_first, "the winner's object stands"),
            (Err(_), Err(_)) if !self.traits.has_heard_answers => {}
            both => unreachable!("one of two wins: {both:?}"),
        }
        for (upload, _) in [one, other] {
            ok("abort", self.store.abort_upload(&key, &upload).await);
        }
        self.delete(&["parts race"]).await;
    }
}

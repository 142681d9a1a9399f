//! Every fault that a repeat mends, and those that it must not hide.

use super::*;
use crate::store::conformance::{self, Traits};
use crate::store::faulty::{Call, Fault, FaultyStore, Trouble};
use crate::store::memory::MemoryStore;

const QUICK: RetryPolicy = RetryPolicy {
    attempts_max: 4,
    backoff_first: Duration::from_millis(1),
    backoff_max: Duration::from_millis(4),
    timeout: Duration::from_millis(200),
    bytes_per_second_min: 1024 * 1024,
};

const IF_ABSENT: PutOptions = PutOptions {
    if_absent: true,
    tags: Vec::new(),
    encryption: None,
    sha256: None,
};

struct Bed {
    memory: Arc<MemoryStore>,
    faulty: Arc<FaultyStore>,
    store: Retrying,
    key: ObjectKey,
}

impl Bed {
    fn new(policy: RetryPolicy) -> Self {
        let memory = Arc::new(MemoryStore::new());
        let faulty = Arc::new(FaultyStore::new(Arc::<MemoryStore>::clone(&memory)));
        let store = Retrying::new(Arc::<FaultyStore>::clone(&faulty), policy);
        Self {
            memory,
            faulty,
            store,
            key: ObjectKey::new("a/key"),
        }
    }

    fn scripted(faults: impl IntoIterator<Item = Fault>) -> Self {
        let bed = Self::new(QUICK);
        faults.into_iter().for_each(|fault| bed.faulty.add(fault));
        bed
    }

    /// What the key holds in the store itself.
    async fn stored(&self) -> Bytes {
        read(&*self.memory, &self.key, None).await.unwrap()
    }

    async fn fill(&self, bytes: impl Into<Bytes>) {
        let options = PutOptions::default();
        self.memory
            .put(&self.key, bytes.into(), &options)
            .await
            .unwrap();
    }

    fn count(&self, call: Call) -> usize {
        self.faulty
            .calls()
            .iter()
            .filter(|made| made.0 == call)
            .count()
    }
}

async fn read(
    store: &dyn ObjectStore,
    key: &ObjectKey,
    range: Option<Range<u64>>,
) -> Result<Bytes, StoreError> {
    let body = store.get(key, range).await?;
    let bytes: BytesMut = body.chunks.try_collect().await?;
    Ok(bytes.freeze())
}

fn kind_of<T: fmt::Debug>(result: Result<T, StoreError>) -> StoreErrorKind {
    result.expect_err("it fails").kind
}

#[tokio::test]
async fn it_conforms_over_a_store_that_fails_one_call_in_ten() {
    let bed = Bed::new(RetryPolicy {
        attempts_max: 12,
        ..QUICK
    });
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    fastrand::seed(seed);
    bed.faulty.fail_one_in(10);
    let traits = Traits {
        has_heard_answers: false,
        ..Traits::default()
    };
    conformance::run_with(Arc::new(bed.store), "scratch", traits).await;
}

#[tokio::test]
async fn passing_faults_are_ridden_out() {
    for kind in [
        StoreErrorKind::Throttled,
        StoreErrorKind::Timeout,
        StoreErrorKind::Unreachable,
    ] {
        let bed = Bed::scripted([Fault::next(Call::Put, Trouble::Fails(kind)).times(3)]);
        let options = PutOptions::default();
        let put = bed.store.put(&bed.key, "x".into(), &options);
        put.await.unwrap();
        assert_eq!(
            (bed.count(Call::Put), &bed.stored().await[..]),
            (4, &b"x"[..])
        );
    }
}

#[tokio::test]
async fn after_the_limit_the_last_failure_is_told() {
    let fault = Fault::next(Call::Head, Trouble::Fails(StoreErrorKind::Throttled));
    let bed = Bed::scripted([fault.times(100)]);
    assert_eq!(
        kind_of(bed.store.head(&bed.key).await),
        StoreErrorKind::Throttled
    );
    assert_eq!(bed.count(Call::Head), 4);
}

#[tokio::test]
async fn final_answers_are_not_asked_for_again() {
    for kind in [
        StoreErrorKind::NotFound,
        StoreErrorKind::NoContainer,
        StoreErrorKind::Denied,
        StoreErrorKind::Unsupported,
    ] {
        let bed = Bed::scripted([Fault::next(Call::Get, Trouble::Fails(kind))]);
        assert_eq!(kind_of(read(&bed.store, &bed.key, None).await), kind);
        assert_eq!(bed.count(Call::Get), 1, "{kind}");
    }
}

#[tokio::test]
async fn a_request_that_hangs_is_given_up_and_made_again() {
    let bed = Bed::scripted([Fault::next(Call::List, Trouble::Hangs).times(2)]);
    bed.store.list(&ListRequest::default()).await.unwrap();
    assert_eq!(bed.count(Call::List), 3);
    let bed = Bed::scripted([Fault::next(Call::List, Trouble::Hangs).times(9)]);
    let list = bed.store.list(&ListRequest::default()).await;
    assert_eq!(kind_of(list), StoreErrorKind::Timeout);
}

#[tokio::test]
async fn a_conditional_put_whose_answer_was_lost_succeeded() {
    let bed = Bed::scripted([Fault::next(Call::Put, Trouble::ReplyLost)]);
    bed.store
        .put(&bed.key, "mine".into(), &IF_ABSENT)
        .await
        .unwrap();
    assert_eq!(&bed.stored().await[..], b"mine");
}

#[tokio::test]
async fn a_conditional_put_that_another_won_meanwhile_fails() {
    for other in ["them", "others"] {
        let fault = Fault::next(Call::Put, Trouble::Fails(StoreErrorKind::Timeout));
        let bed = Bed::scripted([fault]);
        bed.fill(other).await;
        let put = bed.store.put(&bed.key, "mine".into(), &IF_ABSENT).await;
        assert_eq!(kind_of(put), StoreErrorKind::Exists);
        assert_eq!(&bed.stored().await[..], other.as_bytes());
    }
}

#[tokio::test]
async fn a_conditional_put_on_the_same_bytes_still_says_that_they_were_there() {
    let bed = Bed::scripted([]);
    bed.fill("mine").await;
    let put = bed.store.put(&bed.key, "mine".into(), &IF_ABSENT).await;
    assert_eq!(kind_of(put), StoreErrorKind::Exists);
}

async fn uploaded(bed: &Bed) -> Result<(), StoreError> {
    let options = PutOptions::default();
    let upload = bed.store.begin_upload(&bed.key, &options).await?;
    let part = bed
        .store
        .put_part(&bed.key, &upload, 1, "part".into())
        .await?;
    bed.store
        .complete_upload(&bed.key, &upload, &[part], &options)
        .await
}

#[tokio::test]
async fn an_upload_survives_lost_answers_at_each_step() {
    for call in [Call::BeginUpload, Call::PutPart] {
        let bed = Bed::scripted([Fault::next(call, Trouble::ReplyLost)]);
        uploaded(&bed).await.unwrap();
        assert_eq!(&bed.stored().await[..], b"part", "{call:?}");
    }
}

#[tokio::test]
async fn an_upload_whose_completion_went_unheard_is_left_to_be_compared() {
    let bed = Bed::scripted([Fault::next(Call::CompleteUpload, Trouble::ReplyLost)]);
    assert_eq!(kind_of(uploaded(&bed).await), StoreErrorKind::Exists);
    assert_eq!(&bed.stored().await[..], b"part");
}

#[tokio::test]
async fn an_upload_that_is_gone_without_an_object_fails() {
    let bed = Bed::scripted([
        Fault::next(
            Call::CompleteUpload,
            Trouble::Fails(StoreErrorKind::Timeout),
        ),
        Fault::next(
            Call::CompleteUpload,
            Trouble::Fails(StoreErrorKind::NoUpload),
        ),
    ]);
    assert_eq!(kind_of(uploaded(&bed).await), StoreErrorKind::NoUpload);
}

#[tokio::test]
async fn a_body_goes_on_where_it_broke_off() {
    let whole: Bytes = (0..=255_u8).cycle().take(1_000_000).collect();
    for range in [None, Some(10_000..990_000), Some(999_000..2_000_000)] {
        let bed = Bed::scripted([
            Fault::next(Call::Get, Trouble::ShortBody(300_000)),
            Fault::next(Call::Get, Trouble::Fails(StoreErrorKind::Unreachable)),
            Fault::next(Call::Get, Trouble::StalledBody(1)),
            Fault::next(Call::Get, Trouble::ShortBody(0)).times(2),
        ]);
        bed.fill(whole.clone()).await;
        let bytes = read(&bed.store, &bed.key, range.clone()).await.unwrap();
        let range = range.unwrap_or(0..1_000_000);
        let from = usize::try_from(range.start).unwrap();
        let to = usize::try_from(range.end.min(1_000_000)).unwrap();
        assert!(bytes == whole[from..to], "{range:?}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_for_ever_fails() {
    let bed = Bed::scripted([Fault::next(Call::Get, Trouble::ShortBody(0)).times(99)]);
    bed.fill("something").await;
    let bytes = read(&bed.store, &bed.key, None).await;
    assert_eq!(kind_of(bytes), StoreErrorKind::Unreachable);
    assert_eq!(bed.count(Call::Get), 4);
}

#[tokio::test]
async fn a_body_does_not_go_on_in_another_object() {
    let whole = Bytes::from(vec![1; 600_000]);
    for replacement in [Some(vec![2; 600_000]), Some(vec![2; 9]), None] {
        let bed = Bed::scripted([Fault::next(Call::Get, Trouble::ShortBody(300_000))]);
        bed.fill(whole.clone()).await;
        let mut body = bed.store.get(&bed.key, None).await.unwrap();
        body.chunks.next().await.unwrap().unwrap();
        match replacement {
            Some(bytes) => bed.fill(bytes).await,
            None => bed
                .memory
                .delete(std::slice::from_ref(&bed.key))
                .await
                .unwrap(),
        }
        let rest: Result<BytesMut, StoreError> = body.chunks.try_collect().await;
        assert_eq!(kind_of(rest), StoreErrorKind::Changed);
    }
}

#[test]
fn waits_grow_up_to_a_limit_and_throttling_asks_for_more() {
    let policy = RetryPolicy::NETWORK;
    let mut last = Duration::ZERO;
    for attempts in 1..40 {
        let wait = policy.backoff(attempts, StoreErrorKind::Unreachable);
        assert!(
            wait <= policy.backoff_max && wait >= last.mul_f64(0.5),
            "{attempts}"
        );
        last = last.max(wait);
    }
    let wait = policy.backoff(1, StoreErrorKind::Throttled);
    assert!(wait >= policy.backoff_first * 2);
    assert_eq!(policy.timeout_of(0), policy.timeout);
    assert!(policy.timeout_of(64 * 1024 * 1024) > policy.timeout * 10);
}

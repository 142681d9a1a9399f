//! Whose turn it is.

use cellarman_plugin::controller::{Installed, lease};
use serde_json::{Value, json};

use super::api::{Api, Right};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/cnpg-system/leases/a-lease";

const RIGHTS: &[Right] = &[
    (
        "POST",
        "/apis/coordination.k8s.io/v1/namespaces/cnpg-system/leases",
    ),
    ("GET", LEASE),
    ("PATCH", LEASE),
];

pub(super) fn installed(api: &Api, replica: &str) -> Installed {
    Installed {
        api: api.server(),
        namespace: "cnpg-system".to_owned(),
        service: "barman-cloud".to_owned(),
        lease: "a-lease".to_owned(),
        replica: replica.to_owned(),
        is_elected: true,
        has_webhook: true,
    }
}

fn holder(api: &Api) -> Value {
    api.object(LEASE).unwrap()["spec"]["holderIdentity"].clone()
}

#[tokio::test]
async fn one_holds_it_until_it_gives_it_back() {
    let api = Api::start(RIGHTS).await;
    let (one, other) = (installed(&api, "one"), installed(&api, "other"));
    let (mut seen, mut seen_by_other) = (None, None);
    assert!(lease::try_acquire(&one, &mut seen).await.unwrap());
    assert!(
        !lease::try_acquire(&other, &mut seen_by_other)
            .await
            .unwrap()
    );
    assert!(lease::try_acquire(&one, &mut seen).await.unwrap());
    lease::release(&other).await.unwrap();
    assert_eq!(holder(&api), "one");
    lease::release(&one).await.unwrap();
    assert!(
        lease::try_acquire(&other, &mut seen_by_other)
            .await
            .unwrap()
    );
    assert_eq!(holder(&api), "other");
}

#[tokio::test]
async fn one_that_does_not_renew_loses_it() {
    let api = Api::start(RIGHTS).await;
    let other = installed(&api, "other");
    // Renewed in the future of this clock: only that it does not change counts.
    api.put(
        LEASE,
        json!({"spec": {"holderIdentity": "one", "leaseDurationSeconds": 0,
                        "renewTime": "2099-01-01T00:00:00.000000Z", "leaseTransitions": 4}}),
    );
    let mut seen = None;
    assert!(!lease::try_acquire(&other, &mut seen).await.unwrap());
    assert!(lease::try_acquire(&other, &mut seen).await.unwrap());
    assert_eq!(api.object(LEASE).unwrap()["spec"]["leaseTransitions"], 5);
}

#[tokio::test]
async fn one_that_renews_keeps_it() {
    let api = Api::start(RIGHTS).await;
    let other = installed(&api, "other");
    let mut seen = None;
    for renewal in 0..3 {
        let time = format!("2020-01-01T00:00:0{renewal}.000000Z");
        api.put(
            LEASE,
            json!({"spec": {"holderIdentity": "one", "leaseDurationSeconds": 0, "renewTime": time}}),
        );
        assert!(!lease::try_acquire(&other, &mut seen).await.unwrap());
    }
}

#[tokio::test]
async fn the_work_runs_while_it_is_held_and_it_is_given_back() {
    let api = Api::start(RIGHTS).await;
    let one = installed(&api, "one");
    let cancel = tokio_util::sync::CancellationToken::new();
    let stop = cancel.clone();
    let work = |_held| {
        assert_eq!(holder(&api), "one");
        stop.cancel();
        std::future::pending::<()>()
    };
    lease::whenever_held(&one, &cancel, work).await;
    assert_eq!(holder(&api), "");
}

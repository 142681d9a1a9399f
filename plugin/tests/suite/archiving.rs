//! How archiving goes is told where people look: on the ObjectStore and on the Cluster.
//!
//! Not here: archiving itself (`wal`).

use std::fs;

use serde_json::Value;
use testbed::or_not_run;
use testbed::wait;

use crate::sidecar::cluster;
use crate::wal::Bed;

/// Waits until the ObjectStore has a condition with this status and these words.
fn wait_for_condition(bed: &Bed, name: &str, status: &str, words: &str) {
    let path = bed.objects.folder().join("ObjectStore-store-a.yaml");
    wait::until_true(&format!("{name} to be {status}: {words}"), || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let store: Value = serde_norway::from_str(&text).unwrap_or_default();
        let conditions = store["status"]["conditions"].as_array().cloned();
        conditions.unwrap_or_default().iter().any(|condition| {
            condition["type"] == name
                && condition["status"] == status
                && condition["message"] == words
        })
    });
}

#[test]
fn a_failure_and_its_end_are_told() {
    let mut bed = or_not_run!(Bed::new());
    let cluster = cluster(Some(("store-a", "pg")), None);
    let name = bed.ready().remove(0);
    bed.store.kill();
    let outcome = bed.sidecar.archive(&cluster, &bed.file(&name), None);
    let failure = outcome.expect_err("there is no store");
    wait_for_condition(&bed, "ArchiveHealthy", "False", failure.message());
    bed.store.start_again();
    bed.archive(&cluster, &name).expect("the store is back");
    wait_for_condition(
        &bed,
        "ArchiveHealthy",
        "True",
        "WAL of server pg is archived.",
    );
    let events = bed.objects.folder().join("events.jsonl");
    wait::until_true("both events", || {
        let events = fs::read_to_string(&events).unwrap_or_default();
        let place = |reason| events.find(reason);
        let (failed, resumed) = (place("ArchiveFailed"), place("ArchiveResumed"));
        failed.is_some() && failed < resumed
    });
}

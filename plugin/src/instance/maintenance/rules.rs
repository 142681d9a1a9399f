//! What of an ObjectStore says how its archive is looked after. Pure.
//!
//! `spec.retentionPolicy` is that of plugin-barman-cloud; `spec.retention` adds `redundancy`, how many
//! backups stay, and `minimumBackups`, how many stay whatever their age. Not here: deleting.

use std::num::NonZeroU32;
use std::time::Duration;

use cellarman::domain::retention::Rules;
use cellarman::domain::retention::policy::RetentionPolicy;
use serde_json::Value;

/// The interval where the manifest names none.
const DEFAULT_INTERVAL: Duration = Duration::from_mins(30);

/// What is kept; `None` where nothing is to be deleted.
///
/// With a window and a redundancy, a backup stays that either of them keeps.
pub(super) fn rules(object_store: &Value, policy: Option<RetentionPolicy>) -> Option<Rules> {
    let number = |name: &str| {
        let value = object_store["spec"]["retention"][name].as_u64()?;
        u32::try_from(value).ok()
    };
    let redundancy = number("redundancy").and_then(NonZeroU32::new);
    let minimum = number("minimumBackups").unwrap_or(0);
    match (policy, redundancy) {
        (Some(policy), redundancy) => Some(Rules {
            policy,
            minimum_redundancy: redundancy.map_or(0, NonZeroU32::get).max(minimum),
        }),
        (None, Some(redundancy)) => Some(Rules {
            policy: RetentionPolicy::Redundancy(redundancy),
            minimum_redundancy: minimum,
        }),
        (None, None) => None,
    }
}

/// How often the archive is looked after; `None` where the manifest's interval makes no sense.
pub(super) fn interval(object_store: &Value) -> Option<Duration> {
    let sidecar = &object_store["spec"]["instanceSidecarConfiguration"];
    let value = &sidecar["retentionPolicyIntervalSeconds"];
    if value.is_null() {
        return Some(DEFAULT_INTERVAL);
    }
    let seconds = value.as_u64().filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_window_and_counts_keep_what_either_keeps() {
        let window: RetentionPolicy = "7d".parse().unwrap();
        let three: RetentionPolicy = "redundancy 3".parse().unwrap();
        for (policy, retention, expected) in [
            (None, json!(null), None),
            (None, json!({"minimumBackups": 2}), None),
            (None, json!({"redundancy": 0}), None),
            (None, json!({"redundancy": 3}), Some((three, 0))),
            (
                None,
                json!({"redundancy": 3, "minimumBackups": 5}),
                Some((three, 5)),
            ),
            (Some(window), json!(null), Some((window, 0))),
            (
                Some(window),
                json!({"minimumBackups": 2}),
                Some((window, 2)),
            ),
            (
                Some(window),
                json!({"redundancy": 4, "minimumBackups": 2}),
                Some((window, 4)),
            ),
        ] {
            let store = json!({"spec": {"retention": retention}});
            let found = rules(&store, policy).map(|rules| (rules.policy, rules.minimum_redundancy));
            assert_eq!(found, expected, "{retention}");
        }
    }

    #[test]
    fn an_interval_that_makes_no_sense_is_none() {
        for (value, expected) in [
            (json!(null), Some(1800)),
            (json!(60), Some(60)),
            (json!(0), None),
            (json!(-1), None),
            (json!("60"), None),
        ] {
            let sidecar = json!({"retentionPolicyIntervalSeconds": value});
            let store = json!({"spec": {"instanceSidecarConfiguration": sidecar}});
            assert_eq!(
                interval(&store),
                expected.map(Duration::from_secs),
                "{value}"
            );
        }
    }
}

//! What to say of a transaction or a restore point that is not in the log: what there is instead.
//!
//! Not here: finding those that are.

use crate::domain::log::outline::Outline;
use crate::domain::log::reach::LogEnd;
use crate::domain::log::stop::Stop;
use crate::service::targets::locate::Log;

/// How many restore points are named.
const NAMED_MAX: usize = 5;

/// How many index objects are looked into.
const OBJECTS_MAX: usize = 16;

/// What there is instead, as the end of a sentence, or nothing.
pub(crate) async fn note(log: &Log<'_>, stop: &Stop, end: &LogEnd) -> String {
    match stop {
        Stop::Name(name) => {
            let wanted = String::from_utf8_lossy(name);
            let on_the_way = end.names.iter();
            let mut known: Vec<String> = on_the_way
                .map(|name| String::from_utf8_lossy(name).into_owned())
                .collect();
            for segment in log
                .summaries(OBJECTS_MAX, |outline| outline.restore_points > 0)
                .await
            {
                let names = segment.restore_points.iter();
                known.extend(names.map(|point| String::from_utf8_lossy(&point.name).into_owned()));
            }
            nearest(&wanted, known)
        }
        Stop::Xid { xid, .. } => {
            let may = |outline: &Outline| outline.ends.is_some_and(|ends| ends.may_stop(stop));
            let mut segments = log.summaries(OBJECTS_MAX, may).await.into_iter();
            let is_sub = segments.any(|segment| segment.subtransactions.contains(*xid));
            if is_sub {
                ": it was a subtransaction, which ends with the transaction that it is part of"
                    .to_owned()
            } else {
                String::new()
            }
        }
        Stop::Time { .. } | Stop::Lsn { .. } => String::new(),
    }
}

/// The names nearest to the one that was asked for.
fn nearest(wanted: &str, mut known: Vec<String>) -> String {
    known.sort_unstable();
    known.dedup();
    known.sort_by_key(|name| strsim::damerau_levenshtein(wanted, name));
    known.truncate(NAMED_MAX);
    if known.is_empty() {
        return String::new();
    }
    let quoted: Vec<String> = known.iter().map(|name| format!("{name:?}")).collect();
    format!("; the nearest names there are {}", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_come_first() {
        let known = ["after-load", "before-load", "y", "x", "z", "y", "other"];
        let known = known.map(str::to_owned).to_vec();
        let note = nearest("befor-load", known);
        assert!(
            note.starts_with("; the nearest names there are \"before-load\", \"after-load\""),
            "{note}"
        );
        assert!(note.ends_with("\"other\", \"x\", \"y\""), "{note}");
        assert_eq!(nearest("x", Vec::new()), "");
    }
}

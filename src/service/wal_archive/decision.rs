//! Pure: which requests the archiving of one file takes, from what is known beforehand.
//!
//! Not here: making the requests, and judging a non-empty archive (`ownership`).

use chrono::{DateTime, TimeDelta, Utc};

use crate::codec::Codec;
use crate::domain::segment::SegmentName;
use crate::domain::wal_file::WalFileName;
use crate::service::wal_archive::Demand;
use crate::service::wal_state::{KnownArchive, Mark, Marker};

/// How long a mark left by a look-ahead spares the request. An older one proves too little: the
/// server may have been down for weeks while the archive was expired or moved.
const MARK_AGE_MAX: TimeDelta = TimeDelta::hours(1);

/// What must hold of the archive before the file may be put into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It was found to be this server's own before.
    Known,
    /// It is empty of WAL, or this server's own.
    EmptyOrOwn,
    /// It is empty of WAL: a cluster just recovered shares its source's identity.
    Empty,
}

/// How it is made sure that nothing of the same name is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    /// The put itself fails where something is. One request.
    ConditionalPut,
    /// A look at the key, then the put: for stores that ignore the condition.
    HeadFirst,
    /// A listing of the name with every suffix, then the put.
    ListFirst,
}

/// The requests to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Steps {
    /// What must hold of the archive first.
    pub(super) admission: Admission,
    /// How a file of the same name is noticed.
    pub(super) absence: Absence,
}

/// What is known before any request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// The file to archive.
    pub(super) name: WalFileName,
    /// The codec it will be stored in.
    pub(super) codec: Codec,
    /// What is remembered of the archive.
    pub(super) known: Option<&'a KnownArchive>,
    /// The markers that demand an empty archive.
    pub(super) markers: &'a [Marker],
    /// What the caller demands of the archive.
    pub(super) demand: Demand,
}

/// The requests that archiving this file takes.
pub(super) fn steps(facts: &Facts<'_>) -> Steps {
    let admission = match (first_open_marker(facts), facts.known) {
        (Some(_), _) if facts.demand != Demand::Own => Admission::Empty,
        // With a marker that was passed, an earlier call has found it empty.
        _ if facts.demand == Demand::Empty && facts.markers.is_empty() => Admission::Empty,
        (_, Some(_)) => Admission::Known,
        (_, None) => Admission::EmptyOrOwn,
    };
    let absence = match facts.known {
        Some(known) if is_settled(known, facts.codec, facts.name) => {
            if known.is_put_conditional {
                Absence::ConditionalPut
            } else {
                Absence::HeadFirst
            }
        }
        _ => Absence::ListFirst,
    };
    Steps { admission, absence }
}

/// The marker for which the archive was not yet found empty.
pub(super) fn first_open_marker<'a>(facts: &Facts<'a>) -> Option<&'a Marker> {
    let passed = facts.known.and_then(|known| known.empty_for.as_ref());
    facts
        .markers
        .first()
        .filter(|marker| passed != Some(&marker.id))
}

/// Whether nothing of this name can be there under another suffix.
///
/// Holds within one timeline: on another one a different server may have archived with a
/// different codec.
pub(super) fn is_settled(known: &KnownArchive, codec: Codec, name: WalFileName) -> bool {
    match (known.settled, name) {
        (Some(settled), WalFileName::Segment(segment)) => {
            settled.codec == codec
                && settled.after.timeline() == segment.timeline()
                && settled.after < segment
        }
        _ => false,
    }
}

/// Whether a mark is recent enough to be asked at all, for a file of `size` bytes.
pub(super) fn may_trust_mark(mark: &Mark, size: u64, now: DateTime<Utc>) -> bool {
    let age = now - mark.archived_at;
    mark.size == size && (TimeDelta::seconds(-1)..=MARK_AGE_MAX).contains(&age)
}

/// The next look-aheads, in the order in which PostgreSQL asks.
///
/// Only on the timeline of `asked`, and none beside a history: of two servers promoted to one
/// timeline, the refusal of its history must keep the second one's WAL out as well.
///
/// `ready` are all files that wait; `asked` is passed over. The nearest `count_max` are in reach,
/// whatever the length of the queue.
pub(super) fn look_ahead(
    ready: impl Iterator<Item = WalFileName>,
    asked: WalFileName,
    count_max: usize,
) -> Vec<WalFileName> {
    let is_history = |name| matches!(name, WalFileName::TimelineHistory(_));
    if is_history(asked) {
        return Vec::new();
    }
    let is_near = |name: WalFileName| {
        name != asked && name.timeline() == asked.timeline() && !is_history(name)
    };
    let mut first: Vec<(String, WalFileName)> = Vec::new();
    for name in ready.filter(|name| is_near(*name)) {
        let text = name.to_string();
        let place = first.partition_point(|(known, _)| *known < text);
        if place < count_max {
            first.insert(place, (text, name));
            first.truncate(count_max);
        }
    }
    first.into_iter().map(|(_, name)| name).collect()
}

/// The segment after which nothing is in the archive: the last one found at or after the asked
/// one's place, or the one asked for when nothing is.
pub(super) fn settled_after(asked: SegmentName, last_found: Option<SegmentName>) -> SegmentName {
    last_found.map_or(asked, |last| last.max(asked))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::domain::backup::SystemId;
    use crate::service::wal_state::{MarkerId, Settled};
    use crate::store::Learnt;

    fn name(text: &str) -> WalFileName {
        text.parse().unwrap()
    }

    fn segment(text: &str) -> SegmentName {
        text.parse().unwrap()
    }

    fn known(codec: Codec, after: &str) -> KnownArchive {
        KnownArchive {
            system_id: Some(SystemId(7)),
            is_put_conditional: true,
            settled: Some(Settled {
                codec,
                after: segment(after),
            }),
            empty_for: None,
            learnt: Learnt::default(),
        }
    }

    fn steps_for(text: &str, known: Option<&KnownArchive>, markers: &[Marker]) -> Steps {
        steps(&Facts {
            name: name(text),
            codec: Codec::Zstd,
            known,
            markers,
            demand: Demand::ByMarker,
        })
    }

    fn marker(id: &str) -> Marker {
        Marker {
            id: MarkerId::for_test(id),
            path: PathBuf::from("/marker"),
        }
    }

    #[test]
    fn the_usual_case_is_one_conditional_put() {
        let known = known(Codec::Zstd, "000000010000000000000004");
        let usual = Steps {
            admission: Admission::Known,
            absence: Absence::ConditionalPut,
        };
        assert_eq!(
            steps_for("000000010000000000000005", Some(&known), &[]),
            usual
        );
    }

    #[test]
    fn other_suffixes_are_looked_for_where_they_can_be() {
        let zstd = known(Codec::Zstd, "000000010000000000000004");
        let gzip = known(Codec::Gzip, "000000010000000000000004");
        for (text, known) in [
            ("000000010000000000000004", &zstd),
            ("000000010000000000000003", &zstd),
            ("000000020000000000000005", &zstd),
            ("000000010000000000000005", &gzip),
            ("000000010000000000000005.partial", &zstd),
            ("000000010000000000000005.00000028.backup", &zstd),
            ("00000002.history", &zstd),
        ] {
            let absence = steps_for(text, Some(known), &[]).absence;
            assert_eq!(absence, Absence::ListFirst, "{text}");
        }
    }

    #[test]
    fn a_store_that_ignores_conditions_is_looked_at_first() {
        let mut known = known(Codec::Zstd, "000000010000000000000004");
        known.is_put_conditional = false;
        let steps = steps_for("000000010000000000000005", Some(&known), &[]);
        assert_eq!(steps.absence, Absence::HeadFirst);
    }

    #[test]
    fn a_marker_demands_an_empty_archive_until_it_was_found_empty_for_that_marker() {
        let mut known = known(Codec::Zstd, "000000010000000000000004");
        let ask = |known: &KnownArchive| {
            steps_for("000000010000000000000005", Some(known), &[marker("a")]).admission
        };
        assert_eq!(ask(&known), Admission::Empty);
        known.empty_for = Some(MarkerId::for_test("b"));
        assert_eq!(ask(&known), Admission::Empty);
        known.empty_for = Some(MarkerId::for_test("a"));
        assert_eq!(ask(&known), Admission::Known);
    }

    #[test]
    fn the_users_word_turns_emptiness_into_ownership() {
        let facts = Facts {
            name: name("000000010000000000000005"),
            codec: Codec::Zstd,
            known: None,
            markers: &[marker("a")],
            demand: Demand::Own,
        };
        assert_eq!(steps(&facts).admission, Admission::EmptyOrOwn);
    }

    #[test]
    fn a_caller_may_demand_an_empty_archive_without_a_marker() {
        let known = known(Codec::Zstd, "000000010000000000000004");
        let passed = KnownArchive {
            empty_for: Some(MarkerId::for_test("a")),
            ..known.clone()
        };
        for (known, markers, admission) in [
            (&known, &[][..], Admission::Empty),
            (&known, &[marker("a")], Admission::Empty),
            (&passed, &[marker("a")], Admission::Known),
        ] {
            let facts = Facts {
                name: name("000000010000000000000005"),
                codec: Codec::Zstd,
                known: Some(known),
                markers,
                demand: Demand::Empty,
            };
            assert_eq!(steps(&facts).admission, admission);
        }
    }

    #[test]
    fn look_ahead_follows_postgresqls_order() {
        let ready = [
            "000000010000000000000009",
            "000000010000000000000007",
            "00000002.history",
            "000000020000000000000005",
            "000000010000000000000005",
            "000000010000000000000006",
            "000000010000000000000008",
            "000000010000000000000005.00000028.backup",
        ];
        let pick = |asked| {
            let picked = look_ahead(ready.into_iter().map(name), name(asked), 3);
            picked.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            pick("000000010000000000000005"),
            [
                "000000010000000000000005.00000028.backup",
                "000000010000000000000006",
                "000000010000000000000007",
            ]
        );
        assert!(pick("00000002.history").is_empty());
    }

    #[test]
    fn a_mark_is_trusted_for_its_size_and_while_it_is_fresh() {
        let archived_at = DateTime::from_timestamp(1_000_000, 0).unwrap();
        let mark = Mark {
            size: 10,
            blake3: String::new(),
            archived_at,
        };
        for (size, seconds, trusted) in [
            (10, 0, true),
            (10, 3_600, true),
            (10, 3_601, false),
            (10, -60, false),
            (11, 0, false),
        ] {
            let now = archived_at + TimeDelta::seconds(seconds);
            assert_eq!(
                may_trust_mark(&mark, size, now),
                trusted,
                "{size} {seconds}"
            );
        }
    }
}

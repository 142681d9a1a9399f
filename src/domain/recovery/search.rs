//! The search behind [`crate::domain::recovery::choose`]: each backup judged on each line.
//!
//! Not here: the words of the request and of the answer.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use chrono::{DateTime, FixedOffset};

use crate::domain::backup::{Backup, BackupId, BackupKind, BackupStatus, SystemId};
use crate::domain::lsn::Lsn;
use crate::domain::recovery::{Choice, Refusal, Request, Target, TimelineWish, utc};
use crate::domain::segment::SegmentName;
use crate::domain::timeline::{KnownTimelines, TimelineHistory, TimelineId, known_lines};

/// Where a backup that could serve becomes consistent.
#[derive(Clone, Copy)]
struct End<'a> {
    backup: &'a Backup,
    timeline: TimelineId,
    lsn: Lsn,
    time: Option<DateTime<FixedOffset>>,
}

impl<'a> End<'a> {
    /// The end of `backup`, or why it cannot serve, whatever the target.
    fn of(backup: &'a Backup) -> Result<Self, String> {
        if backup.status != BackupStatus::Done {
            let error = backup.error.as_deref().unwrap_or("");
            let colon = if error.is_empty() { "" } else { ": " };
            return Err(format!("it is {}, not DONE{colon}{error}", backup.status));
        }
        match &backup.kind {
            BackupKind::Full => {}
            BackupKind::Incremental { parent } => {
                return Err(format!(
                    "it is incremental on {parent}, which this release cannot combine"
                ));
            }
            BackupKind::Snapshot => return Err("it consists of volume snapshots".to_owned()),
        }
        // A standby may follow its primary to another timeline while it is copied.
        let timeline = backup.end_wal.map(SegmentName::timeline);
        let (Some(timeline), Some(lsn)) = (timeline.or(backup.timeline), backup.end_lsn) else {
            return Err("its record does not tell where it ends".to_owned());
        };
        Ok(Self {
            backup,
            timeline,
            lsn,
            time: backup.end_time,
        })
    }

    /// Why recovery that starts here cannot stop at `target`; `None` if it can.
    fn objection_to(&self, target: &Target) -> Option<String> {
        match target {
            Target::Time(time) => match self.time {
                Some(end) if end <= *time => None,
                Some(end) => Some(format!("it ends at {}, after the target", utc(end))),
                None => Some("its record does not tell when it ends".to_owned()),
            },
            Target::Lsn(lsn) if self.lsn > *lsn => {
                Some(format!("it ends at {}, after the target", self.lsn))
            }
            Target::Lsn(_)
            | Target::Latest
            | Target::Immediate
            | Target::Xid(_)
            | Target::Name(_) => None,
        }
    }

    /// Why this end does not lie on `line`; `None` if it does.
    fn objection_to_line(&self, line: &TimelineHistory) -> Option<String> {
        if line.holds(self.timeline, self.lsn) {
            return None;
        }
        let (timeline, lsn, target) = (self.timeline, self.lsn, line.timeline());
        Some(match line.switched_at(timeline) {
            Some(switch) => format!(
                "it ends at {lsn} on timeline {timeline}, after the line of timeline {target} left that at {switch}"
            ),
            None => format!(
                "it ends on timeline {timeline}, which is not on the line of timeline {target}"
            ),
        })
    }

    /// Later ends order higher. Positions tell of a position, times of all else: a cluster made
    /// anew under the same name starts its log over.
    fn rank(&self, target: &Target) -> impl Ord + use<'a> {
        let position = matches!(target, Target::Lsn(_)).then_some(self.lsn);
        (position, self.time, self.lsn, &self.backup.id)
    }
}

pub(super) struct Search<'a> {
    request: &'a Request,
    /// Each backup with its end, or why it cannot serve at all.
    backups: Vec<(&'a BackupId, Result<End<'a>, String>)>,
    /// The line of each timeline the archive knows, from a history file or from a backup on it.
    lines: BTreeMap<TimelineId, TimelineHistory>,
    timelines: &'a KnownTimelines,
    is_past_damaged: bool,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        backups: &'a [Backup],
        timelines: &'a KnownTimelines,
        request: &'a Request,
    ) -> Self {
        let mut backups: Vec<_> = backups.iter().map(|b| (&b.id, End::of(b))).collect();
        let ends = || backups.iter().filter_map(|(_, end)| end.as_ref().ok());
        let lines = lines(ends().map(|end| end.timeline), timelines);
        let newest = ends().max_by_key(|end| (end.time, &end.backup.id));
        let system_id = newest.and_then(|end| end.backup.system_id);
        if request.backup.is_none() {
            for (_, end) in &mut backups {
                pass_over_other_clusters(end, system_id);
            }
        }
        Self {
            request,
            backups,
            lines,
            timelines,
            is_past_damaged: false,
        }
    }

    /// Leaves out backups that were found damaged.
    pub(super) fn go_past(&mut self, damaged: &[(BackupId, String)]) {
        for (id, end) in &mut self.backups {
            let found = damaged.iter().find(|(damaged, _)| damaged == *id);
            if let Some((_, reason)) = found.filter(|_| end.is_ok()) {
                *end = Err(reason.clone());
                self.is_past_damaged = true;
            }
        }
    }

    pub(super) fn check_timeline(&self) -> Result<(), Refusal> {
        match self.request.timeline {
            TimelineWish::Number(timeline) if self.timelines.unreadable.contains(&timeline) => {
                Err(Refusal::UnreadableHistory {
                    timeline,
                    needed: "it was asked for".to_owned(),
                })
            }
            TimelineWish::Number(timeline) if !self.lines.contains_key(&timeline) => {
                let known: Vec<String> = self.lines.keys().map(ToString::to_string).collect();
                Err(Refusal::UnknownTimeline {
                    timeline,
                    known: if known.is_empty() {
                        "none".to_owned()
                    } else {
                        known.join(", ")
                    },
                })
            }
            _ => Ok(()),
        }
    }

    /// What was found, unless the newest timeline was wished for and cannot be told.
    pub(super) fn check_newest(&self, found: Result<Choice, Refusal>) -> Result<Choice, Refusal> {
        let newest = self.timelines.unreadable.iter().max().copied();
        let Some(timeline) = newest.filter(|_| self.request.timeline == TimelineWish::Latest)
        else {
            return found;
        };
        let needed = match &found {
            Ok(choice) if choice.timeline > timeline => return found,
            Ok(choice) => format!(
                "whether recovery is to follow it rather than timeline {} cannot be told",
                choice.timeline
            ),
            Err(Refusal::NoBackup | Refusal::UnknownBackup { .. }) => return found,
            Err(refusal) => format!("without it {refusal}"),
        };
        Err(Refusal::UnreadableHistory { timeline, needed })
    }

    /// The lines that may be followed from `end`, the one wished for most first.
    fn lines_from(&self, end: &End<'_>) -> Vec<&TimelineHistory> {
        let is_wished = |line: &&TimelineHistory| match self.request.timeline {
            TimelineWish::Latest => true,
            TimelineWish::Number(timeline) => line.timeline() == timeline,
            TimelineWish::Current => line.timeline() == end.timeline,
        };
        self.lines.values().rev().filter(is_wished).collect()
    }

    /// The backup asked for, if it can serve.
    pub(super) fn judge(&self, id: &BackupId) -> Result<Choice, Refusal> {
        let found = self.backups.iter().find(|(known, _)| *known == id);
        let Some((_, end)) = found else {
            return Err(Refusal::UnknownBackup { id: id.clone() });
        };
        let unfit = |reason: String| Refusal::Unfit {
            id: id.clone(),
            reason,
        };
        let end = end.as_ref().map_err(|reason| unfit(reason.clone()))?;
        let is_time = matches!(self.request.target, Target::Time(_));
        if let Some(reason) = end.objection_to(&self.request.target)
            && !(is_time && self.request.may_end_later)
        {
            return Err(unfit(reason));
        }
        let lines = self.lines_from(end);
        let on = lines.iter().find(|l| end.objection_to_line(l).is_none());
        match (on, lines.first()) {
            (Some(line), _) => Ok(self.choice(end, line)),
            (None, Some(line)) => Err(unfit(end.objection_to_line(line).unwrap_or_default())),
            (None, None) => Err(unfit(self.why_no_line(end))),
        }
    }

    fn why_no_line(&self, end: &End<'_>) -> String {
        let timeline = end.timeline;
        if self.timelines.unreadable.contains(&timeline) {
            return format!("it ends on timeline {timeline}, whose history cannot be read");
        }
        "no timeline leads on from it".to_owned()
    }

    /// The best of all backups: on the line wished for most that has any that can serve.
    pub(super) fn find(&self) -> Result<Choice, Refusal> {
        if self.backups.is_empty() {
            return Err(Refusal::NoBackup);
        }
        let target = &self.request.target;
        let mut candidates: Vec<(&End<'_>, &TimelineHistory)> = Vec::new();
        for end in self.ends().filter(|end| end.objection_to(target).is_none()) {
            let lines = self.lines_from(end);
            let on = lines
                .into_iter()
                .find(|l| end.objection_to_line(l).is_none());
            candidates.extend(on.map(|line| (end, line)));
        }
        if self.request.timeline == TimelineWish::Latest {
            let newest = candidates.iter().map(|(_, line)| line.timeline()).max();
            candidates.retain(|(_, line)| Some(line.timeline()) == newest);
        }
        candidates.sort_by_key(|(end, _)| Reverse(end.rank(target)));
        let is_blind = matches!(target, Target::Xid(_) | Target::Name(_));
        if let [(_, line), _, ..] = candidates[..]
            && is_blind
        {
            let ids = candidates.iter().rev();
            return Err(Refusal::Ambiguous {
                target: target.to_string(),
                timeline: line.timeline(),
                candidates: ids.map(|(end, _)| end.backup.id.clone()).collect(),
            });
        }
        match candidates.first() {
            Some((end, line)) => Ok(self.choice(end, line)),
            None => Err(self.refusal()),
        }
    }

    fn ends(&self) -> impl Iterator<Item = &End<'a>> {
        self.backups.iter().filter_map(|(_, end)| end.as_ref().ok())
    }

    fn choice(&self, end: &End<'_>, line: &TimelineHistory) -> Choice {
        let timeline = line.timeline();
        let mut histories = self.timelines.histories.iter();
        let has_history = histories.any(|h| h.timeline() == timeline);
        let others = self.backups.iter().filter(|(id, _)| **id != end.backup.id);
        let why_not = |other: &Result<End<'_>, String>| match other {
            Err(reason) => reason.clone(),
            Ok(other) => other
                .objection_to(&self.request.target)
                .or_else(|| other.objection_to_line(line))
                .unwrap_or_else(|| "it ends earlier than the one chosen".to_owned()),
        };
        let passed_over = match self.request.backup {
            Some(_) => Vec::new(),
            None => others.map(|(id, o)| ((*id).clone(), why_not(o))).collect(),
        };
        Choice {
            backup: end.backup.id.clone(),
            timeline,
            has_history,
            reasons: self.reasons(end, line),
            passed_over,
        }
    }

    fn reasons(&self, end: &End<'_>, line: &TimelineHistory) -> Vec<String> {
        let target = &self.request.target;
        let (id, timeline) = (&end.backup.id, line.timeline());
        let whole = if self.is_past_damaged {
            " that is whole"
        } else {
            ""
        };
        let mut reasons = vec![match (&self.request.backup, target) {
            (Some(_), _) => format!("Backup {id} was asked for."),
            (None, Target::Time(_) | Target::Lsn(_)) => format!(
                "Backup {id} is the last{whole} on the line of timeline {timeline} to end at or before {target}."
            ),
            (None, Target::Xid(_) | Target::Name(_)) => {
                format!("Backup {id} is the only one{whole} on the line of timeline {timeline}.")
            }
            (None, Target::Latest | Target::Immediate) => {
                format!("Backup {id} is the newest{whole} on the line of timeline {timeline}.")
            }
        }];
        let at = end
            .time
            .map_or_else(String::new, |time| format!(" at {}", utc(time)));
        reasons.push(format!(
            "It ends{at}, at {} on timeline {}.",
            end.lsn, end.timeline
        ));
        reasons.push(match self.request.timeline {
            TimelineWish::Number(_) => format!("Timeline {timeline} was asked for."),
            TimelineWish::Current => format!("Timeline {timeline} is the backup's own."),
            TimelineWish::Latest => self.why_latest(line),
        });
        reasons
    }

    fn why_latest(&self, line: &TimelineHistory) -> String {
        let timeline = line.timeline();
        let newer: Vec<String> = self
            .lines
            .keys()
            .filter(|newer| **newer > timeline)
            .map(ToString::to_string)
            .collect();
        if newer.is_empty() {
            format!("Timeline {timeline} is the newest in the archive.")
        } else {
            let which = match self.request.backup {
                Some(_) => "this backup is not on its line",
                None => "no backup on its line can serve",
            };
            format!(
                "Timeline {timeline} is the newest that can be followed: of {}, {which}.",
                newer.join(", ")
            )
        }
    }

    fn refusal(&self) -> Refusal {
        let target = self.request.target.to_string();
        let why_not = |end: &Result<End<'_>, String>| match end {
            Err(reason) => reason.clone(),
            Ok(end) => {
                let lines = self.lines_from(end);
                let off_line = match lines.first() {
                    Some(line) => end.objection_to_line(line),
                    None => Some(self.why_no_line(end)),
                };
                let early = end.objection_to(&self.request.target);
                early.or(off_line).unwrap_or_default()
            }
        };
        let passed_over = self.backups.iter();
        let passed_over = passed_over
            .map(|(id, end)| ((*id).clone(), why_not(end)))
            .collect();
        match self.earliest() {
            Some(earliest) => Refusal::TooEarly {
                target,
                earliest,
                passed_over,
            },
            None => Refusal::NoCandidate {
                target,
                passed_over,
            },
        }
    }

    /// The first end on a line wished for: what could be recovered at the earliest.
    fn earliest(&self) -> Option<String> {
        let on_line = self.ends().filter(|end| {
            let lines = self.lines_from(end);
            lines
                .iter()
                .any(|line| end.objection_to_line(line).is_none())
        });
        match self.request.target {
            Target::Time(_) => on_line.filter_map(|end| end.time).min().map(utc),
            Target::Lsn(_) => on_line.map(|end| end.lsn).min().map(|lsn| lsn.to_string()),
            _ => None,
        }
    }
}

/// A backup of a cluster that once had this name shares no log with the one that has it now.
fn pass_over_other_clusters(end: &mut Result<End<'_>, String>, system_id: Option<SystemId>) {
    let other = match end {
        Ok(End { backup, .. }) => backup
            .system_id
            .filter(|id| system_id.is_some_and(|s| s != *id)),
        Err(_) => None,
    };
    if let Some(other) = other {
        *end = Err(format!(
            "it is of another cluster, with system identifier {other}"
        ));
    }
}

/// The line of every timeline that is known: from its own history file where there is one, else
/// from a descendant's, else from a backup on it, which then is all there is to it.
fn lines(
    of_backups: impl Iterator<Item = TimelineId>,
    timelines: &KnownTimelines,
) -> BTreeMap<TimelineId, TimelineHistory> {
    let mut lines: BTreeMap<_, _> = of_backups.map(|t| (t, TimelineHistory::root(t))).collect();
    lines.extend(known_lines(&timelines.histories));
    // PostgreSQL reads the history of the timeline that it follows, and no other.
    lines.retain(|timeline, _| !timelines.unreadable.contains(timeline));
    lines
}

//! A line as a whole: how far it reaches, its gaps, its restore points, when transactions ended.
//!
//! What lies between a gap and the next backup is passed over: recovery does not get there.
//! By the names of index objects, and of those with restore points their contents; what is not in
//! the index is read, up to a number of segments. Not here: one target (`resolve`).

use crate::domain::log::outline::Ends;
use crate::domain::log::reach::LogEnd;
use crate::domain::log::stop::{Stop, TransactionEnd};
use crate::domain::log::summary::RestorePoint;
use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentNumber};
use crate::service::targets::locate::{LocateError, Log, READ_MAX};

/// How many index objects are fetched for the restore points in them.
const OBJECTS_MAX: usize = 200;

/// What a line tells of where recovery from its backups gets to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// The ends of transactions by stretch, in the order of the log.
    pub stretches: Vec<Ends>,
    /// The named points, in the order of the log; only the first of them where there are many.
    pub restore_points: Vec<RestorePoint>,
    /// Where it ends: before the first gap behind the newest backup.
    pub end: LogEnd,
    /// The segments that are missing with others behind them: the first and the last of each gap.
    pub gaps: Vec<(SegmentName, SegmentName)>,
    /// How many segments the gaps are of.
    pub missing_segments: u64,
    /// How many segments there are.
    pub segments: u64,
    /// How many of those that recovery gets to are not in the index and were not read.
    pub unknown_segments: u64,
}

/// What a survey may still ask for.
struct Budget {
    objects: usize,
    segments: u64,
}

impl Log<'_> {
    /// Surveys the line from where each of its backups begins, in order, up to the next gap, and
    /// lists all gaps.
    pub async fn survey(&self, begins: &[Lsn]) -> Result<Survey, LocateError> {
        let files = self.files();
        let mut survey = Survey {
            gaps: files.named_gaps(),
            missing_segments: files.missing(),
            segments: files.count(),
            ..Survey::default()
        };
        let mut budget = Budget {
            objects: OBJECTS_MAX,
            segments: READ_MAX,
        };
        let mut done: Option<SegmentNumber> = None;
        for from in begins {
            let begin = SegmentNumber::holding(*from, files.size());
            let Some(last) = files.last_without_gap(begin).filter(|_| done < Some(begin)) else {
                continue;
            };
            self.survey_stretch((*from, last), &mut survey, &mut budget)
                .await?;
            done = Some(last);
        }
        if let Some(newest) = begins.last() {
            survey.end = self.end_from(*newest).await?;
        }
        Ok(survey)
    }

    /// Surveys segments of which none is missing.
    async fn survey_stretch(
        &self,
        (from, last): (Lsn, SegmentNumber),
        survey: &mut Survey,
        budget: &mut Budget,
    ) -> Result<(), LocateError> {
        let mut lead = None;
        let begin = SegmentNumber::holding(from, self.files().size());
        let mut next = Some(begin).filter(|begin| *begin <= last);
        while let Some(number) = next {
            let mut done = number;
            if let Some((outline, until)) = self.indexed(number) {
                done = until.min(last);
                survey.stretches.extend(outline.ends);
                if outline.restore_points > 0 && budget.objects > 0 {
                    budget.objects -= 1;
                    let points = self.restore_points_of(outline).await.into_iter();
                    let reached =
                        points.filter(|(number, point)| point.lsn >= from && *number <= last);
                    survey
                        .restore_points
                        .extend(reached.map(|(_, point)| point));
                }
            } else if budget.segments > 0 {
                budget.segments -= 1;
                let scanned = self.scan_whole(number, from, &mut lead).await?;
                if let Some(scanned) = scanned {
                    survey.stretches.extend(scanned.ends);
                    survey.restore_points.extend(scanned.restore_points);
                }
            } else {
                survey.unknown_segments += 1;
            }
            next = done.next().filter(|next| *next <= last);
        }
        Ok(())
    }

    /// Where the log ends, from a position on.
    async fn end_from(&self, from: Lsn) -> Result<LogEnd, LocateError> {
        let mut end = match self.locate(from, &Stop::never()).await {
            Ok(located) => located.end(),
            Err(LocateError::NotIndexed { .. }) => LogEnd::default(),
            Err(error) => return Err(error),
        };
        if end.last_end.is_none() {
            end.last_end = self.last_end_indexed(from).await;
        }
        Ok(end)
    }

    /// The last end of a transaction that the index knows, from a position on.
    async fn last_end_indexed(&self, from: Lsn) -> Option<(Lsn, TransactionEnd)> {
        let outline = self.last_with_ends()?.clone();
        let segments = self.object(&outline).await;
        let ends = segments.iter().rev().filter_map(|segment| segment.last_end);
        ends.filter(|(lsn, _)| *lsn >= from)
            .max_by_key(|(lsn, _)| *lsn)
    }
}

//! How busy the log was over time, in equal steps: the ends of transactions of each stretch spread
//! evenly over it.
//!
//! Not here: drawing it.

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::log::outline::Ends;

/// The widths of steps that people read with ease, in seconds.
const STEPS: [i64; 14] = [
    60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400, 172_800, 604_800,
];

/// Commits by steps of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chart {
    /// When the first step begins.
    pub begin: DateTime<Utc>,
    /// How long each is.
    pub step: TimeDelta,
    /// How many committed in each, about.
    pub commits: Vec<u64>,
}

/// The chart of these stretches in at most `columns_max` steps of a minute or more; `None` when
/// nothing ended in them.
pub fn chart(stretches: &[Ends], columns_max: usize) -> Option<Chart> {
    let earliest = stretches.iter().map(|ends| ends.earliest).min()?;
    let latest = stretches.iter().map(|ends| ends.latest).max()?;
    let columns_max = i64::try_from(columns_max.max(1)).ok()?;
    let seconds = (latest.timestamp() - earliest.timestamp()).max(0) + 1;
    // One more for where the first step begins.
    let fits = |step: &&i64| seconds / **step + 2 <= columns_max;
    let step = STEPS.iter().find(fits).copied();
    let step = step.unwrap_or_else(|| (seconds / columns_max + 1).max(604_800));
    let begin = earliest.timestamp().div_euclid(step) * step;
    let columns = usize::try_from((latest.timestamp() - begin) / step + 1).ok()?;
    let mut commits = vec![0_u64; columns];
    for ends in stretches {
        spread(ends, (begin, step), &mut commits);
    }
    Some(Chart {
        begin: DateTime::from_timestamp(begin, 0)?,
        step: TimeDelta::seconds(step),
        commits,
    })
}

/// Adds the commits of a stretch to the steps it covers, the whole number of them.
fn spread(ends: &Ends, (begin, step): (i64, i64), commits: &mut [u64]) {
    let column = |time: DateTime<Utc>| usize::try_from((time.timestamp() - begin) / step);
    let (Ok(first), Ok(last)) = (column(ends.earliest), column(ends.latest)) else {
        return;
    };
    let Some(covered) = commits.get_mut(first..=last) else {
        return;
    };
    let count = u64::try_from(covered.len()).unwrap_or(1);
    let (each, mut rest) = (ends.commits / count, ends.commits % count);
    for column in covered {
        let one_more = u64::from(rest > 0);
        rest -= one_more;
        *column += each + one_more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(from: i64, to: i64, commits: u64) -> Ends {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        Ends {
            commits,
            aborts: 0,
            earliest: at(from),
            latest: at(to),
            oldest_xid: 3,
            newest_xid: 4,
        }
    }

    #[test]
    fn every_commit_is_in_the_chart_and_steps_are_as_wide_as_needed() {
        for (stretches, columns_max, step, columns) in [
            (vec![ends(0, 0, 7)], 60, 60, 1),
            (vec![ends(30, 90, 7)], 60, 60, 2),
            (vec![ends(0, 3_599, 100), ends(1_000, 2_000, 3)], 62, 60, 60),
            (vec![ends(0, 3_599, 100)], 20, 300, 12),
            (vec![ends(0, 400_000_000, 9)], 10, 40_000_001, 10),
        ] {
            let chart = chart(&stretches, columns_max).unwrap();
            assert_eq!(chart.step, TimeDelta::seconds(step), "{stretches:?}");
            assert_eq!(chart.commits.len(), columns, "{stretches:?}");
            let total: u64 = stretches.iter().map(|ends| ends.commits).sum();
            assert_eq!(chart.commits.iter().sum::<u64>(), total);
        }
        assert_eq!(chart(&[], 60), None);
    }
}

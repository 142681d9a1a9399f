//! A target and its plan, from the wire and back to it. Pure.
//!
//! Not here: making the plan (`cellarman::service::restore::recovery_plan`), and refusals
//! (`unreachable`).

use cellarman::api::recovery_targets as wire;
use cellarman::api::recovery_targets::resolve_request::Target as Wanted;
use cellarman::domain::log::reach::StopPoint;
use cellarman::domain::log::stop::{Side, What};
use cellarman::domain::log::summary::RestorePoint;
use cellarman::domain::recovery::{Request, Target, TimelineWish};
use cellarman::service::restore::recovery_plan::RecoveryPlan;
use cellarman::service::restore::words;
use chrono::DateTime;

use crate::instance::targets::error::TargetsError;
use crate::instance::targets::shape;

/// What is asked for; the backup is left to be looked up.
pub(super) fn asked(request: &wire::ResolveRequest) -> Result<Request, TargetsError> {
    let wanted = request.target.as_ref();
    let target = target(wanted.ok_or(TargetsError::Missing("target"))?)?;
    let timeline = match request.timeline.as_str() {
        "" => TimelineWish::Latest,
        text => words::parse_timeline(text).map_err(word("timeline"))?,
    };
    let is_whole = matches!(target, Target::Name(_) | Target::Immediate | Target::Latest);
    if request.exclusive && is_whole {
        return Err(TargetsError::Exclusive);
    }
    Ok(Request {
        target,
        inclusive: !request.exclusive,
        timeline,
        backup: None,
        may_end_later: false,
    })
}

fn target(wanted: &Wanted) -> Result<Target, TargetsError> {
    Ok(match wanted {
        Wanted::Time(time) => {
            let nanos = u32::try_from(time.nanos).map_err(|_| TargetsError::Time)?;
            let time = DateTime::from_timestamp(time.seconds, nanos).ok_or(TargetsError::Time)?;
            Target::Time(time.fixed_offset())
        }
        Wanted::Xid(xid) => Target::Xid(words::parse_xid(&xid.to_string()).map_err(word("xid"))?),
        Wanted::Lsn(text) => {
            let lsn = text.parse();
            Target::Lsn(lsn.map_err(|_| TargetsError::Lsn(text.clone()))?)
        }
        Wanted::Name(name) => Target::Name(words::parse_name(name).map_err(word("name"))?),
        Wanted::Immediate(()) => Target::Immediate,
        Wanted::End(()) => Target::Latest,
    })
}

fn word(field: &'static str) -> impl Fn(words::WordError) -> TargetsError {
    move |source| TargetsError::Word { field, source }
}

/// The plan.
pub(super) fn plan(plan: &RecoveryPlan, is_reworded: bool) -> wire::Plan {
    let choice = &plan.chosen.choice;
    let wal = plan.wal();
    let setting = |(name, value): (&str, String)| wire::Setting {
        name: name.to_owned(),
        value,
    };
    wire::Plan {
        backup_id: choice.backup.to_string(),
        timeline: choice.timeline.to_u32(),
        ancestors: shape::ancestors(plan.line()),
        stop: plan.stop.as_ref().map(stop),
        settings: plan.settings().into_iter().map(setting).collect(),
        reworded: is_reworded,
        reasons: choice.reasons.clone(),
        warnings: plan.warnings.clone(),
        wal: Some(wire::NeededWal {
            segments: Some(shape::range(&(wal.range.begin, wal.range.end))),
            count: wal.range.count,
            open_ended: !wal.is_all,
        }),
        fetch_bytes: plan.fetch_bytes(),
    }
}

fn stop(point: &StopPoint) -> wire::Stop {
    let record = &point.record;
    let side = match point.side {
        Side::Before => wire::stop::Side::Before,
        Side::After => wire::stop::Side::After,
    };
    let what = match &record.what {
        What::TransactionEnd(end) => Some(wire::stop::What::Transaction(shape::transaction(
            record.begin,
            end,
        ))),
        What::RestorePoint { name, time } => {
            let made = RestorePoint {
                lsn: record.begin,
                time: *time,
                name: name.clone(),
            };
            let made = shape::restore_point(point.segment.timeline(), &made);
            Some(wire::stop::What::RestorePoint(made))
        }
        What::Checkpoint { .. } | What::Other => None,
    };
    wire::Stop {
        side: side.into(),
        position: Some(shape::position(record.begin, record.what.time().as_ref())),
        end_lsn: record.end.to_string(),
        segment: point.segment.to_string(),
        what,
    }
}

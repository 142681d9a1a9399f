//! What `cellarman targets --around` prints, for people and as JSON.
//!
//! Not here: finding the records (`service::targets::around`).

use serde::Serialize;

use crate::cli::output::Output;
use crate::cli::targets_report::{RecordDocument, precise};
use crate::domain::log::stop::{StopRecord, What};
use crate::domain::lsn::Lsn;
use crate::domain::segment::SegmentName;
use crate::service::restore::words::{self, WordError};
use crate::service::targets::around::{Around, Cut, Point, Question, Side};

/// Reads what the records shall be near to: a position has a slash, and a time has none.
pub(crate) fn parse_point(text: &str) -> Result<Point, WordError> {
    match text.parse::<Lsn>() {
        Ok(lsn) => Ok(Point::Lsn(lsn)),
        Err(_) => words::parse_time(text).map(|time| Point::Time(time.to_utc())),
    }
}

/// Prints the records for people, with the point that was asked for between them.
pub(crate) fn print(output: Output, question: Question, around: &Around) {
    output.line(format!("timeline {}", around.timeline));
    let asked = match question.point {
        Point::Time(time) => vec![precise(&time), String::new()],
        Point::Lsn(lsn) => vec![String::new(), lsn.to_string()],
    };
    let asked = [asked, vec![String::new(), "<- asked for".to_owned()]].concat();
    let before = around.before.records.iter().map(row);
    let after = around.after.records.iter().map(row);
    let rows = before.chain([asked]).chain(after).collect();
    output.table(&["TIME", "LSN", "XID", "WHAT"], rows);
    let sides = [(&around.before, "Before"), (&around.after, "Behind")];
    for (side, word) in sides {
        if let Some(words) = side.cut.map(|cut| cut_words(cut, word)) {
            output.line(words);
        }
    }
    output.line(
        "Recovery to one of these: `cellarman targets --xid XID`, `--lsn LSN` or `--name NAME`.",
    );
}

fn row(record: &StopRecord) -> Vec<String> {
    let (xid, what) = match &record.what {
        What::TransactionEnd(end) if end.is_commit => (end.xid.to_string(), "committed".to_owned()),
        What::TransactionEnd(end) => (end.xid.to_string(), "rolled back".to_owned()),
        what => {
            let name = what.restore_point().unwrap_or_default();
            (String::new(), format!("restore point {name:?}"))
        }
    };
    let time = record.what.time();
    let time = time.map_or_else(String::new, |time| precise(&time));
    vec![time, record.begin.to_string(), xid, what]
}

fn cut_words(cut: Cut, side: &str) -> String {
    match cut {
        Cut::Edge => format!("{side} these there is no log in the archive."),
        Cut::Gap(first, last) if first == last => {
            format!("{side} these the archive lacks segment {first}.")
        }
        Cut::Gap(first, last) => {
            format!("{side} these the archive lacks segments {first} to {last}.")
        }
        Cut::Unreadable(segment) => {
            format!("{side} these comes segment {segment}, which cannot be read.")
        }
        Cut::Far => format!(
            "{side} these no record is near: too many segments would have to be read. `cellarman index build` helps."
        ),
    }
}

#[derive(Serialize)]
pub(crate) struct AroundDocument {
    timeline: u32,
    before: SideDocument,
    after: SideDocument,
}

#[derive(Serialize)]
struct SideDocument {
    records: Vec<RecordDocument>,
    cut: Option<CutDocument>,
}

#[derive(Serialize)]
struct CutDocument {
    reason: &'static str,
    first: Option<String>,
    last: Option<String>,
}

/// The records for programs.
pub(crate) fn document(around: &Around) -> AroundDocument {
    AroundDocument {
        timeline: around.timeline.to_u32(),
        before: side_document(&around.before),
        after: side_document(&around.after),
    }
}

fn side_document(side: &Side) -> SideDocument {
    SideDocument {
        records: side.records.iter().map(RecordDocument::of).collect(),
        cut: side.cut.map(cut_document),
    }
}

fn cut_document(cut: Cut) -> CutDocument {
    let (reason, segments): (_, Option<(SegmentName, SegmentName)>) = match cut {
        Cut::Edge => ("edge", None),
        Cut::Gap(first, last) => ("gap", Some((first, last))),
        Cut::Unreadable(segment) => ("unreadable", Some((segment, segment))),
        Cut::Far => ("far", None),
    };
    CutDocument {
        reason,
        first: segments.map(|(first, _)| first.to_string()),
        last: segments.map(|(_, last)| last.to_string()),
    }
}

//! What the reader says of a segment, as one text a record in the form that `waldump` gives.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use cellarman::pgfile::wal::block::{BlockReference, ImageCompression};
use cellarman::pgfile::wal::reader::{Bodies, Event, ReaderOptions, SegmentReader};
use cellarman::pgfile::wal::record::Record;
use cellarman::pgfile::wal::resource_manager::ResourceManager;
use cellarman::pgfile::wal::stop::SegmentEnd;
use cellarman::pgfile::wal::transaction::{End, TransactionRecord, Xids};
use cellarman::pgfile::wal::xlog::XlogRecord;
use chrono::{DateTime, Utc};

const OPTIONS: ReaderOptions = ReaderOptions {
    check_crc: true,
    bodies: Bodies::All,
};

/// The size of a block, and so of an image before anything is left out of it.
const BLOCK_BYTES: u16 = 8192;

/// A segment as it lies on disk.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) begin: u64,
    pub(super) end: u64,
    pub(super) row: String,
    /// Of a checkpoint what the control file says of the latest.
    pub(super) checkpoint: Option<String>,
}

impl Segment {
    pub(super) fn read(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            bytes: fs::read(path).expect("a readable segment"),
        }
    }
}

/// The records of segments that follow each other, and how the last of them ends.
pub(super) fn read_in_a_row(segments: &[Segment]) -> (Vec<Read>, SegmentEnd) {
    let mut records = Vec::new();
    let mut carry = None;
    let mut end = SegmentEnd::Whole;
    for segment in segments {
        let mut reader = SegmentReader::new(OPTIONS, carry.take());
        let pushed = reader.push(&segment.bytes, |event| records.extend(read(event)));
        pushed.unwrap_or_else(|error| panic!("{}: {error}", segment.path.display()));
        let finished = reader.finish().expect("a header");
        (end, carry) = (finished.end, finished.carry);
        if carry.is_none() {
            break;
        }
    }
    (records, end)
}

/// The records that begin and end in a segment, read without the one before it and in pieces.
pub(super) fn read_alone(segment: &Segment) -> Vec<Read> {
    let mut records = Vec::new();
    let mut reader = SegmentReader::new(OPTIONS, None);
    for piece in segment.bytes.chunks(100_003) {
        let pushed = reader.push(piece, |event| records.extend(read(event)));
        pushed.unwrap_or_else(|error| panic!("{}: {error}", segment.path.display()));
    }
    records
}

fn read(event: Event<'_>) -> Option<Read> {
    let Event::Record(record) = event else {
        return None;
    };
    let parts = record.parts().unwrap_or_else(|error| panic!("{error}"));
    let blocks: Vec<BlockReference> = parts.blocks().collect();
    let images: u32 = blocks
        .iter()
        .filter_map(|block| block.image)
        .map(|image| u32::from(image.stored_bytes))
        .sum();
    let header = record.header;
    let total = header.total_bytes;
    let (xid, begin, previous) = (header.xid, record.begin, header.previous);
    let manager = record.manager;
    let mut row = format!(
        "rmgr={manager} len={}/{total} tx={xid} lsn={begin} prev={previous}",
        total - images
    );
    let origin = parts.origin.unwrap_or(0);
    match manager {
        ResourceManager::XLOG => {
            let _ = write!(row, " | {}", said_of_log(&record).trim_end());
        }
        ResourceManager::TRANSACTION => {
            let _ = write!(row, " | {}", said_of_transaction(&record, origin));
        }
        _ => {}
    }
    for block in &blocks {
        let _ = write!(row, "\n {}", said_of_block(block, record.major));
    }
    Some(Read {
        begin: begin.to_u64(),
        end: record.end.to_u64(),
        row,
        checkpoint: said_of_checkpoint(&record),
    })
}

fn said_of_block(block: &BlockReference, major: u32) -> String {
    let BlockReference {
        id,
        files,
        fork,
        block: number,
        image,
        ..
    } = block;
    let mut text = format!("#{id}: rel {files} fork {fork} blk {number}");
    let Some(image) = image else { return text };
    let check = if image.is_applied {
        ""
    } else {
        " for WAL verification"
    };
    let mut hole = BLOCK_BYTES - image.stored_bytes;
    if image.compression.is_some() {
        hole = image.hole_bytes;
    }
    let offset = image.hole_offset;
    let _ = write!(
        text,
        " (FPW{check}); hole: offset: {offset}, length: {hole}"
    );
    if let Some(compression) = image.compression {
        let saved = BLOCK_BYTES - hole - image.stored_bytes;
        let _ = write!(text, ", compression saved: {saved}");
        let method = match compression {
            ImageCompression::Pglz => "pglz",
            ImageCompression::Lz4 => "lz4",
            ImageCompression::Zstd => "zstd",
        };
        if major >= 15 {
            let _ = write!(text, ", method: {method}");
        }
    }
    text
}

fn time_text(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S%.6f UTC").to_string()
}

fn xids_text(xids: Xids<'_>) -> String {
    let texts: Vec<String> = xids.iter().map(|xid| xid.to_string()).collect();
    assert_eq!(texts.len(), xids.len());
    texts.join(" ")
}

fn said_of_transaction(record: &Record<'_>, origin: u16) -> String {
    let read = TransactionRecord::parse(record).unwrap_or_else(|error| panic!("{error}"));
    match read.expect("a transaction's record") {
        TransactionRecord::Commit(end) => said_of_end("COMMIT", &end, origin),
        TransactionRecord::Abort(end) => said_of_end("ABORT", &end, origin),
        TransactionRecord::Prepare(prepared) => {
            let gid = String::from_utf8_lossy(prepared.gid);
            assert_eq!(prepared.xid, record.header.xid);
            let mut text = format!("PREPARE gid {gid}: {}", time_text(prepared.time));
            if !prepared.subtransactions.is_empty() {
                let _ = write!(text, "; subxacts: {}", xids_text(prepared.subtransactions));
            }
            text
        }
        TransactionRecord::Assignment {
            top_level_xid,
            subtransactions,
        } => format!(
            "ASSIGNMENT xtop {top_level_xid}: subxacts: {}",
            xids_text(subtransactions)
        ),
        TransactionRecord::Invalidations => "INVALIDATION".to_owned(),
    }
}

fn said_of_end(kind: &str, end: &End<'_>, origin: u16) -> String {
    let mut text = kind.to_owned();
    if end.was_prepared {
        let _ = write!(text, "_PREPARED {}:", end.xid);
    }
    let _ = write!(text, " {}", time_text(end.time));
    let relations: Vec<String> = end
        .dropped_relations
        .iter()
        .map(|files| format!("base/{}/{}", files.database, files.relation))
        .collect();
    if !relations.is_empty() {
        let _ = write!(text, "; rels: {}", relations.join(" "));
    }
    if !end.subtransactions.is_empty() {
        let _ = write!(text, "; subxacts: {}", xids_text(end.subtransactions));
    }
    if let Some(from) = end.origin {
        let (lsn, time) = (from.lsn, time_text(from.time));
        let _ = write!(text, "; origin: node {origin}, lsn {lsn}, at {time}");
    }
    text
}

fn said_of_log(record: &Record<'_>) -> String {
    let read = XlogRecord::parse(record).unwrap_or_else(|error| panic!("{error}"));
    match read.expect("a record of the log itself") {
        XlogRecord::Checkpoint(checkpoint) => {
            let kind = if checkpoint.is_shutdown {
                "SHUTDOWN"
            } else {
                "ONLINE"
            };
            let (epoch, xid) = (checkpoint.next_xid >> 32, checkpoint.next_xid & 0xFFFF_FFFF);
            format!(
                "CHECKPOINT_{kind} redo {}; tli {}; prev tli {}; xid {epoch}:{xid}; oldest xid {}",
                checkpoint.redo,
                checkpoint.timelines.current,
                checkpoint.timelines.previous,
                checkpoint.oldest_xid,
            )
        }
        XlogRecord::CheckpointRedo => "CHECKPOINT_REDO".to_owned(),
        XlogRecord::Switch => "SWITCH".to_owned(),
        XlogRecord::BackupEnd { start } => format!("BACKUP_END {start}"),
        XlogRecord::ParameterChange => "PARAMETER_CHANGE".to_owned(),
        XlogRecord::RestorePoint { name, .. } => {
            format!("RESTORE_POINT {}", String::from_utf8_lossy(name))
        }
        XlogRecord::EndOfRecovery { time, timelines } => format!(
            "END_OF_RECOVERY tli {}; prev tli {}; time {}",
            timelines.current,
            timelines.previous,
            time_text(time)
        ),
        XlogRecord::OverwriteContrecord { begin, time } => {
            format!("OVERWRITE_CONTRECORD lsn {begin}; time {}", time_text(time))
        }
        XlogRecord::Other => other_name(record.header.kind()).to_owned(),
    }
}

/// The kinds that the reader does not tell apart.
fn other_name(kind: u8) -> &'static str {
    match kind {
        0x20 => "NOOP",
        0x30 => "NEXTOID",
        0x80 => "FPW_CHANGE",
        0xA0 => "FPI_FOR_HINT",
        0xB0 => "FPI",
        _ => "UNKNOWN",
    }
}

fn said_of_checkpoint(record: &Record<'_>) -> Option<String> {
    let Ok(Some(XlogRecord::Checkpoint(checkpoint))) = XlogRecord::parse(record) else {
        return None;
    };
    let (epoch, xid) = (checkpoint.next_xid >> 32, checkpoint.next_xid & 0xFFFF_FFFF);
    Some(format!(
        "{} {} {} {epoch}:{xid} {} {}",
        checkpoint.redo,
        checkpoint.timelines.current,
        checkpoint.timelines.previous,
        checkpoint.oldest_xid,
        checkpoint.time.timestamp()
    ))
}

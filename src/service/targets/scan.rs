//! One segment of the archive read record by record, up to where recovery stops.
//!
//! Not here: which segments are worth reading (`locate`).

use std::io::{self, Read};
use std::ops::ControlFlow;

use chrono::{DateTime, Utc};

use crate::barman::repository::Repository;
use crate::codec::Codec;
use crate::codec::decompress::decompressor;
use crate::domain::backup::SystemId;
use crate::domain::log::outline::Ends;
use crate::domain::log::stop::{Side, Stop, StopRecord, TransactionEnd, What};
use crate::domain::log::summary::RestorePoint;
use crate::domain::lsn::Lsn;
use crate::domain::segment::SegmentSize;
use crate::domain::wal_file::WalFileName;
use crate::fault::{Fault, Kind};
use crate::pgfile::wal::page::Mistaken;
use crate::pgfile::wal::reader::{
    Bodies, Carry, Event, Finished, ReaderError, ReaderOptions, SegmentReader,
};
use crate::pgfile::wal::record::Record;
use crate::pgfile::wal::resource_manager::ResourceManager;
use crate::pgfile::wal::stop::SegmentEnd;
use crate::pgfile::wal::summary::stop_record;
use crate::service::object_read::{self, ReadError};
use crate::store::ObjectKey;
use crate::store::error::StoreError;

/// How much is read at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// A segment to read.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The file.
    pub(crate) name: WalFileName,
    /// How it is stored.
    pub(crate) codec: Codec,
    /// What the segment before it has left.
    pub(crate) carry: Option<Carry>,
    /// The size that it has to have.
    pub(crate) size: SegmentSize,
    /// The cluster that it has to be of, where that is known.
    pub(crate) system_id: Option<SystemId>,
}

/// What a segment holds, up to the first stop.
#[derive(Debug, Clone)]
pub(crate) struct Scanned {
    /// Where recovery stops, if it does.
    pub(crate) stop: Option<(StopRecord, Side)>,
    /// The last end of a transaction that was met, with the first byte of its record.
    pub(crate) last_end: Option<(Lsn, TransactionEnd)>,
    /// The times that checkpoints and restore points tell, with the first bytes of their records.
    pub(crate) times: Vec<(Lsn, DateTime<Utc>)>,
    /// All ends of transactions together.
    pub(crate) ends: Option<Ends>,
    /// The named points.
    pub(crate) restore_points: Vec<RestorePoint>,
    /// The end of the last record that was met.
    pub(crate) last_record_end: Option<Lsn>,
    /// How many bytes at the beginning belong to a record whose own beginning was not seen.
    pub(crate) head_skipped_bytes: u64,
    /// How the segment ends; where it was left at a stop, nothing is said of the rest.
    pub(crate) end: SegmentEnd,
    /// What the next segment needs.
    pub(crate) carry: Option<Carry>,
    /// Why it is none of this log, where it is not.
    pub(crate) mistaken: Option<Mistaken>,
}

/// What a visit comes to.
#[derive(Debug)]
pub(crate) struct Visited<V> {
    /// The visitor, with what it has seen.
    pub(crate) visitor: V,
    /// How the segment ends.
    pub(crate) finished: Finished,
    /// Why it is none of this log, where it is not.
    pub(crate) mistaken: Option<Mistaken>,
}

/// A segment that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The store did not give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be decompressed.
    #[error("cannot read {key}")]
    Damaged {
        /// Its key.
        key: ObjectKey,
        /// Why.
        source: io::Error,
    },
    /// It is no WAL that is known here.
    #[error("cannot read the WAL in {key}")]
    Wal {
        /// Its key.
        key: ObjectKey,
        /// Why.
        source: ReaderError,
    },
}

impl Fault for ScanError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Damaged { .. } => Kind::Corrupt,
            Self::Wal { source, .. } => source.kind(),
        }
    }
}

/// What looks at the records of a segment, in order.
pub(crate) trait Visitor: Send + 'static {
    /// Looks at one; it breaks where it has seen enough.
    fn visit(&mut self, record: &Record<'_>) -> ControlFlow<()>;
}

struct Met {
    from: Lsn,
    wanted: Option<Stop>,
    stop: Option<(StopRecord, Side)>,
    last_end: Option<(Lsn, TransactionEnd)>,
    ends: Option<Ends>,
    times: Vec<(Lsn, DateTime<Utc>)>,
    restore_points: Vec<RestorePoint>,
    last_record_end: Option<Lsn>,
}

impl Met {
    fn new(from: Lsn, wanted: Option<Stop>) -> Self {
        Self {
            from,
            wanted,
            stop: None,
            last_end: None,
            ends: None,
            times: Vec::new(),
            restore_points: Vec::new(),
            last_record_end: None,
        }
    }

    fn note(&mut self, record: StopRecord) {
        let lsn = record.begin;
        match record.what {
            What::TransactionEnd(end) => {
                self.last_end = Some((lsn, end));
                let one = Ends::of(&end);
                self.ends = Some(self.ends.map_or(one, |ends| ends.and(one)));
            }
            What::RestorePoint { name, time } => {
                self.times.push((lsn, time));
                self.restore_points.push(RestorePoint { lsn, time, name });
            }
            What::Checkpoint { time } => self.times.push((lsn, time)),
            What::Other => {}
        }
    }
}

impl Visitor for Met {
    fn visit(&mut self, record: &Record<'_>) -> ControlFlow<()> {
        if record.begin < self.from {
            return ControlFlow::Continue(());
        }
        let is_position = matches!(self.wanted, Some(Stop::Lsn { .. }));
        if may_matter(record) || is_position {
            let record = stop_record(record);
            if let Some(side) = self.wanted.as_ref().and_then(|stop| stop.side(&record)) {
                self.stop = Some((record, side));
                return ControlFlow::Break(());
            }
            self.note(record);
        }
        self.last_record_end = Some(record.end);
        ControlFlow::Continue(())
    }
}

/// Whether recovery to anything but a position may stop at a record: at most it does not.
pub(crate) fn may_matter(record: &Record<'_>) -> bool {
    matches!(
        record.manager,
        ResourceManager::TRANSACTION | ResourceManager::XLOG
    )
}

/// Reads a segment, of which records before `from` do not count, up to `stop`.
pub(crate) async fn scan(
    repository: &Repository,
    source: Source,
    from: Lsn,
    stop: Option<Stop>,
) -> Result<Scanned, ScanError> {
    let visited = visit(repository, source, Met::new(from, stop)).await?;
    let (met, finished) = (visited.visitor, visited.finished);
    Ok(Scanned {
        mistaken: visited.mistaken,
        stop: met.stop,
        last_end: met.last_end,
        ends: met.ends,
        times: met.times,
        restore_points: met.restore_points,
        last_record_end: met.last_record_end,
        head_skipped_bytes: finished.head_skipped_bytes,
        end: finished.end,
        carry: finished.carry,
    })
}

/// Reads a segment until its visitor has seen enough.
pub(crate) async fn visit<V: Visitor>(
    repository: &Repository,
    source: Source,
    visitor: V,
) -> Result<Visited<V>, ScanError> {
    let key = repository.layout.wal(&source.name, source.codec);
    let body = repository.store.get(&key, None).await?;
    let codec = source.codec;
    let read = object_read::read(body, move |reader| {
        let mut input = decompressor(reader, codec)?;
        Ok(walk(&mut input, source, visitor))
    });
    let damaged = |source| ScanError::Damaged {
        key: key.clone(),
        source,
    };
    match read.await {
        Ok(Ok(Ok(visited))) => Ok(visited),
        Ok(Ok(Err(source))) => Err(ScanError::Wal { key, source }),
        Ok(Err(source)) | Err(ReadError::Work(source)) => Err(damaged(source)),
        Err(ReadError::Store(error)) => Err(error.into()),
    }
}

fn walk<V: Visitor>(
    input: &mut impl Read,
    source: Source,
    mut visitor: V,
) -> io::Result<Result<Visited<V>, ReaderError>> {
    let options = ReaderOptions {
        check_crc: true,
        bodies: Bodies::OfRecovery,
    };
    let mut reader = SegmentReader::new(options, source.carry);
    let mut flow = ControlFlow::Continue(());
    let mut chunk = vec![0; CHUNK_BYTES];
    while flow.is_continue() {
        let count = match input.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let each = |event: Event<'_>| {
            if let (Event::Record(record), ControlFlow::Continue(())) = (event, flow) {
                flow = visitor.visit(&record);
            }
        };
        if let Err(error) = reader.push(&chunk[..count], each) {
            return Ok(Err(error));
        }
    }
    let name = source.name.segment();
    let mistaken = reader.segment().zip(name).and_then(|(header, name)| {
        header.mistaken_for(name, source.size, source.system_id.map(|id| id.0))
    });
    Ok(reader.finish().map(|finished| Visited {
        visitor,
        finished,
        mistaken,
    }))
}

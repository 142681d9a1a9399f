//! One segment of the archive read for the index.
//!
//! Not here: which (`stretch`).

use std::io::{self, Read};

use crate::codec::decompress::decompressor;
use crate::domain::segment::SegmentName;
use crate::domain::wal_file::WalFileName;
use crate::fault::{Fault, Kind, chain};
use crate::pgfile::wal::reader::{Carry, ReaderError};
use crate::pgfile::wal::stop::SegmentEnd;
use crate::pgfile::wal::summary::{SegmentSummarizer, Summarized};
use crate::service::object_read::{self, ReadError};
use crate::service::wal_index::build::{BuildError, Builder, NotIndexed};
use crate::service::wal_index::set_bytes_max;
use crate::store::error::StoreError;

/// How much is read at a time.
const CHUNK_BYTES: usize = 128 << 10;

/// Over how many segments the beginning of a record is looked for: one of the longest, which have
/// 1 GiB, in segments of the smallest size.
const BACK_MAX: usize = 1100;

/// A segment that was read, or cannot be.
pub(super) type Outcome = Result<Summarized, NotIndexed>;

impl Builder<'_> {
    /// Reads a segment behind `carry`.
    ///
    /// # Errors
    /// The store fails, and would for others as well.
    pub(super) async fn read(
        &self,
        name: SegmentName,
        carry: Option<Carry>,
    ) -> Result<Outcome, BuildError> {
        let not_indexed = |kind, reason| NotIndexed { name, kind, reason };
        let Some(codec) = self.segments.codec(name) else {
            let reason = "it is not in the archive".to_owned();
            return Ok(Err(not_indexed(Kind::NotFound, reason)));
        };
        let of_store = |error: StoreError| {
            if error.is_retryable() {
                Err(error.into())
            } else {
                Ok(Err(not_indexed(error.kind(), chain(&error))))
            }
        };
        let key = self
            .repository
            .layout
            .wal(&WalFileName::Segment(name), codec);
        let body = match self.repository.store.get(&key, None).await {
            Ok(body) => body,
            Err(error) => return of_store(error),
        };
        let bytes_max = set_bytes_max(self.size);
        let read = object_read::read(body, move |reader| {
            let mut input = decompressor(reader, codec)?;
            Ok(summarize(&mut input, carry, (name, bytes_max)))
        });
        let read = match read.await {
            Ok(Ok(Ok(read))) => read,
            Ok(Ok(Err(error))) => return Ok(Err(not_indexed(error.kind(), error.to_string()))),
            Ok(Err(error)) | Err(ReadError::Work(error)) => {
                let reason = format!("it cannot be decompressed: {error}");
                return Ok(Err(not_indexed(Kind::Corrupt, reason)));
            }
            Err(ReadError::Store(error)) => return of_store(error),
        };
        Ok(match self.objection(name, &read) {
            Some(reason) => Err(not_indexed(Kind::Corrupt, reason)),
            None => Ok(read),
        })
    }

    /// Why what was read is not that segment of this archive's cluster, whole.
    fn objection(&self, name: SegmentName, read: &Summarized) -> Option<String> {
        let ours = Some(self.system_id.0);
        if let Some(mistaken) = read.header.mistaken_for(name, self.size, ours) {
            return Some(mistaken.to_string());
        }
        match read.end {
            SegmentEnd::Whole => None,
            SegmentEnd::Ends(stop) | SegmentEnd::Broken(stop) => {
                Some(format!("it is not whole: {stop}"))
            }
        }
    }

    /// Reads a segment behind the one before it, which is read for that.
    pub(super) async fn read_behind(&self, name: SegmentName) -> Result<Outcome, BuildError> {
        let Some(carry) = self.carry_into(name).await? else {
            return self.read(name, None).await;
        };
        let is_own = self.segments.before(name).map(SegmentName::timeline) == Some(name.timeline());
        let read = self.read(name, Some(carry)).await?;
        if read.is_ok() || is_own {
            return Ok(read);
        }
        // The line need not have come from there.
        self.read(name, None).await
    }

    /// What the segments before this one leave to it: as many are read as the record over its
    /// edge goes back.
    async fn carry_into(&self, name: SegmentName) -> Result<Option<Carry>, BuildError> {
        let mut passed = Vec::new();
        let mut at = name;
        let mut carry = loop {
            let Some(before) = self.segments.before(at).filter(|_| passed.len() < BACK_MAX) else {
                return Ok(None);
            };
            match self.read(before, None).await? {
                Ok(Summarized {
                    carry: Some(carry), ..
                }) => break carry,
                // All of it belongs to a record that began earlier.
                Ok(_) => passed.push(before),
                Err(_) => return Ok(None),
            }
            at = before;
        };
        for passed in passed.into_iter().rev() {
            match self.read(passed, Some(carry)).await? {
                Ok(Summarized {
                    carry: Some(next), ..
                }) => carry = next,
                _ => return Ok(None),
            }
        }
        Ok(Some(carry))
    }
}

fn summarize(
    input: &mut impl Read,
    carry: Option<Carry>,
    (name, bytes_max): (SegmentName, usize),
) -> io::Result<Result<Summarized, ReaderError>> {
    let mut summarizer = SegmentSummarizer::new(true, carry);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = match input.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if let Err(error) = summarizer.push(&chunk[..count]) {
            return Ok(Err(error));
        }
    }
    Ok(summarizer.finish(name, bytes_max))
}

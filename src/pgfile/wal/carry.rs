//! What one segment leaves to the next, as bytes: for who reads the next one later.
//!
//! Not here: where the bytes are kept (`service::wal_index`).

use crate::domain::lsn::Lsn;
use crate::domain::timeline::TimelineId;
use crate::pgfile::wal::assembly::Assembly;
use crate::pgfile::wal::reader::Carry;
use crate::pgfile::wal::record::RECORD_HEADER_BYTES;
use crate::pgfile::wal::walk::Position;

/// What a record is that goes on: there is none, its body was not kept, or its body follows.
const NONE: u8 = 0;
const WITHOUT_BODY: u8 = 1;
const WITH_BODY: u8 = 2;

impl Carry {
    /// Its bytes, which only this release needs to read; `None` when they are more than
    /// `bytes_max`.
    pub fn to_bytes(&self, bytes_max: usize) -> Option<Vec<u8>> {
        let position = &self.0;
        let mut bytes = Vec::new();
        bytes.extend(position.next_page.to_u64().to_le_bytes());
        bytes.extend(position.timeline.to_u32().to_le_bytes());
        // No record begins at 0.
        let previous = position.previous.map_or(0, Lsn::to_u64);
        bytes.extend(previous.to_le_bytes());
        let Some(assembly) = &position.unfinished else {
            bytes.push(NONE);
            return Some(bytes);
        };
        let body = assembly.body();
        bytes.push(body.map_or(WITHOUT_BODY, |_| WITH_BODY));
        bytes.extend(assembly.begin.to_u64().to_le_bytes());
        bytes.extend(assembly.total_bytes.to_le_bytes());
        bytes.extend(assembly.held_bytes.to_le_bytes());
        bytes.extend(assembly.header_bytes());
        let body = body.unwrap_or_default();
        let fits = bytes.len() + body.len() <= bytes_max;
        fits.then(|| {
            bytes.extend(body);
            bytes
        })
    }

    /// What [`Carry::to_bytes`] has written; `None` of anything else.
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let next_page = Lsn::new(u64::from_le_bytes(take(&mut bytes)?));
        let timeline = TimelineId::new(u32::from_le_bytes(take(&mut bytes)?))?;
        let previous = u64::from_le_bytes(take(&mut bytes)?);
        let [kind] = take(&mut bytes)?;
        let unfinished = match kind {
            NONE => None,
            WITHOUT_BODY | WITH_BODY => Some(assembly(bytes, kind == WITH_BODY)?),
            _ => return None,
        };
        Some(Self(Position {
            next_page,
            timeline,
            previous: (previous != 0).then_some(Lsn::new(previous)),
            unfinished,
        }))
    }

    /// Whether all bytes so far of the record that goes on are in it, so that its checksum can be
    /// made.
    pub(super) fn has_body(&self) -> bool {
        let unfinished = self.0.unfinished.as_ref();
        unfinished.is_some_and(|assembly| assembly.body().is_some())
    }
}

fn assembly(mut bytes: &[u8], has_body: bool) -> Option<Assembly> {
    let begin = Lsn::new(u64::from_le_bytes(take(&mut bytes)?));
    let total_bytes = u32::from_le_bytes(take(&mut bytes)?);
    let held_bytes = u32::from_le_bytes(take(&mut bytes)?);
    let header: [u8; RECORD_HEADER_BYTES] = take(&mut bytes)?;
    Assembly::restored(
        (begin, total_bytes, held_bytes),
        header,
        has_body.then_some(bytes),
    )
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

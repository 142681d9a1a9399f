//! WAL segments for tests: a true header, and pages that are as good as random or all alike.
//!
//! Not here: records. What needs real ones makes them with PostgreSQL.

use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::domain::timeline::TimelineId;

/// The bytes of the segments made here: the smallest that PostgreSQL knows.
pub(crate) const SEGMENT_BYTES: u32 = 1 << 20;

/// The name of segment `number` on `timeline`, in segments of [`SEGMENT_BYTES`].
pub(crate) fn segment_name(timeline: u32, number: u64) -> SegmentName {
    let size = SegmentSize::new(u64::from(SEGMENT_BYTES)).unwrap();
    let start = Lsn::new(number * size.bytes());
    let number = SegmentNumber::holding(start, size);
    SegmentName::new(TimelineId::new(timeline).unwrap(), number, size).unwrap()
}

/// A segment to be made.
#[derive(Debug, Clone)]
pub(crate) struct SegmentBuilder {
    magic: u16,
    timeline: u32,
    address: u64,
    system_id: u64,
    size: u32,
    seed: Option<u64>,
}

impl SegmentBuilder {
    /// The segment of this name, of PostgreSQL 15, in this cluster.
    pub(crate) fn new(name: SegmentName, system_id: u64) -> Self {
        Self::of_size(name, system_id, SEGMENT_BYTES)
    }

    /// The same for segments of `size` bytes.
    pub(crate) fn of_size(name: SegmentName, system_id: u64, size: u32) -> Self {
        let segment_size = SegmentSize::new(u64::from(size)).unwrap();
        let start = name.number(segment_size).unwrap().start(segment_size);
        Self {
            magic: 0xD110,
            timeline: name.timeline().to_u32(),
            address: start.unwrap().to_u64(),
            system_id,
            size,
            seed: None,
        }
    }

    pub(crate) fn magic(mut self, magic: u16) -> Self {
        self.magic = magic;
        self
    }

    pub(crate) fn timeline(mut self, timeline: u32) -> Self {
        self.timeline = timeline;
        self
    }

    pub(crate) fn address(mut self, address: u64) -> Self {
        self.address = address;
        self
    }

    pub(crate) fn system_id(mut self, system_id: u64) -> Self {
        self.system_id = system_id;
        self
    }

    /// Fills the segment with bytes that do not compress, the same for the same seed.
    pub(crate) fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.size).unwrap());
        bytes.extend(self.magic.to_le_bytes());
        bytes.extend(2_u16.to_le_bytes());
        bytes.extend(self.timeline.to_le_bytes());
        bytes.extend(self.address.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        bytes.extend(self.system_id.to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(8192_u32.to_le_bytes());
        bytes.resize(bytes.capacity(), 0);
        if let Some(seed) = self.seed {
            fastrand::Rng::with_seed(seed).fill(&mut bytes[40..]);
        }
        bytes
    }
}

//! Sets of transaction ids, kept as runs: a segment's transactions ended nearly in the order in
//! which they began, so a set of a hundred thousand is mostly one run with a few holes.
//!
//! A set says of itself whether it is exact. It becomes a superset only when it would take more
//! room than it may: then the runs with the smallest holes between them are joined. So an id that
//! is not in a set did not end there, ever; one that is in an inexact set may have. Not here: what
//! the ids stand for.

/// How many runs a set has while it is built, in 8 bytes each, before it is made coarser.
const RUNS_MAX: usize = 1 << 16;

/// How many ids wait to be sorted in.
const PENDING_MAX: usize = 1 << 14;

/// How the encoding says whether a set is exact.
const EXACT: u8 = 1;
const SUPERSET: u8 = 2;

/// Ids without one missing, first and last included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u32,
    last: u32,
}

/// A set of transaction ids, as 32-bit numbers without regard to their wrapping around.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XidSet {
    /// In rising order, with at least one id missing between each two.
    runs: Vec<Run>,
    is_exact: bool,
}

/// Gathers ids in any order.
#[derive(Debug, Default)]
pub struct XidSetBuilder {
    set: XidSet,
    pending: Vec<u32>,
}

/// Bytes that are no encoded set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the set of transaction ids is damaged")]
pub struct XidSetError;

impl Default for XidSet {
    fn default() -> Self {
        Self {
            runs: Vec::new(),
            is_exact: true,
        }
    }
}

impl XidSet {
    /// Whether the id is in the set, or of an inexact set whether it may be.
    pub fn contains(&self, xid: u32) -> bool {
        let index = self.runs.partition_point(|run| run.last < xid);
        self.runs.get(index).is_some_and(|run| run.first <= xid)
    }

    /// Whether it holds the ids that it was given and no others.
    pub fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// How many ids it holds.
    pub fn len(&self) -> u64 {
        let lengths = self
            .runs
            .iter()
            .map(|run| u64::from(run.last - run.first) + 1);
        lengths.sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The ids of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let is_exact = self.is_exact && other.is_exact;
        let mut runs = self.runs;
        runs.extend(other.runs);
        runs.sort_unstable_by_key(|run| run.first);
        Self {
            runs: joined(&runs, 1),
            is_exact,
        }
    }

    /// The same set, or a superset, whose encoding has at most `bytes_max` bytes but never less
    /// than a single run takes.
    #[must_use]
    pub fn within(mut self, bytes_max: usize) -> Self {
        while self.encode().len() > bytes_max && self.runs.len() > 1 {
            self.coarsen(self.runs.len() / 2);
        }
        self
    }

    /// The set as bytes: a flag, the number of runs, and of each run how far its first id is from
    /// the last one of the run before and how many more it has; numbers in 7 bits a byte, lowest
    /// first, with the eighth bit where more follow.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![if self.is_exact { EXACT } else { SUPERSET }];
        let count = u32::try_from(self.runs.len()).expect("fewer runs than ids");
        put_number(&mut bytes, count);
        let mut previous = 0;
        for run in &self.runs {
            put_number(&mut bytes, run.first - previous);
            put_number(&mut bytes, run.last - run.first);
            previous = run.last;
        }
        bytes
    }

    /// The set that was encoded, and what follows it.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), XidSetError> {
        Self::read(bytes).ok_or(XidSetError)
    }

    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (flag, mut rest) = bytes.split_first()?;
        let is_exact = match *flag {
            EXACT => true,
            SUPERSET => false,
            _ => return None,
        };
        let count = take_number(&mut rest)?;
        let mut runs: Vec<Run> = Vec::new();
        for _ in 0..count {
            let distance = take_number(&mut rest)?;
            let first = match runs.last() {
                None => distance,
                Some(previous) if distance > 1 => previous.last.checked_add(distance)?,
                Some(_) => return None,
            };
            let last = first.checked_add(take_number(&mut rest)?)?;
            runs.push(Run { first, last });
        }
        Some((Self { runs, is_exact }, rest))
    }

    /// Joins runs until there are at most `count`, over the smallest holes first.
    fn coarsen(&mut self, count: usize) {
        let mut hole_max = 2;
        while self.runs.len() > count.max(1) {
            self.runs = joined(&self.runs, hole_max);
            self.is_exact = false;
            hole_max = hole_max.saturating_mul(2);
        }
    }
}

/// Sorted runs, those joined whose distance is at most `distance_max`.
fn joined(runs: &[Run], distance_max: u32) -> Vec<Run> {
    let mut joined: Vec<Run> = Vec::new();
    for run in runs {
        match joined.last_mut() {
            Some(previous) if run.first.saturating_sub(previous.last) <= distance_max => {
                previous.last = previous.last.max(run.last);
            }
            _ => joined.push(*run),
        }
    }
    joined
}

fn put_number(bytes: &mut Vec<u8>, mut number: u32) {
    loop {
        let low = u8::try_from(number & 0x7F).expect("7 bits");
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

fn take_number(bytes: &mut &[u8]) -> Option<u32> {
    let mut number = 0_u64;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(number).ok();
        }
    }
    None
}

impl XidSetBuilder {
    /// Adds an id.
    pub fn insert(&mut self, xid: u32) {
        if let Some(run) = self.set.runs.last_mut()
            && run.last.checked_add(1) == Some(xid)
        {
            run.last = xid;
            return;
        }
        self.pending.push(xid);
        if self.pending.len() >= PENDING_MAX {
            self.sort_in();
        }
    }

    /// The set of all that were added.
    pub fn finish(mut self) -> XidSet {
        self.sort_in();
        self.set
    }

    fn sort_in(&mut self) {
        let single = |xid| Run {
            first: xid,
            last: xid,
        };
        self.set.runs.extend(self.pending.drain(..).map(single));
        self.set.runs.sort_unstable_by_key(|run| run.first);
        self.set.runs = joined(&self.set.runs, 1);
        if self.set.runs.len() > RUNS_MAX {
            self.set.coarsen(RUNS_MAX / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set_of(xids: impl IntoIterator<Item = u32>) -> XidSet {
        let mut builder = XidSetBuilder::default();
        for xid in xids {
            builder.insert(xid);
        }
        builder.finish()
    }

    fn xids() -> impl Strategy<Value = Vec<u32>> {
        let near = prop_oneof![0..2_000_u32, u32::MAX - 500..=u32::MAX, any::<u32>()];
        prop::collection::vec(near, 0..600)
    }

    proptest! {
        #[test]
        fn a_set_holds_what_it_was_given_and_reads_as_it_is_written(xids in xids(), other: u32) {
            let expected: BTreeSet<u32> = xids.iter().copied().collect();
            let set = set_of(xids);
            prop_assert!(set.is_exact());
            prop_assert_eq!(set.len(), u64::try_from(expected.len()).unwrap());
            prop_assert!(expected.iter().all(|xid| set.contains(*xid)));
            prop_assert_eq!(set.contains(other), expected.contains(&other));
            for xid in expected.iter().filter_map(|xid| xid.checked_add(1)) {
                prop_assert_eq!(set.contains(xid), expected.contains(&xid));
            }
            let mut bytes = set.encode();
            bytes.push(9);
            prop_assert_eq!(XidSet::decode(&bytes).unwrap(), (set, &[9][..]));
        }

        #[test]
        fn two_sets_together_are_the_set_of_both(some in xids(), others in xids()) {
            let all = set_of(some.iter().chain(&others).copied());
            prop_assert_eq!(set_of(some).and(set_of(others)), all);
        }

        #[test]
        fn a_set_that_must_be_small_holds_more_and_says_so(xids in xids(), bytes_max in 12..200_usize) {
            let whole = set_of(xids.clone());
            let small = whole.clone().within(bytes_max);
            prop_assert!(small.encode().len() <= bytes_max);
            prop_assert_eq!(small.is_exact(), small == whole);
            prop_assert!(xids.iter().all(|xid| small.contains(*xid)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok((set, _)) = XidSet::decode(&bytes) {
                prop_assert_eq!(XidSet::decode(&set.encode()).unwrap().0, set);
            }
        }
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for bytes in [
            &[][..],
            &[3, 0],
            &[1, 1],
            &[1, 1, 5],
            &[1, 2, 5, 0, 1, 0],
            &[1, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 1],
            &[1, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0x1F, 0],
            &[1, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0],
        ] {
            assert_eq!(XidSet::decode(bytes), Err(XidSetError), "{bytes:?}");
        }
    }

    #[test]
    fn a_set_of_a_busy_segment_is_small_and_one_of_no_order_is_bounded() {
        // 160000 transactions of which some were still running: one commit a hundred bytes.
        let mut random = fastrand::Rng::with_seed(7);
        let mut xids: Vec<u32> = (5_000..165_000).filter(|xid| xid % 1_000 != 7).collect();
        for window in xids.chunks_mut(50) {
            random.shuffle(window);
        }
        let set = set_of(xids);
        assert!(set.is_exact());
        assert!(set.encode().len() < 600, "{}", set.encode().len());

        let scattered = set_of((0..400_000).map(|_| random.u32(..)));
        assert!(!scattered.is_exact());
        let encoded = scattered.within(32 << 10).encode();
        assert!(encoded.len() <= 32 << 10);
    }
}

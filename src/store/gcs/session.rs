//! One resumable upload: how far it has come, and whose turn it is.
//!
//! Pure state behind a lock that is never held across a request. Not here: the requests.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use crate::store::{ObjectKey, PartTag};

/// What is sent before the end is a multiple of this: the service takes nothing else.
pub(super) const QUANTUM: usize = 256 * 1024;

/// An upload of this process.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: ObjectKey,
    /// Path and query of the session. Who knows it may write the object: never to be shown.
    target: secrecy::SecretString,
    progress: Mutex<Progress>,
    /// How many parts are done.
    done: watch::Sender<u32>,
}

/// How far it has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// How many bytes the service has said to have.
    pub(super) sent: u64,
    /// What came after those: less than a quantum.
    pub(super) tail: Bytes,
    /// The checksum of everything, the tail included.
    pub(super) crc32c: u32,
    /// The parts done: a checksum each.
    pub(super) parts: Vec<u32>,
    /// An answer is missing: what the service has must be asked for.
    pub(super) is_unsure: bool,
}

/// What is to be sent of a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    /// The place of its first byte in the object.
    pub(super) begin: u64,
    /// Its bytes: the tail of the part before, and all but a tail of this one.
    pub(super) chunks: [Bytes; 2],
    /// The new tail.
    pub(super) tail: Bytes,
}

impl Session {
    pub(super) fn new(key: ObjectKey, target: String) -> Self {
        Self {
            key,
            target: secrecy::SecretString::from(target),
            progress: Mutex::default(),
            done: watch::Sender::new(0),
        }
    }

    pub(super) fn target(&self) -> &str {
        secrecy::ExposeSecret::expose_secret(&self.target)
    }

    /// Waits until all parts before `number` are done. Safe to drop.
    pub(super) async fn turn(&self, number: u32) {
        let mut done = self.done.subscribe();
        // The sender is in this session, so that waiting cannot fail.
        let _ = done.wait_for(|done| done.saturating_add(1) >= number).await;
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an answer is awaited: should it never come, the next request asks first.
    pub(super) fn unsure(&self) {
        self.progress().is_unsure = true;
    }

    /// Notes that the service has what was sent of the part, the next in turn.
    pub(super) fn is_done(&self, outgoing: &Outgoing, part: (u32, usize)) {
        let mut progress = self.progress();
        let (crc32c, size) = part;
        progress.sent = outgoing.end();
        progress.tail = outgoing.tail.clone();
        progress.crc32c = crc32c::crc32c_combine(progress.crc32c, crc32c, size);
        progress.parts.push(crc32c);
        progress.is_unsure = false;
        let done = u32::try_from(progress.parts.len()).unwrap_or(u32::MAX);
        drop(progress);
        self.done.send_replace(done);
    }
}

impl Progress {
    /// The receipts of the parts done.
    pub(super) fn tags(&self) -> impl Iterator<Item = PartTag> + '_ {
        (1..).zip(&self.parts).map(|(number, crc32c)| PartTag {
            number,
            tag: tag_of(*crc32c),
        })
    }

    /// What is to be sent of the part that is next.
    pub(super) fn outgoing(&self, body: &Bytes) -> Outgoing {
        let whole = self.tail.len() + body.len();
        let kept = whole % QUANTUM;
        // A tail must not keep the part's buffer: it is one of a few.
        let (chunks, tail) = if kept <= body.len() {
            let (now, later) = body.split_at(body.len() - kept);
            let now = body.slice_ref(now);
            ([self.tail.clone(), now], Bytes::copy_from_slice(later))
        } else {
            let mut tail = BytesMut::with_capacity(whole);
            tail.extend_from_slice(&self.tail);
            tail.extend_from_slice(body);
            ([Bytes::new(), Bytes::new()], tail.freeze())
        };
        Outgoing {
            begin: self.sent,
            chunks,
            tail,
        }
    }
}

impl Outgoing {
    /// The place after its last byte.
    pub(super) fn end(&self) -> u64 {
        let size: usize = self.chunks.iter().map(Bytes::len).sum();
        self.begin + u64::try_from(size).unwrap_or(0)
    }

    /// Its bytes from the place `from`, which is within it.
    pub(super) fn from(&self, from: u64) -> [Bytes; 2] {
        let skip = usize::try_from(from - self.begin).unwrap_or(usize::MAX);
        let [first, second] = &self.chunks;
        let of_first = skip.min(first.len());
        let of_second = (skip - of_first).min(second.len());
        [first.slice(of_first..), second.slice(of_second..)]
    }
}

/// The receipt of a part.
pub(super) fn tag_of(crc32c: u32) -> String {
    format!("{crc32c:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(size: usize, seed: u8) -> Bytes {
        (0..size)
            .map(|at| u8::try_from(at % 251).unwrap() ^ seed)
            .collect()
    }

    /// Puts parts of these sizes as the engine does, and gives back what went out.
    fn sent(sizes: &[usize]) -> (Vec<u8>, Session) {
        let session = Session::new(ObjectKey::new("k"), "/t".to_owned());
        let mut wire = Vec::new();
        for (seed, size) in (0..).zip(sizes) {
            let body = bytes(*size, seed);
            let outgoing = session.progress().outgoing(&body);
            assert_eq!(outgoing.begin, u64::try_from(wire.len()).unwrap());
            for place in [0, 1, outgoing.chunks[0].len(), QUANTUM] {
                let place = u64::try_from(place).unwrap();
                if outgoing.begin + place <= outgoing.end() {
                    let rest = outgoing.from(outgoing.begin + place).concat();
                    let whole = outgoing.chunks.concat();
                    assert_eq!(rest, whole[usize::try_from(place).unwrap()..]);
                }
            }
            wire.extend(outgoing.chunks.concat());
            assert!(wire.len().is_multiple_of(QUANTUM) && outgoing.tail.len() < QUANTUM);
            session.is_done(&outgoing, (crc32c::crc32c(&body), body.len()));
        }
        (wire, session)
    }

    #[test]
    fn whole_quanta_go_out_and_the_rest_is_kept_for_the_next() {
        for sizes in [
            vec![],
            vec![0],
            vec![1, 2, 3],
            vec![QUANTUM],
            vec![QUANTUM - 1, 1, 1],
            vec![QUANTUM * 3 + 5, QUANTUM * 2, QUANTUM - 5, 7],
            vec![100, QUANTUM * 4, QUANTUM * 2 - 100],
        ] {
            let (mut wire, session) = sent(&sizes);
            let progress = session.progress();
            wire.extend_from_slice(&progress.tail);
            let whole: Vec<u8> = (0..)
                .zip(&sizes)
                .flat_map(|(seed, size)| bytes(*size, seed))
                .collect();
            assert!(wire == whole, "{sizes:?}");
            assert_eq!(progress.crc32c, crc32c::crc32c(&whole), "{sizes:?}");
            assert_eq!(progress.tags().count(), sizes.len());
        }
    }

    #[tokio::test]
    async fn a_part_waits_for_those_before_it() {
        let session = Session::new(ObjectKey::new("k"), "/t".to_owned());
        session.turn(1).await;
        let (one, two) = (session.turn(2), session.turn(3));
        tokio::pin!(one, two);
        assert!(futures::poll!(&mut one).is_pending());
        let outgoing = session.progress().outgoing(&Bytes::new());
        session.is_done(&outgoing, (0, 0));
        assert!(futures::poll!(&mut one).is_ready());
        assert!(futures::poll!(&mut two).is_pending());
    }

    #[test]
    fn nobody_is_shown_the_way_into_a_session() {
        let session = Session::new(ObjectKey::new("k"), "/upload?upload_id=hush".to_owned());
        assert!(!format!("{session:?}").contains("hush"));
    }
}

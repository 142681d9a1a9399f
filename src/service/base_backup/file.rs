//! Reads one file of a live data directory and looks at its pages on the way.
//!
//! Not here: what the bytes are put into, and which files are read.

use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::domain::lsn::Lsn;
use crate::pgfile::data_page::{self, PageState};

/// The stretch of a file that is left in the page cache, or taken out of it, as one.
const STRETCH_BYTES: u64 = 8 << 20;
/// How many stretches of a file are looked at; those beyond are taken for not cached.
const STRETCHES_MAX: u64 = 16_384;

/// How many damaged blocks of a file are named; more are counted.
pub(super) const DAMAGED_NAMED_MAX: usize = 100;

/// A file that can be read at any place, for files and for tests.
pub(super) trait ReadAt {
    /// Reads some bytes at `offset`; 0 at and after the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Whether the byte at `offset` is in memory already.
    fn is_cached(&self, offset: u64) -> bool;

    /// These bytes will not be read again.
    fn forget(&self, offset: u64, length: u64);
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn is_cached(&self, offset: u64) -> bool {
        let mut byte = [0];
        let mut buffers = [IoSliceMut::new(&mut byte)];
        // Answers without waiting for the disk, or with an error: on a file system that cannot
        // say, what the server has in memory must not be forgotten for it.
        match preadv2(self, &mut buffers, offset, ReadWriteFlags::NOWAIT) {
            Ok(count) => count == 1,
            Err(error) => error != Errno::AGAIN,
        }
    }

    fn forget(&self, offset: u64, length: u64) {
        // Advice: where it is not taken, nothing is lost.
        fadvise(self, offset, NonZeroU64::new(length), Advice::DontNeed).ok();
    }
}

/// How the pages of a relation's file are checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageCheck {
    /// The size of a page.
    pub page_bytes: usize,
    /// The block of the relation that the file begins with.
    pub first_block: u32,
    /// Pages changed at or after this are written again by replay, whatever the copy holds.
    pub begin_lsn: Lsn,
}

/// Pages that do not carry the checksum of their bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct DamagedPages {
    /// The first of them, as blocks of the relation.
    pub blocks: Vec<u32>,
    /// How many there are.
    pub count: u64,
}

/// A file being read from its start, its pages checked as they pass.
///
/// Reads whole pages, so callers must ask for at least one page at a time, but at the end.
/// Leaves the page cache as it was: what the server has in memory stays, what only the copy
/// read does not push other things out.
pub(super) struct FileReader<F: ReadAt> {
    file: F,
    offset: u64,
    /// Whether each whole stretch was cached before the first read, which reads ahead.
    cached: Vec<bool>,
    /// Where the stretch being read begins, if it is to be forgotten.
    cold_since: Option<u64>,
    stretch_end: u64,
    check: Option<PageCheck>,
    damaged: DamagedPages,
}

impl<F: ReadAt> FileReader<F> {
    /// A reader of `file`, of about `size` bytes, which checks its pages if it is told how.
    pub(super) fn new(file: F, size: u64, check: Option<PageCheck>) -> Self {
        let stretches = (size / STRETCH_BYTES).min(STRETCHES_MAX);
        let middle = |stretch| stretch * STRETCH_BYTES + STRETCH_BYTES / 2;
        let cached = (0..stretches)
            .map(|stretch| file.is_cached(middle(stretch)))
            .collect();
        Self {
            file,
            cached,
            offset: 0,
            cold_since: None,
            stretch_end: 0,
            check,
            damaged: DamagedPages::default(),
        }
    }

    /// What was found damaged so far.
    pub(super) fn damaged(&self) -> &DamagedPages {
        &self.damaged
    }

    /// Fills the buffer as far as the file goes.
    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self
                .file
                .read_at(&mut buffer[filled..], offset + to_u64(filled))
            {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn check_pages(&mut self, check: PageCheck, bytes: &[u8]) -> io::Result<()> {
        let page_bytes = to_u64(check.page_bytes);
        if !self.offset.is_multiple_of(page_bytes) {
            // The file was cut and grew again while it was read: replay makes these pages anew.
            return Ok(());
        }
        for (index, page) in bytes.chunks_exact(check.page_bytes).enumerate() {
            let offset = self.offset + to_u64(index) * page_bytes;
            let in_file = u32::try_from(offset / page_bytes).unwrap_or(u32::MAX);
            let block = check.first_block.saturating_add(in_file);
            if is_sound(page, block, check.begin_lsn) {
                continue;
            }
            // The server may have been writing it: what it holds now tells.
            let mut again = vec![0; check.page_bytes];
            let length = self.fill(&mut again, offset)?;
            if length < check.page_bytes || is_sound(&again, block, check.begin_lsn) {
                continue;
            }
            self.damaged.count += 1;
            if self.damaged.blocks.len() < DAMAGED_NAMED_MAX {
                self.damaged.blocks.push(block);
            }
        }
        Ok(())
    }

    /// What lies behind the last whole stretch is left alone.
    fn begin_stretch(&mut self) {
        if self.offset < self.stretch_end {
            return;
        }
        let stretch = self.offset / STRETCH_BYTES;
        self.stretch_end = (stretch + 1) * STRETCH_BYTES;
        let known = usize::try_from(stretch)
            .ok()
            .and_then(|at| self.cached.get(at));
        let is_cold = known.map_or(stretch >= STRETCHES_MAX, |is_cached| !is_cached);
        self.cold_since = is_cold.then_some(self.offset);
    }

    fn end_stretch(&mut self) {
        if self.offset >= self.stretch_end
            && let Some(begin) = self.cold_since.take()
        {
            self.file.forget(begin, self.offset - begin);
        }
    }
}

/// Whether a page is as it was written, or will be written anew by replay.
fn is_sound(page: &[u8], block: u32, begin_lsn: Lsn) -> bool {
    match data_page::verify(page, block) {
        PageState::New | PageState::Valid => true,
        PageState::Invalid { lsn, .. } => lsn >= begin_lsn,
    }
}

impl<F: ReadAt> Read for FileReader<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = match &self.check {
            Some(check) if buffer.len() > check.page_bytes => {
                buffer.len() - buffer.len() % check.page_bytes
            }
            _ => buffer.len(),
        };
        self.begin_stretch();
        let count = self.fill(&mut buffer[..wanted], self.offset)?;
        if let Some(check) = self.check {
            self.check_pages(check, &buffer[..count])?;
        }
        self.offset += to_u64(count);
        self.end_stretch();
        Ok(count)
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).expect("a usize has at most 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::os::fd::OwnedFd;

    const PAGE: usize = 8192;

    /// A file whose pages are torn the first `torn_reads` times that they are read.
    struct Fake {
        bytes: Vec<u8>,
        torn_page: u64,
        torn_reads: Cell<u32>,
        is_cached: bool,
        forgotten: Cell<u64>,
        /// Where the file seems to end, until that end was met.
        cut_at: Cell<Option<u64>>,
    }

    impl ReadAt for &Fake {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            let at = usize::try_from(offset).unwrap().min(self.bytes.len());
            // Short reads, as the system may give.
            let mut count = buffer.len().min(self.bytes.len() - at).min(5000);
            if let Some(end) = self.cut_at.get() {
                let left = usize::try_from(end.saturating_sub(offset)).unwrap();
                count = count.min(left);
                self.cut_at.set(self.cut_at.get().filter(|_| left > 0));
            }
            buffer[..count].copy_from_slice(&self.bytes[at..at + count]);
            let torn = self.torn_page * to_u64(PAGE) + 100;
            if self.torn_reads.get() > 0 && (offset..offset + to_u64(count)).contains(&torn) {
                self.torn_reads.set(self.torn_reads.get() - 1);
                buffer[usize::try_from(torn - offset).unwrap()] ^= 0xFF;
            }
            Ok(count)
        }

        fn is_cached(&self, _offset: u64) -> bool {
            self.is_cached
        }

        fn forget(&self, _offset: u64, length: u64) {
            self.forgotten.set(self.forgotten.get() + length);
        }
    }

    fn page(block: u32, lsn: u32) -> Vec<u8> {
        let mut page = vec![7; PAGE];
        page[0..4].fill(0);
        page[PAGE / 2..].fill(0);
        page[4..8].copy_from_slice(&lsn.to_le_bytes());
        let sum = data_page::checksum(&page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    fn file(first_block: u32, lsns: &[u32]) -> Vec<u8> {
        (first_block..)
            .zip(lsns)
            .flat_map(|(block, lsn)| page(block, *lsn))
            .collect()
    }

    fn fake(bytes: Vec<u8>, torn_page: u64, torn_reads: u32) -> Fake {
        Fake {
            bytes,
            torn_page,
            torn_reads: Cell::new(torn_reads),
            is_cached: false,
            forgotten: Cell::new(0),
            cut_at: Cell::new(None),
        }
    }

    fn read(fake: &Fake, first_block: u32) -> (Vec<u8>, DamagedPages) {
        let check = PageCheck {
            page_bytes: PAGE,
            first_block,
            begin_lsn: Lsn::new(1000),
        };
        let mut reader = FileReader::new(fake, to_u64(fake.bytes.len()), Some(check));
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 3 * PAGE + 77];
        loop {
            let count = reader.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            bytes.extend_from_slice(&buffer[..count]);
        }
        (bytes, reader.damaged)
    }

    #[test]
    fn damaged_pages_are_named_by_their_block_in_the_relation() {
        let mut bytes = file(131_072, &[10; 9]);
        bytes[4 * PAGE + 500] ^= 1;
        bytes[8 * PAGE + 8191] ^= 1;
        bytes.extend_from_slice(&[1; 100]);
        let (read_bytes, damaged) = read(&fake(bytes.clone(), 0, 0), 131_072);
        assert_eq!(read_bytes, bytes);
        assert_eq!(damaged.blocks, [131_076, 131_080]);
        assert_eq!(damaged.count, 2);
    }

    #[test]
    fn a_page_that_was_being_written_is_read_again() {
        for (torn_reads, damaged) in [(1, vec![]), (2, vec![3])] {
            let fake = fake(file(0, &[10; 5]), 3, torn_reads);
            assert_eq!(read(&fake, 0).1.blocks, damaged, "{torn_reads}");
        }
    }

    #[test]
    fn a_file_that_was_cut_and_grew_again_is_not_judged_behind_the_cut() {
        let fake = fake(file(0, &[10; 9]), 0, 0);
        fake.cut_at.set(Some(to_u64(PAGE + PAGE / 2)));
        let (bytes, damaged) = read(&fake, 0);
        assert_eq!(bytes, fake.bytes);
        assert_eq!(damaged, DamagedPages::default());
    }

    #[test]
    fn what_the_system_cannot_say_is_taken_for_cached() {
        let (reader, _writer) = io::pipe().unwrap();
        assert!(File::from(OwnedFd::from(reader)).is_cached(0));
    }

    #[test]
    fn pages_that_replay_writes_anew_are_not_judged() {
        let mut bytes = file(0, &[999, 1000]);
        bytes[200] ^= 1;
        bytes[PAGE + 200] ^= 1;
        assert_eq!(read(&fake(bytes, 0, 0), 0).1.blocks, [0]);
    }

    #[test]
    fn the_page_cache_is_left_as_it_was() {
        let pages = usize::try_from(STRETCH_BYTES).unwrap() / PAGE;
        for (is_cached, stretches) in [(false, 2), (true, 0)] {
            let fake = Fake {
                is_cached,
                ..fake(vec![0; (2 * pages + 10) * PAGE], 0, 0)
            };
            let (bytes, damaged) = read(&fake, 0);
            assert_eq!((bytes.len(), damaged.count), ((2 * pages + 10) * PAGE, 0));
            let forgotten = fake.forgotten.get() / STRETCH_BYTES;
            assert_eq!(forgotten, stretches, "{is_cached}");
        }
    }
}

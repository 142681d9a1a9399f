//! One restored file: large ones are written past the page cache where the file system lets them.
//!
//! A restore reads nothing of what it writes. In the page cache it would be copied once more, lie
//! there until the kernel's limits or the sync at the end, and then go to the disk while nothing
//! is fetched; under a memory limit it would fill all of it. Written directly, the disk works from
//! the first piece on. What is written is durable only after a sync all the same: the disk's own
//! cache, and the names and sizes of files, are left to it. Not here: that sync (`finish`).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

/// What direct writes must be aligned to, in memory and in the file: the largest block that
/// disks commonly have. Where it is not enough, the file is written through the page cache.
const ALIGNMENT: usize = 4096;

/// Smaller files, of which a cluster has many, cost less in the page cache.
const DIRECT_BYTES_MIN: u64 = 256 << 10;

/// Memory that direct writes can be made from, used for one file after another.
pub(crate) struct DiskBuffer {
    bytes: Vec<u8>,
    begin: usize,
}

impl DiskBuffer {
    /// So many bytes, rounded up to what is needed.
    pub(crate) fn new(length: usize) -> Self {
        let length = length.max(1).next_multiple_of(ALIGNMENT);
        let bytes = vec![0; length + ALIGNMENT];
        let begin = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { bytes, begin }
    }

    /// All of it.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        let end = self.bytes.len() - ALIGNMENT + self.begin;
        &mut self.bytes[self.begin..end]
    }

    /// Reads until it is full or the reader has no more. Returns how much that was.
    pub(crate) fn fill(&mut self, mut from: impl Read) -> io::Result<usize> {
        let space = self.space();
        let mut filled = 0;
        while filled < space.len() {
            match from.read(&mut space[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// A new file that is written from its beginning to its end.
pub(crate) struct DiskFile {
    file: File,
    is_direct: bool,
}

impl DiskFile {
    /// Makes the file, mode 0600; it must not be there. `size` is what will be written, about.
    pub(crate) fn create(path: &Path, size: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        // Asked for apart from the open: where the file system refuses it, the file is there.
        let is_direct = size >= DIRECT_BYTES_MIN
            && fcntl_getfl(&file)
                .and_then(|flags| fcntl_setfl(&file, flags | OFlags::DIRECT))
                .is_ok();
        Ok(Self { file, is_direct })
    }

    /// Writes the first `count` bytes of the buffer. All writes but the last are of whole buffers.
    pub(crate) fn write(&mut self, buffer: &mut DiskBuffer, count: usize) -> io::Result<()> {
        let bytes = &buffer.space()[..count];
        let aligned = count - count % ALIGNMENT;
        self.write_all(&bytes[..aligned])?;
        if aligned < count && self.is_direct {
            self.end_direct()?;
        }
        self.write_all(&bytes[aligned..])
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Larger blocks than thought, or a write cut short in the middle of one.
                Err(error) if self.is_direct && is_refusal(&error) => self.end_direct()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn end_direct(&mut self) -> io::Result<()> {
        let flags = fcntl_getfl(&self.file)?;
        fcntl_setfl(&self.file, flags - OFlags::DIRECT)?;
        self.is_direct = false;
        Ok(())
    }

    /// The file, to set its attributes.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

/// Whether this is how a file system says that it cannot write so.
fn is_refusal(error: &io::Error) -> bool {
    [Errno::INVAL, Errno::OPNOTSUPP]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes that many bytes through a small buffer and reads them back.
    fn check(size: usize, is_direct: bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let contents: Vec<u8> = (0..size)
            .map(|n| u8::try_from(n * 31 % 251).unwrap())
            .collect();
        let mut buffer = DiskBuffer::new(64 << 10);
        let said = u64::try_from(size).unwrap();
        let mut file = DiskFile::create(&path, said).unwrap();
        if !is_direct && file.is_direct {
            file.end_direct().unwrap();
        }
        let mut rest = &contents[..];
        loop {
            let count = buffer.fill(&mut rest).unwrap();
            if count == 0 {
                break;
            }
            file.write(&mut buffer, count).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == contents, "{size}");
        assert!(DiskFile::create(&path, said).is_err(), "it was there");
        assert!(std::fs::read(&path).unwrap() == contents, "{size}");
    }

    #[test]
    fn a_file_holds_what_was_written_whatever_its_size() {
        let least = usize::try_from(DIRECT_BYTES_MIN).unwrap();
        for size in [
            0,
            1,
            8192,
            least - 1,
            least,
            least + 1,
            least + 8192,
            least * 3 + 4097,
        ] {
            check(size, true);
            check(size, false);
        }
    }

    #[test]
    fn the_buffer_lies_as_direct_writes_need_it() {
        for length in [1, 4096, 4097, 1 << 20] {
            let mut buffer = DiskBuffer::new(length);
            let space = buffer.space();
            assert_eq!(space.as_ptr().align_offset(ALIGNMENT), 0);
            assert_eq!(space.len(), length.next_multiple_of(ALIGNMENT));
        }
    }

    #[test]
    fn a_write_that_cannot_be_direct_goes_through_the_page_cache() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = DiskFile::create(&path, DIRECT_BYTES_MIN).unwrap();
        let mut buffer = DiskBuffer::new(64 << 10);
        buffer.space().fill(7);
        // Leaves the file at an odd place, as a disk that is full does.
        file.write_all(&[5; 100]).unwrap();
        file.write(&mut buffer, 64 << 10).unwrap();
        let found = std::fs::read(&path).unwrap();
        assert!(found[..100] == [5; 100] && found[100..] == vec![7; 64 << 10]);
    }
}

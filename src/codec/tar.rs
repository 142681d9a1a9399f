//! Writing tar archives as streams: ustar, with pax records for what ustar cannot hold.
//!
//! Every reader of POSIX archives reads them. Not here: reading, which `tar::Archive` does.

use std::io::{self, Read, Write};

use crate::codec::digest::Crc32c;
use crate::fault::{self, Fault};

const BLOCK_BYTES: usize = 512;
/// What a whole archive is a multiple of, as tar has written since tapes.
const RECORD_BYTES: u64 = 10_240;
const COPY_BYTES: usize = 128 << 10;
const NAME_BYTES: usize = 100;

/// What an entry says of itself beside its name and contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// The permissions; higher bits than 0o7777 are left out.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Seconds since 1970; earlier times are written as 0.
    pub mtime: i64,
}

/// What became of a file's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// How many bytes the reader gave, at most the size promised; less means that the rest is zeros.
    pub bytes_read: u64,
    /// The CRC-32C of the contents as the archive holds them, zeros included.
    pub crc32c: u32,
}

/// Why an entry was not appended. After [`TarError::Write`] and [`TarError::Read`] the archive
/// is broken.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The reader of the contents failed.
    #[error("cannot read the contents of {path:?}")]
    Read {
        /// The entry concerned.
        path: String,
        /// What the reader said.
        source: io::Error,
    },
    /// The archive could not be written to.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

impl Fault for TarError {
    fn kind(&self) -> fault::Kind {
        fault::Kind::Local
    }
}

/// A tar archive being written into `W`.
///
/// Paths are bytes, relative, with `/` between their parts; nothing is done to them.
#[derive(Debug)]
pub struct TarWriter<W: Write> {
    inner: W,
    size: u64,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    /// An archive without entries.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            size: 0,
            buffer: vec![0; COPY_BYTES],
        }
    }

    /// The bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The inner writer.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// Appends a directory; a `/` is put at the end of the path if none is there.
    pub fn append_directory(
        &mut self,
        path: impl AsRef<[u8]>,
        attributes: Attributes,
    ) -> Result<(), TarError> {
        let mut path = path.as_ref().to_vec();
        if !path.ends_with(b"/") {
            path.push(b'/');
        }
        self.append_header(&Entry {
            kind: Kind::Directory,
            path: &path,
            target: b"",
            size: 0,
            attributes,
        })
    }

    /// Appends a symbolic link to `target`, which is written as it is.
    pub fn append_symlink(
        &mut self,
        path: impl AsRef<[u8]>,
        target: impl AsRef<[u8]>,
        attributes: Attributes,
    ) -> Result<(), TarError> {
        self.append_header(&Entry {
            kind: Kind::Symlink,
            path: path.as_ref(),
            target: target.as_ref(),
            size: 0,
            attributes,
        })
    }

    /// Appends a file whose contents are at hand.
    pub fn append_bytes(
        &mut self,
        path: impl AsRef<[u8]>,
        bytes: &[u8],
        attributes: Attributes,
    ) -> Result<Appended, TarError> {
        self.append_file(path, to_u64(bytes.len()), attributes, bytes)
    }

    /// Appends a file of exactly `size` bytes from `contents`.
    ///
    /// A live data directory's files grow and shrink while they are read: what is missing at
    /// the end becomes zeros, and what lies beyond `size` is not read.
    pub fn append_file(
        &mut self,
        path: impl AsRef<[u8]>,
        size: u64,
        attributes: Attributes,
        mut contents: impl Read,
    ) -> Result<Appended, TarError> {
        let path = path.as_ref();
        self.append_header(&Entry {
            kind: Kind::File,
            path,
            target: b"",
            size,
            attributes,
        })?;
        let mut crc = Crc32c::new();
        let mut bytes_read = 0;
        while bytes_read < size {
            let wanted = self.piece(size - bytes_read);
            let count = match contents.read(&mut self.buffer[..wanted]) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    let path = String::from_utf8_lossy(path).into_owned();
                    return Err(TarError::Read { path, source });
                }
            };
            crc.update(&self.buffer[..count]);
            self.write_buffer(count)?;
            bytes_read += to_u64(count);
        }
        let mut missing = size - bytes_read;
        while missing > 0 {
            let count = self.piece(missing);
            self.buffer[..count].fill(0);
            crc.update(&self.buffer[..count]);
            self.write_buffer(count)?;
            missing -= to_u64(count);
        }
        self.pad(to_u64(BLOCK_BYTES))?;
        Ok(Appended {
            bytes_read,
            crc32c: crc.value(),
        })
    }

    /// Writes the end of the archive and gives the inner writer back, which is not flushed.
    pub fn finish(mut self) -> Result<W, TarError> {
        self.write(&[0; 2 * BLOCK_BYTES])?;
        self.pad(RECORD_BYTES)?;
        Ok(self.inner)
    }

    fn append_header(&mut self, entry: &Entry<'_>) -> Result<(), TarError> {
        let records = entry.pax_records();
        if !records.is_empty() {
            let header = Entry {
                kind: Kind::PaxHeader,
                path: b"././@PaxHeader",
                target: b"",
                size: to_u64(records.len()),
                attributes: entry.attributes,
            };
            self.write(&header.to_block())?;
            self.write(&records)?;
            self.pad(to_u64(BLOCK_BYTES))?;
        }
        self.write(&entry.to_block())
    }

    /// How much of `remaining` goes through the buffer at once.
    fn piece(&self, remaining: u64) -> usize {
        usize::try_from(remaining).map_or(self.buffer.len(), |count| count.min(self.buffer.len()))
    }

    fn write_buffer(&mut self, count: usize) -> Result<(), TarError> {
        self.inner
            .write_all(&self.buffer[..count])
            .map_err(TarError::Write)?;
        self.size += to_u64(count);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        self.inner.write_all(bytes).map_err(TarError::Write)?;
        self.size += to_u64(bytes.len());
        Ok(())
    }

    /// Writes zeros up to the next multiple of `unit`.
    fn pad(&mut self, unit: u64) -> Result<(), TarError> {
        const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
        while !self.size.is_multiple_of(unit) {
            let missing = usize::try_from(unit - self.size % unit).unwrap_or(BLOCK_BYTES);
            self.write(&ZEROS[..missing.min(BLOCK_BYTES)])?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Symlink,
    PaxHeader,
}

impl Kind {
    fn flag(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::Symlink => b'2',
            Self::Directory => b'5',
            Self::PaxHeader => b'x',
        }
    }
}

#[derive(Debug)]
struct Entry<'a> {
    kind: Kind,
    path: &'a [u8],
    target: &'a [u8],
    size: u64,
    attributes: Attributes,
}

impl Entry<'_> {
    /// The records that the header has no room for; empty for most entries.
    fn pax_records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        for (key, name) in [("path", self.path), ("linkpath", self.target)] {
            if name.len() > NAME_BYTES || !name.is_ascii() {
                push_pax_record(&mut records, key, name);
            }
        }
        let numbers = [
            ("size", self.size, 11),
            ("uid", u64::from(self.attributes.uid), 7),
            ("gid", u64::from(self.attributes.gid), 7),
        ];
        for (key, number, digits) in numbers {
            if !fits_octal(number, digits) {
                push_pax_record(&mut records, key, number.to_string().as_bytes());
            }
        }
        records
    }

    /// The ustar header. A name too long for it is cut, a number too large is in base 256; the
    /// pax records before the header have both in full.
    fn to_block(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        let attributes = self.attributes;
        put_name(&mut block[0..100], self.path);
        put_number(&mut block[100..108], u64::from(attributes.mode & 0o7777));
        put_number(&mut block[108..116], u64::from(attributes.uid));
        put_number(&mut block[116..124], u64::from(attributes.gid));
        put_number(&mut block[124..136], self.size);
        let mtime = u64::try_from(attributes.mtime).unwrap_or(0);
        put_number(&mut block[136..148], mtime);
        block[156] = self.kind.flag();
        put_name(&mut block[157..257], self.target);
        block[257..265].copy_from_slice(b"ustar\x0000");
        put_number(&mut block[329..337], 0);
        put_number(&mut block[337..345], 0);
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        put_number(&mut block[148..155], sum);
        block
    }
}

fn put_name(field: &mut [u8], name: &[u8]) {
    let count = name.len().min(field.len());
    field[..count].copy_from_slice(&name[..count]);
}

fn fits_octal(number: u64, digits: u32) -> bool {
    number < 1 << (3 * digits)
}

/// Octal digits and a final NUL, or GNU's base 256 behind a byte 0x80.
fn put_number(field: &mut [u8], number: u64) {
    let digits = field.len() - 1;
    if fits_octal(number, u32::try_from(digits).expect("a field of a header")) {
        let text = format!("{number:0digits$o}");
        field[..digits].copy_from_slice(text.as_bytes());
        field[digits] = 0;
        return;
    }
    let bytes = number.to_be_bytes();
    let kept = digits.min(bytes.len());
    field.fill(0);
    let start = field.len() - kept;
    field[start..].copy_from_slice(&bytes[bytes.len() - kept..]);
    field[0] = 0x80;
}

/// `<length> <key>=<value>\n`, where the length counts its own digits.
fn push_pax_record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).expect("a usize has at most 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTRIBUTES: Attributes = Attributes {
        mode: 0o100_640,
        uid: 26,
        gid: 1_000_660_000,
        mtime: 1_790_000_000,
    };

    /// What `tar::Archive` reads of an entry: path, type, link, contents.
    type Entry = (Vec<u8>, ::tar::EntryType, Option<Vec<u8>>, Vec<u8>);

    fn read_back(archive: &[u8]) -> Vec<Entry> {
        let mut archive = ::tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            assert_eq!(entry.header().mode().unwrap(), 0o640);
            assert_eq!(entry.header().uid().unwrap(), 26);
            assert_eq!(entry.header().gid().unwrap(), 1_000_660_000);
            assert_eq!(entry.header().mtime().unwrap(), 1_790_000_000);
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).unwrap();
            let link = entry.link_name_bytes().map(|name| name.to_vec());
            let kind = entry.header().entry_type();
            (entry.path_bytes().to_vec(), kind, link, contents)
        });
        entries.collect()
    }

    #[test]
    fn entries_read_back_whatever_their_names() {
        let long = format!("base/{}", "x".repeat(120));
        let names: [&[u8]; 7] = [
            b"./PG_VERSION",
            &[b'a'; 100],
            &[b'b'; 101],
            long.as_bytes(),
            "base/Łódź".as_bytes(),
            b"base/\xff",
            &[b'c'; 9_991],
        ];
        let mut writer = TarWriter::new(Vec::new());
        writer.append_directory("./", ATTRIBUTES).unwrap();
        writer.append_directory("base", ATTRIBUTES).unwrap();
        for name in names {
            writer.append_bytes(name, name, ATTRIBUTES).unwrap();
        }
        writer.append_symlink("link", &long, ATTRIBUTES).unwrap();
        let archive = writer.finish().unwrap();
        assert_eq!(archive.len() % 10_240, 0);

        let mut expected: Vec<Entry> = vec![
            (b"./".to_vec(), ::tar::EntryType::Directory, None, vec![]),
            (b"base/".to_vec(), ::tar::EntryType::Directory, None, vec![]),
        ];
        for name in names {
            let kind = ::tar::EntryType::Regular;
            expected.push((name.to_vec(), kind, None, name.to_vec()));
        }
        let target = Some(long.into_bytes());
        expected.push((b"link".to_vec(), ::tar::EntryType::Symlink, target, vec![]));
        assert_eq!(read_back(&archive), expected);
    }

    #[test]
    fn a_file_has_the_size_promised_whatever_the_reader_gives() {
        for (size, given) in [
            (0, 0),
            (0, 5),
            (5, 0),
            (511, 512),
            (512, 511),
            (300_000, 200_001),
        ] {
            let contents = vec![7; given];
            let mut expected = contents.clone();
            expected.resize(size, 0);
            let mut writer = TarWriter::new(Vec::new());
            let appended = writer
                .append_file("file", to_u64(size), ATTRIBUTES, &contents[..])
                .unwrap();
            assert_eq!(appended.bytes_read, to_u64(given.min(size)));
            assert_eq!(appended.crc32c, Crc32c::of(&expected));
            assert_eq!(writer.size() % 512, 0);
            let archive = writer.finish().unwrap();
            assert!(read_back(&archive)[0].3 == expected, "{size} {given}");
        }
    }

    #[test]
    fn files_beyond_8_gib_have_their_size_twice() {
        let entry = super::Entry {
            kind: Kind::File,
            path: b"big",
            target: b"",
            size: 9 << 30,
            attributes: Attributes {
                gid: 26,
                ..ATTRIBUTES
            },
        };
        assert_eq!(entry.pax_records(), b"19 size=9663676416\n");
        let block = entry.to_block();
        assert_eq!(block[124..136], [0x80, 0, 0, 0, 0, 0, 0, 2, 0x40, 0, 0, 0]);
        let header = ::tar::Header::from_byte_slice(&block);
        assert_eq!(header.entry_size().unwrap(), 9 << 30);
        let below = super::Entry {
            size: (8 << 30) - 1,
            ..entry
        };
        assert_eq!(below.pax_records(), b"");
        assert_eq!(&below.to_block()[124..136], b"77777777777\0");
    }

    #[test]
    fn a_pax_record_counts_its_own_length() {
        for length in 0..1200 {
            let mut records = Vec::new();
            push_pax_record(&mut records, "path", &vec![b'x'; length]);
            let text = String::from_utf8(records).unwrap();
            let (said, _) = text.split_once(' ').unwrap();
            assert_eq!(said.parse(), Ok(text.len()));
        }
    }

    #[test]
    fn readers_and_writers_that_fail_are_told_apart() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("disk"))
            }
        }
        let error = TarWriter::new(Vec::new())
            .append_file("base/1", 10, ATTRIBUTES, Broken)
            .unwrap_err();
        assert!(matches!(error, TarError::Read { path, .. } if path == "base/1"));
        let mut full = [0; 600];
        let error = TarWriter::new(&mut full[..])
            .append_bytes("base/1", &[0; 1000], ATTRIBUTES)
            .unwrap_err();
        assert!(matches!(error, TarError::Write(_)));
    }
}

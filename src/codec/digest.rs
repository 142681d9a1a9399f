//! Digests of byte streams, under names of our own.
//!
//! BLAKE3 tells whether a stored object is the one that was written, CRC-32C goes into
//! backup manifests per file, SHA-256 into them for the whole.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

/// BLAKE3, 256 bits.
#[derive(Debug, Clone, Default)]
pub struct Blake3(blake3::Hasher);

impl Blake3 {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest so far, as 64 lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> String {
        blake3::hash(bytes).to_hex().to_string()
    }
}

/// CRC-32C (Castagnoli), as PostgreSQL uses it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Crc32c(u32);

impl Crc32c {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    /// The checksum so far.
    pub fn value(self) -> u32 {
        self.0
    }

    /// The checksum of `bytes`.
    pub fn of(bytes: &[u8]) -> u32 {
        crc32c::crc32c(bytes)
    }
}

/// SHA-256.
#[derive(Debug, Clone, Default)]
pub struct Sha256(sha2::Sha256);

impl Sha256 {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.0, bytes);
    }

    /// The digest, as 64 lower-case hexadecimal digits.
    pub fn finish_hex(self) -> String {
        let mut text = String::with_capacity(64);
        for byte in sha2::Digest::finalize(self.0) {
            write!(text, "{byte:02x}").expect("a string takes all that is written to it");
        }
        text
    }
}

/// A writer that passes everything on and keeps size and BLAKE3 of what its inner writer took.
#[derive(Debug)]
pub struct DigestWriter<W> {
    inner: W,
    blake3: Blake3,
    size: u64,
}

impl<W> DigestWriter<W> {
    /// Of nothing yet.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            blake3: Blake3::new(),
            size: 0,
        }
    }

    /// The bytes taken so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// BLAKE3 of the bytes taken so far, in hexadecimal.
    pub fn blake3(&self) -> String {
        self.blake3.to_hex()
    }

    /// The inner writer.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// The inner writer back.
    pub fn into_inner(self) -> W {
        self.inner
    }
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.blake3.update(&bytes[..count]);
        self.size += count_u64(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A reader that passes everything on and keeps size and BLAKE3 of what was read.
#[derive(Debug)]
pub struct DigestReader<R> {
    inner: R,
    blake3: Blake3,
    size: u64,
}

impl<R> DigestReader<R> {
    /// Of nothing yet.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            blake3: Blake3::new(),
            size: 0,
        }
    }

    /// The bytes read so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// BLAKE3 of the bytes read so far, in hexadecimal.
    pub fn blake3(&self) -> String {
        self.blake3.to_hex()
    }

    /// The inner reader back.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for DigestReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.blake3.update(&buffer[..count]);
        self.size += count_u64(count);
        Ok(count)
    }
}

fn count_u64(count: usize) -> u64 {
    u64::try_from(count).expect("a usize has at most 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standards() {
        // The check value of CRC-32C, and SHA-256 and BLAKE3 of nothing.
        assert_eq!(Crc32c::of(b"123456789"), 0xE306_9283);
        assert_eq!(
            Sha256::new().finish_hex(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            Blake3::of(b""),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
    }

    #[test]
    fn pieces_digest_as_the_whole() {
        let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let mut crc = Crc32c::new();
        let mut writer = DigestWriter::new(Vec::new());
        for piece in bytes.chunks(777) {
            crc.update(piece);
            writer.write_all(piece).unwrap();
        }
        assert_eq!(crc.value(), Crc32c::of(&bytes));
        assert_eq!(writer.blake3(), Blake3::of(&bytes));
        assert_eq!(writer.size(), 10_000);
        let mut reader = DigestReader::new(&bytes[..]);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!((reader.size(), reader.blake3()), (10_000, writer.blake3()));
    }
}

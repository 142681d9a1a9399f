//! Compressing writers: what is written comes out as one member, stream or frame of a codec.
//!
//! One is what Barman's streaming tar reader needs; it fails on a second gzip member, bzip2
//! stream or lz4 frame. Not here: reading them back (`codec::decompress`).

use std::fmt;
use std::io::{self, Write};

use lz4::ContentChecksum;
use lz4::liblz4::BlockChecksum;
use zstd::stream::raw::CParameter;

use crate::codec::{Codec, Compression};

/// The largest zstd window, as a power of two, whatever the level: 8 MiB.
///
/// Levels up to 19 choose no larger one by themselves. Beyond it, a reader needs up to 128 MiB
/// for the window alone, and Barman's refuses more than 27.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// The tables that level 19 has for that window. Those of level 22 would take 650 MiB.
const ZSTD_CHAIN_LOG_MAX: u32 = 24;
const ZSTD_HASH_LOG_MAX: u32 = 22;
/// The highest zstd level that keeps within these by itself.
const ZSTD_UNCAPPED_LEVEL_MAX: i32 = 19;

/// What a thread of several compresses at a time.
const ZSTD_JOB_BYTES: u32 = 1 << 20;

/// What opens every stream of snappy's framing format.
pub(super) const SNAPPY_IDENTIFIER: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// A writer that compresses into another.
///
/// Only [`finish`](Self::finish) makes the stream whole. Dropping it instead may still write
/// some of the rest to the inner writer and hides the errors of doing so: what such a writer
/// has received is not to be used.
pub struct Compressor<W: Write>(Encoder<W>);

enum Encoder<W: Write> {
    None(W),
    Gzip(flate2::write::GzEncoder<W>),
    Bzip2(bzip2::write::BzEncoder<W>),
    Xz(liblzma::write::XzEncoder<W>),
    Snappy {
        encoder: Box<snap::write::FrameEncoder<W>>,
        is_empty: bool,
    },
    Zstd(zstd::stream::write::Encoder<'static, W>),
    Lz4(lz4::Encoder<W>),
}

impl<W: Write> Compressor<W> {
    /// A compressor into `inner`. Some codecs write their header at once.
    pub fn new(inner: W, compression: Compression) -> io::Result<Self> {
        let level = compression.level_or_default();
        Ok(Self(match compression.codec {
            Codec::None => Encoder::None(inner),
            Codec::Gzip => Encoder::Gzip(flate2::write::GzEncoder::new(
                inner,
                gzip_level(compression)?,
            )),
            Codec::Bzip2 => Encoder::Bzip2(bzip2::write::BzEncoder::new(
                inner,
                bzip2::Compression::new(unsigned(level)?),
            )),
            Codec::Xz => {
                let check = liblzma::stream::Check::Crc64;
                let stream = liblzma::stream::Stream::new_easy_encoder(unsigned(level)?, check)?;
                Encoder::Xz(liblzma::write::XzEncoder::new_stream(inner, stream))
            }
            Codec::Snappy => Encoder::Snappy {
                encoder: Box::new(snap::write::FrameEncoder::new(inner)),
                is_empty: true,
            },
            Codec::Zstd => Encoder::Zstd(zstd_encoder(inner, level)?),
            Codec::Lz4 => Encoder::Lz4(
                lz4_builder(level)?
                    .block_checksum(BlockChecksum::NoBlockChecksum)
                    .checksum(ContentChecksum::ChecksumEnabled)
                    .build(inner)?,
            ),
        }))
    }

    /// A compressor whose frames can be cut into blocks and joined: those of lz4 have a checksum
    /// for each block instead of one for all.
    pub(super) fn for_pieces(inner: W, compression: Compression) -> io::Result<Self> {
        if compression.codec != Codec::Lz4 {
            return Self::new(inner, compression);
        }
        Ok(Self(Encoder::Lz4(
            lz4_builder(compression.level_or_default())?
                .block_checksum(BlockChecksum::BlockChecksumEnabled)
                .checksum(ContentChecksum::NoChecksum)
                .build(inner)?,
        )))
    }

    /// A compressor whose codec may use so many threads for its one frame: zstd alone can.
    pub fn with_threads(inner: W, compression: Compression, threads: usize) -> io::Result<Self> {
        if compression.codec != Codec::Zstd || threads < 2 {
            return Self::new(inner, compression);
        }
        let mut encoder = zstd_encoder(inner, compression.level_or_default())?;
        encoder.set_parameter(CParameter::JobSize(ZSTD_JOB_BYTES))?;
        encoder.multithread(u32::try_from(threads).unwrap_or(u32::MAX))?;
        Ok(Self(Encoder::Zstd(encoder)))
    }

    /// Writes the end of the stream and gives the inner writer back, which is not flushed.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Encoder::None(inner) => Ok(inner),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Bzip2(encoder) => encoder.finish(),
            Encoder::Xz(encoder) => encoder.finish(),
            Encoder::Snappy {
                mut encoder,
                is_empty,
            } => {
                encoder.flush()?;
                let mut inner = encoder
                    .into_inner()
                    .map_err(|error| io::Error::other(error.to_string()))?;
                if is_empty {
                    // The encoder writes the identifier with the first chunk alone, and a
                    // stream of nothing would be no stream at all.
                    inner.write_all(SNAPPY_IDENTIFIER)?;
                }
                Ok(inner)
            }
            Encoder::Zstd(encoder) => encoder.finish(),
            Encoder::Lz4(encoder) => {
                let (inner, result) = encoder.finish();
                result.map(|()| inner)
            }
        }
    }

    /// The inner writer, which lags behind what was written by what the encoder still holds.
    pub fn get_ref(&self) -> &W {
        match &self.0 {
            Encoder::None(inner) => inner,
            Encoder::Gzip(encoder) => encoder.get_ref(),
            Encoder::Bzip2(encoder) => encoder.get_ref(),
            Encoder::Xz(encoder) => encoder.get_ref(),
            Encoder::Snappy { encoder, .. } => encoder.get_ref(),
            Encoder::Zstd(encoder) => encoder.get_ref(),
            Encoder::Lz4(encoder) => encoder.writer(),
        }
    }

    fn encoder(&mut self) -> &mut dyn Write {
        match &mut self.0 {
            Encoder::None(inner) => inner,
            Encoder::Gzip(encoder) => encoder,
            Encoder::Bzip2(encoder) => encoder,
            Encoder::Xz(encoder) => encoder,
            Encoder::Snappy { encoder, .. } => encoder,
            Encoder::Zstd(encoder) => encoder,
            Encoder::Lz4(encoder) => encoder,
        }
    }
}

fn zstd_encoder<W: Write>(
    inner: W,
    level: i32,
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let mut encoder = zstd::stream::write::Encoder::new(inner, level)?;
    encoder.include_checksum(true)?;
    if level > ZSTD_UNCAPPED_LEVEL_MAX {
        for limit in [
            CParameter::WindowLog(ZSTD_WINDOW_LOG_MAX),
            CParameter::ChainLog(ZSTD_CHAIN_LOG_MAX),
            CParameter::HashLog(ZSTD_HASH_LOG_MAX),
        ] {
            encoder.set_parameter(limit)?;
        }
    }
    Ok(encoder)
}

fn lz4_builder(level: i32) -> io::Result<lz4::EncoderBuilder> {
    let mut builder = lz4::EncoderBuilder::new();
    builder
        .level(unsigned(level)?)
        .block_size(lz4::BlockSize::Max256KB)
        .block_mode(lz4::BlockMode::Linked);
    Ok(builder)
}

pub(super) fn gzip_level(compression: Compression) -> io::Result<flate2::Compression> {
    let level = unsigned(compression.level_or_default())?;
    Ok(flate2::Compression::new(level))
}

fn unsigned(level: i32) -> io::Result<u32> {
    u32::try_from(level).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Encoder::Snappy { is_empty, .. } = &mut self.0 {
            *is_empty &= bytes.is_empty();
        }
        self.encoder().write(bytes)
    }

    /// Hands what was written so far to the inner writer, at some cost in size.
    fn flush(&mut self) -> io::Result<()> {
        self.encoder().flush()
    }
}

impl<W: Write> fmt::Debug for Compressor<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codec = match &self.0 {
            Encoder::None(_) => Codec::None,
            Encoder::Gzip(_) => Codec::Gzip,
            Encoder::Bzip2(_) => Codec::Bzip2,
            Encoder::Xz(_) => Codec::Xz,
            Encoder::Snappy { .. } => Codec::Snappy,
            Encoder::Zstd(_) => Codec::Zstd,
            Encoder::Lz4(_) => Codec::Lz4,
        };
        f.debug_tuple("Compressor").field(&codec).finish()
    }
}

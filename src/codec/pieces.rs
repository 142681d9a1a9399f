//! One member, stream or frame out of pieces that were compressed apart, by several threads.
//!
//! What the formats allow, and every reader takes: deflate blocks follow one another once each
//! piece ends at a byte (RFC 1951, 3.2.4; RFC 1952), snappy's chunks stand alone (its framing
//! format, 4), and so do the blocks of an lz4 frame that refer to none before their piece (lz4
//! frame format 1.6.4). zstd's frames, bzip2's streams and xz' containers cannot be joined so.
//! Not here: the threads.

use std::io::{self, Write};

use flate2::{Compress, Crc, FlushCompress};

use crate::codec::compress::{self, Compressor, SNAPPY_IDENTIFIER};
use crate::codec::{Codec, Compression};

/// What a gzip member begins with: deflate, no name, no time, any system (RFC 1952, 2.3).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// What the deflated bytes grow by, at least.
const DEFLATED_BYTES: usize = 64 << 10;

/// The header of an lz4 frame that tells no size and names no dictionary.
const LZ4_HEADER_BYTES: usize = 7;

/// What ends an lz4 frame without a checksum of its content.
const LZ4_END_MARK: [u8; 4] = [0; 4];

/// Whether pieces of this codec can be joined.
pub fn can_be_joined(codec: Codec) -> bool {
    matches!(codec, Codec::Gzip | Codec::Snappy | Codec::Lz4)
}

/// A piece, compressed.
#[derive(Debug)]
pub struct Piece {
    bytes: Vec<u8>,
    /// gzip's checksum of what was compressed.
    crc: Option<Crc>,
}

/// Compresses one piece; only [`finish`](Self::finish) makes it whole.
#[derive(Debug)]
pub struct PieceEncoder(Encoder);

#[derive(Debug)]
enum Encoder {
    Deflate {
        deflate: Box<Compress>,
        deflated: Vec<u8>,
        crc: Crc,
    },
    /// A frame or stream, of which the piece is the middle.
    Whole(Compressor<Vec<u8>>, Codec),
}

impl PieceEncoder {
    /// For a codec that [`can_be_joined`].
    pub fn new(compression: Compression) -> io::Result<Self> {
        let sink = Vec::new();
        Ok(Self(match compression.codec {
            Codec::Gzip => Encoder::Deflate {
                deflate: Box::new(Compress::new(compress::gzip_level(compression)?, false)),
                deflated: sink,
                crc: Crc::new(),
            },
            codec @ (Codec::Snappy | Codec::Lz4) => {
                Encoder::Whole(Compressor::for_pieces(sink, compression)?, codec)
            }
            codec => return Err(not_joined(codec)),
        }))
    }

    /// The end of the piece, which more may follow.
    pub fn finish(self) -> io::Result<Piece> {
        match self.0 {
            Encoder::Deflate {
                mut deflate,
                deflated: mut bytes,
                crc,
            } => {
                // Ends at a byte, without ending the stream. Where no room was left there is more.
                loop {
                    bytes.reserve(DEFLATED_BYTES);
                    deflate.compress_vec(&[], &mut bytes, FlushCompress::Sync)?;
                    if bytes.len() < bytes.capacity() {
                        break;
                    }
                }
                bytes.shrink_to_fit();
                let crc = Some(crc);
                Ok(Piece { bytes, crc })
            }
            Encoder::Whole(compressor, codec) => {
                let bytes = middle(compressor.finish()?, codec)?;
                Ok(Piece { bytes, crc: None })
            }
        }
    }
}

impl Write for PieceEncoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Encoder::Deflate {
                deflate,
                deflated,
                crc,
            } => {
                let before = deflate.total_in();
                deflated.reserve(DEFLATED_BYTES);
                deflate.compress_vec(bytes, deflated, FlushCompress::None)?;
                let count =
                    usize::try_from(deflate.total_in() - before).map_err(io::Error::other)?;
                crc.update(&bytes[..count]);
                Ok(count)
            }
            Encoder::Whole(compressor, _) => compressor.write(bytes),
        }
    }

    /// Does nothing: a piece is taken whole.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Joins pieces, one after the other.
#[derive(Debug)]
pub struct Joiner {
    codec: Codec,
    crc: Crc,
}

impl Joiner {
    /// For pieces of that compression, and what stands before the first.
    pub fn begin(compression: Compression) -> io::Result<(Self, Vec<u8>)> {
        let header = match compression.codec {
            Codec::Gzip => GZIP_HEADER.to_vec(),
            Codec::Snappy => SNAPPY_IDENTIFIER.to_vec(),
            Codec::Lz4 => {
                let mut empty = Compressor::for_pieces(Vec::new(), compression)?.finish()?;
                empty.truncate(LZ4_HEADER_BYTES);
                empty
            }
            codec => return Err(not_joined(codec)),
        };
        let codec = compression.codec;
        let crc = Crc::new();
        Ok((Self { codec, crc }, header))
    }

    /// What stands for the next piece.
    pub fn join<'a>(&mut self, piece: &'a Piece) -> &'a [u8] {
        if let Some(crc) = &piece.crc {
            self.crc.combine(crc);
        }
        &piece.bytes
    }

    /// What stands after the last piece.
    pub fn end(self) -> Vec<u8> {
        match self.codec {
            Codec::Gzip => {
                // An empty last block (RFC 1951, 3.2.6), then the checksum and the size.
                let mut end = vec![3, 0];
                end.extend(self.crc.sum().to_le_bytes());
                end.extend(self.crc.amount().to_le_bytes());
                end
            }
            Codec::Lz4 => LZ4_END_MARK.to_vec(),
            _ => Vec::new(),
        }
    }
}

/// A whole without what stands before and after its blocks.
fn middle(mut whole: Vec<u8>, codec: Codec) -> io::Result<Vec<u8>> {
    let (begin, end) = match codec {
        Codec::Snappy => (SNAPPY_IDENTIFIER.len(), 0),
        _ => (LZ4_HEADER_BYTES, LZ4_END_MARK.len()),
    };
    let Some(length) = whole
        .len()
        .checked_sub(end)
        .filter(|length| *length >= begin)
    else {
        let text = format!("a piece of {codec} without its frame");
        return Err(io::Error::other(text));
    };
    whole.truncate(length);
    whole.drain(..begin);
    whole.shrink_to_fit();
    Ok(whole)
}

fn not_joined(codec: Codec) -> io::Error {
    let text = format!("pieces of {codec} cannot be joined");
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::codec::decompress::decompressor;

    /// `content` in pieces of that many bytes, joined.
    fn joined(content: &[u8], piece_bytes: usize, compression: Compression) -> Vec<u8> {
        let (mut joiner, mut whole) = Joiner::begin(compression).unwrap();
        for part in content.chunks(piece_bytes) {
            let mut encoder = PieceEncoder::new(compression).unwrap();
            encoder.write_all(part).unwrap();
            whole.extend(joiner.join(&encoder.finish().unwrap()));
        }
        whole.extend(joiner.end());
        whole
    }

    /// Something that compresses, and stretches that do not.
    fn content(length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut content = Vec::with_capacity(length + 4096);
        while content.len() < length {
            match random.u8(..3) {
                0 => content.extend(std::iter::repeat_n(random.u8(..), 4096)),
                1 => content.extend((0..4096).map(|_| random.u8(..))),
                _ => content.extend((0..4096).map(|at: u32| at.to_le_bytes()[1])),
            }
        }
        content.truncate(length);
        content
    }

    #[test]
    fn joined_pieces_read_as_one_stream() {
        for codec in Codec::ALL.into_iter().filter(|codec| can_be_joined(*codec)) {
            let levels = codec.levels().map_or(0..=0, |(low, _, high)| low..=high);
            for level in levels.map(|level| codec.levels().map(|_| level)) {
                let compression = Compression { codec, level };
                for (length, piece_bytes) in [
                    (1_000_000, 300_000),
                    (1_000_000, 1_000_000),
                    (524_288, 131_072),
                    (1, 4096),
                    (0, 4096),
                ] {
                    let content = content(length);
                    let whole = joined(&content, piece_bytes, compression);
                    let mut read = Vec::new();
                    let mut reader = decompressor(&whole[..], codec).unwrap();
                    reader.read_to_end(&mut read).unwrap();
                    let case = format!("{compression}: {length} bytes by {piece_bytes}");
                    assert!(read == content, "{case}");
                }
            }
        }
    }

    #[test]
    fn a_joined_stream_is_one_member_with_a_checksum() {
        for codec in Codec::ALL.into_iter().filter(|codec| can_be_joined(*codec)) {
            let mut whole = joined(
                &content(400_000),
                100_000,
                Compression { codec, level: None },
            );
            let at = whole.len() - 40;
            whole[at] ^= 1;
            let mut reader = decompressor(&whole[..], codec).unwrap();
            let outcome = reader.read_to_end(&mut Vec::new());
            assert!(outcome.is_err(), "{codec} takes a changed byte for good");
        }
        let gzip = Compression {
            codec: Codec::Gzip,
            level: None,
        };
        let whole = joined(&content(400_000), 100_000, gzip);
        let mut one = flate2::bufread::GzDecoder::new(&whole[..]);
        let mut read = Vec::new();
        one.read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), 400_000);
        assert!(one.into_inner().is_empty());
    }

    #[test]
    fn codecs_without_pieces_refuse() {
        for codec in Codec::ALL
            .into_iter()
            .filter(|codec| !can_be_joined(*codec))
        {
            assert!(PieceEncoder::new(Compression { codec, level: None }).is_err());
            assert!(Joiner::begin(Compression { codec, level: None }).is_err());
        }
    }
}

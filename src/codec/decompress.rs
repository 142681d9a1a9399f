//! Decompressing readers, for what Cellarman and Barman wrote, and for members in a row.
//!
//! Not here: writing (`codec::compress`).

use std::io::{self, BufRead, BufReader, Read};

use crate::codec::Codec;

const BUFFER_BYTES: usize = 64 << 10;
/// What xz may take to decode: level 9, the highest, needs 65 MiB.
const XZ_MEMORY_BYTES_MAX: u64 = 80 << 20;
/// The largest zstd window accepted, as a power of two. It is the library's own limit, and Barman's.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// A reader of what `inner` holds in `codec`; members, streams or frames in a row are read as one.
///
/// # Errors
/// A stream that ends before its end is `UnexpectedEof`, and one that is not of the codec or
/// fails its checksum `InvalidData`; never does a cut stream read as a short one. Two formats
/// have no end to miss: [`Codec::None`], and [`Codec::Snappy`], which may end after any of its
/// chunks of up to 64 KiB. What comes in those must tell its own length, as tar and WAL do.
/// Errors of `inner` come through as they are.
pub fn decompressor<'a, R: Read + Send + 'a>(
    inner: R,
    codec: Codec,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    if codec == Codec::None {
        return Ok(Box::new(inner));
    }
    let source = BufReader::with_capacity(BUFFER_BYTES, Source(inner));
    Ok(match codec {
        Codec::None => Box::new(source),
        Codec::Gzip => Box::new(Sorted::new(flate2::bufread::MultiGzDecoder::new(source))),
        Codec::Bzip2 => Box::new(Sorted::new(bzip2::bufread::MultiBzDecoder::new(source))),
        Codec::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                XZ_MEMORY_BYTES_MAX,
                liblzma::stream::CONCATENATED,
            )?;
            Box::new(Sorted::new(liblzma::bufread::XzDecoder::new_stream(
                source, stream,
            )))
        }
        Codec::Snappy => Box::new(Sorted::new(SnappyFrames {
            decoder: snap::read::FrameDecoder::new(Counted {
                inner: source,
                is_empty: true,
            }),
        })),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(Sorted::new(decoder))
        }
        Codec::Lz4 => Box::new(Sorted::new(Lz4Frames::new(source)?)),
    })
}

/// Marks the errors of the inner reader, so that [`Sorted`] can tell them from the codec's, and
/// repeats interrupted reads, since not every decoder can go on after one.
struct Source<R>(R);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct SourceError(io::Error);

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io::Error::new(error.kind(), SourceError(error))),
                Ok(count) => return Ok(count),
            }
        }
    }
}

/// Gives each error its kind, as libraries disagree on the one of bad data, and repeats it on
/// later reads: a decoder that has failed may well say "end" when asked again.
struct Sorted<D> {
    decoder: D,
    failed: Option<io::ErrorKind>,
}

impl<D> Sorted<D> {
    fn new(decoder: D) -> Self {
        Self {
            decoder,
            failed: None,
        }
    }
}

impl<D: Read> Read for Sorted<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(kind) = self.failed {
            return Err(kind.into());
        }
        self.decoder.read(buffer).map_err(|error| {
            let error = sort(error);
            self.failed = Some(error.kind());
            error
        })
    }
}

fn sort(error: io::Error) -> io::Error {
    match error.downcast::<SourceError>() {
        Ok(SourceError(error)) => error,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => error,
        Err(error) => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

/// Notes whether there was anything at all.
struct Counted<R> {
    inner: R,
    is_empty: bool,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.is_empty &= count == 0;
        Ok(count)
    }
}

/// snappy's decoder takes nothing at all for a stream of nothing; it lacks its identifier.
struct SnappyFrames<R: Read> {
    decoder: snap::read::FrameDecoder<Counted<R>>,
}

impl<R: Read> Read for SnappyFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        if count == 0 && !buffer.is_empty() && self.decoder.get_ref().is_empty {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(count)
    }
}

/// lz4's decoder reads one frame, and takes the end of the input for the end of the frame.
enum Lz4Frames<R> {
    Within(lz4::Decoder<R>),
    Between(R),
    /// At the end, or after an error.
    Done,
}

impl<R: BufRead> Lz4Frames<R> {
    /// Before the first frame, which must be there.
    fn new(source: R) -> io::Result<Self> {
        lz4::Decoder::new(source).map(Self::Within)
    }
}

impl<R: BufRead> Read for Lz4Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            *self = match std::mem::replace(self, Self::Done) {
                Self::Done => return Ok(0),
                Self::Between(mut source) => {
                    if source.fill_buf()?.is_empty() {
                        return Ok(0);
                    }
                    Self::Within(lz4::Decoder::new(source)?)
                }
                Self::Within(mut decoder) => {
                    let count = decoder.read(buffer)?;
                    if count > 0 {
                        *self = Self::Within(decoder);
                        return Ok(count);
                    }
                    // Only `finish` tells a frame that ended from an input that did.
                    let (source, result) = decoder.finish();
                    result.map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
                    Self::Between(source)
                }
            }
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Compression;
    use crate::codec::compress::Compressor;
    use proptest::prelude::*;
    use std::io::Write;

    /// Some text, some noise, some zeros: 300 kB, more than one block of most codecs.
    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut state = 1u64;
        for line in 0..4000 {
            bytes.extend_from_slice(format!("base/5/{line} is a relation\n").as_bytes());
        }
        for _ in 0..20_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.resize(bytes.len() + 40_000, 0);
        bytes
    }

    fn compress(bytes: &[u8], compression: Compression) -> Vec<u8> {
        let mut compressor = Compressor::new(Vec::new(), compression).unwrap();
        for piece in bytes.chunks(10_007) {
            compressor.write_all(piece).unwrap();
        }
        compressor.finish().unwrap()
    }

    fn by_default(codec: Codec) -> Compression {
        Compression { codec, level: None }
    }

    fn read_all(stored: impl Read + Send, codec: Codec) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        decompressor(stored, codec)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Gives few bytes at a time, after being interrupted each time.
    struct Dribble<'a> {
        rest: &'a [u8],
        is_interrupted: bool,
    }

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.is_interrupted = !self.is_interrupted;
            if self.is_interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let count = buffer.len().min(7);
            self.rest.read(&mut buffer[..count])
        }
    }

    #[test]
    fn every_codec_and_level_gives_back_what_it_took() {
        let sample = sample();
        for codec in Codec::ALL {
            let mut levels = vec![None];
            if let Some((lowest, _, highest)) = codec.levels() {
                // The highest of xz takes most of a gigabyte.
                let highest = if codec == Codec::Xz { 6 } else { highest };
                levels.extend([Some(lowest), Some(highest)]);
            }
            for level in levels {
                let stored = compress(&sample, Compression { codec, level });
                assert!(read_all(&stored[..], codec).unwrap() == sample, "{codec}");
            }
            let stored = compress(b"", by_default(codec));
            assert_eq!(read_all(&stored[..], codec).unwrap(), b"", "{codec}");
        }
    }

    #[test]
    fn sources_may_be_slow_and_interrupted() {
        let sample = sample();
        for codec in Codec::ALL {
            let stored = compress(&sample, by_default(codec));
            let dribble = Dribble {
                rest: &stored,
                is_interrupted: false,
            };
            assert!(read_all(dribble, codec).unwrap() == sample, "{codec}");
        }
    }

    #[test]
    fn streams_in_a_row_read_as_one() {
        let sample = sample();
        for codec in Codec::ALL {
            let mut stored = compress(&sample, by_default(codec));
            stored.extend(compress(b"", by_default(codec)));
            stored.extend(compress(b"and more", by_default(codec)));
            let expected = [&sample[..], b"and more"].concat();
            assert!(read_all(&stored[..], codec).unwrap() == expected, "{codec}");
        }
    }

    /// Where to cut a stream: at every byte of both ends, and all over.
    fn cuts(length: usize) -> impl Iterator<Item = usize> {
        let edge = length.min(64);
        (0..edge)
            .chain((edge..length).step_by(997))
            .chain(length - edge..length)
    }

    #[test]
    fn a_stream_that_ends_early_is_an_error() {
        let sample = sample();
        for codec in Codec::ALL {
            let first = compress(&sample[..30_000], by_default(codec));
            let second = compress(&sample, by_default(codec));
            for cut in cuts(second.len()) {
                let single = read_all(&second[..cut], codec);
                let stored = [&first, &second[..cut]].concat();
                let double = read_all(&stored[..], codec);
                match codec {
                    Codec::None => {}
                    // Both ends may fall between two chunks.
                    Codec::Snappy => {
                        assert!(cut > 0 || single.is_err());
                        for result in [single, double] {
                            let kind = result.map_err(|error| error.kind());
                            assert!(matches!(kind, Ok(_) | Err(io::ErrorKind::UnexpectedEof)));
                        }
                    }
                    _ => {
                        let error = single.expect_err("the stream was cut");
                        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{codec} {cut}");
                        if cut > 0 {
                            let error = double.expect_err("the second stream was cut");
                            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{codec} {cut}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_stream_or_follows_one_is_invalid() {
        for codec in Codec::ALL {
            if codec == Codec::None {
                continue;
            }
            let noise = b"this is no compressed stream at all, whatever its name may say";
            let error = read_all(&noise[..], codec).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{codec}");
            let mut stored = compress(b"contents", by_default(codec));
            stored.extend_from_slice(noise);
            let error = read_all(&stored[..], codec).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{codec}");
        }
    }

    #[test]
    fn an_error_of_the_source_comes_through_and_stays() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::new(io::ErrorKind::ConnectionReset, "cable"))
            }
        }
        let sample = sample();
        for codec in Codec::ALL {
            let stored = compress(&sample, by_default(codec));
            for good in [0, 5, stored.len() / 2] {
                let source = stored[..good].chain(Broken);
                let mut reader = match decompressor(source, codec) {
                    Ok(reader) => reader,
                    Err(error) => panic!("{codec}: {error}"),
                };
                let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{codec}");
                assert_eq!(error.to_string(), "cable", "{codec}");
                assert!(reader.read(&mut [0]).is_err(), "{codec}");
            }
        }
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let sample = &sample()[..60_000];
        for codec in Codec::ALL {
            if codec == Codec::None {
                continue;
            }
            let stored = compress(sample, by_default(codec));
            for at in (20..stored.len() - 20).step_by(1009) {
                let mut changed = stored.clone();
                changed[at] ^= 0x10;
                let result = read_all(&changed[..], codec);
                assert!(result.is_err(), "{codec} at {at}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_are_read_or_refused(
            codec in proptest::sample::select(&Codec::ALL[..]),
            at in 0usize..200,
            noise in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut stored = compress(b"some contents, and again some contents", by_default(codec));
            stored.splice(at.min(stored.len()).., noise);
            let _ = read_all(&stored[..], codec);
        }
    }
}

//! Synchronous filters over bytes: compression, checksums, tar. Run on plain threads.
//!
//! Not here: files, stores, PostgreSQL.

pub mod compress;
pub mod decompress;
pub mod digest;
pub mod pieces;
pub mod tar;

use std::fmt;
use std::str::FromStr;

/// A compression format, in Barman's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Bytes as they are.
    None,
    /// gzip, one member.
    Gzip,
    /// bzip2, one stream.
    Bzip2,
    /// The .xz container. Barman reads it for WAL alone.
    Xz,
    /// snappy's framing format.
    Snappy,
    /// zstd, one frame. Barman 3.19 reads it for WAL alone.
    Zstd,
    /// One lz4 frame.
    Lz4,
}

impl Codec {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Gzip,
        Self::Bzip2,
        Self::Xz,
        Self::Snappy,
        Self::Zstd,
        Self::Lz4,
    ];

    /// The word users write.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Snappy => "snappy",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        }
    }

    /// What is added to an object's name, dot included; empty for none.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Bzip2 => ".bz2",
            Self::Xz => ".xz",
            Self::Snappy => ".snappy",
            Self::Zstd => ".zst",
            Self::Lz4 => ".lz4",
        }
    }

    /// Splits a known suffix off a name: `("a.tar", Gzip)` for `a.tar.gz`, `(name, None)` without one.
    pub fn split_suffix(name: &str) -> (&str, Self) {
        Self::ALL
            .into_iter()
            .filter(|codec| *codec != Self::None)
            .find_map(|codec| Some((name.strip_suffix(codec.suffix())?, codec)))
            .unwrap_or((name, Self::None))
    }

    /// Whether Barman 3.19 reads base backups in this codec.
    pub fn is_read_by_barman_in_base_backups(self) -> bool {
        !matches!(self, Self::Xz | Self::Zstd)
    }

    /// Lowest, default and highest level; `None` where the codec has no levels.
    pub fn levels(self) -> Option<(i32, i32, i32)> {
        match self {
            Self::None | Self::Snappy => None,
            Self::Gzip => Some((1, 6, 9)),
            Self::Bzip2 => Some((1, 5, 9)),
            Self::Xz => Some((0, 3, 9)),
            Self::Zstd => Some((-22, 3, 22)),
            Self::Lz4 => Some((0, 0, 12)),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A codec and how hard it tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    /// The format.
    pub codec: Codec,
    /// The level, within [`Codec::levels`]; the codec's default when absent.
    pub level: Option<i32>,
}

/// Text that is no compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// No such codec.
    #[error(
        "{word:?} is no codec: expected none, gzip, bzip2, xz, snappy, zstd or lz4, with :LEVEL if wanted"
    )]
    Codec {
        /// What was given.
        word: String,
    },
    /// A level that the codec has not.
    #[error("{level:?} is no level of {codec}: expected {expected}")]
    Level {
        /// The codec asked for.
        codec: Codec,
        /// What was given.
        level: String,
        /// What it takes.
        expected: String,
    },
}

impl Compression {
    /// No compression.
    pub const NONE: Self = Self {
        codec: Codec::None,
        level: None,
    };

    /// The level, or the codec's default; 0 where it has none.
    pub fn level_or_default(self) -> i32 {
        self.level
            .or(self.codec.levels().map(|(_, default, _)| default))
            .unwrap_or(0)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Some(level) => write!(f, "{}:{level}", self.codec),
            None => write!(f, "{}", self.codec),
        }
    }
}

impl FromStr for Compression {
    type Err = CompressionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (word, level) = text
            .split_once(':')
            .map_or((text, None), |(word, level)| (word, Some(level)));
        let codec = Codec::ALL
            .into_iter()
            .find(|codec| codec.as_str() == word)
            .ok_or_else(|| CompressionError::Codec {
                word: word.to_owned(),
            })?;
        let Some(level) = level else {
            return Ok(Self { codec, level: None });
        };
        let refuse = |expected: String| CompressionError::Level {
            codec,
            level: level.to_owned(),
            expected,
        };
        let Some((lowest, _, highest)) = codec.levels() else {
            return Err(refuse("no level".to_owned()));
        };
        match level.parse() {
            Ok(number) if (lowest..=highest).contains(&number) => Ok(Self {
                codec,
                level: Some(number),
            }),
            _ => Err(refuse(format!("a number from {lowest} to {highest}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressions_read_as_they_are_written() {
        for text in ["none", "gzip", "gzip:9", "zstd:-5", "lz4:0", "snappy"] {
            assert_eq!(text.parse::<Compression>().unwrap().to_string(), text);
        }
        for text in ["", "gz", "gzip:0", "gzip:", "snappy:1", "zstd:23", "none:0"] {
            assert!(text.parse::<Compression>().is_err(), "{text}");
        }
    }

    #[test]
    fn suffixes_are_split_off() {
        for (name, base, codec) in [
            ("a.gz", "a", Codec::Gzip),
            ("a", "a", Codec::None),
            ("a.tar.zst", "a.tar", Codec::Zstd),
        ] {
            assert_eq!(Codec::split_suffix(name), (base, codec));
        }
    }
}

//! Block references: which blocks of which relations a record changes.
//!
//! Source: `XLogRecordBlockHeader` and what follows it, src/include/access/xlogrecord.h,
//! PostgreSQL 13 to 18. Not here: the images of blocks themselves, and undoing their compression.

use std::fmt;

use crate::pgfile::wal::cursor::Cursor;

/// The highest number of a block reference; above are the markers of other parts.
const BLOCK_ID_MAX: u8 = 32;
const ID_MAIN_SHORT: u8 = 255;
const ID_MAIN_LONG: u8 = 254;
const ID_ORIGIN: u8 = 253;
const ID_TOP_LEVEL_XID: u8 = 252;

/// The bits of a block reference's flags, its fork in the lower half.
const FORK: u8 = 0x0F;
const HAS_IMAGE: u8 = 0x10;
const HAS_DATA: u8 = 0x20;
const WILL_INIT: u8 = 0x40;
const SAME_RELATION: u8 = 0x80;

/// The bit of an image's flags that is the same in all versions.
const IMAGE_HAS_HOLE: u8 = 0x01;

/// The files of a relation: PostgreSQL's `RelFileLocator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationFiles {
    /// The tablespace's OID.
    pub tablespace: u32,
    /// The database's OID; 0 for shared relations.
    pub database: u32,
    /// The number that the files are named by.
    pub relation: u32,
}

/// One of the files of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fork {
    /// The relation itself.
    Main,
    /// Its free space map.
    FreeSpace,
    /// Its visibility map.
    Visibility,
    /// What an unlogged relation is reset to.
    Init,
}

/// A block that a record changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockReference {
    /// Its number within the record.
    pub id: u8,
    /// The relation.
    pub files: RelationFiles,
    /// Which of its files.
    pub fork: Fork,
    /// The block, counted from 0 in that fork.
    pub block: u32,
    /// The block's image, if the record has one.
    pub image: Option<BlockImage>,
    /// The bytes of the change itself.
    pub data_bytes: u16,
    /// Whether replay makes the block anew.
    pub will_init: bool,
}

/// The image of a block in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockImage {
    /// Its length as it is stored.
    pub stored_bytes: u16,
    /// The zeros that were left out of it before it was compressed, where it is; 0 otherwise,
    /// when what the stored bytes lack of a block's size was left out.
    pub hole_bytes: u16,
    /// Where in the block what was left out lies.
    pub hole_offset: u16,
    /// What it is compressed with.
    pub compression: Option<ImageCompression>,
    /// Whether replay puts it in place; otherwise it only serves to check the outcome.
    pub is_applied: bool,
}

/// What images are compressed with: the values of `wal_compression`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageCompression {
    /// PostgreSQL's own, the only one up to 14.
    Pglz,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// One part of a body's headers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item {
    Block(BlockReference),
    Origin(u16),
    TopLevelXid(u32),
    /// So many bytes of main data, at the body's end.
    MainData(u32),
}

/// The headers of a body, and as an iterator those of them that are block references.
#[derive(Debug, Clone)]
pub struct BlockReferences<'a> {
    headers: Cursor<'a>,
    major: u32,
    /// The bytes that the headers read so far have announced.
    announced: usize,
    latest_id: Option<u8>,
    latest_files: Option<RelationFiles>,
}

impl<'a> BlockReferences<'a> {
    pub(super) fn new(body: &'a [u8], major: u32) -> Self {
        Self {
            headers: Cursor(body),
            major,
            announced: 0,
            latest_id: None,
            latest_files: None,
        }
    }

    /// The next header; `None` behind the last, or in the error what it is not.
    pub(super) fn item(&mut self) -> Result<Option<Item>, &'static str> {
        if self.headers.0.len() <= self.announced {
            return Ok(None);
        }
        let id = self.headers.u8().ok_or("header")?;
        let item = match id {
            0..=BLOCK_ID_MAX => return self.block(id).map(|block| Some(Item::Block(block))),
            ID_MAIN_SHORT => self.headers.u8().map(|bytes| Item::MainData(bytes.into())),
            ID_MAIN_LONG => self.headers.u32().map(Item::MainData),
            ID_ORIGIN => self.headers.u16().map(Item::Origin),
            ID_TOP_LEVEL_XID if self.major >= 14 => self.headers.u32().map(Item::TopLevelXid),
            _ => return Err("known kind of header"),
        };
        if let Some(Item::MainData(bytes)) = item {
            self.announce(usize::try_from(bytes).map_err(|_| "whole data")?)?;
        }
        item.map(Some).ok_or("whole header")
    }

    /// The last `bytes` of the body, when the headers are all read and announced what is there.
    pub(super) fn main_data(&self, bytes: u32) -> Option<&'a [u8]> {
        let rest = self.headers.0;
        let begin = rest.len().checked_sub(usize::try_from(bytes).ok()?)?;
        (rest.len() == self.announced).then(|| &rest[begin..])
    }

    fn announce(&mut self, bytes: usize) -> Result<(), &'static str> {
        self.announced = self.announced.checked_add(bytes).ok_or("whole data")?;
        Ok(())
    }

    fn block(&mut self, id: u8) -> Result<BlockReference, &'static str> {
        if self.latest_id.is_some_and(|latest| latest >= id) {
            return Err("block references in order");
        }
        self.latest_id = Some(id);
        let whole = "whole block reference";
        let flags = self.headers.u8().ok_or(whole)?;
        let data_bytes = self.headers.u16().ok_or(whole)?;
        if (flags & HAS_DATA != 0) != (data_bytes != 0) {
            return Err("data of a block where it says so");
        }
        self.announce(data_bytes.into())?;
        let mut image = None;
        if flags & HAS_IMAGE != 0 {
            let found = self.image().ok_or("whole image of a block")?;
            self.announce(found.stored_bytes.into())?;
            image = Some(found);
        }
        if flags & SAME_RELATION == 0 {
            self.latest_files = Some(RelationFiles::read(&mut self.headers).ok_or(whole)?);
        }
        Ok(BlockReference {
            id,
            files: self.latest_files.ok_or("relation before the same one")?,
            fork: Fork::new(flags & FORK).ok_or("known fork")?,
            block: self.headers.u32().ok_or(whole)?,
            image,
            data_bytes,
            will_init: flags & WILL_INIT != 0,
        })
    }

    fn image(&mut self) -> Option<BlockImage> {
        let stored_bytes = self.headers.u16()?;
        let hole_offset = self.headers.u16()?;
        let flags = ImageFlags {
            bits: self.headers.u8()?,
            major: self.major,
        };
        let compression = flags.compression();
        let mut hole_bytes = 0;
        if compression.is_some() && flags.bits & IMAGE_HAS_HOLE != 0 {
            hole_bytes = self.headers.u16()?;
        }
        Some(BlockImage {
            stored_bytes,
            hole_bytes,
            hole_offset,
            compression,
            is_applied: flags.is_applied(),
        })
    }
}

impl Iterator for BlockReferences<'_> {
    type Item = BlockReference;

    fn next(&mut self) -> Option<BlockReference> {
        loop {
            // An error cannot be: the headers were all read once when the body was taken apart.
            if let Item::Block(block) = self.item().ok()?? {
                return Some(block);
            }
        }
    }
}

/// The `bimg_info` of an image: 15 moved the bits when it brought further compressions.
struct ImageFlags {
    bits: u8,
    major: u32,
}

impl ImageFlags {
    fn is_applied(&self) -> bool {
        let bit = if self.major >= 15 { 0x02 } else { 0x04 };
        self.bits & bit != 0
    }

    fn compression(&self) -> Option<ImageCompression> {
        let kinds: &[_] = if self.major >= 15 {
            &[
                (0x04, ImageCompression::Pglz),
                (0x08, ImageCompression::Lz4),
                (0x10, ImageCompression::Zstd),
            ]
        } else {
            &[(0x02, ImageCompression::Pglz)]
        };
        let mut set = kinds.iter().filter(|(bit, _)| self.bits & bit != 0);
        set.next().map(|(_, kind)| *kind)
    }
}

impl RelationFiles {
    pub(super) fn read(fields: &mut Cursor<'_>) -> Option<Self> {
        Some(Self {
            tablespace: fields.u32()?,
            database: fields.u32()?,
            relation: fields.u32()?,
        })
    }
}

impl Fork {
    fn new(number: u8) -> Option<Self> {
        [Self::Main, Self::FreeSpace, Self::Visibility, Self::Init]
            .get(usize::from(number))
            .copied()
    }
}

impl fmt::Display for Fork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Main => "main",
            Self::FreeSpace => "fsm",
            Self::Visibility => "vm",
            Self::Init => "init",
        })
    }
}

impl fmt::Display for RelationFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.relation)
    }
}

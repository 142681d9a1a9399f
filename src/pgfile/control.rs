//! `global/pg_control`: who a cluster is and where its log stands.
//!
//! Source: `ControlFileData` and `CheckPoint`, `src/include/catalog/pg_control.h`, PostgreSQL
//! 13 to 18, as laid out by 64-bit compilers. Version 1300 serves 13 to 16; 1700, of 17, has a field
//! more where there was padding, and 1800, of 18, differs behind the fields read here alone. Not here: writing it.

use std::fmt;

use crate::domain::lsn::Lsn;
use crate::domain::segment::SegmentSize;
use crate::domain::timeline::TimelineId;
use crate::fault::{Fault, Kind};

/// The bytes that a reader must have: the fields and their checksum. The file has 8192.
pub const CONTROL_BYTES_MIN: usize = 296;

/// Where each version keeps its checksum, and so how much of the file that covers.
pub const CHECKSUM_OFFSETS: [(u32, usize); 3] = [(1300, 288), (1700, 288), (1800, 292)];

/// What a cluster was doing when the file was last written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// Being made.
    StartingUp,
    /// Shut down cleanly, as a primary.
    ShutDown,
    /// Shut down cleanly, as a standby.
    ShutDownInRecovery,
    /// Shutting down.
    ShuttingDown,
    /// Recovering from a crash.
    InCrashRecovery,
    /// Recovering from an archive, or a running standby.
    InArchiveRecovery,
    /// Running as a primary, or crashed as one.
    InProduction,
}

/// What the control file says, as far as backups care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// The identity given by initdb, shared by all standbys and restored copies.
    pub system_id: u64,
    /// The version of the file's format: 1300, 1700 or 1800.
    pub control_version: u32,
    /// The version of the system catalogs, such as 202209061.
    pub catalog_version: u32,
    /// What the cluster was doing.
    pub state: ClusterState,
    /// Where the latest checkpoint's record lies.
    pub checkpoint_lsn: Lsn,
    /// Where recovery from that checkpoint starts to read.
    pub redo_lsn: Lsn,
    /// The timeline of the latest checkpoint.
    pub timeline: TimelineId,
    /// The timeline before it; the same one when the checkpoint was not the start of a timeline.
    pub previous_timeline: TimelineId,
    /// The point that recovery must reach before the files are consistent; 0/0 outside recovery.
    pub min_recovery_lsn: Lsn,
    /// The timeline of that point; `None` outside recovery.
    pub min_recovery_timeline: Option<TimelineId>,
    /// Where the backup that is being recovered from began; 0/0 when none is.
    pub backup_start_lsn: Lsn,
    /// Where the log of the standby's backup that is being recovered from must have been read to.
    pub backup_end_lsn: Lsn,
    /// Whether recovery waits for the record of the backup's end.
    pub is_backup_end_required: bool,
    /// The size of a page in data files, in bytes.
    pub block_size: u32,
    /// The size of a page of the log, in bytes.
    pub wal_block_size: u32,
    /// The size of a segment of the log.
    pub segment_size: SegmentSize,
    /// Whether data pages carry checksums.
    pub has_data_checksums: bool,
}

/// Bytes that are no control file of a version known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlFileError {
    /// There is less of it than its fields take.
    #[error("pg_control has {length} bytes, expected at least {CONTROL_BYTES_MIN}")]
    Short {
        /// How many there are.
        length: usize,
    },
    /// Its format is not known.
    #[error("pg_control is of format {version}, expected 1300, 1700 or 1800 (PostgreSQL 13 to 18)")]
    Version {
        /// What it says.
        version: u32,
    },
    /// Its checksum is not that of its bytes.
    #[error("pg_control has checksum {found:08X} but its bytes make {expected:08X}")]
    Checksum {
        /// What its bytes make.
        expected: u32,
        /// What it says.
        found: u32,
    },
    /// A field holds what it cannot.
    #[error("pg_control holds {value} as its {field}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is there.
        value: u32,
    },
}

impl Fault for ControlFileError {
    fn kind(&self) -> Kind {
        match self {
            Self::Version { .. } => Kind::Unsupported,
            Self::Short { .. } | Self::Checksum { .. } | Self::Field { .. } => Kind::Corrupt,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Version { .. } => {
                "Use a release of Cellarman that knows this version of PostgreSQL.".to_owned()
            }
            _ => self.kind().hint().to_owned(),
        }
    }
}

impl ControlFile {
    /// Reads the file, or a beginning of it of at least [`CONTROL_BYTES_MIN`] bytes.
    ///
    /// A live server rewrites the file in place: a checksum that fails may be a read that met
    /// a write, and the file is to be read again before it is called corrupt.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlFileError> {
        let fields = Fields(bytes.first_chunk().ok_or(ControlFileError::Short {
            length: bytes.len(),
        })?);
        let control_version = fields.u32(8);
        let checksum_offset = CHECKSUM_OFFSETS
            .into_iter()
            .find(|(version, _)| *version == control_version)
            .map(|(_, offset)| offset)
            .ok_or(ControlFileError::Version {
                version: control_version,
            })?;
        let expected = crc32c::crc32c(&fields.0[..checksum_offset]);
        let found = fields.u32(checksum_offset);
        if expected != found {
            return Err(ControlFileError::Checksum { expected, found });
        }
        let segment_bytes = fields.u32(228);
        Ok(Self {
            system_id: fields.u64(0),
            control_version,
            catalog_version: fields.u32(12),
            state: ClusterState::from_number(fields.u32(16))?,
            checkpoint_lsn: fields.lsn(32),
            redo_lsn: fields.lsn(40),
            timeline: fields.timeline(48, "timeline")?,
            previous_timeline: fields.timeline(52, "previous timeline")?,
            min_recovery_lsn: fields.lsn(136),
            min_recovery_timeline: TimelineId::new(fields.u32(144)),
            backup_start_lsn: fields.lsn(152),
            backup_end_lsn: fields.lsn(160),
            is_backup_end_required: fields.0[168] != 0,
            block_size: fields.u32(216),
            wal_block_size: fields.u32(224),
            segment_size: SegmentSize::new(u64::from(segment_bytes)).map_err(|_| {
                ControlFileError::Field {
                    field: "WAL segment size",
                    value: segment_bytes,
                }
            })?,
            has_data_checksums: fields.u32(252) != 0,
        })
    }

    /// Whether this can be the file of a running server, a standby or not, whose last checkpoint
    /// began at `redo` or later. A standby of it, or an older copy, has the same identity.
    pub fn is_of_running(&self, is_standby: bool, redo: Lsn) -> bool {
        let expected = if is_standby {
            ClusterState::InArchiveRecovery
        } else {
            ClusterState::InProduction
        };
        self.state == expected && self.redo_lsn >= redo
    }
}

impl ClusterState {
    fn from_number(number: u32) -> Result<Self, ControlFileError> {
        Ok(match number {
            0 => Self::StartingUp,
            1 => Self::ShutDown,
            2 => Self::ShutDownInRecovery,
            3 => Self::ShuttingDown,
            4 => Self::InCrashRecovery,
            5 => Self::InArchiveRecovery,
            6 => Self::InProduction,
            value => {
                return Err(ControlFileError::Field {
                    field: "state",
                    value,
                });
            }
        })
    }

    /// Whether the files are whole as they lie, without any log.
    pub fn is_clean(self) -> bool {
        matches!(self, Self::ShutDown | Self::ShutDownInRecovery)
    }
}

impl fmt::Display for ClusterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::StartingUp => "starting up",
            Self::ShutDown => "shut down",
            Self::ShutDownInRecovery => "shut down in recovery",
            Self::ShuttingDown => "shutting down",
            Self::InCrashRecovery => "in crash recovery",
            Self::InArchiveRecovery => "in archive recovery",
            Self::InProduction => "in production",
        })
    }
}

/// Little-endian fields at offsets that lie within.
struct Fields<'a>(&'a [u8; CONTROL_BYTES_MIN]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, offset: usize) -> [u8; N] {
        self.0[offset..]
            .first_chunk()
            .copied()
            .expect("offsets are constants within the fields")
    }

    fn u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.bytes(offset))
    }

    fn u64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.bytes(offset))
    }

    fn lsn(&self, offset: usize) -> Lsn {
        Lsn::new(self.u64(offset))
    }

    fn timeline(&self, offset: usize, field: &'static str) -> Result<TimelineId, ControlFileError> {
        let value = self.u32(offset);
        TimelineId::new(value).ok_or(ControlFileError::Field { field, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RUNNING: &[u8] = include_bytes!("../../tests/fixtures/postgresql/pg_control-15");
    const STANDBY: &[u8] = include_bytes!("../../tests/fixtures/postgresql/pg_control-15-standby");
    const STOPPED: &[u8] =
        include_bytes!("../../tests/fixtures/postgresql/pg_control-15-shut-down");
    const RUNNING_13: &[u8] = include_bytes!("../../tests/fixtures/postgresql/pg_control-13");
    const RUNNING_17: &[u8] = include_bytes!("../../tests/fixtures/postgresql/pg_control-17");
    const RUNNING_18: &[u8] = include_bytes!("../../tests/fixtures/postgresql/pg_control-18");

    /// What `pg_controldata` says of `pg_control-15`.
    fn running() -> ControlFile {
        ControlFile {
            system_id: 7_710_535_714_366_482_761,
            control_version: 1300,
            catalog_version: 202_209_061,
            state: ClusterState::InProduction,
            checkpoint_lsn: "0/2000060".parse().unwrap(),
            redo_lsn: "0/2000028".parse().unwrap(),
            timeline: TimelineId::FIRST,
            previous_timeline: TimelineId::FIRST,
            min_recovery_lsn: Lsn::new(0),
            min_recovery_timeline: None,
            backup_start_lsn: Lsn::new(0),
            backup_end_lsn: Lsn::new(0),
            is_backup_end_required: false,
            block_size: 8192,
            wal_block_size: 8192,
            segment_size: SegmentSize::DEFAULT,
            has_data_checksums: true,
        }
    }

    /// A changed file with the checksum that the change makes.
    fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
        let checksum = crc32c::crc32c(&bytes[..288]).to_le_bytes();
        bytes[288..292].copy_from_slice(&checksum);
        bytes
    }

    #[test]
    fn control_files_say_what_pg_controldata_says() {
        assert_eq!(ControlFile::parse(RUNNING).unwrap(), running());
        let standby = ControlFile {
            state: ClusterState::InArchiveRecovery,
            checkpoint_lsn: "0/3009430".parse().unwrap(),
            redo_lsn: "0/30093F8".parse().unwrap(),
            min_recovery_lsn: "0/30094A8".parse().unwrap(),
            min_recovery_timeline: Some(TimelineId::FIRST),
            ..running()
        };
        assert_eq!(ControlFile::parse(STANDBY).unwrap(), standby);
        let stopped = ControlFile {
            state: ClusterState::ShutDown,
            checkpoint_lsn: "0/4000028".parse().unwrap(),
            redo_lsn: "0/4000028".parse().unwrap(),
            ..running()
        };
        assert_eq!(ControlFile::parse(STOPPED).unwrap(), stopped);
        let running_18 = ControlFile {
            system_id: 7_710_535_719_773_940_117,
            control_version: 1800,
            catalog_version: 202_506_291,
            checkpoint_lsn: "0/1000080".parse().unwrap(),
            redo_lsn: "0/1000028".parse().unwrap(),
            segment_size: SegmentSize::new(4 << 20).unwrap(),
            ..running()
        };
        assert_eq!(ControlFile::parse(RUNNING_18).unwrap(), running_18);
    }

    #[test]
    fn those_of_13_and_17_say_what_their_pg_controldata_says() {
        let running_13 = ControlFile {
            system_id: 7_710_585_869_025_126_542,
            catalog_version: 202_007_201,
            ..running()
        };
        assert_eq!(ControlFile::parse(RUNNING_13).unwrap(), running_13);
        let running_17 = ControlFile {
            system_id: 7_710_585_900_886_530_330,
            control_version: 1700,
            catalog_version: 202_406_281,
            checkpoint_lsn: "0/2000080".parse().unwrap(),
            ..running()
        };
        assert_eq!(ControlFile::parse(RUNNING_17).unwrap(), running_17);
    }

    #[test]
    fn the_catalog_version_is_that_of_the_table_of_versions() {
        for (bytes, number) in [
            (RUNNING_13, 130_000),
            (RUNNING, 150_000),
            (RUNNING_17, 170_000),
            (RUNNING_18, 180_000),
        ] {
            let version = crate::domain::version::ServerVersion::from_number(number).unwrap();
            assert_eq!(
                ControlFile::parse(bytes).unwrap().catalog_version,
                version.catalog
            );
        }
    }

    #[test]
    fn a_cluster_without_data_checksums_says_so() {
        let mut bytes = RUNNING.to_vec();
        bytes[252] = 0;
        let control = ControlFile::parse(&with_checksum(bytes)).unwrap();
        assert!(!control.has_data_checksums);
    }

    #[test]
    fn a_control_file_that_cannot_be_trusted_is_refused() {
        let change = |at: usize, byte: u8| {
            let mut bytes = RUNNING.to_vec();
            bytes[at] = byte;
            bytes
        };
        let short = ControlFile::parse(&RUNNING[..295]).unwrap_err();
        assert_eq!(short, ControlFileError::Short { length: 295 });
        let version = ControlFile::parse(&change(8, 0)).unwrap_err();
        assert_eq!(version, ControlFileError::Version { version: 0x500 });
        assert_eq!(version.kind(), Kind::Unsupported);
        let checksum = ControlFile::parse(&change(100, 1)).unwrap_err();
        assert!(matches!(checksum, ControlFileError::Checksum { .. }));
        for (at, byte, field) in [
            (16, 7, "state"),
            (48, 0, "timeline"),
            (228, 1, "WAL segment size"),
        ] {
            let error = ControlFile::parse(&with_checksum(change(at, byte))).unwrap_err();
            assert!(
                matches!(error, ControlFileError::Field { field: named, .. } if named == field)
            );
            assert_eq!(error.kind(), Kind::Corrupt);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(at in 0usize..288, byte: u8, length in 0usize..=512) {
            let mut bytes = RUNNING.to_vec();
            bytes[at] = byte;
            let _ = ControlFile::parse(&bytes[..length]);
            let _ = ControlFile::parse(&with_checksum(bytes));
        }
    }

    #[test]
    fn only_the_file_of_the_server_itself_is_that_of_a_running_one() {
        for (file, is_standby, later, expected) in [
            (RUNNING_18, false, 0, true),
            // A copy from before the server's checkpoint.
            (RUNNING_18, false, 1, false),
            (RUNNING_18, true, 0, false),
            (STANDBY, true, 0, true),
            (STANDBY, true, 1, false),
            // The server is the primary, and this is its standby's.
            (STANDBY, false, 0, false),
            (STOPPED, false, 0, false),
        ] {
            let control = ControlFile::parse(file).unwrap();
            let redo = Lsn::new(control.redo_lsn.to_u64() + later);
            let is_of_running = control.is_of_running(is_standby, redo);
            assert_eq!(is_of_running, expected, "{control:?} {is_standby} {redo}");
        }
    }
}

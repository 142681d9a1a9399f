//! Pages of data files: their LSN and their checksum.
//!
//! Source: `PageHeaderData`, src/include/storage/bufpage.h, and the algorithm that
//! `src/include/storage/checksum_impl.h` describes, PostgreSQL 18; the same since 9.3. The page
//! is read as rows of 32 numbers, and each column is hashed on its own by a variant of FNV-1a,
//! so that a compiler makes vector instructions of it. Not here: which files have pages.

use crate::domain::lsn::Lsn;

/// The columns, and numbers of 32 bits in a row.
const COLUMNS: usize = 32;
const ROW_BYTES: usize = 4 * COLUMNS;
const PRIME: u32 = 0x0100_0193;
/// `pd_checksum` is the lower half of this column of the first row.
const CHECKSUM_COLUMN: usize = 2;
const HEADER_BYTES: usize = 24;

/// What each column starts from; chosen at random by PostgreSQL's authors and part of the format.
const OFFSETS: [u32; COLUMNS] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// What a page's checksum says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageState {
    /// All zeros: allocated and not yet written. It has no checksum.
    New,
    /// The checksum is that of the bytes.
    Valid,
    /// The bytes are not those that were written; or, in a live data directory, a write was met.
    Invalid {
        /// What the bytes make.
        expected: u16,
        /// What the page says.
        found: u16,
        /// The page's LSN, as it stands there.
        lsn: Lsn,
    },
}

/// Checks a page of a cluster with data checksums.
///
/// `block_number` counts pages from the start of the relation's fork, not of the segment file:
/// page 0 of `16384.1` is page 131072. A page that is no page by its length (not a multiple of
/// 128 bytes) is `Invalid`.
pub fn verify(page: &[u8], block_number: u32) -> PageState {
    let Some(header) = page.first_chunk::<HEADER_BYTES>() else {
        return PageState::Invalid {
            expected: 0,
            found: 0,
            lsn: Lsn::new(0),
        };
    };
    let upper = u16::from_le_bytes([header[14], header[15]]);
    if upper == 0 && page.iter().all(|byte| *byte == 0) {
        return PageState::New;
    }
    let expected = checksum(page, block_number);
    let found = u16::from_le_bytes([header[8], header[9]]);
    // A page without an upper bound has not been initialized, and may only be zeros.
    if expected == found && upper != 0 && page.len().is_multiple_of(ROW_BYTES) {
        return PageState::Valid;
    }
    PageState::Invalid {
        expected,
        found,
        lsn: lsn(page),
    }
}

/// The LSN of the last change to a page; 0/0 for less than a page's header.
pub fn lsn(page: &[u8]) -> Lsn {
    let half = |at: usize| {
        page.get(at..at + 4)
            .and_then(|bytes| bytes.first_chunk())
            .map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)))
    };
    Lsn::new(half(0) << 32 | half(4))
}

/// The checksum that a page should carry; bytes behind the last whole row are left out.
pub fn checksum(page: &[u8], block_number: u32) -> u16 {
    let mut sums = OFFSETS;
    let (rows, _) = page.as_chunks::<ROW_BYTES>();
    let mut rows = rows.iter();
    if let Some(first) = rows.next() {
        let mut row = numbers(first);
        row[CHECKSUM_COLUMN] &= 0xFFFF_0000;
        mix(&mut sums, &row);
    }
    for row in rows {
        mix(&mut sums, &numbers(row));
    }
    for _ in 0..2 {
        mix(&mut sums, &[0; COLUMNS]);
    }
    let folded = sums.iter().fold(0, |all, sum| all ^ sum) ^ block_number;
    u16::try_from(folded % 65_535 + 1).expect("a remainder of 65535, and one")
}

#[inline]
fn numbers(row: &[u8; ROW_BYTES]) -> [u32; COLUMNS] {
    let (words, _) = row.as_chunks::<4>();
    std::array::from_fn(|column| u32::from_le_bytes(words[column]))
}

#[inline]
fn mix(sums: &mut [u32; COLUMNS], row: &[u32; COLUMNS]) {
    for (sum, value) in sums.iter_mut().zip(row) {
        let mixed = *sum ^ value;
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAP: &[u8] = include_bytes!("../../tests/fixtures/postgresql/page-15-heap-100");
    const PAGES: [(&[u8], u32); 5] = [
        (HEAP, 100),
        (
            include_bytes!("../../tests/fixtures/postgresql/page-15-btree-3"),
            3,
        ),
        (
            include_bytes!("../../tests/fixtures/postgresql/page-15-gin-10"),
            10,
        ),
        (
            include_bytes!("../../tests/fixtures/postgresql/page-15-fsm-2"),
            2,
        ),
        (
            include_bytes!("../../tests/fixtures/postgresql/page-18-heap-7"),
            7,
        ),
    ];

    #[test]
    fn real_pages_are_valid_where_they_belong() {
        for (page, block_number) in PAGES {
            assert_eq!(verify(page, block_number), PageState::Valid);
            let elsewhere = verify(page, block_number + 1);
            assert!(matches!(elsewhere, PageState::Invalid { .. }));
        }
    }

    #[test]
    fn a_page_says_who_changed_it_last() {
        let PageState::Invalid { lsn: said, .. } = verify(HEAP, 0) else {
            panic!("block 100 is not block 0");
        };
        assert_eq!(said, lsn(HEAP));
        assert!(
            said > Lsn::new(1 << 24) && said < Lsn::new(1 << 26),
            "{said}"
        );
    }

    #[test]
    fn zeros_are_a_new_page_and_almost_zeros_are_not() {
        let mut page = [0; 8192];
        assert_eq!(verify(&page, 5), PageState::New);
        page[8000] = 1;
        assert!(matches!(verify(&page, 5), PageState::Invalid { .. }));
        // Even with the checksum of its bytes: no page is written before it is initialized.
        let own = checksum(&page, 5);
        page[8..10].copy_from_slice(&own.to_le_bytes());
        assert!(matches!(verify(&page, 5), PageState::Invalid { .. }));
    }

    #[test]
    fn what_is_no_page_by_its_length_is_invalid() {
        for length in [0, 23, 24, 100, 8191] {
            let state = verify(&HEAP[..length], 100);
            assert!(matches!(state, PageState::Invalid { .. }), "{length}");
        }
        assert_eq!(lsn(&HEAP[..7]), Lsn::new(lsn(HEAP).to_u64() & !0xFFFF_FFFF));
    }

    #[test]
    fn a_flipped_bit_is_found() {
        for (page, block_number) in PAGES {
            for bit in (0..page.len() * 8).step_by(257) {
                let mut page = page.to_vec();
                page[bit / 8] ^= 1 << (bit % 8);
                let state = verify(&page, block_number);
                assert!(matches!(state, PageState::Invalid { .. }), "{bit}");
            }
        }
    }

    proptest! {
        #[test]
        fn other_page_sizes_have_checksums_too(shift in 9u32..16, byte in 1u8.., block_number: u32) {
            let mut page = vec![byte; 1 << shift];
            let own = checksum(&page, block_number);
            page[8..10].copy_from_slice(&own.to_le_bytes());
            prop_assert_eq!(verify(&page, block_number), PageState::Valid);
        }
    }
}

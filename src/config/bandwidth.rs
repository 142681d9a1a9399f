//! Limits on bandwidth as users write them.
//!
//! Not here: keeping to them (`store::rate`).

use std::num::NonZeroU64;

/// Bytes a second; k, M and G count 1024, with or without iB behind them.
pub fn parse(text: &str) -> Result<NonZeroU64, String> {
    let (digits, factor) = match text.trim_end_matches("iB").split_at_checked(
        text.find(|character: char| !character.is_ascii_digit())
            .unwrap_or(text.len()),
    ) {
        Some((digits, "")) => (digits, 1),
        Some((digits, "k" | "K")) => (digits, 1 << 10),
        Some((digits, "M")) => (digits, 1 << 20),
        Some((digits, "G")) => (digits, 1 << 30),
        _ => ("", 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| NonZeroU64::new(number.checked_mul(factor)?))
        .ok_or_else(|| "expected a number of bytes a second, as in 50M".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidths_have_units_of_1024() {
        for (text, bytes) in [
            ("1000", Some(1000)),
            ("50M", Some(50 << 20)),
            ("50MiB", Some(50 << 20)),
            ("2k", Some(2048)),
            ("1G", Some(1 << 30)),
            ("0", None),
            ("", None),
            ("M", None),
            ("5X", None),
            ("99999999999999999999G", None),
        ] {
            assert_eq!(parse(text).ok().map(NonZeroU64::get), bytes, "{text}");
        }
    }
}

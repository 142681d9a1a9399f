//! Sizes, times and durations as people read them.

use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};

/// A size with three digits or so: `512 B`, `1.4 MiB`, `23.0 GiB`.
#[expect(
    clippy::cast_precision_loss,
    clippy::as_conversions,
    reason = "three digits are shown"
)]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// So many things: `1 backup`, `2 backups`, `0 WAL files`.
pub fn count(count: u64, thing: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{s}")
}

/// A time in UTC to the second, with its zone: `2026-11-21 05:43:47 UTC`.
pub fn time<Zone: TimeZone>(time: &DateTime<Zone>) -> String {
    time.with_timezone(&Utc)
        .format("%Y-%m-%d %H:%M:%S UTC")
        .to_string()
}

/// A duration as its two largest units: `0.4 s`, `42.0 s`, `3 min 20 s`, `2 h 5 min`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (16 << 20, "16.0 MiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        let counts = [0, 1, 2].map(|number| count(number, "backup"));
        assert_eq!(counts, ["0 backups", "1 backup", "2 backups"]);
        for (millis, text) in [
            (420, "0.4 s"),
            (59_900, "59.9 s"),
            (200_000, "3 min 20 s"),
            (7_500_000, "2 h 5 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }
}

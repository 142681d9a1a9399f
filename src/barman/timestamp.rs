//! Moments as `backup.info` holds them: `2026-11-21 05:43:47.841538+00:00`, and as other writers put them.
//!
//! Not here: times that users type.

use chrono::{DateTime, FixedOffset, NaiveDateTime, Offset, TimeZone, Utc};

/// A moment as Python's `str` prints it: no fraction where it is zero, microseconds otherwise.
pub fn print(moment: DateTime<FixedOffset>) -> String {
    let has_fraction = moment.timestamp_subsec_micros() != 0;
    let fraction = if has_fraction { "%.6f" } else { "" };
    moment
        .format(&format!("%Y-%m-%d %H:%M:%S{fraction}%:z"))
        .to_string()
}

/// Reads a moment in Barman's own shape, in ISO 8601 or in C's `ctime`.
///
/// One without a zone is taken as UTC: the zone of the host that wrote it is not known.
pub fn parse(text: &str) -> Option<DateTime<FixedOffset>> {
    let text = text.trim();
    parse_ctime(text).or_else(|| parse_iso(text))
}

fn parse_ctime(text: &str) -> Option<DateTime<FixedOffset>> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (date, zone) = match words.as_slice() {
        [weekday, month, day, time, year] => ([*weekday, *month, *day, *time, *year], "UTC"),
        [weekday, month, day, time, zone, year] => ([*weekday, *month, *day, *time, *year], *zone),
        _ => return None,
    };
    let naive = NaiveDateTime::parse_from_str(&date.join(" "), "%a %b %e %H:%M:%S %Y").ok()?;
    at_zone(naive, parse_zone(zone)?)
}

fn parse_iso(text: &str) -> Option<DateTime<FixedOffset>> {
    let (date, rest) = text.split_once([' ', 'T']).unwrap_or((text, "00:00:00"));
    let is_zone = |c: char| !(c.is_ascii_digit() || matches!(c, ':' | '.' | ','));
    let zone_at = rest.find(is_zone).unwrap_or(rest.len());
    let (time, zone) = rest.split_at(zone_at);
    let time = time.replace(',', ".");
    let shape = match time.matches(':').count() {
        1 => "%Y-%m-%d %H:%M",
        _ => "%Y-%m-%d %H:%M:%S%.f",
    };
    let naive = NaiveDateTime::parse_from_str(&format!("{date} {time}"), shape).ok()?;
    at_zone(naive, parse_zone(zone)?)
}

fn at_zone(naive: NaiveDateTime, zone: FixedOffset) -> Option<DateTime<FixedOffset>> {
    zone.from_local_datetime(&naive).single()
}

/// `+05:30`, `+0530`, `+05`, `Z`, `UTC`, `GMT` or nothing.
fn parse_zone(text: &str) -> Option<FixedOffset> {
    let text = text.trim();
    if matches!(text, "" | "Z" | "z" | "UTC" | "GMT") {
        return Some(Utc.fix());
    }
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let digits = digits.replace(':', "");
    let is_zone = matches!(digits.len(), 2 | 4 | 6) && digits.bytes().all(|b| b.is_ascii_digit());
    let part = |at: usize| -> i32 {
        digits
            .get(at..at + 2)
            .and_then(|part| part.parse().ok())
            .unwrap_or(0)
    };
    is_zone
        .then(|| FixedOffset::east_opt(sign * (part(0) * 3600 + part(2) * 60 + part(4))))
        .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn moments_read_as_they_are_printed(micros in 0i64..7_000_000_000_000_000, minutes in -840i32..=840) {
            let zone = FixedOffset::east_opt(minutes * 60).unwrap();
            let moment = DateTime::from_timestamp_micros(micros).unwrap().with_timezone(&zone);
            let read = parse(&print(moment)).unwrap();
            prop_assert_eq!(read, moment);
            prop_assert_eq!(read.offset(), moment.offset());
        }

        #[test]
        fn no_text_is_a_panic(text in "[-+0-9:. TZUCSat Nov,é]{0,40}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn the_shapes_of_other_writers_are_read() {
        for (text, printed) in [
            (
                "2026-11-21 05:43:47.841538+00:00",
                "2026-11-21 05:43:47.841538+00:00",
            ),
            (
                "2026-11-21 11:38:57.088652+05:30",
                "2026-11-21 11:38:57.088652+05:30",
            ),
            ("2026-11-21 05:43:47+00:00", "2026-11-21 05:43:47+00:00"),
            ("2026-11-21 05:43:47", "2026-11-21 05:43:47+00:00"),
            ("2026-11-21T05:43:47Z", "2026-11-21 05:43:47+00:00"),
            (
                "2026-11-21T05:43:47.5+0200",
                "2026-11-21 05:43:47.500000+02:00",
            ),
            ("2026-11-21 05:43:47-03", "2026-11-21 05:43:47-03:00"),
            ("2026-11-21 05:43:47 UTC", "2026-11-21 05:43:47+00:00"),
            ("2026-11-21 05:43", "2026-11-21 05:43:00+00:00"),
            ("2026-11-21", "2026-11-21 00:00:00+00:00"),
            ("Sat Nov 21 05:43:47 2026", "2026-11-21 05:43:47+00:00"),
            ("Sun Nov  1 05:43:47 2026", "2026-11-01 05:43:47+00:00"),
            ("Sat Nov 21 05:43:47 UTC 2026", "2026-11-21 05:43:47+00:00"),
        ] {
            assert_eq!(parse(text).map(print).as_deref(), Some(printed), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-13-01 00:00:00",
            "2026-11-21 05:43:47+99:00",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

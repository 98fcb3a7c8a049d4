//! A line of the CSV by which visits move: a counter's name, empty for `/`, and a time, empty where
//! it is not known. `COPY` reads and writes the same.

use std::io::Write as _;
use std::ops::RangeInclusive;
use std::time::{Duration, UNIX_EPOCH};

use crate::logging::rfc3339;

/// The first line, without its end.
pub(in crate::visits) const HEADER: &str = "contador,momento";
/// As some programs write it.
pub(super) const QUOTED_HEADER: &str = "\"contador\",\"momento\"";
/// What an error tells that a line takes.
pub(super) const TAKES: &str = "NAME,TIME such as blog,2026-01-31T12:00:00.000000Z: \
     the name empty for /, the time empty where it is not known, otherwise from 1970 to 9999 \
     and with Z or an offset";

/// The resolution of both stores.
const MICROSECONDS: i64 = 1_000_000;
/// The end of 9999: RFC 3339 has years of four digits.
const LAST: i64 = 253_402_300_799_999_999;
/// `2026-01-31T12:00:00`
const DATE_AND_TIME: usize = 19;
/// What `rfc3339` appends to that: `.000Z`.
const MILLISECONDS: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Empty for `/`.
    pub(super) name: &'a str,
    /// Microseconds since 1970, more than 0; `None` where it is not known.
    pub(super) moment: Option<i64>,
}

/// Appends a line with its end.
pub(in crate::visits) fn write_line(name: &str, moment: Option<u64>, into: &mut Vec<u8>) {
    into.extend_from_slice(name.as_bytes());
    into.push(b',');
    if let Some(moment) = moment {
        let text = rfc3339(UNIX_EPOCH + Duration::from_micros(moment));
        let seconds = &text[..text.len() - MILLISECONDS];
        // Writing to a vector cannot fail.
        let _ = write!(into, "{seconds}.{:06}Z", moment % 1_000_000);
    }
    into.push(b'\n');
}

/// Reads a line without its end; `None` where it is not [`TAKES`].
pub(super) fn read_line(line: &str) -> Option<Line<'_>> {
    let (name, time) = line.split_once(',')?;
    let (name, time) = (unquoted(name)?, unquoted(time)?);
    let moment = match time {
        "" => None,
        time => Some(moment(time)?),
    };
    Some(Line { name, moment })
}

/// A field without the quotes that it may have. No name and no time has a quote in it.
fn unquoted(field: &str) -> Option<&str> {
    let bare = match field.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => field,
    };
    (!bare.contains('"')).then_some(bare)
}

/// Microseconds since 1970, more than 0, of a time by RFC 3339 (section 5.6), or as PostgreSQL writes
/// it: a blank for the `T`, an offset without minutes.
fn moment(text: &str) -> Option<i64> {
    let (start, rest) = text.as_bytes().split_at_checked(DATE_AND_TIME)?;
    let marks = matches!(
        (start[4], start[7], start[10], start[13], start[16]),
        (b'-', b'-', b'T' | b't' | b' ', b':', b':')
    );
    let part = |from: usize, to: usize, takes: RangeInclusive<i64>| {
        number(&start[from..to]).filter(|found| takes.contains(found))
    };
    let (year, month) = (part(0, 4, 1970..=9999)?, part(5, 7, 1..=12)?);
    let day = part(8, 10, 1..=days_of(year, month))?;
    let hour = part(11, 13, 0..=23)?;
    let (minute, second) = (part(14, 16, 0..=59)?, part(17, 19, 0..=59)?);
    let (fraction, zone) = fraction(rest)?;
    let seconds = ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    let moment = (seconds - offset(zone)?) * MICROSECONDS + fraction;
    (marks && (1..=LAST).contains(&moment)).then_some(moment)
}

/// The microseconds behind the seconds, and what follows. Further digits are cut off.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = rest.strip_prefix(b".") else {
        return Some((0, rest));
    };
    let count = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (digits, zone) = digits.split_at(count);
    let mut six = [b'0'; 6];
    let kept = count.min(six.len());
    six[..kept].copy_from_slice(&digits[..kept]);
    (1..=9).contains(&count).then_some((number(&six)?, zone))
}

/// Seconds by which a zone is ahead of UTC: `Z`, `+02:00`, `-03`.
fn offset(zone: &[u8]) -> Option<i64> {
    let (sign, rest) = match zone {
        b"Z" | b"z" => return Some(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match rest {
        [a, b] => (number(&[*a, *b])?, 0),
        [a, b, b':', c, d] => (number(&[*a, *b])?, number(&[*c, *d])?),
        _ => return None,
    };
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes) * 60)
}

#[inline(never)]
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + i64::from(byte - b'0'))
    })
}

fn days_of(year: i64, month: i64) -> i64 {
    let leaps = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leaps),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// H. Hinnant, "chrono-Compatible Low-Level Date Algorithms": years begin in March, so that the day
/// that comes and goes is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_written_is_read() {
        // Each day of 130 years, each at another time, and the ends of the range.
        let days =
            (0..47_500).map(|day| day * 86_400_000_000 + day * 1_812_345_671 % 86_400_000_000);
        for moment in days.chain([1, 999_999, LAST.cast_unsigned()]) {
            let mut line = Vec::new();
            write_line("blog", (moment > 0).then_some(moment), &mut line);
            let text = String::from_utf8(line).expect("ASCII");
            let read = read_line(text.trim_end()).expect(&text);
            let moment = (moment > 0).then_some(moment.cast_signed());
            assert_eq!((read.name, read.moment), ("blog", moment), "{text}");
        }
    }

    #[test]
    fn times_are_read_as_others_write_them() {
        let noon = Some(1_769_860_800_000_000);
        for time in [
            "2026-01-31T12:00:00Z",
            "2026-01-31t12:00:00.000z",
            "2026-01-31 12:00:00+00",
            "2026-01-31T14:00:00.0+02:00",
            "2026-01-31 09:00:00.000000-03",
            "2026-02-01T05:30:00.000000999+17:30",
        ] {
            assert_eq!(moment(time), noon, "{time}");
        }
        assert_eq!(
            moment("2026-01-31T12:00:00.5Z"),
            noon.map(|noon| noon + 500_000)
        );
        assert!(
            moment("2024-02-29T00:00:00Z").is_some() && moment("2000-02-29T00:00:00Z").is_some()
        );
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for time in [
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00Z",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00.1234567890Z",
            "2026-01-31T12:00:60Z",
            "2026-01-31T24:00:00Z",
            "2026-02-29T12:00:00Z",
            "2100-02-29T12:00:00Z",
            "2026-04-31T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-00-01T12:00:00Z",
            "2026-01-00T12:00:00Z",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00+02:60",
            "2026-01-31T12:00:00+0200",
            "2026-01-31T12:00:00 Z",
            "2026/01/31T12:00:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00Z",
            "1970-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-00:01",
            "+026-01-31T12:00:00Z",
            "2026-01-31T12:00:00Zé",
            "é026-01-31T12:00:00Z",
            "1769860800",
            "infinity",
        ] {
            assert_eq!(moment(time), None, "{time}");
        }
    }

    #[test]
    fn fields_may_be_quoted_and_are_two() {
        let of = |name, moment| Some(Line { name, moment });
        assert_eq!(
            read_line("\"a\",\"1970-01-01T00:00:01Z\""),
            of("a", Some(1_000_000))
        );
        assert_eq!(read_line(","), of("", None));
        assert_eq!(read_line("\"\",\"\""), of("", None));
        for line in [
            "", "a", "a,,", "\"a,", "a\",", "a\"b,", "\",", "a,\"", ",1,",
        ] {
            assert_eq!(read_line(line), None, "{line}");
        }
    }
}

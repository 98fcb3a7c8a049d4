//! How a log line reads, as text and as JSON: one line each, whatever a message holds.

use std::fmt::Write as _;
use std::time::SystemTime;

use log::Level;

use crate::config::LogFormat;
use crate::http::Access;

/// An event's line, with its end.
pub(super) fn event(format: LogFormat, now: SystemTime, level: Level, message: &str) -> String {
    let time = rfc3339(now);
    let mut line = String::with_capacity(message.len() + 48);
    match format {
        LogFormat::Text => {
            let _ = write!(line, "{time} {level} ");
            escape_text(message, &mut line);
        }
        LogFormat::Json => {
            let _ = write!(line, "{{\"time\":\"{time}\",\"level\":\"{level}\",\"message\":\"");
            escape_json(message, &mut line);
            line.push_str("\"}");
        }
    }
    line.push('\n');
    line
}

/// A request's line, with its end.
pub(super) fn access(format: LogFormat, now: SystemTime, access: &Access<'_>, line: &mut String) {
    let Access { peer, method, target, status, bytes, took } = access;
    let (time, status, ms) = (rfc3339(now), status.code(), took.as_secs_f64() * 1e3);
    // Writing to a String cannot fail, here and below.
    match format {
        LogFormat::Text => {
            let _ = write!(line, "{time} ACCESS {peer} {method} ");
            escape_text(target, line);
            let _ = write!(line, " {status} {bytes} {ms:.3}ms");
        }
        LogFormat::Json => {
            let _ = write!(
                line,
                "{{\"time\":\"{time}\",\"level\":\"ACCESS\",\"peer\":\"{peer}\",\"method\":\"{method}\",\"target\":\""
            );
            escape_json(target, line);
            let _ = write!(line, "\",\"status\":{status},\"bytes\":{bytes},\"ms\":{ms:.3}}}");
        }
    }
    line.push('\n');
}

/// Appends `text` with its control characters escaped.
fn escape_text(text: &str, into: &mut String) {
    text.chars().for_each(|c| if c.is_control() { into.extend(c.escape_default()) } else { into.push(c) });
}

/// Appends `text` as the inside of a JSON string (RFC 8259, section 7).
fn escape_json(text: &str, into: &mut String) {
    for c in text.chars() {
        match c {
            '"' => into.push_str("\\\""),
            '\\' => into.push_str("\\\\"),
            '\n' => into.push_str("\\n"),
            c if c.is_control() => {
                // Control characters are all below U+00A0, so four digits are enough.
                let _ = write!(into, "\\u{:04x}", u32::from(c));
            }
            c => into.push(c),
        }
    }
}

/// `2026-01-31T12:00:00.000Z`, by the civil calendar (days since 1970 to a date as H. Hinnant describes it in
/// "chrono-Compatible Low-Level Date Algorithms").
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (seconds, ms) = (since.as_secs(), since.subsec_millis());
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_right_over_leap_years() {
        let at = |s| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(s));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(at(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn a_message_cannot_make_a_second_line() {
        let text = event(LogFormat::Text, SystemTime::UNIX_EPOCH, Level::Info, "a\r\nb\u{1b}[31m\u{85}");
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.contains('\u{1b}') && !text.contains('\u{85}'));
        let json = event(LogFormat::Json, SystemTime::UNIX_EPOCH, Level::Warn, "a\"\\\n\u{7}");
        assert!(json.ends_with("\"message\":\"a\\\"\\\\\\n\\u0007\"}\n"), "{json}");
    }
}

//! The forms of a log line, text and JSON: one line each, whatever a message holds.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use log::Level;

use crate::config::LogFormat;
use crate::http::Access;

/// An event's line with its line end.
pub(super) fn event(format: LogFormat, now: SystemTime, level: Level, message: &str) -> String {
    let time = rfc3339(now);
    let mut line = String::with_capacity(message.len() + 48);
    match format {
        LogFormat::Text => {
            let _ = write!(line, "{time} {level} ");
            escape_text(message, &mut line);
        }
        LogFormat::Json => {
            let _ = write!(
                line,
                "{{\"time\":\"{time}\",\"level\":\"{level}\",\"message\":\""
            );
            escape_json(message, &mut line);
            line.push_str("\"}");
        }
    }
    line.push('\n');
    line
}

/// Appends a request's line with its line end. All workers share the lock around this, so it joins
/// digits and slices instead of formatting.
pub(super) fn access(format: LogFormat, now: SystemTime, access: &Access<'_>, line: &mut String) {
    let Access {
        client,
        method,
        target,
        agent,
        status,
        bytes,
        arrival,
        took,
    } = access;
    let mut digits = itoa::Buffer::new();
    match format {
        LogFormat::Text => {
            write_time(now, line);
            line.push_str(" ACCESS ");
            write_address(*client, line);
            line.push(' ');
            escape_text(method, line);
            line.push(' ');
            escape_text(target, line);
            line.push(' ');
            line.push_str(digits.format(status.code()));
            line.push(' ');
            line.push_str(digits.format(*bytes));
            line.push(' ');
            write_ms(*took, line);
            line.push_str("ms ");
            write_ms(*arrival, line);
            line.push_str("ms \"");
            escape_json(agent.unwrap_or("-"), line);
            line.push('"');
        }
        LogFormat::Json => {
            line.push_str("{\"time\":\"");
            write_time(now, line);
            line.push_str("\",\"level\":\"INFO\",\"message\":\"access\",\"client\":\"");
            write_address(*client, line);
            line.push_str("\",\"method\":\"");
            escape_json(method, line);
            line.push_str("\",\"target\":\"");
            escape_json(target, line);
            line.push_str("\",\"status\":");
            line.push_str(digits.format(status.code()));
            line.push_str(",\"bytes\":");
            line.push_str(digits.format(*bytes));
            line.push_str(",\"ms\":");
            write_ms(*took, line);
            line.push_str(",\"arrival_ms\":");
            write_ms(*arrival, line);
            if let Some(agent) = agent {
                line.push_str(",\"agent\":\"");
                escape_json(agent, line);
                line.push('"');
            }
            line.push('}');
        }
    }
    line.push('\n');
}

/// Appends the time as [`rfc3339`] does. Each thread keeps the part that changes once a second.
fn write_time(now: SystemTime, into: &mut String) {
    thread_local! {
        static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() {
            *text = rfc3339(now);
            text.truncate("2026-01-31T12:00:00.".len());
            *second = since.as_secs();
        }
        into.push_str(text);
    });
    write_three(since.subsec_millis(), into);
    into.push('Z');
}

fn write_address(address: IpAddr, into: &mut String) {
    match address {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    into.push('.');
                }
                into.push_str(itoa::Buffer::new().format(octet));
            }
        }
        IpAddr::V6(address) => {
            // Writing to a String cannot fail.
            let _ = write!(into, "{address}");
        }
    }
}

/// Milliseconds with three decimals.
fn write_ms(time: Duration, into: &mut String) {
    into.push_str(itoa::Buffer::new().format(time.as_millis()));
    into.push('.');
    write_three(time.subsec_micros() % 1000, into);
}

fn write_three(number: u32, into: &mut String) {
    for unit in [100, 10, 1] {
        into.push(char::from(b'0' + (number / unit % 10) as u8));
    }
}

/// Whether text needs no escape, as nearly all does.
fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\')
}

/// Appends `text` with its control characters escaped.
fn escape_text(text: &str, into: &mut String) {
    if is_plain(text) {
        return into.push_str(text);
    }
    text.chars().for_each(|c| {
        if c.is_control() {
            into.extend(c.escape_default())
        } else {
            into.push(c)
        }
    });
}

/// Appends `text` as the inside of a JSON string (RFC 8259, section 7).
pub(crate) fn escape_json(text: &str, into: &mut String) {
    if is_plain(text) {
        return into.push_str(text);
    }
    for c in text.chars() {
        match c {
            '"' => into.push_str("\\\""),
            '\\' => into.push_str("\\\\"),
            '\n' => into.push_str("\\n"),
            c if c.is_control() => {
                // Control characters are below U+00A0: four digits suffice.
                let _ = write!(into, "\\u{:04x}", u32::from(c));
            }
            c => into.push(c),
        }
    }
}

/// `2026-01-31T12:00:00.000Z` (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let (seconds, ms) = (since.as_secs(), since.subsec_millis());
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
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
    fn a_request_s_line_is_what_it_was_in_both_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(951_782_399_007);
        let one = Access {
            client: IpAddr::from([192, 0, 2, 10]),
            method: "GET",
            target: "/a?b=\"\u{e9}",
            agent: Some("curl \"8\""),
            status: crate::http::Status::NotFound,
            bytes: 123,
            arrival: Duration::from_millis(50),
            took: Duration::from_nanos(12_034_567),
        };
        let (mut text, mut json) = (String::new(), String::new());
        access(LogFormat::Text, now, &one, &mut text);
        access(LogFormat::Json, now, &one, &mut json);
        assert_eq!(
            text,
            "2000-02-28T23:59:59.007Z ACCESS 192.0.2.10 GET /a?b=\"\u{e9} 404 123 \
             12.034ms 50.000ms \"curl \\\"8\\\"\"\n"
        );
        assert_eq!(
            json,
            "{\"time\":\"2000-02-28T23:59:59.007Z\",\"level\":\"INFO\",\"message\":\"access\",\
             \"client\":\"192.0.2.10\",\"method\":\"GET\",\
             \"target\":\"/a?b=\\\"\u{e9}\",\"status\":404,\"bytes\":123,\"ms\":12.034,\
             \"arrival_ms\":50.000,\"agent\":\"curl \\\"8\\\"\"}\n"
        );
    }

    #[test]
    fn a_message_cannot_make_a_second_line() {
        let text = event(
            LogFormat::Text,
            SystemTime::UNIX_EPOCH,
            Level::Info,
            "a\r\nb\u{1b}[31m\u{85}",
        );
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.contains('\u{1b}') && !text.contains('\u{85}'));
        let json = event(
            LogFormat::Json,
            SystemTime::UNIX_EPOCH,
            Level::Warn,
            "a\"\\\n\u{7}",
        );
        assert!(
            json.ends_with("\"message\":\"a\\\"\\\\\\n\\u0007\"}\n"),
            "{json}"
        );
    }
}

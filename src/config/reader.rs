//! Typed reading of environment variables. An error names the variable, its value and what is
//! valid.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::{ConfigError, VARIABLES};
use crate::http::Networks;

/// Characters of a value that an error repeats.
const MAX_QUOTED: usize = 80;

/// Bytes of a path that all paths begin with.
const MAX_BASE_PATH: usize = 200;
/// Probes stay at the root.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// `count` in `time`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub count: u32,
    pub time: Duration,
}

const LONGEST_RATE: Duration = Duration::from_secs(24 * 60 * 60);
const HIGHEST_RATE: u32 = 1_000_000;

/// An environment to read from. An empty variable counts as unset: `VAR: ${VAR:-}` in a compose
/// file makes it empty.
pub(super) struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<OsString>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        Reader { lookup }
    }

    /// The variable's own value; `None` where it is unset, whatever its default.
    pub(super) fn own_text(&self, variable: &'static str) -> Result<Option<String>, ConfigError> {
        let Some(value) = (self.lookup)(variable) else {
            return Ok(None);
        };
        match value.into_string() {
            Ok(text) if text.is_empty() => Ok(None),
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(error(variable, "bytes that are not UTF-8", "UTF-8 text")),
        }
    }

    /// The variable's value, or its default in [`VARIABLES`].
    pub(super) fn text(&self, variable: &'static str) -> Result<String, ConfigError> {
        let value = self.own_text(variable)?;
        let default = || {
            VARIABLES
                .iter()
                .find(|row| row.name == variable && row.has_default)
                .map_or("", |row| row.default)
        };
        Ok(value.unwrap_or_else(|| default().to_owned()))
    }

    /// What `read` reads of a variable without a default; `None` where it is unset.
    pub(super) fn if_set<T>(
        &self,
        variable: &'static str,
        read: impl FnOnce(&'static str) -> Result<T, ConfigError>,
    ) -> Result<Option<T>, ConfigError> {
        match self.own_text(variable)? {
            Some(_) => read(variable).map(Some),
            None => Ok(None),
        }
    }

    /// A variable that may hold a password: its own value, or the content of the file that its
    /// `_FILE` twin names.
    pub(super) fn secret(
        &self,
        variable: &'static str,
        twin: &'static str,
    ) -> Result<Option<String>, ConfigError> {
        let Some(path) = self.own_text(twin)? else {
            return self.own_text(variable);
        };
        if self.own_text(variable)?.is_some() {
            return Err(error(
                twin,
                quoted(&path),
                format!("a file name only while {variable} is unset: both are set"),
            ));
        }
        let readable = "the name of a readable file of UTF-8 text";
        let content = fs::read_to_string(&path)
            .map_err(|reason| error(twin, format!("{} ({reason})", quoted(&path)), readable))?;
        let value = content.trim_end_matches(['\r', '\n']);
        if value.is_empty() {
            let got = format!("{} (an empty file)", quoted(&path));
            return Err(error(twin, got, readable));
        }
        Ok(Some(value.to_owned()))
    }

    fn parsed<T>(
        &self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
        takes: impl FnOnce() -> String,
    ) -> Result<T, ConfigError> {
        let text = self.text(variable)?;
        parse(text.trim()).ok_or_else(|| error(variable, quoted(&text), takes()))
    }

    pub(super) fn whole<T>(
        &self,
        variable: &'static str,
        range: RangeInclusive<T>,
    ) -> Result<T, ConfigError>
    where
        T: FromStr + PartialOrd + Display,
    {
        self.parsed(
            variable,
            |text| text.parse().ok().filter(|number| range.contains(number)),
            || format!("an integer from {} to {}", range.start(), range.end()),
        )
    }

    /// Seconds, decimals allowed, or a number with a unit.
    pub(super) fn duration(
        &self,
        variable: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Result<Duration, ConfigError> {
        self.parsed(
            variable,
            |text| parse_duration(text).filter(|duration| range.contains(duration)),
            || {
                format!(
                    "seconds from {} to {} (decimals allowed), or a number with the unit \
                     ms, s, m, h or d",
                    range.start().as_secs_f64(),
                    range.end().as_secs_f64()
                )
            },
        )
    }

    /// A number and a time, such as `60/1m`.
    pub(super) fn rate(&self, variable: &'static str) -> Result<Rate, ConfigError> {
        self.parsed(variable, parse_rate, || {
            "a number from 1 to 1000000, a slash and a time of at most 24h, such as 60/1m \
             (units ms, s, m, h)"
                .to_owned()
        })
    }

    /// A path such as `/visits`.
    pub(super) fn base_path(&self, variable: &'static str) -> Result<String, ConfigError> {
        let parse = |text: &str| is_base_path(text).then(|| text.to_owned());
        self.parsed(variable, parse, || {
            format!(
                "a path such as /visits: at most {MAX_BASE_PATH} letters, digits and -._~, each \
                 part behind a slash, no slash at the end, and not /livez, /readyz or /metrics"
            )
        })
    }

    pub(super) fn networks(&self, variable: &'static str) -> Result<Networks, ConfigError> {
        let parse = |text: &str| text.parse().ok();
        self.parsed(variable, parse, || {
            "addresses and networks with commas between them, such as \
             10.0.0.0/8, 192.168.1.7, fd00::/8"
                .to_owned()
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &self,
        variable: &'static str,
        choices: &[(&str, T)],
    ) -> Result<T, ConfigError> {
        let parse = |text: &str| {
            let chosen = choices.iter().find(|(word, _)| *word == text);
            chosen.map(|(_, value)| *value)
        };
        self.parsed(variable, parse, || {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            words.join(" or ")
        })
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit_s) = match text {
        _ if text.ends_with("ms") => (text.strip_suffix("ms")?, 0.001),
        _ if text.ends_with('s') => (text.strip_suffix('s')?, 1.0),
        _ if text.ends_with('m') => (text.strip_suffix('m')?, 60.0),
        _ if text.ends_with('h') => (text.strip_suffix('h')?, 3600.0),
        _ if text.ends_with('d') => (text.strip_suffix('d')?, 86_400.0),
        _ => (text, 1.0),
    };
    // `f64` would also read `inf`, `nan` and `1e9`.
    if !number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return None;
    }
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit_s).ok()
}

/// Whether browsers and proxies pass the path on as it is. They would take dots alone away.
fn is_base_path(path: &str) -> bool {
    let is_part = |part: &str| {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        !matches!(part, "" | "." | "..") && part.bytes().all(valid)
    };
    path.strip_prefix('/')
        .is_some_and(|parts| parts.split('/').all(is_part))
        && path.len() <= MAX_BASE_PATH
        && !PROBES.contains(&path)
}

fn parse_rate(text: &str) -> Option<Rate> {
    let (count, time) = text.split_once('/')?;
    let time = parse_duration(time)?;
    let is_count = count.bytes().all(|byte| byte.is_ascii_digit());
    let count = is_count.then(|| count.parse().ok()).flatten()?;
    let fits = (1..=HIGHEST_RATE).contains(&count) && !time.is_zero() && time <= LONGEST_RATE;
    fits.then_some(Rate { count, time })
}

pub(super) fn error(
    variable: &'static str,
    got: impl Into<String>,
    takes: impl Into<String>,
) -> ConfigError {
    ConfigError {
        variable,
        got: got.into(),
        takes: takes.into(),
    }
}

/// The value in quotes: control characters escaped, cut where it is long.
pub(super) fn quoted(value: &str) -> String {
    let mut cut: String = value.chars().take(MAX_QUOTED).collect();
    if cut.len() < value.len() {
        cut.push('…');
    }
    format!("\"{}\"", cut.escape_debug())
}

/// The text with its control characters escaped: a URL may hold some, and a log line must stay one.
pub(super) fn printable(text: &str) -> String {
    let escaped = |c: char| {
        if c.is_control() {
            c.escape_default().collect()
        } else {
            String::from(c)
        }
    };
    text.chars().map(escaped).collect()
}

/// The scheme and the length of an address that may hold a password.
pub(super) fn hidden(url: &str) -> String {
    let length = url.chars().count();
    match url.split_once("://") {
        Some((scheme, _))
            if scheme.len() < 12 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) =>
        {
            format!("\"{scheme}://…\", {length} characters")
        }
        _ => format!("{length} characters, hidden since they may hold a password"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds_or_carry_their_unit() {
        assert_eq!(parse_duration("5"), Some(Duration::from_secs(5)));
        assert_eq!(parse_duration("0.25"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("300ms"), Some(Duration::from_millis(300)));
        assert_eq!(parse_duration("2s"), Some(Duration::from_secs(2)));
        assert_eq!(parse_duration("1.5m"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("2h"), Some(Duration::from_secs(7200)));
        assert_eq!(
            parse_duration("400d"),
            Some(Duration::from_secs(400 * 86_400))
        );
        for wrong in [
            "",
            "s",
            "ms",
            "-1",
            "1e3",
            "inf",
            "nan",
            "5w",
            "1.2.3",
            "5 s",
            "99999999999999999999999",
        ] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_a_number_in_a_time() {
        let rate = |count, ms| {
            Some(Rate {
                count,
                time: Duration::from_millis(ms),
            })
        };
        for (text, expected) in [
            ("60/1m", rate(60, 60_000)),
            ("1/1s", rate(1, 1000)),
            ("5/250ms", rate(5, 250)),
            ("100/0.5h", rate(100, 1_800_000)),
            ("7/30", rate(7, 30_000)),
        ] {
            assert_eq!(parse_rate(text), expected, "{text}");
        }
        for wrong in [
            "",
            "60",
            "60/",
            "/1m",
            "0/1m",
            "+5/1m",
            "5/0s",
            "5/1w",
            "5/25h",
            "5/1sm",
            "5/1mm",
            "2000000/1s",
        ] {
            assert_eq!(parse_rate(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_base_path_is_one_that_everybody_passes_on() {
        for valid in ["/visits", "/a/b-c_d.e~1", "/.hidden", "/livez/x", "/..."] {
            assert!(is_base_path(valid), "{valid}");
        }
        let long = format!("/{}", "x".repeat(MAX_BASE_PATH));
        for wrong in [
            "", "/", "visits", "/visits/", "//", "/a//b", "/.", "/a/..", "/a b", "/a?b", "/a#b",
            "/%41", "/\u{e9}", "/\"", "/<", "/livez", "/metrics", &long,
        ] {
            assert!(!is_base_path(wrong), "{wrong}");
        }
    }

    #[test]
    fn quoted_values_are_bounded_and_printable() {
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
        assert!(quoted(&"x".repeat(5000)).chars().count() < 100);
        assert_eq!(printable("a\n\u{85}'\""), "a\\n\\u{85}'\"");
    }
}

//! The parameters of a PostgreSQL address that are read here, since the library does not know them,
//! or not all of their words.

use tokio_postgres::Config;

/// An address without the parameters that were taken from it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) address: String,
    pub(super) values: Vec<(&'static str, String)>,
}

/// Takes the parameters of these names from an address of either form (PostgreSQL manual,
/// "Connection Strings"). What cannot be read stays, for the library to refuse.
pub(super) fn take(address: &str, names: &[&'static str]) -> Taken {
    if address.starts_with("postgres://") || address.starts_with("postgresql://") {
        from_url(address, names)
    } else {
        from_pairs(address, names)
    }
}

fn from_url(address: &str, names: &[&'static str]) -> Taken {
    // A password may hold a question mark: the query begins after the host.
    let host = address.find('@').map_or(0, |at| at + 1);
    let begin = address[host..].find('?').map(|at| host + at);
    let (rest, query) = begin.map_or((address, ""), |at| (&address[..at], &address[at + 1..]));
    let (mut kept, mut values) = (Vec::new(), Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        // The library decodes names too, so `ssl%6Dode` is one of these.
        let known = pair.split_once('=').and_then(|(name, value)| {
            let name = url_decoded(name)?;
            let name = names.iter().find(|known| **known == name)?;
            Some((*name, url_decoded(value)?))
        });
        match known {
            Some(known) => values.push(known),
            None => kept.push(pair),
        }
    }
    let mark = if kept.is_empty() { "" } else { "?" };
    Taken {
        address: format!("{rest}{mark}{}", kept.join("&")),
        values,
    }
}

fn from_pairs(address: &str, names: &[&'static str]) -> Taken {
    let (mut kept, mut values) = (String::new(), Vec::new());
    let mut rest = address.trim_start();
    while let Some((name, value, after)) = pair(rest) {
        let known = names
            .iter()
            .find(|known| **known == name)
            .and_then(|name| Some((*name, decoded(&format!("application_name={value}"))?)));
        match known {
            Some(known) => values.push(known),
            None => kept += &rest[..rest.len() - after.len()],
        }
        rest = after;
    }
    Taken {
        address: kept + rest,
        values,
    }
}

/// The first `name = value`, its value as it is written, and what follows it.
fn pair(text: &str) -> Option<(&str, &str, &str)> {
    let (name, after) = text.split_once('=')?;
    let value = after.trim_start();
    let is_quoted = value.starts_with('\'');
    let (mut escaped, mut begun) = (false, false);
    let end = value.find(|c: char| {
        let ends = !escaped
            && if is_quoted {
                begun && c == '\''
            } else {
                c.is_whitespace()
            };
        escaped = !escaped && c == '\\';
        begun = true;
        ends
    });
    let end = end.map_or(value.len(), |end| end + usize::from(is_quoted));
    let (value, after) = value.split_at(end);
    Some((name.trim_end(), value, after.trim_start()))
}

/// A name or a value of a URL's query. The library would take what is before an `@` for a login.
fn url_decoded(text: &str) -> Option<String> {
    let text = text.replace('@', "%40");
    decoded(&format!("postgres:///?application_name={text}"))
}

/// The value that the library reads in an address that has only this one.
fn decoded(address: &str) -> Option<String> {
    let config = address.parse::<Config>().ok()?;
    config.get_application_name().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["sslmode", "sslrootcert"];

    #[track_caller]
    fn gives(address: &str, rest: &str, values: &[(&'static str, &str)]) {
        let values = values
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        let expected = Taken {
            address: rest.to_owned(),
            values: values.collect(),
        };
        assert_eq!(take(address, NAMES), expected, "{address}");
    }

    #[test]
    fn parameters_of_a_url_are_taken_and_the_others_stay() {
        gives("postgres://u@h/d", "postgres://u@h/d", &[]);
        gives(
            "postgres://u:sslmode?x@h/d?a=b&sslmode=require&c=d",
            "postgres://u:sslmode?x@h/d?a=b&c=d",
            &[("sslmode", "require")],
        );
        gives(
            "postgresql://h?sslrootcert=%2Fa%20b&sslmode=",
            "postgresql://h",
            &[("sslrootcert", "/a b"), ("sslmode", "")],
        );
        gives(
            "postgres://u@h/d?ssl%6Dode=require&a%62=c&sslrootcert=/a@b",
            "postgres://u@h/d?a%62=c",
            &[("sslmode", "require"), ("sslrootcert", "/a@b")],
        );
        // The library refuses what is left.
        gives("postgres://h?sslmode", "postgres://h?sslmode", &[]);
        gives("postgres://h?sslmode=%ff", "postgres://h?sslmode=%ff", &[]);
    }

    #[test]
    fn parameters_among_pairs_are_taken_whatever_their_quotes() {
        gives(
            "host = h  sslmode = 'verify-full' password='sslmode=x \\' y' sslrootcert=/a\\ b user=u",
            "host = h  password='sslmode=x \\' y' user=u",
            &[("sslmode", "verify-full"), ("sslrootcert", "/a b")],
        );
        gives("sslmode='open", "sslmode='open", &[]);
        gives("host=h nonsense", "host=h nonsense", &[]);
        gives("", "", &[]);
    }
}

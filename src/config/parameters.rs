//! A PostgreSQL address in either of its forms, as parameters with their values (PostgreSQL manual,
//! "Connection Strings"). Addresses of Redis share how host, port and text are written.

/// The parameters of an address, in the order given; `None` where it is none. Several hosts and
/// their ports are one value each, with commas between.
pub(super) fn parse(address: &str) -> Option<Vec<(String, String)>> {
    let url = ["postgres://", "postgresql://"]
        .iter()
        .find_map(|scheme| address.strip_prefix(scheme));
    match url {
        Some(rest) => from_url(rest),
        None => from_pairs(address),
    }
}

/// `user:password@host:port,host:port/database?name=value&name=value`, all of it optional.
fn from_url(rest: &str) -> Option<Vec<(String, String)>> {
    let mut parameters = Vec::new();
    let mut add = |name: &str, value: &str| {
        parameters.push((name.to_owned(), decoded(value)?));
        Some(())
    };
    // As libpq: what is before an `@` is the login, unless a slash comes first. So a password may
    // hold a question mark, and a value of the query an `@`.
    let at = rest
        .find(['@', '/'])
        .filter(|at| rest[*at..].starts_with('@'));
    let (login, rest) = at.map_or(("", rest), |at| (&rest[..at], &rest[at + 1..]));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    for (name, value) in [("user", user), ("password", password)] {
        if !value.is_empty() {
            add(name, value)?;
        }
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (places, database) = rest.split_once('/').unwrap_or((rest, ""));
    if !places.is_empty() {
        let places: Option<Vec<(&str, &str)>> = places.split(',').map(host_and_port).collect();
        let (hosts, ports): (Vec<&str>, Vec<&str>) = places?.into_iter().unzip();
        add("host", &hosts.join(","))?;
        if ports.iter().any(|port| !port.is_empty()) {
            add("port", &ports.join(","))?;
        }
    }
    if !database.is_empty() {
        add("dbname", database)?;
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        add(&decoded(name)?, value)?;
    }
    Some(parameters)
}

/// An address of IPv6 is written in brackets.
pub(super) fn host_and_port(place: &str) -> Option<(&str, &str)> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        return match port.strip_prefix(':') {
            Some(port) => Some((host, port)),
            None => port.is_empty().then_some((host, "")),
        };
    }
    Some(place.split_once(':').unwrap_or((place, "")))
}

/// Text without its percent-encoding (RFC 3986, section 2.1).
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            u8::try_from(high * 16 + low).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
}

/// `name = value name = 'another value'`, with `\'` and `\\` for a quote and a backslash.
fn from_pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut parameters = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return None;
        }
        let after = after.trim_start();
        let quoted = after.strip_prefix('\'');
        let mut chars = quoted.unwrap_or(after).char_indices();
        let mut value = String::new();
        let end = loop {
            match chars.next() {
                Some((_, '\\')) => value.push(chars.next()?.1),
                Some((at, '\'')) if quoted.is_some() => break at + 2,
                Some((at, c)) if quoted.is_none() && c.is_whitespace() => break at,
                Some((_, c)) => value.push(c),
                None if quoted.is_none() => break after.len(),
                None => return None,
            }
        };
        parameters.push((name.to_owned(), value));
        rest = after[end..].trim_start();
    }
    Some(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn gives(address: &str, expected: &[(&str, &str)]) {
        let found = parse(address);
        let pairs = expected
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        assert_eq!(found, Some(pairs.collect()), "{address}");
    }

    #[test]
    fn a_url_gives_its_login_its_hosts_and_its_parameters() {
        gives("postgres://", &[]);
        gives(
            "postgresql://u:p%20w@db:7/name?sslmode=require&options=-c%20a%3Db&x=",
            &[
                ("user", "u"),
                ("password", "p w"),
                ("host", "db"),
                ("port", "7"),
                ("dbname", "name"),
                ("sslmode", "require"),
                ("options", "-c a=b"),
                ("x", ""),
            ],
        );
        gives(
            "postgres://u:sslmode?x@h/d?ssl%6Dode=a@b",
            &[
                ("user", "u"),
                ("password", "sslmode?x"),
                ("host", "h"),
                ("dbname", "d"),
                ("sslmode", "a@b"),
            ],
        );
        gives(
            "postgres://db1:1,[::1]:2,%2Frun%2Fpg/d",
            &[
                ("host", "db1,::1,/run/pg"),
                ("port", "1,2,"),
                ("dbname", "d"),
            ],
        );
        gives(
            "postgres:///d?host=/run/pg",
            &[("dbname", "d"), ("host", "/run/pg")],
        );
        gives(
            "postgres://h?sslrootcert=/a@b",
            &[("host", "h"), ("sslrootcert", "/a@b")],
        );
    }

    #[test]
    fn pairs_are_read_whatever_their_quotes() {
        gives("", &[]);
        gives(
            " host = h  sslmode = 'verify-full' password='sslmode=x \\' \\\\y' sslrootcert=/a\\ b \
             user=u empty='' last=ü",
            &[
                ("host", "h"),
                ("sslmode", "verify-full"),
                ("password", "sslmode=x ' \\y"),
                ("sslrootcert", "/a b"),
                ("user", "u"),
                ("empty", ""),
                ("last", "ü"),
            ],
        );
    }

    #[test]
    fn what_is_no_address_is_told() {
        for address in [
            "postgres://h?sslmode",
            "postgres://h?sslmode=%ff",
            "postgres://h?a=%4",
            "postgres://h?a=%00",
            "postgres://[::1/d",
            "postgres://[::1]7/d",
            "mysql://h",
            "host",
            "host=h nonsense",
            "ho st=h",
            "=h",
            "password='open",
            "password=x\\",
        ] {
            assert_eq!(parse(address), None, "{address}");
        }
    }
}

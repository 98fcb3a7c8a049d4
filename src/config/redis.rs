//! A Redis address: from `REDIS_URL`, or from `REDIS_HOST` and the variables beside it.

use std::path::PathBuf;

use super::ConfigError;
use super::parameters::{decoded, host_and_port};
use super::reader::{Reader, error, hidden};
use super::stores::{CounterPlace, no_parts};
use super::tls::{self, RedisTls};
use crate::visits::Secret;
use crate::visits::counter::{RedisAddress, RedisPlace};

/// What an address looks like, said in every error about one.
const ADDRESS: &str = "redis://user:password@host:port/number";
const PORT: u16 = 6379;

pub(super) fn counter(env: &Reader<'_>) -> Result<CounterPlace, ConfigError> {
    if let Some(url) = env.secret("REDIS_URL", "REDIS_URL_FILE")? {
        return from_url(env, &url);
    }
    let password = env.secret("REDIS_PASSWORD", "REDIS_PASSWORD_FILE")?;
    let port = env.whole("REDIS_PORT", 1..=u16::MAX)?;
    let user = env.own_text("REDIS_USER")?;
    let Some(host) = env.own_text("REDIS_HOST")? else {
        let parts = [
            "REDIS_PORT",
            "REDIS_USER",
            "REDIS_PASSWORD",
            "REDIS_PASSWORD_FILE",
            "REDIS_TLS",
            "REDIS_CA_FILE",
            "REDIS_CERT_FILE",
            "REDIS_KEY_FILE",
        ];
        let takes = "a Redis host; without one the counter is in this process, so unset the others";
        no_parts(env, "REDIS_HOST", &parts, takes)?;
        return Ok(CounterPlace::InProcess);
    };
    let given = Given {
        user,
        password: password.map(Secret),
        ..Given::at(RedisPlace::Tcp(host, port))
    };
    given.place(env)
}

fn from_url(env: &Reader<'_>, url: &str) -> Result<CounterPlace, ConfigError> {
    let url = url.trim();
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    if scheme.to_ascii_lowercase().contains("sentinel") {
        return Err(error(
            "REDIS_URL",
            hidden(url),
            "the address of the Redis server itself (redis://): this binary asks no Sentinel; \
             put HAProxy before Redis, or a name that follows the primary",
        ));
    }
    match parse(url) {
        Some(given) => given.place(env),
        None => Err(error(
            "REDIS_URL",
            format!("{} (not such an address)", hidden(url)),
            ADDRESS,
        )),
    }
}

/// An address, but for what variables say of its encryption.
#[derive(Debug)]
struct Given {
    place: RedisPlace,
    user: Option<String>,
    password: Option<Secret>,
    database: u32,
    tls: RedisTls,
}

impl Given {
    fn at(place: RedisPlace) -> Given {
        Given {
            place,
            user: None,
            password: None,
            database: 0,
            tls: RedisTls::Off,
        }
    }

    fn place(self, env: &Reader<'_>) -> Result<CounterPlace, ConfigError> {
        let tls = tls::redis(env, &self.place, self.tls)?;
        Ok(CounterPlace::Redis(Box::new(RedisAddress {
            place: self.place,
            user: self.user,
            password: self.password,
            database: self.database,
            tls,
        })))
    }
}

/// `redis://user:password@host:port/number`, with `rediss` for TLS, or
/// `unix:///path?db=number&user=user&pass=password`; `valkey` instead of `redis` is the same.
fn parse(url: &str) -> Option<Given> {
    let (scheme, rest) = url.split_once(':')?;
    match scheme.to_ascii_lowercase().as_str() {
        "redis" | "valkey" => over_tcp(rest.strip_prefix("//")?, RedisTls::Off),
        "rediss" | "valkeys" => {
            let rest = rest.strip_prefix("//")?;
            match rest.strip_suffix("#insecure") {
                Some(rest) => over_tcp(rest, RedisTls::Insecure),
                None => over_tcp(rest, RedisTls::On),
            }
        }
        "unix" | "redis+unix" | "valkey+unix" => over_unix(rest.strip_prefix("//").unwrap_or(rest)),
        _ => None,
    }
}

fn over_tcp(rest: &str, tls: RedisTls) -> Option<Given> {
    if rest.contains('#') {
        return None;
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    parameters(query)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, place) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (host, port) = host_and_port(place)?;
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._~:".contains(c);
    // What a server listens on where it listens everywhere is no place to connect to.
    if host.is_empty() || !host.chars().all(is_host) || ["0.0.0.0", "::"].contains(&host) {
        return None;
    }
    let port = match port {
        "" => PORT,
        port => port.parse().ok()?,
    };
    Some(Given {
        user: text_or_none(user)?,
        password: text_or_none(password)?.map(Secret),
        database: number(path.trim_matches('/'))?,
        tls,
        ..Given::at(RedisPlace::Tcp(host.to_owned(), port))
    })
}

fn over_unix(rest: &str) -> Option<Given> {
    if !rest.starts_with('/') || rest.contains('#') {
        return None;
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut given = Given::at(RedisPlace::Unix(PathBuf::from(decoded(path)?)));
    for (name, value) in parameters(query)? {
        match name.as_str() {
            "db" => given.database = number(&value)?,
            "user" => given.user = Some(value),
            "pass" => given.password = Some(Secret(value)),
            _ => {}
        }
    }
    Some(given)
}

fn text_or_none(text: &str) -> Option<Option<String>> {
    Some(Some(decoded(text)?).filter(|text| !text.is_empty()))
}

/// The number of a database.
fn number(text: &str) -> Option<u32> {
    match text {
        "" => Some(0),
        text => text.parse().ok(),
    }
}

/// What follows the question mark. Either version of the protocol may be asked for: the commands
/// here are the same in both. What other clients take there changes nothing.
fn parameters(query: &str) -> Option<Vec<(String, String)>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decoded(name)?, decoded(value)?))
    });
    let pairs: Vec<(String, String)> = pairs.collect::<Option<_>>()?;
    let is_known = |(name, value): &(String, String)| {
        name != "protocol" || ["2", "3", "resp2", "resp3"].contains(&value.as_str())
    };
    pairs.iter().all(is_known).then_some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Place, user, password, database and encryption.
    type Parts<'a> = (&'a str, Option<&'a str>, Option<&'a str>, u32, RedisTls);

    #[test]
    fn an_address_gives_its_place_its_login_and_its_database() {
        let (off, on) = (RedisTls::Off, RedisTls::On);
        let none = None::<&str>;
        let expected: &[(&str, Parts<'_>)] = &[
            ("redis://db", ("db:6379", none, none, 0, off)),
            ("Redis://db:7/3", ("db:7", none, none, 3, off)),
            ("valkey://[::1]:7/", ("[::1]:7", none, none, 0, off)),
            ("redis://[::1]", ("[::1]:6379", none, none, 0, off)),
            (
                "redis://u%40x:p%20w%2Fd@db/1?protocol=resp3&family=0",
                ("db:6379", Some("u@x"), Some("p w/d"), 1, off),
            ),
            (
                "redis://:p@w:x@db",
                ("db:6379", none, Some("p@w:x"), 0, off),
            ),
            ("rediss://u@db:1", ("db:1", Some("u"), none, 0, on)),
            ("valkeys://db", ("db:6379", none, none, 0, on)),
            (
                "rediss://:p@db:6380/0#insecure",
                ("db:6380", none, Some("p"), 0, RedisTls::Insecure),
            ),
            ("unix:/run/redis", ("/run/redis", none, none, 0, off)),
            (
                "redis+unix:///run/a%20b?db=2&user=u&pass=p%26",
                ("/run/a b", Some("u"), Some("p&"), 2, off),
            ),
        ];
        for (url, parts) in expected {
            let found = parse(url).expect(url);
            let password = found.password.as_ref().map(|Secret(text)| text.as_str());
            let place = found.place.to_string();
            let user = found.user.as_deref();
            let found = (place.as_str(), user, password, found.database, found.tls);
            assert_eq!(found, *parts, "{url}");
        }
    }

    #[test]
    fn what_is_no_address_is_told() {
        for url in [
            "",
            "db",
            "redis:db",
            "redis://",
            "redis://:6379",
            "redis://0.0.0.0",
            "redis://[::]:1",
            "redis://[::1",
            "redis://db:port",
            "redis://db:65536",
            "redis://db/one",
            "redis://db/-1",
            "redis://db/1/2",
            "redis://d\u{f6}b",
            "redis://d b",
            "redis://u:%4@db",
            "redis://u:%ff@db",
            "redis://db?protocol=4",
            "redis://db#insecure",
            "rediss://db#nonsense",
            "unix:run/redis",
            "unix:///run/redis#1",
            "unix:///run/redis?db=x",
            "http://db",
        ] {
            assert!(parse(url).is_none(), "{url}");
        }
    }
}

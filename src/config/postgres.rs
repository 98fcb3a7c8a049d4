//! A PostgreSQL address: from `DATABASE_URL`, or from `DB_HOST` and the variables beside it.

use std::net::IpAddr;
use std::time::Duration;

use super::ConfigError;
use super::parameters;
use super::reader::{Reader, error, hidden, quoted};
use super::tls;
use crate::visits::Secret;
use crate::visits::ledger::{Host, PostgresAddress};

/// What an address looks like, said in every error about one.
const ADDRESS: &str = "postgres://user:password@host:port/name, or key=value pairs";
const KNOWN: &str =
    "those of docs/configuration.md; in a password ?, & and = are written %3F, %26 and %3D";
const PORT: u16 = 5432;
/// Time for a TCP connection, where the address has none: the kernel's own is over two minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Parameters that change nothing here, with the words that say so, or with none where any does;
/// other words ask for something that visitas does not have. Visits go to a server that takes
/// writes, whatever its address says, and a pooler is recognised without `pgbouncer`, which some
/// providers put into theirs, as they do with the size of a pool that other programs keep. Waits on
/// a connection have limits of their own.
const NO_OTHERS: &[(&str, &[&str], &str)] = &[
    (
        "target_session_attrs",
        &["any", "read-write", "primary"],
        "any, read-write or primary: visits are written, so a standby is passed over anyway",
    ),
    (
        "gssencmode",
        &["disable", "prefer"],
        "disable or prefer: there is no GSSAPI here",
    ),
    ("sslcompression", &["0"], "0: compressed TLS is not safe"),
    ("sslsni", &["1"], "1: the name is always sent"),
    (
        "sslaccept",
        &["strict"],
        "strict; what is verified is for sslmode to say",
    ),
    ("pgbouncer", &["true", "false"], "true or false"),
    ("client_encoding", &["utf8", "UTF8", "auto"], "utf8"),
    (
        "schema",
        &["public"],
        "public; the table acessos is found by the role's search_path",
    ),
    ("uselibpqcompat", &["true"], "true"),
    ("connection_limit", &[], ""),
    ("pool_timeout", &[], ""),
    ("statement_cache_size", &[], ""),
    ("supa", &[], ""),
    ("workaround", &[], ""),
    ("keepalives", &[], ""),
    ("keepalives_idle", &[], ""),
    ("keepalives_interval", &[], ""),
    ("keepalives_count", &[], ""),
    ("tcp_user_timeout", &[], ""),
];

/// The address that the variables name.
pub(super) fn from_variables(
    env: &Reader<'_>,
    host: String,
    password: Option<String>,
) -> Result<PostgresAddress, ConfigError> {
    let port = env.whole("DB_PORT", 1..=u16::MAX)?;
    let (user, name) = (env.text("DB_USER")?, env.text("DB_NAME")?);
    let given = Given {
        hosts: Some(host),
        ports: Some(port.to_string()),
        user: Some(user),
        password,
        database: Some(name),
        ..Given::default()
    };
    given.address(env, &[])?.ok_or_else(|| {
        error(
            "DB_HOST",
            "a host that cannot be",
            "a host name, an IP address, or the folder of a Unix socket",
        )
    })
}

/// The address of `DATABASE_URL`.
pub(super) fn from_url(env: &Reader<'_>, url: &str) -> Result<PostgresAddress, ConfigError> {
    let refuse =
        |why: &str, takes: &str| error("DATABASE_URL", format!("{} ({why})", hidden(url)), takes);
    let no_address = || refuse("not such an address", ADDRESS);
    let parameters = parameters::parse(url).ok_or_else(no_address)?;
    let mut given = Given::default();
    let mut of_tls = Vec::new();
    for (name, text) in parameters {
        if let Some(name) = tls::PARAMETERS.iter().find(|known| **known == name) {
            of_tls.push((*name, text));
        } else if let Some((_, words, takes)) = NO_OTHERS.iter().find(|(known, ..)| *known == name)
        {
            if !words.is_empty() && !words.contains(&text.as_str()) {
                return Err(refuse(&format!("{name}={}", quoted(&text)), takes));
            }
        } else {
            // What is no parameter may be a part of a password, so it is not named.
            let wrong = || refuse("a parameter is unknown or has a wrong value", KNOWN);
            given.set(&name, text).ok_or_else(wrong)?;
        }
    }
    if given.hosts.is_none() && given.addresses.is_none() {
        return Err(refuse("it names no host", ADDRESS));
    }
    if given.user.is_none() {
        return Err(refuse("it names no user", ADDRESS));
    }
    given.address(env, &of_tls)?.ok_or_else(no_address)
}

/// What an address says of the server and the login.
#[derive(Default)]
struct Given {
    hosts: Option<String>,
    addresses: Option<String>,
    ports: Option<String>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    application_name: Option<String>,
    options: Option<String>,
    connect_timeout: Option<Duration>,
    balance: bool,
}

impl Given {
    /// The last one of a name counts; `None` where it cannot be.
    fn set(&mut self, name: &str, text: String) -> Option<()> {
        let text = Some(text);
        match name {
            "host" => self.hosts = text,
            "hostaddr" => self.addresses = text,
            "port" => self.ports = text,
            "user" => self.user = text,
            "password" => self.password = text,
            "dbname" => self.database = text,
            "application_name" => self.application_name = text,
            "options" => self.options = text,
            // 0 and below: none, as for libpq; then the default holds, since every wait has a limit.
            "connect_timeout" => {
                let seconds: i64 = text?.trim().parse().ok()?;
                let seconds = u64::try_from(seconds).unwrap_or(0);
                self.connect_timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
            }
            "load_balance_hosts" => {
                self.balance = match text?.as_str() {
                    "disable" => false,
                    "random" => true,
                    _ => return None,
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// `None` where a host, an address or a port cannot be.
    fn address(
        self,
        env: &Reader<'_>,
        of_tls: &[(&'static str, String)],
    ) -> Result<Option<PostgresAddress>, ConfigError> {
        let Some(hosts) = self.hosts() else {
            return Ok(None);
        };
        let tls = tls::postgres(env, of_tls)?;
        Ok(Some(PostgresAddress {
            hosts,
            balance: self.balance,
            user: self.user.unwrap_or_default(),
            password: self.password.map(Secret),
            database: self.database,
            application_name: self
                .application_name
                .unwrap_or_else(|| "visitas".to_owned()),
            options: self.options,
            connect_timeout: self.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            encryption: tls.encryption,
            direct: tls.direct,
            channel_binding: tls.channel_binding,
        }))
    }

    /// An address beside a name saves looking it up; a single port is for all hosts (PostgreSQL
    /// manual, "Specifying Multiple Hosts").
    fn hosts(&self) -> Option<Vec<Host>> {
        let list = |text: &Option<String>| -> Vec<String> {
            let parts = text.iter().flat_map(|text| text.split(','));
            parts.map(str::to_owned).collect()
        };
        let (names, addresses) = (list(&self.hosts), list(&self.addresses));
        let ports: Option<Vec<u16>> = list(&self.ports).iter().map(|port| port_of(port)).collect();
        let ports = ports?;
        let count = names.len().max(addresses.len());
        let fits = |length: usize| length <= 1 || length == count;
        let lengths_fit =
            names.is_empty() || addresses.is_empty() || names.len() == addresses.len();
        if !fits(ports.len()) || !lengths_fit {
            return None;
        }
        (0..count)
            .map(|index| {
                let port = ports.get(index).or(ports.first()).copied().unwrap_or(PORT);
                let name = names.get(index).filter(|name| !name.is_empty());
                let address = addresses.get(index).filter(|address| !address.is_empty());
                host(name, address, port)
            })
            .collect()
    }
}

fn port_of(text: &str) -> Option<u16> {
    match text.trim() {
        "" => Some(PORT),
        text => text.parse().ok().filter(|port| *port != 0),
    }
}

fn host(name: Option<&String>, address: Option<&String>, port: u16) -> Option<Host> {
    let address: Option<IpAddr> = match address {
        Some(address) => Some(address.parse().ok()?),
        None => None,
    };
    match name {
        Some(folder) if folder.starts_with('/') && address.is_none() => {
            Some(Host::Unix(folder.into(), port))
        }
        Some(name) if name.contains([' ', '\0', '/']) => None,
        Some(name) => Some(Host::Tcp(name.clone(), address, port)),
        None => Some(Host::Tcp(address?.to_string(), address, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(hosts: &str, addresses: Option<&str>, ports: Option<&str>) -> Option<Vec<Host>> {
        let given = Given {
            hosts: Some(hosts.to_owned()),
            addresses: addresses.map(str::to_owned),
            ports: ports.map(str::to_owned),
            ..Given::default()
        };
        given.hosts()
    }

    fn tcp(name: &str, address: Option<&str>, port: u16) -> Host {
        Host::Tcp(
            name.to_owned(),
            address.and_then(|address| address.parse().ok()),
            port,
        )
    }

    #[test]
    fn every_host_has_its_own_port_or_that_of_all() {
        let three = [
            tcp("db1", None, 1),
            Host::Unix("/run/pg".into(), 2),
            tcp("::1", None, 5432),
        ];
        assert_eq!(
            hosts("db1,/run/pg,::1", None, Some("1,2,")).as_deref(),
            Some(&three[..])
        );
        assert_eq!(
            hosts("a,b", None, Some("7")),
            Some(vec![tcp("a", None, 7), tcp("b", None, 7)])
        );
        assert_eq!(hosts("a", None, None), Some(vec![tcp("a", None, 5432)]));
        for ports in ["1,2,3", "0", "70000", "x"] {
            assert_eq!(hosts("a,b", None, Some(ports)), None, "{ports}");
        }
    }

    #[test]
    fn an_address_beside_a_name_is_taken() {
        assert_eq!(
            hosts("db1,db2", Some("10.0.0.1,10.0.0.2"), Some("7")),
            Some(vec![
                tcp("db1", Some("10.0.0.1"), 7),
                tcp("db2", Some("10.0.0.2"), 7)
            ])
        );
        assert_eq!(hosts("db1,db2", Some("10.0.0.1"), None), None);
        assert_eq!(hosts("db1", Some("db2"), None), None);
    }
}

//! Which connections are encrypted, and what is verified of the server: PostgreSQL's words for it,
//! and Redis'.

use std::path::PathBuf;

use super::ConfigError;
use super::reader::{Reader, error, quoted};
use crate::visits::counter::RedisPlace;
use crate::visits::ledger::{ChannelBinding, Encryption};
use crate::visits::tls::{self, Identity, Roots, Tls, Verify};

/// The parameters of a PostgreSQL address that are read here.
pub(super) const PARAMETERS: &[&str] = &[
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslnegotiation",
    "channel_binding",
];

/// The file of roots that other programs use too.
const ROOTS: &str = "SSL_CERT_FILE";
const NONE_BUILT_IN: &str = "no TLS: this program was built without it";

/// One setting, from the address or from its own variable.
struct Word {
    parameter: &'static str,
    variable: &'static str,
    text: String,
}

impl Word {
    fn refuse(&self, why: &str, takes: &str) -> ConfigError {
        let text = quoted(&self.text);
        let got = if self.variable == "DATABASE_URL" {
            format!("{}={text}{why}", self.parameter)
        } else {
            format!("{text}{why}")
        };
        error(self.variable, got, takes)
    }
}

/// The settings of an address, and of the variables beside it.
struct Words<'a> {
    env: &'a Reader<'a>,
    taken: &'a [(&'static str, String)],
}

impl Words<'_> {
    /// The setting, where it is anywhere. Two that differ are refused: neither is the safer one.
    fn get(
        &self,
        parameter: &'static str,
        variable: Option<&'static str>,
    ) -> Result<Option<Word>, ConfigError> {
        let taken = self.taken.iter().rev().find(|(name, _)| *name == parameter);
        let word = |variable, text| Word {
            parameter,
            variable,
            text,
        };
        let taken = taken.map(|(_, text)| word("DATABASE_URL", text.clone()));
        let Some(variable) = variable else {
            return Ok(taken);
        };
        let own = self
            .env
            .own_text(variable)?
            .map(|text| word(variable, text));
        match (taken, own) {
            (Some(taken), Some(own)) if taken.text != own.text => Err(own.refuse(
                "",
                &format!("what {parameter} in DATABASE_URL says, or nothing"),
            )),
            (taken, own) => Ok(taken.or(own)),
        }
    }
}

/// libpq's words, from the weakest (PostgreSQL manual, "SSL Mode Descriptions").
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

const MODES: &[(&str, Mode)] = &[
    ("disable", Mode::Disable),
    ("allow", Mode::Allow),
    ("prefer", Mode::Prefer),
    ("require", Mode::Require),
    ("verify-ca", Mode::VerifyCa),
    ("verify-full", Mode::VerifyFull),
];

/// How a PostgreSQL address is encrypted.
pub(super) struct Postgres {
    pub(super) encryption: Encryption,
    pub(super) direct: bool,
    pub(super) channel_binding: ChannelBinding,
}

/// Reads the settings of PostgreSQL, with those that were taken from its address.
pub(super) fn postgres(
    env: &Reader<'_>,
    taken: &[(&'static str, String)],
) -> Result<Postgres, ConfigError> {
    let given = Given::read(&Words { env, taken })?;
    let chosen = given.chosen()?;
    given.check(&chosen)?;
    let (mode, direct) = (chosen.mode, chosen.direct);
    let settings = Tls {
        verify: match (mode, &given.root) {
            (Mode::VerifyFull, _) => Verify::Name,
            // As libpq: where there is a file of roots, it is used.
            (Mode::VerifyCa, _) | (_, Some(_)) => Verify::Chain,
            (_, None) => Verify::Nothing,
        },
        roots: postgres_roots(env, mode, given.root)?,
        identity: identity(given.certificate, given.key)?,
        settings: &tls::POSTGRES,
    };
    let encryption = match mode {
        Mode::Disable => Encryption::Never,
        _ if !tls::AVAILABLE => Encryption::Never,
        Mode::Allow => Encryption::IfAsked(settings),
        Mode::Prefer => Encryption::IfOffered(settings),
        _ => Encryption::Always(settings),
    };
    Ok(Postgres {
        encryption,
        direct,
        channel_binding: chosen.binding,
    })
}

/// What is set.
struct Given {
    mode: Option<Word>,
    root: Option<Word>,
    certificate: Option<Word>,
    key: Option<Word>,
    negotiation: Option<Word>,
    binding: Option<Word>,
}

/// What holds, with the defaults.
struct Chosen {
    mode: Mode,
    direct: bool,
    binding: ChannelBinding,
}

impl Given {
    fn read(words: &Words<'_>) -> Result<Given, ConfigError> {
        Ok(Given {
            mode: words.get("sslmode", Some("DB_SSLMODE"))?,
            root: words.get("sslrootcert", Some("DB_SSLROOTCERT"))?,
            certificate: words.get("sslcert", Some("DB_SSLCERT"))?,
            key: words.get("sslkey", Some("DB_SSLKEY"))?,
            negotiation: words.get("sslnegotiation", None)?,
            binding: words.get("channel_binding", None)?,
        })
    }

    fn chosen(&self) -> Result<Chosen, ConfigError> {
        let is_system = self.root.as_ref().is_some_and(|root| root.text == "system");
        let mode = match &self.mode {
            Some(word) => one_of(word, MODES)?,
            None if is_system => Mode::VerifyFull,
            None => Mode::Prefer,
        };
        let direct = match &self.negotiation {
            Some(word) => one_of(word, &[("postgres", false), ("direct", true)])?,
            None => false,
        };
        let bindings = [
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ];
        let binding = match &self.binding {
            Some(word) => one_of(word, &bindings)?,
            None => ChannelBinding::Prefer,
        };
        Ok(Chosen {
            mode,
            direct,
            binding,
        })
    }

    /// Refuses what contradicts itself, and what this build cannot do.
    fn check(&self, chosen: &Chosen) -> Result<(), ConfigError> {
        let mode = chosen.mode;
        let direct = self.negotiation.as_ref().filter(|_| chosen.direct);
        let is_bound = chosen.binding == ChannelBinding::Require;
        let bound = self.binding.as_ref().filter(|_| is_bound);
        let needs_tls = [
            self.mode.as_ref().filter(|_| mode >= Mode::Require),
            self.root.as_ref(),
            self.certificate.as_ref(),
            self.key.as_ref(),
            direct,
            bound,
        ];
        if let (false, Some(word)) = (tls::AVAILABLE, needs_tls.into_iter().flatten().next()) {
            return Err(word.refuse("", NONE_BUILT_IN));
        }
        match (direct, bound) {
            (Some(direct), _) if mode < Mode::Require => Err(direct.refuse(
                " with a weaker sslmode",
                "direct with sslmode=require, verify-ca or verify-full alone",
            )),
            (_, Some(bound)) if mode == Mode::Disable => {
                Err(bound.refuse(" with sslmode=disable", "require with TLS alone"))
            }
            _ => Ok(()),
        }
    }
}

fn one_of<T: Copy>(word: &Word, choices: &[(&str, T)]) -> Result<T, ConfigError> {
    let found = choices.iter().find(|(text, _)| *text == word.text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = choices.iter().map(|(text, _)| *text).collect();
        word.refuse("", &words.join(" or "))
    })
}

fn postgres_roots(env: &Reader<'_>, mode: Mode, root: Option<Word>) -> Result<Roots, ConfigError> {
    match root {
        Some(root) if root.text == "system" && mode != Mode::VerifyFull => {
            let takes = "system with sslmode=verify-full alone, since anybody may have a certificate by \
                 a public authority; or a file";
            Err(root.refuse(" with a weaker sslmode", takes))
        }
        Some(root) if root.text != "system" => Ok(Roots::File {
            path: PathBuf::from(root.text),
            setting: tls::POSTGRES.roots,
        }),
        Some(_) => common_roots(env),
        None if mode == Mode::VerifyCa => Err(error(
            "DB_SSLROOTCERT",
            "\"\" (while sslmode is verify-ca)",
            "the file of the server's root certificate; with public roots use verify-full, since \
             anybody may have a certificate by a public authority",
        )),
        None => common_roots(env),
    }
}

/// The public roots, or the file that stands for them.
fn common_roots(env: &Reader<'_>) -> Result<Roots, ConfigError> {
    Ok(match env.own_text(ROOTS)? {
        Some(path) => Roots::File {
            path: PathBuf::from(path),
            setting: ROOTS,
        },
        None => Roots::Public,
    })
}

/// A certificate and its key, or neither.
fn identity(certificate: Option<Word>, key: Option<Word>) -> Result<Option<Identity>, ConfigError> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(Identity {
            certificate: PathBuf::from(certificate.text),
            key: PathBuf::from(key.text),
        })),
        (None, None) => Ok(None),
        (Some(alone), None) | (None, Some(alone)) => {
            let takes = "a file where the other of certificate and key is set too";
            Err(alone.refuse(" alone", takes))
        }
    }
}

/// What `REDIS_TLS` or an address says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum RedisTls {
    Off,
    On,
    Insecure,
}

/// How a Redis address is encrypted, of which its URL says `of_url`.
pub(super) fn redis(
    env: &Reader<'_>,
    place: &RedisPlace,
    of_url: RedisTls,
) -> Result<Option<Tls>, ConfigError> {
    let wanted = redis_tls(env, place, of_url)?;
    let file = |variable| {
        let word = env.own_text(variable)?.map(|text| Word {
            parameter: "",
            variable,
            text,
        });
        match word {
            Some(word) if wanted == RedisTls::Off => {
                let takes = "a file where REDIS_TLS is on, or REDIS_URL begins with rediss://";
                Err(word.refuse(" without TLS", takes))
            }
            word => Ok(word),
        }
    };
    let root = file(tls::REDIS.roots)?;
    let identity = identity(file(tls::REDIS.certificate)?, file(tls::REDIS.key)?)?;
    let verify = match (wanted, &root) {
        (RedisTls::Off, _) => return Ok(None),
        (RedisTls::Insecure, Some(root)) => {
            return Err(root.refuse(" where nothing is verified", "a file where REDIS_TLS is on"));
        }
        (RedisTls::Insecure, None) => Verify::Nothing,
        (RedisTls::On, _) => Verify::Name,
    };
    let roots = match root {
        Some(root) => Roots::File {
            path: PathBuf::from(root.text),
            setting: tls::REDIS.roots,
        },
        None => common_roots(env)?,
    };
    Ok(Some(Tls {
        verify,
        roots,
        identity,
        settings: &tls::REDIS,
    }))
}

/// What `REDIS_TLS` says, or else the URL.
fn redis_tls(
    env: &Reader<'_>,
    place: &RedisPlace,
    of_url: RedisTls,
) -> Result<RedisTls, ConfigError> {
    let words = [
        ("off", RedisTls::Off),
        ("on", RedisTls::On),
        ("insecure", RedisTls::Insecure),
    ];
    let own = match env.own_text("REDIS_TLS")? {
        Some(_) => Some(env.choice("REDIS_TLS", &words)?),
        None => None,
    };
    if let Some(own) = own
        && of_url != RedisTls::Off
        && own != of_url
    {
        let text_of = |wanted| {
            let found = words.iter().find(|(_, word)| *word == wanted);
            found.map_or("", |(text, _)| *text)
        };
        let takes = format!(
            "what REDIS_URL says, which is {}, or nothing",
            text_of(of_url)
        );
        return Err(error("REDIS_TLS", quoted(text_of(own)), takes));
    }
    let (variable, wanted) = match own {
        Some(own) => ("REDIS_TLS", own),
        None => ("REDIS_URL", of_url),
    };
    if wanted != RedisTls::Off && matches!(place, RedisPlace::Unix(_)) {
        return Err(error(variable, "with TLS", "a Unix socket without TLS"));
    }
    if wanted != RedisTls::Off && !tls::AVAILABLE {
        return Err(error(variable, "with TLS", NONE_BUILT_IN));
    }
    Ok(wanted)
}

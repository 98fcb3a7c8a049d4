//! The program: flags, environment, exit code.

use std::process::ExitCode;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt as _};
use visitas::config::{self, Config, ConfigError};
use visitas::{check, healthcheck, logging, server};

// Exit codes: a clean stop; could not start or go on, or a check failed; wrong command line or
// variable.
const DONE: u8 = 0;
const FAILED: u8 = 1;
const MISUSED: u8 = 2;

/// Time for the reader of standard error to take the last log lines.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Returns the exit code.
type Command = fn() -> u8;

fn main() -> ExitCode {
    ExitCode::from(match command() {
        Ok(run) => run(),
        Err(error) => {
            eprintln!("visitas: {error}; see visitas --help");
            MISUSED
        }
    })
}

fn command() -> Result<Command, lexopt::Error> {
    let mut parser = Parser::from_env();
    let mut word: Option<String> = None;
    let mut command: Command = serve;
    while let Some(argument) = parser.next()? {
        command = match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(help),
            Arg::Long("version") | Arg::Short('V') => return Ok(version),
            Arg::Long("count") if word.as_deref() == Some("check") => {
                || with_config(|config| check::count(config, false))
            }
            Arg::Value(value) if word.is_none() => match word.insert(value.string()?).as_str() {
                "healthcheck" => check_health,
                "check" => || with_config(check::run),
                "recount" => || with_config(|config| check::count(config, true)),
                other => return Err(Arg::Value(other.into()).unexpected()),
            },
            other => return Err(other.unexpected()),
        };
    }
    Ok(command)
}

fn help() -> u8 {
    print!("{USAGE}{}", config::describe_variables());
    DONE
}

fn version() -> u8 {
    println!("{}", visitas::version());
    DONE
}

fn serve() -> u8 {
    with_config(|config| {
        if let Err(error) = logging::start(config.log_format) {
            eprintln!("visitas: cannot start the thread that logs: {error}");
            return false;
        }
        let ended = server::run(config).inspect_err(|error| log::error!("{error}"));
        logging::finish(LAST_LINES);
        ended.is_ok()
    })
}

fn with_config(work: impl FnOnce(&Config) -> bool) -> u8 {
    match Config::from_env() {
        Ok(config) if work(&config) => DONE,
        Ok(_) => FAILED,
        Err(error) => misconfigured(&error),
    }
}

fn check_health() -> u8 {
    match config::readyz_from_env().map(healthcheck::check) {
        Ok(Ok(())) => return DONE,
        Ok(Err(sentence)) => eprintln!("visitas: {sentence}"),
        Err(error) => return misconfigured(&error),
    }
    FAILED
}

fn misconfigured(error: &ConfigError) -> u8 {
    eprintln!("visitas: {error}");
    MISUSED
}

const USAGE: &str = include_str!("usage.txt");

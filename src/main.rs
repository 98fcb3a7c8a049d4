//! The program: flags, environment, exit code.

use std::process::ExitCode;

use lexopt::{Arg, Parser, ValueExt as _};
use visitas::config::{self, Config, ConfigError};
use visitas::{check, healthcheck, logging, moving, server};

// Exit codes: a clean stop; could not start or go on, or a check failed; wrong command line or
// variable.
const DONE: u8 = 0;
const FAILED: u8 = 1;
const MISUSED: u8 = 2;

/// Returns the exit code.
type Command = Box<dyn FnOnce() -> u8>;

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
    let mut run: fn() -> u8 = serve;
    while let Some(argument) = parser.next()? {
        run = match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Box::new(help)),
            Arg::Long("version") | Arg::Short('V') => return Ok(Box::new(version)),
            Arg::Long("count") if word.as_deref() == Some("check") => {
                || with_config(|config| check::count(config, false))
            }
            Arg::Value(value) if word.is_none() => match word.insert(value.string()?).as_str() {
                "healthcheck" => check_health,
                "check" => || with_config(check::run),
                "recount" => || with_config(|config| check::count(config, true)),
                "export" => || with_config(moving::export),
                "import" => {
                    let import = moving::Import::from_arguments(&mut parser)?;
                    let run = |config: &Config| moving::import(config, import);
                    return Ok(Box::new(|| with_log(run)));
                }
                other => return Err(Arg::Value(other.into()).unexpected()),
            },
            other => return Err(other.unexpected()),
        };
    }
    Ok(Box::new(run))
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
    with_log(|config| {
        let ended = server::run(config).inspect_err(|error| log::error!("{error}"));
        ended.is_ok()
    })
}

fn with_log(work: impl FnOnce(&Config) -> bool) -> u8 {
    with_config(|config| logging::during(config.log_format, || work(config)))
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

//! The program: flags, environment, exit code.

use std::process::ExitCode;
use std::time::Duration;

use lexopt::{Arg, Parser};
use visitas::config::{self, Config, ConfigError};
use visitas::{healthcheck, logging, server};

// Exit codes: a clean stop; it could not start or go on; the command line or a variable is wrong.
const DONE: u8 = 0;
const FAILED: u8 = 1;
const MISUSED: u8 = 2;

/// Time for whoever reads the log to take its last lines.
const LAST_LINES: Duration = Duration::from_millis(500);

enum Command {
    Serve,
    Healthcheck,
    Help,
    Version,
}

fn main() -> ExitCode {
    ExitCode::from(match command() {
        Ok(Command::Serve) => serve(),
        Ok(Command::Healthcheck) => check_health(),
        Ok(Command::Help) => {
            print!("{USAGE}{}", config::describe_variables());
            DONE
        }
        Ok(Command::Version) => {
            println!("visitas {}", env!("CARGO_PKG_VERSION"));
            DONE
        }
        Err(error) => {
            eprintln!("visitas: {error}; see visitas --help");
            MISUSED
        }
    })
}

fn command() -> Result<Command, lexopt::Error> {
    let mut parser = Parser::from_env();
    let mut command = Command::Serve;
    while let Some(argument) = parser.next()? {
        command = match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            Arg::Long("version") | Arg::Short('V') => return Ok(Command::Version),
            Arg::Value(word) if word == "healthcheck" && matches!(command, Command::Serve) => Command::Healthcheck,
            other => return Err(other.unexpected()),
        };
    }
    Ok(command)
}

fn serve() -> u8 {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => return misconfigured(&error),
    };
    if let Err(error) = logging::start(config.log_format) {
        eprintln!("visitas: the thread that logs cannot be started: {error}");
        return FAILED;
    }
    let ended = server::run(&config);
    if let Err(error) = &ended {
        log::error!("{error}");
    }
    logging::finish(LAST_LINES);
    if ended.is_ok() { DONE } else { FAILED }
}

fn check_health() -> u8 {
    match config::listen_from_env().map(healthcheck::check) {
        Ok(Ok(())) => DONE,
        Ok(Err(sentence)) => {
            eprintln!("visitas: {sentence}");
            FAILED
        }
        Err(error) => misconfigured(&error),
    }
}

fn misconfigured(error: &ConfigError) -> u8 {
    eprintln!("visitas: {error}");
    MISUSED
}

const USAGE: &str = "visitas, a visit counter: a 200 is one committed row, counted exactly once

visitas              serve
visitas healthcheck  ask the local server whether it is ready: exit 0 or 1
visitas --help       this text
visitas --version    its version

Everything else is set in the environment:

";

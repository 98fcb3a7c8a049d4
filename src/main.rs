//! The program: flags, environment, exit code.

use std::process::ExitCode;

use lexopt::{Arg, Parser};
use visitas::config::{self, Config, ConfigError, VARIABLES};
use visitas::{healthcheck, logging, server};

/// A clean stop.
const DONE: u8 = 0;
/// It could not start, or not go on.
const FAILED: u8 = 1;
/// The command line or a variable is wrong.
const MISUSED: u8 = 2;

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
            print!("{}", help());
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
    logging::start(config.log_format);
    match server::run(&config) {
        Ok(()) => DONE,
        Err(error) => {
            log::error!("{error}");
            FAILED
        }
    }
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

fn help() -> String {
    let mut text = String::from(
        "visitas, a visit counter: a 200 is one committed row, counted exactly once\n\n\
         visitas              serve\n\
         visitas healthcheck  ask the local server whether it is ready: exit 0 or 1\n\
         visitas --help       this text\n\
         visitas --version    its version\n\n\
         Everything else is set in the environment:\n\n",
    );
    for variable in VARIABLES {
        text += &format!("  {:<20} {} [{}]\n", variable.name, variable.meaning, variable.default);
    }
    text
}

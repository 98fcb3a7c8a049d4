//! The visitas process: its environment, its start, its ready line, its end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::client::{Client, Counts, Response};
use super::database::{Database, PATIENCE, with};

use super::process::{Lines, Process};
use super::redis::Redis;
use super::scratch::Folder;
use super::wait::{LIMIT, within_value};

/// An end includes the drain, which by default takes at most 10 s.
const END_LIMIT: Duration = Duration::from_secs(20);

/// The routes for those who visit that take GET and HEAD alone.
pub const READ_ROUTES: [&str; 13] = [
    "/",
    "/visit.svg",
    "/stats",
    "/history",
    "/history?format=html",
    "/events",
    "/badge.svg",
    "/badge.json",
    "/style.css",
    "/live.js",
    "/favicon.ico",
    "/favicon.svg",
    "/robots.txt",
];

/// What to run. The environment holds these variables and no others.
#[derive(Debug)]
pub struct Settings {
    variables: Vec<(String, String)>,
    arguments: Vec<String>,
    wrapper: Vec<String>,
    folder: Folder,
}

/// The exit of a process and its output.
#[derive(Debug)]
pub struct Ended {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The program under test: Cargo's, or the one that `VISITAS_BIN` names (a static build, say).
pub fn program() -> PathBuf {
    std::env::var_os("VISITAS_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_visitas").into(), PathBuf::from)
}

impl Default for Settings {
    fn default() -> Settings {
        Settings::new()
    }
}

impl Settings {
    /// Any free port of 127.0.0.1, two workers, the embedded store in a fresh folder, the
    /// in-process counter, and a long deadline, for a machine that compiles beside the tests.
    pub fn new() -> Settings {
        let nothing = Settings::empty();
        nothing
            .set("HOST", "127.0.0.1")
            .set("PORT", 0)
            .set("WORKERS", 2)
            .set("REQUEST_TIMEOUT", "15s")
    }

    /// No variable at all. The working directory is fresh, so `./data` is too.
    pub fn empty() -> Settings {
        Settings {
            variables: Vec::new(),
            arguments: Vec::new(),
            wrapper: Vec::new(),
            folder: Folder::new("visitas"),
        }
    }

    /// Sets a variable, or replaces its value.
    pub fn set(mut self, name: &str, value: impl ToString) -> Settings {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn postgres(self, database: &Database<'_>) -> Settings {
        self.set("DATABASE_URL", with(&database.url(), PATIENCE))
    }

    /// Gives the process's sessions an `application_name`.
    pub fn named(mut self, name: &str) -> Settings {
        for (_, value) in self
            .variables
            .iter_mut()
            .filter(|(variable, _)| variable == "DATABASE_URL")
        {
            *value = with(value, &format!("application_name={name}"));
        }
        self
    }

    pub fn redis(self, redis: &Redis) -> Settings {
        self.set("REDIS_URL", redis.url())
    }

    /// Sets a variable that takes a time.
    pub fn duration(self, name: &str, value: Duration) -> Settings {
        self.set(name, format!("{}ms", value.as_millis()))
    }

    pub fn arguments(self, arguments: &[&str]) -> Settings {
        let add = |settings: Settings, argument: &&str| settings.argument(argument);
        arguments.iter().fold(self, add)
    }

    pub fn argument(mut self, argument: &str) -> Settings {
        self.arguments.push(argument.to_owned());
        self
    }

    /// A program that starts it, given as arguments.
    pub fn through(mut self, wrapper: &[&str]) -> Settings {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Starts it and waits for its ready line.
    #[track_caller]
    pub fn start(self) -> Visitas {
        let mut visitas = self.launch();
        visitas.wait_ready();
        visitas
    }

    /// Starts it where no database is, which it goes on to look for.
    pub fn start_without_database(self) -> Visitas {
        let settings = self
            .set("PORT", super::ports::free_port())
            .set("DB_HOST", "127.0.0.1")
            .set("DB_PORT", 1)
            .set("CONNECT_ATTEMPTS", 0);
        let visitas = settings.launch();
        visitas.wait_listening();
        visitas
    }

    /// Starts it without waiting.
    #[track_caller]
    pub fn launch(self) -> Visitas {
        let program = program();
        let mut command = match self.wrapper.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.variables.iter().cloned())
            .current_dir(self.folder.path());
        let port = self
            .variables
            .iter()
            .find(|(name, _)| name == "PORT")
            .and_then(|(_, port)| port.parse().ok());
        let process = Process::start("visitas", &mut command, "KILL");
        Visitas {
            process,
            port: port.unwrap_or(0),
            settings: self,
        }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it still runs after 20 s.
    #[track_caller]
    pub fn run(self) -> Ended {
        self.launch().wait_end()
    }
}

/// A running visitas. Dropped, it is killed.
#[derive(Debug)]
pub struct Visitas {
    process: Process,
    port: u16,
    settings: Settings,
}

impl Visitas {
    /// Waits for the ready line and learns the port from it.
    ///
    /// # Panics
    /// When it does not come, or the process exits; the message holds the output.
    #[track_caller]
    pub fn wait_ready(&mut self) -> String {
        let stdout = self.process.stdout.clone();
        let end = std::time::Instant::now() + LIMIT;
        // Between two short waits for the line it checks whether the process has exited.
        loop {
            let line = stdout.find(Duration::from_millis(100), |line| {
                line.contains(" ready at http://")
            });
            if let Some(line) = line {
                self.port = port_of(&line).unwrap_or_else(|| panic!("no address in {line:?}"));
                return line;
            }
            let ended = self.process.exit_status();
            let late = std::time::Instant::now() >= end;
            assert!(
                ended.is_none() && !late,
                "not ready (ended: {ended:?})\n{}",
                self.process.output()
            );
        }
    }

    /// Waits until the port in the environment accepts connections. With a store down, this is long
    /// before it is ready.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn wait_listening(&self) {
        let (port, said) = (self.port(), || self.output());
        within_value(LIMIT, "visitas to listen", || {
            Client::try_connect(port)
                .map(drop)
                .map_err(|error| format!("{error}; {}", said()))
        });
    }

    /// The port it listens on, from the environment or the ready line.
    pub fn port(&self) -> u16 {
        assert_ne!(self.port, 0, "the port is known once visitas is ready");
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The working directory, removed when this is dropped.
    pub fn folder(&self) -> &Path {
        self.settings.folder.path()
    }

    pub fn stdout(&self) -> &Lines {
        &self.process.stdout
    }

    pub fn stderr(&self) -> &Lines {
        &self.process.stderr
    }

    /// Waits for a log line with all these words. Another thread writes it, perhaps after the
    /// answer of a request.
    ///
    /// # Panics
    /// When none comes; the message holds the output.
    #[track_caller]
    pub fn logged(&self, words: &[&str]) {
        let is_it = |line: &str| words.iter().all(|word| line.contains(word));
        let line = self.stderr().find(LIMIT, is_it);
        assert!(line.is_some(), "no line with {words:?}: {}", self.output());
    }

    /// Everything it wrote, for a panic's message.
    pub fn output(&self) -> String {
        self.process.output()
    }

    pub fn connect(&self) -> Client {
        Client::try_connect(self.port())
            .unwrap_or_else(|error| panic!("{error}\n{}", self.output()))
    }

    /// A request on a new connection.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        self.connect()
            .try_request(method, path, headers)
            .unwrap_or_else(|why| panic!("{method} {path}: {why:?}\n{}", self.output()))
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[])
    }

    /// A visit on a new connection, with any answer.
    #[track_caller]
    pub fn try_visit(&self) -> Response {
        self.request("GET", "/", &[("Accept", "application/json")])
    }

    /// A counted visit.
    #[track_caller]
    pub fn visit(&self) -> Counts {
        let response = self.try_visit();
        assert_eq!(
            response.status,
            200,
            "{}\n{}",
            String::from_utf8_lossy(&response.body),
            self.output()
        );
        response.counts()
    }

    /// Both numbers, without a visit.
    #[track_caller]
    pub fn stats(&self) -> Counts {
        let response = self.get("/stats");
        assert_eq!(response.status, 200, "{response:?}\n{}", self.output());
        response.fields()
    }

    /// The total, where the ledger gives one now.
    pub fn total(&self) -> Option<u64> {
        let response = self.get("/stats");
        (response.status == 200).then(|| response.fields().total)
    }

    /// The total, as soon as the ledger gives it: a connection may still be replaced, or an answer
    /// be late on a machine that is short of processors.
    ///
    /// # Panics
    /// When it has not within `limit`.
    #[track_caller]
    pub fn total_within(&self, limit: Duration) -> u64 {
        within_value(limit, "the total", || {
            self.total().ok_or_else(|| self.output())
        })
    }

    /// Waits until the total has risen by more than `visits`, which others make.
    ///
    /// # Panics
    /// When it has not within `limit`.
    #[track_caller]
    pub fn wait_for_visits(&self, visits: u64, limit: Duration) {
        let mut before = None;
        within_value(limit, "visits", || {
            let now = self.total();
            before = before.or(now);
            match now.zip(before) {
                Some((now, before)) if now > before + visits => Ok(()),
                totals => Err((totals, self.output())),
            }
        });
    }

    pub fn is_running(&mut self) -> bool {
        self.process.exit_status().is_none()
    }

    pub fn signal(&mut self, name: &str) {
        self.process.signal(name);
    }

    /// Waits for its exit.
    ///
    /// # Panics
    /// When it still runs after 20 s.
    #[track_caller]
    pub fn wait_end(&mut self) -> Ended {
        let code = self.process.wait(END_LIMIT).code();
        let text = |lines: &Lines| lines.all().join("\n");
        Ended {
            code,
            stdout: text(&self.process.stdout),
            stderr: text(&self.process.stderr),
        }
    }

    /// The settings of a process that has exited, with its folder, to start another one.
    pub fn into_settings(self) -> Settings {
        self.settings
    }

    /// Stops it by SIGTERM; it must exit with code 0.
    #[track_caller]
    pub fn stop(mut self) -> Settings {
        self.signal("TERM");
        let ended = self.wait_end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        self.settings
    }

    /// Kills it, as a crash does.
    #[track_caller]
    pub fn kill(mut self) -> Settings {
        self.signal("KILL");
        self.wait_end();
        self.settings
    }
}

/// The port in `... ready at http://host:port/base: ...`.
fn port_of(line: &str) -> Option<u16> {
    let (_, address) = line.split_once(" ready at http://")?;
    let (address, _) = address.split_once(": ")?;
    let authority = address.split('/').next()?;
    authority.rsplit_once(':')?.1.parse().ok()
}

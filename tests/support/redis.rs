//! Private Redis servers on free ports. They have no persistence, so a stop loses their data.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::authority::{Authority, Pair, everywhere};
use super::ports::free_port;
use super::process::Process;
use super::scratch::Folder;
use super::wait::{LIMIT, within_value};

/// The counter's key.
pub const KEY: &str = "contador_cache";

const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A server. Dropped, it is killed.
#[derive(Debug)]
pub struct Redis {
    folder: Folder,
    port: u16,
    password: Option<String>,
    /// Its second port, with TLS, and the options for that.
    encrypted: Option<(u16, Vec<String>)>,
    process: Option<Process>,
}

impl Redis {
    pub fn start() -> Redis {
        let mut redis = Redis::stopped();
        redis.restart();
        redis
    }

    pub fn with_password(password: &str) -> Redis {
        let mut redis = Redis {
            password: Some(password.to_owned()),
            ..Redis::stopped()
        };
        redis.restart();
        redis
    }

    /// A server that does not run yet; its port is fixed.
    pub fn stopped() -> Redis {
        match everywhere() {
            Some(tls) => Redis::encrypted(&tls.server, &tls.authority, false),
            None => Redis::plain(),
        }
    }

    fn plain() -> Redis {
        Redis {
            folder: Folder::new("redis"),
            port: free_port(),
            password: None,
            encrypted: None,
            process: None,
        }
    }

    /// A server that has a second port with TLS by that certificate, which takes the client
    /// certificates of that authority, and asks for one or not. It runs not yet.
    pub fn encrypted(server: &Pair, clients: &Authority, asks: bool) -> Redis {
        let mut redis = Redis::plain();
        redis.certify(server, clients);
        let file = |name: &str| redis.folder.path().join(name).display().to_string();
        let asks = if asks { "yes" } else { "no" };
        let port = free_port();
        let options = [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", file("server.crt")),
            ("--tls-key-file", file("server.key")),
            ("--tls-ca-cert-file", file("clients.crt")),
            ("--tls-auth-clients", asks.to_owned()),
        ];
        let words = options.map(|(name, value)| [name.to_owned(), value]);
        redis.encrypted = Some((port, words.concat()));
        redis
    }

    /// Writes the files of its next start.
    pub fn certify(&self, server: &Pair, clients: &Authority) {
        self.folder.file("server.crt", &server.certificate);
        self.folder.file("server.key", &server.key);
        self.folder.file("clients.crt", &clients.pem());
    }

    /// Has the running server use these files for its next connections.
    pub fn recertify(&self, server: &Pair, clients: &Authority) {
        self.certify(server, clients);
        // One file that is set again has all of them read again.
        let file = self.folder.path().join("server.crt");
        let file = file.to_str().expect("a path of UTF-8");
        self.command(&["CONFIG", "SET", "tls-cert-file", file]);
    }

    /// The port with TLS.
    pub fn encrypted_port(&self) -> u16 {
        self.encrypted.as_ref().expect("a port with TLS").0
    }

    /// The port for visitas: with TLS where all of the run speaks it.
    pub fn port(&self) -> u16 {
        match everywhere() {
            Some(_) => self.encrypted_port(),
            None => self.port,
        }
    }

    /// Its address with the password, for `REDIS_URL`.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same through another port, such as a proxy's.
    pub fn url_at(&self, port: u16) -> String {
        let login = self
            .password
            .as_ref()
            .map(|password| format!(":{password}@"))
            .unwrap_or_default();
        match everywhere() {
            Some(_) => format!("rediss://{login}127.0.0.1:{port}#insecure"),
            None => format!("redis://{login}127.0.0.1:{port}"),
        }
    }

    /// Starts a stopped server, empty, and waits until it answers.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "Redis runs already");
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &self.port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.arg("--dir").arg::<&Path>(self.folder.path());
        if let Some(password) = &self.password {
            command.args(["--requirepass", password]);
        }
        if let Some((_, options)) = &self.encrypted {
            command.args(options);
        }
        self.process = Some(Process::start("Redis", &mut command, "KILL"));
        within_value(LIMIT, "Redis to answer", || {
            self.try_command(&["PING"])
                .map_err(|error| (error, self.process.as_ref().map(Process::output)))
        });
    }

    /// Kills it: its data is lost and its sessions end.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("Redis runs");
        process.signal("KILL");
        process.wait(ANSWER_LIMIT);
    }

    /// Freezes it: it keeps its data and sessions and answers nothing.
    pub fn pause(&mut self) {
        self.process.as_mut().expect("Redis runs").signal("STOP");
    }

    /// Ends [`Redis::pause`].
    pub fn resume(&mut self) {
        self.process.as_mut().expect("Redis runs").signal("CONT");
    }

    /// The counter, or `None` when the key is missing.
    pub fn counter(&self) -> Option<i64> {
        self.command(&["GET", KEY])
            .map(|text| text.parse().expect("a number in the counter's key"))
    }

    /// Runs one command in a new session. `None` is Redis' nil.
    pub fn command(&self, words: &[&str]) -> Option<String> {
        self.try_command(words)
            .unwrap_or_else(|error| panic!("Redis {words:?}: {error}"))
    }

    fn try_command(&self, words: &[&str]) -> Result<Option<String>, String> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)
            .map_err(|error| error.to_string())?;
        stream
            .set_read_timeout(Some(ANSWER_LIMIT))
            .map_err(|error| error.to_string())?;
        let mut replies = BufReader::new(stream);
        if let Some(password) = &self.password {
            ask(&mut replies, &["AUTH", password])?;
        }
        ask(&mut replies, words)
    }
}

/// Sends one command and reads a simple reply: text, number or nil. An error reply is an error.
fn ask(replies: &mut BufReader<TcpStream>, words: &[&str]) -> Result<Option<String>, String> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request += &format!("${}\r\n{word}\r\n", word.len());
    }
    replies
        .get_mut()
        .write_all(request.as_bytes())
        .map_err(|error| error.to_string())?;
    let mut line = || -> Result<String, String> {
        let mut line = String::new();
        replies
            .read_line(&mut line)
            .map_err(|error| error.to_string())?;
        line.strip_suffix("\r\n")
            .map(str::to_owned)
            .ok_or_else(|| "Redis closed the session".to_owned())
    };
    let first = line()?;
    match first.split_at_checked(1) {
        Some(("+" | ":", text)) => Ok(Some(text.to_owned())),
        Some(("$", "-1")) => Ok(None),
        // No value of the suite holds a line break.
        Some(("$", _)) => line().map(Some),
        _ => Err(first),
    }
}

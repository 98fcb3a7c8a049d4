//! A private PgBouncer on a free port, with its shipped configuration but for the pool mode.

use std::fs;
use std::os::unix::fs::chown;
use std::time::Duration;

use ::postgres::{Client, Config, NoTls};

use super::ports::free_port;
use super::postgres::{self, Cluster, PASSWORD, USER};
use super::process::Process;
use super::programs;
use super::scratch::Folder;
use super::tools::tool;
use super::wait::{LIMIT, within_value};

const STOP_LIMIT: Duration = Duration::from_secs(20);

/// PgBouncer's `pool_mode`: when a client gives its server connection back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// When it disconnects.
    Session,
    /// After each transaction.
    Transaction,
}

impl Mode {
    pub const ALL: [Mode; 2] = [Mode::Session, Mode::Transaction];
}

/// A PgBouncer. Dropped, it is stopped.
#[derive(Debug)]
pub struct PgBouncer {
    folder: Folder,
    port: u16,
    process: Option<Process>,
}

impl PgBouncer {
    /// Starts one for this cluster. `more` are additional lines of its configuration. `None`, and a
    /// line about it, where it is not installed.
    #[track_caller]
    pub fn start(cluster: &Cluster, mode: Mode, more: &str) -> Option<PgBouncer> {
        tool("pgbouncer")?;
        let mut pooler = PgBouncer {
            folder: Folder::new("pgbouncer"),
            port: free_port(),
            process: None,
        };
        let users = pooler
            .folder
            .file("users", &format!("\"{USER}\" \"{PASSWORD}\"\n"));
        let mode = if mode == Mode::Session {
            "session"
        } else {
            "transaction"
        };
        let (port, server, users) = (pooler.port, cluster.port(), users.display());
        let settings = pooler.folder.file(
            "pgbouncer.ini",
            &format!(
                "[databases]\n* = host=127.0.0.1 port={server}\n\n[pgbouncer]\nlisten_addr = \
                 127.0.0.1\n\
                 listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = \
                 {users}\n\
                 pool_mode = {mode}\n{more}\n"
            ),
        );
        if let Some((uid, gid)) = programs::postgres_ids() {
            for path in [
                pooler.folder.path(),
                &settings,
                &pooler.folder.path().join("users"),
            ] {
                chown(path, Some(uid), Some(gid)).expect("the owner of PgBouncer's files");
            }
        }
        pooler.restart();
        Some(pooler)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts a stopped one and waits until it takes sessions.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "PgBouncer runs already");
        let program = tool("pgbouncer").expect("it ran before");
        let mut command = programs::as_postgres(&[], &program);
        command.arg(self.folder.path().join("pgbouncer.ini"));
        self.process = Some(Process::start("PgBouncer", &mut command, "TERM"));
        within_value(LIMIT, "PgBouncer to take sessions", || {
            self.session(postgres::DEFAULT_NAME)
                .map(drop)
                .map_err(|error| (format!("{error:?}"), self.output()))
        });
    }

    /// Stops it with all its sessions.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("PgBouncer runs");
        process.signal("TERM");
        process.wait(STOP_LIMIT);
    }

    /// A session through it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn session(&self, database: &str) -> Result<Client, ::postgres::Error> {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .user(USER)
            .password(PASSWORD)
            .dbname(database);
        config
            .connect_timeout(Duration::from_secs(20))
            .connect(NoTls)
    }

    fn output(&self) -> Option<String> {
        self.process.as_ref().map(Process::output)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.end("TERM", STOP_LIMIT);
        }
        let _ = fs::remove_dir_all(self.folder.path());
    }
}

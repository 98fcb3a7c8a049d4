//! One node under Patroni: how it starts, dies, freezes, and is cut off.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ::postgres::{Client, Config, NoTls};

use super::super::ports::free_port;
use super::super::postgres::{DEFAULT_NAME, PASSWORD, SUPERUSER, SUPERUSER_PASSWORD, USER};
use super::super::process::{Process, send_signal};
use super::super::programs::{as_postgres, give_to_postgres, program};
use super::super::proxy::Proxy;
use super::super::scratch;
use super::super::tools::tool;
use super::super::wait::{within, within_value};
use super::{ANSWER_LIMIT, LIMIT, http};

const END_LIMIT: Duration = Duration::from_secs(20);
/// Between two requests to Patroni.
const BETWEEN: Duration = Duration::from_millis(50);
/// The configuration from the documents.
const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/patroni.yml");

/// One node: Patroni and its PostgreSQL.
#[derive(Debug)]
pub struct Node {
    pub(super) name: &'static str,
    pub(super) folder: PathBuf,
    pub(super) port: u16,
    pub(super) api: u16,
    pub(super) patroni: Mutex<Option<Process>>,
    /// The processes that [`Node::freeze`] stopped.
    pub(super) frozen: Mutex<Vec<u32>>,
    /// The postmaster that the guardian ends when this run is killed.
    pub(super) watched: Mutex<Option<u32>>,
    pub(super) to_etcd: Proxy,
    /// For the other node: Patroni's API and PostgreSQL.
    pub(super) to_api: Proxy,
    pub(super) to_node: Proxy,
    pub(super) to_clients: Proxy,
}

impl Node {
    pub(super) fn new(name: &'static str, parent: &Path, etcd_port: u16) -> Node {
        let folder = parent.join(name);
        fs::create_dir(&folder).expect("a node's folder");
        give_to_postgres(&folder);
        let (port, api) = (free_port(), free_port());
        Node {
            name,
            folder,
            port,
            api,
            patroni: Mutex::default(),
            frozen: Mutex::default(),
            watched: Mutex::default(),
            to_etcd: Proxy::to(etcd_port),
            to_api: Proxy::to(api),
            to_node: Proxy::to(port),
            to_clients: Proxy::to(port),
        }
    }

    pub(super) fn start(&self, patroni: &Path) {
        // Debian links some programs of PostgreSQL elsewhere, but not this one.
        let bin = program("pg_controldata");
        let at = |port: u16| format!("127.0.0.1:{port}");
        let in_folder = |name: &str| self.folder.join(name).display().to_string();
        let mut command = as_postgres(&[], patroni);
        command.arg(CONFIGURATION).envs([
            ("PATRONI_NAME", self.name.to_owned()),
            ("PATRONI_RESTAPI_LISTEN", at(self.api)),
            ("PATRONI_RESTAPI_CONNECT_ADDRESS", at(self.to_api.port())),
            ("PATRONI_POSTGRESQL_LISTEN", at(self.port)),
            (
                "PATRONI_POSTGRESQL_CONNECT_ADDRESS",
                at(self.to_node.port()),
            ),
            ("PATRONI_POSTGRESQL_DATA_DIR", in_folder("data")),
            (
                "PATRONI_POSTGRESQL_BIN_DIR",
                bin.parent().expect("a folder").display().to_string(),
            ),
            ("PATRONI_POSTGRESQL_PGPASS", in_folder("pgpass")),
            // etcd's older API: with the newer one Patroni before 3.1 may keep a stale view for
            // ever after it was frozen or starved.
            ("PATRONI_ETCD_HOSTS", at(self.to_etcd.port())),
            // So that it stays with the proxy instead of the address that etcd gives.
            ("PATRONI_ETCD_USE_PROXIES", "true".to_owned()),
            ("PATRONI_SUPERUSER_USERNAME", SUPERUSER.to_owned()),
            ("PATRONI_SUPERUSER_PASSWORD", SUPERUSER_PASSWORD.to_owned()),
            ("PATRONI_REPLICATION_USERNAME", "replicator".to_owned()),
            (
                "PATRONI_REPLICATION_PASSWORD",
                "replicator_password".to_owned(),
            ),
        ]);
        let process = Process::start(self.name, &mut command, "KILL");
        assert!(
            self.process().replace(process).is_none(),
            "{} runs already",
            self.name
        );
    }

    /// Starts it after [`Node::kill`].
    pub fn restart(&self) {
        self.start(&tool("patroni").expect("it was there before"));
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.patroni.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether Patroni holds the leader's lock and its PostgreSQL takes writes.
    pub(super) fn is_primary(&self) -> bool {
        self.state_is("/primary")
    }

    pub(super) fn state_is(&self, path: &str) -> bool {
        let is = http(self.api, "GET", path, "").is_ok_and(|(status, _)| status == 200);
        if !is {
            // Each request costs CPU time that the failover needs.
            thread::sleep(BETWEEN);
        }
        is
    }

    /// Waits until it is the leader.
    pub fn wait_primary(&self) {
        self.wait_state("/primary");
    }

    /// Whether a standby streams from it.
    pub(super) fn has_standby(&self) -> bool {
        let streams = "SELECT EXISTS (SELECT FROM pg_stat_replication \
            WHERE application_name LIKE 'db_' AND state = 'streaming')";
        let row = self
            .try_superuser(DEFAULT_NAME)
            .and_then(|mut sql| sql.query_one(streams, &[]));
        row.is_ok_and(|row| row.get(0))
    }

    /// Tells the guardian which PostgreSQL to end.
    pub(super) fn watch(&self) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let postmaster = self.postmaster();
        if *watched != postmaster {
            watched.into_iter().for_each(scratch::forget);
            postmaster
                .into_iter()
                .for_each(|pid| scratch::watch(pid, "QUIT"));
            *watched = postmaster;
        }
    }

    fn wait_state(&self, path: &str) {
        within_value(LIMIT, &format!("{path} of {}", self.name), || {
            let ended = self
                .process()
                .as_mut()
                .is_none_or(|process| process.exit_status().is_some());
            assert!(!ended, "Patroni does not run: {:#?}", self.output());
            if self.state_is(path) {
                Ok(())
            } else {
                Err(self.output())
            }
        });
        self.watch();
    }

    /// Patroni's last log lines.
    pub fn output(&self) -> Vec<String> {
        let lines = self
            .process()
            .as_ref()
            .map(|process| process.stderr.all())
            .unwrap_or_default();
        lines[lines.len().saturating_sub(60)..].to_vec()
    }

    /// Merges JSON into the cluster's configuration.
    pub fn patch_configuration(&self, json: &str) {
        within_value(LIMIT, "the cluster's configuration", || {
            match http(self.api, "PATCH", "/config", json) {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    pub(super) fn make_database(&self) {
        let mut sql = self.superuser("postgres");
        sql.batch_execute(&format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'"))
            .expect("the role");
        sql.batch_execute(&format!("CREATE DATABASE {DEFAULT_NAME} OWNER {USER}"))
            .expect("the database");
    }

    /// A session of the superuser.
    pub fn superuser(&self, database: &str) -> Client {
        within_value(LIMIT, "a session of the superuser", || {
            self.try_superuser(database)
        })
    }

    fn try_superuser(&self, database: &str) -> Result<Client, ::postgres::Error> {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .user(SUPERUSER)
            .password(SUPERUSER_PASSWORD)
            .dbname(database);
        config
            .connect_timeout(ANSWER_LIMIT)
            .application_name("suite")
            .connect(NoTls)
    }

    /// The postmaster's process number.
    fn postmaster(&self) -> Option<u32> {
        let file = fs::read_to_string(self.folder.join("data/postmaster.pid")).ok()?;
        let pid = file.lines().next()?.parse().ok()?;
        // The file of a killed server names no process, or a foreign one.
        let directory = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        (directory == self.folder.join("data")).then_some(pid)
    }

    /// Patroni, PostgreSQL and its sessions, parents first.
    fn pids(&self) -> Vec<u32> {
        let patroni = self.process().as_ref().map(Process::pid);
        let mut pids: Vec<u32> = patroni.into_iter().chain(self.postmaster()).collect();
        let mut next = 0;
        while let Some(pid) = pids.get(next) {
            let children =
                fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let children = children
                .split_whitespace()
                .filter_map(|child| child.parse().ok());
            let new: Vec<u32> = children.filter(|child| !pids.contains(child)).collect();
            pids.extend(new);
            next += 1;
        }
        pids
    }

    /// Kills it, as a crash of the machine does.
    pub fn kill(&self) {
        self.freeze();
        self.frozen()
            .drain(..)
            .for_each(|pid| send_signal(pid, "KILL"));
        if let Some(mut process) = self.process().take() {
            process.wait(LIMIT);
        }
        within(LIMIT, "the end of a node", || self.postmaster().is_none());
        self.watch();
    }

    /// Stops all its processes, as a suspended machine does.
    pub fn freeze(&self) {
        // Until no process is left that could start another.
        loop {
            let pids = self.pids();
            let mut frozen = self.frozen();
            let new: Vec<u32> = pids
                .into_iter()
                .filter(|pid| !frozen.contains(pid))
                .collect();
            if new.is_empty() {
                return;
            }
            new.iter().for_each(|pid| send_signal(*pid, "STOP"));
            frozen.extend(new);
        }
    }

    /// Ends [`Node::freeze`].
    pub fn thaw(&self) {
        self.frozen()
            .drain(..)
            .for_each(|pid| send_signal(pid, "CONT"));
    }

    fn frozen(&self) -> MutexGuard<'_, Vec<u32>> {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing passes between it and etcd or the other node any more, and with `clients` nothing
    /// between it and visitas. No side notices.
    pub fn cut_off(&self, clients: bool) {
        [&self.to_etcd, &self.to_api, &self.to_node]
            .into_iter()
            .for_each(|proxy| proxy.swallow(true));
        if clients {
            self.to_clients.swallow(true);
        }
    }

    /// Ends [`Node::cut_off`].
    pub fn heal(&self) {
        for proxy in [&self.to_etcd, &self.to_api, &self.to_node, &self.to_clients] {
            proxy.heal();
            // Connections that swallowed bytes are of no use.
            proxy.cut_all();
        }
    }

    pub(super) fn end(&self) {
        self.thaw();
        if let Some(mut process) = self.process().take() {
            // Ends PostgreSQL too.
            process.end("TERM", END_LIMIT);
        }
        if let Some(postmaster) = self.postmaster() {
            send_signal(postmaster, "QUIT");
        }
        let end = Instant::now() + END_LIMIT;
        while self.postmaster().is_some() && Instant::now() < end {
            thread::sleep(BETWEEN);
        }
        self.watch();
    }
}

//! Two PostgreSQL nodes under Patroni with one etcd, on loopback. Each node can be killed, frozen,
//! or cut off.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ::postgres::{Client, Config, NoTls};

use super::ports::free_port;
use super::postgres::{DEFAULT_NAME, PASSWORD, SUPERUSER, SUPERUSER_PASSWORD, USER};
use super::process::{Process, send_signal};
use super::programs::{as_postgres, give_to_postgres, program};
use super::proxy::Proxy;
use super::scratch;
use super::tools::tool;
use super::wait::{within, within_value};

/// A returning node is rewound or copied again, on a loaded machine.
const LIMIT: Duration = Duration::from_secs(90);
const END_LIMIT: Duration = Duration::from_secs(20);
/// Between two requests to Patroni.
const BETWEEN: Duration = Duration::from_millis(50);
/// The limit for one request to Patroni's API.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// The configuration from the documents.
const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/patroni.yml");
/// Shorter intervals than in production, set through the API.
const SHORT_WAITS: &str = r#"{"ttl": 5, "loop_wait": 1, "retry_timeout": 2}"#;

/// The two nodes. Dropped, everything is stopped and removed.
#[derive(Debug)]
pub struct Patroni {
    pub nodes: [Node; 2],
    _etcd: Process,
    folder: PathBuf,
}

/// One node: Patroni and its PostgreSQL.
#[derive(Debug)]
pub struct Node {
    name: &'static str,
    folder: PathBuf,
    port: u16,
    api: u16,
    patroni: Mutex<Option<Process>>,
    /// The processes that [`Node::freeze`] stopped.
    frozen: Mutex<Vec<u32>>,
    /// The postmaster that the guardian ends when this run is killed.
    watched: Mutex<Option<u32>>,
    to_etcd: Proxy,
    /// For the other node: Patroni's API and PostgreSQL.
    to_api: Proxy,
    to_node: Proxy,
    to_clients: Proxy,
}

impl Patroni {
    /// Starts both nodes and waits until the second is the first one's synchronous standby. `None`,
    /// and a line about it, where etcd or Patroni is not installed.
    pub fn start() -> Option<Patroni> {
        let (etcd, patroni) = (tool("etcd")?, tool("patroni")?);
        let folder = scratch::fresh_path("patroni");
        fs::create_dir(&folder).expect("a folder for the nodes");
        let (etcd, etcd_port) = start_etcd(&etcd, &folder);
        let nodes = ["db1", "db2"].map(|name| Node::new(name, &folder, etcd_port));
        let all = Patroni {
            nodes,
            _etcd: etcd,
            folder,
        };
        let [first, second] = &all.nodes;
        first.start(&patroni);
        first.wait_primary();
        first.patch_configuration(SHORT_WAITS);
        first.make_database();
        second.start(&patroni);
        all.wait_whole(true);
        Some(all)
    }

    /// The leader and the other node, if there is one leader.
    fn roles(&self) -> Result<(&Node, &Node), String> {
        let [one, other] = &self.nodes;
        match (one.is_primary(), other.is_primary()) {
            (true, false) => Ok((one, other)),
            (false, true) => Ok((other, one)),
            leaders => Err(format!("leaders: {leaders:?}; {:#?}", self.output())),
        }
    }

    /// Waits for a leader; gives it and the other node.
    pub fn leader_and_standby(&self) -> (&Node, &Node) {
        within_value(LIMIT, "a leader", || self.roles())
    }

    /// Waits until there is a leader with a streaming standby, synchronous or not.
    pub fn wait_whole(&self, synchronous: bool) {
        let role = if synchronous {
            "/synchronous"
        } else {
            "/replica"
        };
        within_value(LIMIT, "a leader and a standby", || {
            let (leader, standby) = self.roles()?;
            if standby.state_is(role) && leader.has_standby() {
                Ok(())
            } else {
                Err(format!("{:#?}", self.output()))
            }
        });
        self.nodes.iter().for_each(Node::watch);
    }

    fn output(&self) -> Vec<Vec<String>> {
        self.nodes.iter().map(Node::output).collect()
    }

    /// The `DATABASE_URL` of a process with this name.
    pub fn url(&self, web: &str) -> String {
        let [one, other] = [0, 1].map(|index| self.nodes[index].to_clients.port());
        format!(
            "postgres://{USER}:{PASSWORD}@127.0.0.1:{one},127.0.0.1:{other}/{DEFAULT_NAME}\
             ?target_session_attrs=read-write&application_name={web}"
        )
    }
}

impl Drop for Patroni {
    fn drop(&mut self) {
        self.nodes.iter().for_each(Node::end);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn start_etcd(program: &Path, folder: &Path) -> (Process, u16) {
    let (port, peers) = (free_port(), free_port());
    let (client_url, peer_url) = (
        format!("http://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{peers}"),
    );
    let data = folder.join("etcd");
    let mut command = Command::new(program);
    command
        .args([
            "--name",
            "etcd",
            "--log-level",
            "error",
            "--enable-v2",
            "--data-dir",
        ])
        .arg(&data);
    command.args([
        "--listen-client-urls",
        &client_url,
        "--advertise-client-urls",
        &client_url,
    ]);
    command.args([
        "--listen-peer-urls",
        &peer_url,
        "--initial-advertise-peer-urls",
        &peer_url,
    ]);
    command.args(["--initial-cluster", &format!("etcd={peer_url}")]);
    let process = Process::start("etcd", &mut command, "TERM");
    let said = process.stderr.clone();
    within_value(LIMIT, "etcd's health", || {
        let (status, body) = http(port, "GET", "/health", "").unwrap_or_default();
        if status == 200 && body.contains("true") {
            Ok(())
        } else {
            Err(format!("{status} {body}; {:?}", said.all()))
        }
    });
    (process, port)
}

impl Node {
    fn new(name: &'static str, parent: &Path, etcd_port: u16) -> Node {
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

    fn start(&self, patroni: &Path) {
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
    fn is_primary(&self) -> bool {
        self.state_is("/primary")
    }

    fn state_is(&self, path: &str) -> bool {
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
    fn has_standby(&self) -> bool {
        let streams = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name LIKE 'db_' AND state = 'streaming')";
        let row = self
            .try_superuser(DEFAULT_NAME)
            .and_then(|mut sql| sql.query_one(streams, &[]));
        row.is_ok_and(|row| row.get(0))
    }

    /// Tells the guardian which PostgreSQL to end.
    fn watch(&self) {
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

    fn make_database(&self) {
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

    fn end(&self) {
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

/// One request to Patroni's API or etcd in HTTP/1.0: the answer's status and body.
fn http(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

//! Two PostgreSQL nodes under Patroni with one etcd, on loopback. Each node can be killed, frozen,
//! or cut off.

mod node;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub use node::Node;

use super::ports::free_port;
use super::postgres::{DEFAULT_NAME, PASSWORD, USER};
use super::process::Process;
use super::scratch;
use super::tools::tool;
use super::wait::within_value;

/// A returning node is rewound or copied again, on a loaded machine.
const LIMIT: Duration = Duration::from_secs(90);
/// The limit for one request to Patroni's API.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// Shorter intervals than in production, set through the API.
const SHORT_WAITS: &str = r#"{"ttl": 5, "loop_wait": 1, "retry_timeout": 2}"#;

/// The two nodes. Dropped, everything is stopped and removed.
#[derive(Debug)]
pub struct Patroni {
    pub nodes: [Node; 2],
    _etcd: Process,
    folder: PathBuf,
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

//! Private PostgreSQL clusters on free ports of 127.0.0.1: one shared by most tests, others for the
//! tests that stop it.
//!
//! `initdb` runs once a run, into a template that every cluster is a copy of. Passwords are SCRAM
//! for everyone, `fsync` is on.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ::postgres::{Client, Config, NoTls};

use super::authority::{Authority, Pair, everywhere};
use super::cable::Cable;
use super::disk::SmallDisk;
use super::ports::free_port;
use super::process::{Process, send_signal};
use super::run;
use super::wait::within_value;

/// The role that visitas uses.
pub const USER: &str = "user_app";
pub const PASSWORD: &str = "app_password";
/// The database's name when none is set.
pub const DEFAULT_NAME: &str = "desafio3_db";
pub const SUPERUSER: &str = "postgres";
pub const SUPERUSER_PASSWORD: &str = "super_password";

/// Starting includes recovery after a crash.
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// How to stop a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are told and ended, data is written.
    Fast,
    /// As a crash of the server: recovery at the next start.
    Immediate,
    /// As the machine's out-of-memory killer does it: the postmaster gets KILL.
    Kill,
    /// As a machine's crash: it and every session get KILL.
    KillAll,
}

/// A cluster. Dropped, it is stopped and its folder removed.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    port: u16,
    host: Ipv4Addr,
    /// Runs it elsewhere: at the far end of a cable.
    wrapper: Vec<String>,
    process: Mutex<Option<Process>>,
    /// After `process`, which is ended first.
    disk: Option<SmallDisk>,
}

impl Cluster {
    /// The cluster of every test that never stops it. It runs until the run ends.
    pub fn shared() -> &'static Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Cluster::start)
    }

    /// A cluster of the test's own, running.
    pub fn start() -> Cluster {
        let cluster = Cluster::stopped();
        cluster.restart();
        cluster
    }

    /// A cluster that does not run yet; its port is known.
    pub fn stopped() -> Cluster {
        Cluster::in_empty_folder().filled()
    }

    /// A cluster of the test's own at the far end of that cable, running.
    pub fn behind(cable: &Cable) -> Cluster {
        let mut cluster = Cluster::stopped();
        (cluster.host, cluster.wrapper) = (cable.far(), cable.wrapper());
        cluster.configure(&format!("listen_addresses = '{}'", cable.far()));
        let networks = cluster.data().join("pg_hba.conf");
        append(&networks, "\nhost all all 198.18.0.0/15 scram-sha-256\n");
        cluster.restart();
        cluster
    }

    /// A cluster whose data is on that disk, running. Its log is small, in small files, and needs
    /// room for each.
    pub fn on(disk: SmallDisk) -> Cluster {
        if let Some(owner) = postgres_ids() {
            disk.give_to(owner);
        }
        let mut cluster = Cluster::in_empty_folder();
        fs::remove_dir(&cluster.folder).expect("an empty folder");
        cluster.folder = disk.path().to_path_buf();
        cluster.disk = Some(disk);
        let cluster = cluster.filled();
        run_as_postgres(
            text(&program("pg_resetwal")),
            &["--wal-segsize=1", "-D", text(&cluster.data())],
        );
        cluster.configure("min_wal_size = 2MB\nmax_wal_size = 16MB\nwal_recycle = off");
        cluster.restart();
        cluster
    }

    /// The disk that the cluster was put on.
    pub fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("a disk of its own")
    }

    fn filled(self) -> Cluster {
        run_as_postgres("cp", &["-a", text(&template().data()), text(&self.folder)]);
        self
    }

    /// Adds lines to the settings; for those that need no restart, [`Cluster::reload`] follows.
    pub fn configure(&self, lines: &str) {
        append(
            &self.data().join("postgresql.conf"),
            &format!("\n{lines}\n"),
        );
    }

    /// Has the running cluster read its settings.
    pub fn reload(&self) {
        self.process()
            .as_mut()
            .expect("the cluster runs")
            .signal("HUP");
    }

    /// Has the running cluster read its settings, and waits until it did.
    pub fn reload_now(&self) {
        let loaded = || -> std::time::SystemTime {
            let mut sql = self.superuser(DEFAULT_NAME);
            let row = sql.query_one("SELECT pg_conf_load_time()", &[]);
            row.expect("a time").get(0)
        };
        let before = loaded();
        self.reload();
        within_value(START_LIMIT, "settings to be read", || {
            (loaded() > before).then_some(()).ok_or("not yet")
        });
    }

    /// Has the running cluster offer TLS with that certificate, and take the client certificates of
    /// that authority.
    pub fn encrypt(&self, server: &Pair, clients: &Authority) {
        self.certify(server, clients);
        self.reload_now();
    }

    fn certify(&self, server: &Pair, clients: &Authority) {
        for (name, content) in [
            ("server.crt", &server.certificate),
            ("server.key", &server.key),
            ("clients.crt", &clients.pem()),
        ] {
            let file = self.data().join(name);
            fs::write(&file, content).expect("a file for TLS");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode");
            give_to_postgres(&file);
        }
        self.configure("ssl = on\nssl_ca_file = 'clients.crt'");
    }

    /// Puts lines before those that say who may connect; [`Cluster::reload_now`] follows.
    pub fn admit_first(&self, lines: &str) {
        let file = self.data().join("pg_hba.conf");
        let others = fs::read_to_string(&file).expect("who may connect");
        fs::write(&file, format!("{lines}\n{others}")).expect("who may connect, written");
    }

    /// Has the stopped cluster, on which nothing was done yet, number its transactions from far on.
    pub fn advance_transactions(&self) {
        run_as_postgres(
            text(&program("pg_resetwal")),
            &["--epoch=5", "-D", text(&self.data())],
        );
    }

    /// Makes the stopped cluster come up as a standby, in recovery until [`Cluster::promote`].
    pub fn demote(&self) {
        fs::write(self.data().join("standby.signal"), "").expect("the standby's mark");
    }

    /// Ends the recovery of a standby.
    pub fn promote(&self) {
        self.superuser(DEFAULT_NAME)
            .batch_execute("SELECT pg_promote()")
            .expect("a promotion");
    }

    pub(super) fn in_empty_folder() -> Cluster {
        let folder = run::fresh_path("pg");
        fs::create_dir(&folder).expect("a folder for PostgreSQL");
        give_to_postgres(&folder);
        Cluster {
            folder,
            port: free_port(),
            host: Ipv4Addr::LOCALHOST,
            wrapper: Vec::new(),
            process: Mutex::new(None),
            disk: None,
        }
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts a stopped cluster on its port and waits until it takes sessions.
    pub fn restart(&self) {
        self.launch();
        self.wait_ready();
    }

    /// Starts it without waiting.
    pub fn launch(&self) {
        let mut process = self.process();
        assert!(process.is_none(), "the cluster runs already");
        *process = Some(self.spawn());
    }

    fn spawn(&self) -> Process {
        let mut command = as_postgres(&self.wrapper, &program("postgres"));
        command.args([
            "-D",
            text(&self.data()),
            "-p",
            &self.port.to_string(),
            "-k",
            text(&self.folder),
        ]);
        Process::start("PostgreSQL", &mut command, "QUIT")
    }

    /// Waits until a launched cluster takes sessions.
    ///
    /// # Panics
    /// When it does not within 30 s; the message holds its log.
    pub fn wait_ready(&self) {
        within_value(START_LIMIT, "PostgreSQL to take sessions", || {
            // After KILL the next postmaster refuses to start while a session of the last one still
            // runs.
            let mut process = self.process();
            let running = process.as_mut().expect("the cluster was launched");
            if running.exit_status().is_some() {
                let said = running.said();
                *process = Some(self.spawn());
                return Err(said);
            }
            let said = running.said();
            drop(process);
            self.try_superuser(DEFAULT_NAME)
                .map(drop)
                .map_err(|error| format!("{error:?}; {said}"))
        });
    }

    pub fn stop(&self, how: Stop) {
        let Some(mut process) = self.process().take() else {
            panic!("the cluster does not run")
        };
        let children = if how == Stop::KillAll {
            process.children()
        } else {
            Vec::new()
        };
        process.signal(match how {
            Stop::Fast => "INT",
            Stop::Immediate => "QUIT",
            Stop::Kill | Stop::KillAll => "KILL",
        });
        children
            .into_iter()
            .for_each(|child| send_signal(child, "KILL"));
        process.wait(STOP_LIMIT);
    }

    /// A fresh database, owned by the role that visitas uses.
    pub fn database(&self) -> Database<'_> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        // Two sessions at once copying the same template would refuse each other.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let name = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        self.superuser(DEFAULT_NAME)
            .batch_execute(&format!("CREATE DATABASE {name} OWNER {USER}"))
            .expect("a fresh database");
        Database {
            cluster: self,
            name,
        }
    }

    /// The database that every cluster has from the start.
    pub fn default_database(&self) -> Database<'_> {
        Database {
            cluster: self,
            name: DEFAULT_NAME.to_owned(),
        }
    }

    /// The database of that name, which the test made itself.
    pub fn database_of(&self, name: &str) -> Database<'_> {
        Database {
            cluster: self,
            name: name.to_owned(),
        }
    }

    /// Ends every session of that role; gives back how many there were.
    pub fn end_sessions(&self, role: &str) -> usize {
        let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
        let mut sql = self.superuser(DEFAULT_NAME);
        sql.query(ended, &[&role])
            .expect("sessions can be ended")
            .len()
    }

    /// A session of the superuser.
    pub fn superuser(&self, database: &str) -> Client {
        self.try_superuser(database)
            .expect("a session of the superuser")
    }

    fn try_superuser(&self, database: &str) -> Result<Client, ::postgres::Error> {
        self.session(database, SUPERUSER, SUPERUSER_PASSWORD)
    }

    /// A session of any role.
    pub fn session(
        &self,
        database: &str,
        user: &str,
        password: &str,
    ) -> Result<Client, ::postgres::Error> {
        let mut config = Config::new();
        config
            .host(&self.host.to_string())
            .port(self.port)
            .user(user)
            .password(password)
            .dbname(database);
        config
            .connect_timeout(Duration::from_secs(2))
            .application_name("suite")
            .connect(NoTls)
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut process) = self.process().take() {
            // The postmaster ends its own children on QUIT; KILL would leave them behind.
            process.end("QUIT", STOP_LIMIT);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// One database of a cluster. It stays until the cluster is removed.
#[derive(Debug)]
pub struct Database<'a> {
    pub cluster: &'a Cluster,
    pub name: String,
}

impl Database<'_> {
    pub fn port(&self) -> u16 {
        self.cluster.port
    }

    /// Its address with the password, as visitas takes it.
    pub fn url(&self) -> String {
        self.url_at(self.cluster.port)
    }

    /// The same through another port, as a proxy's.
    pub fn url_at(&self, port: u16) -> String {
        let encryption = everywhere().map_or_else(String::new, |everywhere| {
            format!(
                "?sslmode=verify-ca&sslrootcert={}",
                everywhere.root.display()
            )
        });
        format!(
            "postgres://{USER}:{PASSWORD}@{}:{port}/{}{encryption}",
            self.cluster.host, self.name
        )
    }

    /// A session of the role that visitas uses.
    pub fn sql(&self) -> Client {
        self.cluster
            .session(&self.name, USER, PASSWORD)
            .expect("a session")
    }

    /// A session of the superuser.
    pub fn superuser(&self) -> Client {
        self.cluster.superuser(&self.name)
    }

    /// `SELECT count(*) FROM acessos`: what the total has to be.
    pub fn rows(&self) -> u64 {
        let count: i64 = self
            .superuser()
            .query_one("SELECT count(*) FROM acessos", &[])
            .expect("the rows")
            .get(0);
        u64::try_from(count).expect("a count")
    }

    /// Ends every session of visitas in this database as an administrator does; gives back how many
    /// there were.
    pub fn terminate_sessions(&self) -> usize {
        let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND usename = $2";
        self.superuser()
            .query(ended, &[&self.name, &USER])
            .expect("sessions can be ended")
            .len()
    }

    /// How many sessions of visitas wait for a lock in this database.
    pub fn sessions_waiting(&self, watcher: &mut Client) -> usize {
        let waiting = "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND usename = $2 AND wait_event_type = 'Lock'";
        watcher
            .query(waiting, &[&self.name, &USER])
            .expect("the sessions")
            .len()
    }
}

/// The cluster that the others are copies of: initialised, with the role and the database of
/// visitas in it, stopped.
fn template() -> &'static Cluster {
    static TEMPLATE: OnceLock<Cluster> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let cluster = Cluster::in_empty_folder();
        let password = cluster.folder.join("password");
        fs::write(&password, SUPERUSER_PASSWORD).expect("a password file");
        let (initdb, data, pwfile) = (program("initdb"), cluster.data(), format!("--pwfile={}", password.display()));
        let options = ["--username", SUPERUSER, "--auth=scram-sha-256", &pwfile, "--encoding=UTF8", "--no-locale"];
        run_as_postgres(text(&initdb), &[&options[..], &["--no-sync", "-D", text(&data)]].concat());
        let settings = "\nlisten_addresses = '127.0.0.1'\nfsync = on\nsynchronous_commit = on\nmax_connections = 200\n";
        append(&data.join("postgresql.conf"), settings);
        if let Some(everywhere) = everywhere() {
            cluster.certify(&everywhere.server, &everywhere.authority);
        }
        cluster.launch();
        let mut sql = within_value(START_LIMIT, "PostgreSQL's first start", || cluster.try_superuser(SUPERUSER));
        sql.batch_execute(&format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")).expect("the role");
        sql.batch_execute(&format!("CREATE DATABASE {DEFAULT_NAME} OWNER {USER}")).expect("the database");
        drop(sql);
        cluster.stop(Stop::Fast);
        cluster
    })
}

fn append(file: &Path, more: &str) {
    let content = fs::read_to_string(file).expect("PostgreSQL's settings");
    fs::write(file, content + more).expect("PostgreSQL's settings written");
}

/// A program of PostgreSQL: see [`find_program`].
///
/// # Panics
/// When there is none.
pub fn program(name: &str) -> PathBuf {
    find_program(name).unwrap_or_else(|| {
        panic!(
            "no {name} in {:?}: install PostgreSQL or set PG_BIN",
            folders()
        )
    })
}

/// A program of PostgreSQL: from the folder `PG_BIN`, else from `PATH`, else the newest that Debian
/// has installed.
pub fn find_program(name: &str) -> Option<PathBuf> {
    folders()
        .iter()
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

fn folders() -> Vec<PathBuf> {
    if let Some(given) = std::env::var_os("PG_BIN") {
        return vec![PathBuf::from(given)];
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut debian: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|majors| {
            majors
                .flatten()
                .map(|major| major.path().join("bin"))
                .collect()
        })
        .unwrap_or_default();
    debian.sort_by_key(|bin| {
        let major = bin
            .parent()
            .and_then(Path::file_name)
            .and_then(|name| name.to_str()?.parse::<u32>().ok());
        std::cmp::Reverse(major.unwrap_or(0))
    });
    std::env::split_paths(&path).chain(debian).collect()
}

/// A command that runs as the user `postgres` when the suite runs as root, since PostgreSQL refuses
/// to run as root.
pub(super) fn as_postgres(wrapper: &[String], program: &Path) -> Command {
    let as_user = [
        "setpriv",
        "--reuid=postgres",
        "--regid=postgres",
        "--clear-groups",
    ]
    .map(str::to_owned);
    let mut words = wrapper.to_vec();
    if postgres_ids().is_some() {
        words.extend(as_user);
    }
    words.push(text(program).to_owned());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    // The folder this was started from may be closed to that user.
    command.current_dir("/").env("LC_ALL", "C");
    command
}

/// Runs a command to its end as the owner of the servers' files.
pub(super) fn run_as_postgres(program: &str, args: &[&str]) {
    let output = as_postgres(&[], Path::new(program))
        .args(args)
        .output()
        .expect("a program of PostgreSQL starts");
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Gives a folder to the user that PostgreSQL runs as.
pub fn give_to_postgres(folder: &Path) {
    if let Some((uid, gid)) = postgres_ids() {
        chown(folder, Some(uid), Some(gid)).expect("the folder's owner");
    }
}

/// The user and group `postgres`, when the suite runs as root.
pub(super) fn postgres_ids() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").expect("/proc").uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let mut fields = line
        .expect("as root PostgreSQL needs the user postgres")
        .split(':')
        .skip(2);
    let mut number = || {
        fields
            .next()
            .and_then(|field| field.parse().ok())
            .expect("a number in /etc/passwd")
    };
    Some((number(), number()))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of UTF-8")
}

/// The table of visits, held so that no row can be written until it is released.
pub struct Held(Client);

impl Database<'_> {
    /// Holds `acessos`: whoever writes to it waits. It can still be read.
    pub fn hold(&self) -> Held {
        let mut sql = self.superuser();
        sql.batch_execute("BEGIN; LOCK TABLE acessos IN EXCLUSIVE MODE")
            .expect("the table can be held");
        Held(sql)
    }
}

impl Held {
    pub fn release(mut self) {
        self.0
            .batch_execute("COMMIT")
            .expect("the table can be released");
    }
}

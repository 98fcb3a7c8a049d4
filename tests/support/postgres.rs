//! Private PostgreSQL clusters on free ports: one that most tests share, and others for tests that
//! stop it.
//!
//! `initdb` runs once, for a template that every cluster is a copy of. Passwords are SCRAM for
//! everyone, `fsync` is on.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ::postgres::{Client, Config, NoTls};

use super::authority::{Authority, Pair, everywhere};
use super::database::Database;
use super::disk::SmallDisk;
use super::ports::free_port;
use super::process::{Process, send_signal};
use super::programs::{
    as_postgres, give_to_postgres, postgres_ids, program, run_as_postgres, text,
};
use super::scratch;
use super::veth::VethPair;
use super::wait::{LIMIT, within_value};

/// The role that visitas uses.
pub const USER: &str = "user_app";
pub const PASSWORD: &str = "app_password";
/// The database's name when none is set.
pub const DEFAULT_NAME: &str = "desafio3_db";
pub const SUPERUSER: &str = "postgres";
pub const SUPERUSER_PASSWORD: &str = "super_password";

const STOP_LIMIT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Ends the sessions and writes all data.
    Fast,
    /// As a crash of the server; the next start recovers.
    Immediate,
    /// As the out-of-memory killer: the postmaster gets KILL.
    Kill,
    /// As a crash of the machine: the postmaster and every session get KILL.
    KillAll,
}

/// A cluster. Dropped, it is stopped and its folder removed.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    port: u16,
    host: Ipv4Addr,
    /// Starts it at the far end of a veth pair.
    wrapper: Vec<String>,
    process: Mutex<Option<Process>>,
    /// Below `process`, so that it is dropped later.
    disk: Option<SmallDisk>,
}

impl Cluster {
    /// The cluster of all tests that do not stop it. It runs until the suite ends.
    pub fn shared() -> &'static Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Cluster::start)
    }

    /// A private cluster, running.
    pub fn start() -> Cluster {
        let cluster = Cluster::stopped();
        cluster.restart();
        cluster
    }

    /// A private cluster that does not run yet; its port is fixed.
    pub fn stopped() -> Cluster {
        Cluster::in_empty_folder().filled()
    }

    /// A private cluster at the far end of a veth pair, running.
    pub fn behind(veth: &VethPair) -> Cluster {
        let mut cluster = Cluster::stopped();
        (cluster.host, cluster.wrapper) = (veth.far(), veth.wrapper());
        cluster.configure(&format!("listen_addresses = '{}'", veth.far()));
        let networks = cluster.data().join("pg_hba.conf");
        append(&networks, "\nhost all all 198.18.0.0/15 scram-sha-256\n");
        cluster.restart();
        cluster
    }

    /// A private cluster on this disk, running. Its WAL is small and takes space for each file.
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

    /// The disk of [`Cluster::on`].
    pub fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("a disk of its own")
    }

    fn filled(self) -> Cluster {
        run_as_postgres("cp", &["-a", text(&template().data()), text(&self.folder)]);
        self
    }

    /// Adds lines to `postgresql.conf`. They take effect at a restart or [`Cluster::reload`].
    pub fn configure(&self, lines: &str) {
        append(
            &self.data().join("postgresql.conf"),
            &format!("\n{lines}\n"),
        );
    }

    /// Makes the running cluster read its settings.
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
        within_value(LIMIT, "settings to be read", || {
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

    /// Makes a stopped, unused cluster begin with high transaction numbers.
    pub fn advance_transactions(&self) {
        run_as_postgres(
            text(&program("pg_resetwal")),
            &["--epoch=5", "-D", text(&self.data())],
        );
    }

    /// Makes a stopped cluster start as a standby, until [`Cluster::promote`].
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
        let folder = scratch::fresh_path("pg");
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

    pub fn host(&self) -> Ipv4Addr {
        self.host
    }

    /// Starts a stopped cluster and waits until it takes sessions.
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
    /// When it does not; the message holds its log.
    pub fn wait_ready(&self) {
        within_value(LIMIT, "PostgreSQL to take sessions", || {
            // After KILL the next postmaster refuses to start while an old session still runs.
            let mut process = self.process();
            let running = process.as_mut().expect("the cluster was launched");
            if running.exit_status().is_some() {
                let said = running.output();
                *process = Some(self.spawn());
                return Err(said);
            }
            let said = running.output();
            drop(process);
            self.try_superuser(DEFAULT_NAME)
                .map(drop)
                .map_err(|error| format!("{error:?}; {said}"))
        });
    }

    /// What the running server has logged.
    pub fn log(&self) -> String {
        self.process().as_ref().expect("the cluster runs").output()
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
        // Two sessions cannot copy the same template at once.
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

    /// The database that every cluster has.
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
            .connect_timeout(Duration::from_secs(20))
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
            // On QUIT the postmaster ends its children; KILL would leave them running.
            process.end("QUIT", STOP_LIMIT);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The cluster that all others are copies of, with the role and the database of visitas.
fn template() -> &'static Cluster {
    static TEMPLATE: OnceLock<Cluster> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let cluster = Cluster::in_empty_folder();
        let password = cluster.folder.join("password");
        fs::write(&password, SUPERUSER_PASSWORD).expect("a password file");
        let (data, pwfile) = (cluster.data(), format!("--pwfile={}", password.display()));
        let mut options = vec!["--username", SUPERUSER, "--auth=scram-sha-256", &pwfile];
        options.extend([
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
            "-D",
            text(&data),
        ]);
        run_as_postgres(text(&program("initdb")), &options);
        append(
            &data.join("postgresql.conf"),
            "\nlisten_addresses = '127.0.0.1'\nfsync = on\nsynchronous_commit = on\n\
             max_connections = 200\n",
        );
        if let Some(everywhere) = everywhere() {
            cluster.certify(&everywhere.server, &everywhere.authority);
        }
        cluster.launch();
        let mut sql = within_value(LIMIT, "PostgreSQL's first start", || {
            cluster.try_superuser(SUPERUSER)
        });
        sql.batch_execute(&format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'"))
            .expect("the role");
        sql.batch_execute(&format!("CREATE DATABASE {DEFAULT_NAME} OWNER {USER}"))
            .expect("the database");
        drop(sql);
        cluster.stop(Stop::Fast);
        cluster
    })
}

fn append(file: &Path, more: &str) {
    let content = fs::read_to_string(file).expect("PostgreSQL's settings");
    fs::write(file, content + more).expect("PostgreSQL's settings written");
}

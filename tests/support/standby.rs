//! A physical standby. It streams through a proxy, so that it can stall or be cut off.

use super::postgres::{Cluster, DEFAULT_NAME, SUPERUSER, SUPERUSER_PASSWORD};
use super::programs::{program, run_as_postgres};
use super::proxy::Proxy;
use super::wait::{LIMIT, within};

/// Its name in the primary's `synchronous_standby_names`.
const NAME: &str = "standby";

/// A running standby. Dropped, it is stopped and its folder removed.
#[derive(Debug)]
pub struct Standby {
    pub cluster: Cluster,
    /// Between it and its primary.
    proxy: Proxy,
}

impl Standby {
    /// A streaming standby of this running cluster. It is asynchronous until
    /// [`Standby::make_synchronous`].
    pub fn of(primary: &Cluster) -> Standby {
        let proxy = Proxy::to(primary.port());
        let cluster = Cluster::in_empty_folder();
        base_backup(primary, &cluster);
        cluster.configure(&format!(
            "primary_conninfo = '{} application_name={NAME}'\nwal_retrieve_retry_interval = 100ms\n\
             synchronous_standby_names = ''",
            address(proxy.port())
        ));
        cluster.demote();
        cluster.restart();
        let standby = Standby { cluster, proxy };
        standby.wait_for_state(primary, "state", "streaming");
        standby
    }

    /// Makes the primary's commits wait for this standby. `level` is a value of
    /// `synchronous_commit`.
    pub fn make_synchronous(&self, primary: &Cluster, level: &str) {
        primary.configure(&format!(
            "synchronous_standby_names = '{NAME}'\nsynchronous_commit = {level}"
        ));
        primary.reload();
        self.wait_for_state(primary, "sync_state", "sync");
    }

    fn wait_for_state(&self, primary: &Cluster, column: &str, state: &str) {
        let query =
            format!("SELECT {column} FROM pg_stat_replication WHERE application_name = '{NAME}'");
        let mut sql = primary.superuser(DEFAULT_NAME);
        within(LIMIT, &format!("{column} = {state} of the standby"), || {
            let rows = sql.query(&query, &[]).expect("the primary's standbys");
            rows.first()
                .is_some_and(|row| row.get::<_, Option<String>>(0).as_deref() == Some(state))
        });
    }

    /// Nothing reaches it or comes from it any more, and neither side notices.
    pub fn stall(&self) {
        self.proxy.swallow(true);
    }

    /// Its connection ends, and it gets no new one.
    pub fn cut_off(&self) {
        self.proxy.refuse(true);
        self.proxy.cut_all();
    }

    /// Ends [`Standby::stall`] or [`Standby::cut_off`]: it connects again and catches up.
    pub fn reconnect(&self) {
        self.proxy.heal();
        // Connections that swallowed bytes never pass anything again.
        self.proxy.cut_all();
    }

    /// Makes it the primary. The old primary must be stopped.
    pub fn promote(&self) {
        self.cluster.promote();
        let mut sql = self.cluster.superuser(DEFAULT_NAME);
        within(LIMIT, "the end of recovery", || {
            !sql.query_one("SELECT pg_is_in_recovery()", &[])
                .expect("an answer")
                .get::<_, bool>(0)
        });
    }
}

impl Standby {
    /// Waits until the launched server refuses sessions with SQLSTATE 57P03.
    pub fn refuses_sessions(&self) {
        within(LIMIT, "a server that refuses sessions", || {
            let session = self
                .cluster
                .session(DEFAULT_NAME, SUPERUSER, SUPERUSER_PASSWORD);
            session
                .err()
                .is_some_and(|error| error.code().is_some_and(|code| code.code() == "57P03"))
        });
    }
}

/// Copies a running cluster's data into an empty one.
pub fn base_backup(from: &Cluster, to: &Cluster) {
    let (source, target) = (address(from.port()), to.data());
    let target = target.to_str().expect("a path of UTF-8");
    let backup = program("pg_basebackup");
    let options = [
        "--checkpoint=fast",
        "--wal-method=stream",
        "--no-sync",
        "--dbname",
        &source,
        "--pgdata",
        target,
    ];
    run_as_postgres(backup.to_str().expect("a path of UTF-8"), &options);
}

fn address(port: u16) -> String {
    format!("host=127.0.0.1 port={port} user={SUPERUSER} password={SUPERUSER_PASSWORD}")
}

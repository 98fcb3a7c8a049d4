//! One database of a cluster: its rows, its sessions, and a lock on its table.

use ::postgres::Client;

use super::authority::everywhere;
use super::postgres::{Cluster, PASSWORD, USER};

/// For the address of a database in a test that asks nothing about logins: on a machine that
/// compiles beside the tests, a login takes long.
pub const PATIENCE: &str = "connect_timeout=20";

/// The address with one more parameter.
pub fn with(url: &str, parameter: &str) -> String {
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sign}{parameter}")
}

/// One database of a cluster. It stays until the cluster is removed.
#[derive(Debug)]
pub struct Database<'a> {
    pub cluster: &'a Cluster,
    pub name: String,
}

impl Database<'_> {
    pub fn port(&self) -> u16 {
        self.cluster.port()
    }

    /// Its address with the password, for `DATABASE_URL`.
    pub fn url(&self) -> String {
        self.url_at(self.port())
    }

    /// The same through another port, such as a proxy's.
    pub fn url_at(&self, port: u16) -> String {
        let (host, name) = (self.cluster.host(), &self.name);
        let encryption = everywhere().map_or_else(String::new, |everywhere| {
            let root = everywhere.root.display();
            format!("?sslmode=verify-ca&sslrootcert={root}")
        });
        format!("postgres://{USER}:{PASSWORD}@{host}:{port}/{name}{encryption}")
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

    /// The `bigint` that a query gives.
    #[track_caller]
    pub fn number(&self, query: &str) -> i64 {
        let row = self.superuser().query_one(query, &[]);
        row.expect(query).get(0)
    }

    /// `SELECT count(*) FROM acessos`: what the total must be.
    #[track_caller]
    pub fn rows(&self) -> u64 {
        u64::try_from(self.number("SELECT count(*) FROM acessos")).expect("a count")
    }

    /// Terminates every session of visitas in this database; gives their number.
    pub fn terminate_sessions(&self) -> usize {
        let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                         WHERE datname = $1 AND usename = $2";
        self.superuser()
            .query(terminate, &[&self.name, &USER])
            .expect("terminated sessions")
            .len()
    }

    /// The number of sessions of visitas that wait for a lock in this database.
    pub fn sessions_waiting(&self, watcher: &mut Client) -> usize {
        let waiting = "SELECT pid FROM pg_stat_activity \
                       WHERE datname = $1 AND usename = $2 \
                         AND (wait_event_type = 'Lock' OR wait_event = 'PgSleep')";
        watcher
            .query(waiting, &[&self.name, &USER])
            .expect("the sessions")
            .len()
    }

    /// Holds up every INSERT into `acessos` until the release. A lock would hold up a visit for some
    /// tries of less than a second, since visitas sets `lock_timeout`.
    pub fn hold_inserts(&self) -> HeldInserts {
        let mut sql = self.superuser();
        sql.batch_execute(
            "CREATE TABLE IF NOT EXISTS held (); GRANT SELECT ON held TO PUBLIC; \
             INSERT INTO held DEFAULT VALUES; \
             CREATE OR REPLACE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             WHILE EXISTS (SELECT FROM public.held) LOOP PERFORM pg_sleep(0.02); END LOOP; \
             RETURN NULL; END $$; \
             CREATE OR REPLACE TRIGGER hold BEFORE INSERT ON acessos \
             FOR EACH STATEMENT EXECUTE FUNCTION hold()",
        )
        .expect("a trigger that holds up rows");
        HeldInserts(sql)
    }

    /// Locks `acessos`: writers wait until the release, readers do not.
    pub fn lock_table(&self) -> TableLock {
        let mut sql = self.superuser();
        sql.batch_execute("BEGIN; LOCK TABLE acessos IN EXCLUSIVE MODE")
            .expect("a lock on the table");
        TableLock(sql)
    }
}

/// What keeps rows from being inserted. Dropped, it releases them: a transaction that waits for ever
/// would keep all databases of the cluster from folding.
pub struct HeldInserts(Client);

impl HeldInserts {
    pub fn release(mut self) {
        self.end().expect("the release");
    }

    fn end(&mut self) -> Result<(), ::postgres::Error> {
        self.0.batch_execute("DELETE FROM held")
    }
}

impl Drop for HeldInserts {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// A lock that keeps rows from being written.
pub struct TableLock(Client);

impl TableLock {
    pub fn release(mut self) {
        self.0.batch_execute("COMMIT").expect("the lock's release");
    }
}

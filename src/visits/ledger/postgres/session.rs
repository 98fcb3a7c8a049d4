//! One connection to PostgreSQL: how it is made, what it checks and creates, and the few statements a lane runs on it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Connection, Error, NoTls, Row, Socket, Statement};

use super::is_unfit;
use super::reach::Way;
use crate::visits::history::Step;

/// Everything that visitas needs in the database.
const SCHEMA: &str = include_str!("../schema.sql");

/// One row: whether all of [`SCHEMA`] is there as this version has it, and whether the table itself is.
const SCHEMA_IS_THERE: &str = "SELECT coalesce(obj_description(to_regclass('acessos_total'), 'pg_class') = 'visitas schema 2', false) \
     AND 4 = (SELECT count(*) FROM pg_trigger WHERE tgrelid = to_regclass('acessos') AND tgenabled = 'O' \
              AND tgname IN ('visitas_insert', 'visitas_update', 'visitas_delete', 'visitas_truncate')), \
     to_regclass('acessos') IS NOT NULL";

/// Works in the schema where `acessos` is, wherever the search path finds it, so that all is in one place. Never less
/// durable than a commit on this server's disk, whatever the database's own default is.
pub(super) const SETTLE_IN: &str = "SELECT set_config('search_path', quote_ident(coalesce( \
         (SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = to_regclass('acessos')), \
         current_schema())) || ', pg_temp', false), \
     CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', false) END";

/// The lock that keeps two processes from creating the schema at once. Any number will do; this one spells `visitas`.
const SCHEMA_LOCK: i64 = 0x0076_6973_6974_6173;

/// A statement on an unused connection is preceded by a look whether the server has closed it, from this age on.
const STALE_AFTER: Duration = Duration::from_millis(500);

/// Time for each step of making a connection. Longer than a loaded server takes, and short enough that a lane soon
/// tries anew, perhaps at another address.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);

/// Time for the schema to be created: it may have to wait for another process, and to count a table of a billion rows.
const SCHEMA_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Who a lane is: its random number, and the slot it had when it was connected last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub(super) owner: i64,
    pub(super) slot: Option<i32>,
}

/// A slot of `acessos_total`, as it was when this lane got it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) slot: i32,
    /// The last batch this lane committed.
    pub(super) batch: i64,
    /// The total with that batch.
    pub(super) seen: u64,
}

/// Why a session failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// PostgreSQL or the connection said so.
    Statement(Error),
    /// The database cannot be used until a person changes something.
    Unfit(String),
    /// The table was there when this lane connected first, and is not now.
    Missing,
    /// The connection ended.
    Closed,
    /// A step of making the connection took longer than it may.
    Slow(Duration),
    /// The name of the host has no address, or none was told in time.
    NoAddress(std::io::Error),
    /// An answer without the row it must have.
    NoRow,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Statement(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Statement(error) => f.write_str(&describe(error)),
            Failure::Unfit(reason) => f.write_str(reason),
            Failure::Missing => f.write_str("the table acessos is not there any more"),
            Failure::Slow(limit) => write!(f, "no answer in {limit:?}"),
            Failure::NoAddress(error) => write!(f, "{error}"),
            Failure::Closed => f.write_str("the server closed the connection"),
            Failure::NoRow => f.write_str("an answer without a row"),
        }
    }
}

/// The error with its cause and its SQLSTATE: the library's own text stops at "db error".
pub(super) fn describe(error: &Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", db.message(), db.code().code());
    }
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

pub(super) type Link = Connection<Socket, tokio_postgres::tls::NoTlsStream>;

/// A connection on which nothing was done yet.
pub(super) type Fresh = (Client, Link);

/// Connects to the first host that can be reached and logs in there, each within [`STEP_TIMEOUT`].
pub(super) async fn connect(way: &mut Way) -> Result<Fresh, Failure> {
    let mut last = Failure::Unfit("no host is configured".to_owned());
    for host in way.hosts() {
        // On this thread, which waits for the database anyway: no runtime has to keep threads for names.
        let connected = match way.to(&host) {
            Ok(config) => limited(async { Ok(config.connect(NoTls).await?) }).await,
            Err(error) => Err(Failure::NoAddress(error)),
        };
        match connected {
            Ok(fresh) => return Ok(fresh),
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

/// A connection that holds a slot.
pub(super) struct Session {
    client: Client,
    link: Link,
    commit: Statement,
    total: Statement,
    used: Instant,
}

impl Session {
    /// Creates what is missing, takes a slot, and proves that a batch could be committed. Every step but the creation
    /// of the schema, which may have many rows to count, ends within [`STEP_TIMEOUT`].
    pub(super) async fn open(fresh: Fresh, lane: Identity) -> Result<(Session, Slot), Failure> {
        let (client, mut link) = fresh;
        if !limited(driven(&mut link, has_schema(&client, lane))).await? {
            let created = tokio::time::timeout(SCHEMA_TIMEOUT, driven(&mut link, create_schema(&client))).await;
            created.unwrap_or(Err(Failure::Slow(SCHEMA_TIMEOUT)))?;
        }
        let (commit, total, slot) = limited(driven(&mut link, take_slot(&client, lane))).await?;
        let mut session = Session { client, link, commit, total, used: Instant::now() };
        limited(session.rehearse(slot.slot, lane.owner, slot.batch + 1)).await?;
        Ok((session, slot))
    }

    /// Whether the server still has this connection, as far as can be told without asking it.
    pub(super) async fn is_alive(&mut self) -> bool {
        if self.used.elapsed() < STALE_AFTER {
            return true;
        }
        // Lets the runtime see what came from the socket, and then the connection.
        tokio::task::yield_now().await;
        poll_fn(|context| Poll::Ready(Pin::new(&mut self.link).poll(context).is_pending())).await
    }

    /// One row for each arrival and the batch's number, in one transaction; gives the total with them.
    pub(super) async fn commit(
        &mut self,
        slot: i32,
        owner: i64,
        batch: i64,
        arrivals: &[SystemTime],
    ) -> Result<u64, Failure> {
        let minute = single_minute(arrivals);
        let Session { client, link, commit, .. } = self;
        let rows =
            driven(link, async { Ok(client.query(&*commit, &[&slot, &owner, &batch, &arrivals, &minute]).await?) })
                .await?;
        self.used = Instant::now();
        single_total(&rows)
    }

    /// The total as it stands.
    pub(super) async fn total(&mut self) -> Result<u64, Failure> {
        let Session { client, link, total, .. } = self;
        let rows = driven(link, async { Ok(client.query(&*total, &[]).await?) }).await?;
        self.used = Instant::now();
        single_total(&rows)
    }

    /// Gives the slot back.
    pub(super) async fn release(&mut self, slot: i32, owner: i64) -> Result<(), Failure> {
        let Session { client, link, .. } = self;
        let statement = "UPDATE acessos_total SET owner = NULL WHERE slot = $1 AND owner = $2";
        driven(link, async { Ok(client.execute(statement, &[&slot, &owner]).await?) }).await?;
        Ok(())
    }

    /// Commits a batch of one, and takes it back: whatever would keep the next batch from being committed (a table
    /// that is missing, a server that is read-only, a right that was revoked) is found here.
    async fn rehearse(&mut self, slot: i32, owner: i64, batch: i64) -> Result<(), Failure> {
        let Session { client, link, .. } = self;
        let script = format!("BEGIN; SELECT visitas_commit({slot}, {owner}, {batch}, ARRAY[now()], 0); ROLLBACK");
        driven(link, async { Ok(client.batch_execute(&script).await?) }).await.map_err(unfit)
    }
}

/// Settles where the session works, and tells whether all of the schema is there.
async fn has_schema(client: &Client, lane: Identity) -> Result<bool, Failure> {
    client.batch_execute(SETTLE_IN).await?;
    let row = client.query_one(SCHEMA_IS_THERE, &[]).await?;
    let (all, table): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
    // A table that vanishes under a running process is being replaced by somebody, who must not find one in his way.
    if !table && lane.slot.is_some() {
        return Err(Failure::Missing);
    }
    Ok(all)
}

/// Takes the lane's slot and prepares its statements.
async fn take_slot(client: &Client, lane: Identity) -> Result<(Statement, Statement, Slot), Failure> {
    let row =
        client.query_one("SELECT slot, batch, seen FROM visitas_open($1, $2)", &[&lane.owner, &lane.slot]).await?;
    let seen = u64::try_from(row.try_get::<_, i64>(2)?).unwrap_or(0);
    let slot = Slot { slot: row.try_get(0)?, batch: row.try_get(1)?, seen };
    let types = [Type::INT4, Type::INT8, Type::INT8, Type::TIMESTAMPTZ_ARRAY, Type::INT8];
    let commit = client.prepare_typed("SELECT visitas_commit($1, $2, $3, $4, $5)", &types).await?;
    let total = client.prepare("SELECT sum(total)::bigint FROM acessos_total").await?;
    Ok((commit, total, slot))
}

/// Creates what is missing, one process at a time.
async fn create_schema(client: &Client) -> Result<(), Failure> {
    // Counting may take a while where there are many rows, and so may waiting for another process that counts.
    let ms = SCHEMA_TIMEOUT.as_millis();
    let limits = format!("SET LOCAL statement_timeout = {ms}; SET LOCAL lock_timeout = {ms}");
    client.batch_execute(&format!("BEGIN; {limits}; SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")).await?;
    // Another process may just have done it.
    if !client.query_one(SCHEMA_IS_THERE, &[]).await?.try_get::<_, bool>(0)? {
        log::info!("creating what visitas needs in the database, and counting the rows that are there");
        client.batch_execute(SCHEMA).await.map_err(|error| unfit(error.into()))?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(())
}

/// Tells a table that cannot take a visit from a failure that passes.
fn unfit(failure: Failure) -> Failure {
    match failure {
        Failure::Statement(error) if is_unfit(&error) => {
            Failure::Unfit(format!("the table acessos cannot take a visit: {}", describe(&error)))
        }
        other => other,
    }
}

fn single_total(rows: &[Row]) -> Result<u64, Failure> {
    let row = rows.first().ok_or(Failure::NoRow)?;
    Ok(u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0))
}

/// The minute that all of them are in; none when they are not all in one.
fn single_minute(arrivals: &[SystemTime]) -> Option<i64> {
    let mut minutes = arrivals.iter().map(|arrival| Step::Minute.start_of(*arrival));
    let first = minutes.next()?;
    minutes.all(|minute| minute == first).then_some(first)
}

/// Gives a step of making a connection up after [`STEP_TIMEOUT`].
pub(super) async fn limited<T>(step: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(STEP_TIMEOUT, step).await.unwrap_or(Err(Failure::Slow(STEP_TIMEOUT)))
}

/// Drives the connection until `work` on its client is done.
pub(super) async fn driven<T>(link: &mut Link, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut work = pin!(work);
    poll_fn(|context| {
        // First the work, which queues what is to be sent; then the connection, which sends and receives.
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(done);
        }
        let ended = Pin::new(&mut *link).poll(context);
        match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => ended.map(|result| Err(result.err().map_or(Failure::Closed, Failure::Statement))),
        }
    })
    .await
}

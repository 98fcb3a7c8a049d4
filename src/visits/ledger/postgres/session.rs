//! One connection to PostgreSQL, or to a pooler before it: how it is made, and a lane's statements.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncReadExt, duplex};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Row, Socket, Statement};

use super::encryption::{self, Connector};
use super::endpoints::{Endpoints, Host};
use super::failure::Failure;
use super::writer::Entry;
use crate::visits::history::{Bucket, Step};
use crate::visits::ledger::Totals;

/// A connection unused for this long is checked before the next statement.
const STALE_AFTER: Duration = Duration::from_millis(500);

/// Time for each step of making a connection. A loaded server takes less, and a lane soon tries
/// anew, perhaps at another address.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(3);

/// Time to tell a server that a statement is given up.
const CANCEL_TIMEOUT: Duration = Duration::from_millis(500);

// How soon the server finds that this process has vanished (PostgreSQL manual, "Client Connection
// Defaults").
const SETTINGS: &str = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 3; \
     SET tcp_keepalives_count = 3; SET default_transaction_isolation = 'read committed'";

/// Where the session is, and whether visits can be written there. Works in the schema where
/// `acessos` is, wherever the search path finds it, so that all is in one place. That path may have
/// a schema that strangers create in: every operator here and in the statements of a session is one
/// of exactly these types, which `pg_catalog` has and which comes first.
const PLACE: &str = "SELECT pg_backend_pid(), \
     quote_ident(coalesce((SELECT nspname FROM pg_class c \
                             JOIN pg_namespace n ON n.oid = relnamespace \
                            WHERE c.oid = to_regclass('acessos')::oid), current_schema())::text), \
     pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'";

/// A connection, and the schema that it works in.
pub(super) struct Session {
    pub(super) client: Client,
    /// The quoted name of the schema where `acessos` is.
    pub(super) schema: String,
    /// Another program stands between, and may give each transaction another session.
    pub(super) pooled: bool,
    connector: Connector,
    /// Why it is plain, where it was to be encrypted.
    plain_since: Option<String>,
    warning: Arc<Warning>,
    commit: Call,
    peek: Call,
    used: Instant,
}

/// A statement that a lane runs often.
struct Call {
    text: String,
    types: &'static [Type],
    /// Where the session is ours alone it is parsed once: that saves PostgreSQL some 25 us each
    /// time. Behind a pooler the same name may mean another client's statement.
    prepared: Option<Statement>,
}

impl Call {
    async fn run(&self, client: &Client, params: &[&(dyn ToSql + Sync)]) -> Result<Row, Failure> {
        let row = match &self.prepared {
            Some(statement) => client.query_one(statement, params).await?,
            None => {
                let typed: Vec<_> = params
                    .iter()
                    .copied()
                    .zip(self.types.iter().cloned())
                    .collect();
                client.query_typed_one(&self.text, &typed).await?
            }
        };
        Ok(row)
    }
}

const COMMIT_TYPES: &[Type] = &[
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::TIMESTAMPTZ_ARRAY,
    Type::INT8,
    Type::INT8,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::BOOL,
];

/// What a commit says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Committed {
    pub(super) totals: Totals,
    /// Changes wait to be folded.
    pub(super) unfolded: bool,
    /// There is no other writer, and no change: the next commit need only look whether it is so
    /// still.
    pub(super) alone: bool,
}

/// The last warning that came with an answer.
#[derive(Debug, Default)]
struct Warning {
    came: AtomicBool,
    text: std::sync::Mutex<String>,
}

impl Warning {
    /// Notes a warning of class 01. PostgreSQL gives one when the wait for a standby was cancelled:
    /// the transaction is committed here and perhaps nowhere else. What a trigger says by RAISE is
    /// no such warning.
    fn note(&self, notice: &tokio_postgres::error::DbError) {
        if notice.code().code().starts_with("01") && notice.routine() != Some("exec_stmt_raise") {
            notice.message().clone_into(
                &mut self
                    .text
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner),
            );
            self.came.store(true, Ordering::Release);
        }
    }

    fn take(&self) -> Option<String> {
        let came = self.came.swap(false, Ordering::AcqRel);
        came.then(|| {
            self.text
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .clone()
        })
    }
}

/// Reads what the server sends, for as long as the connection lives.
async fn drive<T>(mut connection: Connection<Socket, T>, warning: Arc<Warning>)
where
    Connection<Socket, T>: Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(Ok(message)) =
        std::future::poll_fn(|context| connection.poll_message(context)).await
    {
        if let AsyncMessage::Notice(notice) = message {
            warning.note(&notice);
        }
    }
}

impl Session {
    /// Connects to the first address of a host that can be reached, logs in and takes writes.
    pub(super) async fn connect(endpoints: &mut Endpoints) -> Result<Session, Failure> {
        let mut last = Failure::Unfit("no host is configured".to_owned());
        for host in endpoints.hosts() {
            // On this thread, which waits for the database anyway: no runtime has to keep threads
            // for names.
            let configs = match endpoints.configs(&host) {
                Ok(configs) => configs,
                Err(error) => {
                    last = Failure::NoAddress(error);
                    continue;
                }
            };
            for config in configs {
                let connected = match endpoints.connectors(&host) {
                    Ok(connectors) => Session::to(&host, &config, connectors).await,
                    Err(refusal) => Err(Failure::Encryption(refusal)),
                };
                match connected {
                    Ok(session) => return Ok(session),
                    Err(failure) => last = failure,
                }
            }
        }
        Err(last)
    }

    /// Logs in at the one address of `config` by the first kind of connection, or by the second,
    /// where the first is refused, each within [`STEP_TIMEOUT`].
    async fn to(
        host: &Host,
        config: &Config,
        connectors: Vec<Connector>,
    ) -> Result<Session, Failure> {
        let mut refused: Option<Failure> = None;
        for connector in connectors {
            let login = async { Ok(config.connect(connector.to_owned()).await?) };
            let failure = match limited(STEP_TIMEOUT, login).await {
                Ok((client, connection)) => {
                    let warning = Arc::new(Warning::default());
                    tokio::spawn(drive(connection, Arc::clone(&warning)));
                    let begun = Session::begin(client, connector, warning);
                    let mut session = limited(STEP_TIMEOUT, begun).await?;
                    if let (Some(refused), None) = (refused, session.encryption()) {
                        log::warn!("{host} is used without TLS, which failed: {refused}");
                        session.plain_since = Some(refused.to_string());
                    }
                    return Ok(session);
                }
                Err(failure) => failure,
            };
            let again = failure.may_be_for_encryption() && !encryption::was_declined(&connector);
            refused = Some(match refused {
                Some(first) => Failure::Neither(Box::new(first), Box::new(failure)),
                None => failure,
            });
            if !again {
                break;
            }
        }
        Err(refused.unwrap_or(Failure::Closed))
    }

    async fn begin(
        client: Client,
        connector: Connector,
        warning: Arc<Warning>,
    ) -> Result<Session, Failure> {
        let row = client.query_typed_one(PLACE, &[]).await?;
        let (pid, schema): (i32, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        if row.try_get(2)? {
            return Err(Failure::ReadOnly);
        }
        let Some(schema) = schema else {
            return Err(Failure::Unfit(
                "the search_path names no schema that is there".to_owned(),
            ));
        };
        let pooled = process_id(&client).await != Some(pid);
        if !pooled {
            // Nothing depends on these: behind a pooler they would be left to its other clients.
            client.batch_execute(SETTINGS).await?;
        }
        let commit = Call {
            text: format!("SELECT {schema}.visitas_commit($1, $2, $3, $4, $5, $6, $7, $8, $9)"),
            types: COMMIT_TYPES,
            prepared: None,
        };
        let peek = Call {
            text: format!("SELECT * FROM {schema}.visitas_peek()"),
            types: &[],
            prepared: None,
        };
        Ok(Session {
            client,
            schema,
            pooled,
            connector,
            plain_since: None,
            warning,
            commit,
            peek,
            used: Instant::now(),
        })
    }

    /// Has the server parse what a lane runs for each batch, where that is worth it.
    pub(super) async fn prepare(&mut self) -> Result<(), Failure> {
        if !self.pooled {
            self.commit.prepared = Some(
                self.client
                    .prepare_typed(&self.commit.text, self.commit.types)
                    .await?,
            );
        }
        Ok(())
    }

    /// Whether the server still has this connection, as far as can be told without asking it.
    pub(super) async fn is_alive(&self) -> bool {
        if self.used.elapsed() >= STALE_AFTER {
            // Lets the runtime see what came from the socket, and then the connection's task.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        }
        !self.client.is_closed()
    }

    /// One row for each arrival and the writer's next entry, in one transaction.
    pub(super) async fn commit(
        &mut self,
        entry: &Entry,
        arrivals: &[SystemTime],
        alone: bool,
    ) -> Result<Committed, Failure> {
        let Entry {
            writer,
            number,
            before,
            minute,
            minute_visits,
            past,
            past_visits,
            ..
        } = entry;
        let params: [&(dyn ToSql + Sync); 9] = [
            writer,
            number,
            before,
            &arrivals,
            minute,
            minute_visits,
            past,
            past_visits,
            &alone,
        ];
        self.warning.take();
        let row = self.commit.run(&self.client, &params).await?;
        self.settled()?;
        match row.try_get::<_, Vec<i64>>(0)?[..] {
            [total, pruned, unfolded, alone] => Ok(Committed {
                totals: counts(total, pruned),
                unfolded: unfolded != 0,
                alone: alone != 0,
            }),
            _ => Err(Failure::NoRow),
        }
    }

    /// Closes the `old` writer and a `stray` one, and registers a `new` one. Gives the number of
    /// the old one's closing entry, if it is known, and the totals.
    pub(super) async fn hand_over(
        &mut self,
        new: i64,
        old: Option<i64>,
        stray: Option<i64>,
    ) -> Result<(Option<i64>, Totals), Failure> {
        let text = format!(
            "SELECT * FROM {}.visitas_hand_over($1, $2, $3)",
            self.schema
        );
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&new, Type::INT8), (&old, Type::INT8), (&stray, Type::INT8)];
        self.warning.take();
        let row = self.client.query_typed_one(&text, &params).await?;
        self.settled()?;
        Ok((row.try_get(0)?, totals(&row, 1)?))
    }

    /// The last statement's commit came without PostgreSQL's warning.
    fn settled(&mut self) -> Result<(), Failure> {
        self.used = Instant::now();
        self.warning
            .take()
            .map_or(Ok(()), |warning| Err(Failure::Unsettled(warning)))
    }

    /// The totals as they stand.
    pub(super) async fn peek(&mut self) -> Result<Totals, Failure> {
        let row = self.peek.run(&self.client, &[]).await?;
        self.used = Instant::now();
        totals(&row, 0)
    }

    /// The parts of the history since these beginnings of its steps.
    pub(super) async fn history(&mut self, since: [i64; 3]) -> Result<Vec<Bucket>, Failure> {
        let text = format!("SELECT * FROM {}.visitas_history($1, $2)", self.schema);
        let (steps, since) = (Step::ALL.map(Step::seconds).to_vec(), since.to_vec());
        let params: [(&(dyn ToSql + Sync), Type); 2] =
            [(&steps, Type::INT8_ARRAY), (&since, Type::INT8_ARRAY)];
        let rows = self.client.query_typed(&text, &params).await?;
        self.used = Instant::now();
        rows.iter().map(bucket).collect()
    }

    /// Drops the writer's entries `from` and up to `to`, closes silent writers, and folds what was
    /// appended.
    pub(super) async fn maintain(
        &mut self,
        writer: i64,
        from: i64,
        to: i64,
    ) -> Result<(), Failure> {
        let text = format!("SELECT {}.visitas_maintain($1, $2, $3)", self.schema);
        let params: [(&(dyn ToSql + Sync), Type); 3] = [
            (&writer, Type::INT8),
            (&from, Type::INT8),
            (&to, Type::INT8),
        ];
        self.client.query_typed(&text, &params).await?;
        self.used = Instant::now();
        Ok(())
    }

    /// Closes the writer for good.
    pub(super) async fn close(&mut self, writer: i64) -> Result<(), Failure> {
        let text = format!("SELECT {}.visitas_close($1)", self.schema);
        self.client
            .query_typed(&text, &[(&writer, Type::INT8)])
            .await?;
        Ok(())
    }

    /// Commits a batch of one, and takes it back: whatever would keep the next batch from being
    /// committed (a table that is missing, a server that is read-only, a right that was revoked) is
    /// found here.
    pub(super) async fn dry_run(&mut self, writer: i64) -> Result<(), Failure> {
        let schema = &self.schema;
        let script = format!(
            "BEGIN; \
             SELECT {schema}.visitas_hand_over({writer}::bigint, NULL::bigint, NULL::bigint); \
             SELECT {schema}.visitas_commit({writer}::bigint, 1::bigint, 0::bigint, ARRAY[now()], \
                 0::bigint, 1::bigint, '{{}}'::bigint[], '{{}}'::bigint[], true); ROLLBACK"
        );
        Ok(self.client.batch_execute(&script).await?)
    }

    /// Tells the server to give up the statement that got no answer, by a connection that is as
    /// encrypted as this one.
    pub(super) async fn cancel(&self) {
        let connector = match encryption::as_encrypted(&self.connector) {
            Ok(connector) => connector,
            Err(refusal) => return log::warn!("a statement is not cancelled: {refusal}"),
        };
        let token = self.client.cancel_token();
        let cancelled = token.cancel_query(connector);
        let _ = tokio::time::timeout(CANCEL_TIMEOUT, cancelled).await;
    }

    /// Why the connection is plain, where it was to be encrypted.
    pub(super) fn plain_since(&self) -> Option<&str> {
        self.plain_since.as_deref()
    }

    /// Protocol, cipher and what was verified; `None` where the connection is plain.
    pub(super) fn encryption(&self) -> Option<&str> {
        encryption::found(&self.connector)
    }
}

/// The server's process that the login was answered for. A pooler answers with a number of its own
/// making, so a session of another process says that one stands between. The library tells the
/// number in a request to cancel alone (PostgreSQL manual, "Message Formats": CancelRequest).
async fn process_id(client: &Client) -> Option<i32> {
    let (ours, mut theirs) = duplex(64);
    client
        .cancel_token()
        .cancel_query_raw(ours, encryption::plain())
        .await
        .ok()?;
    let mut request = [0; 16];
    theirs.read_exact(&mut request).await.ok()?;
    Some(i32::from_be_bytes(request[8..12].try_into().ok()?))
}

fn totals(row: &Row, column: usize) -> Result<Totals, Failure> {
    Ok(counts(row.try_get(column)?, row.try_get(column + 1)?))
}

/// Neither is below 0, but for rows that were taken from the table behind the triggers' back.
fn counts(total: i64, pruned: i64) -> Totals {
    Totals {
        total: u64::try_from(total).unwrap_or(0),
        pruned: u64::try_from(pruned).unwrap_or(0),
    }
}

fn bucket(row: &Row) -> Result<Bucket, Failure> {
    let seconds: i64 = row.try_get(0)?;
    let step = Step::ALL
        .into_iter()
        .find(|step| step.seconds() == seconds)
        .ok_or(Failure::NoRow)?;
    Ok(Bucket {
        step,
        start: row.try_get(1)?,
        visits: row.try_get(2)?,
    })
}

/// Gives a step up after that time.
pub(super) async fn limited<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(limit, step)
        .await
        .unwrap_or(Err(Failure::Slow(limit)))
}

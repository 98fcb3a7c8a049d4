//! One connection to PostgreSQL, or to a pooler before it: how it is made, and a lane's statements.

use std::time::{Duration, Instant, SystemTime};

use postgres_protocol::message::frontend;
use postgres_types::{ToSql, Type};

use super::address::Host;
use super::client::{Client, Param, Row, Statement};
use super::encryption::{self, Kind};
use super::endpoints::{Endpoints, Place};
use super::failure::Failure;
use super::login;
use super::named::Own;
use super::writer::Entry;
use crate::visits::history::{Bucket, Step};
use crate::visits::ledger::{Meanwhile, Sums, Totals};
use crate::visits::name::Name;
use crate::visits::store::Wire;

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
    place: Place,
    kind: Kind,
    step_timeout: Duration,
    /// Why it is plain, where it was to be encrypted.
    plain_since: Option<String>,
    /// What a lane runs for each batch. Where the session is ours alone it is parsed once: that
    /// saves PostgreSQL some 25 us each time. Behind a pooler the same name may mean another
    /// client's statement.
    commit: Option<Statement>,
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
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8,
    Type::INT4,
    Type::INT8,
];

/// What a commit says.
#[derive(Debug, Clone)]
pub(super) struct Committed {
    pub(super) totals: Totals,
    /// The totals of its names without the writer's own, and what was deleted of each, where the
    /// writer does not know them.
    pub(super) named: Option<Vec<(i64, i64)>>,
    /// Changes wait to be folded.
    pub(super) unfolded: bool,
    /// The number of the base, where there is no other writer, and no change: the next commit need
    /// only look whether it is so still.
    pub(super) base: Option<i64>,
}

impl Session {
    /// Connects to the first address of a host that can be reached, logs in and takes writes.
    pub(super) fn connect(endpoints: &mut Endpoints) -> Result<Session, Failure> {
        let mut last = Failure::Unfit("no host is configured".to_owned());
        for host in endpoints.hosts() {
            let places = match endpoints.places(&host) {
                Ok(places) => places,
                Err(error) => {
                    last = Failure::NoAddress(error);
                    continue;
                }
            };
            for place in places {
                match Session::to(endpoints, &host, &place) {
                    Ok(session) => return Ok(session),
                    Err(failure) => last = failure,
                }
            }
        }
        Err(last)
    }

    /// Logs in at `place` by the first kind of connection, or by the second, where the first is
    /// refused, each within the time for a step.
    fn to(endpoints: &Endpoints, host: &Host, place: &Place) -> Result<Session, Failure> {
        let name = match host {
            Host::Tcp(name, ..) => name.as_str(),
            Host::Unix(..) => "",
        };
        let kinds = match place {
            Place::Tcp(_) => encryption::kinds(&endpoints.address, name)?,
            Place::Unix(_) => vec![Kind::Plain],
        };
        let mut refused: Option<Failure> = None;
        for kind in kinds {
            let mut was_declined = false;
            let failure = match Session::log_in(endpoints, place, &kind, &mut was_declined) {
                Ok(client) => {
                    let limit = endpoints.step_timeout;
                    let mut session = Session::begin(client, place, kind, limit)?;
                    if let (Some(refused), None) = (refused, session.encryption()) {
                        log::warn!("{host} is used without TLS, which failed: {refused}");
                        session.plain_since = Some(refused.to_string());
                    }
                    return Ok(session);
                }
                Err(failure) => failure,
            };
            let again = failure.may_be_for_encryption() && !was_declined;
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

    /// `was_declined` tells that the server offered no TLS, and was taken as it is.
    fn log_in(
        endpoints: &Endpoints,
        place: &Place,
        kind: &Kind,
        was_declined: &mut bool,
    ) -> Result<Client, Failure> {
        let began = Instant::now();
        let socket = endpoints
            .connect(place)
            .map_err(|error| Failure::Unreachable(place.clone(), error))?;
        let wire = kind.connect(socket, endpoints.step_timeout)?;
        *was_declined = !matches!(kind, Kind::Plain) && matches!(wire, Wire::Plain(_));
        let mut client = Client::new(wire);
        client.set_deadline(began, endpoints.step_timeout);
        login::log_in(&mut client, &endpoints.address)?;
        Ok(client)
    }

    fn begin(
        mut client: Client,
        place: &Place,
        kind: Kind,
        step_timeout: Duration,
    ) -> Result<Session, Failure> {
        client.set_limit(step_timeout);
        let row = client.query_one(PLACE, &[])?;
        let (process, schema): (i32, Option<String>) = (row.get(0)?, row.get(1)?);
        if row.get(2)? {
            return Err(Failure::ReadOnly);
        }
        let Some(schema) = schema else {
            return Err(Failure::Unfit(
                "the search_path names no schema that is there".to_owned(),
            ));
        };
        // A pooler answers the login with a number of its own making.
        let pooled = client.process.0 != process;
        if !pooled {
            // Nothing depends on these: behind a pooler they would be left to its other clients.
            client.batch_execute(SETTINGS)?;
        }
        Ok(Session {
            client,
            schema,
            pooled,
            place: place.clone(),
            kind,
            step_timeout,
            plain_since: None,
            commit: None,
        })
    }

    /// Gives all of `step` the time for a step of making a connection.
    pub(super) fn step<T>(
        &mut self,
        step: impl FnOnce(&mut Session) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.within(self.step_timeout, step)
    }

    /// Gives all of `step` that time.
    pub(super) fn within<T>(
        &mut self,
        limit: Duration,
        step: impl FnOnce(&mut Session) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.client.set_limit(limit);
        step(self)
    }

    /// Has the server parse what a lane runs for each batch, where that is worth it.
    pub(super) fn prepare(&mut self) -> Result<(), Failure> {
        if !self.pooled {
            let text = self.commit_text();
            self.commit = Some(self.client.prepare("commit", &text, COMMIT_TYPES)?);
        }
        Ok(())
    }

    fn commit_text(&self) -> String {
        let schema = &self.schema;
        format!(
            "SELECT {schema}.visitas_commit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, \
                 $13, $14, $15, $16, $17, $18)"
        )
    }

    /// One row for each arrival and the writer's next entry, in one transaction. Calls `meanwhile`
    /// once it is sent.
    pub(super) fn commit(
        &mut self,
        entry: &Entry,
        arrivals: &[SystemTime],
        alone: bool,
        meanwhile: Meanwhile<'_>,
    ) -> Result<Committed, Failure> {
        let Entry {
            writer,
            number,
            before,
            minute,
            past,
            past_visits,
            named,
            named_from,
            ..
        } = entry;
        let named = named.as_ref();
        let visited = named.filter(|named| named.asked > 0);
        let rows = visited.map(|named| optional_texts(&named.rows));
        let names = named.map(|named| texts(&named.names));
        let totals = named.map(|named| &named.totals);
        let minutes = named.map(|named| &named.minutes);
        let minutes_visits = named.map(|named| &named.minutes_visits);
        let past_names = visited.map(|named| optional_texts(&named.past_names));
        let base = named.and_then(|named| named.base);
        // No batch has that many names.
        let asked = named.map(|named| i32::try_from(named.asked).unwrap_or(i32::MAX));
        let params: [&(dyn ToSql + Sync); 18] = [
            writer,
            number,
            before,
            &arrivals,
            &minute.start,
            &minute.visits,
            past,
            past_visits,
            &alone,
            &rows,
            &names,
            &totals,
            &minutes,
            &minutes_visits,
            &past_names,
            &base,
            &asked,
            named_from,
        ];
        self.client.take_warning();
        match &self.commit {
            Some(statement) => self.client.send(statement, &params)?,
            None => {
                let typed: Vec<Param<'_>> = params
                    .into_iter()
                    .zip(COMMIT_TYPES.iter().cloned())
                    .collect();
                self.client.send_text(&self.commit_text(), &typed)?;
            }
        }
        let row = self.client.receive(self.commit.as_ref(), meanwhile)?;
        self.settled()?;
        match &row.get::<Vec<i64>>(0)?[..] {
            [total, pruned, unfolded, alone, base, named @ ..] => Ok(Committed {
                totals: counts((*total, *pruned)),
                named: (!named.is_empty()).then(|| pairs(named).collect()),
                unfolded: *unfolded != 0,
                base: (*alone != 0).then_some(*base),
            }),
            _ => Err(Failure::NoRow),
        }
    }

    /// Closes the `old` writer and a `stray` one, and registers a `new` one. Gives the number of
    /// the old one's closing entry, if it is known, and the totals: of all visits, and of `names`.
    pub(super) fn hand_over(
        &mut self,
        new: i64,
        old: Option<i64>,
        stray: Option<i64>,
        names: &[Name],
    ) -> Result<(Option<i64>, Sums), Failure> {
        let schema = &self.schema;
        let names = texts(names);
        let mut params: Vec<Param<'_>> =
            vec![(&new, Type::INT8), (&old, Type::INT8), (&stray, Type::INT8)];
        let text = if names.is_empty() {
            format!("SELECT *, NULL::bigint[] FROM {schema}.visitas_hand_over($1, $2, $3)")
        } else {
            params.push((&names, Type::TEXT_ARRAY));
            format!("SELECT * FROM {schema}.visitas_hand_over_named($1, $2, $3, $4)")
        };
        self.client.take_warning();
        let row = self.client.query_one(&text, &params)?;
        self.settled()?;
        let named = row.get::<Option<Vec<i64>>>(3)?.unwrap_or_default();
        let sums = Sums {
            all: totals(&row, 1)?,
            names: pairs(&named).map(counts).collect(),
        };
        Ok((row.get(0)?, sums))
    }

    /// The last statement's commit came without PostgreSQL's warning.
    fn settled(&mut self) -> Result<(), Failure> {
        self.client
            .take_warning()
            .map_or(Ok(()), |warning| Err(Failure::Unsettled(warning)))
    }

    /// The totals as they stand.
    pub(super) fn peek(&mut self) -> Result<Totals, Failure> {
        let text = format!("SELECT * FROM {}.visitas_peek()", self.schema);
        let row = self.client.query_one(&text, &[])?;
        totals(&row, 0)
    }

    /// The parts of the history since these beginnings of its steps.
    pub(super) fn history(&mut self, since: [i64; 3]) -> Result<Vec<Bucket>, Failure> {
        let text = format!("SELECT * FROM {}.visitas_history($1, $2)", self.schema);
        let (steps, since) = (Step::ALL.map(Step::seconds).to_vec(), since.to_vec());
        let params: [Param<'_>; 2] = [(&steps, Type::INT8_ARRAY), (&since, Type::INT8_ARRAY)];
        let rows = self.client.query(&text, &params)?;
        rows.iter().map(bucket).collect()
    }

    /// The totals of each of the names. What the writer `own` has, the ledger need not read.
    pub(super) fn names(
        &mut self,
        names: &[Name],
        own: Option<&(i64, Own)>,
    ) -> Result<Vec<Totals>, Failure> {
        let text = format!("SELECT {}.visitas_named_sums($1, $2, $3)", self.schema);
        let params: [Param<'_>; 3] = [
            (&texts(names), Type::TEXT_ARRAY),
            (&own.map(|(writer, _)| writer), Type::INT8),
            (&own.map(|(_, own)| &own.totals), Type::INT8_ARRAY),
        ];
        let row = self.client.query_one(&text, &params)?;
        let numbers: Vec<i64> = row.get(0)?;
        Ok(pairs(&numbers).map(counts).collect())
    }

    /// As [`Session::history`], for each of the names: its place among them comes first.
    pub(super) fn histories(
        &mut self,
        names: &[Name],
        since: [i64; 3],
        own: Option<&(i64, Own)>,
    ) -> Result<Vec<(usize, Bucket)>, Failure> {
        let schema = &self.schema;
        let text = format!(
            "SELECT step, start, visits, place \
               FROM {schema}.visitas_named_history($1, $2, $3, $4, $5, $6)"
        );
        let (steps, since) = (Step::ALL.map(Step::seconds).to_vec(), since.to_vec());
        let params: [Param<'_>; 6] = [
            (&texts(names), Type::TEXT_ARRAY),
            (&steps, Type::INT8_ARRAY),
            (&since, Type::INT8_ARRAY),
            (&own.map(|(writer, _)| writer), Type::INT8),
            (&own.map(|(_, own)| &own.minutes), Type::INT8_ARRAY),
            (&own.map(|(_, own)| &own.minutes_visits), Type::INT8_ARRAY),
        ];
        let rows = self.client.query(&text, &params)?;
        let placed = |row: &Row| {
            // PostgreSQL numbers from 1.
            let place = row.get::<i64>(3)? - 1;
            Ok((usize::try_from(place).unwrap_or(usize::MAX), bucket(row)?))
        };
        rows.iter().map(placed).collect()
    }

    /// Up to `most` names after that one, in order, with their totals.
    pub(super) fn list(
        &mut self,
        after: &str,
        most: usize,
    ) -> Result<Vec<(String, Totals)>, Failure> {
        let text = format!("SELECT * FROM {}.visitas_list($1, $2)", self.schema);
        let most = i32::try_from(most).unwrap_or(i32::MAX);
        let params: [Param<'_>; 2] = [(&after, Type::TEXT), (&most, Type::INT4)];
        let row = self.client.query_one(&text, &params)?;
        let (names, sums): (Vec<String>, Vec<i64>) = (row.get(0)?, row.get(1)?);
        Ok(names.into_iter().zip(pairs(&sums).map(counts)).collect())
    }

    /// Drops the writer's rows of these names with these numbers. Calls `meanwhile` once it is
    /// sent.
    pub(super) fn trim(
        &mut self,
        writer: i64,
        names: &[Name],
        numbers: &[i64],
        meanwhile: Meanwhile<'_>,
    ) -> Result<(), Failure> {
        let text = format!("SELECT {}.visitas_trim($1, $2, $3)", self.schema);
        let params: [Param<'_>; 3] = [
            (&writer, Type::INT8),
            (&texts(names), Type::TEXT_ARRAY),
            (&numbers, Type::INT8_ARRAY),
        ];
        self.client.send_text(&text, &params)?;
        self.client.receive(None, meanwhile)?;
        Ok(())
    }

    /// Drops the writer's entries `from` and up to `to`, closes silent writers, and folds what was
    /// appended. Calls `meanwhile` once it is sent.
    pub(super) fn maintain(
        &mut self,
        writer: i64,
        from: i64,
        to: i64,
        meanwhile: Meanwhile<'_>,
    ) -> Result<(), Failure> {
        let text = format!("SELECT {}.visitas_maintain($1, $2, $3)", self.schema);
        let params: [Param<'_>; 3] = [
            (&writer, Type::INT8),
            (&from, Type::INT8),
            (&to, Type::INT8),
        ];
        self.client.send_text(&text, &params)?;
        self.client.receive(None, meanwhile)?;
        Ok(())
    }

    /// Closes the writer for good.
    pub(super) fn close(&mut self, writer: i64) -> Result<(), Failure> {
        let text = format!("SELECT {}.visitas_close($1)", self.schema);
        self.client.query(&text, &[(&writer, Type::INT8)])?;
        Ok(())
    }

    /// Commits a batch of one, and takes it back: whatever would keep the next batch from being
    /// committed (a table that is missing, a server that is read-only, a right that was revoked) is
    /// found here.
    pub(super) fn dry_run(&mut self, writer: i64) -> Result<(), Failure> {
        let schema = &self.schema;
        let script = format!(
            "BEGIN; \
             SELECT {schema}.visitas_hand_over({writer}::bigint, NULL::bigint, NULL::bigint); \
             SELECT {schema}.visitas_commit({writer}::bigint, 1::bigint, 0::bigint, ARRAY[now()], \
                 0::bigint, 1::bigint, '{{}}'::bigint[], '{{}}'::bigint[], true, \
                 NULL::text[], NULL::text[], NULL::bigint[], NULL::bigint[], NULL::bigint[], \
                 NULL::text[], NULL::bigint, NULL::integer, NULL::bigint); \
             SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK"
        );
        self.client.batch_execute(&script)
    }

    /// Tells the server to give up the statement that got no answer, by a connection that is as
    /// encrypted as this one (PostgreSQL manual, "Message Formats": CancelRequest).
    pub(super) fn cancel(&self) {
        if let Err(failure) = self.try_cancel() {
            log::debug!("a statement is not cancelled: {failure}");
        }
    }

    fn try_cancel(&self) -> Result<(), Failure> {
        let kind = self.kind.beside(self.client.wire())?;
        let socket = self.place.connect(CANCEL_TIMEOUT, CANCEL_TIMEOUT);
        let socket = socket.map_err(|error| Failure::Unreachable(self.place.clone(), error))?;
        let mut client = Client::new(kind.connect(socket, self.step_timeout)?);
        client.set_limit(CANCEL_TIMEOUT);
        let (process, key) = self.client.process;
        client.write(|to| {
            frontend::cancel_request(process, key, to);
            Ok(())
        })
    }

    /// Takes back what an open transaction has done.
    pub(super) fn roll_back(&mut self) -> Result<(), Failure> {
        self.step(|session| session.client.batch_execute("ROLLBACK"))
    }

    /// Why the connection is plain, where it was to be encrypted.
    pub(super) fn plain_since(&self) -> Option<&str> {
        self.plain_since.as_deref()
    }

    /// Protocol, cipher and what was verified; `None` where the connection is plain.
    pub(super) fn encryption(&self) -> Option<String> {
        self.client.wire().encryption()
    }
}

fn totals(row: &Row, column: usize) -> Result<Totals, Failure> {
    Ok(counts((row.get(column)?, row.get(column + 1)?)))
}

/// Neither is below 0, but for rows that were taken from the table behind the triggers' back.
pub(super) fn counts((total, pruned): (i64, i64)) -> Totals {
    Totals {
        total: u64::try_from(total).unwrap_or(0),
        pruned: u64::try_from(pruned).unwrap_or(0),
    }
}

fn texts(names: &[Name]) -> Vec<&str> {
    names.iter().map(Name::as_str).collect()
}

fn optional_texts(names: &[Option<Name>]) -> Vec<Option<&str>> {
    names
        .iter()
        .map(|name| name.as_ref().map(Name::as_str))
        .collect()
}

/// Totals and what of each was deleted, as the server gives them.
fn pairs(numbers: &[i64]) -> impl Iterator<Item = (i64, i64)> {
    numbers.chunks_exact(2).map(|pair| (pair[0], pair[1]))
}

fn bucket(row: &Row) -> Result<Bucket, Failure> {
    let seconds: i64 = row.get(0)?;
    let step = Step::ALL
        .into_iter()
        .find(|step| step.seconds() == seconds)
        .ok_or(Failure::NoRow)?;
    Ok(Bucket {
        step,
        start: row.get(1)?,
        visits: row.get(2)?,
    })
}

//! The history in PostgreSQL, over a connection of its own, so that no look and no roll-up is in a visit's way.

use std::time::{Duration, SystemTime};

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, Row};

use super::super::{Chronicle, RolledUp};
use super::reach::Way;
use super::session::{self, Failure, Fresh};
use crate::visits::history::{Bucket, Step};

/// Every part of the three series, those in the history and those of the minutes that lanes are in, each with whether rows
/// are left to roll up; at least one row. Parts are found by the index: 200 points for each slot at most.
const LOOK: &str = "WITH s(step, since) AS (VALUES (60, $1::bigint), (3600, $2::bigint), (86400, $3::bigint)), \
     parts AS ( \
         SELECT s.step, h.start, h.visits FROM s CROSS JOIN LATERAL ( \
             SELECT h.start, h.visits FROM acessos_history h WHERE h.step = s.step AND h.start >= s.since) AS h \
         UNION ALL \
         SELECT s.step, t.minute - t.minute % s.step, t.minute_visits FROM s, acessos_total t \
          WHERE t.minute_visits <> 0 AND t.minute >= s.since \
     ) \
     SELECT p.step, p.start, p.visits, EXISTS (SELECT FROM acessos_rollup WHERE after < until) FROM ( \
         SELECT step, start, sum(visits)::bigint AS visits FROM parts GROUP BY 1, 2 \
         UNION ALL SELECT NULL, NULL, NULL) AS p";
const ROLL_UP: &str = "SELECT after, until FROM visitas_roll_up($1)";
/// Waits for a lock no longer than whoever waits behind it should, and works for as long as a step takes.
const LIMITS: &str = "SET statement_timeout = '30s'; SET lock_timeout = '2s'";
/// Rows a step of the roll-up adds: about 50 ms.
const ROWS_A_STEP: i32 = 50_000;
/// A look takes a few milliseconds; one that takes this long is given up.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);
/// The same for a step of the roll-up.
const STEP_TIMEOUT: Duration = Duration::from_secs(40);

/// The client of the history, connected when it is needed.
pub struct PostgresChronicle {
    way: Way,
    runtime: Option<Runtime>,
    session: Option<Fresh>,
}

impl PostgresChronicle {
    /// A client, not yet connected.
    pub fn new(config: &Config, deadline: Duration) -> Self {
        PostgresChronicle { way: Way::new(config, deadline), runtime: None, session: None }
    }

    /// The rows of one statement, on the connection, made if there is none. After any failure it is made anew.
    pub(super) fn rows(
        &mut self,
        limit: Duration,
        statement: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, String> {
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            None => Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?,
        };
        let result = runtime.block_on(async {
            let (client, mut link) = match self.session.take() {
                Some((client, link)) if !client.is_closed() => (client, link),
                _ => connect(&mut self.way).await?,
            };
            let work = async { Ok(client.query(statement, params).await?) };
            let done = tokio::time::timeout(limit, session::driven(&mut link, work)).await;
            let rows = done.unwrap_or(Err(Failure::Slow(limit)))?;
            self.session = Some((client, link));
            Ok(rows)
        });
        self.runtime = Some(runtime);
        result.map_err(|failure: Failure| failure.to_string())
    }
}

async fn connect(way: &mut Way) -> Result<Fresh, Failure> {
    let (client, mut link) = session::connect(way).await?;
    let settle = async {
        client.batch_execute(session::SETTLE_IN).await?;
        client.batch_execute(LIMITS).await?;
        Ok(())
    };
    session::limited(session::driven(&mut link, settle)).await?;
    Ok((client, link))
}

impl Chronicle for PostgresChronicle {
    fn look(&mut self, now: SystemTime) -> Result<(Vec<Bucket>, bool), String> {
        let [minutes, hours, days] = Step::ALL.map(|step| step.since(now));
        let rows = self.rows(LOOK_TIMEOUT, LOOK, &[&minutes, &hours, &days])?;
        let left = rows.first().and_then(|row| row.try_get::<_, bool>(3).ok()).unwrap_or(false);
        let buckets = rows.iter().filter_map(|row| bucket(row).transpose()).collect::<Result<_, Failure>>();
        Ok((buckets.map_err(|failure| failure.to_string())?, !left))
    }

    fn roll_up(&mut self) -> Result<RolledUp, String> {
        let rows = self.rows(STEP_TIMEOUT, ROLL_UP, &[&ROWS_A_STEP])?;
        let bound = |column| rows.first().and_then(|row| row.try_get::<_, Option<i64>>(column).ok().flatten());
        Ok(match (bound(0), bound(1)) {
            (Some(after), Some(until)) if after < until => RolledUp::UpTo { row: after, of: until },
            (Some(_), Some(_)) => RolledUp::Last,
            _ => RolledUp::Nothing,
        })
    }

    fn rest(&mut self) {
        self.session = None;
    }
}

/// The part that a row tells; none in the row that only tells whether rows are left to roll up.
fn bucket(row: &Row) -> Result<Option<Bucket>, Failure> {
    let Some(seconds) = row.try_get::<_, Option<i32>>(0)? else { return Ok(None) };
    let step = Step::ALL.into_iter().find(|step| step.seconds() == i64::from(seconds)).ok_or(Failure::NoRow)?;
    Ok(Some(Bucket { step, start: row.try_get(1)?, visits: row.try_get(2)? }))
}

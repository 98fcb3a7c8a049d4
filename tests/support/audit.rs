//! What the ledger's tables hold, against what visitors were told: rows, totals, and rows that are
//! there twice.

use super::load::Tally;
use super::postgres::Database;
use super::server::{Ended, Settings, Visitas};

/// The table as visitas finds it, with one column more: the transaction that each row came in. A
/// batch that was committed twice is two transactions with the same moments of arrival.
const TABLE: &str = "CREATE TABLE acessos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
    momento timestamptz NOT NULL DEFAULT now(), batch xid8 NOT NULL DEFAULT pg_current_xact_id())";

/// Rows whose moment another row has too. In one worker no two visits arrive in the same
/// microsecond.
const SAME_MOMENT: &str = "SELECT count(*) - count(DISTINCT momento) FROM acessos";

/// Pairs of transactions of which one holds all moments of the other, at least so many.
const SAME_BATCH: &str = "WITH shared AS (SELECT momento FROM acessos GROUP BY momento HAVING count(DISTINCT batch) > 1), \
    suspect AS (SELECT DISTINCT batch FROM acessos JOIN shared USING (momento)), \
    size AS (SELECT batch, count(*) n FROM acessos JOIN suspect USING (batch) GROUP BY batch) \
    SELECT count(*) FROM (SELECT a.batch one, b.batch other, count(*) n FROM acessos a JOIN acessos b USING (momento) \
        JOIN shared USING (momento) WHERE a.batch < b.batch GROUP BY 1, 2) pair \
    JOIN size x ON x.batch = one JOIN size y ON y.batch = other \
    WHERE pair.n >= $1 AND pair.n = least(x.n, y.n)";

/// Two visits of different workers may well arrive in the same microsecond, and among hundreds of
/// thousands of small batches two of three visits may. Two of so many do not.
const LEAST_SHARED: i64 = 4;

impl Database<'_> {
    /// Makes the table before the first process does, so that [`Database::rows_twice`] can tell.
    pub fn prepare(&self) {
        self.sql().batch_execute(TABLE).expect("a table of visits");
    }

    /// Rows, or batches, that seem to be there twice. With one worker the check is exact, else it
    /// sees batches of
    /// [`LEAST_SHARED`] rows and more.
    pub fn rows_twice(&self, one_worker: bool) -> i64 {
        let mut sql = self.superuser();
        let twice = if one_worker {
            sql.query_one(SAME_MOMENT, &[])
        } else {
            sql.query_one(SAME_BATCH, &[&LEAST_SHARED])
        };
        twice.expect("a number").get(0)
    }

    /// The total that the database gives, and the rows that are there, as one snapshot has them.
    pub fn total_and_rows(&self) -> (i64, i64) {
        let mut sql = self.superuser();
        let mut snapshot = sql
            .build_transaction()
            .isolation_level(::postgres::IsolationLevel::RepeatableRead)
            .start()
            .expect("BEGIN");
        let row = snapshot
            .query_one(
                "SELECT visitas_total(), (SELECT count(*) FROM acessos)",
                &[],
            )
            .expect("both");
        (row.get(0), row.get(1))
    }
}

/// Runs `visitas check --count` to its end.
#[track_caller]
pub fn count(settings: Settings) -> Ended {
    let ended = settings.argument("check").argument("--count").run();
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    ended
}

/// Every 200 has its row, none is there twice, and the total is the rows: as SQL tells it, each
/// process, and `visitas check --count`, which also compares the history.
#[track_caller]
pub fn holds(database: &Database<'_>, tally: &Tally, processes: &[Visitas], settings: Settings) {
    let (total, rows) = database.total_and_rows();
    let said = || {
        processes
            .iter()
            .map(Visitas::said)
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(total, rows, "the total and the rows\n{}", said());
    let (rows, least) = (u64::try_from(rows).expect("a count"), tally.ok());
    let most = least + tally.unsure();
    assert!(
        (least..=most).contains(&rows),
        "{rows} rows for {tally:?}\n{}",
        said()
    );
    assert_eq!(
        database.rows_twice(false),
        0,
        "a batch is there twice: {tally:?}\n{}",
        said()
    );
    assert!(
        tally.others.is_empty() && tally.unanswered == 0,
        "only 200 and 503: {tally:?}"
    );
    for visitas in processes {
        assert_eq!(visitas.stats().total, rows, "{}", visitas.said());
    }
    let counted = count(settings);
    assert_eq!(counted.code, Some(0), "{counted:?}");
}

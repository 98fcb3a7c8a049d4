//! What the ledger's tables hold against what the clients were told: rows, totals, duplicates.

use super::database::Database;
use super::load::Outcomes;
use super::server::{Ended, Settings, Visitas};

/// The table with two more columns: the transaction of each row, and its process by the name of
/// the session. A batch that was committed twice is two transactions of one process with the same
/// moments.
pub const TABLE: &str = "CREATE TABLE acessos ( \
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
        momento timestamptz NOT NULL DEFAULT now(), \
        batch xid8 NOT NULL DEFAULT pg_current_xact_id(), \
        web text NOT NULL DEFAULT current_setting('application_name'))";

/// Rows that share their moment with another row. In one worker no two visits arrive in the same
/// microsecond.
const SAME_MOMENT: &str = "SELECT count(*) - count(DISTINCT momento) FROM acessos";

/// Pairs of transactions of one process where one has all moments of the other, and at least $1.
/// Visits in different workers may share a microsecond, and in hundreds of thousands of small
/// batches a few of them may; more do not. A process repeats its own batches only.
const SAME_BATCH: &str = "WITH shared AS ( \
        SELECT momento FROM acessos GROUP BY momento HAVING count(DISTINCT batch) > 1), \
    suspect AS (SELECT DISTINCT batch FROM acessos JOIN shared USING (momento)), \
    size AS (SELECT batch, count(*) n FROM acessos JOIN suspect USING (batch) GROUP BY batch), \
    pair AS (SELECT a.batch one, b.batch other, count(*) n \
        FROM acessos a JOIN acessos b USING (web, momento) JOIN shared USING (momento) \
        WHERE a.batch < b.batch GROUP BY 1, 2) \
    SELECT count(*) FROM pair JOIN size x ON x.batch = one JOIN size y ON y.batch = other \
    WHERE pair.n >= $1 AND pair.n = least(x.n, y.n)";

/// How duplicates are found.
#[derive(Clone, Copy, Debug)]
pub enum Duplicates {
    /// Exactly: all visits went through one worker.
    OneWorker,
    /// Batches of three visits or more, where each process has a name.
    NamedProcesses,
    /// Batches of four or more: visits of two processes may share moments too.
    UnnamedProcesses,
}

impl Database<'_> {
    /// Makes the table before the first process does, so that [`Database::duplicates`] works.
    pub fn prepare(&self) {
        self.sql().batch_execute(TABLE).expect("a table of visits");
    }

    /// The number of rows, or pairs of batches, that look like duplicates.
    pub fn duplicates(&self, how: Duplicates) -> i64 {
        let batches_of = |least: i64| {
            let row = self.superuser().query_one(SAME_BATCH, &[&least]);
            row.expect("a number").get(0)
        };
        match how {
            Duplicates::OneWorker => self.number(SAME_MOMENT),
            Duplicates::NamedProcesses => batches_of(3),
            Duplicates::UnnamedProcesses => batches_of(4),
        }
    }

    /// The total and the number of rows, in one snapshot.
    pub fn total_and_rows(&self) -> (i64, i64) {
        let mut sql = self.superuser();
        let mut snapshot = sql
            .build_transaction()
            .isolation_level(::postgres::IsolationLevel::RepeatableRead)
            .start()
            .expect("BEGIN");
        let both = "SELECT visitas_total(), (SELECT count(*) FROM acessos)";
        let row = snapshot.query_one(both, &[]).expect("both");
        (row.get(0), row.get(1))
    }
}

/// Runs `visitas check --count`.
#[track_caller]
pub fn count(settings: Settings) -> Ended {
    let ended = settings.argument("check").argument("--count").run();
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    ended
}

/// Every 200 has its row, no row is there twice, and the total is the number of rows: in SQL, in
/// each process, and in `visitas check --count`, which compares the history too.
#[track_caller]
pub fn holds(
    database: &Database<'_>,
    outcomes: &Outcomes,
    processes: &[Visitas],
    settings: Settings,
) {
    let (total, rows) = database.total_and_rows();
    let output = || {
        let outputs: Vec<String> = processes.iter().map(Visitas::output).collect();
        outputs.join("\n")
    };
    assert_eq!(total, rows, "the total and the rows\n{}", output());
    let (rows, least) = (u64::try_from(rows).expect("a count"), outcomes.ok());
    let most = least + outcomes.unsure();
    assert!(
        (least..=most).contains(&rows),
        "{rows} rows for {outcomes:?}\n{}",
        output()
    );
    assert_eq!(
        database.duplicates(Duplicates::UnnamedProcesses),
        0,
        "duplicate batches: {outcomes:?}\n{}",
        output()
    );
    outcomes.only_200_and_503();
    for visitas in processes {
        assert_eq!(visitas.stats().total, rows, "{}", visitas.output());
    }
    let counted = count(settings);
    assert_eq!(counted.code, Some(0), "{counted:?}");
}

#[test]
fn a_row_that_is_there_twice_is_found() {
    let database = super::Cluster::shared().database();
    database.prepare();
    let mut sql = database.sql();
    let mut commit = |process: i64, moments: &str| {
        let batch = format!(
            "INSERT INTO acessos (momento, web) \
             SELECT 'epoch'::timestamptz + make_interval(secs => s), 'web-{process}' \
             FROM unnest('{{{moments}}}'::float8[]) s"
        );
        sql.batch_execute(&batch).expect("a batch");
    };
    let found = || {
        let how = [
            Duplicates::OneWorker,
            Duplicates::NamedProcesses,
            Duplicates::UnnamedProcesses,
        ];
        how.map(|how| database.duplicates(how))
    };
    for moments in ["1,2,3", "4,5", "6"] {
        commit(1, moments);
    }
    assert_eq!(found(), [0, 0, 0]);
    // Two workers may each have a visit in one microsecond.
    commit(1, "3,7,8");
    assert_eq!(found(), [1, 0, 0]);
    // A batch, and once more its rest: the visits whose deadline had not passed.
    commit(1, "9,10,11,12");
    commit(1, "10,11,12");
    assert_eq!(found(), [4, 1, 0]);
    // Another process, with visits in the same microseconds.
    commit(2, "1,2,3");
    assert_eq!(found(), [7, 1, 0]);
    commit(1, "9,10,11,12");
    assert_eq!(found(), [11, 3, 1]);
}

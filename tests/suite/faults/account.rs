//! A scenario's account: what visitors were told against what the stores hold.

use std::fmt;
use std::time::Duration;

use super::play::{Form, REQUEST_TIMEOUT};
use crate::support::load::Tally;
use crate::support::{Database, Visitas};

/// What an answer may be late by: the clock ticks every 50 ms, and the crowd leaves the processes
/// little of the machine.
const LATE_AT_MOST: Duration = Duration::from_secs(1);
/// Lines that need no fault: of connections regained at once, one a minute and store.
const LINES_A_MINUTE: usize = 2;

/// Where the rows are counted.
pub enum Rows<'a> {
    /// A table with the column `batch` of [`prepare`].
    Database(&'a Database<'a>),
    /// The file of the only process: another one that opens it after the first has ended says so.
    Embedded,
}

/// What the ledger holds in the end.
pub struct Held {
    /// Rows that are there, and those that the scenario took away.
    rows: u64,
    gone: u64,
    /// The total as the database has it.
    sum: u64,
    /// Rows that seem to be there twice.
    twice: u64,
}

/// The table as visitas will find it, with two columns more: the transaction that each row came in,
/// and the process, by the name of its sessions; up to four workers of a process share a lane. A
/// batch that was committed twice is two transactions of one lane with the same moments of arrival.
pub const TABLE: &str = "CREATE TABLE acessos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
    momento timestamptz NOT NULL DEFAULT now(), batch xid8 NOT NULL DEFAULT pg_current_xact_id(), \
    lane text NOT NULL DEFAULT current_setting('application_name'))";

/// Rows whose moment another row has too. In one worker no two visits arrive in the same
/// microsecond.
const SAME_MOMENT: &str = "SELECT count(*) - count(DISTINCT momento) FROM acessos";

/// Pairs of transactions of one lane of which one holds all moments of the other, at least three.
/// Two visits in different workers of a lane may well arrive in the same microsecond, and among
/// hundreds of thousands of small batches two of two visits may; whole batches do not. Those of two
/// lanes do, and nobody but a lane can repeat its batch. With one worker the check is exact,
/// whatever the size.
const SAME_BATCH: &str = "WITH shared AS (SELECT momento FROM acessos GROUP BY momento HAVING count(DISTINCT batch) > 1), \
    suspect AS (SELECT DISTINCT batch FROM acessos JOIN shared USING (momento)), \
    size AS (SELECT batch, count(*) n FROM acessos JOIN suspect USING (batch) GROUP BY batch) \
    SELECT count(*) FROM (SELECT a.batch one, b.batch other, count(*) n FROM acessos a JOIN acessos b USING (lane, momento) \
        JOIN shared USING (momento) WHERE a.batch < b.batch GROUP BY 1, 2) pair \
    JOIN size x ON x.batch = one JOIN size y ON y.batch = other \
    WHERE pair.n >= 3 AND pair.n = least(x.n, y.n)";

/// Makes the table before the first process does.
pub fn prepare(database: &Database<'_>) {
    database
        .sql()
        .batch_execute(TABLE)
        .expect("a table of visits");
}

impl Rows<'_> {
    /// Looks into the ledger, whose processes are `web`.
    pub fn look(&self, form: &Form, gone: u64, mut web: Vec<Visitas>) -> Held {
        let database = match self {
            Rows::Database(database) => database,
            Rows::Embedded => {
                let rows = web.remove(0).stop().start().stats().total;
                return Held {
                    rows,
                    gone,
                    sum: rows,
                    twice: 0,
                };
            }
        };
        let mut sql = database.superuser();
        let mut number = |query: &str| -> u64 {
            let number: i64 = sql.query_one(query, &[]).expect("a number").get(0);
            u64::try_from(number).expect("none below 0")
        };
        Held {
            rows: number("SELECT count(*) FROM acessos"),
            gone,
            sum: number("SELECT visitas_total()"),
            twice: number(if form.fleet.is_single() {
                SAME_MOMENT
            } else {
                SAME_BATCH
            }),
        }
    }
}

/// What a scenario came to.
pub struct Account {
    form: Form,
    seconds: u64,
    faults: usize,
    tally: Tally,
    held: Held,
    /// What each process says is the total.
    totals: Vec<u64>,
    /// What Redis counted, where it was there.
    redis: Option<i64>,
    /// What each process logged while the crowd was there.
    log: Vec<Vec<String>>,
    /// Exceptions that the scenario makes.
    pub allow: Allow,
}

/// What a scenario may do that others may not.
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent exceptions, each named where it is made"
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Allow {
    /// Visits without any answer: the process that had them was killed.
    pub no_answer: bool,
    /// No visit may be refused: the ledger was there all the time.
    pub no_refusal: bool,
    /// Redis may have lost what it had counted.
    pub redis_forgets: bool,
    /// A third line tells that what is missing in the database is created.
    pub schema_is_made_again: bool,
}

impl Account {
    pub const HEADER: &'static str = "| scenario | web | s | faults | 200 | 503 | other | no answer | rows | rows without a 200 | total | Redis | longest wait | log lines |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

    #[allow(clippy::too_many_arguments, reason = "the columns of the account")]
    pub fn new(
        form: Form,
        seconds: u64,
        faults: usize,
        tally: Tally,
        held: Held,
        totals: Vec<u64>,
        redis: Option<i64>,
        log: Vec<Vec<String>>,
    ) -> Account {
        Account {
            form,
            seconds,
            faults,
            tally,
            held,
            totals,
            redis,
            log,
            allow: Allow::default(),
        }
    }

    pub fn allow(mut self, allow: Allow) -> Account {
        self.allow = allow;
        self
    }

    fn all_rows(&self) -> u64 {
        self.held.rows + self.held.gone
    }

    /// Holds the account against the promise.
    ///
    /// # Panics
    /// When it was broken.
    pub fn check(&self) {
        let Account {
            tally, held, allow, ..
        } = self;
        let rows = self.all_rows();
        assert!(
            tally.ok() > 0,
            "nobody was counted: this proves nothing\n{self}"
        );
        assert!(tally.ok() <= rows, "a 200 without its row\n{self}");
        assert!(
            rows <= tally.ok() + tally.unsure(),
            "a row that nobody asked for\n{self}"
        );
        assert_eq!(held.twice, 0, "a row is there twice\n{self}");
        assert_eq!(
            held.sum, held.rows,
            "the total is not the number of rows\n{self}"
        );
        assert!(
            self.totals.iter().all(|total| *total == held.rows),
            "the total of each process: {:?}\n{self}",
            self.totals
        );
        assert!(
            tally.others.is_empty(),
            "only 200 and 503: {:?}\n{self}",
            tally.others
        );
        assert!(
            allow.no_answer || tally.unanswered == 0,
            "visits without an answer: {:?}\n{self}",
            tally.said
        );
        assert!(
            !allow.no_refusal || tally.refused == 0,
            "refused, and the ledger was there: {:?}\n{self}",
            tally.said
        );
        let limit = REQUEST_TIMEOUT + LATE_AT_MOST;
        assert!(
            allow.no_answer || tally.longest <= limit,
            "a visit waited {:?}\n{self}",
            tally.longest
        );
        self.check_redis(rows);
        self.check_log();
    }

    fn check_redis(&self, rows: u64) {
        let Some(counted) = self.redis else { return };
        let counted = u64::try_from(counted).expect("no counter below 0");
        assert!(
            counted <= rows,
            "an increment for what has no row, or two for one\n{self}"
        );
        if self.allow.redis_forgets {
            return;
        }
        assert!(
            counted >= self.tally.cached,
            "a number was told that was not counted\n{self}"
        );
        let mut numbers: Vec<i64> = self
            .tally
            .counts
            .iter()
            .filter_map(|counts| counts.cache)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(
            numbers.len() as u64,
            self.tally.cached,
            "a number of the cache was told twice\n{self}"
        );
    }

    fn check_log(&self) {
        // Away and back for each fault, as each process sees it.
        let each = if self.allow.schema_is_made_again {
            3
        } else {
            2
        };
        let most = each * self.faults + LINES_A_MINUTE * (self.seconds as usize / 60 + 1);
        for lines in &self.log {
            assert!(
                lines.len() <= most,
                "{} lines for {} faults: {lines:#?}\n{self}",
                lines.len(),
                self.faults
            );
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Account {
            form, tally, held, ..
        } = self;
        let lines: usize = self.log.iter().map(Vec::len).sum();
        let redis = self
            .redis
            .map_or("-".to_owned(), |counted| counted.to_string());
        write!(
            f,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {redis} | {} ms | {lines} |",
            form.name,
            form.fleet,
            self.seconds,
            self.faults,
            tally.ok(),
            tally.refused,
            tally.others.len(),
            tally.unanswered,
            self.all_rows(),
            self.all_rows().saturating_sub(tally.ok()),
            held.sum + held.gone,
            tally.longest.as_millis(),
        )
    }
}

#[test]
fn a_row_that_is_there_twice_is_found() {
    let database = crate::support::Cluster::shared().database();
    prepare(&database);
    let mut sql = database.sql();
    let mut commit = |lane: i64, moments: &str| {
        let values = format!(
            "INSERT INTO acessos (momento, lane) SELECT 'epoch'::timestamptz + make_interval(secs => s), 'web-{lane}' \
            FROM unnest('{{{moments}}}'::float8[]) s"
        );
        sql.batch_execute(&values).expect("a batch");
    };
    let look = |workers: usize| {
        let fleet = super::play::Fleet {
            processes: 1,
            workers,
        };
        let form = Form {
            name: "",
            time: Duration::ZERO,
            visitors: 0,
            pause: Duration::ZERO,
            fleet,
        };
        let mut sql = database.superuser();
        let query = if form.fleet.is_single() {
            SAME_MOMENT
        } else {
            SAME_BATCH
        };
        sql.query_one(query, &[])
            .expect("a number")
            .get::<_, i64>(0)
    };
    ["1,2,3", "4,5", "6"]
        .into_iter()
        .for_each(|moments| commit(1, moments));
    assert_eq!((look(1), look(2)), (0, 0));
    // Two workers may each have a visit in one microsecond.
    commit(1, "3,7,8");
    assert_eq!((look(1), look(2)), (1, 0));
    // The rest of a batch, after those whose deadline had passed, committed once more.
    commit(1, "9,10,11,12");
    commit(1, "10,11,12");
    assert_eq!((look(1), look(2)), (4, 1));
    // Another lane, whose visits came in the same microseconds.
    commit(2, "1,2,3");
    assert_eq!((look(1), look(2)), (7, 1));
}

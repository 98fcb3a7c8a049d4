//! A scenario's report: what the clients were told against what the stores hold.

use std::fmt;
use std::time::Duration;

use super::run::{Parameters, REQUEST_TIMEOUT};
use crate::support::load::Outcomes;
use crate::support::names::{ByName, listed, rows_by_name};
use crate::support::{Database, Visitas};

/// An answer may be this late: the clock ticks every 50 ms, and the clients take most of the
/// machine.
const LATE_AT_MOST: Duration = Duration::from_secs(1);
/// Log lines without a fault: a connection that is restored at once, one per minute and store.
const LINES_PER_MINUTE: usize = 2;

/// Where the rows are.
pub enum Store<'a> {
    /// In the table of [`Database::prepare`].
    Database(&'a Database<'a>),
    /// In the file of the only process. Once that has ended, another one opens it and tells.
    Embedded,
}

/// What the ledger holds in the end.
pub struct Stored {
    rows: u64,
    /// Rows that the scenario deleted.
    gone: u64,
    /// The total as the database has it.
    total: u64,
    /// Rows, or pairs of batches, that look like duplicates.
    duplicates: i64,
    /// The rows and the totals of counters by name.
    rows_by_name: ByName,
    totals_by_name: ByName,
}

impl Store<'_> {
    /// Reads the ledger of these processes.
    pub fn read(&self, parameters: &Parameters, gone: u64, mut web: Vec<Visitas>) -> Stored {
        let database = match self {
            Store::Database(database) => database,
            Store::Embedded => {
                let visitas = web.remove(0).stop().start();
                let (rows, names) = (visitas.stats().total, listed(&visitas));
                return Stored {
                    rows,
                    gone,
                    total: rows,
                    duplicates: 0,
                    rows_by_name: names.clone(),
                    totals_by_name: names,
                };
            }
        };
        let number = |query: &str| u64::try_from(database.number(query)).expect("a count");
        Stored {
            rows: number("SELECT count(*) FROM acessos"),
            gone,
            total: number("SELECT visitas_total()"),
            duplicates: database.duplicates(parameters.topology.duplicates()),
            rows_by_name: rows_by_name(database),
            totals_by_name: listed(&web[0]),
        }
    }
}

/// The result of a scenario.
pub struct Report {
    pub parameters: Parameters,
    pub seconds: u64,
    pub faults: usize,
    pub outcomes: Outcomes,
    pub stored: Stored,
    /// The total of each process.
    pub totals: Vec<u64>,
    /// Redis' counter, in scenarios with Redis.
    pub redis: Option<i64>,
    /// The same of counters by name.
    pub redis_names: Option<ByName>,
    /// What each process logged while the clients were there.
    pub log: Vec<Vec<String>>,
    pub allow: Allow,
}

/// What this scenario may do and others may not.
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent exceptions, each named where it is made"
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Allow {
    /// Visits without any answer: their process was killed.
    pub no_answer: bool,
    /// Not one refusal: the ledger was up all the time.
    pub no_refusal: bool,
    /// Redis may have lost its counter.
    pub redis_forgets: bool,
    /// A third log line tells that missing tables are created.
    pub schema_is_made_again: bool,
}

/// The columns of a report.
const COLUMNS: [&str; 14] = [
    "scenario",
    "web",
    "s",
    "faults",
    "200",
    "503",
    "other",
    "no answer",
    "rows",
    "rows without a 200",
    "total",
    "Redis",
    "longest wait",
    "log lines",
];

impl Report {
    /// The two lines above the rows of the table.
    pub fn header() -> String {
        let rule = "---|".repeat(COLUMNS.len());
        format!("| {} |\n|{rule}", COLUMNS.join(" | "))
    }

    pub fn allow(mut self, allow: Allow) -> Report {
        self.allow = allow;
        self
    }

    fn all_rows(&self) -> u64 {
        self.stored.rows + self.stored.gone
    }

    /// Checks the report against what visitas promises.
    ///
    /// # Panics
    /// When it does not hold.
    pub fn check(&self) {
        let Report {
            outcomes,
            stored,
            allow,
            ..
        } = self;
        let rows = self.all_rows();
        assert!(
            outcomes.ok() > 0,
            "no visit was counted: this proves nothing\n{self}"
        );
        assert!(outcomes.ok() <= rows, "a 200 without its row\n{self}");
        assert!(
            rows <= outcomes.ok() + outcomes.unsure(),
            "a row without a request\n{self}"
        );
        assert_eq!(stored.duplicates, 0, "duplicate rows\n{self}");
        assert_eq!(stored.total, stored.rows, "total and rows\n{self}");
        assert!(
            self.totals.iter().all(|total| *total == stored.rows),
            "the total of each process: {:?}\n{self}",
            self.totals
        );
        assert!(
            outcomes.others.is_empty(),
            "only 200 and 503: {:?}\n{self}",
            outcomes.others
        );
        assert!(
            allow.no_answer || outcomes.unanswered == 0,
            "visits without an answer: {:?}\n{self}",
            outcomes.messages
        );
        assert!(
            !allow.no_refusal || outcomes.refused == 0,
            "refused although the ledger was up: {:?}\n{self}",
            outcomes.messages
        );
        assert!(
            allow.no_answer || outcomes.longest <= REQUEST_TIMEOUT + LATE_AT_MOST,
            "a visit waited {:?}\n{self}",
            outcomes.longest
        );
        self.check_names();
        self.check_redis(rows);
        self.check_log();
    }

    /// The account by name.
    fn check_names(&self) {
        let stored = &self.stored;
        assert_eq!(
            stored.totals_by_name, stored.rows_by_name,
            "totals and rows by name\n{self}"
        );
        let named: u64 = stored.rows_by_name.values().sum();
        assert!(named <= stored.rows, "{named} rows with names\n{self}");
        for (name, (ok, unsure)) in &self.outcomes.named {
            let rows = stored.rows_by_name.get(*name).copied().unwrap_or(0);
            // Rows that a scenario deletes are not told apart by name.
            assert!(
                rows <= ok + unsure && (*ok <= rows || stored.gone > 0),
                "{name}: {rows} rows, {ok} with a 200, {unsure} without\n{self}"
            );
            let counted = self.redis_names.as_ref().and_then(|names| names.get(*name));
            assert!(
                counted.is_none_or(|counted| *counted <= rows || stored.gone > 0),
                "{name}: {rows} rows, {counted:?} in Redis\n{self}"
            );
        }
    }

    fn check_redis(&self, rows: u64) {
        let Some(counted) = self.redis else { return };
        let counted = u64::try_from(counted).expect("no counter below 0");
        assert!(
            counted <= rows,
            "an increment without a row, or two for one row\n{self}"
        );
        if self.allow.redis_forgets {
            return;
        }
        assert!(
            counted >= self.outcomes.cached,
            "a visitor got a number that Redis did not count\n{self}"
        );
        let counts = self.outcomes.counts.iter();
        let mut numbers: Vec<i64> = counts.filter_map(|counts| counts.cache).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(
            numbers.len() as u64,
            self.outcomes.cached,
            "two visitors got the same number of the counter\n{self}"
        );
    }

    fn check_log(&self) {
        // Down and up for each fault, in each process.
        let each = if self.allow.schema_is_made_again {
            3
        } else {
            2
        };
        let most = each * self.faults + LINES_PER_MINUTE * (self.seconds as usize / 60 + 1);
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

/// One row under [`Report::header`].
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            parameters,
            outcomes,
            stored,
            ..
        } = self;
        let lines: usize = self.log.iter().map(Vec::len).sum();
        let redis = self
            .redis
            .map_or("-".to_owned(), |counted| counted.to_string());
        let cells: [String; COLUMNS.len()] = [
            parameters.name.to_owned(),
            parameters.topology.to_string(),
            self.seconds.to_string(),
            self.faults.to_string(),
            outcomes.ok().to_string(),
            outcomes.refused.to_string(),
            outcomes.others.len().to_string(),
            outcomes.unanswered.to_string(),
            self.all_rows().to_string(),
            self.all_rows().saturating_sub(outcomes.ok()).to_string(),
            (stored.total + stored.gone).to_string(),
            redis,
            format!("{} ms", outcomes.longest.as_millis()),
            lines.to_string(),
        ];
        write!(f, "| {} |", cells.join(" | "))
    }
}

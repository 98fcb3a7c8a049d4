//! Random writers, visits and faults. At random moments and in the end one snapshot must show a
//! total equal to the rows, and a history equal to the rows by minute, hour and day.
//!
//! `DIFFERENTIAL_SEED` repeats the choices of a run, but not its timing. `DIFFERENTIAL_SECONDS`
//! sets its length.

mod random;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::postgres::{Client as Sql, Error};

use random::Random;

use crate::other_writers::Ends;
use crate::support::audit::count;
use crate::support::names::NamedLoad;
use crate::support::ports::free_port;
use crate::support::wait::within_value;
use crate::support::{Clients, Cluster, Database, LIMIT, Load, Settings, Stop, Visitas, machine};

const WRITERS: u64 = 5;
/// Transactions of other writers without which nothing is proved.
const ENOUGH: u64 = 20;
/// Errors that writers or faults cause: a lost connection, a cancelled statement, a long lock, two
/// changes of the same row, a prepared transaction that somebody else ended. All others fail the
/// test.
const EXPECTED: [&str; 10] = [
    "57P01", "57P02", "57P03", "57014", "55P03", "40001", "40P01", "25P02", "42704", "55000",
];

/// What the writers share.
struct Field<'a> {
    database: &'a Database<'a>,
    has_merge: bool,
    /// Rows have names too.
    named: bool,
    stop: AtomicBool,
    /// Transactions by kind.
    done: Mutex<BTreeMap<&'static str, u64>>,
    prepared: AtomicU64,
    findings: Mutex<Vec<String>>,
}

impl Field<'_> {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn session(&self) -> Option<Sql> {
        let mut sql = self
            .database
            .cluster
            .session(&self.database.name, "user_app", "app_password")
            .ok()?;
        sql.batch_execute("SET lock_timeout = '1s'; SET timezone = 'America/Sao_Paulo'")
            .ok()?;
        Some(sql)
    }

    /// Runs a transaction of a random kind; gives the kind's name.
    fn transaction(&self, sql: &mut Sql, random: &mut Random) -> Result<&'static str, Error> {
        let mut script = |count: u64, between: &str| {
            let statements: Vec<String> = (0..count)
                .map(|_| random.statement(self.has_merge, self.named))
                .collect();
            statements.join(between)
        };
        let (one, three) = (script(1, ""), script(3, "; "));
        match random.below(24) {
            0..8 => sql.batch_execute(&one).map(|()| "single statements"),
            8..11 => sql
                .batch_execute(&format!("BEGIN; {three}; COMMIT"))
                .map(|()| "several statements"),
            11..13 => sql
                .batch_execute(&format!("BEGIN; {three}; ROLLBACK"))
                .map(|()| "rolled back"),
            13 => {
                let script = format!(
                    "BEGIN; {one}; SAVEPOINT a; {three}; ROLLBACK TO a; {one}; SAVEPOINT b; \
                     {one}; RELEASE b; COMMIT"
                );
                sql.batch_execute(&script).map(|()| "savepoints")
            }
            14..16 => {
                let level = random.of(&["SERIALIZABLE", "REPEATABLE READ"]);
                sql.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; {three}; COMMIT"))
                    .map(|()| "isolated")
            }
            16 => {
                sql.batch_execute(&format!("BEGIN; {one}"))?;
                // Others begin, end and are folded while this one is open.
                thread::sleep(Duration::from_millis(random.below(800)));
                let end = *random.of(&["COMMIT", "COMMIT", "ROLLBACK"]);
                sql.batch_execute(&format!("{three}; {end}"))
                    .map(|()| "long")
            }
            17..19 => {
                let mut rows = sql.copy_in("COPY acessos (momento) FROM STDIN")?;
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .expect("a clock")
                    .as_secs();
                for _ in 0..random.below(40) {
                    let line = match random.below(5) {
                        0 => "\\N\n".to_owned(),
                        1 => "infinity\n".to_owned(),
                        _ => format!("{}\n", utc((now - random.below(9000)).cast_signed())),
                    };
                    if rows.write_all(line.as_bytes()).is_err() {
                        break;
                    }
                }
                rows.finish().map(|_| "COPY")
            }
            19 => {
                let script = format!(
                    "DO $do$ BEGIN {one}; BEGIN {three}; RAISE EXCEPTION 'undone'; \
                     EXCEPTION WHEN raise_exception THEN {one}; END; END $do$"
                );
                sql.batch_execute(&script).map(|()| "subtransactions")
            }
            20..22 => {
                let name = format!("p{}", self.prepared.fetch_add(1, Ordering::Relaxed));
                sql.batch_execute(&format!("BEGIN; {three}; PREPARE TRANSACTION '{name}'"))?;
                thread::sleep(Duration::from_millis(random.below(100)));
                let end = *random.of(&["COMMIT", "ROLLBACK"]);
                sql.batch_execute(&format!("{end} PREPARED '{name}'"))
                    .map(|()| "prepared transactions")
            }
            22 => {
                let table = random.of(&[
                    "acessos",
                    "visitas_changes",
                    "visitas_log",
                    "visitas_history",
                    "visitas_base",
                    "visitas_named",
                ]);
                sql.batch_execute(&format!("VACUUM {table}"))
                    .map(|()| "VACUUM")
            }
            _ if random.below(4) == 0 => sql
                .batch_execute(&format!("BEGIN; {one}; TRUNCATE acessos; {one}; COMMIT"))
                .map(|()| "TRUNCATE"),
            _ => sql.batch_execute(&one).map(|()| "single statements"),
        }
    }

    /// Writes until the end.
    fn write(&self, seed: u64) {
        let mut random = Random(seed);
        let mut session = None;
        while !self.is_over() {
            let Some(mut sql) = session.take().or_else(|| self.session()) else {
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            match self.transaction(&mut sql, &mut random) {
                Ok(kind) => {
                    *self
                        .done
                        .lock()
                        .expect("the counts")
                        .entry(kind)
                        .or_default() += 1
                }
                Err(error) => {
                    let code = error.code().map_or("", |code| code.code());
                    if !code.is_empty() && !EXPECTED.contains(&code) {
                        self.findings
                            .lock()
                            .expect("the findings")
                            .push(format!("{error:?}"));
                    }
                    let _ = sql.batch_execute("ROLLBACK");
                }
            }
            session = (!sql.is_closed()).then_some(sql);
        }
    }

    /// Ends transactions that a fault left prepared, since they hold locks.
    fn end_prepared(&self, random: &mut Random) {
        let mut sql = self.database.superuser();
        let names =
            "SELECT gid FROM pg_prepared_xacts WHERE prepared < now() - interval '1 second' OR $1";
        for row in sql
            .query(names, &[&self.is_over()])
            .expect("prepared transactions")
        {
            let end = *random.of(&["COMMIT", "ROLLBACK"]);
            // Its own writer may be ending it at this moment.
            let _ = sql.batch_execute(&format!("{end} PREPARED '{}'", row.get::<_, &str>(0)));
        }
    }
}

/// A Unix time as PostgreSQL reads it.
fn utc(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // 2000-01-01 is the Julian day 2451545 (PostgreSQL manual, B.7), 10957 days after 1970-01-01.
    format!(
        "J{} {:02}:{:02}:{:02}+00",
        days - 10_957 + 2_451_545,
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// As [`differences`], for each name.
const NAMES_COMPARED: &str = "WITH \
    clock AS (SELECT floor(extract(epoch FROM now()))::bigint AS now), \
    steps AS (SELECT * FROM clock, LATERAL (VALUES (60, now - now % 60 - 59 * 60), \
        (3600, now - now % 3600 - 47 * 3600), (86400, -100000000000)) AS s(step, since)), \
    named AS (SELECT contador AS name, momento FROM acessos \
        WHERE contador ~ '^[a-z0-9._-]{1,64}$' AND contador ~ '[^.]'), \
    list AS (SELECT * FROM visitas_list('', 1000000)), \
    names AS (SELECT n.name, n.i, l.sums[2 * n.i - 1] AS total \
        FROM list l, unnest(l.names) WITH ORDINALITY AS n(name, i)), \
    counted AS (SELECT name, step, \
            floor(extract(epoch FROM momento) / step)::bigint * step AS start, count(*) AS visits \
        FROM named, steps WHERE isfinite(momento) AND extract(epoch FROM momento) >= since \
        GROUP BY 1, 2, 3), \
    kept AS (SELECT n.name, h.step, h.start, h.visits \
        FROM list l, (SELECT array_agg(step::bigint ORDER BY step) AS steps, \
            array_agg(since::bigint ORDER BY step) AS since FROM steps) AS s, \
        LATERAL visitas_named_history(l.names, s.steps, s.since) AS h \
        JOIN names n ON n.i = h.place) \
    SELECT format('%s: %s s from %s: %s rows, the history says %s', name, step, \
        to_timestamp(start), coalesce(c.visits, 0), coalesce(k.visits, 0)) \
    FROM counted c FULL JOIN kept k USING (name, step, start) \
    WHERE coalesce(c.visits, 0) <> coalesce(k.visits, 0) \
    UNION ALL SELECT format('%s: %s rows, its total says %s', name, n, total) \
    FROM (SELECT name, count(*) AS n FROM named GROUP BY 1) AS c FULL JOIN names USING (name) \
    WHERE coalesce(n, 0) <> coalesce(total, 0)";

/// The differences between total, history and rows in one snapshot, with `named` also by name.
fn differences(database: &Database<'_>, named: bool) -> Vec<String> {
    const COMPARED: &str = "WITH \
        clock AS (SELECT floor(extract(epoch FROM now()))::bigint AS now), \
        steps AS (SELECT * FROM clock, LATERAL (VALUES (60, now - now % 60 - 59 * 60), \
            (3600, now - now % 3600 - 47 * 3600), (86400, -100000000000)) AS s(step, since)), \
        counted AS (SELECT step, \
                floor(extract(epoch FROM momento) / step)::bigint * step AS start, \
                count(*) AS visits \
            FROM acessos, steps WHERE isfinite(momento) AND extract(epoch FROM momento) >= since \
            GROUP BY 1, 2), \
        kept AS (SELECT h.* FROM (SELECT array_agg(step::bigint ORDER BY step) AS steps, \
            array_agg(since::bigint ORDER BY step) AS since FROM steps) AS s, \
            LATERAL visitas_history(s.steps, s.since) AS h) \
        SELECT format('%s s from %s: %s rows, the history says %s', step, to_timestamp(start), \
            coalesce(c.visits, 0), coalesce(k.visits, 0)) \
        FROM counted c FULL JOIN kept k USING (step, start) \
        WHERE coalesce(c.visits, 0) <> coalesce(k.visits, 0) \
        UNION ALL SELECT format('%s rows, the total says %s', n, visitas_total()) \
        FROM (SELECT count(*) AS n FROM acessos) AS c WHERE n <> visitas_total()";
    let mut sql = database.superuser();
    // The lock comes before the snapshot: TRUNCATE empties the table for older snapshots too.
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE acessos IN ACCESS SHARE MODE";
    sql.batch_execute(begin).expect("a snapshot");
    let compared = [COMPARED, NAMES_COMPARED];
    let used = if named { 2 } else { 1 };
    let rows = compared[..used]
        .iter()
        .flat_map(|query| sql.query(*query, &[]).expect("a comparison"));
    rows.map(|row| row.get(0)).collect()
}

/// Waits until visits are counted again.
#[track_caller]
fn visits_go_on(processes: &[Visitas]) {
    for visitas in processes {
        within_value(LIMIT, "visits to go on", || {
            match visitas.try_visit().status {
                200 => Ok(()),
                status => Err((status, visitas.output())),
            }
        });
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[test]
fn total_and_history_always_equal_the_rows() {
    run(false);
}

#[test]
fn totals_and_histories_of_names_always_equal_their_rows() {
    run(true);
}

fn run(named: bool) {
    let _machine = machine();
    let time = Duration::from_secs(variable("DIFFERENTIAL_SECONDS").unwrap_or(10));
    let drawn = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .subsec_nanos();
    let seed = variable("DIFFERENTIAL_SEED").unwrap_or_else(|| drawn.into());
    println!("DIFFERENTIAL_SEED={seed}");
    let mut random = Random(seed);

    let cluster = Cluster::stopped();
    cluster.configure("max_prepared_transactions = 20");
    cluster.restart();
    let database = cluster.default_database();
    let table = "CREATE TABLE acessos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
        momento timestamptz DEFAULT now()); \
        INSERT INTO acessos (momento) SELECT now() - n * interval '43 minutes' \
        FROM generate_series(1, 2000) n";
    database
        .sql()
        .batch_execute(table)
        .expect("rows from before");
    let version: i32 = database
        .superuser()
        .query_one("SELECT current_setting('server_version_num')::int", &[])
        .expect("a version")
        .get(0);
    let settings = || {
        Settings::new()
            .postgres(&database)
            .set("REQUEST_TIMEOUT", "2s")
            .set("PORT", free_port())
            .set("COUNTERS", if named { "*" } else { "" })
    };
    let mut processes = vec![settings().start(), settings().start()];
    let ports: Vec<u16> = processes.iter().map(Visitas::port).collect();
    let to_names = named.then(|| NamedLoad::start(&ports, 6, 20));
    let pause = Duration::from_millis(2);
    let load = Load::of(&Clients {
        ports,
        count: 6,
        pause,
        keep_counts: false,
    });

    let field = Field {
        database: &database,
        has_merge: version >= 150_000,
        named,
        stop: AtomicBool::new(false),
        done: Mutex::default(),
        prepared: AtomicU64::new(0),
        findings: Mutex::default(),
    };
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    thread::scope(|scope| {
        let end = Ends(&field.stop);
        for writer in 0..WRITERS {
            let (field, seed) = (&field, random.next() ^ writer);
            scope.spawn(move || field.write(seed));
        }
        let began = Instant::now();
        // On a busy machine a restart alone may take that long.
        let is_enough = || field.done.lock().expect("the counts").values().sum::<u64>() > ENOUGH;
        while began.elapsed() < time || (!is_enough() && began.elapsed() < LIMIT) {
            field.end_prepared(&mut random);
            let fault = match random.below(9) {
                0..2 => {
                    let found = differences(&database, named);
                    assert!(found.is_empty(), "{found:#?}");
                    "comparisons"
                }
                2..4 => {
                    let counted = count(Settings::new().postgres(&database));
                    assert_eq!(counted.code, Some(0), "{counted:?}");
                    "counts"
                }
                4 => {
                    let index = random.below(processes.len() as u64) as usize;
                    let killed = processes.remove(index).kill();
                    processes.insert(index, killed.start());
                    "kills"
                }
                5 => {
                    database.terminate_sessions();
                    "terminations"
                }
                6 => {
                    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity \
                        WHERE usename = 'user_app'";
                    database
                        .superuser()
                        .query(cancel, &[])
                        .expect("statements cancelled");
                    "cancellations"
                }
                _ if random.below(2) == 0 => {
                    cluster.stop(*random.of(&[Stop::Fast, Stop::Immediate, Stop::Kill]));
                    cluster.restart();
                    "restarts of PostgreSQL"
                }
                _ => {
                    thread::sleep(Duration::from_millis(random.below(300)));
                    "rests"
                }
            };
            *faults.entry(fault).or_default() += 1;
            visits_go_on(&processes);
        }
        drop(end);
    });
    let outcomes = load.stop();
    let to_names = to_names.map(NamedLoad::stop).unwrap_or_default();
    field.end_prepared(&mut random);
    visits_go_on(&processes);
    let done = field.done.into_inner().expect("the counts");
    let account = format!(
        "seed {seed}: {outcomes:?}, {} to names\nwriters: {done:?}\nfaults: {faults:?}",
        to_names.visits()
    );
    println!("{account}");
    let findings = field.findings.into_inner().expect("the findings");
    assert!(findings.is_empty(), "{findings:#?}\n{account}");
    let said = || {
        processes
            .iter()
            .map(Visitas::output)
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(
        outcomes.ok() > 100
            && (to_names.visits() > 50 || !named)
            && done.values().sum::<u64>() > ENOUGH,
        "too little for this to mean anything: {account}\n{}",
        said()
    );
    let found = differences(&database, named);
    assert!(found.is_empty(), "{found:#?}\n{account}\n{}", said());
    let rows = database.rows();
    for visitas in &processes {
        assert_eq!(
            visitas.stats().total,
            rows,
            "{account}\n{}",
            visitas.output()
        );
        crate::support::history::is_exact(visitas, &database);
    }
    let counted = count(Settings::new().postgres(&database));
    assert_eq!(counted.code, Some(0), "{counted:?}\n{account}");
}

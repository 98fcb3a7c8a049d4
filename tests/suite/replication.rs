//! A primary with a standby: no 200 before the standby confirms the commit, and every 200 still has
//! its row after a failover.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use postgres::Client;

use crate::support::audit::TABLE;
use crate::support::load::Outcomes;
use crate::support::postgres::{DEFAULT_NAME, PASSWORD, USER};
use crate::support::rows::Rows;
use crate::support::{
    Clients, Cluster, Database, LIMIT, Load, Proxy, Redis, Settings, Standby, Stop, Visitas, within,
};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// An answer may be this late, with other tests on the machine.
const LATE_AT_MOST: Duration = Duration::from_millis(1500);
/// An outage of the standby: several deadlines in a row.
const OUTAGE: Duration = Duration::from_secs(4);
/// Between two faults within an outage, so that a lane reconnects and commits.
const BETWEEN: Duration = Duration::from_millis(500);
/// Sessions that wait for a standby do not notice a lost client, so their number needs a bound:
/// those of one lane and of the history, and those of timed-out attempts.
const SESSIONS_AT_MOST: i64 = 8;

/// A primary behind a proxy, its standby, and a process with both in its `DATABASE_URL`.
struct Pair {
    primary: Cluster,
    to_primary: Proxy,
    standby: Standby,
    visitas: Visitas,
}

/// The address of the default database on these ports.
fn url(ports: [u16; 2]) -> String {
    let [one, other] = ports;
    format!(
        "postgres://{USER}:{PASSWORD}@127.0.0.1:{one},127.0.0.1:{other}/{DEFAULT_NAME}\
         ?target_session_attrs=read-write"
    )
}

impl Pair {
    /// Commits wait for the standby by `level`, a value of `synchronous_commit`. With `None` they
    /// do not.
    fn start(settings: Settings, level: Option<&str>) -> Pair {
        let primary = Cluster::start();
        primary
            .default_database()
            .sql()
            .batch_execute(TABLE)
            .expect("a table of visits");
        let standby = Standby::of(&primary);
        let to_primary = Proxy::to(primary.port());
        let ports = [to_primary.port(), standby.cluster.port()];
        // With one worker no two rows share a moment.
        let settings = settings.set("DATABASE_URL", url(ports)).set("WORKERS", 1);
        let visitas = settings.start();
        if let Some(level) = level {
            standby.make_synchronous(&primary, level);
        }
        Pair {
            primary,
            to_primary,
            standby,
            visitas,
        }
    }

    fn clients(&self, visitors: usize) -> Load {
        let pause = Duration::from_millis(20);
        Load::of(&Clients {
            ports: vec![self.visitas.port()],
            count: visitors,
            pause,
            keep_counts: true,
        })
    }

    fn wait_for_visits(&self) {
        self.visitas.wait_for_visits(20, LIMIT);
    }

    /// A session of the superuser on the primary.
    fn watcher(&self) -> Client {
        self.primary.superuser(DEFAULT_NAME)
    }

    fn a_commit_waits(&self) {
        let mut watcher = self.watcher();
        within(LIMIT, "a commit to wait for the standby", || {
            sessions(&mut watcher).1 > 0
        });
    }

    /// Calls a function of PostgreSQL for every session that waits for the standby, throughout an
    /// outage.
    fn for_each_wait(&self, function: &str) {
        let query = format!(
            "SELECT {function}(pid) FROM pg_stat_activity \
             WHERE wait_event = 'SyncRep' AND usename = $1"
        );
        self.repeat_for(OUTAGE, |watcher| {
            watcher.query(&query, &[&USER]).expect("the sessions");
        });
    }

    /// Repeats a fault for this time, always when a commit waits for the standby.
    fn repeat_for(&self, time: Duration, mut fault: impl FnMut(&mut Client)) {
        let (began, mut watcher) = (Instant::now(), self.watcher());
        while began.elapsed() < time {
            within(LIMIT, "a commit to wait for the standby", || {
                sessions(&mut watcher).1 > 0
            });
            fault(&mut watcher);
            last(BETWEEN);
        }
    }

    /// Kills the primary, as a crash of the machine does, and promotes the standby.
    fn fail_over(&self) {
        self.primary.stop(Stop::KillAll);
        self.standby.promote();
    }
}

/// The number of sessions of visitas, and of those that wait for the standby.
fn sessions(watcher: &mut Client) -> (i64, i64) {
    let query = "SELECT count(*), count(*) FILTER (WHERE wait_event = 'SyncRep') \
                 FROM pg_stat_activity WHERE usename = $1";
    let row = watcher.query_one(query, &[&USER]).expect("the sessions");
    (row.get(0), row.get(1))
}

fn settings() -> Settings {
    Settings::new().set("REQUEST_TIMEOUT", format!("{}s", REQUEST_TIMEOUT.as_secs()))
}

/// What happens before the failover.
struct Scenario {
    name: &'static str,
    /// The value of `synchronous_commit`.
    level: &'static str,
    /// The start of the standby's outage, and what happens during it.
    outage: Option<Outage>,
}

type Outage = (fn(&Standby), fn(&Pair));

const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "the standby stalls",
        "remote_apply",
        Some((Standby::stall, nothing_more)),
    ),
    Scenario::new(
        "the standby is cut off",
        "on",
        Some((Standby::cut_off, nothing_more)),
    ),
    Scenario::new(
        "waits are cancelled",
        "on",
        Some((Standby::stall, cancel_waits)),
    ),
    Scenario::new(
        "sessions that wait are terminated",
        "remote_write",
        Some((Standby::cut_off, terminate_sessions)),
    ),
    Scenario::new(
        "connections are cut while commits wait",
        "on",
        Some((Standby::stall, cut_connections)),
    ),
    Scenario::new(
        "the primary restarts while commits wait",
        "on",
        Some((Standby::cut_off, restart_primary)),
    ),
    Scenario::new("the standby works until the end", "on", None),
];

fn nothing_more(_: &Pair) {
    last(OUTAGE);
}

fn cancel_waits(pair: &Pair) {
    pair.for_each_wait("pg_cancel_backend");
}

fn terminate_sessions(pair: &Pair) {
    pair.for_each_wait("pg_terminate_backend");
}

fn cut_connections(pair: &Pair) {
    pair.repeat_for(OUTAGE, |_| pair.to_primary.cut_all());
}

fn restart_primary(pair: &Pair) {
    for how in [Stop::Fast, Stop::Immediate, Stop::Kill, Stop::KillAll] {
        pair.primary.stop(how);
        pair.primary.restart();
        pair.a_commit_waits();
    }
}

/// Lets an outage last that long. The time itself is the fault; nothing is awaited.
fn last(time: Duration) {
    std::thread::sleep(time);
}

impl Scenario {
    const fn new(name: &'static str, level: &'static str, outage: Option<Outage>) -> Scenario {
        Scenario {
            name,
            level,
            outage,
        }
    }

    fn run(&self) {
        let pair = Pair::start(settings(), Some(self.level));
        let clients = pair.clients(8);
        pair.wait_for_visits();
        let during = self.outage.map(|(begin, fault)| {
            begin(&pair.standby);
            pair.a_commit_waits();
            let during = pair.clients(2);
            fault(&pair);
            during.stop()
        });
        pair.fail_over();
        pair.wait_for_visits();
        let all = clients.stop();
        if let Some(during) = during {
            assert_eq!(
                during.ok(),
                0,
                "counted while the standby confirmed nothing: {during:?}\n{}",
                pair.visitas.output()
            );
            answered_in_time(&during);
        }
        answered_in_time(&all);
        holds(
            &pair.standby.cluster.default_database(),
            &pair.visitas,
            &all,
        );
    }
}

#[test]
fn a_failover_to_a_synchronous_standby_loses_nothing() {
    // In parallel, since they mostly wait.
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let run = |scenario: &'static Scenario| {
            let result = catch_unwind(AssertUnwindSafe(|| scenario.run()));
            result.is_err().then_some(scenario.name)
        };
        let runs: Vec<_> = SCENARIOS
            .iter()
            .map(|scenario| scope.spawn(move || run(scenario)))
            .collect();
        runs.into_iter()
            .filter_map(|run| run.join().expect("a scenario's end"))
            .collect()
    });
    assert!(failed.is_empty(), "failed, see above: {failed:?}");
}

/// Every 200 has its row, no row is there twice, and the total is the number of rows.
#[track_caller]
fn holds(database: &Database<'_>, visitas: &Visitas, outcomes: &Outcomes) {
    let rows = Rows::of(&mut database.superuser());
    let (lost, said) = (rows.lost(outcomes), visitas.output());
    assert_eq!(
        (lost, rows.twice),
        (0, 0),
        "of {} rows: lost, twice; {outcomes:?}\n{said}",
        rows.count()
    );
    total_is_rows(database, visitas, &rows);
}

#[track_caller]
fn total_is_rows(database: &Database<'_>, visitas: &Visitas, rows: &Rows) {
    assert_eq!(
        visitas.stats().total,
        rows.count(),
        "the total\n{}",
        visitas.output()
    );
    let check = Settings::new()
        .postgres(database)
        .argument("check")
        .argument("--count")
        .run();
    assert_eq!(check.code, Some(0), "{check:?}");
}

#[track_caller]
fn answered_in_time(outcomes: &Outcomes) {
    outcomes.only_200_and_503();
    assert!(
        outcomes.longest <= REQUEST_TIMEOUT + LATE_AT_MOST,
        "a visit waited {:?}",
        outcomes.longest
    );
}

#[test]
fn visits_go_on_when_the_standby_comes_back() {
    // A short deadline, so that many attempts time out in an outage.
    let pair = Pair::start(Settings::new().set("REQUEST_TIMEOUT", "500ms"), Some("on"));
    let clients = pair.clients(8);
    let mut most = 0;
    for outage in [Standby::stall, Standby::cut_off] {
        pair.wait_for_visits();
        outage(&pair.standby);
        pair.a_commit_waits();
        pair.repeat_for(2 * OUTAGE, |watcher| most = most.max(sessions(watcher).0));
        pair.for_each_wait("pg_cancel_backend");
        pair.standby.reconnect();
    }
    pair.wait_for_visits();
    let all = clients.stop();
    assert!(most <= SESSIONS_AT_MOST, "{most} sessions on the primary");
    all.only_200_and_503();
    holds(&pair.primary.default_database(), &pair.visitas, &all);
}

#[test]
fn a_standby_that_comes_back_in_time_costs_nobody_an_answer() {
    let pair = Pair::start(Settings::new().set("REQUEST_TIMEOUT", "60s"), Some("on"));
    let clients = pair.clients(8);
    pair.wait_for_visits();
    pair.standby.cut_off();
    pair.a_commit_waits();
    pair.standby.reconnect();
    pair.wait_for_visits();
    let all = clients.stop();
    all.all_ok(all.ok());
    holds(&pair.primary.default_database(), &pair.visitas, &all);
}

#[test]
fn an_asynchronous_standby_may_lack_visits_but_has_none_twice() {
    let redis = Redis::start();
    let pair = Pair::start(settings().redis(&redis), None);
    let clients = pair.clients(8);
    pair.wait_for_visits();
    pair.standby.stall();
    // The failover loses these visits.
    pair.wait_for_visits();
    pair.wait_for_visits();
    pair.fail_over();
    pair.wait_for_visits();
    let all = clients.stop();
    let database = pair.standby.cluster.default_database();
    let rows = Rows::of(&mut database.superuser());
    assert!(
        rows.lost(&all) > 0,
        "the standby had everything: this proves nothing"
    );
    assert_eq!(rows.twice, 0, "rows twice");
    answered_in_time(&all);
    total_is_rows(&database, &pair.visitas, &rows);
    let counted = redis.counter().expect("a counter");
    assert!(
        counted > rows.count() as i64,
        "Redis counted {counted}, there are {} rows",
        rows.count()
    );
}

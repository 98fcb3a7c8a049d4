//! PgBouncer between visitas and PostgreSQL, in both modes: nothing is lost, counted twice or mixed
//! up.

use crate::support::audit::{self, count};
use crate::support::client::Counts;
use crate::support::database::{PATIENCE, with};
use crate::support::load::{SHORT_PAUSE, visits_at_once};
use crate::support::pgbouncer::Mode;
use crate::support::ports::free_port;
use crate::support::{
    Clients, Cluster, Database, LIMIT, Load, PgBouncer, Settings, Visitas, within,
};

/// As it ships, it refuses unknown startup parameters. People who run it make it ignore these.
const IGNORED: [&str; 3] = [
    "",
    "ignore_startup_parameters = options",
    "ignore_startup_parameters = extra_float_digits,options,statement_timeout",
];

fn settings(database: &Database<'_>, pooler: &PgBouncer) -> Settings {
    let url = with(&database.url_at(pooler.port()), PATIENCE);
    Settings::new().set("DATABASE_URL", url)
}

/// Two processes that start at once over an empty database.
fn two(settings: impl Fn() -> Settings) -> Vec<Visitas> {
    let mut both = vec![
        settings().set("PORT", free_port()).launch(),
        settings().set("PORT", free_port()).launch(),
    ];
    both.iter_mut()
        .for_each(|visitas| drop(visitas.wait_ready()));
    both
}

/// Waits until every process counts visits.
#[track_caller]
fn wait_for_visits(processes: &[Visitas]) {
    for visitas in processes {
        visitas.wait_for_visits(20, LIMIT);
    }
}

/// Under load, while an administrator terminates sessions.
fn stays_exact(mode: Mode, more: &str) {
    let database = Cluster::shared().database();
    let Some(pooler) = PgBouncer::start(database.cluster, mode, more) else {
        return;
    };
    database.prepare();
    let both = two(|| settings(&database, &pooler));
    // A process may lose one answer while it finds out that there is a pooler.
    let mut answered = 0;
    for visitas in &both {
        let outcomes = visits_at_once(&[visitas.port()], 12, 5);
        assert!(
            outcomes.unsure() <= 1,
            "{mode:?} {more:?}: {outcomes:?}\n{}",
            visitas.output()
        );
        answered += outcomes.ok();
    }
    let load = Load::of(&clients(&both));
    for _ in 0..5 {
        wait_for_visits(&both);
        within(LIMIT, "a session to end", || {
            database.terminate_sessions() > 0
        });
    }
    wait_for_visits(&both);
    let mut outcomes = load.stop();
    assert!(
        outcomes.ok() > 100,
        "too few visits for this to mean anything: {outcomes:?}"
    );
    outcomes.add_answered(answered);
    audit::holds(&database, &outcomes, &both, settings(&database, &pooler));
}

fn clients(processes: &[Visitas]) -> Clients {
    let ports = processes.iter().map(Visitas::port).collect();
    Clients {
        ports,
        count: 16,
        pause: SHORT_PAUSE,
        keep_counts: false,
    }
}

#[test]
fn session_mode_as_it_ships() {
    stays_exact(Mode::Session, IGNORED[0]);
}

#[test]
fn session_mode_that_ignores_options() {
    stays_exact(Mode::Session, IGNORED[1]);
}

#[test]
fn transaction_mode_as_it_ships() {
    stays_exact(Mode::Transaction, IGNORED[0]);
}

#[test]
fn transaction_mode_that_ignores_options() {
    stays_exact(Mode::Transaction, IGNORED[2]);
}

#[test]
fn a_pooler_that_restarts_costs_no_row() {
    for mode in Mode::ALL {
        let database = Cluster::shared().database();
        let Some(mut pooler) = PgBouncer::start(database.cluster, mode, "") else {
            return;
        };
        database.prepare();
        let both = two(|| settings(&database, &pooler).set("REQUEST_TIMEOUT", "2s"));
        let load = Load::of(&clients(&both));
        for _ in 0..3 {
            wait_for_visits(&both);
            pooler.stop();
            pooler.restart();
        }
        wait_for_visits(&both);
        let outcomes = load.stop();
        audit::holds(&database, &outcomes, &both, settings(&database, &pooler));
    }
}

#[test]
fn one_server_connection_is_enough_for_many_lanes() {
    let database = Cluster::shared().database();
    let Some(pooler) =
        PgBouncer::start(database.cluster, Mode::Transaction, "default_pool_size = 1")
    else {
        return;
    };
    database.prepare();
    let both = two(|| settings(&database, &pooler).set("WORKERS", 16));
    let ports: Vec<u16> = both.iter().map(Visitas::port).collect();
    let outcomes = visits_at_once(&ports, 24, 20);
    assert!(outcomes.unsure() <= 2, "{outcomes:?}");
    audit::holds(&database, &outcomes, &both, settings(&database, &pooler));
}

#[test]
fn a_process_that_gets_no_connection_takes_none_from_another() {
    let database = Cluster::shared().database();
    let Some(pooler) = PgBouncer::start(database.cluster, Mode::Session, "default_pool_size = 1")
    else {
        return;
    };
    let settings = || {
        settings(&database, &pooler)
            .set("WORKERS", 1)
            .set("CONNECT_ATTEMPTS", 0)
            .set("PORT", free_port())
    };
    let first = settings().start();
    let mut second = settings().launch();
    second.wait_listening();
    for visit in 1..=10 {
        assert_eq!(first.visit().total, visit);
        assert_eq!(first.get("/history").status, 200, "{}", first.output());
        assert_eq!(second.try_visit().status, 503);
    }
    first.stop();
    second.wait_ready();
    assert_eq!(second.visit().total, 11);
}

/// A server connection keeps the named statements of all its clients.
#[test]
fn statements_of_two_processes_are_never_mixed_up() {
    let database = Cluster::shared().database();
    let more = "default_pool_size = 1\nignore_startup_parameters = options";
    let Some(pooler) = PgBouncer::start(database.cluster, Mode::Transaction, more) else {
        return;
    };
    // Common names, for other statements.
    let mut stranger = pooler.session(&database.name).expect("a session");
    let names: String = (0..40)
        .map(|n| format!("PREPARE s{n} AS SELECT 42::bigint AS x;"))
        .collect();
    stranger.batch_execute(&names).expect("foreign statements");
    let both = two(|| settings(&database, &pooler));
    let (one, other) = (&both[0], &both[1]);
    // Different first statements, so that a shared name would mean different things.
    one.get("/history?by=day");
    other.visit();
    one.visit();
    other.get("/history?by=hour");
    let load = Load::of(&clients(&both));
    for round in 0..40 {
        for visitas in &both {
            let by = ["minute", "hour", "day"][round % 3];
            let history = visitas.get(&format!("/history?by={by}"));
            assert_eq!(history.status, 200, "{history:?}\n{}", visitas.output());
            assert!(visitas.stats().total >= 2, "{}", visitas.output());
        }
    }
    let outcomes = load.stop();
    assert_eq!(outcomes.unsure(), 0, "{outcomes:?}\n{}", one.output());
    let rows = database.rows();
    assert_eq!(rows, outcomes.ok() + 2);
    for visitas in &both {
        assert_eq!(visitas.stats().total, rows);
        crate::support::history::is_exact(visitas, &database);
    }
    let counted = count(settings(&database, &pooler));
    assert_eq!(counted.code, Some(0), "{counted:?}");
}

/// A lane's settings must not stay in a server connection that the next client gets.
#[test]
fn nothing_is_left_in_a_shared_connection() {
    let database = Cluster::shared().database();
    let Some(pooler) =
        PgBouncer::start(database.cluster, Mode::Transaction, "default_pool_size = 1")
    else {
        return;
    };
    let visitas = settings(&database, &pooler).start();
    let mut sql = pooler.session(&database.name).expect("a session");
    let settings = "SELECT name || '=' || setting FROM pg_settings \
        WHERE source = 'session' AND name NOT IN ('application_name', 'client_encoding', \
            'DateStyle', 'TimeZone', 'standard_conforming_strings') \
        UNION SELECT 'visitas.lane=' || current_setting('visitas.lane') \
        WHERE current_setting('visitas.lane', true) <> ''";
    for visit in 0..5 {
        assert_eq!(
            visitas.visit(),
            Counts {
                total: 2 * visit + 1,
                cache: Some(visit as i64 + 1)
            }
        );
        let left: Vec<String> = messages(&mut sql, settings);
        assert!(left.is_empty(), "{left:?}");
        // So the next writer over it is counted as a foreign one.
        sql.batch_execute("INSERT INTO acessos DEFAULT VALUES")
            .expect("a foreign row");
        assert_eq!(visitas.stats().total, 2 * visit + 2);
    }
}

/// The first column, by the simple protocol: a pooler would pass prepared statements on.
fn messages(sql: &mut ::postgres::Client, query: &str) -> Vec<String> {
    let rows = sql.simple_query(query).expect(query);
    let text = |message| match message {
        ::postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    rows.into_iter().filter_map(text).collect()
}

#[test]
fn check_reports_a_pooler() {
    let database = Cluster::shared().database();
    Settings::new().postgres(&database).start().stop();
    let says = |text: &str| text.to_lowercase().contains("pooler");
    let direct = Settings::new().postgres(&database).argument("check").run();
    assert!(
        direct.code == Some(0) && !says(&direct.stdout),
        "{direct:?}"
    );
    for mode in Mode::ALL {
        for more in IGNORED {
            let Some(pooler) = PgBouncer::start(database.cluster, mode, more) else {
                return;
            };
            let ended = settings(&database, &pooler).argument("check").run();
            assert!(
                ended.code == Some(0) && says(&ended.stdout),
                "{mode:?} {more:?}: {ended:?}"
            );
        }
    }
}

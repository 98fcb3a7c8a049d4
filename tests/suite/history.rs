//! The history: exact by minute, hour and day whoever writes, in both stores, for rows from before
//! too, and soon to be had.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::ports::free_port;
use crate::support::scratch::Folder;
use crate::support::{
    Cluster, Database, LIMIT, Load, Settings, Visitas, audit, clock, machine, within,
};

const STEPS: [(&str, &str, usize); 3] = [
    ("minute", "1 minute", 60),
    ("hour", "1 hour", 48),
    ("day", "1 day", 90),
];

/// The points of a series: when each begins, and its visits.
#[track_caller]
pub fn points(visitas: &Visitas, by: &str) -> Vec<(String, u64)> {
    let response = visitas.get(&format!("/history?by={by}"));
    assert_eq!(response.status, 200, "{response:?}\n{}", visitas.output());
    let json: serde_json::Value = serde_json::from_slice(&response.body).expect("JSON");
    let point = |point: &serde_json::Value| {
        (
            point["start"].as_str().expect("a start").to_owned(),
            point["visits"].as_u64().expect("visits"),
        )
    };
    json["points"]
        .as_array()
        .expect("points")
        .iter()
        .map(point)
        .collect()
}

pub fn sum(visitas: &Visitas, by: &str) -> u64 {
    points(visitas, by).iter().map(|(_, visits)| visits).sum()
}

/// What the rows themselves say, by the same steps.
fn counted(database: &Database<'_>, by: &str, span: &str, count: usize) -> BTreeMap<String, u64> {
    let query = format!(
        "SELECT to_char(date_trunc('{by}', momento AT TIME ZONE 'UTC'), 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), count(*) \
         FROM acessos WHERE isfinite(momento) AND date_trunc('{by}', momento AT TIME ZONE 'UTC') \
             <= date_trunc('{by}', now() AT TIME ZONE 'UTC') AND date_trunc('{by}', momento AT TIME ZONE 'UTC') \
             > date_trunc('{by}', now() AT TIME ZONE 'UTC') - {count} * interval '{span}' GROUP BY 1"
    );
    let rows = database
        .superuser()
        .query(&query, &[])
        .expect("the rows by time");
    rows.iter()
        .map(|row| (row.get(0), row.get::<_, i64>(1) as u64))
        .collect()
}

/// Every point of every series is what the rows say. A step that ends in between is asked for
/// again.
#[track_caller]
pub fn is_exact(visitas: &Visitas, database: &Database<'_>) {
    for (by, span, count) in STEPS {
        let mut last = None;
        for _ in 0..3 {
            let shown = points(visitas, by);
            assert_eq!(shown.len(), count);
            let shown: BTreeMap<String, u64> = shown
                .into_iter()
                .filter(|(_, visits)| *visits > 0)
                .collect();
            let there = counted(database, by, span, count);
            last = (shown != there).then_some((shown, there));
            if last.is_none() {
                break;
            }
        }
        if let Some((shown, there)) = last {
            panic!(
                "by {by}: shown {shown:?}, there {there:?}\n{}",
                visitas.output()
            );
        }
    }
}

/// A process whose wall clock is ten days ahead; none where its clock cannot be set, which is said.
#[track_caller]
pub fn clock_ahead(settings: Settings) -> Option<Settings> {
    match clock::faked(settings) {
        Ok(settings) => Some(settings.set("FAKETIME", "+10d")),
        Err(why) => {
            crate::support::skipped("a clock ahead", &why);
            None
        }
    }
}

/// Rows over the last hundred days.
const OLD_ROWS: &str = "INSERT INTO acessos (momento) \
    SELECT now() - random() * interval '100 days' FROM generate_series(1, 5000) UNION ALL \
    SELECT now() - random() * interval '55 minutes' FROM generate_series(1, 500)";

#[test]
fn visits_are_in_the_point_under_way() {
    let database = Cluster::shared().database();
    let settings = [Settings::new(), Settings::new().postgres(&database)];
    for visitas in settings.map(Settings::start) {
        for _ in 0..5 {
            visitas.visit();
        }
        for (by, _, count) in STEPS {
            let points = points(&visitas, by);
            assert_eq!(points.len(), count);
            assert_eq!(
                points.iter().map(|(_, visits)| visits).sum::<u64>(),
                5,
                "by {by}"
            );
            // A minute may end between the visits and the look.
            assert!(
                points[count - 2..]
                    .iter()
                    .map(|(_, visits)| visits)
                    .sum::<u64>()
                    == 5,
                "{points:?}"
            );
        }
        assert_eq!(visitas.stats().total, 5, "a look is no visit");
    }
}

#[test]
fn foreign_writers_are_followed_row_by_row() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    let mut sql = database.sql();
    visitas.visit();
    for statement in [
        OLD_ROWS,
        "DELETE FROM acessos WHERE id % 3 = 0",
        "UPDATE acessos SET momento = momento - interval '7 minutes' WHERE id % 2 = 0",
        "UPDATE acessos SET momento = momento",
        "BEGIN; DELETE FROM acessos; INSERT INTO acessos DEFAULT VALUES; ROLLBACK",
        "INSERT INTO acessos (momento) VALUES ('infinity'), ('-infinity'), (now() + interval '3 days'), ('1900-01-01')",
        "DELETE FROM acessos WHERE NOT isfinite(momento) OR momento < '1950-01-01' OR momento > now()",
        "INSERT INTO acessos (id, momento) OVERRIDING SYSTEM VALUE SELECT id, now() FROM acessos LIMIT 50 \
             ON CONFLICT (id) DO UPDATE SET momento = excluded.momento - interval '1 hour'",
        "TRUNCATE acessos",
        OLD_ROWS,
    ] {
        sql.batch_execute(statement).expect(statement);
        visitas.visit();
        is_exact(&visitas, &database);
    }
}

#[test]
fn rows_from_before_are_counted_while_others_write() {
    let _machine = machine();
    let database = Cluster::shared().database();
    let mut sql = database.sql();
    sql.batch_execute(
        "CREATE TABLE acessos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, momento timestamptz DEFAULT now())",
    )
    .expect("the table from before");
    sql.batch_execute(
        "INSERT INTO acessos (momento) SELECT now() - random() * interval '100 days' FROM generate_series(1, 400000); \
         UPDATE acessos SET momento = NULL WHERE id % 1000 = 0",
    )
    .expect("rows from before");
    // Other writers never wait for the count, and nothing of what they do is missed.
    let mut visitas = Settings::new()
        .postgres(&database)
        .set("PORT", free_port())
        .launch();
    let mut rounds = 0;
    while visitas.stdout().all().is_empty() || rounds < 5 {
        rounds += 1;
        sql.batch_execute(&format!("DELETE FROM acessos WHERE id % 997 = {rounds}"))
            .expect("a delete");
        sql.batch_execute(&format!(
            "UPDATE acessos SET momento = now() - interval '30 minutes' WHERE id % 1009 = {rounds}"
        ))
        .expect("an update");
    }
    visitas.wait_ready();
    visitas.visit();
    is_exact(&visitas, &database);
    let total = visitas.stats().total;
    let visitas = visitas.kill().start();
    assert_eq!(visitas.stats().total, total, "it is counted once");
    is_exact(&visitas, &database);
    sql.batch_execute("DELETE FROM acessos WHERE id <= 1000")
        .expect("a delete afterwards");
    is_exact(&visitas, &database);
}

#[test]
fn a_table_without_rising_ids_is_counted_too() {
    for shape in [
        "CREATE TABLE acessos (momento timestamptz DEFAULT now())",
        "CREATE TABLE acessos (id int PRIMARY KEY DEFAULT (random() * 1e9)::int, momento timestamptz DEFAULT now())",
        "CREATE TABLE acessos (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, momento timestamptz DEFAULT now()); \
         INSERT INTO acessos (id) VALUES (5000)",
    ] {
        let database = Cluster::shared().database();
        let mut sql = database.sql();
        sql.batch_execute(shape).expect(shape);
        for minutes in [1, 70, 4000] {
            let row = format!(
                "INSERT INTO acessos (momento) VALUES (now() - interval '{minutes} minutes')"
            );
            sql.batch_execute(&row).expect(&row);
        }
        let visitas = Settings::new().postgres(&database).start();
        visitas.visit();
        is_exact(&visitas, &database);
        sql.batch_execute("DELETE FROM acessos WHERE momento < now() - interval '1 hour'")
            .expect("a delete");
        is_exact(&visitas, &database);
    }
}

#[test]
fn a_column_that_is_no_time_keeps_nobody_from_writing() {
    let database = Cluster::shared().database();
    let mut sql = database.sql();
    sql.batch_execute("CREATE TABLE acessos (id serial PRIMARY KEY, momento text DEFAULT 'then')")
        .expect("a table");
    sql.batch_execute("INSERT INTO acessos DEFAULT VALUES")
        .expect("a row from before");
    let visitas = Settings::new().postgres(&database).start();
    assert_eq!(visitas.visit().total, 2);
    sql.batch_execute("INSERT INTO acessos DEFAULT VALUES; DELETE FROM acessos WHERE id = 1")
        .expect("a foreign writer");
    assert_eq!(visitas.stats().total, 2);
}

/// A process whose clock is ten days ahead writes rows that are ten days ahead. What others have it
/// must leave alone, minutes and hours too, which are kept for some days only.
#[test]
fn a_clock_ahead_takes_nothing_from_others() {
    let _machine = machine();
    let database = Cluster::shared().database();
    let Some(ahead) = clock_ahead(Settings::new().postgres(&database)) else {
        return;
    };
    let visitas = Settings::new().postgres(&database).start();
    let mut sql = database.sql();
    (0..5).for_each(|_| assert_eq!(visitas.try_visit().status, 200));
    sql.batch_execute(
        "INSERT INTO acessos (momento) SELECT now() - n * interval '7 minutes' FROM generate_series(1, 300) n",
    )
    .expect("rows of a day and a half");
    is_exact(&visitas, &database);
    let ahead = ahead.start();
    for _ in 0..3 {
        ahead.visit();
        // More than wait to be folded, so that both processes fold.
        for _ in 0..200 {
            sql.batch_execute(
                "INSERT INTO acessos (momento) VALUES (now() - interval '90 minutes')",
            )
            .expect("a row");
        }
        ahead.visit();
        visitas.visit();
        is_exact(&visitas, &database);
    }
    let future = "SELECT count(*) FROM acessos WHERE momento > now() + interval '9 days'";
    let future: i64 = database
        .superuser()
        .query_one(future, &[])
        .expect("rows to come")
        .get(0);
    assert_eq!(future, 6, "the clock was not ahead: this proves nothing");
    let settings = ahead.stop();
    let counted = audit::count(Settings::new().postgres(&database));
    assert_eq!(counted.code, Some(0), "{counted:?}");
    // Nor does a start with that clock.
    settings.start().visit();
    is_exact(&visitas, &database);
    assert_eq!(visitas.stats().total, database.rows());
}

/// A column without a zone holds what its database's zone was when visitas took it over, whatever
/// that becomes.
#[test]
fn moments_without_a_zone_keep_theirs() {
    let database = Cluster::shared().database();
    let zone = |zone: &str| {
        let set = format!("ALTER DATABASE {} SET timezone = '{zone}'", database.name);
        database
            .superuser()
            .batch_execute(&set)
            .expect("another zone");
    };
    zone("America/Sao_Paulo");
    let table = "CREATE TABLE acessos (id bigserial PRIMARY KEY, momento timestamp DEFAULT now()); \
        INSERT INTO acessos (momento) SELECT now() - n * interval '10 minutes' FROM generate_series(1, 3) n";
    database
        .sql()
        .batch_execute(table)
        .expect("rows from before");
    let visitas = Settings::new().postgres(&database).start();
    (0..2).for_each(|_| assert_eq!(visitas.try_visit().status, 200));
    assert_eq!(
        ["minute", "hour", "day"].map(|by| sum(&visitas, by)),
        [5, 5, 5]
    );
    zone("Asia/Tokyo");
    let visitas = visitas.stop().start();
    assert_eq!(visitas.visit().total, 6);
    assert_eq!(
        ["minute", "hour", "day"].map(|by| sum(&visitas, by)),
        [6, 6, 6]
    );
    let fresh = "SELECT count(*) FROM acessos WHERE momento AT TIME ZONE 'America/Sao_Paulo' \
        BETWEEN now() - interval '5 minutes' AND now()";
    let fresh: i64 = database
        .superuser()
        .query_one(fresh, &[])
        .expect("moments")
        .get(0);
    assert_eq!(fresh, 3, "visits are stored in one zone");
    let counted = audit::count(Settings::new().postgres(&database));
    assert_eq!(counted.code, Some(0), "{counted:?}");
    database
        .sql()
        .batch_execute("UPDATE acessos SET momento = momento - interval '2 hours' WHERE id = 1")
        .expect("a row");
    assert_eq!(
        ["minute", "hour", "day"].map(|by| sum(&visitas, by)),
        [5, 6, 6]
    );
    // Whatever was added for a row is what is taken away with it.
    database
        .sql()
        .batch_execute("DELETE FROM acessos")
        .expect("no row left");
    assert_eq!(
        ["minute", "hour", "day"].map(|by| sum(&visitas, by)),
        [0, 0, 0]
    );
}

#[test]
fn two_processes_share_one_history() {
    let _machine = machine();
    let database = Cluster::shared().database();
    let processes = [0, 1].map(|_| Settings::new().postgres(&database).start());
    let ports: Vec<u16> = processes.iter().map(Visitas::port).collect();
    crate::support::load::visits_at_once(&ports, 20, 10).all_ok(200);
    for visitas in &processes {
        assert_eq!(sum(visitas, "day"), 200);
        is_exact(visitas, &database);
    }
}

#[test]
fn a_look_costs_the_same_with_many_rows_as_with_none() {
    let _machine = machine();
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    let mut sql = database.superuser();
    sql.batch_execute(
        "INSERT INTO acessos (momento) SELECT now() - random() * interval '90 days' FROM generate_series(1, 300000)",
    )
    .expect("rows");
    let scans = "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint FROM pg_stat_user_tables \
        WHERE relname = 'acessos'";
    let mut read = || -> i64 {
        sql.batch_execute("SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot()")
            .expect("statistics");
        sql.query_one(scans, &[]).expect("statistics").get(0)
    };
    let before = read();
    for _ in 0..20 {
        visitas.get("/history?by=day");
        visitas.get("/");
    }
    visitas.stop();
    assert_eq!(
        read() - before,
        0,
        "rows of acessos were read to look at the history"
    );
}

#[test]
fn the_embedded_history_survives_a_restart_and_a_crash() {
    let _machine = machine();
    let folder = Folder::new("store");
    let over = || Settings::new().set("DATA_DIR", folder.path().join("store").display());
    let visitas = over().start();
    for _ in 0..3 {
        visitas.visit();
    }
    visitas.stop();
    let visitas = over().set("WORKERS", 1).start();
    assert_eq!(sum(&visitas, "day"), 3);
    let load = Load::start(visitas.port(), 8);
    within(LIMIT, "some visits", || visitas.stats().total > 100);
    visitas.kill();
    load.stop();
    let visitas = over().set("WORKERS", 3).start();
    visitas.visit();
    let total = visitas.stats().total;
    assert_eq!(
        (sum(&visitas, "day"), sum(&visitas, "hour")),
        (total, total)
    );
}

#[test]
fn it_is_json_or_csv_and_says_what_it_takes() {
    let visitas = Settings::new().start();
    visitas.visit();
    let json = visitas.get("/history?by=hour");
    assert_eq!(json.header("Content-Type"), Some("application/json"));
    let csv = visitas.request("GET", "/history?by=hour", &[("Accept", "text/csv")]);
    assert!(
        csv.header("Content-Type")
            .is_some_and(|kind| kind.starts_with("text/csv")),
        "{csv:?}"
    );
    let rows: Vec<String> = points(&visitas, "hour")
        .iter()
        .map(|(start, n)| format!("{start},{n}\r\n"))
        .collect();
    assert_eq!(csv.text(), format!("start,visits\r\n{}", rows.concat()));
    assert_eq!(
        visitas.get("/history").text(),
        visitas.get("/history?by=minute").text()
    );
    for by in ["week", "", "minute%20", "MINUTE"] {
        let refused = visitas.get(&format!("/history?by={by}"));
        assert_eq!(refused.status, 400, "{by}");
        assert!(refused.sentence().contains("minute"), "{refused:?}");
    }
}

#[test]
fn it_is_a_fast_503_while_the_ledger_is_away() {
    let cluster = Cluster::start();
    let database = cluster.default_database();
    let visitas = Settings::new().postgres(&database).start();
    visitas.visit();
    cluster.stop(crate::support::Stop::Fast);
    within(LIMIT, "a refusal", || visitas.get("/history").status == 503);
    let began = Instant::now();
    assert_eq!(visitas.get("/history").status, 503);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    cluster.restart();
    within(LIMIT, "the history again", || {
        visitas.get("/history").status == 200
    });
    assert_eq!(sum(&visitas, "day"), 1);
}

/// A batch may hold visits of several minutes: a clock in which minutes pass in a tenth of a second.
#[test]
fn minutes_that_end_within_a_batch_are_counted() {
    let database = Cluster::shared().database();
    let visitas = match clock::faked(Settings::new().postgres(&database)) {
        Ok(settings) => settings.set("FAKETIME", "+0 x600").start(),
        Err(why) => return crate::support::skipped("minutes within a batch", &why),
    };
    let load = Load::start(visitas.port(), 32);
    let minutes = || -> i64 {
        let count = "SELECT count(DISTINCT date_trunc('minute', momento)) FROM acessos";
        let row = database.superuser().query_one(count, &[]);
        row.expect("a number").get(0)
    };
    within(LIMIT, "minutes to pass", || minutes() >= 20);
    assert_eq!(load.stop().unsure(), 0, "{}", visitas.output());
    let counted = audit::count(Settings::new().postgres(&database));
    assert_eq!(counted.code, Some(0), "{counted:?}\n{}", visitas.output());
}

//! `KEEP_ROWS`: old rows are deleted in steps. The total stays rows plus pruned at any moment, and
//! the history keeps its days.

use crate::support::audit::count;
use crate::support::scratch::Folder;
use crate::support::wait::within_value;
use crate::support::{Cluster, Database, LIMIT, Load, Settings, Visitas, within};

/// `total` and `pruned` of `/stats`.
#[track_caller]
fn total_and_pruned(visitas: &Visitas) -> (u64, u64) {
    let response = visitas.get("/stats");
    assert_eq!(response.status, 200, "{response:?}\n{}", visitas.output());
    let json: serde_json::Value = serde_json::from_slice(&response.body).expect("JSON");
    let number = |name: &str| {
        json[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no {name} in {json}"))
    };
    (number("total"), number("pruned"))
}

/// The total includes pruned rows, these rows are left, and a count agrees.
#[track_caller]
fn is_kept(visitas: &Visitas, database: &Database<'_>, total: u64, rows: u64) {
    assert_eq!(database.rows(), rows, "{}", visitas.output());
    assert_eq!(
        total_and_pruned(visitas),
        (total, total - rows),
        "{}",
        visitas.output()
    );
    let counted = count(Settings::new().postgres(database));
    assert_eq!(counted.code, Some(0), "{counted:?}");
}

/// Waits until this number of rows is left; the total never changes.
#[track_caller]
fn pruned_to(visitas: &Visitas, database: &Database<'_>, total: u64, rows: u64) {
    within_value(LIMIT, "old rows to go", || {
        assert_eq!(total_and_pruned(visitas).0, total, "{}", visitas.output());
        match database.rows() {
            left if left == rows => Ok(()),
            left => Err((left, visitas.output())),
        }
    });
    is_kept(visitas, database, total, rows);
}

#[test]
fn old_visits_are_pruned_and_stay_in_the_total() {
    let database = Cluster::shared().database();
    let settings = Settings::new().postgres(&database).set("KEEP_ROWS", "2s");
    let visitas = settings.start();
    for visit in 1..=5 {
        assert_eq!(visitas.visit().total, visit);
    }
    assert_eq!(total_and_pruned(&visitas).0, 5);
    pruned_to(&visitas, &database, 5, 0);
    for by in ["minute", "hour", "day"] {
        assert_eq!(crate::support::history::sum(&visitas, by), 5, "by {by}");
    }
    assert_eq!(visitas.visit().total, 6);
    // A restart keeps both numbers, with or without the setting.
    let settings = visitas.stop().set("KEEP_ROWS", "400d");
    let visitas = settings.start();
    assert_eq!(visitas.visit().total, 7);
    let rows = database.rows();
    is_kept(&visitas, &database, 7, rows);
    let recounted = Settings::new()
        .postgres(&database)
        .argument("recount")
        .run();
    assert_eq!(recounted.code, Some(0), "{recounted:?}");
    is_kept(&visitas, &database, 7, rows);
}

/// Foreign rows, older and younger ones, and some without a known age.
#[test]
fn old_foreign_rows_are_pruned_in_steps() {
    let database = Cluster::shared().database();
    let mut sql = database.sql();
    // A trigger of the table's owner notes how many rows are deleted at once.
    sql.batch_execute(
        "CREATE TABLE acessos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
         momento timestamptz DEFAULT now()); \
         INSERT INTO acessos (momento) SELECT now() - n * interval '1 minute' \
         FROM generate_series(1, 60000) n; \
         INSERT INTO acessos (momento) VALUES (NULL), ('infinity'), (now() + interval '1 day'); \
         CREATE TABLE steps (rows bigint); \
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER \
         SET search_path = public, pg_temp AS $$ \
             BEGIN INSERT INTO public.steps SELECT count(*) FROM gone; RETURN NULL; END $$; \
         CREATE TRIGGER note AFTER DELETE ON acessos REFERENCING OLD TABLE AS gone \
         FOR EACH STATEMENT EXECUTE FUNCTION note()",
    )
    .expect("rows from before");
    let visitas = Settings::new()
        .postgres(&database)
        .set("KEEP_ROWS", "1d")
        .start();
    let load = Load::start(visitas.port(), 4);
    let old = "SELECT count(*) FROM acessos WHERE momento < now() - interval '24 hours 10 minutes'";
    within_value(LIMIT, "old rows to go", || match database.number(old) {
        0 => Ok(()),
        left => Err((left, visitas.output())),
    });
    let outcomes = load.stop();
    assert_eq!(outcomes.unsure(), 0, "{outcomes:?}\n{}", visitas.output());
    let (total, rows) = (60_003 + outcomes.ok(), database.rows());
    assert!(
        (1400..1500).contains(&(rows - outcomes.ok())),
        "{rows} rows, {} of visits",
        outcomes.ok()
    );
    assert_eq!(
        database.number("SELECT count(*) FROM acessos WHERE momento IS NULL OR momento > now()"),
        3
    );
    is_kept(&visitas, &database, total, rows);
    let steps = database.number("SELECT count(*) FROM steps WHERE rows > 0");
    let largest = database.number("SELECT max(rows) FROM steps");
    assert!(
        steps >= 4 && largest <= 20_000,
        "{steps} steps of up to {largest} rows"
    );
    // The history keeps every day.
    let days: u64 = crate::support::history::points(&visitas, "day")
        .iter()
        .map(|(_, visits)| visits)
        .sum();
    assert_eq!(days, 60_000 + outcomes.ok());
    // A manual DELETE reduces the total.
    database
        .sql()
        .batch_execute("DELETE FROM acessos")
        .expect("a DELETE");
    is_kept(&visitas, &database, total - rows, 0);
}

#[test]
fn nothing_is_lost_when_a_process_dies_while_it_prunes() {
    let database = Cluster::shared().database();
    let old = "CREATE TABLE acessos (id bigserial PRIMARY KEY, momento timestamptz DEFAULT now()); \
        INSERT INTO acessos (momento) SELECT now() - interval '3 days' FROM generate_series(1, \
        100000)";
    database.sql().batch_execute(old).expect("rows from before");
    let settings = || Settings::new().postgres(&database).set("KEEP_ROWS", "2d");
    for _ in 0..4 {
        let visitas = settings().start();
        let before = database.rows();
        within(LIMIT, "rows to go", || {
            database.rows() < before || before == 0
        });
        visitas.kill();
    }
    // Two processes at once do not count a row twice.
    let (one, other) = (settings().start(), settings().start());
    pruned_to(&one, &database, 100_000, 0);
    assert_eq!(total_and_pruned(&other), (100_000, 100_000));
}

#[test]
fn without_the_setting_every_row_stays() {
    let database = Cluster::shared().database();
    let old = "CREATE TABLE acessos (id bigserial PRIMARY KEY, momento timestamptz DEFAULT now()); \
        INSERT INTO acessos (momento) SELECT '1970-01-01' FROM generate_series(1, 100)";
    database.sql().batch_execute(old).expect("rows from before");
    let visitas = Settings::new().postgres(&database).start();
    for visit in 1..=5 {
        assert_eq!(visitas.visit().total, 100 + visit);
    }
    is_kept(&visitas, &database, 105, 105);
}

/// A moment without a time zone is in the zone of the database.
#[test]
fn moments_without_a_zone_are_pruned_at_their_age() {
    let database = Cluster::shared().database();
    let mut sql = database.sql();
    sql.batch_execute(&format!(
        "ALTER DATABASE {} SET timezone = 'Asia/Tokyo'",
        database.name
    ))
    .expect("a zone");
    let mut sql = database.sql();
    sql.batch_execute(
        "CREATE TABLE acessos (id bigserial PRIMARY KEY, momento timestamp DEFAULT now()); \
         INSERT INTO acessos (momento) SELECT now() - n * interval '1 hour' \
         FROM generate_series(1, 10) n",
    )
    .expect("rows from before");
    let visitas = Settings::new()
        .postgres(&database)
        .set("KEEP_ROWS", "330m")
        .start();
    pruned_to(&visitas, &database, 10, 5);
}

/// The age of a row goes by the database's clock: a host whose clock is ahead must not delete
/// others' rows.
#[test]
fn a_clock_ahead_prunes_nothing() {
    let database = Cluster::shared().database();
    let Some(ahead) = crate::support::history::clock_ahead(
        Settings::new().postgres(&database).set("KEEP_ROWS", "5d"),
    ) else {
        return;
    };
    let visitas = Settings::new().postgres(&database).start();
    for visit in 1..=5 {
        assert_eq!(visitas.visit().total, visit);
    }
    let old =
        "INSERT INTO acessos (momento) SELECT now() - interval '6 days' FROM generate_series(1, 7)";
    database.sql().batch_execute(old).expect("old rows");
    let ahead = ahead.start();
    pruned_to(&ahead, &database, 12, 5);
    assert_eq!(crate::support::history::sum(&visitas, "minute"), 5);
}

/// Nobody who writes, locks or deletes old rows at the same time has to wait or fails.
#[test]
fn pruning_does_not_disturb_other_writers() {
    let database = Cluster::shared().database();
    let old = "CREATE TABLE acessos (id bigserial PRIMARY KEY, momento timestamptz DEFAULT now()); \
        INSERT INTO acessos (momento) SELECT now() - interval '3 days' FROM generate_series(1, \
        20000)";
    database.sql().batch_execute(old).expect("rows from before");
    Settings::new().postgres(&database).start().stop();
    let mut holder = database.sql();
    let mut held = holder.transaction().expect("BEGIN");
    held.batch_execute(
        "UPDATE acessos SET momento = now() WHERE id IN (7, 15000); DELETE FROM acessos \
        WHERE id = 8",
    )
    .expect("rows of a foreign transaction");
    let visitas = Settings::new()
        .postgres(&database)
        .set("KEEP_ROWS", "1d")
        .start();
    within(LIMIT, "all other rows to go", || database.rows() == 3);
    held.commit().expect("COMMIT");
    within(LIMIT, "visits", || visitas.try_visit().status == 200);
    // Two rows are young now, one is deleted, and one visit came.
    is_kept(&visitas, &database, 20_000, 3);
}

#[test]
fn a_partition_is_retired_before_it_is_dropped() {
    let database = Cluster::shared().database();
    let mut sql = database.sql();
    sql.batch_execute(
        "SET timezone = 'UTC'; \
         CREATE TABLE acessos (id bigserial, momento timestamptz NOT NULL DEFAULT now()) \
         PARTITION BY RANGE (momento); \
         DO $$ DECLARE day timestamptz := date_trunc('day', now()) - interval '3 days'; BEGIN \
             EXECUTE format('CREATE TABLE acessos_old PARTITION OF acessos FOR VALUES FROM \
             (''-infinity'') TO (%L)', day); \
             EXECUTE format('CREATE TABLE acessos_next PARTITION OF acessos FOR VALUES FROM (%L) \
             TO (%L)', \
                 day, day + interval '1 day'); \
             CREATE TABLE acessos_new PARTITION OF acessos DEFAULT; \
             INSERT INTO acessos (momento) SELECT day + n * interval '1 minute' \
             FROM generate_series(-60, 89) n; \
         END $$",
    )
    .expect("a partitioned table");
    let visitas = Settings::new().postgres(&database).start();
    assert_eq!(total_and_pruned(&visitas), (150, 0));
    let of = |partition: &str| -> u64 {
        database
            .number(&format!("SELECT count(*) FROM {partition}"))
            .try_into()
            .expect("a count")
    };
    let (old, later) = (of("acessos_old"), of("acessos_next"));
    assert!(old > 10 && later > 10 && old + later == 150);
    let load = Load::start(visitas.port(), 4);
    sql.batch_execute(
        "BEGIN; SELECT visitas_retire('acessos_old'); DROP TABLE acessos_old; ROLLBACK",
    )
    .expect("undone");
    assert_eq!(total_and_pruned(&visitas).1, 0);
    sql.batch_execute(
        "BEGIN; SELECT visitas_retire('acessos_old'); DROP TABLE acessos_old; COMMIT",
    )
    .expect("retired");
    assert_eq!(total_and_pruned(&visitas).1, old);
    sql.batch_execute(
        "BEGIN; SELECT visitas_retire('acessos_next'); ALTER TABLE acessos DETACH \
         PARTITION acessos_next; COMMIT",
    )
    .expect("retired");
    assert_eq!(total_and_pruned(&visitas).1, 150);
    // A table that is not a partition is refused.
    for table in ["acessos_next", "acessos", "pg_class"] {
        sql.batch_execute(&format!("SELECT visitas_retire('{table}')"))
            .expect_err(table);
    }
    let outcomes = load.stop();
    assert_eq!(outcomes.unsure(), 0, "{outcomes:?}\n{}", visitas.output());
    is_kept(&visitas, &database, 150 + outcomes.ok(), outcomes.ok());
    // A past day keeps its visits, those of dropped rows too.
    let days: Vec<u64> = crate::support::history::points(&visitas, "day")
        .iter()
        .map(|(_, visits)| *visits)
        .collect();
    assert_eq!((days[85], days[86]), (old, later), "{days:?}");
    assert_eq!(days.iter().sum::<u64>(), 150 + outcomes.ok());
}

/// In a partitioned table only whole partitions can be retired. The process says so and serves
/// visits.
#[test]
fn a_partitioned_table_is_not_pruned_row_by_row() {
    let database = Cluster::shared().database();
    database
        .sql()
        .batch_execute(
            "CREATE TABLE acessos (id bigserial, momento timestamptz NOT NULL DEFAULT now()) \
             PARTITION BY RANGE (momento); \
             CREATE TABLE acessos_old PARTITION OF acessos FOR VALUES FROM ('-infinity') TO \
             ('2024-01-01'); \
             CREATE TABLE acessos_new PARTITION OF acessos DEFAULT; \
             INSERT INTO acessos (momento) SELECT '2023-01-01' FROM generate_series(1, 100); \
             INSERT INTO acessos SELECT FROM generate_series(1, 100)",
        )
        .expect("a partitioned table");
    let visitas = Settings::new()
        .postgres(&database)
        .set("KEEP_ROWS", "90d")
        .start();
    visitas.logged(&["KEEP_ROWS", "partition"]);
    assert_eq!(visitas.visit().total, 201);
    let young =
        database.number("SELECT count(*) FROM acessos WHERE momento > now() - interval '1 day'");
    assert_eq!(young, 101, "young rows are left");
}

#[test]
fn the_embedded_store_prunes_too() {
    let folder = Folder::new("store");
    let over = |keep: &str| {
        Settings::new()
            .set("DATA_DIR", folder.path().join("store").display())
            .set("KEEP_ROWS", keep)
    };
    let visitas = over("2s").start();
    for visit in 1..=5 {
        assert_eq!(visitas.visit().total, visit);
    }
    within_value(LIMIT, "old rows to go", || {
        match total_and_pruned(&visitas) {
            // The newest row stays, since its number is the total.
            (5, 4) => Ok(()),
            other => Err(other),
        }
    });
    assert_eq!(crate::support::history::sum(&visitas, "day"), 5);
    assert_eq!(visitas.visit().total, 6);
    visitas.kill();
    let visitas = over("400d").start();
    assert_eq!(visitas.visit().total, 7);
    let (total, pruned) = total_and_pruned(&visitas);
    assert!(total == 7 && (4..=6).contains(&pruned), "{total} {pruned}");
    assert_eq!(crate::support::history::sum(&visitas, "day"), 7);
    visitas.stop();
    let counted = count(over("400d"));
    assert_eq!(counted.code, Some(0), "{counted:?}");
    let visitas = over("400d").start();
    assert_eq!(total_and_pruned(&visitas), (total, pruned));
}

//! Counters by name in PostgreSQL: the column, adoption, retention, recounts, and the cost.

use super::{json, visit};
use crate::support::audit::count;
use crate::support::names::{listed, rows_by_name, totals_are_rows};
use crate::support::{Cluster, Database, LIMIT, Settings, Visitas, within};

/// Numbers of names that are only in entries of a writer.
const RECENT: &str = "SELECT count(*) FROM visitas_recent";

fn named(database: &Database<'_>) -> Settings {
    Settings::new().postgres(database).set("COUNTERS", "*")
}

#[track_caller]
fn count_is(database: &Database<'_>, code: i32) -> String {
    let counted = count(Settings::new().postgres(database));
    assert_eq!(counted.code, Some(code), "{counted:?}");
    counted.stdout
}

#[test]
fn the_column_is_added_once_and_old_rows_have_no_name() {
    let database = Cluster::shared().database();
    let plain = Settings::new().postgres(&database).start();
    for _ in 0..3 {
        plain.visit();
    }
    // Beside a process that knows no names.
    let visitas = named(&database).start();
    assert_eq!(visit(&visitas, "a").0, 1);
    assert_eq!(plain.visit().total, 5);
    assert_eq!(visit(&visitas, "a").0, 2);
    assert!(
        !visitas.output().contains("rows of acessos are counted"),
        "{}",
        visitas.output()
    );
    let nulls = "SELECT count(*) FROM acessos WHERE contador IS NULL";
    assert_eq!(database.number(nulls), 4);
    // One that starts later leaves the column and the triggers as they are.
    let plain = plain.stop().start();
    plain.visit();
    let mut sql = database.sql();
    sql.batch_execute("INSERT INTO acessos (contador) VALUES ('a'), ('b')")
        .expect("foreign rows");
    assert_eq!(visit(&visitas, "a").0, 4);
    assert_eq!(plain.visit().total, 11);
    totals_are_rows(&visitas, &database);
    count_is(&database, 0);
}

#[test]
fn rows_with_names_from_before_are_counted_at_the_start() {
    let database = Cluster::shared().database();
    let table = "CREATE TABLE acessos (id bigserial PRIMARY KEY, momento timestamp DEFAULT now(), \
        contador text); INSERT INTO acessos (momento, contador) \
        SELECT now() - n * interval '7 minutes', (ARRAY['a', 'b', NULL, 'Not A Name'])[n % 4 + 1] \
        FROM generate_series(1, 4000) n";
    database
        .sql()
        .batch_execute(table)
        .expect("rows from before");
    let visitas = named(&database).start();
    let rows = totals_are_rows(&visitas, &database);
    assert_eq!((rows["a"], rows["b"], rows.len()), (1000, 1000, 2));
    assert_eq!(visit(&visitas, "a").0, 1001);
    let days = json(&visitas.get("/c/b/history?by=day"));
    let points = days["points"].as_array().expect("points").iter();
    let sum: u64 = points
        .map(|point| point["visits"].as_u64().expect("visits"))
        .sum();
    assert_eq!(sum, 1000);
    count_is(&database, 0);
}

#[test]
fn a_column_that_holds_no_text_is_told() {
    let database = Cluster::shared().database();
    let table = "CREATE TABLE acessos (id bigserial PRIMARY KEY, \
        momento timestamptz DEFAULT now(), contador integer)";
    database.sql().batch_execute(table).expect("a table");
    let ended = named(&database).run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("contador") && ended.stderr.contains("COUNTERS"),
        "{ended:?}"
    );
    let visitas = Settings::new().postgres(&database).start();
    assert_eq!(visitas.visit().total, 1);
}

#[test]
fn pruned_rows_stay_in_the_totals_of_their_names() {
    let database = Cluster::shared().database();
    let visitas = named(&database).set("KEEP_ROWS", "1s").start();
    for name in ["a", "b", "a"] {
        visit(&visitas, name);
    }
    within(LIMIT, "rows to go", || database.rows() == 0);
    let stats = json(&visitas.get("/c/a/stats"));
    assert_eq!(
        (stats["total"].as_u64(), stats["pruned"].as_u64()),
        (Some(2), Some(2))
    );
    assert_eq!(visit(&visitas, "b").0, 2);
    let visitas = visitas.stop().set("KEEP_ROWS", "400d").start();
    count_is(&database, 0);
    assert_eq!(visit(&visitas, "a").0, 3);
    count_is(&database, 0);
}

#[test]
fn a_recount_sets_names_right_beside_visits() {
    let database = Cluster::shared().database();
    let visitas = named(&database).start();
    for name in ["a", "b", "a", "c"] {
        visit(&visitas, name);
    }
    // Behind the triggers' back.
    let script = "SET session_replication_role = replica; \
        INSERT INTO acessos (contador) VALUES ('a'), ('d'), (NULL); \
        UPDATE acessos SET contador = 'b' WHERE contador = 'c'";
    database
        .superuser()
        .batch_execute(script)
        .expect("rows that no trigger sees");
    let told = count_is(&database, 1);
    assert!(told.contains("counters by name differ"), "{told}");
    let recounted = Settings::new()
        .postgres(&database)
        .argument("recount")
        .run();
    assert_eq!(recounted.code, Some(0), "{recounted:?}");
    count_is(&database, 0);
    assert_eq!(listed(&visitas), rows_by_name(&database));
    assert_eq!(visit(&visitas, "a").0, 4);
    assert_eq!(visit(&visitas, "b").0, 3);
}

/// The pages that the totals of these names touch, once their plan is made.
fn pages(database: &Database<'_>) -> i64 {
    let mut sql = database.superuser();
    let mut once = || {
        let plan = "EXPLAIN (ANALYZE, BUFFERS) SELECT visitas_named_sums(ARRAY['a', 'b', 'c'])";
        let lines = sql.query(plan, &[]).expect("a plan");
        let lines: Vec<String> = lines.iter().map(|line| line.get(0)).collect();
        let text = lines.join("\n");
        let hit = text
            .split("hit=")
            .nth(1)
            .unwrap_or_else(|| panic!("{text}"));
        let digits: String = hit.chars().take_while(char::is_ascii_digit).collect();
        digits
            .parse::<i64>()
            .unwrap_or_else(|why| panic!("{why}: {text}"))
    };
    (0..9).map(|_| once()).min().expect("pages")
}

#[test]
fn a_names_total_costs_the_same_with_many_rows_and_a_held_snapshot() {
    let database = Cluster::shared().database();
    let visitas = named(&database).start();
    for name in ["a", "b", "c"] {
        visit(&visitas, name);
    }
    let before = pages(&database);
    let mut holder = database.superuser();
    holder
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM acessos")
        .expect("a snapshot");
    let rows = "INSERT INTO acessos (contador) SELECT (ARRAY['a', 'b', 'c'])[n % 3 + 1] \
        FROM generate_series(1, 50000) n";
    database.sql().batch_execute(rows).expect("rows");
    let single = "DO $$ BEGIN FOR n IN 1..2000 LOOP INSERT INTO acessos (contador) VALUES ('a'); \
        COMMIT; END LOOP; END $$";
    database.sql().batch_execute(single).expect("single rows");
    for _ in 0..3000 {
        visit(&visitas, "a");
    }
    let mut watcher = database.superuser();
    within(LIMIT, "what was appended to be folded", || {
        visit(&visitas, "a");
        let changes = watcher.query_one("SELECT count(*) FROM visitas_changes", &[]);
        changes.expect("changes").get::<_, i64>(0) < 100
    });
    let after = pages(&database);
    assert!(
        after <= 2 * before + 20,
        "{before} pages before, {after} after"
    );
    drop(holder);
    totals_are_rows(&visitas, &database);
}

/// Old numbers of names are dropped while their lane goes on, and all when it ends.
#[test]
fn entries_of_names_do_not_pile_up() {
    const ROWS: &str = "SELECT count(*) FROM visitas_named";
    const ENTRIES: &str = "SELECT count(*) FROM visitas_log";
    let database = Cluster::shared().database();
    let visitas = named(&database).start();
    for round in 0..3000 {
        visit(&visitas, &format!("n{}", round % 10));
    }
    let found = (database.number(ROWS), database.number(ENTRIES));
    assert!(found.0 < 2100 && found.1 < 800, "{found:?} of ten names");
    assert!(found.0 + database.number(RECENT) >= 10, "{found:?}");
    let end = |visitas: Visitas| visitas.stop();
    let settings = end(visitas);
    assert_eq!(database.number(ROWS) + database.number(RECENT), 0);
    let visitas = settings.start();
    assert_eq!(visit(&visitas, "n3").0, 301);
    totals_are_rows(&visitas, &database);
}

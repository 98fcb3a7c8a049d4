//! Numbers of names that are only in a lone writer's entries, not in rows of their own yet.

use super::{json, visit};
use crate::support::audit::count;
use crate::support::names::{listed, rows_by_name, totals_are_rows, visits_to_names};
use crate::support::{Cluster, Database, LIMIT, Settings, Visitas, within};

/// How many there are.
const RECENT: &str = "SELECT count(*) FROM visitas_recent";
const ROWS: &str = "SELECT count(*) FROM visitas_named";

fn named(database: &Database<'_>) -> Settings {
    Settings::new().postgres(database).set("COUNTERS", "*")
}

#[track_caller]
fn count_agrees(database: &Database<'_>) {
    let counted = count(Settings::new().postgres(database));
    assert_eq!(counted.code, Some(0), "{counted:?}");
}

/// Visits a name until the lane finds that it is alone.
fn visit_until_alone(visitas: &Visitas, database: &Database<'_>, name: &str) {
    within(LIMIT, "numbers that are only in entries", || {
        visit(visitas, name);
        database.number(RECENT) > 0
    });
}

/// Total and history of each name, as SQL tells them, are those of its rows.
#[track_caller]
fn sql_agrees(database: &Database<'_>) {
    let differing = "WITH l AS (SELECT * FROM visitas_list('', 2000)), \
        told AS (SELECT names[i] AS name, sums[2 * i - 1] AS total, (SELECT sum(h.visits) \
                FROM visitas_named_history(ARRAY[names[i]], ARRAY[86400], ARRAY[0]) AS h) AS visits \
            FROM l, generate_subscripts(names, 1) AS i), \
        counted AS (SELECT contador AS name, count(*) AS rows FROM acessos \
            WHERE contador IS NOT NULL GROUP BY 1) \
        SELECT count(*) FROM told FULL JOIN counted USING (name) \
        WHERE (total = rows AND visits = rows) IS NOT TRUE";
    assert_eq!(database.number(differing), 0);
}

/// The visits to `a` in its history of days.
fn visits_by_day(visitas: &Visitas) -> u64 {
    let history = json(&visitas.get("/c/a/history?by=day"));
    let points = history["points"].as_array().expect("points").iter();
    let visits = points.map(|point| point["visits"].as_u64().expect("visits"));
    visits.sum()
}

#[test]
fn a_killed_process_loses_none_of_them() {
    let database = Cluster::shared().database();
    let visitas = named(&database).start();
    visit_until_alone(&visitas, &database, "alone");
    let outcomes = visits_to_names(visitas.port(), 64, 1000, 6);
    assert_eq!(outcomes.visits(), 6000);
    visit_until_alone(&visitas, &database, "a");
    let total = visit(&visitas, "a").0;
    let settings = visitas.kill();
    assert!(database.number(RECENT) > 0);
    assert!(database.number(ROWS) > 0, "some left the recent entries");
    sql_agrees(&database);
    count_agrees(&database);
    let visitas = settings.start();
    let rows = totals_are_rows(&visitas, &database);
    assert_eq!(rows.len(), 1002);
    assert_eq!(visit(&visitas, "a").0, total + 1);
    assert_eq!(visits_by_day(&visitas), total + 1);
    // A closing of the silent writer moves them.
    let close =
        "SELECT count(visitas_close(writer)) FROM visitas_newest WHERE named_from IS NOT NULL";
    assert_eq!(database.number(close), 1);
    assert_eq!(database.number(RECENT), 0);
    totals_are_rows(&visitas, &database);
    sql_agrees(&database);
    count_agrees(&database);
}

#[test]
fn a_second_process_reads_them_and_has_them_moved() {
    let database = Cluster::shared().database();
    let one = named(&database).start();
    visit_until_alone(&one, &database, "a");
    for name in ["b", "c", "b"] {
        visit(&one, name);
    }
    let before = rows_by_name(&database);
    let other = named(&database).start();
    assert_eq!(visit(&other, "a").0, before["a"] + 1);
    assert_eq!(visit(&other, "c").0, 2);
    assert_eq!(listed(&other), rows_by_name(&database));
    // The first finds out that it is not alone, and then gives each name its row.
    assert_eq!(visit(&one, "b").0, 3);
    assert_eq!(visit(&one, "a").0, before["a"] + 2);
    assert_eq!(database.number(RECENT), 0);
    assert_eq!(visit(&other, "b").0, 4);
    totals_are_rows(&one, &database);
    count_agrees(&database);
    let _ = other.stop();
    visit_until_alone(&one, &database, "c");
    assert_eq!(visit(&one, "b").0, 5);
    totals_are_rows(&one, &database);
    sql_agrees(&database);
    count_agrees(&database);
}

#[test]
fn visits_without_names_move_them_too() {
    let database = Cluster::shared().database();
    let visitas = named(&database).start();
    visit_until_alone(&visitas, &database, "a");
    let a = visit(&visitas, "a").0;
    for _ in 0..200 {
        visitas.visit();
    }
    assert_eq!(database.number(RECENT), 0, "they are too old to count");
    assert_eq!(visit(&visitas, "a").0, a + 1);
    totals_are_rows(&visitas, &database);
    count_agrees(&database);
}

/// A lane answers questions with its own numbers, as long as nobody has closed its writer.
#[test]
fn a_writer_that_another_closed_is_not_counted_twice() {
    let database = Cluster::shared().database();
    let visitas = named(&database).start();
    visit_until_alone(&visitas, &database, "a");
    let a = visit(&visitas, "a").0;
    let told = || {
        let stats = json(&visitas.get("/c/a/stats"));
        (stats["total"].as_u64(), visits_by_day(&visitas))
    };
    assert_eq!(told(), (Some(a), a));
    let close = "SELECT count(visitas_close(writer)) FROM visitas_newest";
    assert_eq!(database.number(close), 1);
    assert_eq!(told(), (Some(a), a));
    assert_eq!(visit(&visitas, "a").0, a + 1);
    assert_eq!(told(), (Some(a + 1), a + 1));
    totals_are_rows(&visitas, &database);
    count_agrees(&database);
}

/// A lone lane adds its own visits to what others have, which here is less than nothing.
#[test]
fn visits_whose_rows_are_deleted_do_not_come_back() {
    let database = Cluster::shared().database();
    let visitas = named(&database).start();
    visit_until_alone(&visitas, &database, "a");
    for _ in 0..10 {
        visit(&visitas, "a");
    }
    let left = "DELETE FROM acessos WHERE contador = 'a' AND id > (SELECT min(id) FROM acessos)";
    database.sql().batch_execute(left).expect("rows deleted");
    let mut expected = 1;
    within(LIMIT, "the lane to be alone again", || {
        expected += 1;
        assert_eq!(visit(&visitas, "a").0, expected);
        database.number("SELECT count(*) FROM visitas_changes") == 0
    });
    for _ in 0..3 {
        expected += 1;
        assert_eq!(visit(&visitas, "a").0, expected);
    }
    count_agrees(&database);
}

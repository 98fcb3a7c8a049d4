//! No lock of visitas keeps other writers waiting for long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Ends, total_is_rows};
use crate::support::{Cluster, LIMIT, Settings, within};

/// The time that a foreign transaction holds its lock.
const HELD: Duration = Duration::from_secs(5);

/// A transaction that wrote to the table holds its lock for seconds. Adoption waits for that lock,
/// and every later writer would wait behind adoption.
#[test]
fn adoption_does_not_queue_others_behind_its_lock() {
    let database = Cluster::shared().database();
    let mut sql = database.sql();
    sql.batch_execute(
        "CREATE TABLE acessos (id serial PRIMARY KEY, note text); \
         INSERT INTO acessos (note) SELECT 'row ' || n FROM generate_series(1, 100000) n",
    )
    .expect("a big table");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let end = Ends(&stop);
        let mut holder = database.sql();
        holder
            .batch_execute("BEGIN; INSERT INTO acessos (note) VALUES ('held')")
            .expect("a transaction that stays open");
        let writer = scope.spawn(|| {
            let mut sql = database.sql();
            let (mut rows, mut longest) = (0, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                sql.batch_execute("INSERT INTO acessos (note) VALUES ('other')")
                    .expect("a foreign row");
                (rows, longest) = (rows + 1, longest.max(began.elapsed()));
                thread::sleep(Duration::from_millis(2));
            }
            (rows, longest)
        });
        let mut visitas = Settings::new()
            .postgres(&database)
            .set("CONNECT_ATTEMPTS", 0)
            .launch();
        let began = Instant::now();
        let says = |line: &str| line.contains("waiting for") && line.contains("acessos");
        let said = visitas.stderr().find(LIMIT, says);
        within(LIMIT, "time", || began.elapsed() > HELD);
        assert!(
            said.is_some(),
            "no line about the wait: {}",
            visitas.output()
        );
        assert!(
            visitas.stdout().all().is_empty(),
            "ready without its lock: {}",
            visitas.output()
        );
        let before = database.number("SELECT count(*) FROM acessos");
        holder
            .batch_execute("COMMIT")
            .expect("the end of the transaction");
        visitas.wait_ready();
        drop(end);
        let (rows, longest) = writer.join().expect("the other writer");
        // Each try is shorter than a second; the rest is for a loaded machine.
        assert!(
            longest < HELD / 2,
            "a row took {longest:?}\n{}",
            visitas.output()
        );
        assert!(rows > 50, "{rows} rows of the other");
        let lines = visitas.stderr().all();
        assert!(lines.len() < 20, "{lines:#?}");
        let total = visitas.visit().total;
        assert!(total > u64::try_from(before).expect("a count"));
        total_is_rows(&visitas, &database);
    });
}

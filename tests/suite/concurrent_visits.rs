//! Many visits at once: rows, total, Redis' counter and 200s are equal, and no two visits get the
//! same number.

use crate::support::load::visits_at_once;
use crate::support::{Cluster, Redis, Settings};

const VISITORS: usize = 400;
const VISITS: u64 = VISITORS as u64;

#[test]
fn four_hundred_over_postgres_and_redis() {
    let (database, redis) = (Cluster::shared().database(), Redis::start());
    let visitas = Settings::new().postgres(&database).redis(&redis).start();
    let outcomes = visits_at_once(&[visitas.port()], VISITORS, 1);
    outcomes.all_ok(VISITS);
    outcomes.each_cache_number_once(1);
    outcomes.no_total_above(VISITS);
    assert_eq!(
        (database.rows(), redis.counter()),
        (VISITS, Some(VISITS as i64))
    );
    let stats = visitas.stats();
    assert_eq!((stats.total, stats.cache), (VISITS, Some(VISITS as i64)));
}

#[test]
fn four_hundred_over_the_embedded_store() {
    let visitas = Settings::new().start();
    let outcomes = visits_at_once(&[visitas.port()], VISITORS, 1);
    outcomes.all_ok(VISITS);
    outcomes.each_cache_number_once(1);
    let stats = visitas.stats();
    assert_eq!((stats.total, stats.cache), (VISITS, Some(VISITS as i64)));
}

#[test]
fn postgres_with_the_in_process_counter() {
    let database = Cluster::shared().database();
    let visitas = Settings::new().postgres(&database).start();
    let outcomes = visits_at_once(&[visitas.port()], 50, 4);
    outcomes.all_ok(200);
    outcomes.each_cache_number_once(1);
    assert_eq!(database.rows(), 200);
    assert_eq!(visitas.stats().cache, Some(200));
}

#[test]
fn the_embedded_store_with_redis() {
    let redis = Redis::start();
    let visitas = Settings::new().redis(&redis).start();
    let outcomes = visits_at_once(&[visitas.port()], 50, 4);
    outcomes.all_ok(200);
    outcomes.each_cache_number_once(1);
    assert_eq!((visitas.stats().total, redis.counter()), (200, Some(200)));
}

#[test]
fn two_processes_share_one_database_and_one_redis() {
    let (database, redis) = (Cluster::shared().database(), Redis::start());
    let settings = || Settings::new().postgres(&database).redis(&redis);
    let (one, other) = (settings().start(), settings().start());
    let outcomes = visits_at_once(&[one.port(), other.port()], 100, 4);
    outcomes.all_ok(400);
    outcomes.each_cache_number_once(1);
    outcomes.no_total_above(400);
    assert_eq!((database.rows(), redis.counter()), (400, Some(400)));
    assert_eq!((one.stats().total, other.stats().total), (400, 400));
}

#[test]
fn one_worker_and_many() {
    let database = Cluster::shared().database();
    let mut rows = 0;
    for workers in [1, 4] {
        let visitas = Settings::new()
            .postgres(&database)
            .set("WORKERS", workers)
            .start();
        let outcomes = visits_at_once(&[visitas.port()], 40, 5);
        outcomes.all_ok(200);
        if workers == 1 {
            outcomes.each_total_once(rows + 1);
        }
        rows += 200;
        assert_eq!(
            (database.rows(), visitas.stats().total),
            (rows, rows),
            "{workers} workers"
        );
        visitas.stop();
    }
}

//! Redis is killed, frozen, full, demoted or cut off. The ledger counts every visit, Redis at most
//! once.

use std::time::Duration;

use super::report::{Allow, Report, Store};
use super::run::{Parameters, Run, any, last};
use crate::support::{Cluster, LIMIT, Proxy, Redis, Settings, within};

/// A little more than the bytes of an increment, and of its answer.
const TO_SERVER_BYTES: usize = 64;
const TO_CLIENT_BYTES: usize = 24;

/// Runs a scenario with this Redis, which the processes reach at `port`.
fn over(
    parameters: &Parameters,
    redis: &mut Redis,
    port: u16,
    allow: Allow,
    mut fault: impl FnMut(&mut Run, &mut Redis),
) -> Report {
    let database = Cluster::shared().database();
    database.prepare();
    let url = redis.url_at(port);
    let mut run = Run::start(parameters, || {
        Settings::new().postgres(&database).set("REDIS_URL", &url)
    });
    run.repeat(1, |run| {
        fault(run, redis);
        // So that the next fault hits an increment, not a handshake.
        let cached = |web: &crate::support::Visitas| web.get("/stats").fields().cache.is_some();
        within(LIMIT, "Redis to be used again", || {
            run.web.iter().all(cached)
        });
    });
    run.end(&Store::Database(&database), Some(redis))
        .allow(Allow {
            no_refusal: true,
            ..allow
        })
}

/// It is killed and starts again empty.
pub fn killed(parameters: &Parameters) -> Result<Report, String> {
    let mut redis = Redis::start();
    let port = redis.port();
    let allow = Allow {
        redis_forgets: true,
        ..Allow::default()
    };
    Ok(over(parameters, &mut redis, port, allow, |_, redis| {
        redis.stop();
        last(Duration::from_millis(any(500)));
        redis.restart();
    }))
}

/// It freezes, sometimes until increments time out, and then executes what it was sent.
pub fn frozen(parameters: &Parameters) -> Result<Report, String> {
    let mut redis = Redis::start();
    let port = redis.port();
    Ok(over(
        parameters,
        &mut redis,
        port,
        Allow::default(),
        |_, redis| {
            redis.pause();
            last(Duration::from_millis(any(1500)));
            redis.resume();
        },
    ))
}

/// It is out of memory and refuses every write (`OOM`).
pub fn full(parameters: &Parameters) -> Result<Report, String> {
    let mut redis = Redis::start();
    let port = redis.port();
    Ok(over(
        parameters,
        &mut redis,
        port,
        Allow::default(),
        |_, redis| {
            redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
            last(Duration::from_millis(300));
            redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
        },
    ))
}

/// It becomes a replica without a primary and refuses every write (`READONLY`).
pub fn replica(parameters: &Parameters) -> Result<Report, String> {
    let mut redis = Redis::start();
    let port = redis.port();
    Ok(over(
        parameters,
        &mut redis,
        port,
        Allow::default(),
        |_, redis| {
            redis.command(&["REPLICAOF", "127.0.0.1", "1"]);
            last(Duration::from_millis(300));
            redis.command(&["REPLICAOF", "NO", "ONE"]);
        },
    ))
}

/// The connection is cut one byte later each time, in both directions.
pub fn cut_at_every_byte(parameters: &Parameters) -> Result<Report, String> {
    let mut redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    Ok(over(
        parameters,
        &mut redis,
        proxy.port(),
        Allow::default(),
        |run, _| {
            proxy.cut_exchange(run.faults, TO_SERVER_BYTES, TO_CLIENT_BYTES);
        },
    ))
}

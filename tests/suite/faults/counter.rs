//! Redis killed, frozen, full, demoted, or cut off: every visit is counted in the ledger, and in
//! Redis at most once.

use std::time::Duration;

use super::account::{Account, Allow, Rows, prepare};
use super::play::{Form, Play, any, last};
use crate::support::{Cluster, Proxy, Redis, Settings, within};

/// Bytes of an increment and of its answer, and some more.
const TO_SERVER_BYTES: usize = 64;
const TO_CLIENT_BYTES: usize = 24;

/// Runs a scenario with that Redis; the processes reach it at that port.
fn over(
    form: &Form,
    redis: &mut Redis,
    port: u16,
    allow: Allow,
    mut fault: impl FnMut(&mut Play, &mut Redis),
) -> Account {
    let database = Cluster::shared().database();
    prepare(&database);
    let url = redis.url_at(port);
    let mut play = Play::start(form, || {
        Settings::new().postgres(&database).set("REDIS_URL", &url)
    });
    play.run(1, |play| {
        fault(play, redis);
        // The next fault is for increments, not for handshakes.
        let cached = |web: &crate::support::Visitas| web.get("/stats").fields().cache.is_some();
        within(Duration::from_secs(20), "Redis to be used again", || {
            play.web.iter().all(cached)
        });
    });
    play.end(&Rows::Database(&database), Some(redis))
        .allow(Allow {
            no_refusal: true,
            ..allow
        })
}

/// It is killed and starts again from nothing.
pub fn killed(form: &Form) -> Result<Account, String> {
    let mut redis = Redis::start();
    let port = redis.port();
    let allow = Allow {
        redis_forgets: true,
        ..Allow::default()
    };
    Ok(over(form, &mut redis, port, allow, |_, redis| {
        redis.stop();
        last(Duration::from_millis(any(500)));
        redis.restart();
    }))
}

/// It stops to answer, sometimes for so long that increments are given up, and carries on with all
/// it was sent.
pub fn frozen(form: &Form) -> Result<Account, String> {
    let mut redis = Redis::start();
    let port = redis.port();
    Ok(over(
        form,
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

/// It has no memory left and refuses every write (`OOM`).
pub fn full(form: &Form) -> Result<Account, String> {
    let mut redis = Redis::start();
    let port = redis.port();
    Ok(over(
        form,
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

/// It becomes the replica of a server that is not there, and refuses every write (`READONLY`).
pub fn replica(form: &Form) -> Result<Account, String> {
    let mut redis = Redis::start();
    let port = redis.port();
    Ok(over(
        form,
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

/// The connection is cut, a byte later each time, on the way there and on the way back.
pub fn cut_at_every_byte(form: &Form) -> Result<Account, String> {
    let mut redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    Ok(over(
        form,
        &mut redis,
        proxy.port(),
        Allow::default(),
        |play, _| {
            proxy.cut_exchange(play.faults, TO_SERVER_BYTES, TO_CLIENT_BYTES);
        },
    ))
}

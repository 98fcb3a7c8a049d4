//! The network between visitas and PostgreSQL cuts connections, falls silent, is slow, or drops
//! every packet.

use std::time::Duration;

use super::report::{Report, Store};
use super::run::{Parameters, REQUEST_TIMEOUT, Run, any, last};
use crate::support::{Cluster, Proxy, Settings, VethPair};

/// The longest exchange that is cut at every byte: a batch of some 30 visits and its answer. Where
/// batches are smaller, the last cuts hit the next batch.
const TO_SERVER_BYTES: usize = 512;
const TO_CLIENT_BYTES: usize = 128;

fn over_a_proxy(
    parameters: &Parameters,
    mut fault: impl FnMut(&mut Run, &Proxy),
) -> Result<Report, String> {
    let database = Cluster::shared().database();
    database.prepare();
    let proxy = Proxy::to(database.port());
    let mut run = Run::start(parameters, || {
        Settings::new().set("DATABASE_URL", database.url_at(proxy.port()))
    });
    run.repeat(1, |run| fault(run, &proxy));
    Ok(run.end(&Store::Database(&database), None))
}

/// The connection is cut one byte later each time, in both directions: also between a commit and
/// its answer.
pub fn cut_at_every_byte(parameters: &Parameters) -> Result<Report, String> {
    over_a_proxy(parameters, |run, proxy| {
        proxy.cut_exchange(run.faults, TO_SERVER_BYTES, TO_CLIENT_BYTES);
    })
}

/// Existing connections pass nothing any more, and neither side learns of it. New ones work.
pub fn half_open(parameters: &Parameters) -> Result<Report, String> {
    over_a_proxy(parameters, |_, proxy| {
        proxy.swallow_connections();
        // Batches in doubt are then resolved over new connections.
        last(REQUEST_TIMEOUT);
    })
}

/// For a while every connection is accepted and nothing is answered.
pub fn silence(parameters: &Parameters) -> Result<Report, String> {
    over_a_proxy(parameters, |_, proxy| {
        proxy.swallow(true);
        last(REQUEST_TIMEOUT / 2 + Duration::from_millis(any(3000)));
        proxy.heal();
    })
}

/// Every message is delayed, some so long that an exchange times out.
pub fn slow_answers(parameters: &Parameters) -> Result<Report, String> {
    over_a_proxy(parameters, |_, proxy| {
        proxy.slow(Duration::from_millis(5 + any(150)));
        last(Duration::from_millis(800));
        proxy.heal();
    })
}

/// Packets to the server are dropped: no refusal, no acknowledgement, no answer.
pub fn black_hole(parameters: &Parameters) -> Result<Report, String> {
    let veth = VethPair::new()?;
    let cluster = Cluster::behind(&veth);
    let database = cluster.default_database();
    Ok(super::database::over(parameters, &database, 1, |_| {
        veth.drop_packets(true);
        last(REQUEST_TIMEOUT / 2 + Duration::from_millis(any(3000)));
        veth.drop_packets(false);
    }))
}

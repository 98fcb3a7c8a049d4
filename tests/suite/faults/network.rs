//! The network between visitas and PostgreSQL cuts, falls silent, is slow, or drops every packet.

use std::time::Duration;

use super::account::{Account, Rows, prepare};
use super::play::{Form, Play, REQUEST_TIMEOUT, any, last};
use crate::support::{Cable, Cluster, Proxy, Settings};

/// The longest exchange that is cut at every byte: what a batch of some 30 visits and its answer
/// take. Where no batch is as large, the last cuts fall into the batch after.
const TO_SERVER_BYTES: usize = 512;
const TO_CLIENT_BYTES: usize = 128;

fn over_a_proxy(form: &Form, mut fault: impl FnMut(&mut Play, &Proxy)) -> Result<Account, String> {
    let database = Cluster::shared().database();
    prepare(&database);
    let proxy = Proxy::to(database.port());
    let mut play = Play::start(form, || {
        Settings::new().set("DATABASE_URL", database.url_at(proxy.port()))
    });
    play.run(1, |play| fault(play, &proxy));
    Ok(play.end(&Rows::Database(&database), None))
}

/// A byte more each time, on the way there and on the way back: so also after a commit was sent and
/// before its answer came.
pub fn cut_at_every_byte(form: &Form) -> Result<Account, String> {
    over_a_proxy(form, |play, proxy| {
        proxy.cut_exchange(play.faults, TO_SERVER_BYTES, TO_CLIENT_BYTES);
    })
}

/// The connections that are there pass nothing any more, while neither side learns of it; new ones
/// pass.
pub fn half_open(form: &Form) -> Result<Account, String> {
    over_a_proxy(form, |_, proxy| {
        proxy.swallow_links();
        // The batches under way then have to be found out about over new connections.
        last(REQUEST_TIMEOUT);
    })
}

/// Every connection is taken and answered by nobody, for a while.
pub fn silence(form: &Form) -> Result<Account, String> {
    over_a_proxy(form, |_, proxy| {
        proxy.swallow(true);
        last(REQUEST_TIMEOUT / 2 + Duration::from_millis(any(3000)));
        proxy.heal();
    })
}

/// Every message takes longer, up to what makes an exchange late.
pub fn slow_answers(form: &Form) -> Result<Account, String> {
    over_a_proxy(form, |_, proxy| {
        proxy.slow(Duration::from_millis(5 + any(150)));
        last(Duration::from_millis(800));
        proxy.heal();
    })
}

/// Packets to the server's machine are dropped: nothing is refused, acknowledged or answered.
pub fn black_hole(form: &Form) -> Result<Account, String> {
    let cable = Cable::new()?;
    let cluster = Cluster::behind(&cable);
    let database = cluster.default_database();
    Ok(super::database::over(form, &database, 1, |_| {
        cable.drop_packets(true);
        last(REQUEST_TIMEOUT / 2 + Duration::from_millis(any(3000)));
        cable.drop_packets(false);
    }))
}

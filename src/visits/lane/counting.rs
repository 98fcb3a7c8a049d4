//! A lane's counter: one increment for each committed batch, and one for each name in it, before
//! its visitors are answered.
//!
//! Only what is committed is counted, and each visit at most once: an increment in doubt is not
//! repeated, and its visitors see no counter. The lane's thread owns the client. A lost client goes
//! to the reconnector's thread and comes back connected; no visit waits for that.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use crate::visits::counter::{CountError, Counter};
use crate::visits::ledger::Arrivals;
use crate::visits::name::Name;
use crate::visits::stats::{Stats, add};
use crate::visits::store::{Disconnect, Store};

type Client = Box<dyn Counter>;

/// The lane's side.
pub(super) struct Counting {
    lane: usize,
    client: Option<Client>,
    /// When the increments in flight were sent.
    sent: Option<Instant>,
    connected: Receiver<Client>,
    lost: Sender<(Client, Disconnect, String)>,
    store: Arc<Store>,
    stats: Arc<Stats>,
}

/// The other side: connects at the start, and after each loss.
pub(super) struct Reconnector {
    lane: usize,
    connected: Sender<Client>,
    lost: Receiver<(Client, Disconnect, String)>,
    store: Arc<Store>,
    stats: Arc<Stats>,
}

pub(super) fn counting(
    lane: usize,
    store: Arc<Store>,
    stats: Arc<Stats>,
) -> (Counting, Reconnector) {
    let (connect, connected) = channel();
    let (lose, lost) = channel();
    let (same_store, same_stats) = (Arc::clone(&store), Arc::clone(&stats));
    (
        Counting {
            lane,
            client: None,
            sent: None,
            connected,
            lost: lose,
            store: same_store,
            stats: same_stats,
        },
        Reconnector {
            lane,
            connected: connect,
            lost,
            store,
            stats,
        },
    )
}

impl Counting {
    /// Sends the increments for committed visits; [`Counting::receive`] is next.
    pub(super) fn send(&mut self, visits: &Arrivals) {
        let Some(client) = self.client() else { return };
        match client.add(visits.times.len() as u64, &visits.names) {
            Ok(()) => self.sent = Some(Instant::now()),
            Err(error) => self.lose(error),
        }
    }

    /// The counter with the increment for these visits, and that of each name; `None` where it did
    /// not count them, or may not have.
    pub(super) fn receive(&mut self, visits: &Arrivals) -> (Option<i64>, Vec<Option<i64>>) {
        let sent = self.sent.take();
        let counted = sent.and_then(|sent| match self.client.as_mut()?.answer() {
            Ok(counted) => {
                self.store.worked(self.lane);
                let took = sent.elapsed().as_secs_f64();
                self.stats.increment_seconds.observe(took);
                Some(counted)
            }
            Err(error) => {
                self.lose(error);
                None
            }
        });
        match counted {
            Some((number, names)) => (Some(number), names),
            None => {
                add(&self.stats.uncounted, visits.times.len());
                (None, Vec::new())
            }
        }
    }

    /// The counter as it stands; `None` while it is down.
    pub(super) fn read(&mut self) -> (Option<i64>, Vec<Option<i64>>) {
        let number = self.client().map(|client| client.read());
        (number.and_then(|read| self.unless_lost(read)), Vec::new())
    }

    /// The counter of each of the names; `None` while it is down.
    pub(super) fn read_names(&mut self, names: &[Name]) -> Vec<Option<i64>> {
        let read = self.client().map(|client| client.read_names(names));
        let read = read.and_then(|read| self.unless_lost(read));
        read.unwrap_or_else(|| vec![None; names.len()])
    }

    fn unless_lost<T>(&mut self, read: Result<T, CountError>) -> Option<T> {
        read.map_err(|error| self.lose(error)).ok()
    }

    fn client(&mut self) -> Option<&mut Client> {
        if self.client.is_none() {
            self.client = self.connected.try_recv().ok();
        }
        self.client.as_mut()
    }

    fn lose(&mut self, error: CountError) {
        let (how, reason) = match error {
            CountError::NotSent(reason) => (Disconnect::Idle, reason),
            CountError::Unknown(reason) => (Disconnect::MidCommand, reason),
        };
        // The reconnector ends only after this side.
        let lost = self
            .client
            .take()
            .map(|client| self.lost.send((client, how, reason)));
        debug_assert!(lost.is_some_and(|sent| sent.is_ok()));
    }
}

impl Reconnector {
    /// Connects for the first time and calls `tried`, whatever came of it: visits are served
    /// without the counter too. Then replaces lost clients until the lane ends.
    pub(super) fn run(self, mut client: Client, tried: impl FnOnce()) {
        match client.open() {
            Ok(()) => {
                self.store.opened(self.lane);
                // Before the first visit is served.
                let _ = self.connected.send(client);
                tried();
            }
            Err(error) => {
                self.store.not_replaced(self.lane, &error.to_string());
                tried();
                self.reopen(client);
            }
        }
        while let Ok((client, how, reason)) = self.lost.recv() {
            self.replace(client, how, &reason);
        }
    }

    /// A lost connection is no outage yet: one try comes before the log line.
    fn replace(&self, mut client: Client, how: Disconnect, reason: &str) {
        if self.store.lost(self.lane, how, reason) {
            match client.open() {
                Ok(()) => {
                    self.store.replaced(self.lane, reason);
                    return self.connected(client);
                }
                // The reason of the loss is none any more: what keeps it from being replaced is.
                Err(error) => self.store.not_replaced(self.lane, &error.to_string()),
            }
        }
        self.reopen(client);
    }

    /// The counter is down: visits do without it until it is back.
    fn reopen(&self, mut client: Client) {
        loop {
            thread::sleep(self.store.wait(self.lane));
            if client.open().is_ok() {
                self.store.opened(self.lane);
                return self.connected(client);
            }
        }
    }

    fn connected(&self, client: Client) {
        add(&self.stats.counter_reconnects, 1);
        // The lane may have ended.
        let _ = self.connected.send(client);
    }
}

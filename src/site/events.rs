//! `/events`: the numbers and the newest points of the history, told to all who listen, once a
//! second at most.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use may::coroutine;

use super::chart::name;
use super::{Site, Waiting, write_count};
use crate::clock;
use crate::http::{Feed, Service};
use crate::visits::history::{History, Step};
use crate::visits::{Count, StoreState};

/// Time between two messages, in milliseconds.
const PERIOD_MS: u64 = 1000;
/// Without news listeners are told that the connection stands, and so find out when it does not.
const HEARTBEAT_MS: u64 = 15_000;
/// A comment, which a browser drops.
const HEARTBEAT: &[u8] = b":\n\n";
/// A listener that lost its connection waits this long, in milliseconds, before it comes again.
const RETRY: &str = "retry: 2000\n\n";
/// How long a message waits for the history; without it the numbers are told all the same.
const HISTORY_WAIT: Duration = Duration::from_millis(500);
/// The worker that makes the messages.
const WORKER: usize = 0;

/// What is told to listeners, and when it was last.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) feed: Arc<Feed>,
    begun_ms: AtomicU64,
    told_ms: AtomicU64,
    busy: AtomicBool,
    last: std::sync::Mutex<String>,
}

impl Events {
    pub(super) fn new(workers: usize) -> Self {
        let feed = Arc::new(Feed::new(workers));
        let (begun_ms, told_ms, busy) =
            (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Events {
            feed,
            begun_ms,
            told_ms,
            busy,
            last: std::sync::Mutex::default(),
        }
    }
}

impl Site {
    /// Tells all listeners what is new, when it is time. To be called at each tick of the clock.
    pub fn tick(self: &Arc<Self>) {
        let events = &self.events;
        let now = clock::monotonic_ms();
        if now < events.begun_ms.load(Ordering::Relaxed) + PERIOD_MS {
            return;
        }
        if events.feed.followers() == 0 && !self.is_count_wanted() {
            return;
        }
        if events.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        events.begun_ms.store(now, Ordering::Relaxed);
        let site = Arc::clone(self);
        let tell = move || {
            site.tell();
            site.events.busy.store(false, Ordering::Release);
        };
        // SAFETY: it only ever runs on that worker, whose thread-local values it holds over no
        // wait.
        if let Err(error) = unsafe { coroutine::Builder::new().id(WORKER).spawn(tell) } {
            log::error!("listeners could not be told: {error}");
            events.busy.store(false, Ordering::Release);
        }
    }

    fn tell(&self) {
        let message = self.message(&self.session(WORKER));
        let events = &self.events;
        let now = clock::monotonic_ms();
        let mut last = events
            .last
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if *last != message {
            events.feed.publish(message.as_bytes());
            *last = message;
        } else if now >= events.told_ms.load(Ordering::Relaxed) + HEARTBEAT_MS {
            events.feed.publish(HEARTBEAT);
        } else {
            return;
        }
        events.told_ms.store(now, Ordering::Relaxed);
    }

    /// What a listener is told first.
    pub(super) fn greeting(&self, waiting: &Waiting) -> String {
        RETRY.to_owned() + &self.message(waiting)
    }

    fn message(&self, waiting: &Waiting) -> String {
        let count = self.peek(waiting).ok();
        // Without listeners the count alone is wanted.
        let history = count.filter(|_| self.events.feed.followers() > 0);
        let history =
            history.and_then(|_| self.visits.read_history(&waiting.waiter, HISTORY_WAIT).ok());
        let up = self
            .visits
            .store_states()
            .map(|(_, state)| state == StoreState::Up);
        render(count, history.as_deref(), up)
    }
}

/// `data: {"total":N,"cache":M,"ledger":true,"counter":true,"minute":[start,before,now],...}`
fn render(count: Option<Count>, history: Option<&History>, [ledger, counter]: [bool; 2]) -> String {
    let mut message = String::from("data: ");
    match count {
        Some(count) => {
            write_count(&mut message, count);
            message.push(',');
        }
        None => message.push('{'),
    }
    // Writing to a String cannot fail, here and below.
    let _ = write!(message, "\"ledger\":{ledger},\"counter\":{counter}");
    for series in history
        .iter()
        .flat_map(|history| Step::ALL.map(|step| history.of(step)))
    {
        if let [.., before, now] = series.visits[..] {
            let start = series.start_of(series.visits.len() - 1);
            let _ = write!(
                message,
                ",\"{}\":[{start},{before},{now}]",
                name(series.step)
            );
        }
    }
    message.push_str("}\n\n");
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_of_data() {
        let told = render(
            Some(Count {
                total: 2,
                pruned: 0,
                cache: None,
            }),
            None,
            [true, false],
        );
        assert_eq!(
            told,
            "data: {\"total\":2,\"cache\":null,\"ledger\":true,\"counter\":false}\n\n"
        );
        assert_eq!(
            render(None, None, [false, false]),
            "data: {\"ledger\":false,\"counter\":false}\n\n"
        );
    }
}

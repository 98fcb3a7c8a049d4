//! `/events`: the numbers and the newest points of the history, sent to all listeners at most once
//! a second.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::chart::name;
use super::refusal::refuse_reading;
use super::routes::Scope;
use super::{Session, Site, fields, write_count};
use crate::http::{Answer, Answered, Feed, Service};
use crate::visits::history::{History, Period};
use crate::visits::{Count, Refused, StoreState};
use crate::{clock, workers};

/// Time between two messages.
const PERIOD_MS: u64 = 1000;
/// Without news listeners get a heartbeat this often, and so learn that the connection is lost.
const HEARTBEAT_MS: u64 = 15_000;
/// A comment, which a browser drops.
const HEARTBEAT: &[u8] = b":\n\n";
/// Milliseconds after which a listener that lost its connection reconnects.
const RETRY: &str = "retry: 2000\n\n";
/// How long a message waits for the history. Without it the numbers are sent alone.
const HISTORY_WAIT: Duration = Duration::from_millis(500);
/// The worker that makes the messages.
const WORKER: usize = 0;

#[derive(Debug)]
pub(super) struct Events {
    pub(super) channel: Channel,
    /// When the last message was begun.
    begun_ms: AtomicU64,
    busy: AtomicBool,
}

/// A feed, and what was sent to it last.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) feed: Arc<Feed>,
    /// The last message, and when it or a heartbeat was sent.
    last: Mutex<(String, u64)>,
}

impl Channel {
    pub(super) fn new(workers: usize) -> Channel {
        Channel {
            feed: Arc::new(Feed::new(workers)),
            last: Mutex::default(),
        }
    }

    /// For a new listener, before its first message is made: the number of the last message. The
    /// next one is sent even if it says the same, since that first one may lack the history.
    pub(super) fn welcome(&self) -> u64 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.0.clear();
        self.feed.newest()
    }

    /// Sends what is new, or now and then a heartbeat.
    pub(super) fn send(&self, message: String) {
        let now = clock::monotonic_ms();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (text, sent_ms) = &mut *last;
        if *text != message {
            self.feed.publish(message.as_bytes());
            *text = message;
        } else if now >= *sent_ms + HEARTBEAT_MS {
            self.feed.publish(HEARTBEAT);
        } else {
            return;
        }
        *sent_ms = now;
    }
}

impl Events {
    pub(super) fn new(workers: usize) -> Self {
        Events {
            channel: Channel::new(workers),
            begun_ms: AtomicU64::new(0),
            busy: AtomicBool::new(false),
        }
    }
}

impl Site {
    /// Sends listeners what is new, when it is time. Call it at each tick of the clock.
    pub fn tick(self: &Arc<Self>) {
        let events = &self.events;
        let now = clock::monotonic_ms();
        if now < events.begun_ms.load(Ordering::Relaxed) + PERIOD_MS {
            return;
        }
        let named = self.named.has_followers();
        if events.channel.feed.followers() == 0 && !named && !self.takes_count_wanted() {
            return;
        }
        if events.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        events.begun_ms.store(now, Ordering::Relaxed);
        let site = Arc::clone(self);
        let send = move || {
            let channel = &site.events.channel;
            // Without listeners only `/metrics` wants the count.
            let wants_history = channel.feed.followers() > 0;
            channel.send(site.message(&site.session(WORKER), wants_history));
            if named {
                site.send_names(&site.session(WORKER).waiter);
            }
            site.events.busy.store(false, Ordering::Release);
        };
        if let Err(error) = workers::spawn(WORKER, send) {
            log::error!("cannot send events: {error}");
            events.busy.store(false, Ordering::Release);
        }
    }

    /// Whether `/metrics` needs newer numbers. Never before there are any.
    fn takes_count_wanted(&self) -> bool {
        self.visits.is_ready() && self.count_wanted.swap(false, Ordering::Relaxed)
    }

    pub(super) fn follow_events(
        &self,
        session: &Session,
        scope: &Scope,
        answer: Answer<'_>,
    ) -> Answered {
        if self.is_draining() {
            return refuse_reading(Refused::Closing, answer);
        }
        if let Scope::Name(name) = scope {
            return self.follow_name(session, name, RETRY, answer);
        }
        let channel = &self.events.channel;
        let seen = channel.welcome();
        let first = RETRY.to_owned() + &self.message(session, true);
        answer.follow(fields::EVENTS, first.as_bytes(), (&channel.feed, seen))
    }

    fn message(&self, session: &Session, wants_history: bool) -> String {
        let count = self.peek(session, &Scope::All).ok();
        let history = (wants_history && count.is_some())
            .then(|| self.visits.read_history(&session.waiter, HISTORY_WAIT).ok())
            .flatten();
        render(count, history.as_deref(), self.stores_up())
    }

    /// Whether the ledger is up, and the counter.
    pub(super) fn stores_up(&self) -> [bool; 2] {
        let states = self.visits.store_states();
        states.map(|(_, state)| state == StoreState::Up)
    }
}

/// `data: {"total":N,"cache":M,"ledger":true,"counter":true,"minute":[start,before,now],...}`
///
/// The counter is up where its number is known, so that the page never says one thing beside the
/// number and another at its foot.
pub(super) fn render(
    count: Option<Count>,
    history: Option<&History>,
    [ledger, counter]: [bool; 2],
) -> String {
    let mut message = String::from("data: ");
    let counter = counter && count.is_none_or(|count| count.cache.is_some());
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
        .flat_map(|history| Period::ALL.map(|period| history.of(period)))
    {
        if let [.., before, now] = series.visits[..] {
            let start = series.start_of(series.visits.len() - 1);
            let _ = write!(
                message,
                ",\"{}\":[{start},{before},{now}]",
                name(series.period)
            );
        }
    }
    if let Some(history) = history {
        let (_, week) = history.today_and_week();
        let _ = write!(message, ",\"week\":{week}");
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
            [true, true],
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

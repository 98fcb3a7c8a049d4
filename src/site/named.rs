//! Counters by name, as the site shows them: what is known of each, its history, its listeners, and
//! the list of all.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use super::events::{Channel, render};
use super::negotiation::asks_csv;
use super::refusal::refuse_reading;
use super::text::json_string;
use super::visit::CHART_WAIT;
use super::{Session, Site, fields, query};
use crate::clock;
use crate::http::{Answer, Answered, Request, Status};
use crate::visits::history::History;
use crate::visits::{Count, Name, Refused, Waiter};

/// How long a request waits for the numbers of a name.
const NUMBERS_WAIT: Duration = Duration::from_secs(4);
/// Age up to which a page shows the history of a name. With many names in use it is what they cost.
const FRESH_MS: u64 = 10_000;
/// Names that one question is about.
const NAMES_A_QUESTION: usize = 64;
/// Names on a page of the list, unless it is asked for less or more, and at most.
const LISTED: usize = 100;
const LISTED_AT_MOST: usize = 1000;

/// What the site keeps of names.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// The names that were visited here.
    known: RwLock<HashMap<Name, Arc<Known>>>,
    /// The names with listeners.
    channels: Mutex<HashMap<Name, Arc<Channel>>>,
    readings: AtomicU64,
}

/// Stands for a counter's number that is not known.
const UNKNOWN: i64 = i64::MIN;

#[derive(Debug)]
struct Known {
    /// The last total.
    total: AtomicU64,
    /// The counter's last number.
    cache: AtomicI64,
    shown: Mutex<Option<Shown>>,
}

impl Default for Known {
    fn default() -> Known {
        Known {
            total: AtomicU64::new(0),
            cache: AtomicI64::new(UNKNOWN),
            shown: Mutex::default(),
        }
    }
}

/// A history that pages show.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    /// Its number, which no reading of all visits has.
    pub(super) reading: u64,
    pub(super) history: Arc<History>,
    read_ms: u64,
}

/// What a request for the list asks for.
#[derive(Debug, Clone)]
pub struct ListRequest {
    /// Names after this one.
    after: String,
    most: usize,
    csv: bool,
}

impl ListRequest {
    /// What the request asks for; `None` where that cannot be answered.
    pub(super) fn of(request: &Request<'_>) -> Option<Self> {
        let query = |name| query::value(request.target, name);
        let most = match query("limit") {
            None => LISTED,
            Some(text) => {
                let limit = text.parse().ok();
                limit.filter(|limit| (1..=LISTED_AT_MOST).contains(limit))?
            }
        };
        Some(ListRequest {
            after: query("after").unwrap_or_default(),
            most,
            csv: asks_csv(request)?,
        })
    }
}

impl Named {
    /// The last numbers of a name; `None` where they are not known.
    pub(super) fn last_count(&self, name: &Name) -> Option<Count> {
        let all = self.read();
        let known = all.get(name)?;
        let cache = known.cache.load(Ordering::Relaxed);
        Some(Count {
            total: known.total.load(Ordering::Relaxed),
            pruned: 0,
            cache: (cache != UNKNOWN).then_some(cache),
        })
    }

    /// A name stands at that. Names without a visit are not kept: there is no end of them.
    pub(super) fn counted(&self, name: &Name, count: Count) {
        if count.total > name.start() {
            let known = self.known(name);
            known.total.store(count.total, Ordering::Relaxed);
            if let Some(cache) = count.cache {
                known.cache.store(cache, Ordering::Relaxed);
            }
        }
    }

    fn known(&self, name: &Name) -> Arc<Known> {
        if let Some(known) = self.read().get(name) {
            return Arc::clone(known);
        }
        let mut all = self.known.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(name.clone()).or_default())
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Name, Arc<Known>>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<Name, Arc<Channel>>> {
        lock(&self.channels)
    }

    /// Whether anybody listens to a name.
    pub(super) fn has_followers(&self) -> bool {
        !self.channels().is_empty()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each guards a value that is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Site {
    /// What a name stands at, without a visit.
    pub(super) fn peek_name(&self, waiter: &Arc<Waiter>, name: &Name) -> Result<Count, Refused> {
        let names = vec![name.clone()];
        let readings = self.visits.read_names(waiter, names, false, NUMBERS_WAIT)?;
        let reading = readings.first().ok_or(Refused::LedgerDown)?;
        self.named.counted(name, reading.count);
        Ok(reading.count)
    }

    /// The history of a name, read now.
    pub(super) fn history_of(
        &self,
        waiter: &Arc<Waiter>,
        name: &Name,
        at_most: Duration,
    ) -> Result<Arc<History>, Refused> {
        let names = vec![name.clone()];
        let mut readings = self.visits.read_names(waiter, names, true, at_most)?;
        let reading = readings.pop().ok_or(Refused::LedgerDown)?;
        reading.history.ok_or(Refused::LedgerDown)
    }

    /// The history for the page of a visited name. Where the last one is old, it waits a moment for
    /// a new one.
    pub(super) fn shown_history(&self, waiter: &Arc<Waiter>, name: &Name) -> Option<Shown> {
        let known = self.named.known(name);
        let last = lock(&known.shown).clone();
        let now = clock::monotonic_ms();
        if let Some(shown) = &last
            && now < shown.read_ms + FRESH_MS
        {
            return last;
        }
        let Ok(history) = self.history_of(waiter, name, CHART_WAIT) else {
            return last;
        };
        let shown = Shown {
            reading: self.named.readings.fetch_add(1, Ordering::Relaxed) | 1 << 63,
            history,
            read_ms: now,
        };
        *lock(&known.shown) = Some(shown.clone());
        Some(shown)
    }

    /// Sends every message about a name from now on.
    pub(super) fn follow_name(
        &self,
        session: &Session,
        name: &Name,
        retry: &str,
        answer: Answer<'_>,
    ) -> Answered {
        // Who holds the feed keeps the channel while the first message is made.
        let (feed, seen) = {
            let mut channels = self.named.channels();
            let channel = channels
                .entry(name.clone())
                .or_insert_with(|| Arc::new(Channel::new(self.settings.workers)));
            (Arc::clone(&channel.feed), channel.welcome())
        };
        let first = self.name_messages(&session.waiter, vec![name.clone()]);
        let first = retry.to_owned() + &first.concat();
        answer.follow(fields::EVENTS, first.as_bytes(), (&feed, seen))
    }

    /// Sends the listeners of each name what is new.
    pub(super) fn send_names(&self, waiter: &Arc<Waiter>) {
        let channels: Vec<(Name, Arc<Channel>)> = {
            let mut channels = self.named.channels();
            // A connection that begins or ends to follow holds the feed.
            channels.retain(|_, channel| Arc::strong_count(&channel.feed) > 1);
            let channels = channels.iter();
            channels
                .map(|(name, channel)| (name.clone(), Arc::clone(channel)))
                .collect()
        };
        for some in channels.chunks(NAMES_A_QUESTION) {
            let names = some.iter().map(|(name, _)| name.clone()).collect();
            let messages = self.name_messages(waiter, names);
            for ((_, channel), message) in some.iter().zip(messages) {
                channel.send(message);
            }
        }
    }

    /// A message about each of the names.
    fn name_messages(&self, waiter: &Arc<Waiter>, names: Vec<Name>) -> Vec<String> {
        let up = self.stores_up();
        let asked = names.len();
        match self.visits.read_names(waiter, names, true, NUMBERS_WAIT) {
            Ok(readings) => readings
                .iter()
                .map(|reading| render(Some(reading.count), reading.history.as_deref(), up))
                .collect(),
            Err(_) => vec![render(None, None, up); asked],
        }
    }

    /// `/counters`: the names with their totals.
    pub(super) fn counters(
        &self,
        session: &Session,
        request: &ListRequest,
        answer: Answer<'_>,
    ) -> Answered {
        let ListRequest { after, most, csv } = request;
        let list = match self.visits.list_names(&session.waiter, after, *most) {
            Ok(list) => list,
            Err(reason) => return refuse_reading(reason, answer),
        };
        let (mut body, mut header) = (String::new(), String::new());
        // Writing to a String cannot fail, here and below.
        if let Some(next) = &list.next {
            let _ = write!(header, "Link: <?after=");
            super::text::percent_encode(next, &mut header);
            let form = if *csv { "csv" } else { "json" };
            let _ = write!(header, "&limit={most}&format={form}>; rel=\"next\"\r\n");
        }
        if *csv {
            header.insert_str(0, fields::HISTORY_CSV);
            body.push_str("name,total\r\n");
            for (name, total) in &list.names {
                let _ = write!(body, "{name},{total}\r\n");
            }
        } else {
            header.insert_str(0, fields::HISTORY_JSON);
            body.push_str("{\"counters\":[");
            for (index, (name, total)) in list.names.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                let _ = write!(body, "{comma}{{\"name\":\"{name}\",\"total\":{total}}}");
            }
            body.push_str("],\"next\":");
            match &list.next {
                Some(next) => json_string(next, &mut body),
                None => body.push_str("null"),
            }
            body.push('}');
        }
        answer.send(Status::Ok, &header, body.as_bytes())
    }
}

//! Many visits at once, and their outcomes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::client::{Client, Counts, NoAnswer, Response};

/// A client needs little stack, and there are hundreds.
const STACK_BYTES: usize = 256 * 1024;
/// The forms of a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    Page,
    Picture,
    Beacon,
    /// To a counter by name, as JSON.
    Name(&'static str),
}

impl Form {
    pub const ALL: &[Form] = &[Form::Json, Form::Page, Form::Picture, Form::Beacon];

    /// A visit of this form.
    pub fn visit(self, client: &mut Client) -> Result<Response, NoAnswer> {
        match self {
            Form::Json => client.try_visit(),
            Form::Page => client.try_request("GET", "/", &[]),
            Form::Picture => client.try_request("GET", "/visit.svg", &[]),
            Form::Beacon => client.try_request("POST", "/visit", &[("Content-Length", "0")]),
            Form::Name(name) => {
                let path = format!("/c/{name}");
                client.try_request("GET", &path, &[("Accept", "application/json")])
            }
        }
    }

    /// Whether the answer says that the visit is counted.
    ///
    /// # Panics
    /// When it is an answer to another form.
    #[track_caller]
    pub fn is_counted(self, response: &Response) -> bool {
        let kind = response.header("Content-Type").unwrap_or_default();
        let (expected, counted) = match self {
            Form::Json | Form::Name(_) => ("application/json", 200),
            Form::Page => ("text/html; charset=utf-8", 200),
            // Refused or not, it is a picture.
            Form::Picture => ("image/svg+xml", 200),
            Form::Beacon => ("", 204),
        };
        if response.status == counted || self == Form::Picture {
            assert_eq!(kind, expected, "{self:?}: {response:?}");
        }
        response.status == counted
    }
}

/// Between two tries while visits are refused, so that refusals leave the machine to what is
/// tested.
pub const PAUSE: Duration = Duration::from_millis(20);

/// The outcomes of visits.
#[derive(Clone, Default)]
pub struct Outcomes {
    /// The numbers in each 200, where they are kept.
    pub counts: Vec<Counts>,
    /// From the request to the answer of each 200, where numbers are kept.
    pub spans: Vec<(SystemTime, SystemTime)>,
    /// Answers with status 200, or 204 to a beacon.
    answered: u64,
    /// Those of them that had a number of the counter.
    pub cached: u64,
    /// The longest time from a request to its answer.
    pub longest: Duration,
    /// Answers with status 503.
    pub refused: usize,
    /// Answers with any other status.
    pub others: Vec<u16>,
    /// Requests that got no complete answer.
    pub unanswered: usize,
    /// Visits to counters by name: those with a 200, and those that may or may not have a row.
    pub named: BTreeMap<&'static str, (u64, u64)>,
    /// The bodies of answers other than 200, and errors.
    pub messages: BTreeSet<String>,
}

/// The start of a visit: by the clock for measuring, and by the one that gives rows their moment.
#[derive(Clone, Copy)]
struct Began {
    instant: Instant,
    time: SystemTime,
}

impl Began {
    fn now() -> Began {
        Began {
            instant: Instant::now(),
            time: SystemTime::now(),
        }
    }
}

/// Without the numbers of every visit, which would fill pages.
impl fmt::Debug for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcomes {
            refused,
            others,
            unanswered,
            messages,
            ..
        } = self;
        write!(
            f,
            "{} ok, {refused} refused, {others:?} otherwise, {unanswered} unanswered; \
             {messages:#?}",
            self.ok()
        )
    }
}

impl Outcomes {
    /// Visits answered with 200.
    pub fn ok(&self) -> u64 {
        self.answered
    }

    /// Visits that may or may not have a row: any other answer, or none.
    pub fn unsure(&self) -> u64 {
        (self.refused + self.others.len() + self.unanswered) as u64
    }

    /// Adds 200s that were counted elsewhere.
    pub fn add_answered(&mut self, visits: u64) {
        self.answered += visits;
    }

    fn add(
        &mut self,
        form: Form,
        answer: Result<Response, NoAnswer>,
        began: Began,
        keep_counts: bool,
    ) {
        self.longest = self.longest.max(began.instant.elapsed());
        if let Form::Name(name) = form {
            let counted = answer.as_ref().is_ok_and(|answer| form.is_counted(answer));
            let (ok, unsure) = self.named.entry(name).or_default();
            *(if counted { ok } else { unsure }) += 1;
        }
        match answer {
            Ok(response) if form.is_counted(&response) => {
                self.answered += 1;
                if keep_counts {
                    self.spans.push((began.time, SystemTime::now()));
                }
                if form == Form::Json {
                    let counts = response.counts();
                    self.cached += u64::from(counts.cache.is_some());
                    self.counts.extend(keep_counts.then_some(counts));
                }
            }
            Ok(response) => {
                if form != Form::Picture {
                    let body = String::from_utf8_lossy(&response.body).into_owned();
                    self.messages.insert(body);
                }
                if response.status == 503 {
                    self.refused += 1
                } else {
                    self.others.push(response.status)
                }
            }
            Err(why) => {
                self.messages.insert(format!("{why:?}"));
                self.unanswered += 1;
            }
        }
    }

    pub fn merge(mut self, other: Outcomes) -> Outcomes {
        self.counts.extend(other.counts);
        self.spans.extend(other.spans);
        self.answered += other.answered;
        self.cached += other.cached;
        self.longest = self.longest.max(other.longest);
        self.refused += other.refused;
        self.others.extend(other.others);
        self.unanswered += other.unanswered;
        for (name, (ok, unsure)) in other.named {
            let ours = self.named.entry(name).or_default();
            *ours = (ours.0 + ok, ours.1 + unsure);
        }
        self.messages.extend(other.messages);
        self
    }

    /// Nothing but 200s, with these spans.
    pub fn of_spans(spans: Vec<(SystemTime, SystemTime)>) -> Outcomes {
        Outcomes {
            answered: spans.len() as u64,
            spans,
            ..Outcomes::default()
        }
    }

    /// Every visit was answered with 200.
    ///
    /// # Panics
    /// When one was not.
    #[track_caller]
    pub fn all_ok(&self, visits: u64) {
        assert_eq!((self.ok(), self.unsure()), (visits, 0), "answers: {self:?}");
    }

    /// Every answer was a 200 or a 503.
    ///
    /// # Panics
    /// When there was another one, or none.
    #[track_caller]
    pub fn only_200_and_503(&self) {
        assert!(
            self.others.is_empty() && self.unanswered == 0,
            "only 200 and 503: {self:?}"
        );
    }

    /// Every visit got its own number of the counter, without a gap from `first`.
    #[track_caller]
    pub fn each_cache_number_once(&self, first: i64) {
        let numbers = self.counts.iter().map(|counts| counts.cache);
        let mut numbers: Vec<i64> = numbers.map(|number| number.expect("a number")).collect();
        numbers.sort_unstable();
        let expected: Vec<i64> = (first..first + self.counts.len() as i64).collect();
        assert_eq!(numbers, expected, "numbers of the counter");
    }

    /// Every visit got its own total, without a gap from `first`. This holds for one lane. Lanes
    /// that commit at the same moment do not see each other's rows yet and may show the same total.
    #[track_caller]
    pub fn each_total_once(&self, first: u64) {
        let mut totals: Vec<u64> = self.counts.iter().map(|counts| counts.total).collect();
        totals.sort_unstable();
        let expected: Vec<u64> = (first..first + self.ok()).collect();
        assert_eq!(totals, expected, "totals");
    }

    /// No visit got a total above the number of rows.
    #[track_caller]
    pub fn no_total_above(&self, rows: u64) {
        let highest = self.counts.iter().map(|counts| counts.total).max();
        assert!(
            highest.is_none_or(|highest| highest <= rows),
            "a total of {highest:?} with {rows} rows"
        );
    }
}

fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(work)
        .expect("a thread for a client")
}

fn gather(clients: Vec<JoinHandle<Outcomes>>) -> Outcomes {
    clients
        .into_iter()
        .map(|client| client.join().expect("a client's outcomes"))
        .fold(Outcomes::default(), Outcomes::merge)
}

/// Visits of `clients` clients, `each` visits per client, over one connection each. All connect
/// before the first visit. They take the ports in turn, so several processes share them.
pub fn visits_at_once(ports: &[u16], clients: usize, each: usize) -> Outcomes {
    let start = Arc::new(Barrier::new(clients));
    let visit = |index: usize| {
        let (start, port) = (Arc::clone(&start), ports[index % ports.len()]);
        spawn(move || {
            let client = Client::try_connect(port);
            start.wait();
            let mut outcomes = Outcomes::default();
            let mut client = client.expect("a connection");
            for _ in 0..each {
                let began = Began::now();
                outcomes.add(Form::Json, client.try_visit(), began, true);
            }
            outcomes
        })
    };
    gather((0..clients).map(visit).collect())
}

/// The pause of a load that need not be the highest, so that tests beside it get on: the stores are
/// in memory, and a commit waits for no disk.
pub const SHORT_PAUSE: Duration = Duration::from_millis(4);

/// Clients that visit again and again.
#[derive(Clone, Debug)]
pub struct Clients {
    /// The processes they visit, in turn.
    pub ports: Vec<u16>,
    pub count: usize,
    /// Between an answer and the client's next visit.
    pub pause: Duration,
    /// Whether the numbers of every visit are kept: some 30 bytes each.
    pub keep_counts: bool,
}

/// Clients at work, until they are stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    ok: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Outcomes>>,
}

impl Load {
    /// Starts `count` clients with a short pause.
    pub fn start(port: u16, count: usize) -> Load {
        Load::of(&Clients {
            ports: vec![port],
            count,
            pause: SHORT_PAUSE,
            keep_counts: true,
        })
    }

    /// The same, with visits of every form.
    pub fn in_every_form(port: u16, count: usize) -> Load {
        let clients = Clients {
            ports: vec![port],
            count,
            pause: SHORT_PAUSE,
            keep_counts: true,
        };
        Load::of_forms(&clients, Form::ALL)
    }

    /// Starts the clients, each on its own connection. One that ends is replaced.
    pub fn of(clients: &Clients) -> Load {
        Load::of_forms(clients, &[Form::Json])
    }

    /// The same, with visits of each of these forms in turn.
    pub fn of_forms(clients: &Clients, forms: &'static [Form]) -> Load {
        let (stop, ok) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let keep_visiting = |index: usize| {
            let (stop, ok, clients) = (Arc::clone(&stop), Arc::clone(&ok), clients.clone());
            let port = clients.ports[index % clients.ports.len()];
            spawn(move || {
                let mut outcomes = Outcomes::default();
                let mut forms = forms.iter().copied().cycle().skip(index);
                while !stop.load(Ordering::Relaxed) {
                    // Only a request that was sent is a visit; a refused connection is not.
                    match Client::try_connect(port) {
                        Ok(client) => {
                            visit_on(client, &clients, &mut forms, (&stop, &ok), &mut outcomes)
                        }
                        Err(_) => thread::sleep(PAUSE),
                    }
                }
                outcomes
            })
        };
        Load {
            clients: (0..clients.count).map(keep_visiting).collect(),
            stop,
            ok,
        }
    }

    /// The number of visits answered with 200 so far.
    pub fn ok_so_far(&self) -> u64 {
        self.ok.load(Ordering::Relaxed)
    }

    /// Waits for each client's current visit, and gives the outcomes.
    pub fn stop(mut self) -> Outcomes {
        self.stop.store(true, Ordering::Relaxed);
        gather(std::mem::take(&mut self.clients))
    }
}

/// A test that failed loads the machine no more.
impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn visit_on(
    mut client: Client,
    clients: &Clients,
    forms: &mut impl Iterator<Item = Form>,
    (stop, ok): (&AtomicBool, &AtomicU64),
    outcomes: &mut Outcomes,
) {
    for form in forms {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let began = Began::now();
        let answer = form.visit(&mut client);
        let (ended, counted) = match &answer {
            Ok(response) => (
                response.header("Connection") == Some("close"),
                form.is_counted(response),
            ),
            Err(_) => (true, false),
        };
        outcomes.add(form, answer, began, clients.keep_counts);
        ok.fetch_add(u64::from(counted), Ordering::Relaxed);
        thread::sleep(if counted {
            clients.pause
        } else {
            clients.pause.max(PAUSE)
        });
        if ended {
            return;
        }
    }
}

//! Many visitors at once, and the account of what each was told.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::client::{Client, Counts, NoAnswer, Response};

/// A visitor needs little of a stack, and there are hundreds.
const STACK_BYTES: usize = 256 * 1024;
/// Between two tries while visits are refused, so that refusals do not take the machine from what
/// is tested.
const PAUSE: Duration = Duration::from_millis(2);

/// What visitors were told.
#[derive(Clone, Default)]
pub struct Tally {
    /// The numbers in each 200; none where they are not kept.
    pub counts: Vec<Counts>,
    /// From when to when each 200 was waited for; none where numbers are not kept.
    pub spans: Vec<(SystemTime, SystemTime)>,
    /// Answers with status 200.
    answered: u64,
    /// Those of them that told a number of the cache.
    pub cached: u64,
    /// The longest time from a request to its answer, whatever that was.
    pub longest: Duration,
    /// Answers with status 503.
    pub refused: usize,
    /// Answers with any other status.
    pub others: Vec<u16>,
    /// Requests sent that got no whole answer.
    pub unanswered: usize,
    /// What was said to those that were not counted.
    pub said: BTreeSet<String>,
}

/// When a visit began, by the clock that measures and by the one that rows have their moment from.
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
impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            refused,
            others,
            unanswered,
            said,
            ..
        } = self;
        write!(
            f,
            "{} ok, {refused} refused, {others:?} otherwise, {unanswered} unanswered; {said:#?}",
            self.ok()
        )
    }
}

impl Tally {
    /// Visits answered with 200.
    pub fn ok(&self) -> u64 {
        self.answered
    }

    /// Visits whose row may or may not be there: answered otherwise or not at all.
    pub fn unsure(&self) -> u64 {
        (self.refused + self.others.len() + self.unanswered) as u64
    }

    /// Adds what another account had of 200s.
    pub fn add_answered(&mut self, visits: u64) {
        self.answered += visits;
    }

    fn add(&mut self, answer: Result<Response, NoAnswer>, began: Began, keep_numbers: bool) {
        self.longest = self.longest.max(began.instant.elapsed());
        match answer {
            Ok(response) if response.status == 200 => {
                let counts = response.counts();
                self.answered += 1;
                self.cached += u64::from(counts.cache.is_some());
                if keep_numbers {
                    self.counts.push(counts);
                    self.spans.push((began.time, SystemTime::now()));
                }
            }
            Ok(response) => {
                self.said
                    .insert(String::from_utf8_lossy(&response.body).into_owned());
                if response.status == 503 {
                    self.refused += 1
                } else {
                    self.others.push(response.status)
                }
            }
            Err(why) => {
                self.said.insert(format!("{why:?}"));
                self.unanswered += 1;
            }
        }
    }

    pub fn merge(mut self, other: Tally) -> Tally {
        self.counts.extend(other.counts);
        self.spans.extend(other.spans);
        self.answered += other.answered;
        self.cached += other.cached;
        self.longest = self.longest.max(other.longest);
        self.refused += other.refused;
        self.others.extend(other.others);
        self.unanswered += other.unanswered;
        self.said.extend(other.said);
        self
    }

    /// An account of nothing but answers of 200 that were waited for then.
    pub fn of_spans(spans: Vec<(SystemTime, SystemTime)>) -> Tally {
        Tally {
            answered: spans.len() as u64,
            spans,
            ..Tally::default()
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

    /// Every visit got a cache number of its own, from `first` on without a gap.
    #[track_caller]
    pub fn each_cache_number_once(&self, first: i64) {
        let mut caches: Vec<i64> = self
            .counts
            .iter()
            .map(|counts| counts.cache.expect("a cache number"))
            .collect();
        caches.sort_unstable();
        assert_eq!(
            caches,
            (first..first + self.counts.len() as i64).collect::<Vec<_>>(),
            "cache numbers"
        );
    }

    /// Every visit got a total of its own, from `first` on without a gap. So it is with one lane;
    /// lanes that commit at the same moment do not see each other's rows yet, and may tell the same
    /// total.
    #[track_caller]
    pub fn each_total_once(&self, first: u64) {
        let mut totals: Vec<u64> = self.counts.iter().map(|counts| counts.total).collect();
        totals.sort_unstable();
        assert_eq!(
            totals,
            (first..first + self.ok()).collect::<Vec<_>>(),
            "totals"
        );
    }

    /// No total is above what there is.
    #[track_caller]
    pub fn no_total_above(&self, most: u64) {
        let highest = self.counts.iter().map(|counts| counts.total).max();
        assert!(
            highest.is_none_or(|highest| highest <= most),
            "a total of {highest:?} with {most} rows"
        );
    }
}

fn visitor<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(work)
        .expect("a thread for a visitor")
}

fn gather(visitors: Vec<JoinHandle<Tally>>) -> Tally {
    let tallies = visitors
        .into_iter()
        .map(|visitor| visitor.join().expect("a visitor's account"));
    tallies.fold(Tally::default(), Tally::merge)
}

/// So many visitors, each on a connection of its own, all connected before the first visits; `each`
/// visits a visitor. The ports are taken in turn, so that several processes share the visitors.
pub fn visits_at_once(ports: &[u16], visitors: usize, each: usize) -> Tally {
    let start = Arc::new(Barrier::new(visitors));
    let visit = |index: usize| {
        let (start, port) = (Arc::clone(&start), ports[index % ports.len()]);
        visitor(move || {
            let client = Client::try_connect(port);
            start.wait();
            let mut tally = Tally::default();
            let mut client = client.expect("a connection");
            for _ in 0..each {
                let began = Began::now();
                tally.add(client.try_visit(), began, true);
            }
            tally
        })
    };
    gather((0..visitors).map(visit).collect())
}

/// Visitors that come again and again.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// The processes they visit, taken in turn.
    pub ports: Vec<u16>,
    pub visitors: usize,
    /// What each waits between an answer and its next visit.
    pub pause: Duration,
    /// Whether the numbers of every visit are kept: some 30 bytes each.
    pub keep_numbers: bool,
}

/// A crowd at work, until it is told to stop.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    ok: Arc<AtomicU64>,
    visitors: Vec<JoinHandle<Tally>>,
}

impl Load {
    /// Starts so many visitors without a pause.
    pub fn start(port: u16, visitors: usize) -> Load {
        Load::of(&Crowd {
            ports: vec![port],
            visitors,
            pause: Duration::ZERO,
            keep_numbers: true,
        })
    }

    /// Starts the crowd, each on a connection of its own, connecting again whenever it ends.
    pub fn of(crowd: &Crowd) -> Load {
        let (stop, ok) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let keep_visiting = |index: usize| {
            let (stop, ok, crowd) = (Arc::clone(&stop), Arc::clone(&ok), crowd.clone());
            let port = crowd.ports[index % crowd.ports.len()];
            visitor(move || {
                let mut tally = Tally::default();
                while !stop.load(Ordering::Relaxed) {
                    // A visit is one that was sent: a refused connection is none.
                    match Client::try_connect(port) {
                        Ok(client) => visit_on(client, &crowd, (&stop, &ok), &mut tally),
                        Err(_) => thread::sleep(PAUSE),
                    }
                }
                tally
            })
        };
        Load {
            visitors: (0..crowd.visitors).map(keep_visiting).collect(),
            stop,
            ok,
        }
    }

    /// How many visits were answered with 200 so far.
    pub fn ok_so_far(&self) -> u64 {
        self.ok.load(Ordering::Relaxed)
    }

    /// Lets every visitor finish the visit it is at; gives back the account.
    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        gather(self.visitors)
    }
}

fn visit_on(
    mut client: Client,
    crowd: &Crowd,
    (stop, ok): (&AtomicBool, &AtomicU64),
    tally: &mut Tally,
) {
    while !stop.load(Ordering::Relaxed) {
        let began = Began::now();
        let answer = client.try_visit();
        let (ended, counted) = match &answer {
            Ok(response) => (
                response.header("Connection") == Some("close"),
                response.status == 200,
            ),
            Err(_) => (true, false),
        };
        tally.add(answer, began, crowd.keep_numbers);
        ok.fetch_add(u64::from(counted), Ordering::Relaxed);
        thread::sleep(if counted {
            crowd.pause
        } else {
            crowd.pause.max(PAUSE)
        });
        if ended {
            return;
        }
    }
}

//! Visits to counters by name, their outcomes, and what the stores hold of each name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::client::Client;
use super::database::Database;
use super::load::{PAUSE, SHORT_PAUSE};
use super::redis::Redis;
use super::server::Visitas;
use super::wait::within_value;

const LIMIT: Duration = Duration::from_secs(60);

/// Numbers by name.
pub type ByName = BTreeMap<String, u64>;

/// What became of visits, by name.
#[derive(Debug, Clone, Default)]
pub struct NamedOutcomes {
    /// Answers with 200.
    pub ok: ByName,
    /// Visits that may or may not have a row.
    pub unsure: ByName,
    /// The totals and the counter's numbers in each 200.
    pub totals: BTreeMap<String, Vec<u64>>,
    pub caches: BTreeMap<String, Vec<i64>>,
}

impl NamedOutcomes {
    fn merge(mut self, other: NamedOutcomes) -> NamedOutcomes {
        for (sums, more) in [(&mut self.ok, other.ok), (&mut self.unsure, other.unsure)] {
            for (name, visits) in more {
                *sums.entry(name).or_insert(0) += visits;
            }
        }
        for (name, totals) in other.totals {
            self.totals.entry(name).or_default().extend(totals);
        }
        for (name, caches) in other.caches {
            self.caches.entry(name).or_default().extend(caches);
        }
        self
    }

    fn visit(&mut self, client: &mut Client, name: &str) -> bool {
        let answer = client.try_request(
            "GET",
            &format!("/c/{name}"),
            &[("Accept", "application/json")],
        );
        let counts = match answer {
            Ok(response) if response.status == 200 => response.counts(),
            other => {
                *self.unsure.entry(name.to_owned()).or_insert(0) += 1;
                return other.is_ok();
            }
        };
        *self.ok.entry(name.to_owned()).or_insert(0) += 1;
        let totals = self.totals.entry(name.to_owned()).or_default();
        totals.push(counts.total);
        let caches = self.caches.entry(name.to_owned()).or_default();
        caches.extend(counts.cache);
        true
    }

    pub fn visits(&self) -> u64 {
        self.ok.values().sum()
    }

    /// No name's total, and no number of its counter, was given twice: what one lane promises.
    #[track_caller]
    pub fn each_number_once(&self) {
        for (name, totals) in &self.totals {
            let mut once = totals.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), totals.len(), "totals of {name}: {totals:?}");
        }
        for (name, caches) in &self.caches {
            let mut once = caches.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), caches.len(), "numbers of {name}: {caches:?}");
        }
    }

    /// Each name has a row for each 200, and none beyond visits without an answer.
    #[track_caller]
    pub fn have_rows(&self, rows: &ByName) {
        let of = |all: &ByName, name: &str| all.get(name).copied().unwrap_or(0);
        for name in self.ok.keys().chain(self.unsure.keys()).chain(rows.keys()) {
            let (ok, unsure) = (of(&self.ok, name), of(&self.unsure, name));
            let rows = of(rows, name);
            assert!(
                (ok..=ok + unsure).contains(&rows),
                "{name}: {rows} rows, {ok} ok, {unsure} unsure"
            );
        }
    }
}

/// A pseudo-random number below `end` (xorshift).
fn below(state: &mut u64, end: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % end
}

/// The name of that number.
pub fn name(number: u64) -> String {
    format!("n.{number}_a-b")
}

/// Visits each of so many names so many times, at once, over some connections.
#[track_caller]
pub fn visits_to_names(port: u16, clients: u64, names: u64, each: u64) -> NamedOutcomes {
    let next = Arc::new(AtomicU64::new(0));
    let clients: Vec<JoinHandle<NamedOutcomes>> = (0..clients)
        .map(|_| {
            let next = Arc::clone(&next);
            thread::spawn(move || {
                let (mut outcomes, mut client) = (NamedOutcomes::default(), Client::connect(port));
                loop {
                    let visit = next.fetch_add(1, Ordering::Relaxed);
                    if visit >= names * each {
                        return outcomes;
                    }
                    outcomes.visit(&mut client, &name(visit % names));
                }
            })
        })
        .collect();
    gather(clients)
}

fn gather(clients: Vec<JoinHandle<NamedOutcomes>>) -> NamedOutcomes {
    let outcomes = clients
        .into_iter()
        .map(|client| client.join().expect("a client's outcomes"));
    outcomes.fold(NamedOutcomes::default(), NamedOutcomes::merge)
}

/// Visits to random names until it is stopped, whatever happens to the server.
#[derive(Debug)]
pub struct NamedLoad {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<NamedOutcomes>>,
}

impl NamedLoad {
    pub fn start(ports: &[u16], clients: u64, names: u64) -> NamedLoad {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |number: u64| {
            let (stop, port) = (Arc::clone(&stop), ports[number as usize % ports.len()]);
            thread::spawn(move || {
                let mut state = 0x9E37_79B9_7F4A_7C15 ^ (number + 1);
                let mut outcomes = NamedOutcomes::default();
                let mut connection = None;
                while !stop.load(Ordering::Relaxed) {
                    let Some(mut client) =
                        connection.take().or_else(|| Client::try_connect(port).ok())
                    else {
                        thread::sleep(PAUSE);
                        continue;
                    };
                    let name = name(below(&mut state, names));
                    let before = outcomes.visits();
                    if outcomes.visit(&mut client, &name) {
                        connection = Some(client);
                    }
                    thread::sleep(if outcomes.visits() == before {
                        PAUSE
                    } else {
                        SHORT_PAUSE
                    });
                }
                outcomes
            })
        };
        let clients = (0..clients).map(client).collect();
        NamedLoad { stop, clients }
    }

    pub fn stop(mut self) -> NamedOutcomes {
        self.stop.store(true, Ordering::Relaxed);
        gather(std::mem::take(&mut self.clients))
    }
}

/// A test that failed loads the machine no more.
impl Drop for NamedLoad {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The rows of each valid name, as SQL sees them.
pub fn rows_by_name(database: &Database<'_>) -> ByName {
    let rows = "SELECT contador, count(*) FROM acessos \
        WHERE contador ~ '^[a-z0-9._-]{1,64}$' AND contador ~ '[^.]' GROUP BY 1";
    let rows = database.superuser().query(rows, &[]).expect("rows");
    rows.iter()
        .map(|row| (row.get(0), row.get::<_, i64>(1).cast_unsigned()))
        .collect()
}

/// All names of `/counters` that have visits, page by page.
#[track_caller]
pub fn listed(visitas: &Visitas) -> ByName {
    let (mut found, mut after) = (ByName::new(), String::new());
    loop {
        let path = format!("/counters?limit=37&after={after}");
        let response = visitas.get(&path);
        assert_eq!(response.status, 200, "{response:?}\n{}", visitas.output());
        let json: serde_json::Value = serde_json::from_slice(&response.body).expect("JSON");
        for counter in json["counters"].as_array().expect("counters") {
            let name = counter["name"].as_str().expect("a name");
            let total = counter["total"].as_u64().expect("a total");
            let before = found.insert(name.to_owned(), total);
            assert_eq!(before, None, "{name} is listed twice");
        }
        match json["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    found.retain(|_, total| *total > 0);
    found
}

/// The counter of each of these names in Redis.
pub fn redis_by_name<'a>(redis: &Redis, names: impl Iterator<Item = &'a String>) -> ByName {
    let number = |name: &String| {
        let text = redis.command(&["GET", &format!("contador_cache:{name}")]);
        text.and_then(|text| text.parse().ok())
            .map(|number| (name.clone(), number))
    };
    names.filter_map(number).collect()
}

/// The ledger says of each name what its rows say, once it is up.
#[track_caller]
pub fn totals_are_rows(visitas: &Visitas, database: &Database<'_>) -> ByName {
    within_value(LIMIT, "the list", || {
        match visitas.get("/counters").status {
            200 => Ok(()),
            status => Err(status),
        }
    });
    let rows = rows_by_name(database);
    assert_eq!(listed(visitas), rows, "{}", visitas.output());
    rows
}

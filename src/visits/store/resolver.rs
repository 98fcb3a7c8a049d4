//! Resolves host names: anew at each call, within a limit, and never two at once.
//!
//! The system's resolver blocks for tens of seconds where no name server answers, and cannot be
//! cancelled. So each look-up has its own thread. A caller whose limit passes leaves it running;
//! the next call takes its answer instead of starting another one.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// The resolvers of glibc and musl take up to 100 KiB.
const STACK_BYTES: usize = 256 * 1024;

/// Age up to which a late answer is taken: longer than the wait between two tries, or a name server
/// slower than the limit would never be heard.
const FRESH: Duration = Duration::from_secs(10);

type LookUp = fn(&str) -> io::Result<Vec<IpAddr>>;

/// One lane's resolver for one store.
#[derive(Debug)]
pub(in crate::visits) struct Resolver {
    look_up: LookUp,
    in_flight: Option<InFlight>,
}

#[derive(Debug)]
struct InFlight {
    name: String,
    answer: Receiver<Answer>,
}

struct Answer {
    came: Instant,
    addresses: io::Result<Vec<IpAddr>>,
}

impl Resolver {
    pub(in crate::visits) fn new() -> Self {
        Resolver {
            look_up: ask_system,
            in_flight: None,
        }
    }

    /// The addresses of `name`, at least one, within `limit`. A literal address is its own.
    ///
    /// # Errors
    /// Without an address, or not in time. Then the look-up goes on, and a later call may get its
    /// answer.
    pub(in crate::visits) fn resolve(
        &mut self,
        name: &str,
        limit: Duration,
    ) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let until = Instant::now() + limit;
        loop {
            let in_flight = match self.in_flight.take() {
                Some(in_flight) => in_flight,
                None => self.start(name)?,
            };
            match in_flight
                .answer
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(answer) if in_flight.name == name && answer.came.elapsed() < FRESH => {
                    return found(name, answer.addresses);
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    self.in_flight = Some(in_flight);
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("{name}: no address in {limit:?}"),
                    ));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("a look-up ended without answer"));
                }
            }
        }
    }

    fn start(&self, name: &str) -> io::Result<InFlight> {
        let (sender, answer) = sync_channel(1);
        let (look_up, asked) = (self.look_up, name.to_owned());
        let work = move || {
            let addresses = look_up(&asked);
            // A stopping process no longer waits.
            let _ = sender.send(Answer {
                came: Instant::now(),
                addresses,
            });
        };
        thread::Builder::new()
            .name("resolver".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(work)?;
        Ok(InFlight {
            name: name.to_owned(),
            answer,
        })
    }
}

fn found(name: &str, addresses: io::Result<Vec<IpAddr>>) -> io::Result<Vec<IpAddr>> {
    match addresses {
        Ok(addresses) if addresses.is_empty() => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{name} has no address"),
        )),
        Ok(addresses) => Ok(addresses),
        Err(error) => Err(io::Error::new(error.kind(), format!("{name}: {error}"))),
    }
}

fn ask_system(name: &str) -> io::Result<Vec<IpAddr>> {
    // The port does not matter.
    Ok((name, 0)
        .to_socket_addrs()?
        .map(|address| address.ip())
        .collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(5);

    fn address(last: u8) -> Vec<IpAddr> {
        vec![IpAddr::from([127, 0, 0, last])]
    }

    #[test]
    fn an_address_needs_no_look_up() {
        let mut resolver = Resolver {
            look_up: |name| panic!("{name} was looked up"),
            in_flight: None,
        };
        assert_eq!(resolver.resolve("127.0.0.9", SOON).ok(), Some(address(9)));
        assert_eq!(
            resolver.resolve("::1", SOON).ok(),
            Some(vec!["::1".parse().expect("an address")])
        );
    }

    #[test]
    fn every_call_looks_anew() {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let look_up = |_: &str| Ok(address(CALLS.fetch_add(1, Ordering::SeqCst) as u8));
        let mut resolver = Resolver {
            look_up,
            in_flight: None,
        };
        for call in 0..3 {
            assert_eq!(resolver.resolve("db", LONG).ok(), Some(address(call)));
        }
    }

    #[test]
    fn a_name_without_address_is_an_error_with_its_name() {
        let mut resolver = Resolver {
            look_up: |_| Ok(Vec::new()),
            in_flight: None,
        };
        assert!(
            resolver
                .resolve("nowhere", LONG)
                .is_err_and(|error| error.to_string().contains("nowhere"))
        );
    }

    #[test]
    fn a_slow_look_up_is_left_behind_and_taken_up_and_never_doubled() {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let look_up = |_: &str| {
            STARTED.fetch_add(1, Ordering::SeqCst);
            assert_eq!(
                RUNNING.fetch_add(1, Ordering::SeqCst),
                0,
                "two look-ups at once"
            );
            thread::sleep(SOON * 50);
            RUNNING.fetch_sub(1, Ordering::SeqCst);
            Ok(address(1))
        };
        let mut resolver = Resolver {
            look_up,
            in_flight: None,
        };
        for name in ["db", "other", "db"] {
            let began = Instant::now();
            let error = resolver
                .resolve(name, SOON)
                .expect_err("no answer in so short a time");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(
                began.elapsed() < SOON * 40,
                "it waited {:?}",
                began.elapsed()
            );
        }
        assert_eq!(
            resolver.resolve("db", LONG).ok(),
            Some(address(1)),
            "the answer to the first call"
        );
        assert_eq!(STARTED.load(Ordering::SeqCst), 1);
        assert_eq!(resolver.resolve("other", LONG).ok(), Some(address(1)));
        assert_eq!(STARTED.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn an_old_answer_is_not_taken() {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let look_up = |_: &str| Ok(address(CALLS.fetch_add(1, Ordering::SeqCst) as u8));
        let mut resolver = Resolver {
            look_up,
            in_flight: None,
        };
        let (sender, answer) = sync_channel(1);
        let came = Instant::now()
            .checked_sub(FRESH * 2)
            .expect("a machine that is up for longer");
        sender
            .send(Answer {
                came,
                addresses: Ok(address(77)),
            })
            .expect("room for it");
        resolver.in_flight = Some(InFlight {
            name: "db".to_owned(),
            answer,
        });
        assert_eq!(resolver.resolve("db", LONG).ok(), Some(address(0)));
    }
}

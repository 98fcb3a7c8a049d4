//! The running program: puts the parts together, waits for events, and stops in order.

mod options;

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, geteuid};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::capacity::{self, Capacity};
use crate::config::{Config, LedgerPlace};
use crate::http::{self, Server};
use crate::site::{Ops, Site};
use crate::visits::{self, Visits};
use crate::{clock, logging, workers};
pub use options::{capacity, ledger_connections};

/// Connections on `OPS_PORT`: a few scrapers and probes.
const OPS_CONNECTIONS: usize = 64;
/// Time for the lanes to end once all connections are closed.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// How often the kernel's memory for connections is read.
const MEASURE_INTERVAL: Duration = Duration::from_millis(250);
/// The process itself is measured every fourth time.
const PROCESS_EVERY: u32 = 4;
/// How often a draining process checks whether it is done.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// Why the program could not start or go on.
#[derive(Debug)]
pub struct RunError(String);

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RunError {}

/// What the main thread waits for.
enum Event {
    Visits(visits::Event),
    Stop,
}

/// Serves until a signal.
///
/// # Errors
/// A sentence that says what could not be done.
pub fn run(config: &Config) -> Result<(), RunError> {
    let (sender, events) = mpsc::channel();
    // Before anything else: the kernel ignores the signals of process 1 until they are handled.
    watch_signals(sender.clone())?;
    clock::set(Duration::ZERO);
    capacity::prepare();
    workers::start(config.workers);

    check_folder(config)?;
    let (listener, address) = bind("PORT", config.listen)?;
    let ops = config
        .ops
        .map(|address| bind("OPS_PORT", address))
        .transpose()?;
    let (ops_listener, ops_address) = ops.unzip();
    log_listening(config, address, ops_address);
    let parts = Parts::start(config, listener, ops_listener, sender)?;
    loop {
        match events.recv() {
            Ok(Event::Visits(visits::Event::Ready(schema))) => {
                announce(config, schema.as_deref(), address, ops_address);
            }
            Ok(Event::Visits(visits::Event::Failed(sentence))) => return Err(RunError(sentence)),
            Ok(Event::Stop) | Err(_) => break,
        }
    }
    drain(config, &events, &parts);
    // Before the begin every lane still waits for the others.
    if parts.visits.has_begun() {
        parts.visits.close(Instant::now() + CLOSE_TIMEOUT);
    }
    Ok(())
}

/// The parts that serve.
struct Parts {
    visits: Arc<Visits>,
    site: Arc<Site>,
    server: Arc<Server<Site>>,
}

impl Parts {
    fn start(
        config: &Config,
        listener: TcpListener,
        ops_listener: Option<TcpListener>,
        sender: mpsc::Sender<Event>,
    ) -> Result<Parts, RunError> {
        let on_event = move |event| {
            // A stopping process no longer receives.
            let _ = sender.send(Event::Visits(event));
        };
        let (options, stores) = (options::visits(config), options::stores(config));
        let visits = Visits::start(&options, &stores, on_event).map_err(no_thread)?;
        let visits = Arc::new(visits);
        // After all threads, which take their part of the memory.
        let capacity = checked_capacity(config)?;
        let front = Arc::new(http::Stats::new(config.workers));
        let site = Arc::new(Site::new(
            Arc::clone(&visits),
            Arc::clone(&front),
            options::store_names(config),
            options::site(config, capacity),
        ));
        let options = options::http(config, capacity);
        let server = Server::start(listener, options, Arc::clone(&site), front);
        let server = Arc::new(server.map_err(no_thread)?);
        let ops = ops_listener
            .map(|listener| start_ops(listener, config, capacity, &site))
            .transpose()
            .map_err(no_thread)?;
        let parts = Parts {
            visits,
            site,
            server,
        };
        parts.measure()?;
        parts.keep_time(ops)?;
        Ok(parts)
    }

    /// Starts the clock, whose ticks enforce every deadline.
    fn keep_time(&self, ops: Option<Server<Ops>>) -> Result<(), RunError> {
        let (visits, site) = (Arc::clone(&self.visits), Arc::clone(&self.site));
        let server = Arc::clone(&self.server);
        let tick = move |now| {
            visits.tick(now);
            site.tick();
            server.tick();
            ops.iter().for_each(Server::tick);
            logging::flush();
        };
        start_thread("clock", move || clock::run(tick))
    }

    /// Reads what the system says of this process on its own thread: it may take long.
    fn measure(&self) -> Result<(), RunError> {
        let (site, server) = (Arc::clone(&self.site), Arc::clone(&self.server));
        start_thread("measure", move || {
            for round in 0_u32.. {
                server.set_kernel_bytes(capacity::socket_bytes());
                if round % PROCESS_EVERY == 0 {
                    site.measure();
                }
                thread::sleep(MEASURE_INTERVAL);
            }
        })
    }
}

fn start_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<(), RunError> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).map_err(no_thread)
}

fn no_thread(error: io::Error) -> RunError {
    RunError(format!("a thread cannot be started: {error}"))
}

/// Returns the address too: a port of 0 becomes any free one.
fn bind(variable: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let listener = http::bind(address).map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::AddrInUse => {
                format!("; stop that program, or set {variable} to a free port")
            }
            _ => String::new(),
        };
        RunError(format!(
            "{variable}: cannot listen on {address}: {error}{advice}"
        ))
    })?;
    let bound = listener.local_addr().unwrap_or(address);
    Ok((listener, bound))
}

fn log_listening(config: &Config, address: SocketAddr, ops: Option<SocketAddr>) {
    let ops = ops.map_or(String::new(), |address| {
        format!(", /metrics and health on http://{address}")
    });
    log::info!(
        "listening on http://{address}{ops}; connecting to the ledger ({}) and the counter ({})",
        config.ledger,
        config.counter
    );
}

/// Fails early where the store's folder cannot be written to: often it is another user's mount.
fn check_folder(config: &Config) -> Result<(), RunError> {
    let LedgerPlace::Embedded { folder } = &config.ledger else {
        return Ok(());
    };
    let Err(error) = access(folder.as_path(), AccessFlags::W_OK | AccessFlags::X_OK) else {
        return Ok(());
    };
    // A missing folder is made later.
    if error == Errno::ENOENT {
        return Ok(());
    }
    let (user, folder) = (geteuid(), folder.display());
    Err(RunError(format!(
        "DATA_DIR: {folder} cannot be written by user {user}: {error}; \
         chown it to {user}, or name another folder"
    )))
}

/// Lets every connection finish its request, at most for `DRAIN_TIMEOUT`. A second signal drains
/// now.
fn drain(config: &Config, events: &mpsc::Receiver<Event>, parts: &Parts) {
    let server = &parts.server;
    parts.site.drain();
    if !config.drain_delay.is_zero() {
        log::info!(
            "stopping: /readyz says so; connections are accepted for another {:?}",
            config.drain_delay
        );
        let until = Instant::now() + config.drain_delay;
        // A second signal ends the delay.
        while !matches!(
            events.recv_timeout(until.saturating_duration_since(Instant::now())),
            Ok(Event::Stop) | Err(_)
        ) {}
    }
    log::info!("stopping: finishing accepted requests");
    server.drain();
    let until = Instant::now() + config.drain_timeout;
    while !server.is_done() {
        if Instant::now() >= until {
            log::warn!(
                "stopping before all connections were done: DRAIN_TIMEOUT ({:?}) is over",
                config.drain_timeout
            );
            return;
        }
        if matches!(events.recv_timeout(DRAIN_POLL), Ok(Event::Stop)) {
            server.drain_now();
        }
    }
    log::info!("stopped");
}

/// Prints the only line on standard output: where it listens and what it uses.
fn announce(config: &Config, schema: Option<&str>, address: SocketAddr, ops: Option<SocketAddr>) {
    let workers = config.workers;
    let line = format!(
        "visitas {} ready at http://{address}{}: ledger {}{}, counter {}, {workers} worker{}{}\n",
        env!("CARGO_PKG_VERSION"),
        config.base_path,
        config.ledger,
        schema.map_or(String::new(), |schema| format!(" (schema {schema})")),
        config.counter,
        if workers == 1 { "" } else { "s" },
        ops.map_or(String::new(), |address| format!(
            ", ops at http://{address}"
        ))
    );
    // A closed standard output is no reason to stop.
    let _ = io::stdout().lock().write_all(line.as_bytes());
}

fn watch_signals(sender: mpsc::Sender<Event>) -> Result<(), RunError> {
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|error| RunError(format!("signals cannot be watched: {error}")))?;
    start_thread("signals", move || {
        for _ in signals.forever() {
            if sender.send(Event::Stop).is_err() {
                return;
            }
        }
    })
}

/// Serves health and metrics on `OPS_PORT` until the end, so that a drain can be watched.
fn start_ops(
    listener: TcpListener,
    config: &Config,
    capacity: Capacity,
    site: &Arc<Site>,
) -> io::Result<Server<Ops>> {
    let options = http::Options {
        max_connections: OPS_CONNECTIONS,
        max_refusals: OPS_CONNECTIONS,
        trusted_proxies: http::Networks::default(),
        ..options::http(config, capacity)
    };
    let stats = Arc::new(http::Stats::new(config.workers));
    Server::start(listener, options, Arc::new(Ops(Arc::clone(site))), stats)
}

/// The capacity; a warning where it is less than configured.
fn checked_capacity(config: &Config) -> Result<Capacity, RunError> {
    let capacity = capacity(config);
    if let Some(bound) = capacity.bound {
        let (asked, most) = (config.max_connections, capacity.connections);
        if most == 0 {
            return Err(RunError(format!(
                "the system allows too few {bound} to serve a single connection"
            )));
        }
        log::warn!(
            "at most {most} connections are served, not the {asked} of MAX_CONNECTIONS: \
             too few {bound}"
        );
    }
    Ok(capacity)
}

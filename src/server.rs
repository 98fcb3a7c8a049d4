//! The running program: puts the parts together, waits for what happens, and stops in good order.

use std::fmt;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use may::coroutine;
use nix::errno::Errno;
use nix::libc;
use nix::unistd::{AccessFlags, access, geteuid};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::capacity::{self, Capacity};
use crate::clock;
use crate::config::{Config, CounterPlace, LedgerPlace};
use crate::http::{self, Server};
use crate::logging;
use crate::site::{self, Ops, Site, StoreNames};
use crate::visits::counter::{Counter, Memory, Redis};
use crate::visits::ledger::{
    Embedded, EmbeddedFile, EmbeddedPruner, Ledger, Postgres, PostgresPruner, Pruner,
};
use crate::visits::{self, Stores, Visits};

/// Bytes of a connection's stack. A request is served in a third of it; pages not touched are not
/// there. A debug build's frames are several times larger.
const STACK_BYTES: usize = if cfg!(debug_assertions) {
    256 * 1024
} else {
    32 * 1024
};
/// Stacks kept for reuse, made at start: each keeps one page resident.
const STACKS_KEPT: usize = 64;
/// The longest wait for one answer of the counter. A visit never waits longer for it; past this it
/// does without.
const COUNTER_TIMEOUT: Duration = Duration::from_millis(500);
/// And its share of a visit's deadline, since what queues meanwhile waits too.
const COUNTER_SHARE: u32 = 4;
/// Workers that share a lane. One session of PostgreSQL takes several times the rows that so many
/// workers can bring, and two lanes only make smaller batches that wait for each other's flush to
/// disk.
const WORKERS_A_LANE: usize = 4;
/// Connections that `OPS_PORT` serves: a few scrapers and probes.
const OPS_CONNECTIONS: usize = 64;
/// Time for the stages to end once all connections are gone.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// How often the memory that the kernel holds for connections is looked at, and how many times so
/// often the process is.
const MEASURE: Duration = Duration::from_millis(250);
const PROCESS_EVERY: u32 = 4;
/// How often a draining process looks whether it is done.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// Why the program could not start, or not go on.
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

/// Serves until a signal says to stop.
///
/// # Errors
/// A sentence that says what could not be done.
pub fn run(config: &Config) -> Result<(), RunError> {
    let (sender, events) = mpsc::channel();
    // First of all, so that a signal is obeyed from the start: as process 1 it would be ignored
    // else.
    watch_signals(sender.clone())
        .map_err(|error| RunError(format!("signals cannot be watched: {error}")))?;
    clock::set(Duration::ZERO);
    capacity::prepare();
    start_workers(config.workers);

    check_folder(config)?;
    let listener = bind("PORT", config.listen)?;
    let ops_listener = config
        .ops
        .map(|address| bind("OPS_PORT", address))
        .transpose()?;
    let address = listener.local_addr().unwrap_or(config.listen);
    let ops_address = ops_listener
        .as_ref()
        .and_then(|listener| listener.local_addr().ok());
    let ops = ops_address.map_or(String::new(), |address| {
        format!(", /metrics and health on http://{address}")
    });
    log::info!(
        "listening on http://{address}{ops}; reaching for the ledger ({}) and the counter ({})",
        config.ledger,
        config.counter
    );

    let failed = |error: io::Error| RunError(format!("a thread cannot be started: {error}"));
    let tell = move |event| {
        // Nobody listens any more once the process is stopping.
        let _ = sender.send(Event::Visits(event));
    };
    let visits =
        Arc::new(Visits::start(&visits_options(config), &stores(config), tell).map_err(failed)?);
    // Once all threads are there, which take their part of the memory.
    let capacity = capacity(config)?;
    let front = Arc::new(http::Stats::new(config.workers));
    let settings = site_settings(config, capacity);
    let site = Arc::new(Site::new(
        Arc::clone(&visits),
        Arc::clone(&front),
        store_names(config),
        settings,
    ));
    let server = Arc::new(
        Server::start(
            listener,
            http_options(config, capacity),
            Arc::clone(&site),
            front,
        )
        .map_err(failed)?,
    );
    let ops = ops_listener
        .map(|listener| start_ops(listener, config, capacity, &site))
        .transpose()
        .map_err(failed)?;
    start_measuring(Arc::clone(&site), Arc::clone(&server)).map_err(failed)?;
    start_clock(
        Arc::clone(&visits),
        Arc::clone(&site),
        Arc::clone(&server),
        ops,
    )
    .map_err(failed)?;

    loop {
        match events.recv() {
            Ok(Event::Visits(visits::Event::Ready(schema))) => {
                announce(config, schema.as_deref(), address, ops_address);
            }
            Ok(Event::Visits(visits::Event::Failed(sentence))) => return Err(RunError(sentence)),
            Ok(Event::Stop) | Err(_) => break,
        }
    }
    drain(config, &events, &site, &server);
    // Before that every stage still waits for the others to reach their stores.
    if visits.has_begun() {
        visits.close(Instant::now() + CLOSE_TIMEOUT);
    }
    Ok(())
}

fn bind(variable: &str, address: SocketAddr) -> Result<TcpListener, RunError> {
    http::bind(address)
        .map_err(|error| RunError(format!("{variable}: cannot listen on {address}: {error}")))
}

/// A folder that cannot be written to is said before anything else is tried: most often it is a
/// mount of another user's.
fn check_folder(config: &Config) -> Result<(), RunError> {
    let LedgerPlace::Embedded { folder } = &config.ledger else {
        return Ok(());
    };
    let Err(error) = access(folder.as_path(), AccessFlags::W_OK | AccessFlags::X_OK) else {
        return Ok(());
    };
    // What is missing is made later.
    if error == Errno::ENOENT {
        return Ok(());
    }
    let (user, folder) = (geteuid(), folder.display());
    Err(RunError(format!(
        "DATA_DIR: {folder} cannot be written by user {user}: {error}; chown it to {user}, or name another folder"
    )))
}

/// Lets every connection finish what it began, at most for `DRAIN_TIMEOUT`; a second signal hurries
/// it.
fn drain(config: &Config, events: &mpsc::Receiver<Event>, site: &Site, server: &Server<Site>) {
    site.drain();
    if !config.drain_delay.is_zero() {
        log::info!(
            "stopping: /readyz says so, and connections are accepted for {:?} still",
            config.drain_delay
        );
        let until = Instant::now() + config.drain_delay;
        // A second signal ends the delay.
        while !matches!(
            events.recv_timeout(until.saturating_duration_since(Instant::now())),
            Ok(Event::Stop) | Err(_)
        ) {}
    }
    log::info!("stopping: finishing what was accepted");
    server.drain();
    let until = Instant::now() + config.drain_timeout;
    while !server.is_done() {
        if Instant::now() >= until {
            log::warn!(
                "stopping before all connections were done: {:?} are over",
                config.drain_timeout
            );
            return;
        }
        if matches!(events.recv_timeout(DRAIN_LOOK), Ok(Event::Stop)) {
            server.hurry();
        }
    }
    log::info!("stopped");
}

/// The one line on standard output that says where it listens and what it uses.
fn announce(config: &Config, schema: Option<&str>, address: SocketAddr, ops: Option<SocketAddr>) {
    let workers = config.workers;
    let line = format!(
        "visitas {} ready at http://{address}: ledger {}{}, counter {}, {workers} worker{}{}\n",
        env!("CARGO_PKG_VERSION"),
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

fn watch_signals(sender: mpsc::Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                if sender.send(Event::Stop).is_err() {
                    return;
                }
            }
        })?;
    Ok(())
}

fn start_workers(workers: usize) {
    let may = may::config();
    may.set_workers(workers)
        .set_stack_size(STACK_BYTES / size_of::<usize>())
        .set_pool_capacity(STACKS_KEPT);
    // Pinned workers lose where others use the same cores: the kernel knows better.
    may.set_worker_pin(false);
    // The workers are started by the first coroutine. Here they get the program's name; elsewhere,
    // some thread's.
    for worker in 0..workers {
        // SAFETY: it never yields, so it keeps no thread-local value over a wait, and needs little
        // stack.
        let spawned = unsafe { coroutine::Builder::new().id(worker).spawn(interrupt_nobody) };
        if let Err(error) = spawned {
            log::debug!("worker {worker} keeps the usual scheduling: {error}");
        }
    }
}

/// From now on the calling thread, when it is woken, lets the others on its core come to their end
/// first (sched(7), `SCHED_BATCH`). Clients and stores on this machine then get more done between
/// two switches, and so does a worker, which finds more to do at once. Where a core is free it runs
/// at once as ever.
fn interrupt_nobody() {
    // The kernel's `sched_param`: musl's has more, and its function does nothing, so the call goes
    // by its number.
    let priority: libc::c_int = 0;
    // SAFETY: the call reads that one number. Where the system refuses it, nothing has changed.
    unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            libc::SCHED_BATCH,
            &raw const priority,
        )
    };
}

/// Health and metrics on a port of their own. It serves until the end, so that a drain can be
/// watched.
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
        ..http_options(config, capacity)
    };
    let stats = Arc::new(http::Stats::new(config.workers));
    Server::start(listener, options, Arc::new(Ops(Arc::clone(site))), stats)
}

fn start_clock(
    visits: Arc<Visits>,
    site: Arc<Site>,
    server: Arc<Server<Site>>,
    ops: Option<Server<Ops>>,
) -> io::Result<()> {
    let tick = move |now| {
        visits.tick(now);
        site.tick();
        server.tick();
        ops.iter().for_each(Server::tick);
        logging::flush();
    };
    thread::Builder::new()
        .name("clock".to_owned())
        .spawn(move || clock::run(tick))?;
    Ok(())
}

/// What the system says of this process is read on a thread of its own: it may take long.
fn start_measuring(site: Arc<Site>, server: Arc<Server<Site>>) -> io::Result<()> {
    let measure = move || {
        for round in 0_u32.. {
            server.set_kernel_bytes(capacity::socket_bytes());
            if round % PROCESS_EVERY == 0 {
                site.measure();
            }
            thread::sleep(MEASURE);
        }
    };
    thread::Builder::new()
        .name("measure".to_owned())
        .spawn(measure)?;
    Ok(())
}

/// Lanes, each with a connection to the ledger.
fn lanes(config: &Config) -> usize {
    config.workers.div_ceil(WORKERS_A_LANE)
}

/// Connections that the process takes of the ledger at most: the lanes, and what deletes old rows.
pub fn connections(config: &Config) -> usize {
    lanes(config) + usize::from(config.keep_rows.is_some())
}

fn visits_options(config: &Config) -> visits::Options {
    visits::Options {
        lanes: lanes(config),
        max_queue: config.max_queue,
        deadline: config.request_timeout,
        connect_attempts: config.connect_attempts,
        connect_interval: config.connect_interval,
        keep_rows: config.keep_rows,
    }
}

/// How many connections there can be; one line says so where it is fewer than configured.
fn capacity(config: &Config) -> Result<Capacity, RunError> {
    let capacity = Capacity::find(config.max_connections, config.workers, STACK_BYTES);
    if let Some(bound) = capacity.bound {
        let (asked, most) = (config.max_connections, capacity.connections);
        if most == 0 {
            return Err(RunError(format!(
                "the system allows too few {bound} to serve a single connection"
            )));
        }
        log::warn!(
            "at most {most} connections are served, not the {asked} of MAX_CONNECTIONS: too few {bound}"
        );
    }
    Ok(capacity)
}

fn site_settings(config: &Config, capacity: Capacity) -> site::Settings {
    site::Settings {
        workers: config.workers,
        visits_per_client: config.visits_per_client.map(|rate| (rate.count, rate.time)),
        ops_apart: config.ops.is_some(),
        max_connections: capacity.connections,
        max_queue: config.max_queue,
        max_held: capacity.held_bytes,
    }
}

fn http_options(config: &Config, capacity: Capacity) -> http::Options {
    http::Options {
        workers: config.workers,
        max_connections: capacity.connections,
        max_refusals: capacity.refusals,
        max_held: capacity.held_bytes,
        has_stack: if capacity.scarce_addresses {
            has_stack
        } else {
            || true
        },
        header_timeout: config.header_timeout,
        idle_timeout: config.idle_timeout,
        trusted_proxies: config.trusted_proxies.clone(),
        access_log: config.access_log.then_some(logging::access),
    }
}

/// Whether there are addresses for one more stack, and as much again for what its connection needs.
fn has_stack() -> bool {
    capacity::has_addresses(2 * STACK_BYTES)
}

fn store_names(config: &Config) -> StoreNames {
    StoreNames {
        ledger: match config.ledger {
            LedgerPlace::Embedded { .. } => "embedded store",
            LedgerPlace::Postgres(_) => "PostgreSQL",
        },
        counter: match config.counter {
            CounterPlace::InProcess => None,
            CounterPlace::Redis(_) => Some("Redis"),
        },
    }
}

fn stores(config: &Config) -> Stores {
    let deadline = config.request_timeout;
    let names = store_names(config);
    type Make<T> = Box<dyn Fn() -> Box<T>>;
    let (ledger, pruner): (Make<dyn Ledger>, Make<dyn Pruner>) = match &config.ledger {
        LedgerPlace::Embedded { folder } => {
            let file = EmbeddedFile::new(folder);
            let same = Arc::clone(&file);
            (
                Box::new(move || Box::new(Embedded::new(&file))),
                Box::new(move || Box::new(EmbeddedPruner::new(&same))),
            )
        }
        LedgerPlace::Postgres(place) => {
            let (place, same) = (place.clone(), place.clone());
            (
                Box::new(move || Box::new(Postgres::new(&place, deadline))),
                Box::new(move || Box::new(PostgresPruner::new(&same))),
            )
        }
    };
    let counter: Make<dyn Counter> = match &config.counter {
        CounterPlace::InProcess => {
            let memory = Memory::default();
            Box::new(move || Box::new(memory.clone()))
        }
        CounterPlace::Redis(place) => {
            let (place, timeout) = (place.clone(), COUNTER_TIMEOUT.min(deadline / COUNTER_SHARE));
            Box::new(move || Box::new(Redis::new((*place).clone(), timeout)))
        }
    };
    let counter_name = names.counter.unwrap_or("in-process counter");
    Stores {
        ledger_name: names.ledger,
        counter_name,
        ledger,
        counter,
        pruner,
    }
}

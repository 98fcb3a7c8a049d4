//! Log lines go to standard error by their own thread: logging never waits for a slow reader.

mod lines;

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use std::{io, thread};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::config::LogFormat;
use crate::http::Access;
pub(crate) use lines::{escape_json, rfc3339};

/// Bytes that may wait to be written. Further lines are dropped and counted, so neither memory
/// grows without bound nor a visit waits for a full pipe.
const MOST_WAITING: usize = 1 << 20;

/// Time for the reader of standard error to take the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Lines dropped since the start.
static DROPPED: AtomicU64 = AtomicU64::new(0);

static SINK: Sink = Sink {
    waiting: Mutex::new(Waiting::new()),
    wake: Condvar::new(),
    written: Condvar::new(),
};

struct Sink {
    waiting: Mutex<Waiting>,
    /// Something waits.
    wake: Condvar,
    /// Nothing waits any more.
    written: Condvar,
}

struct Waiting {
    format: LogFormat,
    text: String,
    dropped: u64,
    writing: bool,
}

impl Waiting {
    const fn new() -> Self {
        Waiting {
            format: LogFormat::Text,
            text: String::new(),
            dropped: 0,
            writing: false,
        }
    }
}

impl Sink {
    /// Lets `append` add a line where there is room.
    fn add(&self, append: impl FnOnce(LogFormat, SystemTime, &mut String)) {
        let mut waiting = self.lock();
        if waiting.text.len() > MOST_WAITING {
            waiting.dropped += 1;
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let format = waiting.format;
        append(format, SystemTime::now(), &mut waiting.text);
    }

    /// Writes what waits, without end.
    fn run(&self) {
        let mut text = String::new();
        loop {
            let idle = |waiting: &mut Waiting| waiting.text.is_empty() && waiting.dropped == 0;
            let mut waiting = self
                .wake
                .wait_while(self.lock(), idle)
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut waiting.text, &mut text);
            let dropped = std::mem::take(&mut waiting.dropped);
            waiting.writing = true;
            let format = waiting.format;
            drop(waiting);
            if dropped > 0 {
                let message =
                    format!("dropped {dropped} log lines: standard error was read too slowly");
                text += &lines::event(format, SystemTime::now(), Level::Warn, &message);
            }
            // There is nowhere to report a failure to.
            let _ = io::stderr().lock().write_all(text.as_bytes());
            text.clear();
            self.lock().writing = false;
            self.written.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries log each connection at this level. What matters of theirs comes as an error.
        metadata.level() <= Level::Info && metadata.target().starts_with("visitas")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let message = record.args().to_string();
            self.add(|format, now, text| {
                *text += &lines::event(format, now, record.level(), &message)
            });
            self.wake.notify_one();
        }
    }

    fn flush(&self) {
        self.wake.notify_one();
    }
}

/// Sends the log lines of this crate to standard error from now on.
///
/// # Errors
/// When the writing thread cannot be started.
fn start(format: LogFormat) -> io::Result<()> {
    SINK.lock().format = format;
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(|| SINK.run())?;
    // An error means that a logger is set already.
    let _ = log::set_logger(&SINK);
    log::set_max_level(LevelFilter::Info);
    Ok(())
}

/// Logs a request; [`flush`] writes its line.
pub fn access(access: &Access<'_>) {
    SINK.add(|format, now, text| lines::access(format, now, access, text));
}

/// Lines dropped since the start.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Has what waits written soon. Call this at each tick of the clock.
pub fn flush() {
    if !SINK.lock().text.is_empty() {
        SINK.flush();
    }
}

/// Does the work with its log lines sent to standard error; false where that cannot be.
pub fn during(format: LogFormat, work: impl FnOnce() -> bool) -> bool {
    if let Err(error) = start(format) {
        eprintln!("visitas: cannot start the thread that logs: {error}");
        return false;
    }
    let done = work();
    finish();
    done
}

/// Waits until all is written, at most for [`LAST_LINES`].
fn finish() {
    SINK.flush();
    let unwritten = |waiting: &mut Waiting| !waiting.text.is_empty() || waiting.writing;
    drop(
        SINK.written
            .wait_timeout_while(SINK.lock(), LAST_LINES, unwritten),
    );
}

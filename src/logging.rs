//! Log lines go to standard error by a thread of their own, so that nobody who logs waits for
//! whoever reads them.

mod lines;

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use std::{io, thread};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::config::LogFormat;
use crate::http::Access;
pub(crate) use lines::rfc3339;

/// Bytes that may wait to be written. Beyond that lines are dropped, and the number of them is
/// logged: better than memory without bound, or a visit that waits for a full pipe.
const MOST_WAITING: usize = 1 << 20;

/// Lines dropped since the start.
static DROPPED: AtomicU64 = AtomicU64::new(0);

static SINK: Sink = Sink {
    waiting: Mutex::new(Waiting::new()),
    wake: Condvar::new(),
    written: Condvar::new(),
};

/// What is on its way to standard error.
struct Sink {
    waiting: Mutex<Waiting>,
    /// There is something to write.
    wake: Condvar,
    /// All was written.
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
    /// Lets `append` add a line, if there is room.
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

    /// Writes what waits, for ever.
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
                    format!("{dropped} log lines were dropped: nobody read them fast enough");
                text += &lines::event(format, SystemTime::now(), Level::Warn, &message);
            }
            // Nowhere is left to report a failure to.
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
        // The libraries log each connection at this level; what matters of theirs reaches us as
        // errors.
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

/// Sends all log lines of this crate to standard error from now on.
///
/// # Errors
/// When the thread that writes them cannot be started.
pub fn start(format: LogFormat) -> io::Result<()> {
    SINK.lock().format = format;
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(|| SINK.run())?;
    // It is only called once, and an earlier logger would be as good.
    let _ = log::set_logger(&SINK);
    log::set_max_level(LevelFilter::Info);
    Ok(())
}

/// Logs a request. Its line is written at the next [`flush`].
pub fn access(access: &Access<'_>) {
    SINK.add(|format, now, text| lines::access(format, now, access, text));
}

/// Lines dropped since the start, because nobody read them fast enough.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Has what waits written soon. To be called at each tick of the clock.
pub fn flush() {
    if !SINK.lock().text.is_empty() {
        SINK.flush();
    }
}

/// Waits until all was written, at most for `time`.
pub fn finish(time: Duration) {
    SINK.flush();
    let unwritten = |waiting: &mut Waiting| !waiting.text.is_empty() || waiting.writing;
    drop(
        SINK.written
            .wait_timeout_while(SINK.lock(), time, unwritten),
    );
}

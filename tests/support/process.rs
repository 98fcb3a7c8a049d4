//! A child process: its output is captured, every wait is bounded, and it is killed when dropped.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::scratch;
use super::wait::within_value;

/// The lines that a process has written so far. A thread reads them.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Lines {
    fn gather(&self, from: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = self.clone();
        thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while matches!(from.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line)
                    .trim_end_matches('\n')
                    .to_owned();
                lines.lock().push(text);
                lines.0.1.notify_all();
                line.clear();
            }
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<String> {
        self.lock().clone()
    }

    /// The number of lines: a mark for [`Lines::since`].
    pub fn mark(&self) -> usize {
        self.lock().len()
    }

    /// The lines after a mark.
    pub fn since(&self, mark: usize) -> Vec<String> {
        self.lock().get(mark..).unwrap_or_default().to_vec()
    }

    /// Waits for a line that `wanted` accepts. `None` when none comes within `limit`.
    pub fn find(&self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let end = Instant::now() + limit;
        let mut lines = self.lock();
        loop {
            if let Some(line) = lines.iter().find(|line| wanted(line)) {
                return Some(line.clone());
            }
            let left = end.checked_duration_since(Instant::now())?;
            (lines, _) = self
                .0
                .1
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A running child process. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    pub stdout: Lines,
    pub stderr: Lines,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts it. The guardian ends it by `last_signal` when this run is killed.
    pub fn start(name: &str, command: &mut Command, last_signal: &str) -> Process {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error} ({command:?})"));
        scratch::watch(child.id(), last_signal);
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let readers = vec![
            stdout.gather(child.stdout.take().expect("piped")),
            stderr.gather(child.stderr.take().expect("piped")),
        ];
        Process {
            name: name.to_owned(),
            child,
            ended: None,
            stdout,
            stderr,
            readers,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its own children that still run.
    pub fn children(&self) -> Vec<u32> {
        let pid = self.pid();
        let text =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        text.split_whitespace()
            .filter_map(|child| child.parse().ok())
            .collect()
    }

    /// Sends a signal by its name, such as `TERM`, unless it has exited.
    pub fn signal(&mut self, name: &str) {
        if self.exit_status().is_none() {
            send_signal(self.pid(), name);
        }
    }

    /// Its exit status, once it has exited.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
            if self.ended.is_some() {
                scratch::forget(self.child.id());
            }
        }
        self.ended
    }

    /// Waits for its exit.
    ///
    /// # Panics
    /// When it still runs after `limit`; the message holds its output.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        let output = (self.stdout.clone(), self.stderr.clone());
        let status = within_value(limit, &what, || {
            self.exit_status().ok_or_else(|| {
                format!(
                    "stdout: {:#?}, stderr: {:#?}",
                    output.0.all(),
                    output.1.all()
                )
            })
        });
        // Reads the rest of its output. A grandchild that still holds the pipe, as PostgreSQL's do
        // after KILL, must not keep the test waiting.
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end && !self.readers.iter().all(JoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(1));
        }
        status
    }

    /// Ends it by this signal. If it still runs after `limit`, the drop kills it. Never panics.
    pub fn end(&mut self, signal: &str, limit: Duration) {
        self.signal(signal);
        let end = Instant::now() + limit;
        while self.exit_status().is_none() && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything it wrote, for a panic's message.
    pub fn output(&self) -> String {
        format!(
            "{}'s stdout: {:#?}\nstderr: {:#?}",
            self.name,
            self.stdout.all(),
            self.stderr.all()
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.exit_status();
        if thread::panicking() {
            // The test that fails need not be the one whose fault it is.
            let last = self.stderr.since(self.stderr.mark().saturating_sub(20));
            eprintln!("{}, ended: {ended:?}, its last lines: {last:#?}", self.name);
        }
        if ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            scratch::forget(self.child.id());
        }
    }
}

/// Sends a signal by its name to a process of this run.
pub fn send_signal(pid: u32, name: &str) {
    let status = Command::new("/bin/sh")
        .args(["-c", &format!("kill -s {name} {pid}")])
        .stderr(Stdio::null())
        .status();
    status.expect("a shell to send a signal with");
}

/// The CPU time of a process so far, in user and kernel mode, in steps of 10 ms.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its times");
    // utime and stime are fields 14 and 15 (proc(5)). The name before them may hold anything and
    // ends with the last bracket.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11..13]
        .iter()
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(10 * ticks)
}

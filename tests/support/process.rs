//! One child process: its output captured, its waits bounded, ended when dropped.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::run;
use super::wait::within_value;

/// The lines a process wrote so far, gathered by a thread.
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

    /// How many lines there are: a mark for [`Lines::since`].
    pub fn mark(&self) -> usize {
        self.lock().len()
    }

    /// The lines after that mark.
    pub fn since(&self, mark: usize) -> Vec<String> {
        self.lock().get(mark..).unwrap_or_default().to_vec()
    }

    /// Waits for a line that `wanted` accepts; none if there is none within `limit`.
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

/// A running child process. Dropped, it is killed and its number forgotten.
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
    /// Starts it. `last_signal` is what ends it cleanly enough should this run be killed.
    pub fn start(name: &str, command: &mut Command, last_signal: &str) -> Process {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error} ({command:?})"));
        run::watch(child.id(), last_signal);
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

    /// The processes it has started itself and that still run.
    pub fn children(&self) -> Vec<u32> {
        let pid = self.pid();
        let text =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        text.split_whitespace()
            .filter_map(|child| child.parse().ok())
            .collect()
    }

    /// Sends a signal by its name, as `TERM`. A process that has ended gets none.
    pub fn signal(&mut self, name: &str) {
        if self.exit_status().is_none() {
            send_signal(self.pid(), name);
        }
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
            if self.ended.is_some() {
                run::forget(self.child.id());
            }
        }
        self.ended
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it still runs after `limit`; the message holds what it said.
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
        // All it wrote is read; a grandchild that still holds the pipe (PostgreSQL's after KILL)
        // does not keep the test.
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end && !self.readers.iter().all(JoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(1));
        }
        status
    }

    /// Ends it by that signal, by KILL if it still runs after `limit`. Never panics.
    pub fn end(&mut self, signal: &str, limit: Duration) {
        self.signal(signal);
        let end = Instant::now() + limit;
        while self.exit_status().is_none() && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it wrote, for a panic's message.
    pub fn said(&self) -> String {
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
        if self.exit_status().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            run::forget(self.child.id());
        }
    }
}

/// Sends a signal by its name to a process that this run started.
pub fn send_signal(pid: u32, name: &str) {
    let status = Command::new("/bin/sh")
        .args(["-c", &format!("kill -s {name} {pid}")])
        .stderr(Stdio::null())
        .status();
    status.expect("a shell to send a signal with");
}

/// The processor time a process has used so far, in user and kernel mode, in steps of 10 ms.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its times");
    // Behind the name, which may hold anything and ends with the last bracket (proc(5)): utime and
    // stime are 14 and 15.
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

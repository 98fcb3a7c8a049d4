//! What the system says of this process, for `/metrics`.

use crate::procfs;

/// Ticks a second in `/proc/self/stat`: the same on every Linux that Rust supports (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// Each is `None` where the system does not say it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) open_descriptors: Option<u64>,
    pub(super) max_descriptors: Option<u64>,
}

impl Process {
    /// Reads `/proc`, which may block: call it on no worker.
    pub(super) fn now() -> Process {
        let status = procfs::read("status");
        let kilobytes = |name: &str| Some(procfs::field::<u64>(&status, name)? * 1024);
        Process {
            cpu_seconds: cpu_seconds(),
            resident_bytes: kilobytes("VmRSS:"),
            virtual_bytes: kilobytes("VmSize:"),
            threads: procfs::field(&status, "Threads:"),
            open_descriptors: procfs::open_descriptors().map(|open| open as u64),
            max_descriptors: procfs::field(&procfs::read("limits"), "Max open files"),
        }
    }
}

fn cpu_seconds() -> Option<f64> {
    let stat = procfs::read("stat");
    // The process's name in brackets may hold anything. Behind it, `utime` is the 12th field, and
    // `stime` follows.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11);
    let mut next = || ticks.next()?.parse::<f64>().ok();
    Some((next()? + next()?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_all_of_it() {
        let process = Process::now();
        assert!(
            process.cpu_seconds.is_some_and(|s| (0.0..1e6).contains(&s)),
            "{process:?}"
        );
        assert!(
            process
                .resident_bytes
                .zip(process.virtual_bytes)
                .is_some_and(|(rss, all)| 4096 < rss && rss < all)
        );
        assert!(process.threads.is_some_and(|threads| threads >= 1));
        assert!(
            process
                .open_descriptors
                .zip(process.max_descriptors)
                .is_some_and(|(open, most)| 2 < open && open < most)
        );
    }
}

//! What the system says of this process, under the names that Prometheus' own client libraries give
//! it.

use std::fs;

/// Ticks a second in `/proc/self/stat`: the same on every Linux that Rust knows (proc(5), `utime`).
const TICKS_A_SECOND: f64 = 100.0;

/// Numbers of this process; each is none where the system does not say it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) open_descriptors: Option<u64>,
    pub(super) most_descriptors: Option<u64>,
}

impl Process {
    /// As it is now. Reading it takes a while: no worker does.
    pub(super) fn now() -> Process {
        let read =
            |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let (stat, status, limits) = (read("stat"), read("status"), read("limits"));
        // The name in brackets may hold anything, so fields are counted from behind it: `utime` is
        // the 14th of all.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .map_or("", |(_, rest)| rest)
            .split_whitespace()
            .collect();
        let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
        let kilobytes = |name: &str| Some(number(&status, name)? * 1024);
        Process {
            cpu_seconds: ticks(11)
                .zip(ticks(12))
                .map(|(user, system)| (user + system) / TICKS_A_SECOND),
            resident_bytes: kilobytes("VmRSS:"),
            virtual_bytes: kilobytes("VmSize:"),
            threads: number(&status, "Threads:"),
            open_descriptors: open_descriptors(),
            most_descriptors: number(&limits, "Max open files"),
        }
    }
}

/// How many files are open. Since Linux 6.2 the folder's size says so (proc(5)); before that every
/// one is listed.
fn open_descriptors() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        // The folder itself is open while it is read.
        0 => fs::read_dir("/proc/self/fd")
            .ok()
            .map(|all| (all.count() as u64).saturating_sub(1)),
        open => Some(open),
    }
}

/// The number that follows `name` on its line.
fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
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
                .zip(process.most_descriptors)
                .is_some_and(|(open, most)| 2 < open && open < most)
        );
    }
}

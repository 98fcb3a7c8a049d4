//! How many connections this process can have: as many as configured, or fewer where the system
//! allows fewer.

mod memory;

use std::fmt;

pub use memory::{has_addresses, prepare, socket_bytes};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::procfs;

/// Descriptors kept for the log, the listeners and the store's files, with a few to spare.
const KEPT_DESCRIPTORS: usize = 16;
/// Descriptors kept for each worker: its epoll, its lane's runtime and two connections, and one
/// more of each during a reconnection.
const KEPT_PER_WORKER: usize = 6;
/// Memory mappings kept for the heap, threads, and the coroutines that deliver answers.
const KEPT_MAPPINGS: usize = 2048;
/// The guard page below a stack.
const PAGE_BYTES: usize = 4096;
/// A stack and its guard page.
const MAPPINGS_PER_STACK: usize = 2;
/// Memory kept for the heap, a full queue and the stores' clients. Of little memory, a quarter.
const KEPT_BYTES: usize = 32 * 1024 * 1024;
/// A waiting connection takes half of its stack's size: of 32 kB about 9 here and 5 in the kernel.
const RESIDENT_SHARE: usize = 2;
/// Bytes that waiting connections may hold where only the machine limits memory.
const MOST_HELD: usize = 1 << 30;
/// Connections beyond the limit that get a 503.
const MAX_REFUSALS: usize = 256;
/// The share of scarce connections kept for refusals: one in eight.
const REFUSED_SHARE: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Connections that are served.
    pub connections: usize,
    /// Connections beyond these that get a 503.
    pub refusals: usize,
    /// What allows no more, where it is fewer than configured.
    pub bound: Option<Bound>,
    /// Bytes that requests and answers of waiting connections may hold.
    pub held_bytes: usize,
    /// Addresses or data are limited, so there may be no room for a stack.
    pub scarce_addresses: bool,
}

/// A limit of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    Descriptors,
    Mappings,
    Addresses,
    Memory,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::Descriptors => "open files (RLIMIT_NOFILE)",
            Bound::Mappings => "memory mappings (vm.max_map_count)",
            Bound::Addresses => "memory (RLIMIT_AS or RLIMIT_DATA)",
            Bound::Memory => "memory (the cgroup's limit)",
        })
    }
}

impl Capacity {
    /// The capacity where `asked` connections are configured, each with a stack of `stack_bytes`.
    /// Raises the limit of open files as far as allowed.
    pub fn find(asked: usize, workers: usize, stack_bytes: usize) -> Capacity {
        let descriptors = raise_open_files();
        let open = procfs::open_descriptors().unwrap_or(0);
        let kept = KEPT_DESCRIPTORS + KEPT_PER_WORKER * workers;
        let mappings: Option<usize> = procfs::number("/proc/sys/vm/max_map_count");
        let mapped = procfs::read("maps").lines().count();
        let (addresses, memory) = (memory::addresses_left(), memory::cgroup_limit());
        let memory = memory.map(|limit| limit - KEPT_BYTES.min(limit / 4));
        let (connections, refusals, bound) = within(
            asked,
            &[
                (
                    Bound::Descriptors,
                    descriptors.map(|most| most.saturating_sub(open + kept)),
                ),
                (
                    Bound::Mappings,
                    mappings.map(|most| {
                        most.saturating_sub(mapped + KEPT_MAPPINGS) / MAPPINGS_PER_STACK
                    }),
                ),
                // Half is left to what connections hold, and to a heap that grows in large steps.
                (
                    Bound::Addresses,
                    addresses.map(|left| left / 2 / (stack_bytes + PAGE_BYTES)),
                ),
                // A quarter is left to what connections hold, and an eighth is a reserve.
                (
                    Bound::Memory,
                    memory.map(|left| left / 8 * 5 / (stack_bytes / RESIDENT_SHARE)),
                ),
            ],
        );
        let held = addresses
            .map(|left| left / 5)
            .into_iter()
            .chain(memory.map(|left| left / 4));
        Capacity {
            connections,
            refusals,
            bound,
            held_bytes: held.min().unwrap_or(MOST_HELD).min(MOST_HELD),
            scarce_addresses: addresses.is_some(),
        }
    }
}

/// Connections, refusals and the tightest bound. `bounds` are the connections, refused ones
/// included, that each allows; `None`: any number.
fn within(asked: usize, bounds: &[(Bound, Option<usize>)]) -> (usize, usize, Option<Bound>) {
    let allowed = bounds
        .iter()
        .filter_map(|(bound, most)| most.map(|most| (most, *bound)));
    match allowed.min_by_key(|(most, _)| *most) {
        Some((most, bound)) if most < asked.saturating_add(MAX_REFUSALS) => {
            let refusals = (most / REFUSED_SHARE)
                .max(most.saturating_sub(asked))
                .min(MAX_REFUSALS);
            let connections = (most - refusals).min(asked);
            (
                connections,
                refusals,
                (connections < asked).then_some(bound),
            )
        }
        _ => (asked, MAX_REFUSALS, None),
    }
}

/// Raises the limit of open files and returns it; `None`: unlimited.
fn raise_open_files() -> Option<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    // Where the system refuses, the old limit stands.
    let raised = soft >= hard || setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    usize::try_from(if raised { hard } else { soft }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounded(asked: usize, descriptors: usize, mappings: usize) -> (usize, usize, Option<Bound>) {
        let bounds = [
            (Bound::Descriptors, Some(descriptors)),
            (Bound::Mappings, Some(mappings)),
            (Bound::Memory, None),
        ];
        let found = within(asked, &bounds);
        assert!(found.0 + found.1 <= descriptors.min(mappings), "{found:?}");
        found
    }

    #[test]
    fn what_is_asked_for_is_there_where_the_system_has_it() {
        assert_eq!(bounded(16_384, 20_000, 30_000), (16_384, 256, None));
        assert_eq!(bounded(16_384, 16_640, 30_000), (16_384, 256, None));
        assert_eq!(bounded(3, 20_000, 30_000), (3, 256, None));
    }

    #[test]
    fn the_tightest_bound_is_kept_and_named() {
        assert_eq!(
            bounded(100_000, 20_000, 30_000),
            (19_744, 256, Some(Bound::Descriptors))
        );
        assert_eq!(
            bounded(100_000, 1_000_000, 31_000),
            (30_744, 256, Some(Bound::Mappings))
        );
        assert_eq!(
            bounded(16_384, 24, 30_000),
            (21, 3, Some(Bound::Descriptors))
        );
        assert_eq!(bounded(10, 24, 30_000), (10, 14, None));
        assert_eq!(bounded(20, 24, 30_000), (20, 4, None));
        assert_eq!(bounded(16_384, 0, 30_000), (0, 0, Some(Bound::Descriptors)));
    }

    #[test]
    fn without_bounds_there_is_none() {
        let unbounded = [
            (Bound::Descriptors, None),
            (Bound::Mappings, None),
            (Bound::Memory, None),
        ];
        assert_eq!(within(1_000_000, &unbounded).0, 1_000_000);
    }

    #[test]
    fn this_process_has_room() {
        let found = Capacity::find(10, 2, 32 * 1024);
        assert_eq!(found.connections, 10, "{found:?}");
    }
}

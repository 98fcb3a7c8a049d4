//! How many connections this process can have: what was asked for, or less where the system allows
//! less.

mod memory;

use std::fmt;
use std::fs;

pub use memory::{has_addresses, prepare, socket_bytes};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors kept for what is not a client's: log, listener, store files, and a few to spare.
const KEPT_DESCRIPTORS: usize = 16;
/// Descriptors each worker may need: its epoll, its lane's runtime and two connections, and one
/// more of each while they are made again.
const KEPT_PER_WORKER: usize = 6;
/// Memory mappings kept for everything but stacks of connections: the heap's, threads', coroutines
/// that deliver answers.
const KEPT_MAPPINGS: usize = 2048;
/// Bytes of the guard page below a stack.
const PAGE_BYTES: usize = 4096;
/// Memory mappings of one coroutine's stack: itself, and the guard page below it.
const MAPPINGS_PER_STACK: usize = 2;
/// Of the memory that the process is given, what is kept for all that is no connection's: the heap,
/// a full queue, the stores' clients. Of little memory, a quarter.
const KEPT_BYTES: usize = 32 * 1024 * 1024;
/// Of a stack, the part that stands for the memory of a connection that waits, one in so many: of
/// 32 kB about 9 here and 5 in the kernel.
const RESIDENT_SHARE: usize = 2;
/// What waiting connections may hold where memory has no limit but the machine's.
const MOST_HELD: usize = 1 << 30;
/// The most connections beyond the limit that are told so.
const MAX_REFUSALS: usize = 256;
/// Of what there is, the part that refusals get where it is scarce: one in so many.
const REFUSED_SHARE: usize = 8;

/// How many connections there can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// That are served.
    pub connections: usize,
    /// More that are told that they are too many.
    pub refusals: usize,
    /// What allows no more, if it is less than was asked for.
    pub bound: Option<Bound>,
    /// Bytes that requests and answers may hold while their connections wait.
    pub held_bytes: usize,
    /// Whether the process's addresses or data are limited, so that a stack may not be had.
    pub scarce_addresses: bool,
}

/// A limit of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Open files.
    Descriptors,
    /// Memory mappings.
    Mappings,
    /// Address space, or data.
    Addresses,
    /// The cgroup's memory.
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
    /// The capacity for `asked` connections, each with a stack of `stack_bytes`. Raises the number
    /// of files this process may open as far as it is allowed to.
    pub fn find(asked: usize, workers: usize, stack_bytes: usize) -> Capacity {
        let descriptors = raise_open_files();
        let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let kept = KEPT_DESCRIPTORS + KEPT_PER_WORKER * workers;
        let mappings = first_number("/proc/sys/vm/max_map_count");
        let mapped = fs::read_to_string("/proc/self/maps").map_or(0, |maps| maps.lines().count());
        let (addresses, memory) = (memory::addresses_left(), memory::cgroup_limit());
        let memory = memory.map(|limit| limit - KEPT_BYTES.min(limit / 4));
        let found = Capacity::within(
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
                // A half is left to what connections hold, and to a heap that grows in large steps.
                (
                    Bound::Addresses,
                    addresses.map(|left| left / 2 / (stack_bytes + PAGE_BYTES)),
                ),
                // A quarter is left to what connections hold, and an eighth to what nobody foresaw.
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
            held_bytes: held.min().unwrap_or(MOST_HELD).min(MOST_HELD),
            scarce_addresses: addresses.is_some(),
            ..found
        }
    }

    /// `bounds` are the connections, refused ones too, that each allows; none: as many as there may
    /// be.
    fn within(asked: usize, bounds: &[(Bound, Option<usize>)]) -> Capacity {
        let allowed = bounds
            .iter()
            .filter_map(|(bound, most)| most.map(|most| (most, *bound)));
        match allowed.min_by_key(|(most, _)| *most) {
            Some((most, bound)) if most < asked.saturating_add(MAX_REFUSALS) => {
                let refusals = (most / REFUSED_SHARE)
                    .max(most.saturating_sub(asked))
                    .min(MAX_REFUSALS);
                let connections = (most - refusals).min(asked);
                Capacity {
                    connections,
                    refusals,
                    bound: (connections < asked).then_some(bound),
                    held_bytes: MOST_HELD,
                    scarce_addresses: false,
                }
            }
            _ => Capacity {
                connections: asked,
                refusals: MAX_REFUSALS,
                bound: None,
                held_bytes: MOST_HELD,
                scarce_addresses: false,
            },
        }
    }
}

/// The files this process may open at most, from now on; none: as many as it likes.
fn raise_open_files() -> Option<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    // Where it is refused, what was allowed before still is.
    let raised = soft >= hard || setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    usize::try_from(if raised { hard } else { soft }).ok()
}

fn first_number(path: &str) -> Option<usize> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(asked: usize, descriptors: usize, mappings: usize) -> (usize, usize, Option<Bound>) {
        let bounds = [
            (Bound::Descriptors, Some(descriptors)),
            (Bound::Mappings, Some(mappings)),
            (Bound::Memory, None),
        ];
        let found = Capacity::within(asked, &bounds);
        assert!(
            found.connections + found.refusals <= descriptors.min(mappings),
            "{found:?}"
        );
        (found.connections, found.refusals, found.bound)
    }

    #[test]
    fn what_is_asked_for_is_there_where_the_system_has_it() {
        assert_eq!(within(16_384, 20_000, 30_000), (16_384, 256, None));
        assert_eq!(within(16_384, 16_640, 30_000), (16_384, 256, None));
        assert_eq!(within(3, 20_000, 30_000), (3, 256, None));
    }

    #[test]
    fn the_tightest_bound_is_kept_and_named() {
        assert_eq!(
            within(100_000, 20_000, 30_000),
            (19_744, 256, Some(Bound::Descriptors))
        );
        assert_eq!(
            within(100_000, 1_000_000, 31_000),
            (30_744, 256, Some(Bound::Mappings))
        );
        assert_eq!(
            within(16_384, 24, 30_000),
            (21, 3, Some(Bound::Descriptors))
        );
        assert_eq!(within(10, 24, 30_000), (10, 14, None));
        assert_eq!(within(20, 24, 30_000), (20, 4, None));
        assert_eq!(within(16_384, 0, 30_000), (0, 0, Some(Bound::Descriptors)));
    }

    #[test]
    fn without_bounds_there_is_none() {
        let unbounded = [
            (Bound::Descriptors, None),
            (Bound::Mappings, None),
            (Bound::Memory, None),
        ];
        assert_eq!(
            Capacity::within(1_000_000, &unbounded).connections,
            1_000_000
        );
    }

    #[test]
    fn this_process_has_room() {
        let found = Capacity::find(10, 2, 32 * 1024);
        assert_eq!(found.connections, 10, "{found:?}");
    }
}

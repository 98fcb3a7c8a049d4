//! The memory that this process may take: by its cgroup, by `RLIMIT_AS` and by `RLIMIT_DATA`.

use std::fs;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use crate::procfs;

/// Version 1 writes "no limit" as a number near the highest.
const NO_LIMIT: u64 = 1 << 60;

/// A memory cgroup: its folder, and the files with its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    folder: PathBuf,
    limits: &'static [&'static str],
}

/// Bytes that the cgroup and those above it allow; `None` without a limit.
pub(super) fn cgroup_limit() -> Option<usize> {
    groups(Path::new("/")).iter().filter_map(Group::limit).min()
}

/// Bytes that the kernel holds in sockets out of that limit. Version 1 does not count them.
pub fn socket_bytes() -> usize {
    let unified = |group: &&Group| group.limits == UNIFIED;
    let groups = groups(Path::new("/"));
    let stat = groups
        .iter()
        .find(unified)
        .and_then(|group| fs::read_to_string(group.folder.join("memory.stat")).ok());
    stat.and_then(|stat| procfs::field(&stat, "sock "))
        .unwrap_or(0)
}

/// Above `memory.high` the kernel slows a process down to a standstill.
const UNIFIED: &[&str] = &["memory.max", "memory.high"];
const VERSION_1: &[&str] = &["memory.limit_in_bytes"];

/// The visible groups of this process, the innermost first (cgroups(7)). In a container the path
/// may be the host's; the container's own group is where the file system is mounted.
fn groups(root: &Path) -> Vec<Group> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut groups = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (mount, limits) = match controllers {
            "" => (root.join("sys/fs/cgroup"), UNIFIED),
            _ if controllers.split(',').any(|one| one == "memory") => {
                (root.join("sys/fs/cgroup/memory"), VERSION_1)
            }
            _ => continue,
        };
        let own = Path::new(path.trim_start_matches('/'));
        for folder in own
            .ancestors()
            .map(|path| mount.join(path))
            .filter(|folder| folder.is_dir())
        {
            groups.push(Group { folder, limits });
        }
    }
    groups
}

impl Group {
    fn limit(&self) -> Option<usize> {
        // "max" is no number.
        let limit = |name: &&str| procfs::number::<u64>(self.folder.join(name));
        // What addresses of 32 bits cannot reach is no limit either.
        self.limits
            .iter()
            .filter_map(limit)
            .filter(|limit| *limit < NO_LIMIT)
            .filter_map(|limit| usize::try_from(limit).ok())
            .min()
    }
}

/// Bytes of addresses or data that the process may still take; `None` where neither is limited.
pub(super) fn addresses_left() -> Option<usize> {
    let status = procfs::read("status");
    let left = |(resource, used): &(Resource, &str)| {
        let (soft, _) = getrlimit(*resource).ok()?;
        let used = 1024 * procfs::field::<usize>(&status, used).unwrap_or(0);
        (soft != RLIM_INFINITY)
            .then(|| usize::try_from(soft).ok())?
            .map(|most| most.saturating_sub(used))
    };
    [
        (Resource::RLIMIT_AS, "VmSize:"),
        (Resource::RLIMIT_DATA, "VmData:"),
    ]
    .iter()
    .filter_map(left)
    .min()
}

/// Whether that many more bytes can be mapped now.
pub fn has_addresses(bytes: usize) -> bool {
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a new mapping touches no other, and only the call that removes it has its address.
    unsafe {
        let mapped = libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0);
        mapped != libc::MAP_FAILED && libc::munmap(mapped, bytes) == 0
    }
}

/// Leaves limited addresses to connections. Call this before other threads start.
pub fn prepare() {
    // glibc takes 64 MB of addresses for the heap of each thread (mallopt(3)); musl has one heap.
    #[cfg(target_env = "gnu")]
    if addresses_left().is_some() {
        // SAFETY: the call sets one number.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system with these files, and the smallest limit found in it.
    fn limit(name: &str, files: &[(&str, &str)]) -> Option<usize> {
        let root =
            std::env::temp_dir().join(format!("visitas-cgroup-{}-{name}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            let written = path
                .parent()
                .map(fs::create_dir_all)
                .and_then(|made| made.and_then(|()| fs::write(&path, text)).ok());
            assert!(written.is_some(), "{path:?}");
        }
        let found = groups(&root).iter().filter_map(Group::limit).min();
        assert!(fs::remove_dir_all(&root).is_ok());
        found
    }

    #[test]
    fn version_2_has_the_smallest_of_all_groups_above() {
        let files = [
            ("proc/self/cgroup", "0::/pod/container\n"),
            ("sys/fs/cgroup/pod/container/memory.max", "max\n"),
            ("sys/fs/cgroup/pod/container/memory.high", "300000000\n"),
            ("sys/fs/cgroup/pod/memory.max", "268435456\n"),
        ];
        assert_eq!(limit("v2", &files), Some(268_435_456));
        assert_eq!(limit("v2-high", &files[..3]), Some(300_000_000));
        assert_eq!(limit("v2-none", &files[..2]), None);
        assert_eq!(
            limit(
                "v2-root",
                &[files[0], ("sys/fs/cgroup/memory.max", "1048576\n")]
            ),
            Some(1_048_576)
        );
    }

    #[test]
    fn version_1_has_the_containers_own_where_it_is_mounted() {
        let files = [
            (
                "proc/self/cgroup",
                "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n0::/docker/1\n",
            ),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n"),
        ];
        assert_eq!(limit("v1", &files), Some(268_435_456));
        let none = [
            files[0],
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ];
        assert_eq!(limit("v1-none", &none), None);
    }
}

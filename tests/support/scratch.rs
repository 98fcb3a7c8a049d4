//! The suite's temporary folder, and the guardian that cleans up at the end.
//!
//! Tests clean up after themselves, also when they panic. The guardian ends what they share (one
//! PostgreSQL) and what a killed run leaves. It is a shell that waits for the end of a pipe to
//! this process, which the kernel closes in any case.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::statvfs::statvfs;

/// Every running process has a file `pids/<pid>` with the signal that ends it.
const GUARDIAN: &str = r#"
trap '' INT TERM HUP
cat > /dev/null
each() { for file in "$1"/pids/*; do [ -e "$file" ] && echo "${file##*/}"; done; }
for pid in $(each "$1"); do kill -s "$(cat "$1/pids/$pid")" "$pid"; done
tries=0
while [ "$tries" -lt 50 ]; do
    alive=
    for pid in $(each "$1"); do
        # One that has ended and that nobody has collected yet is a zombie.
        [ -d "/proc/$pid" ] && ! grep -q '^State:.Z' "/proc/$pid/status" && alive=1
    done
    [ -z "$alive" ] && break
    tries=$((tries + 1))
    sleep 0.1
done
for pid in $(each "$1"); do kill -s KILL "$pid"; done
grep -o " $1/[^ ]*" /proc/mounts | while read -r disk; do umount --lazy "$disk"; done
rm -rf "$1"
"#;

/// Where it is in memory no commit of a test waits for the writes of a compiler beside it, which can
/// hold up a disk for seconds.
const IN_MEMORY: &str = "/dev/shm";
const ROOM_BYTES: u64 = 8 << 30;

struct Scratch {
    folder: PathBuf,
    _guardian: ChildStdin,
}

/// `TMPDIR`; where that is not set, memory if there is enough of it.
fn base() -> PathBuf {
    let has_room = || {
        statvfs(IN_MEMORY).is_ok_and(|here| {
            here.blocks_available() * here.fragment_size() >= ROOM_BYTES
                && fs::metadata(IN_MEMORY)
                    .is_ok_and(|at| at.permissions().mode() & 0o1777 == 0o1777)
        })
    };
    if std::env::var_os("TMPDIR").is_none() && has_room() {
        return IN_MEMORY.into();
    }
    std::env::temp_dir()
}

#[allow(
    clippy::zombie_processes,
    reason = "the guardian outlives this process: that is what it is for"
)]
fn scratch() -> &'static Scratch {
    static SCRATCH: OnceLock<Scratch> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock after 1970")
            .as_nanos();
        let folder = base().join(format!("visitas-suite-{}-{now}", std::process::id()));
        fs::create_dir_all(folder.join("pids")).expect("a temporary folder");
        // PostgreSQL runs as another user when the suite runs as root.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("its mode");
        let mut guardian = Command::new("/bin/sh")
            .args(["-c", GUARDIAN, "guardian"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // In its own process group, so that Ctrl-C in the terminal does not end it.
            .process_group(0)
            .spawn()
            .expect("the guardian starts");
        let pipe = guardian.stdin.take().expect("its pipe");
        Scratch {
            folder,
            _guardian: pipe,
        }
    })
}

/// A new path inside the suite's folder.
pub fn fresh_path(name: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    scratch()
        .folder
        .join(format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Tells the guardian to end this process with this signal.
pub fn watch(pid: u32, signal: &str) {
    fs::write(pid_file(pid), signal).expect("a pid file");
}

/// Tells the guardian that the process has exited: its number may be reused.
pub fn forget(pid: u32) {
    let _ = fs::remove_file(pid_file(pid));
}

fn pid_file(pid: u32) -> PathBuf {
    scratch().folder.join("pids").join(pid.to_string())
}

/// A temporary folder, removed when dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = fresh_path(name);
        fs::create_dir(&path).expect("a temporary folder");
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("a temporary file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

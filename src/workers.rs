//! The coroutine workers, and the one way to run something on one of them.
//!
//! `may` watches descriptor `d` on worker `d mod workers`, edge-triggered, for the whole life of
//! the socket. Two rules follow:
//!
//! - A connection's coroutine is spawned on the worker that watches its socket ([`watching`]).
//! - A coroutine is woken on its own worker only: `unpark` on another thread would run it there.
//!   Other threads [`spawn`] a short coroutine that does the waking.
//!
//! So a coroutine never changes threads, and a thread-local belongs to its worker.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use may::coroutine;
use nix::libc;

/// Bytes of a coroutine's stack. A request is served in a third of it, and untouched pages take no
/// memory. The frames of a debug build are several times larger.
pub const STACK_BYTES: usize = if cfg!(debug_assertions) {
    256 * 1024
} else {
    32 * 1024
};
/// Stacks made at start and kept for reuse: each keeps one page resident.
const STACKS_KEPT: usize = 64;

/// Starts the workers.
pub fn start(workers: usize) {
    may::config()
        .set_workers(workers)
        .set_stack_size(STACK_BYTES / size_of::<usize>())
        .set_pool_capacity(STACKS_KEPT)
        // Pinned workers lose where others use the same cores.
        .set_worker_pin(false);
    // The first coroutine starts the threads, which take the name of the thread that spawns it.
    for worker in 0..workers {
        if let Err(error) = spawn(worker, set_batch_scheduling) {
            log::debug!("worker {worker} keeps the default scheduling policy: {error}");
        }
    }
}

/// The worker that watches this descriptor.
pub fn watching(socket: &impl AsRawFd, workers: usize) -> usize {
    usize::try_from(socket.as_raw_fd()).unwrap_or(0) % workers
}

/// Runs `work` in a coroutine on that worker, after the events that its epoll has for it now.
///
/// # Errors
/// When there is no memory for its stack.
pub fn spawn(worker: usize, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // SAFETY: a coroutine must not change threads while it uses a thread-local: by the rules above
    // it never does. It must not outgrow its stack: a guard page lies below each.
    unsafe { coroutine::Builder::new().id(worker).spawn(work) }.map(drop)
}

/// Lets `worker`, on which the caller runs, serve its other connections first. `may`'s own yield
/// resumes before the worker asks its epoll for events, which would starve them.
#[cold]
#[inline(never)]
pub fn yield_now(worker: usize) {
    let (me, resumed) = (coroutine::current(), Arc::new(AtomicBool::new(false)));
    let resume = {
        let resumed = Arc::clone(&resumed);
        move || {
            resumed.store(true, Ordering::Release);
            me.unpark();
        }
    };
    if spawn(worker, resume).is_err() {
        return;
    }
    // An earlier wake-up may still be pending, so returning from one `park` proves nothing.
    while !resumed.load(Ordering::Acquire) {
        coroutine::park();
    }
}

/// Puts the calling thread into `SCHED_BATCH` (sched(7)): woken, it does not preempt the threads on
/// its core. Clients and stores on this machine then get more done between two switches, and the
/// worker finds more to do at once. On a free core it runs at once as before.
fn set_batch_scheduling() {
    // The kernel's `sched_param` is this one number. musl's is larger, and musl's own function does
    // nothing.
    let priority: libc::c_int = 0;
    // SAFETY: the call reads that number. Where the system refuses it, nothing changes.
    unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            libc::SCHED_BATCH,
            &raw const priority,
        )
    };
}

"""Processes: starting and stopping them, their CPU time and memory by tree, free ports."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
STOP_TIMEOUT_S = 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A server in a session (and so a process group) of its own, its output in a file."""

    def __init__(self, command: list[str], env: dict[str, str], log: Path):
        self.command = command
        self.log = log
        self.started = time.monotonic()
        with log.open("ab") as output:
            self.child = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self.pid = self.child.pid

    def alive(self) -> bool:
        return self.child.poll() is None

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> None:
        """Asks the server to stop, and ends its whole group when it does not."""
        if self.alive():
            self.child.send_signal(sign)
            try:
                self.child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()


def tree(root: int) -> list[int]:
    """The process and all its descendants that live now."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat(int(entry))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """CPU time of the tree so far: of what lives, and of descendants that ended and were waited for."""
    ticks = 0
    for pid in tree(root):
        fields = _stat(pid)
        if fields:
            ticks += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return ticks / TICKS_PER_SECOND


def peak_kib(root: int) -> int:
    """Sum of the peak resident sizes in the tree; pages that processes share count once for each of them."""
    total = 0
    for pid in tree(root):
        try:
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1])
        except OSError:
            pass  # It ended since it was listed.
    return total


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat that follow the command's name; field 0 is the state."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None

"""What a figure depends on besides the code: machine, kernel, versions, settings."""

import os
import platform
import re
import subprocess
from pathlib import Path

from .contenders import BENCH, CHECKOUT
from .stores import Stores

POSTGRES_SETTINGS = [
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "wal_level",
    "commit_delay",
    "shared_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "max_connections",
    "autovacuum",
]
# What the servers inherit from whoever starts the run: visitas reads the first ones, some peers the last.
SERVER_VARIABLES = ["WORKERS", "MAX_QUEUE", "MAX_CONNECTIONS", "REQUEST_TIMEOUT", "ACCESS_LOG", "POOL", "THREADS"]
REDIS_SETTINGS = ["save", "appendonly", "io-threads"]


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def slug() -> str:
    """A name for this kind of machine, fit for a folder."""
    words = re.sub(r"\(.*?\)|CPU|Processor|@.*", " ", cpu_model())
    return re.sub(r"[^a-z0-9]+", "-", f"{words} {os.cpu_count()} cores".lower()).strip("-")


def facts() -> dict[str, str]:
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    inherited = [f"{name}={os.environ[name]}" for name in SERVER_VARIABLES if name in os.environ]
    found = {
        "processor": cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory.group(1)) / 1048576:.1f} GiB" if memory else "unknown",
        "kernel": f"{platform.system()} {platform.release()}",
        "distribution": _first_match(r'PRETTY_NAME="(.*)"', Path("/etc/os-release")),
        "frequency governor": governor.read_text().strip() if governor.exists() else "not shown",
        "file system of the stores": _say(["findmnt", "-no", "FSTYPE,SOURCE", "-T", "/var/tmp"]),
        "commit": commit(),
        "environment of all servers": ", ".join(inherited) or "nothing set",
        "load at the start": f"{os.getloadavg()[0]:.2f}",
    }
    return found


def commit() -> str:
    head = _say(["git", "-C", str(CHECKOUT), "rev-parse", "--short", "HEAD"])
    changed = _say(["git", "-C", str(CHECKOUT), "status", "--porcelain", "--untracked-files=no"])
    return f"{head} with changes" if changed and changed != "unknown" else head


def versions(cache: Path) -> dict[str, str]:
    found = {
        "rustc": _say(["rustc", "--version"]),
        "wrk": _say(["wrk", "--version"]),
        "oha": _say([str(cache / "oha" / "bin" / "oha"), "--version"]),
        "PostgreSQL": _say(["psql", "--version"]),
        "Redis": _say(["redis-server", "--version"]),
        "Python": platform.python_version(),
    }
    for peer in sorted((BENCH / "peers").iterdir()):
        if peer.is_dir():
            found[f"peer {peer.name}"] = _peer_versions(peer, cache)
    return found


def settings(stores: Stores) -> dict[str, str]:
    found = {f"PostgreSQL {name}": stores.sql(f"SHOW {name}", "postgres") for name in POSTGRES_SETTINGS}
    for name in REDIS_SETTINGS:
        found[f"Redis {name}"] = _redis_setting(stores, name)
    return found


def _redis_setting(stores: Stores, name: str) -> str:
    answer = _say(["redis-cli", "-p", str(stores.redis_port), "CONFIG", "GET", name]).splitlines()
    return (answer[1] if len(answer) > 1 else "") or '""'


def _peer_versions(peer: Path, cache: Path) -> str:
    """The direct dependencies at the versions the peer is locked to."""
    if (peer / "requirements.txt").exists():
        return (peer / "requirements.txt").read_text().replace("\n", ", ").strip(", ")
    if (peer / "Cargo.lock").exists():
        locked = dict(re.findall(r'name = "(.*)"\nversion = "(.*)"', (peer / "Cargo.lock").read_text()))
        section = (peer / "Cargo.toml").read_text().partition("[dependencies]\n")[2].partition("\n[")[0]
        names = re.findall(r"^([a-z0-9_-]+) =", section, re.MULTILINE)
        return ", ".join(f"{name} {locked[name]}" for name in names)
    if peer.name == "go":
        packages = ["golang-github-jackc-pgx-v4-dev", "golang-gopkg-redis.v5-dev"]
        return ", ".join([_say(["go", "version"])] + [_say(["dpkg-query", "-W", name]) for name in packages])
    nginx = cache / "peers" / peer.name / "root" / "usr" / "sbin" / "nginx"
    return _say([str(nginx) if nginx.exists() else "nginx", "-v"])


def _first_match(pattern: str, file: Path) -> str:
    match = re.search(pattern, file.read_text()) if file.exists() else None
    return match.group(1) if match else "unknown"


def _say(command: list[str]) -> str:
    """The command's output, without runs of blanks; some print their version and then fail."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    output = (done.stdout or done.stderr).strip()
    if command[0] in ("wrk", "redis-server"):
        output = output.splitlines()[0] if output else "unknown"
    return output

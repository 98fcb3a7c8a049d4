"""Measures visits per second (docs/benchmarks.md). A 200 must be one row and one increment."""

import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from subprocess import getoutput

BENCH = Path(__file__).resolve().parent
CHECKOUT = BENCH.parent
CACHE = Path(os.environ.get("BENCH_CACHE", BENCH / ".cache")).resolve()
LOGS = CACHE / "logs"  # what the servers of the last run printed

GROUPED = ["axum-grouped", "go-grouped"]  # an expert's answers: they group commits too
PEERS = [*GROUPED, "may-pipelined", "axum", "actix", "go", "fastapi"]
PEERS += ["flask-gunicorn", "flask-exercise"]
FRONTS = ["front-hyper", "front-nginx", "front-may-minihttp"]  # each answers a constant
QUICK = ["visitas", "axum", "flask-exercise", "visitas-livez", "front-nginx"]
QUICK_S = 170  # all rounds of --quick
# What grouped and pipelined peers send for a page: as much as visitas, see the column of bytes.
PAGE_BYTES = int(os.environ.get("PAGE_BYTES", 2_700))
WARM_UP_S = 1
PATIENCE_S = 60  # for a server to start, a tool to end after its time, the stores to settle
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


class BenchError(Exception):
    """One measurement failed; the others go on."""


# ---- Options
@dataclass(frozen=True)
class Workload:
    """What there is beside the load. Each field is an option."""

    rows: int = 0
    snapshot: bool = False
    foreign: int = 0
    writers: int = 0
    idle: int = 0
    pooler: bool = False
    tls: bool = False

    def __str__(self) -> str:
        parts = [f"{name} {value}" for name, value in asdict(self).items() if value]
        return ", ".join(parts).replace(" True", "")

    @property
    def database(self) -> str:
        """Rows are inserted once, for all rounds."""
        return f"rows_{self.rows}" if self.rows else "desafio3_db"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    about = "Compares visitas with its peers or, in pairs, with itself: see docs/benchmarks.md."
    parser = argparse.ArgumentParser(prog="bench/run", description=about)
    flag, count = {"action": "store_true"}, {"type": int, "metavar": "N", "default": 0}
    counts = {"type": lambda text: [int(word) for word in text.split(",")], "metavar": "N,..."}
    names = {"type": lambda text: text.split(","), "metavar": "NAME,..."}
    pairs = parser.add_argument_group("pairs").add_mutually_exclusive_group()
    pairs.add_argument("--baseline", metavar="REV", help="against a git revision, or a binary")
    pairs.add_argument("--processes", **counts, help="several processes, against one")
    pairs.add_argument("--alone", **flag, help="one client, against pgbench's INSERT of one row")
    about = "Pairs with and without it; beside --baseline or --only, all sides have it."
    work = parser.add_argument_group("workload", about)
    work.add_argument("--rows", **count, help="the table has N rows")
    work.add_argument("--snapshot", **flag, help="another session holds a snapshot")
    work.add_argument("--foreign", **count, help="since then another writer inserted N rows")
    work.add_argument("--writers", **count, help="N other writers insert during the load")
    work.add_argument("--idle", **count, help="not measured yet: N more connections, idle")
    work.add_argument("--pooler", **flag, help="not measured yet: PgBouncer in transaction mode")
    work.add_argument("--tls", **flag, help="TLS to PostgreSQL and Redis")
    what = parser.add_argument_group("what is measured")
    what.add_argument("--quick", **flag, help="3 minutes after the builds: wrk, few servers")
    what.add_argument("--only", **names, help="these servers")
    what.add_argument("--connections", **counts)
    what.add_argument("--tools", **names, help="wrk, oha")
    what.add_argument("--rounds", **count)
    what.add_argument("--seconds", **count, help="length of a load")
    what.add_argument("--visitas", type=Path, metavar="BINARY", help="not a build of the checkout")
    what.add_argument("--out", type=Path, metavar="FOLDER", help="default: bench/runs/DATE-TIME")

    o = parser.parse_args(arguments)
    o.workload = Workload(**{name: getattr(o, name) for name in Workload.__dataclass_fields__})
    if o.idle or o.pooler:
        parser.error("--idle and --pooler are not measured yet")
    o.pairs = bool(o.baseline or o.processes or o.alone or (str(o.workload) and not o.only))
    short, everyone = o.quick or o.pairs, ["visitas", *PEERS, "visitas-livez", *FRONTS]
    o.only = o.only or (["visitas"] if o.pairs else QUICK if o.quick else everyone)
    o.connections = o.connections or ([64, 256] if short else [1, 16, 64, 256, 1024])
    o.connections = [1] if o.alone else o.connections
    o.tools = o.tools or (["wrk"] if short else ["wrk", "oha"])
    o.rounds = o.rounds or (9 if short else 3)
    o.seconds = o.seconds or (1 if o.quick else 3 if o.pairs else 4)
    if unknown := {*o.only, *o.tools} - {*everyone, "wrk", "oha"}:
        parser.error(f"unknown: {' '.join(unknown)}; known: {' '.join(everyone)}, wrk oha")
    return o


# ---- What is measured
@dataclass(frozen=True)
class Contender:
    """A server, and how it is measured."""

    name: str
    command: list
    path: str = "/"
    counts: bool = True  # GET of the path is a visit; else it is a constant answer
    exact: bool = False  # rows equal increments even when clients leave
    workload: Workload = Workload()
    processes: int = 1


PGBENCH = Contender("pgbench", [])


def sides(o: argparse.Namespace, skip: Callable[[str, str], None]) -> list[Contender]:
    """What is compared. In pairs the first one is the reference."""
    own = Contender("visitas", [own_binary(o)], exact=True, workload=o.workload)
    if o.baseline:
        return [replace(own, name="baseline", command=[baseline(o.baseline)]), own]
    if o.processes:
        return [replace(own, name=f"processes {n}", processes=n) for n in [1, *o.processes]]
    if o.alone:
        return [PGBENCH, own]
    if o.pairs:
        return [replace(own, name="plain", workload=Workload()), replace(own, name=str(o.workload))]
    found = []
    for name in o.only:
        folder = BENCH / "peers" / name
        if name == "visitas":
            found.append(own)
        elif name == "visitas-livez":
            found.append(replace(own, name=name, path="/livez", counts=False))
        elif code := subprocess.run([folder / "build"], stdout=sys.stderr).returncode:
            skip(name, f"its build ended with {code}")
        else:
            run, counts = [folder / "run"], name in PEERS
            found.append(Contender(name, run, counts=counts, workload=o.workload))
    return found


def own_binary(o: argparse.Namespace) -> Path:
    if o.visitas:
        return o.visitas.resolve()
    if any(name.startswith("visitas") for name in o.only):
        cargo_build(CHECKOUT, CHECKOUT / "target")
    return CHECKOUT / "target" / "release" / "visitas"


def baseline(name: str) -> Path:
    """The binary of that path, or the build of that git revision, which the cache keeps."""
    if Path(name).is_file():
        return Path(name).resolve()
    git, folder = ["git", "-C", str(CHECKOUT)], CACHE / "baselines"
    found = subprocess.run([*git, "rev-parse", "--verify", f"{name}^{{commit}}"], **PIPES)
    if found.returncode:
        sys.exit(f"--baseline {name}: neither a file nor a git revision")
    kept, source = folder / f"visitas-{found.stdout[:12]}", folder / "source"
    if not kept.exists():
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir(parents=True)
        archive = subprocess.Popen([*git, "archive", found.stdout.strip()], stdout=subprocess.PIPE)
        # -m: the files are new, so that cargo builds them.
        subprocess.run(["tar", "-xm", "-C", source], stdin=archive.stdout, check=True)
        cargo_build(source, folder / "target")
        shutil.copy2(folder / "target" / "release" / "visitas", kept)
    return kept


def cargo_build(source: Path, target: Path) -> None:
    env = os.environ | {"CARGO_TARGET_DIR": str(target)}
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=source, env=env, check=True)


# ---- Processes
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def process(command: list, name: str, sign: signal.Signals = signal.SIGTERM, **options):
    """A server in a process group of its own, which ends when `with` is left."""
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"{name}.log").open("wb") as log:
        options |= {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        child = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield child
    finally:
        child.send_signal(sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(PATIENCE_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def wait_for(what: str, attempt: Callable[[], object], *servers: subprocess.Popen) -> None:
    """Until the attempt raises no error."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(OSError, BenchError):
            attempt()
            return
        if any(server.poll() is not None for server in servers) or time.monotonic() > deadline:
            raise BenchError(f"{what} did not start; see {LOGS}")
        time.sleep(0.001)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its descendants, those that ended included."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    own = sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(int(child)) for child in children)


# ---- The stores
class Stores:
    """A private PostgreSQL and Redis on free ports of the loopback address, also with TLS."""

    drop_root: list[str] = []

    @contextlib.contextmanager
    def running(self):
        with contextlib.ExitStack() as held:
            # Not /tmp: where that is memory, a flush costs nothing and the figures mean nothing.
            folder = tempfile.TemporaryDirectory(prefix="visitas-bench.", dir="/var/tmp")
            self.folder = Path(held.enter_context(folder))
            self.postgres_port, self.redis_port = free_port(), free_port()
            self.redis_tls_port = free_port()
            if os.getuid() == 0:  # PostgreSQL refuses to run as root.
                shutil.chown(self.folder, "postgres")
                self.drop_root = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            # A certificate that nobody vouches for: what is measured is not its verification.
            certificate = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-subj", "/CN=bench"]
            certificate += ["-pkeyopt", "ec_paramgen_curve:P-256", "-out", "tls.crt", "-keyout", "tls.key"]
            command = [*self.drop_root, *certificate]
            subprocess.run(command, check=True, cwd=self.folder, stderr=subprocess.DEVNULL)
            self.postgres = held.enter_context(self._postgres())
            # No snapshots, which would land in some loads and not in others.
            redis = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.redis_port)]
            redis += ["--save", "", "--dir", str(self.folder)]
            redis += ["--tls-port", str(self.redis_tls_port), "--tls-auth-clients", "no"]
            redis += ["--tls-cert-file", "tls.crt", "--tls-key-file", "tls.key"]
            redis += ["--tls-ca-cert-file", "tls.crt"]
            self.redis = held.enter_context(process(redis, "redis", cwd=self.folder))
            wait_for("PostgreSQL", lambda: self.sql("SELECT 1", "postgres"), self.postgres)
            wait_for("Redis", self.increments, self.redis)
            self.sql("CREATE ROLE user_app LOGIN PASSWORD 'bench'", "postgres")
            yield self

    def _postgres(self):
        on_path = Path(shutil.which("initdb") or ".").parent
        newest = max(Path("/usr/lib/postgresql").glob("*/bin"), default=on_path)
        self.bin = Path(os.environ.get("PG_BIN", newest))
        data, drop_root = self.folder / "data", self.drop_root
        init = [*drop_root, self.bin / "initdb", f"--pgdata={data}", "--username=postgres"]
        init += ["--locale=C.UTF-8", "--auth-local=trust", "--auth-host=scram-sha-256"]
        subprocess.run(init, check=True, cwd=self.folder, stdout=subprocess.DEVNULL)
        command = [*drop_root, self.bin / "postgres", "-D", data, "-k", self.folder]
        command += ["-h", "127.0.0.1", "-p", str(self.postgres_port)]
        for name, file in ("ssl_cert_file", "tls.crt"), ("ssl_key_file", "tls.key"):
            command += ["-c", f"{name}={self.folder / file}"]
        command += ["-c", "ssl=on"]
        command += ["-N", "300"]  # connections: some peers take one per request
        return process(command, "postgres", signal.SIGINT, cwd=self.folder)

    def psql(self, database: str) -> list[str]:
        """As superuser over the socket."""
        where = ["-h", str(self.folder), "-p", str(self.postgres_port), "-U", "postgres"]
        return ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", *where, "-d", database]

    def sql(self, statement: str, database: str) -> str:
        done = subprocess.run([*self.psql(database), "-c", statement], **PIPES)
        if done.returncode:
            raise BenchError(f"{statement}: {done.stderr.strip()}")
        return done.stdout.strip()

    def increments(self) -> int:
        with socket.create_connection(("127.0.0.1", self.redis_port), timeout=5) as connection:
            connection.sendall(b"GET contador_cache\r\n")
            answer = connection.makefile("rb")
            return 0 if answer.readline() == b"$-1\r\n" else int(answer.readline())

    def rows(self, database: str, after_id: int) -> int:
        return int(self.sql(f"SELECT count(*) FROM acessos WHERE id > {after_id}", database))

    def fresh_database(self, database: str) -> None:
        self.sql(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)", "postgres")
        self.sql(f"CREATE DATABASE {database} OWNER user_app", "postgres")

    @contextlib.contextmanager
    def snapshot(self, database: str):
        """A REPEATABLE READ transaction of another session, idle until `with` is left."""
        with subprocess.Popen(self.psql(database), stdin=subprocess.PIPE, **PIPES) as session:
            session.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 'open';\n")
            session.stdin.flush()
            if session.stdout.readline() != "open\n":
                raise BenchError("the snapshot was not opened")
            yield

    def inserts(self, database: str, *options: str, flush: str = "on") -> subprocess.Popen:
        """Another writer: pgbench as user_app over TCP, a prepared INSERT of one row at a time."""
        script = self.folder / "insert.sql"
        script.write_text("INSERT INTO acessos DEFAULT VALUES;\n")
        where = ["-h", "127.0.0.1", "-p", str(self.postgres_port), "-U", "user_app", database]
        env = os.environ | {"PGPASSWORD": "bench", "PGOPTIONS": f"-c synchronous_commit={flush}"}
        command = [self.bin / "pgbench", "--no-vacuum", "--protocol=prepared", "-f", script]
        return subprocess.Popen([*command, *options, *where], env=env, **PIPES)


def rows_of(writer: subprocess.Popen) -> int:
    """How many it inserted, once it has ended. An INSERT that fails is an error."""
    said, errors = writer.communicate()
    rows = re.search(r"transactions actually processed: (\d+)", said)
    if writer.returncode or not rows:
        raise BenchError(f"another writer failed: {errors.strip() or said.strip()}")
    return int(rows[1])


# ---- A running server
class Server:
    """A contender's processes on the stores."""

    def __init__(self, contender: Contender, stores: Stores):
        self.contender, self.stores, self.database = contender, stores, contender.workload.database
        self.ports = [free_port() for _ in range(contender.processes)]
        self.pids: list[int] = []

    @contextlib.contextmanager
    def running(self):
        ours = ("DB_", "DATABASE_", "REDIS_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        env |= dict.fromkeys(("HOST", "DB_HOST", "REDIS_HOST"), "127.0.0.1") | {"BUILT": "1"}
        ports = {"DB_PORT": self.stores.postgres_port, "REDIS_PORT": self.stores.redis_port}
        if self.contender.workload.tls:
            ports["REDIS_PORT"] = self.stores.redis_tls_port
            env |= {"DB_SSLMODE": "require", "REDIS_TLS": "insecure"}
        else:
            env |= {"DB_SSLMODE": "disable", "REDIS_TLS": "off"}
        env |= {name: str(port) for name, port in ports.items()}
        env |= {"PAGE_BYTES": str(PAGE_BYTES)}
        env |= {"DB_NAME": self.database, "DB_USER": "user_app", "DB_PASSWORD": "bench"}
        name = self.contender.name
        ready = "/readyz" if self.contender.counts else self.contender.path
        with contextlib.ExitStack() as held:
            for number, port in enumerate(self.ports):
                env["PORT"] = str(port)
                start = process(self.contender.command, f"{name}-{number}", env=env)
                server = held.enter_context(start)
                self.pids.append(server.pid)
                wait_for(name, partial(get, port, ready), server)
            yield self

    def visit(self) -> tuple[int, int]:
        """One visit: the two numbers it is shown."""
        shown = json.loads(get(self.ports[0], "/"))
        return shown["total"], shown["cache"]

    def cpu(self) -> dict[str, float]:
        """CPU time so far of all that takes part."""
        load = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "server": sum(cpu_seconds(pid) for pid in self.pids),
            "PostgreSQL": cpu_seconds(self.stores.postgres.pid),
            "Redis": cpu_seconds(self.stores.redis.pid),
            "load": load.ru_utime + load.ru_stime,
        }


def get(port: int, path: str) -> bytes:
    """The body of a 200; another answer is an OSError."""
    headers = {"Accept": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with NO_PROXY.open(request, timeout=30) as answer:
        return answer.read()


# ---- A load and its check
def oha() -> str | None:
    return shutil.which("oha") or shutil.which("oha", path=CACHE / "oha" / "bin")


def run_load(tool: str, server: Server, connections: int, seconds: int) -> dict[str, float]:
    """Loads all processes at once, the connections shared out evenly; what the tools report."""
    env = os.environ | {"OHA": oha() or "oha"}
    urls = [f"http://127.0.0.1:{port}{server.contender.path}" for port in server.ports]
    limit = ["timeout", str(seconds + PATIENCE_S), BENCH / f"visits-{tool}.sh"]
    load = [str(max(1, connections // len(urls))), str(seconds)]
    tools = [subprocess.Popen([*limit, url, *load], env=env, **PIPES) for url in urls]
    outputs = [child.communicate() for child in tools]
    reports = [read_report(tool, *texts) for texts in outputs]
    # Counts and rates add up; of times the longest stands.
    times = {name for name in reports[0] if name.endswith("_ms") or name == "seconds"}
    return {n: (max if n in times else sum)(report[n] for report in reports) for n in reports[0]}


def read_report(tool: str, said: str, errors: str) -> dict[str, float]:
    """Lines of a name and a number, the same from both tools' scripts."""
    found = re.findall(r"^(\w+) +([\d.]+)$", said, re.MULTILINE)
    report = {name: float(number) for name, number in found}
    if "max_ms" not in report:  # the last line
        raise BenchError(f"{tool} failed: {errors.strip() or said.strip()}")
    return report


@dataclass
class Check:
    """200s = rows = increments = numbers shown, each counted from the load's start. A row without
    its 200 is allowed only for a request that failed, or whose answer the tool did not wait for."""

    ok: int  # 200s
    unanswered: int  # requests in flight at the end, and failed ones
    rows: int  # in acessos, less those of other writers
    increments: int  # of contador_cache
    shown_total: int  # by the visit after the load, less that visit and the rows of other writers
    shown_cache: int  # by the visit after the load, less that visit
    exact: bool = False  # rows equal increments even when clients leave

    def problems(self) -> list[str]:
        found = []
        for what, count in (("rows", self.rows), ("increments", self.increments)):
            if not self.ok <= count <= self.ok + self.unanswered:
                found.append(f"{self.ok} 200s, {self.unanswered} unanswered, but {count} {what}")
        if self.increments > self.rows or (self.exact and self.increments != self.rows):
            found.append(f"{self.rows} rows, but {self.increments} increments")
        if self.shown_total != self.rows:
            found.append(f"{self.rows} rows, but {self.shown_total} shown")
        if self.shown_cache != self.increments:
            found.append(f"{self.increments} increments, but {self.shown_cache} shown")
        return found


# ---- One measurement, and the rounds
def measure(side: Contender, tool: str, connections: int, seconds: int, stores: Stores) -> dict:
    """The record of one load. If it or its check failed, "thrown_out" says why."""
    record = {"name": side.name, "tool": tool, "connections": connections, "thrown_out": None}
    try:
        if not side.workload.rows:
            stores.fresh_database(side.workload.database)
        if side is PGBENCH:
            return record | measure_insert(stores, seconds)
        with Server(side, stores).running() as server:
            run_load(tool, server, connections, WARM_UP_S)
            measure_it = measure_visits if side.counts else measure_load
            return record | measure_it(server, tool, connections, seconds)
    except (BenchError, OSError, ValueError, KeyError) as error:
        return record | {"thrown_out": f"{type(error).__name__}: {error}"}


def measure_load(server: Server, tool: str, connections: int, seconds: int) -> dict:
    before = server.cpu()
    load = run_load(tool, server, connections, seconds)
    if not load["ok"]:
        raise BenchError("no request succeeded")
    spent = {part: now - before[part] for part, now in server.cpu().items()}
    return load | {f"{part}_us": cpu * 1e6 / load["ok"] for part, cpu in spent.items()}


def measure_visits(server: Server, tool: str, connections: int, seconds: int) -> dict:
    """A load beside its workload, on an empty table unless rows were asked for; then the check."""
    stores, database, work = server.stores, server.database, server.contender.workload
    settle(stores, database, work.rows)
    if not work.rows:
        stores.sql("TRUNCATE acessos", database)
    with stores.snapshot(database) if work.snapshot else contextlib.nullcontext():
        if work.foreign:
            rows_of(stores.inserts(database, f"--transactions={work.foreign}", flush="off"))
        stores.sql("CHECKPOINT", database)
        total, cache = server.visit()
        if not work.rows and total != work.foreign + 1:
            raise BenchError(f"a visit after {work.foreign} rows was shown the total {total}")
        # Sessions may take ids in advance: a later row can have a lower id, so count from before.
        floor = int(stores.sql("SELECT coalesce(max(id), 0) - 100000 FROM acessos", database))
        rows = stores.rows(database, floor)
        during = [f"--client={work.writers}", f"--time={seconds + 1}"]
        writers = stores.inserts(database, *during) if work.writers else None
        load = measure_load(server, tool, connections, seconds)
        foreign = rows_of(writers) if writers else 0
        rows_after, increments = settle(stores, database, floor)
        shown_total, shown_cache = server.visit()
    check = Check(
        ok=int(load["ok"]),
        unanswered=int(load["failed_status"] + load["failed_socket"] + load["in_flight"]),
        rows=rows_after - rows - foreign,
        increments=increments - cache,
        shown_total=shown_total - total - 1 - foreign,
        shown_cache=shown_cache - cache - 1,
        exact=server.contender.exact,
    )
    return load | {"check": asdict(check), "thrown_out": "; ".join(check.problems()) or None}


def settle(stores: Stores, database: str, after_id: int) -> tuple[int, int]:
    """Rows and increments, once three readings are the same: what was in flight is then stored."""
    deadline, readings = time.monotonic() + PATIENCE_S, []
    while time.monotonic() < deadline:
        readings.append((stores.rows(database, after_id), stores.increments()))
        if len(readings) >= 3 and len(set(readings[-3:])) == 1:
            return readings[-1]
        time.sleep(0.06)
    raise BenchError(f"rows were still being written {PATIENCE_S} s after the load")


def prepare_rows(side: Contender, stores: Stores) -> None:
    """The server makes its tables. The rows come from SQL, as from any other writer."""
    database, rows = side.workload.database, side.workload.rows
    stores.fresh_database(database)
    with Server(side, stores).running():
        pass
    series = f"generate_series(1, {rows})"
    stores.sql(f"INSERT INTO acessos (momento) SELECT now() FROM {series}", database)
    stores.sql("VACUUM (FREEZE, ANALYZE)", database)
    sizes = stores.sql("SELECT pg_table_size('acessos'), pg_indexes_size('acessos')", database)
    each = [f"{int(size) / rows:.1f}" for size in sizes.split("|")]
    print(f"{rows} rows, each {each[0]} bytes of the table and {each[1]} of its index", flush=True)


def measure_insert(stores: Stores, seconds: int) -> dict:
    """What PostgreSQL alone takes for one visit: one client, one row per transaction."""
    database, column = Workload().database, "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
    stores.sql(f"CREATE TABLE acessos ({column}, momento timestamptz DEFAULT now())", database)
    stores.sql("ALTER TABLE acessos OWNER TO user_app", database)
    rows_of(stores.inserts(database, f"--time={WARM_UP_S}"))
    return {"visits_per_second": rows_of(stores.inserts(database, f"--time={seconds}")) / seconds}


def run_rounds(compared: list[Contender], stores: Stores, results: "Results") -> None:
    """Under each load all are measured right after each other. Each round begins with another."""
    o, started = results.o, time.monotonic()
    for number in range(o.rounds):
        spent = time.monotonic() - started
        if o.quick and number and spent * (number + 1) / number > QUICK_S:
            return
        first = number % len(compared)
        for connections in o.connections:
            for tool in o.tools:
                for side in compared[first:] + compared[:first]:
                    record = measure(side, tool, connections, o.seconds, stores)
                    results.add(number + 1, record)


# ---- The report
SHOWN = ("server_version", "fsync", "synchronous_commit")
FIGURES = {"visits/s": "visits_per_second", "p50 ms": "p50_ms", "p99 ms": "p99_ms"}
FIGURES |= {f"{part} us": f"{part}_us" for part in ("server", "PostgreSQL", "Redis", "load")}


class Results:
    """All records, kept in raw.jsonl as they come, and the tables over their rounds."""

    def __init__(self, o: argparse.Namespace):
        self.o, self.folder = o, o.out or BENCH / "runs" / time.strftime("%F-%H%M")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.names, self.records, self.left_out = [], [], []

    def add(self, number: int, record: dict) -> None:
        self.records.append({"round": number} | record)
        with (self.folder / "raw.jsonl").open("a") as raw:
            raw.write(json.dumps(self.records[-1]) + "\n")
        load = f"round {number}, {record['name']}, {record['tool']} {record['connections']}"
        figures = [f"{show(record[key])} {name}" for name, key in FIGURES.items() if key in record]
        print(load, record["thrown_out"] or ", ".join(figures), sep=": ", flush=True)
        if record["thrown_out"]:
            self.left_out.append(f"{load}: {record['thrown_out']}")

    def skip(self, name: str, reason: str) -> None:
        self.left_out.append(f"SKIPPED: {name}: {reason}")
        print(self.left_out[-1], flush=True)

    def by_round(self, figure: str, name: str, tool: str, connections: int) -> dict[int, float]:
        """The figure in each round whose record was not thrown out."""
        wanted = {"name": name, "tool": tool, "connections": connections, "thrown_out": None}
        found = [record for record in self.records if wanted.items() <= record.items()]
        return {record["round"]: record[figure] for record in found if figure in record}

    def cell(self, *wanted) -> str:
        return spread(list(self.by_round(*wanted).values()))

    def ratios(self, figure: str, name: str, tool: str, connections: int) -> list[float]:
        """The ratio of each pair: of the rounds in which both sides count."""
        sides = [self.by_round(figure, side, tool, connections) for side in (name, self.names[0])]
        return [sides[0][n] / sides[1][n] for n in sorted(sides[0]) if sides[1].get(n)]

    def report(self, facts: dict[str, str]) -> str:
        tables = self.ratios_table if self.o.pairs else self.rates_table
        parts = [f"# Visits per second, {time.strftime('%F')}\n"]
        parts += ["Medians of the rounds (smallest to largest); CPU in us per visit.\n"]
        parts += [tables(tool) for tool in self.o.tools]
        if not self.o.pairs:
            (self.folder / "visits.svg").write_text(self.chart())
            parts.append("![Answers per second](visits.svg)\n")
        for count in self.o.connections:
            load = (self.o.tools[0], count)
            rows = [[n, *(self.cell(f, n, *load) for f in FIGURES.values())] for n in self.names]
            parts.append(table(f"{count} connections ({load[0]})", ["", *FIGURES], rows))
        checked = sum("check" in record for record in self.records)
        left_out = [f"- {line}\n" for line in self.left_out or ["Nothing."]]
        parts += [f"## Left out\n\n{checked} loads were checked.\n\n{''.join(left_out)}"]
        parts.append(table("Machine and versions", ["", ""], list(map(list, facts.items()))))
        return "\n".join(parts)

    def rates_table(self, tool: str) -> str:
        counts, rate = self.o.connections, "visits_per_second"
        rows = [[n, *(self.cell(rate, n, tool, count) for count in counts)] for n in self.names]
        head = ["", *(f"{count} connections" for count in counts)]
        return table(f"Answers per second ({tool})", head, rows)

    def ratios_table(self, tool: str) -> str:
        rows = []
        for name, count in [(n, count) for n in self.names[1:] for count in self.o.connections]:
            found = [self.ratios(figure, name, tool, count) for figure in FIGURES.values()]
            medians = [spread(ratios, "{:.3f}".format) for ratios in found]
            each = " ".join(f"{ratio:.2f}" for ratio in found[0])
            rows.append([name, str(count), *medians, each])
        head = ["", "connections", *FIGURES, "visits/s, pair by pair"]
        return table(f"Ratios to {self.names[0]} ({tool})", head, rows)

    def chart(self) -> str:
        """Bars of the medians at 256 connections, or the most there were."""
        count = 256 if 256 in self.o.connections else max(self.o.connections)
        load = ("visits_per_second", self.o.tools[0], count)
        rates = {n: self.by_round(load[0], n, *load[1:]).values() for n in self.names}
        medians = {name: median(values) for name, values in rates.items() if values}
        shapes = [f'<text x="10" y="20">Answers per second, {count} connections ({load[1]})</text>']
        for y, (name, rate) in zip(range(32, 1000, 24), medians.items(), strict=False):
            width = round(460 * rate / max(medians.values()))
            colour = "0072b2" if "visitas" in name else "999"
            shapes.append(f'<text x="150" y="{y + 14}" text-anchor="end">{name}</text>')
            shapes.append(f'<rect x="160" y="{y}" width="{width}" height="18" fill="#{colour}"/>')
            shapes.append(f'<text x="{166 + width}" y="{y + 14}">{rate:,.0f}</text>')
        size = f'viewBox="0 0 720 {40 + 24 * len(medians)}" font-family="sans-serif" font-size="13"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><rect width="100%" height="100%"'
        return "\n".join([f'{head} fill="#fff"/>', *shapes, "</svg>\n"])


def show(value: float) -> str:
    """Small figures with three digits, large ones whole."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(values: list[float], shown: Callable[[float], str] = show) -> str:
    """The median, and in brackets the smallest and the largest."""
    if len(values) < 2:
        return shown(values[0]) if values else "-"
    return f"{shown(median(values))} ({shown(min(values))} to {shown(max(values))})"


def table(title: str, head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return f"## {title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def machine(stores: Stores) -> dict[str, str]:
    """What a figure depends on besides the code."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    git = f"git -C '{CHECKOUT}'"
    changed = getoutput(f"{git} status --porcelain --untracked-files=no") and " with changes"
    return {
        "command": " ".join(["bench/run", *sys.argv[1:]]),
        "commit": getoutput(f"{git} rev-parse --short HEAD") + changed,
        "processor": f"{model[1] if model else os.uname().machine}, {os.cpu_count()} cores",
        "kernel": os.uname().release,
        "stores' file system": getoutput("findmnt -no FSTYPE,SOURCE -T /var/tmp"),
        **{f"PostgreSQL {name}": stores.sql(f"SHOW {name}", "postgres") for name in SHOWN},
        "Redis": getoutput("redis-server --version").split(" sha")[0],
        "wrk, oha": getoutput(f"(wrk -v; {oha() or ':'} -V) | grep -oE '^(wrk|oha) [^ ]+' | xargs"),
        "load of the machine before": f"{os.getloadavg()[0]:.2f}",
    }


def main() -> int:
    o = parse()
    # As an exception, so that servers are stopped and data is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    results = Results(o)
    if "oha" in o.tools and not oha():
        results.skip("oha", "it is not installed; bench/install-oha builds it")
        o.tools.remove("oha")
    packages = ["wrk", "jq", "redis-server"] + ["postgresql"] * ("PG_BIN" not in os.environ)
    subprocess.run([CHECKOUT / "scripts" / "install-tools", *packages], check=True)
    compared = sides(o, results.skip)
    if not (compared and o.tools):
        return 1
    results.names = [side.name for side in compared]
    with Stores().running() as stores:
        facts = machine(stores)
        try:
            if o.rows:
                prepare_rows(compared[-1], stores)
            run_rounds(compared, stores, results)
        finally:
            summary = results.report(facts)
            (results.folder / "summary.md").write_text(summary)
            print(f"\n{summary}\nin {results.folder}")
    failed = any(record["thrown_out"] for record in results.records)
    return int(failed or (os.environ.get("CI") == "true" and bool(results.left_out)))


if __name__ == "__main__":
    sys.exit(main())

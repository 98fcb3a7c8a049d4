"""Measures visits per second (docs/benchmarks.md). A 200 must be one row and one increment."""

import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from subprocess import getoutput

from beside import idle, listeners
from stores import (
    BENCH,
    CACHE,
    PATIENCE_S,
    PIPES,
    BenchError,
    Stores,
    cpu_seconds,
    free_port,
    process,
    rows_of,
    wait_for,
)

CHECKOUT = BENCH.parent

GROUPED = ["axum-grouped", "go-grouped"]  # an expert's answers: they group commits too
PEERS = [*GROUPED, "may-pipelined", "axum", "actix", "go", "fastapi"]
PEERS += ["flask-gunicorn", "flask-exercise"]
FRONTS = ["front-hyper", "front-nginx", "front-may-minihttp"]  # each answers a constant
QUICK = ["visitas", "axum-grouped", "axum", "flask-exercise", "visitas-livez", "front-nginx"]
QUICK_S = 170  # all rounds of --quick
PAGE_BYTES = 2_700  # of the page of grouped and pipelined peers where visitas is not measured
WARM_UP_S = 1
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


# ---- Options
@dataclass(frozen=True)
class Workload:
    """What the load is, and what there is beside it. Each field is an option."""

    rows: int = 0
    snapshot: bool = False
    foreign: int = 0
    writers: int = 0
    elsewhere: int = 0
    idle: int = 0
    listeners: int = 0
    pooler: bool = False
    tls: bool = False
    embedded: bool = False
    names: int = 0
    workers: int = 0
    per_connection: int = 0
    rate: int = 0

    def __str__(self) -> str:
        parts = [f"{name} {value}" for name, value in asdict(self).items() if value]
        return ", ".join(parts).replace(" True", "")

    @property
    def database(self) -> str:
        """Rows are inserted once, for all rounds."""
        return f"rows_{self.rows}" if self.rows else "desafio3_db"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    about = "Compares visitas with its peers or, in pairs, with itself: see docs/benchmarks.md."
    more = "bench/run --workloads --help: the table of all workloads."
    parser = argparse.ArgumentParser(prog="bench/run", description=about, epilog=more)
    flag, count = {"action": "store_true"}, {"type": int, "metavar": "N", "default": 0}
    counts = {"type": lambda text: [int(word) for word in text.split(",")], "metavar": "N,..."}
    names = {"type": lambda text: text.split(","), "metavar": "NAME,..."}
    pairs = parser.add_argument_group("pairs").add_mutually_exclusive_group()
    pairs.add_argument("--peers", **flag, help="no pairs but all servers: the default")
    pairs.add_argument("--baseline", metavar="REV", help="against a git revision, or a binary")
    pairs.add_argument("--processes", **counts, help="several processes, against one")
    pairs.add_argument("--alone", **flag, help="one client, against pgbench's INSERT of one row")
    about = "Pairs with and without it; beside --baseline or --only, all sides have it."
    work = parser.add_argument_group("workload", about)
    work.add_argument("--rows", **count, help="the table has N rows")
    work.add_argument("--snapshot", **flag, help="another session holds a snapshot")
    work.add_argument("--foreign", **count, help="since then another writer inserted N rows")
    work.add_argument("--writers", **count, help="N other writers insert during the load")
    about = "N other writers insert into another table during the load"
    work.add_argument("--elsewhere", **count, help=about)
    work.add_argument("--idle", **count, help="N more connections, idle")
    work.add_argument("--listeners", **count, help="N more connections listen to /events")
    work.add_argument("--pooler", **flag, help="through PgBouncer in transaction mode")
    work.add_argument("--tls", **flag, help="TLS to PostgreSQL and Redis")
    work.add_argument("--embedded", **flag, help="rows in visitas' own file")
    work.add_argument("--names", **count, help="wrk visits counters of N names in turn")
    work.add_argument("--workers", **count, help="WORKERS=N")
    work.add_argument("--per-connection", **count, help="N requests per connection; oha: 1")
    work.add_argument("--rate", **count, help="oha: N requests per second, late ones corrected")
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
    alone = str(o.workload) and not (o.only or o.peers)
    o.pairs = bool(o.baseline or o.processes or o.alone or alone)
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
    ours = any(name.startswith("visitas") for name in o.only)
    own = Contender("visitas", [own_binary(o.visitas, ours)], exact=True, workload=o.workload)
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


def own_binary(given: Path | None, needed: bool = True) -> Path:
    if given:
        return given.resolve()
    if needed:
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


# ---- A running server
class Server:
    """A contender's processes on the stores."""

    def __init__(self, contender: Contender, stores: Stores):
        self.contender, self.stores, self.database = contender, stores, contender.workload.database
        self.ports = [free_port() for _ in range(contender.processes)]
        self.children: list[subprocess.Popen] = []

    @contextlib.contextmanager
    def running(self):
        name = self.contender.name
        ready = "/readyz" if self.contender.counts else self.contender.path
        with contextlib.ExitStack() as held:
            self.env = self._environment(held)
            for number, port in enumerate(self.ports):
                env = self.env | {"PORT": str(port)}
                start = process(self.contender.command, f"{name}-{number}", env=env)
                server = held.enter_context(start)
                self.children.append(server)
                wait_for(name, partial(get, port, ready), server)
            yield self

    def _environment(self, held: contextlib.ExitStack) -> dict[str, str]:
        """The stores that the workload asks for, as variables. What they need is started."""
        work, stores = self.contender.workload, self.stores
        ours = ("DB_", "DATABASE_", "REDIS_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        env |= {"HOST": "127.0.0.1", "BUILT": "1"}
        env.setdefault("PAGE_BYTES", str(PAGE_BYTES))
        redis_port = stores.redis_tls_port if work.tls else stores.redis_port
        env |= {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(redis_port)}
        env |= {"REDIS_TLS": "insecure" if work.tls else "off"}
        env |= {"WORKERS": str(work.workers)} if work.workers else {}
        env |= {"COUNTERS": "n*"} if work.names else {}
        if work.embedded:
            return env | {"DATA_DIR": held.enter_context(stores.scratch())}
        port = held.enter_context(stores.pooler()) if work.pooler else stores.postgres_port
        env |= {"DB_HOST": "127.0.0.1", "DB_PORT": str(port), "DB_NAME": self.database}
        env |= {"DB_SSLMODE": "require" if work.tls else "disable"}
        return env | {"DB_USER": "user_app", "DB_PASSWORD": "bench"}

    def exported_rows(self) -> int:
        """Ends the process, and counts the rows in its file."""
        for child in self.children:
            child.send_signal(signal.SIGTERM)
            child.wait(PATIENCE_S)
        export = [*self.contender.command, "export"]
        done = subprocess.run(export, env=self.env, stdout=subprocess.PIPE, check=True)
        return done.stdout.count(b"\n") - 1  # the names of the columns

    def visit(self) -> tuple[int, int]:
        """One visit: the two numbers it is shown."""
        shown = json.loads(get(self.ports[0], "/"))
        return shown["total"], shown["cache"]

    def page(self) -> bytes:
        return get(self.ports[0], "/", "*/*")

    def cpu(self) -> dict[str, float]:
        """CPU time so far of all that takes part."""
        load = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "server": sum(cpu_seconds(child.pid) for child in self.children),
            "PostgreSQL": cpu_seconds(self.stores.postgres.pid),
            "Redis": cpu_seconds(self.stores.redis.pid),
            "load": load.ru_utime + load.ru_stime,
        }


def get(port: int, path: str, accept: str = "application/json") -> bytes:
    """The body of a 200; another answer is an OSError."""
    headers = {"Accept": accept}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with NO_PROXY.open(request, timeout=30) as answer:
        return answer.read()


# ---- A load and its check
def oha() -> str | None:
    return shutil.which("oha") or shutil.which("oha", path=CACHE / "oha" / "bin")


def run_load(tool: str, server: Server, connections: int, seconds: int) -> dict[str, float]:
    """Loads all processes at once, the connections shared out evenly; what the tools report."""
    work = server.contender.workload
    env = os.environ | {"OHA": oha() or "oha"}
    for name, count in asdict(work).items():
        if name in ("per_connection", "names", "rate") and count:
            env[name.upper()] = str(count)
    urls = [f"http://127.0.0.1:{port}{server.contender.path}" for port in server.ports]
    limit = ["timeout", str(seconds + PATIENCE_S), BENCH / f"visits-{tool}.sh"]
    load = [str(max(1, connections // len(urls))), str(seconds)]
    tools = [subprocess.Popen([*limit, url, *load], env=env, **PIPES) for url in urls]
    outputs = [child.communicate() for child in tools]
    load = add_up([read_report(tool, *texts) for texts in outputs])
    # oha waits for the last answers, of slow peers for seconds.
    if tool == "wrk" and load["seconds"] > 2 * seconds + 1:
        raise BenchError(f"the machine stood still: {seconds} s took {load['seconds']} s")
    return load


def add_up(reports: list[dict[str, float]]) -> dict[str, float]:
    """One report of several loads at once."""
    # Counts and rates add up; of times and sizes the largest stands.
    single = {name for name in reports[0] if name.endswith("_ms")} | {"seconds", "bytes"}
    return {n: (max if n in single else sum)(each[n] for each in reports) for n in reports[0]}


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
    if work.embedded:
        return measure_embedded(server, tool, connections, seconds)
    settle(stores, database, work.rows)
    if not work.rows:
        stores.sql("TRUNCATE acessos", database)
    with contextlib.ExitStack() as held:
        if work.snapshot:
            held.enter_context(stores.snapshot(database))
        if work.foreign:
            rows_of(stores.inserts(database, f"--transactions={work.foreign}", flush="off"))
        stores.sql("CHECKPOINT", database)
        total, cache = server.visit()
        if not work.rows and total != work.foreign + 1:
            raise BenchError(f"a visit after {work.foreign} rows was shown the total {total}")
        # Sessions may take ids in advance: a later row can have a lower id, so count from before.
        floor = int(stores.sql("SELECT coalesce(max(id), 0) - 100000 FROM acessos", database))
        rows = stores.rows(database, floor)
        held.enter_context(beside(server))
        writers = {"acessos": work.writers, "elsewhere": work.elsewhere}
        writing = {
            table: stores.inserts(
                database, f"--client={count}", f"--time={seconds + 1}", table=table
            )
            for table, count in writers.items()
            if count
        }
        load = measure_load(server, tool, connections, seconds)
        written = {table: rows_of(writer) for table, writer in writing.items()}
        foreign = written.get("acessos", 0)
        rows_after, increments = settle(stores, database, floor)
        if work.names and stores.names(database) != work.names:
            raise BenchError(f"{stores.names(database)} names have rows")
        shown_total, shown_cache = server.visit()
    check = Check(
        ok=int(load["ok"]),
        unanswered=unanswered(load),
        rows=rows_after - rows - foreign,
        increments=increments - cache,
        shown_total=shown_total - total - 1 - foreign,
        shown_cache=shown_cache - cache - 1,
        exact=server.contender.exact,
    )
    return load | {"check": asdict(check), "thrown_out": "; ".join(check.problems()) or None}


def measure_embedded(server: Server, tool: str, connections: int, seconds: int) -> dict:
    """A load on a new file; then the check. The rows are those that the file exports."""
    total, cache = server.visit()
    with beside(server):
        load = measure_load(server, tool, connections, seconds)
        increments = settle(server.stores)[1]
        shown_total, shown_cache = server.visit()
    check = Check(
        ok=int(load["ok"]),
        unanswered=unanswered(load),
        rows=server.exported_rows() - total - 1,
        increments=increments - cache,
        shown_total=shown_total - total - 1,
        shown_cache=shown_cache - cache - 1,
        exact=True,
    )
    return load | {"check": asdict(check), "thrown_out": "; ".join(check.problems()) or None}


def unanswered(load: dict) -> int:
    return int(load["failed_status"] + load["failed_socket"] + load["in_flight"])


@contextlib.contextmanager
def beside(server: Server):
    """Other clients of the server, until `with` is left."""
    work, port = server.contender.workload, server.ports[0]
    with idle(port, work.idle), listeners(port, work.listeners):
        yield


def settle(stores: Stores, database: str = "", after_id: int = 0) -> tuple[int, int]:
    """Rows, of a database, and increments, once three readings are the same: what was in flight is
    then stored."""
    deadline, readings = time.monotonic() + PATIENCE_S, []
    while time.monotonic() < deadline:
        rows = stores.rows(database, after_id) if database else 0
        readings.append((rows, stores.increments()))
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


def page_bytes(compared: list[Contender], stores: Stores) -> int:
    """The length of visitas' page: that of the grouped and pipelined peers is as long."""
    [own] = [side for side in compared if side.name == "visitas"]
    stores.fresh_database(own.workload.database)
    with Server(own, stores).running() as server:
        return len(server.page())


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
FIGURES |= {"bytes": "bytes"}  # of an answer
FIGURES |= {f"{part} us": f"{part}_us" for part in ("server", "PostgreSQL", "Redis", "load")}


class Results:
    """All records, kept in raw.jsonl as they come, and the tables over their rounds."""

    def __init__(self, o: argparse.Namespace):
        self.o, self.folder = o, o.out or BENCH / "runs" / time.strftime("%F-%H%M")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "raw.jsonl").unlink(missing_ok=True)
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


def install(*more: str) -> None:
    packages = ["wrk", "jq", "redis-server", *more] + ["postgresql"] * ("PG_BIN" not in os.environ)
    subprocess.run([CHECKOUT / "scripts" / "install-tools", *packages], check=True)


def run(results: Results, work: Callable[[Stores], None]) -> int:
    """Does the work on new stores, then writes the report, also if the work was cut short."""
    # As an exception, so that servers are stopped and data is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with Stores().running() as stores:
        facts = machine(stores)
        try:
            work(stores)
        finally:
            summary = results.report(facts)
            (results.folder / "summary.md").write_text(summary)
            print(f"\n{summary}\nin {results.folder}")
    failed = any(record["thrown_out"] for record in results.records)
    return int(failed or (os.environ.get("CI") == "true" and bool(results.left_out)))


def main() -> int:
    o = parse()
    results = Results(o)
    if "oha" in o.tools and not oha():
        results.skip("oha", "it is not installed; bench/install-oha builds it")
        o.tools.remove("oha")
    install(*["pgbouncer"] * o.pooler)
    compared = sides(o, results.skip)
    if not (compared and o.tools):
        return 1
    results.names = [side.name for side in compared]

    def work(stores: Stores) -> None:
        if "PAGE_BYTES" not in os.environ and "visitas" in o.only and not o.pairs:
            os.environ["PAGE_BYTES"] = str(page_bytes(compared, stores))
        if o.rows:
            prepare_rows(compared[-1], stores)
        run_rounds(compared, stores, results)

    return run(results, work)


if __name__ == "__main__":
    sys.exit(main())

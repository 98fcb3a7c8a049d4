"""The stores of a measurement, private ones on free ports, and how processes start and end."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

BENCH = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("BENCH_CACHE", BENCH / ".cache")).resolve()
LOGS = CACHE / "logs"  # what the servers of the last run printed
PATIENCE_S = 60  # for a server to start, a tool to end after its time, the stores to settle
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


class BenchError(Exception):
    """One measurement failed; the others go on."""


# ---- Processes
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def process(command: list, name: str, sign: signal.Signals = signal.SIGTERM, **options):
    """A server in a process group of its own, which ends when `with` is left."""
    LOGS.mkdir(parents=True, exist_ok=True)
    file = re.sub(r"[^\w-]+", "-", name) + ".log"
    with (LOGS / file).open("wb") as log:
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

    def names(self, database: str) -> int:
        return int(self.sql("SELECT count(DISTINCT contador) FROM acessos", database))

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

    @contextlib.contextmanager
    def scratch(self):
        """A folder beside the stores' data, until `with` is left."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            yield folder

    @contextlib.contextmanager
    def pooler(self):
        """The port of a PgBouncer in transaction mode, which runs until `with` is left."""
        port, users, settings = free_port(), self.folder / "users", self.folder / "pgbouncer.ini"
        users.write_text('"user_app" "bench"\n')
        settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={self.postgres_port}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {users}\npool_mode = transaction\n"
        )
        with process([*self.drop_root, "pgbouncer", settings], "pgbouncer") as server:
            connect = partial(socket.create_connection, ("127.0.0.1", port), timeout=5)
            wait_for("PgBouncer", lambda: connect().close(), server)
            yield port

    def inserts(
        self, database: str, *options: str, flush: str = "on", table: str = "acessos"
    ) -> subprocess.Popen:
        """Another writer: pgbench as user_app over TCP, a prepared INSERT of one row at a time."""
        if table != "acessos":
            like = "(id bigserial PRIMARY KEY, momento timestamptz NOT NULL DEFAULT now())"
            self.sql(f"CREATE TABLE {table} {like}; ALTER TABLE {table} OWNER TO user_app", database)
        script = self.folder / f"insert-{table}.sql"
        script.write_text(f"INSERT INTO {table} DEFAULT VALUES;\n")
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

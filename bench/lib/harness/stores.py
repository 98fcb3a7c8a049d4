"""The private PostgreSQL and Redis of a run, and the questions the account asks them."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from .processes import Process, free_port

LIB = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 60
DATABASE = "desafio3_db"


class Stores:
    """Starts both stores on free loopback ports; `with` stops them and removes their data."""

    def __init__(self):
        # /var/tmp, not /tmp: where /tmp is memory, a commit's fsync costs nothing and the figures mean nothing.
        self.directory = Path(tempfile.mkdtemp(prefix="visitas-bench.", dir="/var/tmp"))
        self.password = secrets.token_hex(8)
        self.postgres_port, self.redis_port = free_port(), free_port()

    def __enter__(self):
        try:
            postgres, redis = self.directory / "postgres", self.directory / "redis"
            for folder in (self.directory, postgres, redis):
                folder.mkdir(exist_ok=True)
                folder.chmod(0o755)
            self.socket_directory = postgres
            self.postgres = Process(
                [str(LIB / "postgres"), str(postgres), str(self.postgres_port)],
                dict(os.environ),
                self.directory / "postgres.log",
            )
            self.redis = Process(
                [str(LIB / "redis"), str(redis), str(self.redis_port)], dict(os.environ), self.directory / "redis.log"
            )
            self._wait_until_ready()
            self.sql(f"CREATE ROLE user_app LOGIN PASSWORD '{self.password}'", "postgres")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name, sign in (("postgres", signal.SIGINT), ("redis", signal.SIGTERM)):
            if hasattr(self, name):
                getattr(self, name).stop(sign)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            for process in (self.postgres, self.redis):
                if not process.alive():
                    raise RuntimeError(f"{process.command[0]} ended:\n{process.log.read_text()}")
            try:
                self.sql("SELECT 1", "postgres")
                self.redis_command("PING")
                return
            except (OSError, RuntimeError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def environment(self, database: str) -> dict[str, str]:
        """The contract's variables, for a server that uses this database."""
        return {
            "DB_HOST": "127.0.0.1",
            "DB_PORT": str(self.postgres_port),
            "DB_NAME": database,
            "DB_USER": "user_app",
            "DB_PASSWORD": self.password,
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(self.redis_port),
        }

    def sql(self, statement: str, database: str = DATABASE) -> str:
        """Runs a statement as superuser over the socket; its rows, unaligned, columns parted by '|'."""
        command = [
            "psql",
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-h",
            str(self.socket_directory),
            "-p",
            str(self.postgres_port),
            "-d",
            database,
            "-c",
            statement,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{statement}: {done.stderr.strip()}")
        return done.stdout.strip()

    def redis_command(self, *words: str) -> str:
        """Runs a command whose answer is one line or one bulk string."""
        with socket.create_connection(("127.0.0.1", self.redis_port), timeout=5) as connection:
            connection.sendall((" ".join(words) + "\r\n").encode())
            answer = connection.makefile("rb")
            first = answer.readline().decode().rstrip()
            if first.startswith("-"):
                raise RuntimeError(first)
            if first.startswith("$"):
                return "" if first == "$-1" else answer.readline().decode().rstrip()
            return first[1:]

    def fresh_database(self, database: str = DATABASE) -> None:
        """An empty database of that name, and an empty Redis."""
        self.sql(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)", "postgres")
        self.sql(f"CREATE DATABASE {database} OWNER user_app", "postgres")
        self.redis_command("FLUSHALL")

    def last_id(self, database: str) -> int:
        return int(self.sql("SELECT coalesce(max(id), 0) FROM acessos", database))

    def rows_after(self, last_id: int, database: str) -> int:
        """Rows recorded since `last_id` was the last: an index scan, whatever the table held before."""
        return int(self.sql(f"SELECT count(*) FROM acessos WHERE id > {last_id}", database))

    def cached(self) -> int:
        return int(self.redis_command("GET", "contador_cache") or 0)

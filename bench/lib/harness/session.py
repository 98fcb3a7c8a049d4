"""A session: one contender, started as one or several processes on the stores, from ready to stopped."""

import http.client
import json
import os
import time
from pathlib import Path

from .contenders import Contender
from .processes import Process, cpu_seconds, free_port, peak_kib
from .stores import DATABASE, Stores

READY_TIMEOUT_S = 60
READY_POLL_S = 0.001


class ContenderError(Exception):
    """The contender did not start, or did not answer."""


class Session:
    """`with` starts the contender and waits until it is ready, then stops it."""

    def __init__(self, contender: Contender, stores: Stores, logs: Path, processes: int = 1, database: str = DATABASE):
        self.contender = contender
        self.stores = stores
        self.database = database
        self.logs = logs
        self.count = processes
        self.servers: list[Process] = []
        self.ports: list[int] = []
        self.start_ms = 0.0

    def __enter__(self):
        started = time.monotonic()
        try:
            for number in range(self.count):
                self._start(number)
            for port, server in zip(self.ports, self.servers, strict=True):
                self._wait_until_ready(port, server)
        except BaseException:
            self.__exit__()
            raise
        self.start_ms = (time.monotonic() - started) * 1000
        return self

    def __exit__(self, *_):
        for server in self.servers:
            server.stop()

    def _start(self, number: int) -> None:
        port = free_port()
        env = {name: value for name, value in os.environ.items() if not name.startswith(("DB_", "DATABASE_", "REDIS_"))}
        env |= self.stores.environment(self.database)
        env |= {"HOST": "127.0.0.1", "PORT": str(port)}
        env |= self.contender.env
        log = self.logs / f"{self.contender.name}-{number}.log"
        self.servers.append(Process(self.contender.command, env, log))
        self.ports.append(port)

    def _wait_until_ready(self, port: int, server: Process) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            if not server.alive():
                raise ContenderError(f"{self.contender.name} ended before it was ready; see {server.log}")
            try:
                if get(port, self.contender.ready)[0] == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            if time.monotonic() > deadline:
                raise ContenderError(f"{self.contender.name} was not ready within {READY_TIMEOUT_S} s")
            time.sleep(READY_POLL_S)

    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}{self.contender.path}" for port in self.ports]

    def visit(self) -> tuple[int, int]:
        """One visit: the two numbers it is shown."""
        status, body = get(self.ports[0], "/", {"Accept": "application/json"}, timeout_s=30)
        if status != 200:
            raise ContenderError(f"{self.contender.name} answered a visit with {status}: {body!r}")
        try:
            shown = json.loads(body)
            return shown["total"], shown["cache"]
        except (ValueError, KeyError, TypeError) as error:
            raise ContenderError(f"{self.contender.name} did not answer a visit in JSON: {body!r}") from error

    def cpu_seconds(self) -> float:
        return sum(cpu_seconds(server.pid) for server in self.servers)

    def peak_kib(self) -> int:
        return sum(peak_kib(server.pid) for server in self.servers)


def get(port: int, path: str, headers: dict[str, str] | None = None, timeout_s: float = 5) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()

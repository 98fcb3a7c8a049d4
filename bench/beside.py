"""Clients beside a load: connections that are idle, and listeners of /events."""

import contextlib
import selectors
import socket
import threading

from stores import BenchError

PATIENCE_S = 30  # for a connection and its first answer
HEAD = b"%s HTTP/1.1\r\nHost: bench\r\n\r\n"


@contextlib.contextmanager
def idle(port: int, count: int):
    """Connections that asked once, without a visit. Each must still be open at the end."""
    with contextlib.ExitStack() as held:
        clients = [held.enter_context(connection(port)) for _ in range(count)]
        for client in clients:
            ask(client, b"HEAD /")
        yield
        for client in clients:
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                raise BenchError(f"an idle connection got {client.recv(100)!r}")


@contextlib.contextmanager
def listeners(port: int, count: int):
    """Listeners of /events, which read all that they get. Each must get something, and stay. Lends
    the sets of those that heard something and of those that ended."""
    with contextlib.ExitStack() as held, selectors.DefaultSelector() as ready:
        for _ in range(count):
            client = held.enter_context(connection(port))
            ask(client, b"GET /events")
            ready.register(client, selectors.EVENT_READ)
        heard, lost, over = set(), set(), threading.Event()

        def read():
            while count and not over.is_set():
                for key, _ in ready.select(timeout=0.1):
                    said = key.fileobj.recv(65536)
                    (heard if said else lost).add(key.fd)
                    if not said:
                        ready.unregister(key.fileobj)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield heard, lost
        finally:
            over.set()
            reader.join()
        if lost or len(heard) < count:
            raise BenchError(f"of {count} listeners {len(lost)} ended, {len(heard)} heard anything")


def connection(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def ask(client: socket.socket, what: bytes) -> None:
    """Asks, and reads the first bytes of the answer, which must be a 200."""
    client.sendall(HEAD % what)
    said = client.recv(65536)
    if not said.startswith(b"HTTP/1.1 200 "):
        raise BenchError(f"{what.decode()} got {said[:100]!r}")

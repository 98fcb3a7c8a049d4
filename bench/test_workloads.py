"""Tests of what would make the table of workloads wrong: python3 -m unittest discover bench"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import workloads
from beside import idle, listeners
from harness import BenchError, Workload, parse, read_report
from stores import BENCH
from workloads import PLAIN, Row, WorkloadResults, block, groups, ratios, verdict

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def record(name: str, rate: float, thrown_out: str | None = None, **more) -> dict:
    found = {"round": 1, "block": 64, "connections": 64, "name": name, "reference": PLAIN}
    found |= {"goal": None, "visits_per_second": rate, "thrown_out": thrown_out, "tool": "wrk"}
    return found | more


def ratios_of(name: str, records: list[dict]) -> list[float]:
    return [ratio for found, ratio in ratios(records) if found["name"] == name]


class RatioTest(unittest.TestCase):
    def test_a_ratio_is_to_the_plain_loads_before_and_after(self):
        rates = [(PLAIN, 1), (PLAIN, 100), ("a", 90), ("b", 45), (PLAIN, 80), (PLAIN, 1)]
        records = [record(*rate) for rate in rates]
        self.assertEqual(ratios_of("a", records), [1.0])
        self.assertEqual(ratios_of("b", records), [0.5])

    def test_a_plain_load_that_was_thrown_out_is_no_reference(self):
        records = [record(PLAIN, 100), record("a", 50), record(PLAIN, 1, "its check failed")]
        self.assertEqual(ratios_of("a", records), [0.5])
        self.assertEqual(ratios_of("a", records[1:]), [])

    def test_a_load_that_was_thrown_out_has_no_ratio(self):
        self.assertEqual(ratios_of("a", [record(PLAIN, 100), record("a", 50, "stood still")]), [])

    def test_other_rounds_and_blocks_are_no_reference(self):
        others = [record(PLAIN, 100, round=2), record(PLAIN, 100, block=256)]
        self.assertEqual(ratios_of("a", [others[0], record("a", 50), others[1]]), [])

    def test_a_reference_can_be_another_row(self):
        records = [record(PLAIN, 10), record("nginx", 100), record("a", 75, reference="nginx")]
        self.assertEqual(ratios_of("a", records), [0.75])

    def test_a_goal_is_reached_by_the_median(self):
        self.assertEqual(verdict([0.9, 0.95, 1.0], 0.95), "yes (0.95)")
        self.assertEqual(verdict([0.9, 0.94, 1.0], 0.95), "no (0.94)")
        self.assertEqual(verdict([], 0.95), "not measured")

    def test_a_goal_just_missed_is_not_shown_as_reached(self):
        self.assertEqual(verdict([0.949], 0.95), "no (0.949)")


class OrderTest(unittest.TestCase):
    def test_each_group_stands_between_plain_loads(self):
        loads = [row.name for row in block([[Row("a"), Row("b")], [Row("c")]], 64, 0)]
        self.assertEqual(loads, [PLAIN, "a", "b", PLAIN, "c", PLAIN])

    def test_each_round_begins_with_another_group(self):
        loads = [row.name for row in block([[Row("a"), Row("b")], [Row("c")]], 64, 3)]
        self.assertEqual(loads, [PLAIN, "c", PLAIN, "a", "b", PLAIN])

    def test_a_row_of_one_block_is_not_in_another(self):
        rows = [[Row("a", blocks=(256,), connections=1024)]]
        self.assertEqual([row.name for row in block(rows, 64, 0)], [PLAIN])
        self.assertEqual([row.connections for row in block(rows, 256, 0)], [256, 1024, 256])

    def test_names_are_unique_and_references_are_measured_with_what_refers_to_them(self):
        for connections in (64, 256):
            names = [row.name for row in block(groups(1000), connections, 0) if row.name != PLAIN]
            self.assertEqual(len(names), len(set(names)))
        for group in groups(1000):
            names = {PLAIN, *(row.name for row in group)}
            self.assertLessEqual({row.reference for row in group}, names)


class ReportTest(unittest.TestCase):
    def test_the_table_has_ratio_goal_and_verdict(self):
        with tempfile.TemporaryDirectory() as folder:
            results = WorkloadResults(workloads.parse(["--connections", "64", "--out", folder]))
            loads = [record("a", 80, goal=0.8), record(PLAIN, 100), record("b", 10)]
            results.records = [load | {"round": number} for number in (1, 2) for load in loads]
            report = results.report({})
        lines = {line.split(" | ")[0]: line for line in report.splitlines()}
        self.assertTrue(lines["| a"].endswith("| 0.80 (0.80 to 0.80) | 0.80 | yes (0.80) |"))
        self.assertTrue(lines["| b"].endswith("| 0.10 (0.10 to 0.10) | - | - |"))
        self.assertTrue(lines["| plain"].endswith("| - | - | - |"))

    def test_the_workloads_are_options_of_pairs_too(self):
        o = parse(["--idle", "10000", "--names", "1000"])
        self.assertTrue(o.pairs)
        self.assertEqual(o.workload, Workload(idle=10_000, names=1_000))
        self.assertFalse(parse(["--peers", "--tls"]).pairs)


@contextlib.contextmanager
def server(answer):
    """The port of a server, and the list of its connections that ended. Each connection is a thread
    that runs `answer`."""
    ended = []
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=serve, args=(client,), daemon=True).start()

        def serve(client: socket.socket):
            with client, contextlib.suppress(OSError):
                answer(client)
            ended.append(client)

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], ended
        listener.shutdown(socket.SHUT_RDWR)


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)


def answer_once(client: socket.socket):
    client.recv(1000)
    client.sendall(OK)


def stay(client: socket.socket):
    answer_once(client)
    client.recv(1000)


def tell(client: socket.socket):
    answer_once(client)
    while True:
        client.sendall(b"data\n\n")
        time.sleep(0.01)


class BesideTest(unittest.TestCase):
    def test_idle_connections_must_stay(self):
        with server(stay) as (port, _), idle(port, 3):
            pass
        fails = self.assertRaisesRegex(BenchError, "idle")
        with server(answer_once) as (port, ended), fails, idle(port, 3):
            wait_until(lambda: len(ended) == 3)

    def test_listeners_must_hear_something_and_stay(self):
        with server(tell) as (port, _), listeners(port, 3) as (heard, _):
            wait_until(lambda: len(heard) == 3)
        fails = self.assertRaisesRegex(BenchError, "3 ended")
        with server(answer_once) as (port, _), fails, listeners(port, 3) as (_, lost):
            wait_until(lambda: len(lost) == 3)
        fails = self.assertRaisesRegex(BenchError, "0 heard")
        with server(stay) as (port, _), fails, listeners(port, 3):
            pass

    def test_neither_asks_anything_where_there_are_none(self):
        with idle(1, 0), listeners(1, 0):
            pass


CI = os.environ.get("CI") == "true"


@unittest.skipUnless(CI or shutil.which("wrk"), "wrk is not installed")
class ScriptTest(unittest.TestCase):
    """What visits-wrk.sh makes of PER_CONNECTION and NAMES."""

    def load(self, **env: str) -> tuple[dict, list[bytes], int, int]:
        """The report, paths asked for, connections made, and those that wrk closed."""
        paths, made, closed = [], [], []

        def answer(client: socket.socket):
            made.append(client)
            while request := client.recv(65536):
                paths.append(request.split()[1])
                if b"Connection: close" in request:
                    closed.append(client)
                    client.sendall(OK.replace(b"Content", b"Connection: close\r\nContent"))
                    return
                client.sendall(OK)

        with server(answer) as (port, _):
            command = [BENCH / "visits-wrk.sh", f"http://127.0.0.1:{port}/", "4", "1"]
            done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True)
        return read_report("wrk", done.stdout, done.stderr), paths, len(made), len(closed)

    def test_requests_per_connection(self):
        for count in (1, 10):
            report, paths, made, closed = self.load(PER_CONNECTION=str(count))
            self.assertGreater(report["ok"], 2 * count)
            self.assertEqual(report["failed_socket"], 0)
            # Each of wrk's threads may be on its way to the next that closes.
            self.assertAlmostEqual(closed, len(paths) / count, delta=os.cpu_count())
            # The last ones are open at the end, and wrk tries the address first.
            self.assertAlmostEqual(made, closed, delta=5)

    def test_names_in_turn(self):
        paths = self.load(NAMES="3")[1]
        self.assertEqual(set(paths), {b"/c/n1", b"/c/n2", b"/c/n3"})

    def test_else_connections_are_kept_and_the_answer_is_measured(self):
        report, paths, made, closed = self.load()
        # wrk tries the address with a connection of its own first.
        self.assertEqual((set(paths), made, closed), ({b"/"}, 5, 0))
        self.assertEqual(report["bytes"], len(OK))


if __name__ == "__main__":
    unittest.main()

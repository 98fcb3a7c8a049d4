"""Tests of the harness where a mistake would make figures wrong: python3 -m unittest discover bench/lib"""

import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
import xml.dom.minidom
from pathlib import Path

from harness import svg
from harness.account import Account
from harness.evidence import Evidence
from harness.load import LoadError, parse_oha, parse_wrk
from harness.pairs import ratios
from harness.processes import cpu_seconds, peak_kib
from harness.spread import ratio, spread
from harness.tables import number, with_range


def account(**changes) -> Account:
    """An exact account of 1000 visits, but for what is given."""
    values = {
        "ok": 1000,
        "rows": 1000,
        "cached": 1000,
        "unanswered": 0,
        "shown_total": 1000,
        "shown_cache": 1000,
        "strict": False,
    }
    return Account(**(values | changes))


class AccountTest(unittest.TestCase):
    def test_an_exact_account_is_right(self):
        self.assertEqual(account().problems(), [])

    def test_a_200_without_its_row_is_never_allowed(self):
        short = {"rows": 999, "cached": 999, "shown_total": 999, "shown_cache": 999}
        self.assertTrue(account(**short).problems())
        self.assertTrue(account(**short, unanswered=64).problems())

    def test_rows_beyond_the_200s_need_as_many_unanswered_requests(self):
        more = {"rows": 1064, "cached": 1064, "shown_total": 1064, "shown_cache": 1064}
        self.assertEqual(account(**more, unanswered=64).problems(), [])
        self.assertTrue(account(**more, unanswered=63).problems())

    def test_an_increment_without_its_row_is_never_allowed(self):
        self.assertTrue(account(cached=1001, shown_cache=1001, unanswered=64).problems())

    def test_a_row_without_its_increment_is_allowed_only_where_clients_went_away(self):
        cut_off = {"rows": 1010, "cached": 1004, "shown_total": 1010, "shown_cache": 1004, "unanswered": 64}
        self.assertEqual(account(**cut_off).problems(), [])
        self.assertTrue(account(**cut_off, strict=True).problems())

    def test_the_page_must_show_what_the_stores_hold(self):
        self.assertTrue(account(shown_total=999).problems())
        self.assertTrue(account(shown_cache=1001).problems())


WRK = """Running 1s test @ http://127.0.0.1:1/
  2 threads and 64 connections
Requests/sec:   2742.98
ok                3018
failed_status     7
failed_socket     2
late              0
seconds           1.100
visits_per_second 2743.6
p50_ms            0.639
p99_ms            1.534
p99_9_ms          5.864
max_ms            8.051
"""


class LoadTest(unittest.TestCase):
    def test_wrk(self):
        load = parse_wrk(WRK, 64)
        self.assertEqual((load.ok, load.failed, load.in_flight), (3018, 9, 64))
        self.assertAlmostEqual(load.rate, 3018 / 1.1)
        self.assertEqual((load.p50_ms, load.p99_9_ms), (0.639, 5.864))

    def test_wrk_that_says_something_else_is_an_error(self):
        with self.assertRaises(LoadError):
            parse_wrk("unable to connect", 64)

    def test_oha(self):
        report = {
            "summary": {"total": 2.0},
            "latencyPercentiles": {"p50": 0.001, "p99": 0.002, "p99.9": 0.003},
            "statusCodeDistribution": {"200": 100, "503": 5},
            "errorDistribution": {"connection closed": 3},
        }
        load = parse_oha(json.dumps(report), 64)
        self.assertEqual((load.ok, load.failed, load.in_flight, load.rate), (100, 8, 0, 50))

    def test_oha_that_says_something_else_is_an_error(self):
        with self.assertRaises(LoadError):
            parse_oha("{}", 64)


class ProcessTest(unittest.TestCase):
    def test_cpu_of_children_counts_while_they_live_and_after(self):
        burn = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
        run = f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {burn!r}])\n"
        script = run + "print('over', flush=True)\ntime.sleep(60)"
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
            try:
                self.assertEqual(child.stdout.readline(), "over\n")
                self.assertGreaterEqual(cpu_seconds(child.pid), 0.28)
            finally:
                child.kill()

    def test_peak_memory_outlives_its_use(self):
        script = "b'x' * (64 << 20)\nprint('freed', flush=True)\nimport time\ntime.sleep(60)"
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
            try:
                child.stdout.readline()
                self.assertGreater(peak_kib(child.pid), 64 << 10)
            finally:
                child.kill()


class FiguresTest(unittest.TestCase):
    def test_spread(self):
        self.assertEqual(spread([3, 1, 2]), {"median": 2, "low": 1, "high": 3, "count": 3})
        self.assertEqual(spread([])["count"], 0)

    def test_a_ratio_to_nothing_is_no_ratio(self):
        self.assertIsNone(ratio(1, 0))
        self.assertIsNone(ratio(None, 2))

    def test_numbers(self):
        self.assertEqual([number(v) for v in (12345.6, 12.34, 1.234, None)], ["12,346", "12.3", "1.23", "-"])
        self.assertEqual(with_range(spread([1, 3, 2])), "2.00 (1.00 to 3.00)")

    def test_a_pair_counts_only_when_both_its_sides_do(self):
        with tempfile.TemporaryDirectory() as directory:
            evidence = Evidence(Path(directory), None)
            for variant, round_number, rate, thrown_out in [
                ("a", 1, 100, None),
                ("b", 1, 150, None),
                ("a", 2, 100, "account"),
                ("b", 2, 900, None),
                ("a", 3, 10, None),
                ("b", 3, 20, None),
            ]:
                evidence.points.append(
                    {
                        "variant": variant,
                        "round": round_number,
                        "rate": rate,
                        "tool": "wrk",
                        "connections": 64,
                        "thrown_out": thrown_out,
                    }
                )
            found = ratios(evidence, "a", "b", lambda point: point["rate"], "wrk", 64)
        self.assertEqual(found, {"median": 1.75, "low": 1.5, "high": 2.0, "count": 2})

    def test_charts_are_well_formed(self):
        chart = svg.lines("a & b", "ms", ["1", "16"], {"x": [1.0, None], "y": [0.5, 20000.0]}, "connections")
        self.assertEqual(len(xml.dom.minidom.parseString(chart).getElementsByTagName("circle")), 3)
        xml.dom.minidom.parseString(svg.bars("cpu", "us", {"x": {"server": 1.0, "load": 2.0}}))


class TurnTest(unittest.TestCase):
    def test_a_turn_waits_for_who_holds_the_lock(self):
        with tempfile.TemporaryDirectory() as directory:
            lock = Path(directory) / "lock"
            with subprocess.Popen(
                ["flock", str(lock), "sh", "-c", "echo held; sleep 0.3"], stdout=subprocess.PIPE
            ) as holder:
                holder.stdout.readline()
                started = time.monotonic()
                with Evidence(Path(directory) / "run", lock).turn():
                    self.assertGreater(time.monotonic() - started, 0.2)


if __name__ == "__main__":
    os.chdir(Path(__file__).parent)
    unittest.main()

"""Tests of what would make figures wrong: python3 -m unittest discover bench"""

import ast
import importlib
import subprocess
import sys
import tempfile
import unittest
import xml.dom.minidom
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from harness import (
    PGBENCH,
    BenchError,
    Check,
    Results,
    add_up,
    cpu_seconds,
    parse,
    process,
    read_report,
    run_load,
    show,
    spread,
)
from stores import BENCH

EXACT = {"ok": 1000, "rows": 1000, "increments": 1000, "unanswered": 0}
EXACT |= {"shown_total": 1000, "shown_cache": 1000}
REPORT = """Requests/sec:   2742.98
in_flight         64
ok                3018
failed_status     7
p50_ms            0.639
max_ms            8.051
"""


def problems(**changes: int) -> list[str]:
    return Check(**(EXACT | changes)).problems()


class CheckTest(unittest.TestCase):
    def test_equal_counts_have_no_problems(self):
        self.assertEqual(problems(), [])

    def test_a_200_without_its_row_is_never_allowed(self):
        short = dict.fromkeys(("rows", "increments", "shown_total", "shown_cache"), 999)
        self.assertTrue(problems(**short))
        self.assertTrue(problems(**short, unanswered=64))

    def test_rows_beyond_the_200s_need_as_many_unanswered_requests(self):
        more = dict.fromkeys(("rows", "increments", "shown_total", "shown_cache"), 1064)
        self.assertEqual(problems(**more, unanswered=64), [])
        self.assertTrue(problems(**more, unanswered=63))

    def test_an_increment_without_its_row_is_never_allowed(self):
        self.assertTrue(problems(increments=1001, shown_cache=1001, unanswered=64))

    def test_a_row_without_its_increment_is_allowed_only_where_clients_left(self):
        left = {"rows": 1010, "increments": 1004, "shown_total": 1010, "shown_cache": 1004}
        self.assertEqual(problems(**left, unanswered=64), [])
        self.assertTrue(problems(**left, unanswered=64, exact=True))

    def test_the_page_shows_what_the_stores_hold(self):
        self.assertTrue(problems(shown_total=999))
        self.assertTrue(problems(shown_cache=1001))


class LoadTest(unittest.TestCase):
    def test_a_report_is_read(self):
        report = read_report("wrk", REPORT, "")
        self.assertEqual((report["ok"], report["in_flight"], report["p50_ms"]), (3018, 64, 0.639))

    def test_of_several_loads_counts_add_up_and_the_largest_time_and_size_stand(self):
        one = {"ok": 10, "seconds": 2, "visits_per_second": 5, "bytes": 900, "p99_ms": 3}
        other = {"ok": 20, "seconds": 3, "visits_per_second": 7, "bytes": 800, "p99_ms": 1}
        both = {"ok": 30, "seconds": 3, "visits_per_second": 12, "bytes": 900, "p99_ms": 3}
        self.assertEqual(add_up([one, other]), both)

    def test_a_load_is_thrown_out_if_the_machine_stood_still(self):
        self.assertEqual(self.wrk_that_takes(1.1)["ok"], 1)
        with self.assertRaisesRegex(BenchError, "stood still"):
            self.wrk_that_takes(60)

    def wrk_that_takes(self, seconds: float) -> dict[str, float]:
        """What run_load makes of the report of a load of one second that took so long."""
        server = SimpleNamespace(ports=[1], contender=PGBENCH)
        with tempfile.TemporaryDirectory() as folder, patch("harness.BENCH", Path(folder)):
            script = Path(folder) / "visits-wrk.sh"
            report = f"ok 1\\nseconds {seconds}\\nmax_ms 1\\n"
            script.write_text(f"#!/bin/sh\nprintf '{report}'\n")
            script.chmod(0o755)
            return run_load("wrk", server, 1, 1)

    def test_another_text_is_an_error(self):
        with self.assertRaisesRegex(BenchError, "unable to connect"):
            read_report("wrk", "", "unable to connect")

    def test_whatever_a_server_is_called_its_log_is_kept(self):
        with tempfile.TemporaryDirectory() as folder, patch("stores.LOGS", Path(folder)):
            with process(["echo", "said"], "1,000 listeners of /events") as server:
                server.wait()
            [log] = Path(folder).iterdir()
            self.assertEqual(log.read_text(), "said\n")

    def test_cpu_of_children_counts_while_they_live_and_after(self):
        burn = "import time\nwhile time.process_time() < 0.3: pass"
        run = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n"
        script = run + "print('over', flush=True)\nsys.stdin.read()"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen([sys.executable, "-c", script], **pipes) as child:
            self.assertEqual(child.stdout.readline(), "over\n")
            self.assertGreaterEqual(cpu_seconds(child.pid), 0.28)


class ScriptTest(unittest.TestCase):
    def test_what_the_scripts_import_is_there(self):
        for name in ("footprint", "profile"):
            for node in ast.parse((BENCH / name).read_text()).body:
                if isinstance(node, ast.ImportFrom):
                    module = importlib.import_module(node.module)
                    missing = [each.name for each in node.names if not hasattr(module, each.name)]
                    self.assertEqual(missing, [], f"{name} imports it from {node.module}")


class ReportTest(unittest.TestCase):
    def results(self, folder: str, *arguments: str) -> Results:
        results = Results(parse([*arguments, "--connections", "64", "--out", folder]))
        results.names = ["a", "b"]
        rates = [("a", 1, 100), ("b", 1, 150), ("a", 2, 100), ("a", 3, 10), ("b", 3, 20)]
        rates = [(*rate, None) for rate in rates] + [("b", 2, 900, "its check failed")]
        for name, number, rate, reason in rates:
            load = {"name": name, "tool": "wrk", "connections": 64, "thrown_out": reason}
            results.records.append(load | {"round": number, "visits_per_second": rate})
        return results

    def test_a_pair_counts_only_when_both_its_sides_do(self):
        with tempfile.TemporaryDirectory() as folder:
            results = self.results(folder, "--snapshot")
            self.assertEqual(results.ratios("visits_per_second", "b", "wrk", 64), [1.5, 2])
            self.assertIn("| 1.750 (1.500 to 2.000) |", results.report({}))

    def test_the_chart_is_well_formed(self):
        with tempfile.TemporaryDirectory() as folder:
            self.results(folder, "--tools", "wrk").report({})
            chart = xml.dom.minidom.parse(str(Path(folder) / "visits.svg"))
            self.assertEqual(len(chart.getElementsByTagName("text")), 5)

    def test_figures(self):
        self.assertEqual(
            [show(value) for value in (12345.6, 12.34, 1.234)], ["12,346", "12.3", "1.23"]
        )
        self.assertEqual(spread([1, 3, 2]), "2.00 (1.00 to 3.00)")
        self.assertEqual(spread([]), "-")


if __name__ == "__main__":
    unittest.main()

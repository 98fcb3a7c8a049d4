"""The command line of bench/run."""

import argparse
from pathlib import Path

CONNECTIONS = [1, 16, 64, 256, 1024]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run",
        description="Measures visit throughput on private stores and checks that every 200 is one row and one "
        "increment. Without a mode it compares visitas with its peers.",
    )
    mode = parser.add_argument_group("modes (at most one)").add_mutually_exclusive_group()
    mode.add_argument("--baseline", metavar="NAME|BINARY", help="visitas against another build of it, in pairs")
    mode.add_argument("--rows", metavar="N", type=int, help="visitas with N rows in the table against none, in pairs")
    mode.add_argument(
        "--processes",
        metavar="2,4",
        type=_numbers,
        help="several visitas processes on one database against one, in pairs",
    )
    mode.add_argument("--alone", action="store_true", help="one client of visitas against pgbench, in pairs")
    mode.add_argument("--save-baseline", metavar="NAME", help="keep the present build under this name, measure nothing")

    what = parser.add_argument_group("what is measured")
    what.add_argument(
        "--quick",
        action="store_true",
        help="about 3 minutes: wrk alone, 64 and 256 connections, 1 s each, one warm-up a contender",
    )
    what.add_argument("--only", metavar="NAMES", type=lambda text: text.split(","), help="these contenders alone")
    what.add_argument("--connections", metavar="1,16,...", type=_numbers)
    what.add_argument("--tools", metavar="wrk,oha", type=lambda text: text.split(","))
    what.add_argument("--rounds", metavar="N", type=int)
    what.add_argument("--seconds", metavar="S", type=int, help="length of one measured load")
    what.add_argument("--warm-up", metavar="S", type=int)
    what.add_argument(
        "--visitas",
        metavar="BINARY",
        type=Path,
        help="this binary instead of building the checkout's target/release/visitas",
    )

    where = parser.add_argument_group("where")
    where.add_argument("--out", metavar="DIRECTORY", type=Path, help="default: bench/runs/DATE-MACHINE")
    where.add_argument(
        "--lock",
        metavar="FILE",
        type=Path,
        help="hold this lock file while measuring, to take turns with others on the machine",
    )
    options = parser.parse_args(arguments)
    _fill_in(options)
    unknown = set(options.tools) - {"wrk", "oha"}
    if unknown:
        parser.error(f"--tools takes wrk and oha, not {', '.join(sorted(unknown))}")
    return options


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _fill_in(options: argparse.Namespace) -> None:
    """Defaults by mode: pairs are more and shorter, since a pair's ratio is steadier than its rates."""
    pairs = bool(options.baseline or options.rows or options.processes or options.alone)
    quick = options.quick
    options.tools = options.tools or (["wrk"] if quick or pairs else ["wrk", "oha"])
    if options.alone:
        options.connections = [1]
    options.connections = options.connections or ([64, 256] if quick or pairs else CONNECTIONS)
    options.rounds = options.rounds or ((3 if quick else 9) if pairs else 3)
    options.seconds = options.seconds or (1 if quick else 3 if pairs else 4)
    options.warm_up = options.warm_up or 1

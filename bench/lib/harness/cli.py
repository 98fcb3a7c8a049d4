"""The run: installs and builds, measures what was asked for, writes the summary."""

import datetime
import os
import shlex
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

from . import charts, comparison_report, machine, pairs_report, summary
from . import options as command_line
from .compare import Plan, compare
from .contenders import BENCH, CHECKOUT, Contender, everyone, visitas
from .evidence import Evidence
from .pairs import Variant, run_pairs
from .point import Conditions
from .sizes import sizes
from .stores import Stores

CACHE = Path(os.environ.get("BENCH_CACHE", BENCH / ".cache"))
BASELINES = CACHE / "baselines"
SKIPPED = 3  # the exit code of a build script for a peer that cannot be had here


def main() -> int:
    # By exception, so that a run that is ended stops its servers and removes their data.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options = command_line.parse()
    try:
        binary = _binary(options)
        if options.save_baseline:
            return _save_baseline(binary, options.save_baseline, str(options.visitas or machine.commit()))
        subprocess.run([str(BENCH / "lib" / "install"), str(CACHE)], check=True)
        return _measure(options, binary)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except subprocess.CalledProcessError as error:
        print(f"{shlex.join(map(str, error.cmd))} ended with {error.returncode}", file=sys.stderr)
        return SKIPPED if error.returncode == SKIPPED else 1


def _binary(options: Namespace) -> Path:
    """The build of visitas to measure."""
    if options.visitas:
        return options.visitas.resolve()
    if not options.only or any(name.startswith("visitas") for name in options.only):
        subprocess.run(["cargo", "build", "--release", "--locked"], cwd=CHECKOUT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", CHECKOUT / "target")).resolve() / "release" / "visitas"


def _save_baseline(binary: Path, name: str, origin: str) -> int:
    BASELINES.mkdir(parents=True, exist_ok=True)
    shutil.copy2(binary, BASELINES / name)
    (BASELINES / f"{name}.origin").write_text(origin + "\n")
    print(f"kept as baseline {name}: {origin}")
    return 0


def _measure(options: Namespace, binary: Path) -> int:
    evidence = Evidence(_directory(options), options.lock)
    conditions = Conditions(options.seconds, options.warm_up, CACHE / "oha" / "bin" / "oha")
    plan = Plan(options.rounds, options.tools, options.connections, conditions, warm_up_once=options.quick)
    facts = machine.facts() | machine.versions(CACHE)
    variants = _variants(options, binary, facts)
    contenders = [] if variants else _contenders(options, binary, evidence)
    with Stores() as stores:
        facts |= machine.settings(stores)
        facts["rounds, seconds, warm-up"] = f"{plan.rounds}, {options.seconds} s, {options.warm_up} s"
        try:
            if variants:
                run_pairs(variants, plan, stores, evidence)
            else:
                compare(contenders, plan, stores, evidence)
        except (KeyboardInterrupt, SystemExit):
            facts["cut short"] = "yes: the figures are of the rounds until then"
            raise
        finally:
            facts["load at the end"] = f"{os.getloadavg()[0]:.2f}"
            _report(variants, contenders, plan, evidence, facts)
    return _outcome(evidence)


def _directory(options: Namespace) -> Path:
    if options.out:
        return options.out
    wanted = BENCH / "runs" / f"{datetime.date.today()}-{machine.slug()}"
    directory, number = wanted, 1
    while directory.exists():
        number += 1
        directory = wanted.with_name(f"{wanted.name}-{number}")
    return directory


def _variants(options: Namespace, binary: Path, facts: dict[str, str]) -> list[Variant]:
    """The sides of the pairs, the reference first; none when this is a comparison with the peers."""
    contender = visitas(binary)
    if options.baseline:
        kept = BASELINES / options.baseline
        other = kept if kept.exists() else Path(options.baseline).resolve()
        if not other.exists():
            raise SystemExit(f"--baseline: neither a kept name nor a file: {options.baseline}")
        origin = kept.with_name(f"{kept.name}.origin")
        facts["baseline"] = origin.read_text().strip() if origin.exists() else str(other)
        return [Variant("baseline", visitas(other)), Variant("present", contender)]
    if options.rows:
        return [Variant("no rows", contender), Variant(f"{options.rows} rows", contender, rows=options.rows)]
    if options.processes:
        several = [Variant(f"{count} processes", contender, processes=count) for count in options.processes]
        return [Variant("1 process", contender)] + several
    if options.alone:
        return [Variant("pgbench", None), Variant("visitas", contender)]
    return []


def _contenders(options: Namespace, binary: Path, evidence: Evidence) -> list[Contender]:
    """Those asked for that can be built here."""
    known = everyone(binary)
    names = [contender.name for contender in known]
    unknown = set(options.only or []) - set(names)
    if unknown:
        raise SystemExit(f"--only: unknown {', '.join(sorted(unknown))}; known: {', '.join(names)}")
    wanted = [contender for contender in known if not options.only or contender.name in options.only]
    return [contender for contender in wanted if _built(contender, evidence)]


def _built(contender: Contender, evidence: Evidence) -> bool:
    if contender.build is None:
        if not Path(contender.program).exists():
            evidence.skip(contender.name, f"{contender.program} does not exist")
            return False
        return True
    done = subprocess.run(contender.build, stdout=sys.stderr)
    if done.returncode != 0:
        evidence.skip(contender.name, f"its build ended with {done.returncode}")
    return done.returncode == 0


def _report(
    variants: list[Variant], contenders: list[Contender], plan: Plan, evidence: Evidence, facts: dict[str, str]
) -> None:
    drawn: list[str] = []
    if variants:
        title = f"visitas in pairs: {', '.join(variant.name for variant in variants)}"
        sections = pairs_report.sections(variants, plan, evidence)
    else:
        title = "visitas and its peers"
        measured = {contender.name: sizes(CACHE / contender.program) for contender in contenders}
        sections = comparison_report.sections(contenders, plan, evidence, measured)
        drawn = charts.draw(contenders, plan, evidence, evidence.directory)
    command = shlex.join(["bench/run", *sys.argv[1:]])
    summary.write(f"{title}, {datetime.date.today()}", command, sections, drawn, facts, evidence)
    evidence.close()
    print((evidence.directory / "summary.md").read_text())
    print(f"in {evidence.directory}")


def _outcome(evidence: Evidence) -> int:
    """1 when an account was off; where a skip must not pass unseen (CI), a skip is an error too."""
    if any(point["thrown_out"] for point in evidence.points):
        return 1
    return SKIPPED if evidence.skipped and os.environ.get("CI") == "true" else 0

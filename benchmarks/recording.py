"""The command line of a benchmark, and its record: figures with limits, date, commit, machine and load, as JSON.

A benchmark is a file beside this one that ends with

    recording.run("data", __doc__, measure, LIMITS)

where `measure(quick)` returns figures by name. `python benchmarks/data.py` writes them to docs/benchmarks/data.json;
with `--quick` it measures a small case, to see that it runs, and writes nothing. Either way the last line that is
printed is the JSON. `--check` ends with exit code 1 where a limit is not held, with 2 where nothing can be measured.
`python benchmarks/figures.py` brings what was written into the pages of documentation.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import psutil

from xlite_search import limits as limits_of_process
from xlite_search import storage

ROOT = Path(__file__).absolute().parents[1]
HERE, RECORDS = ROOT / "benchmarks", ROOT / "docs" / "benchmarks"
#: files of this folder that measure nothing
HELPERS = (
    *(
        "clients",
        "curves",
        "figures",
        "gpu_checks",
        "gpu_switches",
        "halving",
        "peer_plain",
        "peer_study",
        "recording",
        "simulated",
    ),
)
#: benchmarks that want more than any machine has, and what is said of one that has written nothing
WANTING = {"gpu": "no GPU was to be had"}
#: significant digits of a figure
DIGITS = 6
#: files that change no figure
PROSE = (":(exclude)docs", ":(exclude)*.md")

Measure = Callable[[bool], Mapping[str, float]]


@dataclass(frozen=True)
class Limit:
    """What a figure has to keep to; both ends are allowed."""

    least: float = -math.inf
    most: float = math.inf

    def holds(self, figure: float) -> bool:
        return self.least <= figure <= self.most

    def ends(self) -> dict[str, float]:
        """As JSON has it: infinite ends are left out."""
        return {end: value for end, value in asdict(self).items() if math.isfinite(value)}

    def __str__(self) -> str:
        if len(self.ends()) == 2:
            return f"{self.least:g} to {self.most:g}"
        return f"at least {self.least:g}" if math.isfinite(self.least) else f"at most {self.most:g}"


class Skipped(Exception):
    """Why a benchmark cannot measure here, in a sentence."""


@dataclass(frozen=True)
class Provenance:
    """When, where and of which code.

    clean       whether tracked files, but for documentation, were those of the commit
    load        average over one minute at the start, which has what ended right before
    busy        share of the cores that was busy in the second before the start
    memory_gib  that the process may use, as it may use `cores`
    gpu         the card, where torch sees one
    seconds     that it took
    """

    date: str
    commit: str
    clean: bool
    load: float
    busy: float
    cpu: str = ""
    cores: int = 0
    memory_gib: float = 0.0
    python: str = ""
    torch: str = ""
    seconds: int = 0
    gpu: str = ""

    def __str__(self) -> str:
        day = date.fromisoformat(self.date)
        changed = "" if self.clean else " with changes"
        machine = f"{self.cpu}, {self.cores} cores, {self.memory_gib:.3g} GiB, Python {self.python}, torch {self.torch}"
        machine += f", {self.gpu}" if self.gpu else ""
        load = f"load average {self.load:.2f} and {self.busy:.0%} of the cores busy at the start"
        return f"{day.day} {day:%B %Y}, commit {self.commit}{changed}; {machine}; {load}; {self.seconds:,} s in all"


def names() -> list[str]:
    """Of all benchmarks."""
    return sorted(file.stem for file in HERE.glob("*.py") if file.stem not in HELPERS)


def run(
    name: str, about: str | None, measure: Measure, limits: Mapping[str, Limit], *, on_cpu: Measure | None = None
) -> None:
    """Reads the command line, measures, says of each limit whether it is held, and keeps and prints the figures.

    `on_cpu` is what `--quick --cpu` measures, of a benchmark that is of a GPU; None: it has no such option.
    """
    parser = argparse.ArgumentParser(
        prog=f"{name}.py",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--quick", action="store_true", help="a small case, to see that it runs; nothing is written")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a limit is not held")
    if on_cpu:
        parser.add_argument("--cpu", action="store_true", help="with --quick: the same code on this machine's CPU")
    given = parser.parse_args()
    if on_cpu and given.cpu:
        if not given.quick:
            parser.error("--cpu wants --quick: figures of a CPU are none of a GPU")
        measure = on_cpu
    begun, started = before(), time.perf_counter()
    try:
        figures = measure(given.quick)
    except Skipped as why:
        print(f"skipped: {why}")
        if given.check:
            sys.exit(2)
        return
    held = keep(name, figures, limits, after(begun, time.perf_counter() - started), quick=given.quick)
    if given.check and not held:
        sys.exit(1)


def keep(
    name: str, figures: Mapping[str, float], limits: Mapping[str, Limit], provenance: Provenance, *, quick: bool = False
) -> bool:
    """Prints of each limit whether it is held, and the record; unless `quick`, writes it to docs/benchmarks/NAME.json.

    Whether all limits are held that were measured.

    Raises ValueError for a figure that is not finite, and for a limit without figure in a whole run.
    """
    odd = [figure for figure, value in figures.items() if not math.isfinite(value)]
    missing = [] if quick else sorted(limits.keys() - figures.keys())
    if odd or missing:
        raise ValueError(f"{name}: not finite: {odd}; limited, but not measured: {missing}")
    rounded = {figure: _rounded(value) for figure, value in figures.items()}
    judged = {}
    for figure, limit in limits.items():
        if figure in rounded:
            held = limit.holds(rounded[figure])
            judged[figure] = {**limit.ends(), "held": held}
            print(f"{figure} {rounded[figure]:g}, limit {limit}: {'held' if held else 'NOT held'}")
        else:
            print(f"{figure}, limit {limit}: not measured")
    made = {what: said for what, said in asdict(provenance).items() if what != "gpu" or said}
    record = {**rounded, "limits": judged, "provenance": made}
    if quick:
        print("--quick: the case is too small for these figures to say anything; nothing is written")
    else:
        storage.write_atomic(RECORDS / f"{name}.json", (json.dumps(record, indent=1) + "\n").encode())
        print(f"wrote docs/benchmarks/{name}.json; `python benchmarks/figures.py` brings it into the pages")
    print(json.dumps(record))
    return all(limit["held"] for limit in judged.values())


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.{DIGITS}g}")


def before() -> Provenance:
    """What can be known only before anything is measured."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *PROSE)
    return Provenance(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        commit=_git("rev-parse", "--short=12", "HEAD") or "unknown",
        clean=changed == "",
        load=round(psutil.getloadavg()[0], 2),
        busy=round(psutil.cpu_percent(interval=1) / 100, 3),
    )


def after(begun: Provenance, seconds: float) -> Provenance:
    """With the machine. This imports torch, which may not be there while memory is measured."""
    from xlite_search.provenance import environment

    found = environment()
    return replace(
        begun,
        cpu=found["cpu"],
        cores=limits_of_process.cores(),
        memory_gib=round(limits_of_process.memory() / 2**30, 1),
        python=found["python"],
        torch=found["torch"],
        gpu="" if found["gpu"] == "none" else f"{found['gpu']}, driver {found['driver']}, CUDA {found['cuda']}",
        seconds=round(seconds),
    )


def _git(*arguments: str) -> str | None:
    """What git prints; None where it fails or is not there."""
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def interleaved(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each case, `[round]`; each has its turn in every round, in the same load; the first warms up."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name, work in cases.items():
            started = time.perf_counter()
            work()
            if turn:
                times[name].append(time.perf_counter() - started)
    return times

"""What the table over the seeds claims, against what is true: false claims among equals, and coverage.

    python benchmarks/claims.py [--studies 1000]

Each study is drawn anew: patients with one to three images, findings as rare as said, runs whose scores are a common
part, a part of their setting's, one of their run's, and the truth. Settings are equal by construction, so that every
gap's true value is 0. The last line is JSON: what was seen, its standard error, and the limit.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xlite_search.records import RunRecord
from xlite_search.results.inference import influence
from xlite_search.results.paired import Setting, ranked


@dataclass(frozen=True)
class Design:
    """One kind of study.

    prevalences  of each finding
    setting      standard deviation, over images, of what all seeds of a setting share: the patients' chance
    run          standard deviation, over runs, of how well they tell a finding: training's chance
    """

    name: str
    patients: int
    prevalences: tuple[float, ...]
    settings: int
    seeds: int
    setting: float
    run: float


COMMON = (0.1, 0.05, 0.02)
EQUALS = (
    Design("patients' chance", 300, COMMON, 8, 3, setting=0.5, run=0.0),
    Design("training's chance", 300, COMMON, 8, 3, setting=0.0, run=0.15),
    Design("both", 300, COMMON, 8, 3, setting=0.3, run=0.08),
    Design("both, five seeds", 300, COMMON, 8, 5, setting=0.3, run=0.08),
)
#: prevalences of 600 images on average: 4 to 8 positives, 16 or more
RARE, FREQUENT = (0.013, 0.010, 0.007), (0.2, 0.1, 0.05)
PAIRS = (
    Design("rare, patients' chance", 300, RARE, 2, 5, setting=0.5, run=0.0),
    Design("rare, both", 300, RARE, 2, 3, setting=0.3, run=0.08),
    Design("frequent, patients' chance", 300, FREQUENT, 2, 5, setting=0.5, run=0.0),
    Design("frequent, both", 300, FREQUENT, 2, 3, setting=0.3, run=0.08),
    Design("frequent, training's chance", 300, FREQUENT, 2, 3, setting=0.0, run=0.15),
)
RARE_POSITIVES, FREQUENT_POSITIVES = (4, 8), (16, 600)
FALSE_CLAIMS, COVERAGE_RARE, COVERAGE = 0.06, 0.92, (0.93, 0.97)


def drawn(design: Design, random: np.random.Generator, positives: tuple[int, int] = (2, 10_000)) -> list[Setting]:
    """The table of a study whose findings all have so many positives."""
    while True:
        groups = np.repeat(np.arange(design.patients), random.integers(1, 4, design.patients))
        truth = random.random((len(groups), len(design.prevalences))) < design.prevalences
        there = truth.sum(axis=0)
        if (there >= positives[0]).all() and (there <= positives[1]).all():
            break
    shape = truth.shape
    common = random.normal(size=shape) + 0.6 * random.normal(size=(design.patients, shape[1]))[groups]
    settings, influences = [], {}
    for setting in range(design.settings):
        own = design.setting * random.normal(size=shape)
        runs = {}
        for seed in range(design.seeds):
            strength = 1.2 + design.run * random.normal(size=shape[1])
            scores = common + own + 0.3 * random.normal(size=shape) + strength * truth
            run = RunRecord(Path(), f"{setting}-{seed}", "trial", f"{setting} seed={seed}", {}, {"seed": seed})
            runs[seed] = run
            influences[run.key] = influence(scores, truth, groups)
        settings.append(runs)
    return ranked(settings, influences)


@dataclass(frozen=True)
class Share:
    """Of studies; with its standard error."""

    design: str
    of: str
    share: float
    error: float
    studies: int
    limit: str
    kept: bool


def false_claims(design: Design, studies: int, seed: int) -> Share:
    """Studies of equal settings in which at least one row says `worse` (or `better`)."""
    random = np.random.default_rng(seed)
    wrong = [any(each.verdict in ("worse", "better") for each in drawn(design, random)) for _ in range(studies)]
    share, error = _share(wrong)
    return Share(design.name, "a false claim", share, error, studies, f"<= {FALSE_CLAIMS}", share <= FALSE_CLAIMS)


def coverage(design: Design, studies: int, seed: int) -> Share:
    """Studies of two settings, neither of which was chosen, whose interval has the true gap."""
    random, rare = np.random.default_rng(seed), design.prevalences == RARE
    positives = RARE_POSITIVES if rare else FREQUENT_POSITIVES
    share, error = _share([drawn(design, random, positives)[1].verdict == "tied" for _ in range(studies)])
    kept = share >= COVERAGE_RARE if rare else COVERAGE[0] <= share <= COVERAGE[1]
    limit = f">= {COVERAGE_RARE}" if rare else f"{COVERAGE[0]} to {COVERAGE[1]}"
    return Share(design.name, "the interval covers", share, error, studies, limit, kept)


def _share(seen: list[bool] | NDArray[np.bool_]) -> tuple[float, float]:
    share = float(np.mean(seen))
    return share, math.sqrt(share * (1 - share) / len(seen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = []
    for measure, designs in ((false_claims, EQUALS), (coverage, PAIRS)):
        for design in designs:
            seen = measure(design, given.studies, given.seed)
            found.append(seen)
            about = f"{design.settings} settings x {design.seeds} seeds, {design.name}"
            print(f"{about}: {seen.of} {seen.share:.3f} +- {seen.error:.3f} of {seen.studies}; wanted {seen.limit}")
    print(json.dumps({"seed": given.seed, "claims": [asdict(each) for each in found]}))


if __name__ == "__main__":
    main()

"""What the table over the seeds claims, against what is true: false claims among equals, and coverage.

    python benchmarks/claims.py [--quick]

Each study is drawn anew: patients with one to three images, findings as rare as said, runs whose scores are a common
part, a part of their setting's, one of their run's, and the truth. Settings are equal by construction, so that every
gap's true value is 0.

    false_claims_DESIGN  share of studies of equal settings in which at least one row says `worse` (or `better`)
    coverage_DESIGN      share of studies of two settings, neither of which was chosen, whose interval has the true gap
    ..._error            its standard error

They are exact for the seed: nothing is timed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import recording
from numpy.typing import NDArray
from recording import Limit

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

    def figure(self, of: str) -> str:
        """The name of a figure: `false_claims_both_five_seeds`."""
        return "_".join([of, *re.findall("[a-z]+", self.name.replace("'", ""))])


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
STUDIES, QUICK_STUDIES, SEED = 1000, 10, 0
FALSE_CLAIMS, COVERAGE_RARE, COVERAGE = Limit(most=0.06), Limit(least=0.92), Limit(least=0.93, most=0.97)
LIMITS = {design.figure("false_claims"): FALSE_CLAIMS for design in EQUALS} | {
    design.figure("coverage"): COVERAGE_RARE if design.prevalences == RARE else COVERAGE for design in PAIRS
}


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

    share: float
    error: float


def false_claims(design: Design, studies: int, seed: int) -> Share:
    """Studies of equal settings in which at least one row says `worse` (or `better`)."""
    random = np.random.default_rng(seed)
    wrong = [any(each.verdict in ("worse", "better") for each in drawn(design, random)) for _ in range(studies)]
    return _share(wrong)


def coverage(design: Design, studies: int, seed: int) -> Share:
    """Studies of two settings, neither of which was chosen, whose interval has the true gap."""
    random = np.random.default_rng(seed)
    positives = RARE_POSITIVES if design.prevalences == RARE else FREQUENT_POSITIVES
    return _share([drawn(design, random, positives)[1].verdict == "tied" for _ in range(studies)])


def _share(seen: list[bool] | NDArray[np.bool_]) -> Share:
    share = float(np.mean(seen))
    return Share(share, math.sqrt(share * (1 - share) / len(seen)))


def measure(quick: bool) -> dict[str, float]:
    studies, found = QUICK_STUDIES if quick else STUDIES, dict[str, float]()
    for name, of, designs in (("false_claims", false_claims, EQUALS), ("coverage", coverage, PAIRS)):
        for design in designs:
            seen, figure = of(design, studies, SEED), design.figure(name)
            found |= {figure: seen.share, f"{figure}_error": seen.error}
            about = f"{design.settings} settings x {design.seeds} seeds, {design.name}"
            print(f"{about}: {name} {seen.share:.3f} +- {seen.error:.3f} of {studies}")
    return found | {"studies": studies, "seed": SEED}


if __name__ == "__main__":
    recording.run("claims", __doc__, measure, LIMITS)

"""Studies drawn anew, in which what is true is known: what `claims.py` judges the comparison of runs by.

Patients have one to three images, findings are as rare as said, and a run's scores are a common part, a part of its
setting's, one of its own, and the truth. Settings are equal by construction: every gap's true value is 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from xlite_search.records import RunRecord
from xlite_search.results import seeds
from xlite_search.results.arms import Arm, over_seeds
from xlite_search.results.inference import Patients, joint
from xlite_search.results.influence import Influence, influence
from xlite_search.results.selection import Winner, winner
from xlite_search.training.metrics import auroc

Array = NDArray[np.float64]
Truth = NDArray[np.bool_]

#: standard deviations, over images, of what all runs share; of it the patients'; and of a run's own
PATIENT, OWN = 0.6, 0.3
STRENGTH = 1.2


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

    @property
    def area(self) -> float:
        """The AUROC of every setting: the mean over all seeds and patients there could be."""
        of_scores = 1 + PATIENT**2 + self.setting**2 + OWN**2
        return float(ndtr(STRENGTH / np.sqrt(2 * of_scores + self.run**2)))


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
#: runs without seeds beside them
ONE_SEED, TWO_RUNS = (Design("one seed", 300, FREQUENT, runs, 1, setting=0.5, run=0.0) for runs in (8, 2))


def patients(
    design: Design, random: np.random.Generator, positives: tuple[int, int] = (2, 10_000)
) -> tuple[Truth, NDArray[np.int64]]:
    """What is there, `[image, finding]`, with so many positives of each; and whose the images are."""
    while True:
        groups = np.repeat(np.arange(design.patients), random.integers(1, 4, design.patients))
        truth = random.random((len(groups), len(design.prevalences))) < design.prevalences
        there = truth.sum(axis=0)
        if (there >= positives[0]).all() and (there <= positives[1]).all():
            return truth, groups


def common_part(truth: Truth, groups: NDArray[np.int64], random: np.random.Generator) -> Array:
    """Of all runs' scores."""
    of_patients = random.normal(size=(groups.max() + 1, truth.shape[1]))
    return np.asarray(random.normal(size=truth.shape) + PATIENT * of_patients[groups])


def settings_of(
    design: Design, random: np.random.Generator, positives: tuple[int, int] = (2, 10_000)
) -> list[list[Influence]]:
    """The runs of a study, `[setting][seed]`."""
    truth, groups = patients(design, random, positives)
    shape, common = truth.shape, common_part(truth, groups, random)
    found = []
    for _ in range(design.settings):
        own = design.setting * random.normal(size=shape)
        runs = []
        for _ in range(design.seeds):
            strength = STRENGTH + design.run * random.normal(size=shape[1])
            runs.append(influence(common + own + OWN * random.normal(size=shape) + strength * truth, truth, groups))
        found.append(runs)
    return found


def table(design: Design, random: np.random.Generator, positives: tuple[int, int] = (2, 10_000)) -> tuple[Arm, ...]:
    """A study's table over its seeds."""
    settings, keys = settings_of(design, random, positives), list[str]()
    groups = []
    for setting, runs in enumerate(settings):
        groups.append(
            {
                seed: RunRecord(Path(), f"{setting}-{seed}", "trial", f"{setting} seed={seed}", {}, {"seed": seed})
                for seed in range(len(runs))
            }
        )
        keys += [run.key for run in groups[-1].values()]
    areas, law, _ = flat(settings)
    return over_seeds(groups, keys, areas, law)[0]


def flat(settings: list[list[Influence]]) -> tuple[Array, Patients, seeds.Places]:
    """Mean AUROCs `[run]`, their joint law, and where each setting's seeds are."""
    runs = [run for of_setting in settings for run in of_setting]
    numbers = iter(range(len(runs)))
    places = [{seed: next(numbers) for seed in range(len(of_setting))} for of_setting in settings]
    return np.array([run.score.mean() for run in runs]), joint(runs), places


@dataclass(frozen=True)
class Search:
    """Runs that are equal in truth, with learning curves: what was seen of them, and what is true, `[run, epoch]`."""

    seen: Array
    true: Array
    best: list[Influence]
    last: list[Influence]

    def winner(self) -> tuple[Winner, float, float]:
        """Who won; what it is worth in truth; and the luck of all runs with these patients, which chose nobody."""
        covariance = joint([*self.best, *self.last]).covariance
        found = winner(list(self.seen), covariance)
        shared = float((self.seen[:, -1] - self.true[:, -1]).mean())
        return found, float(self.true[found.run, self.seen[found.run].argmax()]), shared


#: standard deviations, over images, of what a run's epochs share and of what an epoch's own part is; how much of the
#: latter an epoch has of the one before
OF_RUN, OF_EPOCH, KEPT = 0.4, 0.25, 0.5
EPOCHS = 12


def searches(studies: int, runs: int, seed: int, spread: float = 0.0) -> Iterator[Search]:
    """Studies of `runs` runs of 12 epochs; `spread` is by how much their strengths differ in truth (0.1: by 0.02)."""
    random, design = np.random.default_rng(seed), Design("", 300, FREQUENT, runs, 1, 0, 0)
    learnt = 1 - np.exp(-(np.arange(EPOCHS) + 1) / 2)
    deviation = np.sqrt(2 * (1 + PATIENT**2 + OF_RUN**2 + OF_EPOCH**2))
    for _ in range(studies):
        truth, groups = patients(design, random, (5, 10_000))
        common = common_part(truth, groups, random)
        seen, kept, labels = np.empty((runs, EPOCHS)), [], truth.astype(np.float32)
        strengths = (STRENGTH + spread * random.normal(size=(runs, 1))) * learnt
        for run in range(runs):
            own, scores = OF_RUN * random.normal(size=truth.shape), []
            part = random.normal(size=truth.shape)
            for epoch in range(EPOCHS):
                part = KEPT * part + np.sqrt(1 - KEPT**2) * random.normal(size=truth.shape)
                scores.append(common + own + OF_EPOCH * part + strengths[run, epoch] * truth)
                seen[run, epoch] = auroc(scores[-1], labels).mean()
            kept.append([influence(scores[place], truth, groups) for place in (int(seen[run].argmax()), -1)])
        best, last = (list(column) for column in zip(*kept, strict=True))
        yield Search(seen, ndtr(strengths / deviation), best, last)

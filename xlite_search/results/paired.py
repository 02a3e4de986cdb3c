"""Settings that were run with the same seeds, on the same validation images: by how much one is behind another.

Two runs answer to the same images of the same patients, so that most of what chance does to one it does to the other.
The gap between two settings is the mean, over their n common seeds, of the gap between their macro AUROCs. Chance comes
from two sides (Bouthillier et al. 2021), and the interval has both:

    patients   DeLong's variance of the gap, a patient's images taken together (DeLong et al. 1988, Obuchowski 1997)
    training   the gaps' standard deviation over the seeds, over the root of n, in Student's t of n - 1 degrees
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from xlite_search.errors import XliteError
from xlite_search.records import RunRecord
from xlite_search.training.predictions import Predictions

if TYPE_CHECKING:
    from xlite_search.data.loaders import Data

#: for this one an interval is known
METRIC = "val/auroc_macro"
CONFIDENCE, DRAWS = 0.95, 200_000

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed alone.

    score, spread  mean over the seeds, and standard deviation
    gaps           behind the best setting, of each common seed; below zero is worse. Empty for the best itself
    half           of the mean gap's 95 % interval
    """

    label: str
    seeds: tuple[int, ...]
    score: float
    spread: float
    gaps: tuple[float, ...] = ()
    half: float = 0.0

    @property
    def gap(self) -> float:
        return float(np.mean(self.gaps)) if self.gaps else 0.0

    @property
    def tied(self) -> bool:
        """With the best: zero is in the interval."""
        return abs(self.gap) <= self.half

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | ({"gap": self.gap, "tied": self.tied} if self.gaps else {})


def over_seeds(runs: Sequence[RunRecord], metric: str, data: Callable[[], Data]) -> list[Setting]:
    """The settings that were run with several seeds, best first; each but the first has its gap to it.

    Empty for another metric than the macro AUROC, without two settings that have two seeds in common, and if the data
    or a run's kept predictions are not there. `data` is asked only where there is something to pair.
    """
    groups: dict[str, dict[int, RunRecord]] = {}
    for run in runs:
        groups.setdefault(re.sub(r" ?\bseed=\d+", "", run.label).strip(), {})[run.config.get("seed", 0)] = run
    ranked = sorted((label for label in groups if len(groups[label]) > 1), key=lambda label: -_mean(groups[label]))
    if metric != METRIC or len(ranked) < 2:
        return []
    best = groups[ranked[0]]
    compared = [label for label in ranked[1:] if len(best.keys() & groups[label].keys()) > 1]
    if not compared:
        return []
    try:
        judge = Judge(data())
        found = [_setting(label, groups[label], judge.gaps(groups[label], best)) for label in compared]
    except (XliteError, KeyError):
        return []
    return [_setting(ranked[0], best, None), *found] if found else []


def table(settings: Sequence[Setting]) -> Table:
    found = Table(title="over the seeds: behind the best, on the same images", title_justify="left")
    found.add_column("setting")
    for column in ("seeds", "mean", "sd", "gap", "95 % interval", "of each seed", ""):
        found.add_column(column, justify="right", no_wrap=True)
    for each in settings:
        cells = [str(len(each.seeds)), f"{each.score:.4f}", f"{each.spread:.4f}"]
        if each.gaps:
            interval = f"{each.gap - each.half:+.4f} to {each.gap + each.half:+.4f}"
            gaps = "  ".join(f"{gap:+.4f}" for gap in each.gaps)
            cells += [f"{each.gap:+.4f}", interval, gaps, "tied" if each.tied else "worse"]
        found.add_row(each.label, *cells)
    found.caption = "the interval has the patients' chance and that of training; it is not corrected for many settings"
    return found


class Judge:
    """The validation part: whose images they are, and what is there."""

    def __init__(self, data: Data) -> None:
        table = data.packed.table
        self.rows = {table.names[row]: place for place, row in enumerate(data.val.rows)}
        self.truth = data.val.labels > 0
        self.patients = np.unique([table.patients[row] for row in data.val.rows], return_inverse=True)[1]
        self._known: dict[str, tuple[float, Array]] = {}

    def gaps(self, ours: dict[int, RunRecord], best: dict[int, RunRecord]) -> tuple[Array, float]:
        """Gap of each common seed, `[seed]`, and the standard error of their mean that is due to the patients.

        Raises:
            Damaged: a run's predictions are missing, or damaged.
            KeyError: they are not of these images.
        """
        pairs = [(self.of(ours[seed]), self.of(best[seed])) for seed in sorted(ours.keys() & best.keys())]
        moved = np.mean([mine - other for (_, mine), (_, other) in pairs], axis=0)
        many = len(moved)
        return np.array([a - b for (a, _), (b, _) in pairs]), float(np.sqrt((moved**2).sum() * many / (many - 1)))

    def of(self, run: RunRecord) -> tuple[float, Array]:
        """A run's macro AUROC, and by how much each patient moves it, `[patient]`."""
        if run.key not in self._known:
            answered = Predictions.load(run.predictions_path())
            places = [self.rows[name] for name in answered.images]
            area, moved = macro_auroc(answered.logits.astype(np.float32), self.truth[places])
            of_patients: Array = np.bincount(self.patients[places], weights=moved).astype(np.float64)
            self._known[run.key] = area, of_patients
        return self._known[run.key]


def macro_auroc(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> tuple[float, Array]:
    """Of scores `[image, class]`, over the classes that have one; and each image's share in its error, `[image]`.

    A positive is worth the part of the negatives that it beats, a negative the part of the positives that beat it
    (ties count half). What either is above the AUROC, over the number of its kind, is its share (DeLong et al. 1988).
    """
    areas, moved = [], []
    for of_class, there in zip(scores.T, truth.T, strict=True):
        positives, negatives = np.sort(of_class[there]), np.sort(of_class[~there])
        if len(positives) and len(negatives):
            worth = np.empty(len(there))
            worth[there] = _below(negatives, of_class[there])
            worth[~there] = 1 - _below(positives, of_class[~there])
            areas.append(worth[there].mean())
            moved.append((worth - areas[-1]) / np.where(there, len(positives), len(negatives)))
    return float(np.mean(areas)), np.asarray(np.mean(moved, axis=0))


def half_width(gaps: Array, of_patients: float) -> float:
    """Of the 95 % interval of the mean of gaps `[seed]`, whose standard error that is due to the patients is given."""
    of_training = gaps.std(ddof=1) / np.sqrt(len(gaps))
    random = np.random.default_rng(0)
    error = of_patients * random.standard_normal(DRAWS) + of_training * random.standard_t(len(gaps) - 1, DRAWS)
    return float(np.quantile(np.abs(error), CONFIDENCE))


def _below(ordered: NDArray[np.floating], scores: NDArray[np.floating]) -> Array:
    """The part of `ordered` that is below each score, ties by half."""
    sides = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return np.asarray(sides / (2 * len(ordered)))


def _setting(label: str, group: dict[int, RunRecord], found: tuple[Array, float] | None) -> Setting:
    scores = [run.best_score(METRIC) for run in group.values()]
    gaps = tuple(found[0].tolist()) if found else ()
    half = half_width(*found) if found else 0.0
    return Setting(label, tuple(sorted(group)), float(np.mean(scores)), float(np.std(scores, ddof=1)), gaps, half)


def _mean(group: dict[int, RunRecord]) -> float:
    return float(np.mean([run.best_score(METRIC) for run in group.values()]))

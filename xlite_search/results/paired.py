"""Paired comparison of settings over common seeds, on the same validation images: gaps, intervals, verdicts.

Two runs answer to the same images of the same patients, so that most of what chance does to one it does to the other.
The gap between two settings is the mean, over their n common seeds, of the gap between their mean AUROCs. Chance comes
from two sides (Bouthillier et al. 2021), and the intervals have both:

    patients   `inference.py`: DeLong's variance of the gap, a patient's images taken together
    training   the variance of a run's AUROC that neither its setting nor its seed explains, pooled over all settings,
               or that of the pair's own gaps where it is larger

They hold for all pairs of settings at once, and therefore for the gaps to the best although the same images chose it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xlite_search.data.dataset import Data
from xlite_search.errors import Damaged
from xlite_search.labels import told_apart
from xlite_search.records import RunRecord
from xlite_search.results.inference import Array, Influence, half_widths, influence, joint
from xlite_search.results.seeds import contrasts, of_gaps
from xlite_search.storage import digest
from xlite_search.study_record import homes
from xlite_search.trainable import config_of
from xlite_search.training.metrics import SUPPORT
from xlite_search.training.predictions import Predictions

MACRO, OF_SUPPORTED, OF_FINDING = "val/auroc_macro", "val/auroc_supported", "val/auroc/"
#: a setting and another one are compared on so many common seeds at least
FEWEST_SEEDS = 2

CAPTION = "95 % for all pairs of these settings at once: of the patients' chance and that of training"
UNKNOWN = "unknown where a single patient has all images with a finding, or without it"

Verdict = Literal["better", "tied", "worse", "cannot tell"]
#: a setting's runs, by their seed
Seeds = dict[int, RunRecord]


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed alone.

    score, spread  mean over its seeds, and standard deviation
    gaps           to the best setting, of each common seed; below zero is worse. Empty for the best itself
    half           of the mean gap's 95 % interval; infinite if chance cannot be known
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
    def verdict(self) -> Verdict:
        """Against the best: tied if zero is in the interval."""
        if not math.isfinite(self.half):
            return "cannot tell"
        if abs(self.gap) <= self.half:
            return "tied"
        return "better" if self.gap > 0 else "worse"

    def as_json(self) -> dict[str, Any]:
        half = self.half if math.isfinite(self.half) else None
        return asdict(self) | {"half": half} | ({"gap": self.gap, "verdict": self.verdict} if self.gaps else {})


def over_seeds(
    runs: Sequence[RunRecord], metric: str, data: Callable[[], Data], maker: Callable[[RunRecord], str]
) -> list[Setting]:
    """The settings that were run with several seeds, best first; each but the first has its gap to it.

    The best is the one that is behind none, or least, on the seeds that it has in common with the others. Settings are
    told apart by the resolved configs of their runs and by who trained them (`maker`), never by their labels.

    Empty for another metric than an AUROC, and without two settings that have two seeds in common. `data` is asked only
    where there is something to pair.

    Raises:
        XliteError: the data, a run's kept predictions or its config are not there, or not what they were.
    """
    if not metric.startswith((MACRO, OF_SUPPORTED, OF_FINDING)) or len({_seed(run) for run in runs}) < FEWEST_SEEDS:
        return []
    groups = [group for group in _settings(runs, maker) if len(group) >= FEWEST_SEEDS]
    if not _pairs(groups):
        return []
    judge = Judge(data(), metric)
    influences = {run.key: judge.of(run) for group in groups for run in group.values()}
    return ranked(groups, influences)


class Judge:
    """The validation part, whose images they are and what is there; of the findings that a metric is the mean of."""

    def __init__(self, data: Data, metric: str = MACRO) -> None:
        table = data.packed.table
        self.rows = {table.names[row]: place for place, row in enumerate(data.val.rows)}
        self.truth = data.val.labels > 0
        self.patients = np.unique([table.groups[row] for row in data.val.rows], return_inverse=True)[1]
        self.findings = _findings(metric, data.classes, self.truth)

    def of(self, run: RunRecord) -> Influence:
        """A run's AUROC by finding, and what each patient moves it by.

        Raises Damaged if its predictions are missing or damaged, not numbers, or not of these images.
        """
        answered = Predictions.load(run.predictions_path())
        if set(answered.images) != self.rows.keys() or not np.isfinite(answered.logits).all():
            raise Damaged(f"the predictions of {run.label} are not numbers, or not of these validation images")
        places = [self.rows[name] for name in answered.images]
        return influence(answered.logits[:, self.findings], self.truth[places][:, self.findings], self.patients[places])


def _findings(metric: str, classes: Sequence[str], truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    fewest = np.minimum(truth.sum(axis=0), (~truth).sum(axis=0))
    if metric in (MACRO, OF_SUPPORTED):
        return np.asarray(fewest >= (SUPPORT if metric == OF_SUPPORTED else 1))
    return np.array([name == metric.removeprefix(OF_FINDING) for name in classes])


def _seed(run: RunRecord) -> int:
    return int(run.config.get("seed", 0))


def _settings(runs: Sequence[RunRecord], maker: Callable[[RunRecord], str]) -> list[Seeds]:
    """The runs by setting and seed; a run that several studies have counts once."""
    found: dict[str, Seeds] = {}
    for run in runs:
        config = config_of(run).identity() | {"seed": None}
        setting = digest([config, run.micro_batch, maker(run)])
        found.setdefault(setting, {}).setdefault(_seed(run), run)
    return list(found.values())


def _common(one: Seeds, other: Seeds) -> list[int]:
    return sorted(one.keys() & other.keys())


def _pairs(groups: Sequence[Seeds]) -> list[tuple[int, int]]:
    """Which settings are compared: the numbers of those with enough seeds in common."""
    numbers = itertools.combinations(range(len(groups)), 2)
    return [(a, b) for a, b in numbers if len(_common(groups[a], groups[b])) >= FEWEST_SEEDS]


def ranked(groups: Sequence[Seeds], influences: Mapping[str, Influence]) -> list[Setting]:
    """The best setting, then those that have seeds in common with it by their gaps; `influences` by the runs' keys."""
    place_of = {key: place for place, key in enumerate(influences)}
    places = [{seed: place_of[run.key] for seed, run in group.items()} for group in groups]
    areas, patients = np.array([one.auroc.mean() for one in influences.values()]), joint(list(influences.values()))
    pairs = _pairs(groups)
    common = [_common(groups[one], groups[other]) for one, other in pairs]
    sides = [
        tuple([places[group][seed] for seed in seeds] for group in pair)
        for pair, seeds in zip(pairs, common, strict=True)
    ]
    gaps = [areas[one] - areas[other] for one, other in sides]
    halves = half_widths(contrasts(sides, len(areas)), patients, of_gaps(places, sides, areas, patients.covariance))

    ahead: list[dict[int, tuple[Array, float]]] = [{} for _ in groups]
    for (one, other), gap, half in zip(pairs, gaps, halves, strict=True):
        ahead[one][other], ahead[other][one] = (gap, float(half)), (-gap, float(half))
    paired = [group for group, others in enumerate(ahead) if others]
    best = max(paired, key=lambda group: min(gap.mean() for gap, _ in ahead[group].values()))
    behind = sorted(ahead[best], key=lambda group: float(ahead[best][group][0].mean()))
    names = _names([groups[group] for group in (best, *behind)])
    found = [_setting(names[0], groups[best], areas[list(places[best].values())])]
    for name, group in zip(names[1:], behind, strict=True):
        gap, half = ahead[group][best]
        found.append(_setting(name, groups[group], areas[list(places[group].values())], tuple(gap.tolist()), half))
    return found


def _setting(label: str, group: Seeds, own: Array, gaps: tuple[float, ...] = (), half: float = 0.0) -> Setting:
    return Setting(label, tuple(sorted(group)), float(own.mean()), float(own.std(ddof=1)), gaps, half)


def _names(groups: Sequence[Seeds]) -> list[str]:
    """What to call each setting, the seed left out; of equal ones each says its study."""
    first = [next(iter(group.values())) for group in groups]
    plain = [" ".join(w for w in run.label.split() if w != f"seed={_seed(run)}") for run in first]
    return told_apart([name or str(run.config["model"]) for name, run in zip(plain, first, strict=True)], homes(first))

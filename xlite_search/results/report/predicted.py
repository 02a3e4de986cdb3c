"""ROC and precision-recall curves of a run's validation predictions by finding, with intervals by patient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xlite_search.data.dataset import Data
from xlite_search.records import RunRecord
from xlite_search.results import intervals
from xlite_search.results.bootstrap import bootstrap
from xlite_search.results.inference import CONFIDENCE, joint
from xlite_search.results.influence import influence
from xlite_search.results.paired import Judge
from xlite_search.training.metrics import SUPPORT

Array = NDArray[np.float64]
#: draws of the patients for the bands, places that a band is known at, and points that a curve is drawn with at most
DRAWS, PLACES, POINTS = 400, 51, 200


@dataclass(frozen=True)
class Curve:
    """`x` and `y` of its points; `low` and `high` of its band at `grid`, NaN where it is not known."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    grid: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class FindingCurves:
    """A finding's ROC and precision-recall curves, and the areas below them with 95 % intervals by patient.

    faded  fewer than 10 positives
    """

    finding: str
    positives: int
    prevalence: float
    auroc: float
    auroc_low: float
    auroc_high: float
    ap: float
    ap_low: float
    ap_high: float
    faded: bool
    roc: Curve
    pr: Curve


@dataclass(frozen=True)
class _Sorted:
    """One finding's images, the highest score first: labels, patients, and the last place of each distinct score."""

    there: NDArray[np.bool_]
    groups: NDArray[np.int64]
    ends: NDArray[np.intp]


def curves(run: RunRecord, data: Data) -> list[FindingCurves]:
    """Of the best epoch, the rarest finding first; those without positives or without negatives are left out.

    Raises:
        Damaged: the run's predictions are missing or damaged, or of other images.
    """
    judge = Judge(data)
    logits, truth = judge.logits(run).astype(np.float64), judge.truth[:, judge.findings]
    groups, names = judge.patients, judge.names
    areas = influence(logits, truth, groups)
    precisions = bootstrap(logits[None], truth, groups, names, figures=("ap",)).by_finding("ap", 0)
    weights = _drawn(int(groups.max()) + 1)
    found = []
    for column, (name, precision) in enumerate(zip(names, precisions, strict=True)):
        one = areas.of(np.arange(len(names)) == column)
        area = intervals.own(one.score, joint([one]))[0]
        scores, there = logits[:, column], truth[:, column]
        roc, pr = _curves(scores, there, groups, weights)
        positives, ap = int(there.sum()), _precision(scores, there)
        found.append(
            FindingCurves(
                name,
                positives,
                float(there.mean()),
                area.value,
                area.low,
                area.high,
                ap,
                precision.low,
                precision.high,
                positives < SUPPORT,
                roc,
                pr,
            )
        )
    return sorted(found, key=lambda one: one.positives)


def _precision(scores: Array, there: NDArray[np.bool_]) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(there, scores))


def _curves(
    scores: Array, there: NDArray[np.bool_], groups: NDArray[np.int64], weights: NDArray[np.float32]
) -> tuple[Curve, Curve]:
    """The ROC curve (1 - specificity, sensitivity) and the precision-recall curve (recall, precision)."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    bands = _bands(_Sorted(there[order], groups[order], ends), weights)
    false, true, _ = roc_curve(there, scores)
    precision, recall, _ = precision_recall_curve(there, scores)
    return _curve(false, true, bands[0]), _curve(recall[::-1], precision[::-1], bands[1])


def _curve(x: Array, y: Array, band: tuple[Array, Array]) -> Curve:
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).round().astype(int))
    grid = np.linspace(0, 1, PLACES)
    numbers = (x[kept], y[kept], grid, *band)
    return Curve(*(tuple(float(number) for number in column) for column in numbers))


def _drawn(groups: int) -> NDArray[np.float32]:
    """Each patient once, then how often each is drawn, `[group, draw]`."""
    random = np.random.default_rng(0)
    drawn = [np.bincount(random.integers(groups, size=groups), minlength=groups) for _ in range(DRAWS)]
    return np.stack([np.ones(groups), *drawn], axis=1).astype(np.float32)


def _bands(of: _Sorted, weights: NDArray[np.float32]) -> list[tuple[Array, Array]]:
    """Pointwise intervals of sensitivity at each false positive rate, and of precision at each recall: percentiles of
    the draws, moved by twice what these are above the curve on average (see `bootstrap._interval`)."""
    drawn = weights[of.groups]
    hits = np.cumsum(drawn * of.there[:, None], axis=0)[of.ends]
    false = np.cumsum(drawn * ~of.there[:, None], axis=0)[of.ends]
    grid = np.linspace(0, 1, PLACES)
    sensitivity, precision = np.full((2, PLACES, drawn.shape[1]), math.nan)
    for draw in range(drawn.shape[1]):
        positives, negatives = hits[-1, draw], false[-1, draw]
        if not positives or not negatives:
            continue
        recall, wrong = hits[:, draw] / positives, false[:, draw] / negatives
        sensitivity[:, draw] = np.interp(grid, np.append(0, wrong), np.append(0, recall))
        said = hits[:, draw] + false[:, draw]
        share = np.divide(hits[:, draw], said, out=np.ones_like(said), where=said > 0)
        precision[:, draw] = np.interp(grid, recall, share)
    enough = np.isfinite(sensitivity[0]).mean() > CONFIDENCE
    if not enough or len(np.unique(of.groups[of.there])) < 2:
        return [(np.full(PLACES, math.nan), np.full(PLACES, math.nan))] * 2
    ends = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    return [_moved(one[:, 0], one[:, 1:], ends) for one in (sensitivity, precision)]


def _moved(values: Array, draws: Array, ends: tuple[float, float]) -> tuple[Array, Array]:
    bias = np.nanmean(draws, axis=1) - values
    low, high = np.nanquantile(draws, ends, axis=1) - 2 * bias
    return np.minimum(low, values).clip(0, 1), np.maximum(high, values).clip(0, 1)

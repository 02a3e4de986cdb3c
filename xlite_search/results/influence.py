"""AUROC, average precision and F1 with what each group of images (a patient, a lesion) moves them by.

An image counts once. Were it to count a little more, a figure would move; this derivative, summed over a group's
images, is the group's influence value. The sum of their squares is the figure's variance (the infinitesimal jackknife,
Jaeckel 1972; Efron 1982), and of the differences of two models' values that of their gap. For AUROC it is the variance
of DeLong et al. (1988) for single images, of Obuchowski (1997) for groups of them, each kind of I groups corrected by
I / (I - 1). Where a group has images of both kinds, the correction of their product is the geometric mean of the two
and not Obuchowski's own: the sum stays a sum of squares, so that the values of all runs have a joint normal law.

AP and F1 depend on how frequent a finding is among the patients as well, which is a part of their values. How well
these do where positives are few, the patient bootstrap (`bootstrap.py`) tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlite_search.training.metrics import THRESHOLD, expect_numbers, sigmoid

Array = NDArray[np.float64]
Figure = Literal["auroc", "ap", "f1"]
#: of scores and of what is there, `[image]` each: the figure, and its derivative by how often each image counts
_Derived: TypeAlias = "Callable[[NDArray[np.floating], NDArray[np.bool_]], tuple[float, Array]]"


@dataclass(frozen=True)
class Influence:
    """A figure of each finding and what each group moves it by.

    score   `[finding]`; NaN without a positive or a negative
    values  `[finding, kind, group]`, kind 0 the positives; NaN where a single group has all images of a kind, since
            one tells nothing of how far the next would be
    dof     degrees of freedom, groups that have images of the kind less one, `[finding, kind]`
    """

    score: Array
    values: Array
    dof: Array
    figure: Figure = "auroc"

    def of(self, findings: NDArray[np.bool_]) -> Influence:
        """Of some findings alone."""
        return Influence(self.score[findings], self.values[findings], self.dof[findings], self.figure)


def influence(
    scores: NDArray[np.floating], truth: NDArray[np.bool_], groups: NDArray[np.int64], figure: Figure = "auroc"
) -> Influence:
    """Of scores `[image, finding]`, for F1 logits; `groups` `[image]` numbers them 0, 1, ...

    Raises RunFailed if a score is NaN.
    """
    expect_numbers(scores)
    many = int(groups.max()) + 1 if len(groups) else 0
    columns = zip(np.ascontiguousarray(scores.T), np.ascontiguousarray(truth.T), strict=True)
    found = [_by_group(column, there, groups, many, DERIVED[figure]) for column, there in columns]
    score, values, dof = zip(*found, strict=True)
    return Influence(np.array(score), np.array(values), np.array(dof), figure)


def _by_group(
    scores: NDArray[np.floating], there: NDArray[np.bool_], groups: NDArray[np.int64], many: int, derived: _Derived
) -> tuple[float, Array, Array]:
    values, dof = np.full((2, many), np.nan), np.zeros(2)
    if not there.any() or there.all():
        return np.nan, values, dof
    score, moves = derived(scores, there)
    for kind, chosen in enumerate((there, ~there)):
        theirs = groups[chosen]
        of_kind = np.count_nonzero(np.bincount(theirs))
        dof[kind] = of_kind - 1
        if of_kind > 1:
            moved = np.bincount(theirs, weights=moves[chosen], minlength=many)
            values[kind] = moved * np.sqrt(of_kind / (of_kind - 1))
    return score, values, dof


def _auroc(scores: NDArray[np.floating], there: NDArray[np.bool_]) -> tuple[float, Array]:
    """A positive is worth the part of the negatives that it beats, a negative the part of the positives that beat it;
    what it moves the AUROC by is what it is worth above it, over the number of its kind."""
    worth = _worths(scores, there)
    area = float(worth[there].mean())
    return area, (worth - area) / np.where(there, there.sum(), (~there).sum())


def _worths(scores: NDArray[np.floating], there: NDArray[np.bool_]) -> Array:
    """The part of the other kind that each image beats, `[image]`: counts at the ends of ties, from one sort."""
    order = _order(scores)
    last, positive = ends_of_ties(scores[order]), there[order]
    hits = np.cumsum(positive)[last]
    said = last + 1
    twice = np.stack([2 * (said - hits), 2 * hits])  # negatives and positives below or within, ties by half
    twice -= np.diff(twice // 2, prepend=0)
    parts = twice / (2 * np.array([[len(there) - hits[-1]], [hits[-1]]]))
    tie = np.repeat(np.arange(len(last)), np.diff(said, prepend=0))
    worth = np.empty(len(there))
    worth[order] = np.where(positive, parts[0, tie], 1 - parts[1, tie])
    return worth


def _average_precision(scores: NDArray[np.floating], there: NDArray[np.bool_]) -> tuple[float, Array]:
    """AP = sum over ties of (positives in it / all positives) x precision down to it (scikit-learn's).

    A positive more adds to all of them, and to the precision at its own tie and below; a negative more takes from that.
    """
    order = _order(scores)[::-1]
    last, positive = ends_of_ties(scores[order]), there[order]
    hits, said = np.cumsum(positive, dtype=np.float64)[last], last + 1.0
    gained, precision = np.diff(hits, prepend=0), hits / said
    below = np.cumsum((gained * np.stack([said - hits, -hits]) / said**2)[:, ::-1], axis=1)[:, ::-1]
    score = float((gained * precision).sum() / hits[-1])
    tie = np.repeat(np.arange(len(last)), np.diff(last, prepend=-1))
    moves = np.empty(len(there))
    moves[order] = np.where(positive, (precision - score + below[0])[tie], below[1][tie]) / hits[-1]
    return score, moves


def _f1(logits: NDArray[np.floating], there: NDArray[np.bool_]) -> tuple[float, Array]:
    """F1 = hits / (hits + half of what is missed or falsely said), at a probability of 0.5."""
    said = sigmoid(logits) >= THRESHOLD
    hits, wrong = said & there, said ^ there
    whole = float(hits.sum() + wrong.sum() / 2)
    score = float(hits.sum()) / whole
    return score, (hits - score * (hits + wrong / 2)) / whole


DERIVED: Mapping[Figure, _Derived] = {"auroc": _auroc, "ap": _average_precision, "f1": _f1}


def _order(scores: NDArray[np.floating]) -> NDArray[np.intp]:
    """What sorts them. Sixteen bits are sorted by their digits, much faster than numbers are compared."""
    if scores.dtype != np.float16:
        return np.argsort(scores)
    bits = np.ascontiguousarray(scores).view(np.int16)
    return np.argsort(np.where(bits < 0, bits ^ 0x7FFF, bits), kind="stable")


def ends_of_ties(ordered: NDArray[np.floating]) -> NDArray[np.intp]:
    """The last place of each distinct score, `[tie]`, of scores in order."""
    return np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)

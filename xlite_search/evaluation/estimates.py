"""Estimates of one model's figures with 95 % intervals, by patient: images of one patient are not independent."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from xlite_search.results.intervals import share, student
from xlite_search.spec import Spec
from xlite_search.training.metrics import sigmoid

Array = NDArray[np.float64]
Truth = NDArray[np.bool_]
Groups = NDArray[np.int64]
#: theta -> loss, gradient `[k]` and Hessian `[k, k]`
Objective = Callable[[Array], tuple[float, Array, Array]]
STEPS, ENOUGH, LONGEST = 200, 1e-9, 10.0


class Estimate(Spec):
    """A figure with its 95 % interval; None is what cannot be known."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, value: float, low: float = math.nan, high: float = math.nan) -> Estimate:
        """What is not finite is unknown."""
        return cls(**{name: known(each) for name, each in (("value", value), ("low", low), ("high", high))})

    @classmethod
    def around(
        cls, value: float, error: float, dof: float, least: float = -math.inf, most: float = math.inf
    ) -> Estimate:
        """With Student's interval, cut off at `least` and `most`."""
        if not (math.isfinite(error) and dof > 0):
            return cls.of(value)
        reach = float(student(dof)) * error
        return cls.of(value, max(value - reach, least), min(value + reach, most))


def known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def numbered(groups: Groups) -> Groups:
    """Groups as 0, 1, ..., all of them there."""
    return np.asarray(np.unique(groups, return_inverse=True)[1].reshape(-1), np.int64)


def error_of(moves: Array, groups: Groups) -> float:
    """The standard error of a figure from what each image moves it by, `[image]`: summed by group, G / (G - 1)."""
    sums = np.bincount(numbered(groups), weights=moves)
    many = len(sums)
    return math.sqrt(many / (many - 1) * float(sums @ sums)) if many > 1 else math.nan


def dof_of(truth: Truth, groups: Groups) -> int:
    """Degrees of freedom of a figure of positives and negatives: groups that have the rarer of them, less one."""
    return min(len(np.unique(groups[truth])), len(np.unique(groups[~truth]))) - 1


def proportion(hits: Truth, groups: Groups) -> Estimate:
    """A part of some images with its interval by group (`results.intervals.share`); unknown of none."""
    found = share(hits, groups)
    return Estimate.of(found.value, found.low, found.high)


def minimum(objective: Objective, start: Array) -> Array:
    """Where a smooth loss of few numbers is least: Newton's method, each step halved until the loss falls.

    Where the Hessian is not positive definite its eigenvalues count without their sign.
    """
    at = np.array(start, np.float64)
    loss, gradient, hessian = objective(at)
    for _ in range(STEPS):
        values, vectors = np.linalg.eigh(hessian)
        scale = np.maximum(np.abs(values), 1e-12 * max(float(np.abs(values).max()), 1e-300))
        step = vectors @ ((vectors.T @ gradient) / scale)
        step *= min(1.0, LONGEST / max(float(np.abs(step).max()), ENOUGH))
        while float(np.abs(step).max()) > ENOUGH and not (found := objective(at - step))[0] <= loss:
            step = step / 2
        if float(np.abs(step).max()) <= ENOUGH:
            return at
        at = at - step
        loss, gradient, hessian = found
    return at


def chances(scores: Array, truth: Truth) -> tuple[Array, float]:
    """Probabilities of log-odds, and the cross-entropy summed over images."""
    small = np.exp(-np.abs(scores))
    entropy = np.maximum(scores, 0) + np.log1p(small) - truth * scores
    return np.asarray(np.where(scores >= 0, 1, small) / (1 + small)), float(entropy.sum())


def logistic(features: Array, truth: Truth, offset: Array | float = 0.0) -> Array:
    """Maximum-likelihood weights of features `[image, k]` beside a fixed offset."""

    def objective(weights: Array) -> tuple[float, Array, Array]:
        scores = features @ weights + offset
        chance, loss = chances(scores, truth)
        hessian = (features * (chance * (1 - chance))[:, None]).T @ features
        return loss, features.T @ (chance - truth), hessian

    return minimum(objective, np.zeros(features.shape[1]))


def weight_errors(features: Array, truth: Truth, scores: Array, groups: Groups) -> Array:
    """Standard errors of `logistic`'s weights by group (Liang and Zeger 1986), `[k]`; `scores` are its log-odds."""
    chance = sigmoid(scores)
    hessian = (features * (chance * (1 - chance))[:, None]).T @ features
    if np.linalg.cond(hessian) > 1e12:
        return np.full(features.shape[1], np.nan)
    moves = np.linalg.solve(hessian, (features * (truth - chance)[:, None]).T)
    return np.array([error_of(move, groups) for move in moves])

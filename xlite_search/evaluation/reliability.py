"""Reliability of predicted probabilities: equal-mass bins, calibration error, Brier score, calibration slope.

Everything is of one finding: calibrated log-odds `[image]`, the truth `[image]`, and whose each image is, `[image]`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xlite_search.evaluation.estimates import (
    Array,
    Estimate,
    Groups,
    Truth,
    dof_of,
    error_of,
    logistic,
    numbered,
    proportion,
    weight_errors,
)
from xlite_search.spec import Spec
from xlite_search.training.metrics import sigmoid

BINS = 10
#: images with a finding below which nothing is said of its calibration (Snell 2021: 100 is few, 200 imprecise)
ASSESSABLE = 100


@dataclass(frozen=True)
class Bin:
    """Images of neighbouring probabilities: how many, the mean probability, and the part that has the finding."""

    images: int
    predicted: float
    observed: Estimate


class Figures(Spec):
    """How well probabilities are calibrated.

    ece        mean distance of predicted and observed over `BINS` equal-mass bins
    brier      mean squared distance of probability and truth
    reliability, resolution, uncertainty   brier = reliability - resolution + uncertainty, exactly: what varies within
               bins is counted to the resolution (Stephenson et al. 2008)
    skill      1 - brier / uncertainty; 0 is worth as much as to predict the prevalence
    slope      of a logistic regression of the truth on the log-odds; below 1 they are too extreme
    intercept  by which the log-odds are too low on average, at a slope of 1 (calibration in the large)
    """

    ece: Estimate
    brier: Estimate
    reliability: float
    resolution: float
    uncertainty: float
    skill: Estimate
    slope: Estimate
    intercept: Estimate


def bins_of(probabilities: Array, bins: int = BINS) -> NDArray[np.int64]:
    """Which of at most `bins` bins of equally many images each is in, 0, 1, ...; equal probabilities are in one."""
    ordered = np.sort(probabilities)
    first = np.searchsorted(ordered, probabilities, side="left")
    return numbered(np.asarray(first * bins // max(len(ordered), 1), np.int64))


def bins(probabilities: Array, truth: Truth, groups: Groups) -> list[Bin]:
    """The points of a reliability diagram, from the lowest probability to the highest."""
    inside = bins_of(probabilities)
    chosen = [inside == number for number in range(int(inside.max()) + 1)]
    return [
        Bin(int(some.sum()), float(probabilities[some].mean()), proportion(truth[some], groups[some]))
        for some in chosen
    ]


def figures(logits: Array, truth: Truth, groups: Groups) -> Figures:
    """Of a finding that some images have and others do not."""
    chance = sigmoid(logits)
    reliability, resolution, uncertainty = brier_parts(chance, truth)
    slope, intercept = line(logits, truth, groups)
    brier, skill = brier_and_skill(chance, truth, groups)
    return Figures(
        ece=ece(chance, truth),
        brier=brier,
        reliability=reliability,
        resolution=resolution,
        uncertainty=uncertainty,
        skill=skill,
        slope=slope,
        intercept=intercept,
    )


def brier_and_skill(chance: Array, truth: Truth, groups: Groups) -> tuple[Estimate, Estimate]:
    squares, prevalence = (chance - truth) ** 2, float(truth.mean())
    score, uncertainty = float(squares.mean()), prevalence * (1 - prevalence)
    moves, dof = (squares - score) / len(truth), dof_of(truth, groups)
    brier = Estimate.around(score, error_of(moves, groups), dof, 0.0, 1.0)
    varied = (1 - 2 * prevalence) * (truth - prevalence) / len(truth)
    error = error_of(score * varied / uncertainty**2 - moves / uncertainty, groups)
    return brier, Estimate.around(1 - score / uncertainty, error, dof, most=1.0)


def brier_parts(chance: Array, truth: Truth) -> tuple[float, float, float]:
    """Reliability, resolution and uncertainty of the Brier score."""
    inside, prevalence = bins_of(chance), float(truth.mean())
    sizes = np.bincount(inside).astype(np.float64)
    predicted, observed = (np.bincount(inside, weights=each) / sizes for each in (chance, truth))
    off, hit = chance - predicted[inside], truth - observed[inside]
    within = float((off * off).mean() - 2 * (off * hit).mean())
    reliability = float(sizes @ (predicted - observed) ** 2) / len(truth)
    resolution = float(sizes @ (observed - prevalence) ** 2) / len(truth) - within
    return reliability, resolution, prevalence * (1 - prevalence)


def ece(chance: Array, truth: Truth) -> Estimate:
    """Expected calibration error, without an interval: by chance alone it is above 0, the more the better the model is
    calibrated, and no bootstrap takes that away (of a calibrated model its interval hardly ever has the truth)."""
    inside = bins_of(chance)
    return Estimate.of(float(np.abs(np.bincount(inside, weights=chance - truth)).sum() / len(chance)))


def line(logits: Array, truth: Truth, groups: Groups) -> tuple[Estimate, Estimate]:
    """Calibration slope, and intercept in the large; unknown where the two kinds do not overlap."""
    ones, dof = np.ones((len(logits), 1)), dof_of(truth, groups)
    mean = logistic(ones, truth, logits)
    error = weight_errors(ones, truth, logits + mean[0], groups)[0]
    intercept = Estimate.around(float(mean[0]), float(error), dof)
    least = logits[truth].min(), logits[~truth].min()
    most = logits[truth].max(), logits[~truth].max()
    if least[0] >= most[1] or least[1] >= most[0]:
        return Estimate(), intercept
    features = np.column_stack([logits, ones])
    weights = logistic(features, truth)
    errors = weight_errors(features, truth, features @ weights, groups)
    return Estimate.around(float(weights[0]), float(errors[0]), dof), intercept


def net_benefit(chance: Array, truth: Truth, groups: Groups, thresholds: Array) -> tuple[list[Estimate], list[float]]:
    """Net benefit of acting on probabilities from each threshold on, and of acting on every image (Vickers 2006).

    True positives less false ones at the odds of the threshold, over all images: to act on nobody is worth 0.
    """
    prevalence, found, everyone = float(truth.mean()), list[Estimate](), list[float]()
    for threshold in thresholds.tolist():
        odds = threshold / (1 - threshold)
        worth = (chance >= threshold) * np.where(truth, 1.0, -odds)
        value = float(worth.mean())
        error = error_of((worth - value) / len(worth), groups)
        found.append(Estimate.around(value, error, len(np.unique(groups)) - 1))
        everyone.append(prevalence - (1 - prevalence) * odds)
    return found, everyone


def upper_end(chance: Array) -> float:
    """The probability that a figure's axis ends at: the 99th percentile, rounded up to two digits, at most 1."""
    most = float(np.quantile(chance, 0.99))
    if not most > 0:
        return 1.0
    step = 10.0 ** (math.floor(math.log10(most)) - 1)
    return min(1.0, math.ceil(most / step) * step)

"""95 % intervals of mean AUROCs: of each run by patient, of each setting by patient and training."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtr, stdtrit

from xlite_search.results.inference import CONFIDENCE, ROUNDING, Patients, Training, standard_errors
from xlite_search.results.influence import Array


@dataclass(frozen=True)
class Interval:
    """A figure, or a gap between two, with its 95 % interval; NaN is what cannot be known.

    error  standard error
    """

    value: float
    low: float
    high: float
    error: float

    def as_json(self) -> dict[str, Any]:
        """With null for what cannot be known."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


def student(dof: float | Array, confidence: float = CONFIDENCE) -> Array:
    """By how many standard errors an interval reaches to either side."""
    return np.asarray(stdtrit(dof, (1 + confidence) / 2))


def two_sided(t: Array, dof: float | Array) -> Array:
    """The p-value of Student's t."""
    return np.asarray(2 * stdtr(dof, -np.abs(t)))


def share(chosen: NDArray[np.bool_], groups: NDArray[np.int64], confidence: float = CONFIDENCE) -> Interval:
    """The share of images that are chosen, such as sensitivity among those with a finding; `[image]` twice.

    Clopper and Pearson's interval (1934) of the effective number of images. Unknown without an image.
    """
    if not len(chosen):
        return Interval(np.nan, np.nan, np.nan, np.nan)
    value, error, size = effective(chosen, groups)
    hits, tail = value * size, (1 - confidence) / 2
    low = float(betaincinv(hits, size - hits + 1, tail)) if value > 0 else 0.0
    high = float(betaincinv(hits + 1, size - hits, 1 - tail)) if value < 1 else 1.0
    return Interval(value, min(low, value), max(high, value), error)


def effective(chosen: NDArray[np.bool_], groups: NDArray[np.int64]) -> tuple[float, float, float]:
    """A share, its standard error by group, and how many independent images would tell as much of it (Korn and Graubard
    1998).

    p (1 - p) over the variance; at most all images, at least (sum n)^2 / sum n^2 for groups of n images, which is right
    if the images of a group are all alike. Where all or none are chosen, or all are of one group, it is that.
    """
    number = np.unique(groups, return_inverse=True)[1].reshape(-1)
    sizes = np.bincount(number).astype(np.float64)
    images, many, value = len(chosen), len(sizes), float(chosen.mean())
    least = images**2 / float(sizes @ sizes)
    if not 0 < value < 1 or many < 2:
        return value, math.nan, least
    moved = np.bincount(number, weights=chosen - value) / images
    error = math.sqrt(float(moved @ moved) * many / (many - 1))
    size = float(np.clip(value * (1 - value) / error**2, least, images)) if error > 0 else float(images)
    return value, error, size


def own(
    areas: Array,
    patients: Patients,
    weights: Array | None = None,
    training: Training | None = None,
    confidence: float = CONFIDENCE,
) -> list[Interval]:
    """Of mean AUROCs `[run]`, one interval each, not of all at once: what they would be with other patients.

    Without `training` an interval says nothing of how the same recipe would have done with another seed.

    The interval is made on the scale of log(AUROC / (1 - AUROC)), which ends at 0 and 1 (Pepe 2003), with Student's
    quantile, since the variance is estimated of few patients (degrees of freedom: Satterthwaite 1946). It never ends
    nearer than `_least`: where nearly all positives are above nearly all negatives, the estimated variance is much too
    small. An AUROC of 0 or 1 has `_least` alone, and no standard error; other figures have no `_least`.

    weights   `[setting, run]`: 1/n for each of its n runs; default: each run alone
    training  of means over seeds, `[setting]`: `seeds.of_means`
    """
    weights = np.eye(len(areas)) if weights is None else weights
    values, errors = weights @ areas, standard_errors(weights, patients, training)
    inside = values * (1 - values) > ROUNDING
    known = np.isfinite(errors) & (errors > 0) & inside
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        reach = student(_dof(weights, patients, training), confidence) * errors / (values * (1 - values))
        ends = np.where(known, 1 / (1 + (1 - values) / values * np.exp(np.stack([reach, -reach]))), np.nan)
    of_areas = np.isfinite(errors) & (known | ~inside) & (patients.figure == "auroc")
    least = np.where(of_areas, _least(values, patients, training, confidence), np.nan)
    low, high = np.fmin(ends[0], least[0]), np.fmax(ends[1], least[1])
    rows = np.column_stack([values, low, high, np.where(known, errors, np.nan)])
    return [Interval(*row) for row in rows.tolist()]


def _least(values: Array, patients: Patients, training: Training | None, confidence: float) -> Array:
    """The ends `[end, setting]` that an interval reaches at least, from the AUROC and the numbers of patients alone.

    A score interval (Wilson 1927), as Newcombe's (2006, method 5) for an AUROC: the end L is where (A - L)^2 is
    z^2 V(L), so that A may be 1. One patient's part in the variance is taken for L (1 - L) / 3: exact for scores that
    say nothing; binormal scores have less, exponential ones up to L (1 - L) / 2 (Hanley and McNeil 1982). With m
    patients, the harmonic sum of positive and negative ones over the findings,

        V(L) = L (1 - L) / (3 m (1 + m A (1 - A)))

    whose last factor, about one more than the patients that are ranked wrong, leaves it to the estimated variance as
    soon as there are some. It was found by simulation, of one finding: 5 to 200 positive patients, 200 and 2,000
    negative, AUROC 0.6 to 0.99, exponential and binormal scores (standard deviation of the positives 2/3, 1 and 3/2),
    also with 1 to 4 images a patient. The interval had the truth in 0.93 of 2,000 draws or more in 357 of 360 such
    cases, at least in 0.91; without it in 203, at least in 0.24. In the 164 that had it in 0.94 without, it is 3.5 %
    wider on average. `benchmarks/few_positives.py` has some of them.
    """
    many = (len(patients.dof) / 2) ** 2 / (1 / (patients.dof + 1)).sum()
    trained = 0.0 if training is None else training.variance - training.sampling
    squared, spread = student(np.inf, confidence) ** 2, values * (1 - values)
    part = squared / (3 * many * (1 + many * spread))
    reach = np.sqrt(part * spread + part**2 / 4 + (1 + part) * squared * trained)
    middle = values + part / 2
    ends = np.stack([middle - reach, middle + reach]) / (1 + part)
    return np.stack([ends[0].clip(0, values), ends[1].clip(values, 1)])


def _dof(weights: Array, patients: Patients, training: Training | None) -> Array:
    """Degrees of freedom of each estimated variance, `[setting]`."""
    shares = np.einsum("prs,ir,is->pi", patients.parts, weights, weights, optimize=True)
    of_patients, inverse = shares.sum(axis=0), (shares**2 / patients.dof[:, None]).sum(axis=0)
    dof = of_patients**2 / inverse
    if training is None:
        return np.asarray(dof)
    of_patients = (patients.variance(weights) - training.sampling).clip(min=0)
    both = of_patients + training.variance
    return np.asarray(both**2 / (of_patients**2 / dof + training.variance**2 / training.dof))

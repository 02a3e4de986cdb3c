"""95 % intervals of mean AUROCs: of each run by patient, of each setting by patient and training."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from xlite_search.results.inference import CONFIDENCE, Patients, Training, standard_errors
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


def student(dof: float | Array) -> Array:
    """By how many standard errors a 95 % interval reaches to either side."""
    return np.asarray(stdtrit(dof, (1 + CONFIDENCE) / 2))


def two_sided(t: Array, dof: float | Array) -> Array:
    """The p-value of Student's t."""
    return np.asarray(2 * stdtr(dof, -np.abs(t)))


def own(
    areas: Array, patients: Patients, weights: Array | None = None, training: Training | None = None
) -> list[Interval]:
    """Of mean AUROCs `[run]`, one interval each, not of all at once: what they would be with other patients.

    Without `training` an interval says nothing of how the same recipe would have done with another seed.

    The interval is made on the scale of log(AUROC / (1 - AUROC)), which ends at 0 and 1 (Pepe 2003), with Student's
    quantile, since the variance is estimated of few patients (degrees of freedom: Satterthwaite 1946). Unknown for an
    AUROC of 0 or 1, which has no variance that could be estimated.

    weights   `[setting, run]`: 1/n for each of its n runs; default: each run alone
    training  of means over seeds, `[setting]`: `seeds.of_means`
    """
    weights = np.eye(len(areas)) if weights is None else weights
    values, errors = weights @ areas, standard_errors(weights, patients, training)
    known = np.isfinite(errors) & (errors > 0) & (values > 0) & (values < 1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        reach = student(_dof(weights, patients, training)) * errors / (values * (1 - values))
        ends = 1 / (1 + (1 - values) / values * np.exp(np.stack([reach, -reach])))
    rows = np.column_stack([values, *np.where(known, [*ends, errors], np.nan)])
    return [Interval(*row) for row in rows.tolist()]


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

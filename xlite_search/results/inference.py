"""The joint law of several runs' scores on the same images, and intervals of many gaps between them at once.

The variance of any gap between runs is the sum of squares of the differences of their influence values by group of
images (`influence.py`), so that all gaps have one joint normal law.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xlite_search.results.influence import Array, Figure, Influence

CONFIDENCE, DRAWS = 0.95, 10_000
#: part of the runs' variance below which a gap's is that of equal runs, zero
ROUNDING = 1e-12
#: pairs whose draws are in memory at once
AT_ONCE = 64


@dataclass(frozen=True)
class Patients:
    """The joint law of the mean scores of several runs on the same images.

    covariance  `[run, run]`
    parts       the same of each finding's positives and of its negatives alone, `[part, run, run]`
    dof         of each part
    figure      that the scores are
    """

    covariance: Array
    parts: Array
    dof: Array
    figure: Figure = "auroc"

    def variance(self, contrasts: Array) -> Array:
        """Of contrasts `[pair, run]`: `[pair]`. NaN if a finding has no variance that could be known."""
        return np.asarray((contrasts @ self.covariance * contrasts).sum(axis=1))

    def dof_of(self, contrasts: Array) -> float:
        """Of these variances, taken together (Satterthwaite 1946)."""
        shares = np.tensordot(self.parts, contrasts.T @ contrasts, axes=2)
        total = float((shares**2 / self.dof).sum())
        return float(shares.sum() ** 2 / total) if total else np.inf


def joint(runs: list[Influence]) -> Patients:
    """Of runs on the same images and findings, whose scores are averaged."""
    findings, many = len(runs[0].score), len(runs)
    whole, parts = np.zeros((many, runs[0].values.shape[-1])), []
    for finding in range(findings):
        values = np.array([run.values[finding] for run in runs]) / findings
        whole += values.sum(axis=1)
        parts += [kind @ kind.T for kind in values.transpose(1, 0, 2)]
    shape = (len(parts), many, many)
    return Patients(whole @ whole.T, np.array(parts).reshape(shape), runs[0].dof.reshape(-1), runs[0].figure)


@dataclass(frozen=True)
class Training:
    """The variance of gaps between means over seeds that differs from seed to seed.

    variance  of training's own chance, and of what the patients do to the seeds' runs differently, `[pair]`
    sampling  the latter alone, which is in the patients' variance already, `[pair]`; not more than `variance`
    dof       degrees of freedom of `variance`
    """

    variance: Array
    sampling: Array
    dof: float


def half_widths(contrasts: Array, patients: Patients, training: Training | None = None, draws: int = DRAWS) -> Array:
    """Half of each 95 % interval of gaps between runs, `[pair]`, that hold for all of them at once.

    So they hold for gaps to the best run too, whichever the same data made the best. Of the errors' joint normal law
    the largest is taken, each over its standard error as it would be estimated (Tukey's studentized range, by
    simulation, for correlated means). Infinite where the variance cannot be known.

    contrasts  `[pair, run]`: 1/n for each of a setting's n runs, -1/n for the other's
    """
    errors = standard_errors(contrasts, patients, training)
    largest = np.zeros(draws)
    for _, drawn in studentized(contrasts, patients, training, draws):
        largest = np.maximum(largest, np.abs(drawn).max(axis=1))
    return np.asarray(np.quantile(largest, CONFIDENCE) * errors if largest.any() else errors)


def standard_errors(contrasts: Array, patients: Patients, training: Training | None = None) -> Array:
    """Of gaps between runs, `[pair]`: infinite where the variance cannot be known, 0 between runs that are equal."""
    variance = patients.variance(contrasts)
    if not np.isfinite(variance).all():
        return np.full(len(contrasts), np.inf)
    variance = variance + (training.variance - training.sampling if training else 0.0)
    return np.sqrt(np.where(variance > ROUNDING * np.trace(patients.covariance), variance, 0.0))


def studentized(
    contrasts: Array, patients: Patients, training: Training | None = None, draws: int = DRAWS
) -> Iterator[tuple[NDArray[np.intp], Array]]:
    """Draws of the gaps' errors, each over its standard error as it would be estimated, by their joint normal law.

    Yields the numbers of some pairs and their draws `[draw, pair]`; never the pairs whose standard error is 0 or
    infinite.
    """
    errors = standard_errors(contrasts, patients, training)
    known = np.flatnonzero((errors > 0) & np.isfinite(errors))
    if not len(known):
        return
    random, of_patients = np.random.default_rng(0), patients.variance(contrasts)
    of_training = training.variance - training.sampling if training else np.zeros(len(contrasts))
    sampled = draws_of(random, patients.covariance, draws)
    of_settings = of_patients - training.sampling if training else of_patients
    off = _scale(random, patients.dof_of(contrasts[known]), draws)
    if training:
        trained, off_in_training = random.standard_normal(sampled.shape), _scale(random, training.dof, draws)
    for some in np.array_split(known, -(-len(known) // AT_ONCE)):
        error = sampled @ contrasts[some].T
        spread = of_settings[some].clip(min=0) * off
        if training:
            unit = contrasts[some] / np.linalg.norm(contrasts[some], axis=1)[:, None]
            error += trained @ unit.T * np.sqrt(of_training[some])
            spread += training.variance[some] * off_in_training
        yield some, error / np.sqrt(spread)


def draws_of(random: np.random.Generator, covariance: Array, draws: int) -> Array:
    """Draws `[draw, run]` of a normal law whose covariance may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(random.standard_normal((draws, len(values))) @ (vectors * np.sqrt(values.clip(min=0))).T)


def _scale(random: np.random.Generator, dof: float, draws: int) -> Array:
    """By what an estimated variance may be off, `[draw, 1]`: chi-squared over its degrees of freedom."""
    return np.asarray(random.chisquare(dof, (draws, 1)) / dof) if np.isfinite(dof) else np.ones((draws, 1))

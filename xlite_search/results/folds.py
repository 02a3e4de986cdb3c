"""Folds of a cross-validation: gaps between settings with the variance that overlapping training sets have.

The k folds' gaps are not independent, since each pair of trainings shares patients, so that their variance over k is
too small. Nadeau and Bengio (2003) add what the overlap is worth: the corrected resampled variance of a mean over k
folds is S^2 (1/k + n_test / n_train). Of k folds of equal size n_test / n_train is 1 / (k - 1).

S^2 is what neither the setting nor the fold explains, pooled over all settings, (settings - 1)(folds - 1) degrees of
freedom; of two settings alone it is theirs, and the interval is Nadeau and Bengio's. The patients' chance is in it:
each fold has others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xlite_search.results import seeds
from xlite_search.results.inference import Patients, Training
from xlite_search.results.influence import Array
from xlite_search.results.intervals import Interval, student
from xlite_search.results.seeds import Places

#: settings are compared on so many folds at least
FEWEST_FOLDS = 2


def no_patients(scores: int) -> Patients:
    """The law of scores whose variance over folds has the patients' in it."""
    return Patients(np.zeros((scores, scores)), np.zeros((0, scores, scores)), np.zeros(0))


def of_gaps(places: Places, sides: Sequence[tuple[list[int], ...]], scores: Array, folds: int) -> Training:
    """The variance of each pair's mean gap; `folds` are those of the split, of which these may be a part."""
    plain = seeds.of_gaps(places, sides, scores, np.zeros((len(scores), len(scores))))
    many = np.array([len(one) for one, _ in sides])
    return Training(plain.variance * _overlap(many, folds), np.zeros(len(sides)), plain.dof)


def own(places: Places, scores: Array, folds: int) -> list[Interval]:
    """Of each setting's mean over its folds alone, one interval each, on the scale of log(score / (1 - score))."""
    found = seeds.of_means(places, scores, np.zeros((len(scores), len(scores))))
    many = np.array([len(of) for of in places])
    errors = np.sqrt(found.variance * _overlap(many, folds))
    means = seeds.means(places, len(scores)) @ scores
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        reach = student(found.dof) * errors / (means * (1 - means))
        ends = 1 / (1 + (1 - means) / means * np.exp(np.stack([reach, -reach])))
    known = (errors > 0) & (means > 0) & (means < 1)
    rows = np.column_stack([means, *np.where(known, [*ends, errors], np.nan)])
    return [Interval(*row) for row in rows.tolist()]


def rest(places: Places, scores: Array, folds: int) -> Array:
    """The variance of each setting's mean that it does not share with the others, `[setting]`."""
    variance, _, _ = seeds.unexplained(places, scores, np.zeros((len(scores), len(scores))))
    many = np.array([len(of) for of in places])
    return np.asarray(variance / many * _overlap(many, folds))


def _overlap(many: Array, folds: int) -> Array:
    """By what the variance of a mean over so many folds is larger than that of independent ones."""
    return 1 + many / (folds - 1)

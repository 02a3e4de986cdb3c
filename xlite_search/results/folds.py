"""Folds of a cross-validation: the gap between two settings, with the variance that overlapping training sets have.

The k folds' gaps are not independent, since each pair of trainings shares patients, so that their variance over k is
too small. Nadeau and Bengio (2003) add what the overlap is worth: the corrected resampled variance is
S^2 (1/k + n_test / n_train), with k - 1 degrees of freedom.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from xlite_search.errors import BadInput
from xlite_search.results.influence import Array
from xlite_search.results.intervals import student, two_sided


@dataclass(frozen=True)
class FoldGap:
    """The mean over folds of one setting's score less another's, with its 95 % interval and its p-value.

    error  standard error
    """

    gap: float
    low: float
    high: float
    error: float
    p: float
    folds: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def over_folds(gaps: Array, train: float, test: float) -> FoldGap:
    """Of the gaps of each fold, `[fold]`; `train` and `test` count the images (or patients) of a fold on average.

    Raises BadInput for fewer than two folds.
    """
    many = len(gaps)
    if many < 2:
        raise BadInput(f"a gap over folds needs two folds at least, not {many}")
    gap, error = float(np.mean(gaps)), float(np.sqrt(np.var(gaps, ddof=1) * (1 / many + test / train)))
    reach = float(student(many - 1)) * error
    p = float(two_sided(np.asarray(gap / error), many - 1)) if error else float(gap == 0)
    return FoldGap(gap, gap - reach, gap + reach, error, p, many)

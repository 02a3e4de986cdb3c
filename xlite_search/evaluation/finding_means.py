"""Means of the cases of each finding, and the mean over findings, with 95 % intervals by patient.

Values are `[case]`; `which` is each case's finding and `patients` whose it is, both numbered 0, 1, ... An interval is
for shares of hits (Wilson's), for their paired differences (Bonett and Price's) or for values of any size (Student's).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlite_search.results.intervals import Interval, student

Array = NDArray[np.float64]


class _Moments(NamedTuple):
    """A mean, its standard error by patient, and of how many patients and cases."""

    mean: float
    error: float
    patients: int
    cases: int


def _moments(values: Array, which: NDArray[np.int64], patients: NDArray[np.int64]) -> list[_Moments]:
    """Of each finding, then of the mean over findings. A patient's part in a mean is the sum over their cases of how
    far each is from it, over the number of cases; squares of these add up to its variance."""
    many, kinds = int(patients.max()) + 1, int(which.max()) + 1
    parts, found = np.zeros((kinds, many)), []
    for kind in range(kinds):
        of = which == kind
        mean = float(values[of].mean())
        parts[kind] = np.bincount(patients[of], (values[of] - mean) / of.sum(), many)
        found.append(_Moments(mean, _error(parts[kind], k := len(set(patients[of].tolist()))), k, int(of.sum())))
    mean = float(np.mean([each.mean for each in found]))
    return [*found, _Moments(mean, _error(parts.mean(axis=0), many), many, len(values))]


def _error(parts: Array, patients: int) -> float:
    return math.sqrt(patients / (patients - 1) * float((parts**2).sum())) if patients > 1 else math.nan


def graded(values: Array, which: NDArray[np.int64], patients: NDArray[np.int64], least: float = 0.0) -> list[Interval]:
    """Means of values `[case]` from `least` to 1, with Student's interval: each finding's, then the mean over them."""
    found = []
    for mean, error, k, _ in _moments(values, which, patients):
        reach = _student(k) * error
        found.append(Interval(mean, max(mean - reach, least), min(mean + reach, 1.0), error))
    return found


def shares(hits: Array, which: NDArray[np.int64], patients: NDArray[np.int64]) -> list[Interval]:
    """Shares of hits (0 or 1) `[case]` with Wilson's interval, by the number of independent cases that would have this
    variance, at most as many as there are: where all hit, or none, it still has a width."""
    found = []
    for mean, error, k, cases in _moments(hits, which, patients):
        t = _student(k)
        n = min(mean * (1 - mean) / error**2, cases) if error > 1e-12 else float(k)
        middle = (mean + t**2 / (2 * n)) / (1 + t**2 / n)
        reach = t / (1 + t**2 / n) * math.sqrt(max(mean * (1 - mean), 0) / n + t**2 / (4 * n**2))
        low, high = max(min(middle - reach, mean), 0.0), min(max(middle + reach, mean), 1.0)
        found.append(Interval(mean, low, high, error) if k > 1 else _unknown(mean))
    return found


def gaps(values: Array, which: NDArray[np.int64], patients: NDArray[np.int64]) -> list[Interval]:
    """Mean paired differences of hits (-1, 0 or 1) `[case]`, with Bonett and Price's interval (2012): as if there were
    two patients more of each finding, who differ by 1 and by -1. So it has a width where no patient differs. That of
    the mean over findings is around the mean, which what is added to each would move towards 0."""
    kinds, many = int(which.max()) + 1, int(patients.max()) + 1
    more = np.arange(2 * kinds)
    wider = _moments(
        np.concatenate([values, np.tile([1.0, -1.0], kinds)]),
        np.concatenate([which, more // 2]),
        np.concatenate([patients, many + more]),
    )
    found = []
    for number, (plain, wide) in enumerate(zip(_moments(values, which, patients), wider, strict=True)):
        reach, mean = _student(plain.patients) * wide.error, plain.mean
        middle = wide.mean if number < kinds else mean
        low, high = max(min(middle - reach, mean), -1.0), min(max(middle + reach, mean), 1.0)
        found.append(Interval(mean, low, high, plain.error) if plain.patients > 1 else _unknown(mean))
    return found


def _student(patients: int) -> float:
    return float(student(patients - 1)) if patients > 1 else math.nan


def _unknown(mean: float) -> Interval:
    return Interval(mean, math.nan, math.nan, math.nan)

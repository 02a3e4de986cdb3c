"""Rank correlations of many pairs of maps: their mean, its interval, and of how many pairs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from xlite_search.results.intervals import student

#: what is told of many rank correlations: their mean, its 95 % interval, of how many pairs, and how many have none
Correlation = dict[str, float | int | None]


def summary(pairs: Sequence[float], groups: Sequence[Hashable]) -> Correlation:
    """The mean, with Student's interval by groups: pairs of one group, such as one draw of weights, are alike.

    A pair of which one map is empty or flat has no correlation (NaN), and is counted. None is what cannot be known: the
    ends, with fewer than two groups.
    """
    known = [(pair, group) for pair, group in zip(pairs, groups, strict=True) if math.isfinite(pair)]
    found: Correlation = {"rank_correlation": None, "low": None, "high": None}
    if known:
        values = np.array([pair for pair, _ in known])
        mean, reach = float(values.mean()), _reach(values, [group for _, group in known])
        found["rank_correlation"] = mean
        if reach is not None:
            found |= {"low": max(-1.0, mean - reach), "high": min(1.0, mean + reach)}
    return found | {"pairs": len(known), "without": len(pairs) - len(known)}


def _reach(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], groups: Sequence[Hashable]) -> float | None:
    """By how much the mean's interval reaches to either side; None of one group."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    if (many := len(numbers)) < 2:
        return None
    moved = np.bincount([numbers[group] for group in groups], weights=values - values.mean()) / len(values)
    return float(student(many - 1) * math.sqrt(float(moved @ moved) * many / (many - 1)))

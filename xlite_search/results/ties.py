"""Ties with the best run: which runs cannot be told from it, and what may be said of each gap to it.

Two claims, each at 95 % for the whole table at once, of the same joint normal law of the runs' errors:

    may be best   Hsu's multiple comparisons with the best (Hsu 1984): the run that is best in truth is among those that
                  may be best. A run is left out when some other is ahead of it by more than a one-sided bound for its
                  own gaps to all others (Dunnett's, of correlated means).
    verdict       of the gap to the run that scored best, by two-sided bounds for all pairs (Tukey's): that any run of a
                  table is called worse although none is, happens in 5 % of tables.

The first keeps a given best run and may leave out another that is as good; the second is wrong about no run. A run may
therefore be left out of those that may be best, and its verdict still be that one cannot tell.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from xlite_search.results.inference import CONFIDENCE, DRAWS, Patients, Training, standard_errors, studentized
from xlite_search.results.influence import Array

#: gaps in AUROC that matter to nobody
MARGIN = 0.002

Verdict = Literal["better", "tied", "worse", "cannot tell"]
#: which two runs, or settings, of a table are compared
Pairs = Sequence[tuple[int, int]]


def verdict(low: float, high: float, margin: float = MARGIN) -> Verdict:
    """What a gap's interval from `low` to `high` says.

    tied         all of it is within the margin on both sides of 0: whatever the gap is, it matters to nobody
    better       all of it is above 0, and some beyond the margin
    worse        all of it is below 0, and some beyond the margin
    cannot tell  it has 0 and reaches beyond the margin: too wide to decide whether there is a gap that matters. So is
                 every interval wider than twice the margin that has 0, and one that is not known (NaN)
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return "cannot tell"
    if -margin <= low and high <= margin:
        return "tied"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "cannot tell"


@dataclass(frozen=True)
class Standing:
    """A run, or a setting over its seeds, against the one that scored best.

    gap          to it, 0 or less (and more where a setting is ahead of it in other seeds than their common ones)
    low, high    95 %, for all pairs of the table at once; NaN if chance cannot be known
    may_be_best  whether it is in the set that cannot be told from the best
    """

    gap: float
    low: float
    high: float
    verdict: Verdict
    may_be_best: bool

    def as_json(self) -> dict[str, Any]:
        """With null for bounds that cannot be known."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Ties:
    """Of all runs of a table, or its settings, in its order.

    best    the place of the one that scored best
    margin  gaps up to which are a tie
    """

    best: int
    margin: float
    standings: tuple[Standing, ...]

    @property
    def set(self) -> list[int]:
        """The places of those that cannot be told from the best, which is one of them."""
        return [place for place, each in enumerate(self.standings) if each.may_be_best]

    def as_json(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "margin": self.margin,
            "cannot_be_told_from_best": self.set,
            "standings": [each.as_json() for each in self.standings],
        }


def among(areas: Array, patients: Patients, margin: float = MARGIN, draws: int = DRAWS) -> Ties:
    """Of runs with mean AUROCs `[run]`, one at least. The claims are about these weights, not about their recipes."""
    pairs, runs = list(itertools.combinations(range(len(areas)), 2)), np.eye(len(areas))
    contrasts = np.array([runs[one] - runs[other] for one, other in pairs]).reshape(-1, len(areas))
    return ties(pairs, contrasts @ areas, contrasts, patients, margin=margin, draws=draws)


def ties(
    pairs: Pairs,
    gaps: Array,
    contrasts: Array,
    patients: Patients,
    training: Training | None = None,
    *,
    margin: float = MARGIN,
    draws: int = DRAWS,
) -> Ties:
    """Of settings, numbered 0, 1, ... in `pairs`, whose gaps `[pair]` are the first's mean less the second's.

    The best is the one that is behind none, or least. A setting that is in no pair with it has a gap of NaN. Where the
    gap of a pair cannot have a standard error (there is one without variance), it is no reason to leave anybody out.

    contrasts  `[pair, run]`: what makes the gaps of the runs' AUROCs
    """
    many = max((max(pair) for pair in pairs), default=0) + 1
    errors = standard_errors(contrasts, patients, training)
    unknown = ~np.isfinite(errors) | ((errors == 0) & (gaps != 0))
    errors[unknown] = 0
    two_sided, one_sided = _quantiles(pairs, many, contrasts, patients, training, draws)
    ahead, half = np.full((2, many, many), np.nan)  # of the row over the column
    bound = np.full((many, many), -np.inf)
    for (one, other), gap, error, odd in zip(pairs, gaps, errors, unknown, strict=True):
        for row, column, over in ((one, other, gap), (other, one, -gap)):
            ahead[row, column] = over
            if not odd:
                half[row, column], bound[row, column] = two_sided * error, -one_sided[row] * error
    best = _best(ahead)
    kept = np.logical_not((ahead < bound).any(axis=1))
    kept[best], ahead[best, best], half[best, best] = True, 0, 0
    rows = zip(ahead[:, best], half[:, best], kept, strict=True)
    return Ties(best, margin, tuple(_standing(float(gap), float(reach), margin, bool(may)) for gap, reach, may in rows))


def _best(ahead: Array) -> int:
    """The place of the one that is behind none, or least, of those that are compared with any."""
    compared = np.isfinite(ahead).any(axis=1)
    least = np.where(np.isfinite(ahead), ahead, np.inf).min(axis=1)
    return int(np.argmax(np.where(compared, least, -np.inf)))


def _standing(gap: float, reach: float, margin: float, may_be_best: bool) -> Standing:
    low, high = gap - reach, gap + reach
    return Standing(gap, low, high, verdict(low, high, margin), may_be_best)


def _quantiles(
    pairs: Pairs, many: int, contrasts: Array, patients: Patients, training: Training | None, draws: int
) -> tuple[float, Array]:
    """Of the largest error of any pair, to either side, and of the largest by which each setting is put behind."""
    largest, behind = np.zeros(draws), np.zeros((many, draws))
    for some, drawn in studentized(contrasts, patients, training, draws):
        largest = np.maximum(largest, np.abs(drawn).max(axis=1))
        for number, column in zip(some, np.ascontiguousarray(drawn.T), strict=True):
            one, other = pairs[number]
            np.maximum(behind[one], -column, out=behind[one])
            np.maximum(behind[other], column, out=behind[other])
    return float(np.quantile(largest, CONFIDENCE)), np.quantile(behind, CONFIDENCE, axis=1)

"""Two runs finding by finding: gaps in AUROC on the same patients, for all findings at once.

Fourteen comparisons at 5 % find a gap that is none in half of all tables. The p-values of Student's t of each gap are
therefore corrected by the step-down maximum, max-t (Westfall and Young 1993; Romano and Wolf 2005): the largest t is
compared with the largest of all under the joint normal law of the gaps, the next with the largest of the rest. Findings
of the same patients go together, which makes it less strict than Holm's correction (1979), which knows nothing of that
and stands beside it.

A t of few patients is first made the normal deviate of the same p-value: else the long tails of the rarest finding
would widen everybody's interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from xlite_search.results.inference import CONFIDENCE, DRAWS, ROUNDING, draws_of
from xlite_search.results.influence import Array, Influence
from xlite_search.results.intervals import two_sided
from xlite_search.results.ties import MARGIN, Verdict, verdict
from xlite_search.training.metrics import SUPPORT


@dataclass(frozen=True)
class FindingGap:
    """One run's AUROC of a finding less another's, on the same images; NaN is what cannot be known.

    positives  images that show the finding
    auroc      of the two runs
    margin     gaps up to which are a tie
    low, high  95 %, for all findings at once (the maximum of all |t|, in one step)
    p          of this finding alone; `p_max_t` is corrected by the step-down maximum, `p_holm` by Holm
    """

    finding: str
    positives: int
    auroc: tuple[float, float]
    margin: float
    gap: float
    low: float
    high: float
    p: float
    p_max_t: float
    p_holm: float

    @property
    def verdict(self) -> Verdict:
        """Of the first run: tied if the interval is within the margin, else better or worse if `p_max_t` <= 0.05.

        That any finding of a table is called better or worse although no gap is there, happens in 5 % of tables.
        """
        if verdict(self.low, self.high, self.margin) == "tied":
            return "tied"
        if not self.p_max_t <= 1 - CONFIDENCE:
            return "cannot tell"
        return "better" if self.gap > 0 else "worse"

    @property
    def supported(self) -> bool:
        """Enough positives that its AUROC is more than noise."""
        return self.positives >= SUPPORT

    def as_json(self) -> dict[str, Any]:
        """With null for what cannot be known."""
        plain = {name: None if value != value else value for name, value in asdict(self).items()}
        plain["auroc"] = [None if area != area else area for area in self.auroc]
        return plain | {"verdict": self.verdict, "supported": self.supported}


def by_finding(
    one: Influence,
    other: Influence,
    findings: Sequence[str],
    positives: Sequence[int],
    margin: float = MARGIN,
    draws: int = DRAWS,
) -> list[FindingGap]:
    """The gaps of all findings, the rarest first; `findings` and `positives` name and count those of the influences.

    A gap whose variance cannot be known (a single patient has all images with the finding, or without; or one run tells
    it perfectly and the other not at all) has no p-value, and does not count among the comparisons.
    """
    gaps, errors, dof, covariance = _moments(one, other)
    known = np.flatnonzero(np.isfinite(errors) & (errors > 0))
    p, p_max_t, p_holm, halves = np.full((4, len(gaps)), np.nan)
    equal = errors == 0
    p[equal] = p_max_t[equal] = p_holm[equal] = 1
    halves[equal] = 0
    if len(known):
        p[known] = two_sided(gaps[known] / errors[known], dof[known])
        drawn = _deviates(covariance[np.ix_(known, known)], draws)
        p_holm[known] = holm(p[known])
        p_max_t[known] = np.minimum(step_down(-ndtri(p[known] / 2), drawn), p_holm[known])  # but for the draws' chance
        one_side = ndtr(np.quantile(drawn.max(axis=1), CONFIDENCE))
        halves[known] = stdtrit(dof[known], one_side) * errors[known]
    low, high = np.maximum(gaps - halves, -1), np.minimum(gaps + halves, 1)
    areas = zip(one.score.tolist(), other.score.tolist(), strict=True)
    columns = (findings, positives, areas, gaps, low, high, p, p_max_t, p_holm)
    rows = [
        FindingGap(finding, int(count), pair, margin, *map(float, row))
        for finding, count, pair, *row in zip(*columns, strict=True)
    ]
    return sorted(rows, key=lambda row: row.positives)


def step_down(seen: Array, drawn: Array) -> Array:
    """p-values of deviates `[finding]`, corrected by the step-down maximum of those `drawn` by chance; without sign."""
    order = np.argsort(-seen)
    largest = np.maximum.accumulate(drawn[:, order[::-1]], axis=1)[:, ::-1]  # of this one and all smaller ones
    p = (1 + (largest >= seen[order]).sum(axis=0)) / (1 + len(drawn))
    found = np.empty(len(seen))
    found[order] = np.maximum.accumulate(p)
    return found


def holm(p: Array) -> Array:
    """p-values corrected by Holm (1979): the smallest by their number, the next by one less, never decreasing."""
    order = np.argsort(p)
    found = np.empty(len(p))
    found[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return found


def _moments(one: Influence, other: Influence) -> tuple[Array, Array, Array, Array]:
    """Gaps, their standard errors and degrees of freedom, `[finding]`, and covariance, `[finding, finding]`.

    A standard error is 0 where the runs are equal, and NaN where it cannot be known.
    """
    gaps, moved = one.score - other.score, one.values - other.values
    whole = moved.sum(axis=1)
    covariance = whole @ whole.T
    variance, of_runs = np.diagonal(covariance), (one.values.sum(axis=1) ** 2).sum(axis=1)
    variance = np.where(variance <= ROUNDING * of_runs, 0.0, variance)
    errors = np.where((variance == 0) & (gaps != 0), np.nan, np.sqrt(variance))
    shares = (moved**2).sum(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        dof = shares.sum(axis=1) ** 2 / (shares**2 / one.dof).sum(axis=1)
    return gaps, errors, dof, covariance


def _deviates(covariance: Array, draws: int) -> Array:
    """What the gaps' errors are by chance, without sign, each over its standard error, `[draw, finding]`."""
    drawn = draws_of(np.random.default_rng(0), covariance, draws)
    return np.abs(drawn / np.sqrt(np.diagonal(covariance)))

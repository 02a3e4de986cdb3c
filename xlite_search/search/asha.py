"""Successive halving by whole cohorts: a pure rule over what has been reported.

Rungs lie at grace, grace * reduction, grace * reduction^2, ... epochs (Jamieson & Talwalkar 2016; Li et al. 2020). Who
reaches a rung waits there. When every member of its cohort has reported or failed, the best go on from their
checkpoints and the rest are stopped. The rule reads a table of reports and nothing else: neither the order of arrival,
nor how many ran at a time, nor a kill in the night can change what it says.

Of `n` members at a rung of `r` epochs, `n / reduction * (1 + 1 / (reduction * r))` are kept, rounded, at least one:
scores of early epochs are the least telling, so that the first rungs are a little wider than halving's own.

`ASHA(asynchronous=True)` judges each on arrival against those before it, and promotes nobody later: for wide clusters,
where waiting for the last of a cohort costs more than a wrong stop. Its decisions depend on the order of arrival.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from pydantic import Field

from xlite_search.records import RunRecord
from xlite_search.spec import Spec


class ASHA(Spec):
    """How a study stops its weak trials: not before `grace` epochs, keeping about 1 of `reduction` at each rung."""

    grace: int = Field(1, ge=1)
    reduction: float = Field(2.0, gt=1)
    asynchronous: bool = False

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Epochs at which trials of `epochs` epochs are judged, ascending; the last epoch is none: it is the end."""
        return _rungs(self.grace, self.reduction, epochs)

    def kept(self, members: int, rung: int) -> int:
        """How many of a cohort go on from a rung."""
        wider = 1 + 1 / (self.reduction * rung)
        return max(1, math.floor(members / self.reduction * wider + 0.5))


@lru_cache(maxsize=64)
def _rungs(grace: int, reduction: float, epochs: int) -> tuple[int, ...]:
    steps = (math.floor(grace * reduction**power + 1e-9) for power in range(64))
    return tuple(sorted({rung for rung in steps if rung < epochs}))


@dataclass(frozen=True)
class Decision:
    """What was decided at a rung.

    scores  the reports that were judged, by run; -inf for one that failed or is no number
    peers   how many reports they were compared with, themselves among them
    kept    those who go on
    cut     the lowest score that goes on
    """

    rung: int
    scores: dict[str, float]
    peers: int
    kept: tuple[str, ...]
    cut: float

    def sentence(self, key: str, metric: str) -> str:
        """Why this run was stopped here."""
        if not math.isfinite(self.scores[key]):
            return f"stopped at rung {self.rung}: {metric} has no value"
        return (
            f"stopped at rung {self.rung}: {metric} {self.scores[key]:.4f} is behind the cut of {self.cut:.4f} "
            f"among {self.peers} trials"
        )


def decisions(spec: ASHA, metric: str, runs: Sequence[RunRecord], decided: Sequence[Decision]) -> Iterator[Decision]:
    """What can be decided now and has not been, until nothing can; `runs` are all of the study, in its order."""
    decided = list(decided)
    deciding = _on_arrival if spec.asynchronous else _by_cohort
    while True:
        new = list(deciding(spec, metric, {run.key: run for run in runs}, decided))
        if not new:
            return
        decided += new
        yield from new


def targets(spec: ASHA | None, runs: Iterable[RunRecord], decided: Iterable[Decision]) -> dict[str, int | None]:
    """How far each run that is not over may go: to the epoch of its next rung, or to its end (None).

    A run that waits at a rung is not in it.
    """
    passed: dict[str, int] = {}
    for decision in decided:
        for key in decision.kept:
            passed[key] = max(decision.rung, passed.get(key, 0))
    found: dict[str, int | None] = {}
    for run in runs:
        rungs = spec.rungs(run.length) if spec else ()
        target = next((rung for rung in rungs if rung > passed.get(run.key, 0)), None)
        if not run.over and (target is None or len(run.epochs) < target):
            found[run.key] = target
    return found


def _by_cohort(spec: ASHA, metric: str, runs: dict[str, RunRecord], decided: Sequence[Decision]) -> Iterator[Decision]:
    """One decision for every cohort whose members have all reported: those at the first rung that no decision knows,
    and those that a decision kept and no later one judged."""
    rungs = _all_rungs(spec, runs.values())
    judged = {(decision.rung, key) for decision in decided for key in decision.scores}
    cohorts = [(rungs[0], list(runs))] if rungs else []
    for decision in decided:
        following = next((rung for rung in rungs if rung > decision.rung), None)
        if following is not None:
            cohorts.append((following, list(decision.kept)))
    for rung, keys in cohorts:
        members = [runs[key] for key in keys if key in runs and (rung, key) not in judged]
        if members and all(_reported(run, rung) for run in members):
            yield _cut(spec, rung, {run.key: _score(run, rung, metric) for run in members})


def _cut(spec: ASHA, rung: int, scores: dict[str, float]) -> Decision:
    """The best by score; of equal ones the earlier in the study. One that failed is never kept."""
    ranked = sorted(scores, key=lambda key: -scores[key])
    kept = [key for key in ranked[: spec.kept(len(ranked), rung)] if math.isfinite(scores[key])]
    cut = scores[kept[-1]] if kept else math.inf
    return Decision(rung, scores, len(scores), tuple(kept), cut)


def _on_arrival(spec: ASHA, metric: str, runs: dict[str, RunRecord], decided: Sequence[Decision]) -> Iterator[Decision]:
    """Ray's rule: a report stays if it is at least the (1 - 1/reduction) quantile of those before it at its rung."""
    for rung in _all_rungs(spec, runs.values()):
        before = {key: score for decision in decided if decision.rung == rung for key, score in decision.scores.items()}
        for run in runs.values():
            if run.key in before or not _reported(run, rung):
                continue
            score, peers = _score(run, rung, metric), list(before.values())
            cut = -math.inf
            if peers:
                cut = float(np.quantile(peers, 1 - 1 / spec.reduction, method="inverted_cdf"))
            before[run.key] = score
            stays = score >= cut and math.isfinite(score)
            yield Decision(rung, {run.key: score}, len(before), (run.key,) if stays else (), cut)


def _all_rungs(spec: ASHA, runs: Iterable[RunRecord]) -> list[int]:
    return sorted({rung for length in {run.length for run in runs} for rung in spec.rungs(length)})


def _reported(run: RunRecord, rung: int) -> bool:
    return run.over or len(run.epochs) >= rung


def _score(run: RunRecord, rung: int, metric: str) -> float:
    """The metric at the rung, or at its end if it ended before; -inf if it failed before or this is no number."""
    if len(run.epochs) < rung and run.status != "finished":
        return -math.inf
    score = run.epochs[min(rung, len(run.epochs)) - 1].get(metric, math.nan) if run.epochs else math.nan
    return score if math.isfinite(score) else -math.inf

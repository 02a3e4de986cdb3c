"""ASHA: successive halving by whole cohorts, a pure rule over what has been reported.

Rungs lie at grace, grace * reduction, grace * reduction^2, ... epochs (Jamieson & Talwalkar 2016; Li et al. 2020). Who
reaches a rung waits there. When every member of its cohort has reported or failed, the best go on from their
checkpoints and the rest are stopped. The rule reads a table of reports and nothing else: neither the order of arrival,
nor how many ran at a time, nor a kill can change what it says.

Of `n` members at a rung of `r` epochs, `n / reduction * (1 + 1 / (reduction * r))` are kept, rounded, at least one:
scores of early epochs are the least telling, so that the first rungs are a little wider than halving's own.

`ASHA(asynchronous=True)` is the rule of Ray Tune's `AsyncHyperBandScheduler`: it judges each on arrival against those
before it, and promotes nobody later: for wide clusters, where waiting for the last of a cohort costs more than a wrong
stop. Its decisions depend on the order of arrival. One thing is not Ray's: a trial whose score has no value is stopped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from pydantic import Field

from xlite_search.records import RunRecord
from xlite_search.spec import Spec


class Rungs(Protocol):
    """What has cohorts and targets: a rule that judges at certain epochs."""

    def rungs(self, epochs: int) -> tuple[int, ...]: ...


class ASHA(Spec):
    """How a study stops its weak trials: not before `grace` epochs, keeping about 1 of `reduction` at each rung."""

    grace: int = Field(1, ge=1)
    reduction: float = Field(2.0, gt=1)
    asynchronous: bool = False

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Epochs at which trials of `epochs` epochs are judged, ascending; the last epoch is none: it is the end.

        Where grace * reduction^k is no whole number, cohorts are judged before it, on arrival as Ray does it after it.
        """
        return (_rays_rungs if self.asynchronous else _rungs)(self.grace, self.reduction, epochs)

    def words(self, epochs: int) -> str:
        """What it does to trials of `epochs` epochs, as a phrase."""
        rungs = ", ".join(map(str, self.rungs(epochs)))
        how = "stops the weak on arrival" if self.asynchronous else "keeps the best of all"
        return f"ASHA {how} at epochs {rungs}" if rungs else "too few epochs for ASHA to stop any"

    def kept(self, members: int, rung: int) -> int:
        """How many of a cohort go on from a rung."""
        wider = 1 + 1 / (self.reduction * rung)
        return max(1, math.floor(members / self.reduction * wider + 0.5))


@lru_cache(maxsize=64)
def _rungs(grace: int, reduction: float, epochs: int) -> tuple[int, ...]:
    steps = (math.floor(grace * reduction**power + 1e-9) for power in range(64))
    return tuple(sorted({rung for rung in steps if rung < epochs}))


@lru_cache(maxsize=64)
def _rays_rungs(grace: int, reduction: float, epochs: int) -> tuple[int, ...]:
    """Ray's milestones are numbers, and an epoch is judged at the highest that it has reached and not been judged at:
    where several lie between two epochs, the lower ones are made up for when no new one is reached."""
    if epochs <= grace:
        return ()
    count = int(math.log(epochs / grace) / math.log(reduction) + 1)
    open_, rungs = [grace * reduction**power for power in range(count)], []
    for epoch in range(grace, epochs):
        if reached := [milestone for milestone in open_ if milestone <= epoch]:
            open_.remove(max(reached))
            rungs.append(epoch)
    return tuple(rungs)


@dataclass(frozen=True)
class Decision:
    """What was decided at a rung.

    scores  the reports that were judged, by run; -inf for one that failed or is no number. ASHA's are of the rung's
            epoch, ParetoStop's the best up to it
    peers   how many reports they were compared with, themselves among them
    kept    those who go on
    cut     the lowest score that goes on; of ParetoStop, which has no such, -inf
    reasons  of ParetoStop, why each of the others was stopped; None of ASHA
    """

    rung: int
    scores: dict[str, float]
    peers: int
    kept: tuple[str, ...]
    cut: float
    reasons: dict[str, str] | None = None

    def sentence(self, key: str, metric: str) -> str:
        """Why this run was stopped here."""
        if self.reasons is not None:
            return self.reasons[key]
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
        new = list(deciding(spec, metric, runs, decided))
        if not new:
            return
        decided += new
        yield from new


def targets(spec: Rungs | None, runs: Iterable[RunRecord], decided: Iterable[Decision]) -> dict[str, int | None]:
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


@dataclass(frozen=True)
class Cohort:
    """Runs, in the study's order, that are judged together when all of them have reported; rung None: at no rung any
    more, they are trained to their ends."""

    rung: int | None
    members: tuple[RunRecord, ...]


def cohorts(spec: Rungs, runs: Sequence[RunRecord], decided: Sequence[Decision]) -> Iterator[Cohort]:
    """Those that wait for a decision: all who have never been judged, a search's new round, are one; and those that a
    decision kept are one, until a later one judges them."""
    rungs = _all_rungs(spec, runs)
    judged = {(decision.rung, key) for decision in decided for key in decision.scores}
    found: list[tuple[int | None, set[str]]] = [(next(iter(rungs), None), {run.key for run in runs})]
    found += [(next((r for r in rungs if r > decision.rung), None), set(decision.kept)) for decision in decided]
    for rung, keys in found:
        members = tuple(run for run in runs if run.key in keys and (rung, run.key) not in judged)
        if members:
            yield Cohort(rung, members)


def ready(
    spec: Rungs, runs: Sequence[RunRecord], decided: Sequence[Decision]
) -> Iterator[tuple[int, tuple[RunRecord, ...]]]:
    """Rungs and the members of cohorts that have all reported there."""
    for cohort in cohorts(spec, runs, decided):
        rung = cohort.rung
        if rung is not None and all(_reported(run, rung) for run in cohort.members):
            yield rung, cohort.members


def _by_cohort(spec: ASHA, metric: str, runs: Sequence[RunRecord], decided: Sequence[Decision]) -> Iterator[Decision]:
    """One decision for every cohort whose members have all reported."""
    for rung, members in ready(spec, runs, decided):
        yield _cut(spec, rung, {run.key: _score(run, rung, metric) for run in members})


def _cut(spec: ASHA, rung: int, scores: dict[str, float]) -> Decision:
    """The best by score; of equal ones the earlier in the study. One that failed is never kept."""
    ranked = sorted(scores, key=lambda key: -scores[key])
    kept = [key for key in ranked[: spec.kept(len(ranked), rung)] if math.isfinite(scores[key])]
    cut = scores[kept[-1]] if kept else math.inf
    return Decision(rung, scores, len(scores), tuple(kept), cut)


def _on_arrival(spec: ASHA, metric: str, runs: Sequence[RunRecord], decided: Sequence[Decision]) -> Iterator[Decision]:
    """Ray's rule: a report stays if it is at least the (1 - 1/reduction) quantile, interpolated, of those before it at
    its rung. Who ended before a rung, by failing or by early stopping, has not reported there."""
    for rung in _all_rungs(spec, runs):
        before = {key: score for decision in decided if decision.rung == rung for key, score in decision.scores.items()}
        for run in runs:
            if run.key in before or len(run.epochs) < rung:
                continue
            score, peers = _score(run, rung, metric), [peer for peer in before.values() if math.isfinite(peer)]
            cut = float(np.percentile(peers, (1 - 1 / spec.reduction) * 100)) if peers else -math.inf
            before[run.key] = score
            stays = score >= cut and math.isfinite(score)
            yield Decision(
                rung, {run.key: score}, len(peers) + 1, (run.key,) if stays else (), cut if stays or peers else math.inf
            )


def _all_rungs(spec: Rungs, runs: Iterable[RunRecord]) -> list[int]:
    return sorted({rung for length in {run.length for run in runs} for rung in spec.rungs(length)})


def _reported(run: RunRecord, rung: int) -> bool:
    return run.over or len(run.epochs) >= rung


def _score(run: RunRecord, rung: int, metric: str) -> float:
    """The metric at the rung, or at its end if it ended before; -inf if it failed before or this is no number."""
    if len(run.epochs) < rung and run.status != "finished":
        return -math.inf
    score = run.epochs[min(rung, len(run.epochs)) - 1].get(metric, math.nan) if run.epochs else math.nan
    return score if math.isfinite(score) else -math.inf

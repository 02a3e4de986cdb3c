"""Searches that stop weak trials, on learning curves that are known to their end: epochs that each trial is trained.

`benchmarks/asha.py` compares them.
"""

from __future__ import annotations

import heapq
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from xlite_search.records import RunRecord, Status
from xlite_search.search.asha import ASHA, Decision, decisions, targets

METRIC = "val/auroc_macro"

Floats = NDArray[np.float64]
Spent = NDArray[np.int64]


class Draw(NamedTuple):
    """scores `[trial, epoch]` as they are seen, final true ones `[trial]`, pace `[trial]`: time of an epoch."""

    scores: Floats
    final: Floats
    pace: Floats


def ours(drawn: Draw, grace: int, reduction: float, workers: int) -> Spent:
    """Halving by cohorts: activations, each to the next rung, on `workers` workers."""
    trials, epochs = drawn.scores.shape
    spec = ASHA(grace=grace, reduction=reduction)
    runs = {str(n): RunRecord(Path(), str(n), "trial", str(n), {}, {"epochs": epochs}) for n in range(trials)}
    decided: list[Decision] = []
    clock, busy = 0.0, list[tuple[float, str, int]]()
    while True:
        training = {key for _, key, _ in busy}
        waiting = {k: t for k, t in targets(spec, runs.values(), decided).items() if k not in training}
        while waiting and len(busy) < workers:
            key, target = next(iter(waiting.items()))
            del waiting[key]
            until = target or epochs
            heapq.heappush(busy, (clock + drawn.pace[int(key)] * (until - len(runs[key].epochs)), key, until))
        if not busy:
            return np.array([len(run.epochs) for run in runs.values()])
        clock, key, until = heapq.heappop(busy)
        runs[key] = _trained(runs[key], drawn.scores[int(key)], until)
        for decision in decisions(spec, METRIC, list(runs.values()), decided):
            decided.append(decision)
            for loser in decision.scores.keys() - set(decision.kept):
                runs[loser] = _with(runs[loser], "stopped")


def _trained(run: RunRecord, scores: Floats, until: int) -> RunRecord:
    course = tuple({METRIC: float(score)} for score in scores[:until])
    status: Status = "finished" if until == len(scores) else "paused"
    return RunRecord(run.folder, run.key, "trial", run.label, {}, run.config, epochs=course, status=status)


def _with(run: RunRecord, status: Status) -> RunRecord:
    return RunRecord(run.folder, run.key, "trial", run.label, {}, run.config, epochs=run.epochs, status=status)


def rays(drawn: Draw, grace: int, reduction: float, workers: int) -> Spent:
    """Ray's scheduler, asked epoch by epoch."""
    trials, epochs = drawn.scores.shape
    scheduler = AsyncHyperBandScheduler("epoch", METRIC, "max", epochs, grace, reduction)
    begun = [SimpleNamespace(trial_id=str(n), config={}) for n in range(trials)]
    spent, following = np.zeros(trials, int), 0
    busy: list[tuple[float, int]] = []
    clock = 0.0
    while following < trials or busy:
        while following < trials and len(busy) < workers:
            scheduler.on_trial_add(None, begun[following])
            heapq.heappush(busy, (clock + drawn.pace[following], following))
            following += 1
        clock, n = heapq.heappop(busy)
        spent[n] += 1
        result = {"epoch": int(spent[n]), METRIC: float(drawn.scores[n, spent[n] - 1])}
        if spent[n] == epochs:
            scheduler.on_trial_complete(None, begun[n], result)
        elif scheduler.on_trial_result(None, begun[n], result) == TrialScheduler.CONTINUE:
            heapq.heappush(busy, (clock + drawn.pace[n], n))
    return spent


def once(drawn: Draw, first: int, keep: int) -> Spent:
    """Every trial for its `first` epochs, and to their end those `keep` that are best then."""
    trials, epochs = drawn.scores.shape
    spent = np.full(trials, first)
    spent[np.argsort(-drawn.scores[:, first - 1], kind="stable")[:keep]] = epochs
    return spent


def keep_for(share: float, first: int, trials: int, epochs: int) -> int:
    """How many `once` has to keep to train no less than this share of all epochs; 0 where its first epochs are more."""
    left = share * trials * epochs - first * trials
    return min(trials, int(np.ceil(left / (epochs - first) - 1e-9))) if left > 0 else 0

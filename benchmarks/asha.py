"""Halving by cohorts against Ray's AsyncHyperBandScheduler, on the same curves: epochs spent, and the best lost.

    python benchmarks/asha.py [--draws 300]

A search is 36 trials of 27 epochs, reduction 3. After epoch e a trial's score is 0.5 + (q - 0.5)(1 - exp(-s e / 27)) +
noise of sd 0.004, q uniform in 0.74 .. 0.84. `s` is 5 for all; in the last table it is uniform in 2 .. 10: early
rungs favour the quick and not the good. Trials come best first, best last, or in random order, to one worker or four,
and an epoch takes 0.5 to 2 units of time, drawn for each trial.

share    epochs trained of all 36 x 27, in the worst of the orders
regret   true final score of the best trial, minus that of the best among those trained to the end; mean over draws

Limits at equal speed: share at most 0.15 and regret 0.001 with grace 1, 0.28 and 0.0003 with grace 3. They are exact:
nothing is timed. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from xlite_search.records import RunRecord, Status
from xlite_search.search.asha import ASHA, Decision, decisions, targets

TRIALS, EPOCHS, REDUCTION, METRIC = 36, 27, 3, "val/auroc_macro"
ORDERS = ("best first", "best last", "random")
WORKERS = (1, 4)

Floats = NDArray[np.float64]


class Draw(NamedTuple):
    """scores `[trial, epoch]` as they are seen, final true ones `[trial]`, pace `[trial]`: time of an epoch."""

    scores: Floats
    final: Floats
    pace: Floats


class Cost(NamedTuple):
    share: float
    regret: float


def draw(random: np.random.Generator, order: str, speeds: tuple[float, float]) -> Draw:
    quality = random.uniform(0.74, 0.84, TRIALS)
    quality = {"best first": np.sort(quality)[::-1], "best last": np.sort(quality), "random": quality}[order]
    speed = random.uniform(*speeds, TRIALS)[:, None]
    course = 0.5 + (quality[:, None] - 0.5) * (1 - np.exp(-speed * np.arange(1, EPOCHS + 1) / EPOCHS))
    return Draw(course + random.normal(0, 0.004, course.shape), course[:, -1], random.uniform(0.5, 2, TRIALS))


def ours(drawn: Draw, grace: int, workers: int) -> NDArray[np.int64]:
    """Epochs that each trial was trained: activations, each to the next rung, on `workers` workers."""
    spec = ASHA(grace=grace, reduction=REDUCTION)
    config = {"epochs": EPOCHS}
    runs = {str(n): RunRecord(Path(), str(n), "trial", str(n), {}, config) for n in range(TRIALS)}
    decided: list[Decision] = []
    clock, busy = 0.0, list[tuple[float, str, int]]()
    while True:
        training = {key for _, key, _ in busy}
        waiting = {k: t for k, t in targets(spec, runs.values(), decided).items() if k not in training}
        while waiting and len(busy) < workers:
            key, target = next(iter(waiting.items()))
            del waiting[key]
            until = target or EPOCHS
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
    status: Status = "finished" if until == EPOCHS else "paused"
    return RunRecord(run.folder, run.key, "trial", run.label, {}, run.config, epochs=course, status=status)


def _with(run: RunRecord, status: Status) -> RunRecord:
    return RunRecord(run.folder, run.key, "trial", run.label, {}, run.config, epochs=run.epochs, status=status)


def rays(drawn: Draw, grace: int, workers: int) -> NDArray[np.int64]:
    """The same for Ray's scheduler, asked epoch by epoch."""
    scheduler = AsyncHyperBandScheduler("epoch", METRIC, "max", EPOCHS, grace, REDUCTION)
    trials = [SimpleNamespace(trial_id=str(n), config={}) for n in range(TRIALS)]
    spent, following = np.zeros(TRIALS, int), 0
    busy: list[tuple[float, int]] = []
    clock = 0.0
    while following < TRIALS or busy:
        while following < TRIALS and len(busy) < workers:
            scheduler.on_trial_add(None, trials[following])
            heapq.heappush(busy, (clock + drawn.pace[following], following))
            following += 1
        clock, n = heapq.heappop(busy)
        spent[n] += 1
        result = {"epoch": int(spent[n]), METRIC: float(drawn.scores[n, spent[n] - 1])}
        if spent[n] == EPOCHS:
            scheduler.on_trial_complete(None, trials[n], result)
        elif scheduler.on_trial_result(None, trials[n], result) == TrialScheduler.CONTINUE:
            heapq.heappush(busy, (clock + drawn.pace[n], n))
    return spent


Search = Callable[[Draw, int, int], NDArray[np.int64]]


def cost(search: Search, grace: int, order: str, workers: int, draws: int, speeds: tuple[float, float]) -> Cost:
    """Means over the draws, which are the same for every search."""
    shares, regrets = [], []
    for seed in range(draws):
        drawn = draw(np.random.default_rng(seed), order, speeds)
        spent = search(drawn, grace, workers)
        shares.append(spent.sum() / (TRIALS * EPOCHS))
        regrets.append(drawn.final.max() - drawn.final[spent == EPOCHS].max())
    return Cost(float(np.mean(shares)), float(np.mean(regrets)))


def table(title: str, draws: int, speeds: tuple[float, float]) -> dict[tuple[str, int], tuple[float, float]]:
    """Prints every case; the worst share and regret by (search, grace)."""
    print(f"\n{title}\ngrace workers  order       share ours    Ray  regret ours      Ray")
    worst: dict[tuple[str, int], tuple[float, float]] = {}
    for grace in (1, 3):
        for workers in WORKERS:
            for order in ORDERS:
                one, other = (cost(s, grace, order, workers, draws, speeds) for s in (ours, rays))
                print(
                    f"{grace:>5} {workers:>7}  {order:<11} {one.share:>10.1%} {other.share:>6.1%} "
                    f"{one.regret:>12.5f} {other.regret:>8.5f}"
                )
                for name, found in (("ours", one), ("ray", other)):
                    before = worst.get((name, grace), (0.0, 0.0))
                    worst[name, grace] = (max(before[0], found.share), max(before[1], found.regret))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=300)
    draws = parser.parse_args().draws
    equal = table("equal speeds", draws, (5, 5))
    other = table("speeds of 2 to 10: early rungs mislead", draws, (2, 10))
    figures = {
        "worst_order_share_max": equal["ours", 1][0],
        "mean_regret_max": equal["ours", 1][1],
        "worst_order_share_max_grace_3": equal["ours", 3][0],
        "mean_regret_max_grace_3": equal["ours", 3][1],
        "ray_worst_order_share_max": equal["ray", 1][0],
        "ray_mean_regret_max": equal["ray", 1][1],
        "other_speeds_share_max": other["ours", 1][0],
        "other_speeds_regret_max": other["ours", 1][1],
        "other_speeds_ray_share_max": other["ray", 1][0],
        "other_speeds_ray_regret_max": other["ray", 1][1],
    }
    print(json.dumps({name: round(value, 5) for name, value in figures.items()}))


if __name__ == "__main__":
    main()

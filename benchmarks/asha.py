"""Halving by cohorts against Ray's AsyncHyperBandScheduler, on the same curves: epochs spent, and the best lost.

    python benchmarks/asha.py [--quick]

A search is 36 trials of 27 epochs, reduction 3. After epoch e a trial's score is 0.5 + (q - 0.5)(1 - exp(-s e / 27)) +
noise of sd 0.004, q uniform in 0.74 .. 0.84. `s` is 5 for all, and then uniform in 2 .. 10: early rungs favour the
quick and not the good. Trials come best first, best last, or in random order, to one worker or four,
and an epoch takes 0.5 to 2 units of time, drawn for each trial.

share    epochs trained of all 36 x 27, in the worst of the orders
regret   true final score of the best trial, minus that of the best among those trained to the end, which only an oracle
         knows; mean over draws
picked   the same, minus that of the one that a person takes: of those trained to the end, the best score that was seen

A second table compares at equal epochs: other reductions, in random order, on four workers.

All figures are exact for the seeds: nothing is timed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import recording
from numpy.typing import NDArray
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from recording import Limit

from xlite_search.records import RunRecord, Status
from xlite_search.search.asha import ASHA, Decision, decisions, targets

TRIALS, EPOCHS, REDUCTION, METRIC = 36, 27, 3, "val/auroc_macro"
ORDERS = ("best first", "best last", "random")
WORKERS = (1, 4)
DRAWS, QUICK_DRAWS = 300, 3
LIMITS = {
    "worst_order_share_max": Limit(most=0.15),
    "mean_regret_max": Limit(most=0.001),
    "worst_order_share_max_grace_3": Limit(most=0.28),
    "mean_regret_max_grace_3": Limit(most=0.0003),
}

Floats = NDArray[np.float64]


class Speeds(NamedTuple):
    """`s` at least and at most; what figures begin with, and what those of Cost.share, regret and picked are called."""

    title: str
    range: tuple[float, float]
    prefix: str
    names: tuple[str, str, str]


EQUAL = Speeds("equal speeds", (5, 5), "", ("worst_order_share", "mean_regret", "mean_picked_regret"))
OTHER = Speeds("speeds of 2 to 10: early rungs mislead", (2, 10), "other_speeds_", ("share", "regret", "picked_regret"))


class Draw(NamedTuple):
    """scores `[trial, epoch]` as they are seen, final true ones `[trial]`, pace `[trial]`: time of an epoch."""

    scores: Floats
    final: Floats
    pace: Floats


class Cost(NamedTuple):
    """Means over the draws; `error` is the regret's standard error."""

    share: float
    regret: float
    picked: float
    error: float


def draw(random: np.random.Generator, order: str, speeds: tuple[float, float]) -> Draw:
    quality = random.uniform(0.74, 0.84, TRIALS)
    quality = {"best first": np.sort(quality)[::-1], "best last": np.sort(quality), "random": quality}[order]
    speed = random.uniform(*speeds, TRIALS)[:, None]
    course = 0.5 + (quality[:, None] - 0.5) * (1 - np.exp(-speed * np.arange(1, EPOCHS + 1) / EPOCHS))
    return Draw(course + random.normal(0, 0.004, course.shape), course[:, -1], random.uniform(0.5, 2, TRIALS))


def ours(drawn: Draw, grace: int, workers: int, reduction: float = REDUCTION) -> NDArray[np.int64]:
    """Epochs that each trial was trained: activations, each to the next rung, on `workers` workers."""
    spec = ASHA(grace=grace, reduction=reduction)
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


def rays(drawn: Draw, grace: int, workers: int, reduction: float = REDUCTION) -> NDArray[np.int64]:
    """The same for Ray's scheduler, asked epoch by epoch."""
    scheduler = AsyncHyperBandScheduler("epoch", METRIC, "max", EPOCHS, grace, reduction)
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


#: of a draw, a grace, a number of workers and a reduction: the epochs that each trial was trained
Search = Callable[[Draw, int, int, float], NDArray[np.int64]]


def cost(
    search: Search,
    grace: int,
    order: str,
    workers: int,
    draws: int,
    speeds: tuple[float, float],
    reduction: float = REDUCTION,
) -> Cost:
    """Over draws, which are the same for every search."""
    found = []
    for seed in range(draws):
        drawn = draw(np.random.default_rng(seed), order, speeds)
        spent = search(drawn, grace, workers, reduction)
        done = np.flatnonzero(spent == EPOCHS)
        picked = done[drawn.scores[done].max(axis=1).argmax()]
        best = drawn.final.max()
        found.append((spent.sum() / (TRIALS * EPOCHS), best - drawn.final[done].max(), best - drawn.final[picked]))
    share, regret, picked_regret = np.mean(found, axis=0)
    return Cost(share, regret, picked_regret, float(np.std([each[1] for each in found]) / np.sqrt(draws)))


def table(speeds: Speeds, draws: int) -> dict[str, float]:
    """Prints every case. The figures are the most of all orders and workers, and the least share."""
    print(f"\n{speeds.title}\ngrace workers  order       share ours    Ray  regret ours      Ray  picked ours      Ray")
    figures: dict[str, float] = {}
    for grace in (1, 3):
        cases: dict[str, list[Cost]] = {"": [], "ray_": []}
        for workers in WORKERS:
            for order in ORDERS:
                one, other = (cost(s, grace, order, workers, draws, speeds.range) for s in (ours, rays))
                print(
                    f"{grace:>5} {workers:>7}  {order:<11} {one.share:>10.1%} {other.share:>6.1%} "
                    f"{one.regret:>12.5f} {other.regret:>8.5f} {one.picked:>12.5f} {other.picked:>8.5f}"
                )
                cases[""].append(one)
                cases["ray_"].append(other)
        suffix = "" if grace == 1 else f"_grace_{grace}"
        for who, costs in cases.items():
            for name, values in zip(speeds.names, zip(*(each[:3] for each in costs), strict=True), strict=True):
                figures[f"{speeds.prefix}{who}{name}_max{suffix}"] = max(values)
            figures[f"{speeds.prefix}{who}share_min{suffix}"] = min(each.share for each in costs)
    return figures


def at_equal_epochs(speeds: Speeds, draws: int) -> dict[str, float]:
    """Prints what each search costs by its reduction: the epochs of one lie between those of the other.

    Figures are called `ray_reduction_3_share` and so on.
    """
    figures: dict[str, float] = {}
    print(f"\n{speeds.title}, random order, four workers, grace 1\nsearch reduction  share   regret      +-   picked")
    for name, search, reductions in (("ours", ours, (2, 2.5, 3, 4)), ("Ray", rays, (2, 3, 4, 5))):
        for reduction in reductions:
            found = cost(search, 1, "random", 4, draws, speeds.range, reduction)
            print(
                f"{name:<6} {reduction:>9g} {found.share:>6.1%} {found.regret:>8.5f} {found.error:>7.5f} "
                f"{found.picked:>8.5f}"
            )
            stem = speeds.prefix + ("ray_" if search is rays else "") + f"reduction_{reduction:g}".replace(".", "_")
            figures |= {f"{stem}_{figure}": value for figure, value in found._asdict().items()}
    return figures


def measure(quick: bool) -> dict[str, float]:
    draws, figures = QUICK_DRAWS if quick else DRAWS, dict[str, float]()
    for speeds in (EQUAL, OTHER):
        figures |= table(speeds, draws) | at_equal_epochs(speeds, draws)
    return figures | {"trials": TRIALS, "epochs": EPOCHS, "draws": draws}


if __name__ == "__main__":
    recording.run("asha", __doc__, measure, LIMITS)

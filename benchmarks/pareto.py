"""Pareto stopping against the full search and against ASHA on the score alone: equal fronts, and epochs trained.

    python benchmarks/pareto.py [--quick]

A search is trained by the rule as the queue does it, on curves that are known to their end, and its front, of the runs
that were trained to the end, is compared with that of the full search: equal if it holds the same runs.

Recorded: replays draw 24 of the arms in benchmarks/curves.json, small hybrids that were trained on drawn radiographs
(benchmarks/curves.py). Simulated: 36 runs of 27 epochs, six models of random cost with six settings each; a model's
ceiling rises with the logarithm of its cost, a setting falls short of it by |normal| of 0.02, and after epoch e the
score is 0.5 + (q - 0.5)(1 - exp(-s e / 27)) + noise of sd 0.004. `s` is 5 for all, and then uniform in 2 .. 10: early
epochs favour the quick and not the good.

equal    share of replays with the front of the full search; `error` is its standard error
kept     mean share of the full front's runs that are there
share    epochs trained of all

ASHA (grace 3, reduction 2) is told the score alone, as a study with one objective would have it. Its rungs are the
house's; the second one, reduction 1.25 from the rule's own first rung, trains about as many epochs as ParetoStop.

All figures are exact for the seeds, 0 to replays - 1: nothing is timed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import recording
from curves import FILE
from numpy.typing import NDArray
from recording import Limit

from xlite_search.records import RunRecord, Status
from xlite_search.results.front import front
from xlite_search.search import scheduling
from xlite_search.search.asha import ASHA, Decision, targets
from xlite_search.search.pareto import ParetoStop
from xlite_search.search.scheduling import Scheduler

REPLAYS, QUICK_REPLAYS = 200, 5
METRIC, COSTS = "val/auroc_macro", ("model/parameters",)
MODELS, SETTINGS, EPOCHS, ARMS = 6, 6, 27, 24
LIMITS = {
    "recorded_equal": Limit(least=0.95),
    "equal_speeds_equal": Limit(least=0.95),
    "other_speeds_equal": Limit(least=0.95),
}

Floats = NDArray[np.float64]


class Draw(NamedTuple):
    """scores `[run, epoch]`, costs `[run, objective]`."""

    scores: Floats
    costs: Floats


class Outcome(NamedTuple):
    """Of a replay: whether the front is that of the full search, the share of it that is there, and of the epochs."""

    equal: float
    kept: float
    share: float


def simulated(seed: int, speeds: tuple[float, float]) -> Draw:
    random = np.random.default_rng(seed)
    size = np.sort(random.uniform(0, 1, MODELS))
    ceiling = 0.78 + 0.04 * size + random.normal(0, 0.01, MODELS)
    quality = np.repeat(ceiling, SETTINGS) - np.abs(random.normal(0, 0.02, MODELS * SETTINGS))
    speed = random.uniform(*speeds, len(quality))[:, None]
    course = 0.5 + (quality[:, None] - 0.5) * (1 - np.exp(-speed * np.arange(1, EPOCHS + 1) / EPOCHS))
    return Draw(course + random.normal(0, 0.004, course.shape), np.repeat(1e6 * 10**size, SETTINGS)[:, None])


def recorded(seed: int, costs: tuple[str, ...] = COSTS) -> Draw:
    """A part of the recorded arms, in random order."""
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    arms = kept["arms"]
    some = np.random.default_rng(seed).permutation(len(arms))[: min(ARMS, len(arms))]
    scores = np.array([arms[n]["curve"] for n in some])
    return Draw(scores, np.array([[kept["costs"][arms[n]["model"]][cost] for cost in costs] for n in some]))


def trained(drawn: Draw, scheduler: Scheduler, seed: int) -> NDArray[np.int64]:
    """Epochs of each run: activations in random order, each to the next rung, decided as the queue does it."""
    random = np.random.default_rng(seed)
    epochs = drawn.scores.shape[1]
    names = [f"cost/{n}" for n in range(drawn.costs.shape[1])]
    runs = {
        str(n): RunRecord(
            Path(), str(n), "trial", str(n), {}, {"epochs": epochs}, dict(zip(names, map(float, costs), strict=True))
        )
        for n, costs in enumerate(drawn.costs)
    }
    decided: list[Decision] = []
    while waiting := targets(scheduler, runs.values(), decided):
        key = random.choice(sorted(waiting))
        until = waiting[key] or epochs
        course = tuple({METRIC: float(score)} for score in drawn.scores[int(key), :until])
        runs[key] = _with(runs[key], course, "finished" if until == epochs else "paused")
        for decision in scheduling.decisions(scheduler, METRIC, names, list(runs.values()), decided):
            decided.append(decision)
            for loser in decision.scores.keys() - set(decision.kept):
                runs[loser] = _with(runs[loser], runs[loser].epochs, "stopped")
    return np.array([len(run.epochs) for run in runs.values()])


def _with(run: RunRecord, course: tuple[dict[str, float], ...], status: Status) -> RunRecord:
    return RunRecord(
        run.folder, run.key, "trial", run.label, {}, run.config, facts=run.facts, epochs=course, status=status
    )


def outcome(drawn: Draw, spent: NDArray[np.int64]) -> Outcome:
    """Fronts are of best scores, as `compare` has them."""
    objectives = np.column_stack([drawn.scores.max(axis=1), drawn.costs])
    up = [True, *(False for _ in drawn.costs[0])]
    full, done = front(objectives, up), np.flatnonzero(spent == drawn.scores.shape[1])
    found = np.zeros(len(full), bool)
    found[done] = front(objectives[done], up)
    share = spent.sum() / drawn.scores.size
    return Outcome(float((found == full).all()), float((found & full).sum() / full.sum()), float(share))


def replayed(draw: Callable[[int], Draw], scheduler: Scheduler, replays: int) -> tuple[Outcome, float]:
    """Means over the replays, and the standard error of `equal`."""
    found = []
    for seed in range(replays):
        drawn = draw(seed)
        found.append(outcome(drawn, trained(drawn, scheduler, seed)))
    means = Outcome(*np.mean(found, axis=0))
    return means, float(np.sqrt(means.equal * (1 - means.equal) / replays))


def schedulers(epochs: int) -> dict[str, Scheduler]:
    first = ParetoStop().rungs(epochs)[0]
    return {
        "": ParetoStop(),
        "asha_": ASHA(grace=3, reduction=2),
        "mild_asha_": ASHA(grace=first, reduction=1.25),
    }


def measure(quick: bool) -> dict[str, float]:
    replays, figures = QUICK_REPLAYS if quick else REPLAYS, dict[str, float]()
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    two = ("model/parameters", "model/latency_ms")
    cases: dict[str, tuple[int, Callable[[int], Draw]]] = {
        "recorded": (kept["epochs"], recorded),
        "recorded_two_costs": (kept["epochs"], lambda seed: recorded(seed, two)),
        "equal_speeds": (EPOCHS, lambda seed: simulated(seed, (5, 5))),
        "other_speeds": (EPOCHS, lambda seed: simulated(seed, (2, 10))),
    }
    print(f"curves             scheduler    front equal     +-   kept  epochs trained   ({replays} replays)")
    for case, (epochs, draw) in cases.items():
        for name, scheduler in schedulers(epochs).items():
            found, error = replayed(draw, scheduler, replays)
            print(
                f"{case:<18} {name.strip('_') or 'pareto':<12} {found.equal:>11.1%} {error:>6.3f} {found.kept:>6.1%} "
                f"{found.share:>15.1%}"
            )
            stem = f"{case}_{name}"
            figures |= {f"{stem}{figure}": value for figure, value in found._asdict().items()} | {f"{stem}error": error}
    return figures | {"replays": replays, "arms": len(kept["arms"]), "drawn": ARMS, "recorded_epochs": kept["epochs"]}


if __name__ == "__main__":
    recording.run("pareto", __doc__, measure, LIMITS)

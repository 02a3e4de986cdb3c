"""Pareto stopping against the full search and against ASHA on the score alone: equal fronts, and epochs trained.

    python benchmarks/pareto.py [--quick]

A search is trained by the rule as the queue does it, on curves that are known to their end, and its front, of the runs
that were trained to the end, is compared with that of the full search: equal if it holds the same runs.

Recorded: replays draw 24 of the arms in benchmarks/curves.json, small hybrids that were trained on drawn radiographs
(benchmarks/curves.py): by parameters, of which the best models have few; by MACs, of which the worst have the fewest;
by parameters and latency. Simulated: 36 runs of 27 epochs, six models of random cost with six settings each; a model's
ceiling rises with the logarithm of its cost, a setting falls short of it by |normal| of 0.02, and after epoch e the
score is 0.5 + (q - 0.5)(1 - exp(-s e / 27)) + noise of sd 0.004. `s` is 5 for all, and then uniform in 3 .. 8 and
in 2 .. 10: early epochs favour the quick and not the good.

equal    share of replays with the front of the full search; `error` is its standard error, `low` the exact lower end
         (Clopper and Pearson, one-sided 95 %). Recorded replays share their arms, so that these are of this table of
         arms alone
kept     mean share of the full front's runs that are there
share    epochs trained of all

ASHA (grace 3, reduction 2, as in the searches of search_spaces/) knows the score alone; so does a matched one, which
begins at ParetoStop's own first rung and has the largest reduction with which it trains no fewer epochs. The bold one
is ParetoStop with a confidence of 0.9.

All figures are exact for the seeds, 1000 to 1000 + replays - 1: nothing is timed. ParetoStop's defaults were chosen on
simulated searches of seeds 0 to 99.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import recording
from curves import FILE
from numpy.typing import NDArray
from recording import Limit
from scipy.special import betaincinv

from xlite_search.records import RunRecord, Status
from xlite_search.results.front import front
from xlite_search.search import scheduling
from xlite_search.search.asha import ASHA, Decision, targets
from xlite_search.search.pareto import ParetoStop
from xlite_search.search.scheduling import Scheduler

REPLAYS, QUICK_REPLAYS, FIRST_SEED = 200, 5, 1000
METRIC, SIZE, MACS, LATENCY = "val/auroc_macro", "model/parameters", "model/macs", "model/latency_ms"
MODELS, SETTINGS, EPOCHS, ARMS = 6, 6, 27, 24
#: what more can be saved, and is lost
BOLD = ParetoStop(confidence=0.9)
LIMITS = {
    "recorded_equal": Limit(least=0.95),
    "recorded_macs_equal": Limit(least=0.95),
    "recorded_two_costs_equal": Limit(least=0.95),
    "equal_speeds_equal": Limit(least=0.95),
    "near_speeds_equal": Limit(least=0.95),
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


class Result(NamedTuple):
    """Means of outcomes over replays; standard error of `equal`, and its exact lower end."""

    equal: float
    kept: float
    share: float
    error: float
    low: float


def simulated(seed: int, speeds: tuple[float, float]) -> Draw:
    random = np.random.default_rng(seed)
    size = np.sort(random.uniform(0, 1, MODELS))
    ceiling = 0.78 + 0.04 * size + random.normal(0, 0.01, MODELS)
    quality = np.repeat(ceiling, SETTINGS) - np.abs(random.normal(0, 0.02, MODELS * SETTINGS))
    speed = random.uniform(*speeds, len(quality))[:, None]
    course = 0.5 + (quality[:, None] - 0.5) * (1 - np.exp(-speed * np.arange(1, EPOCHS + 1) / EPOCHS))
    return Draw(course + random.normal(0, 0.004, course.shape), np.repeat(1e6 * 10**size, SETTINGS)[:, None])


@cache
def recordings() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def recorded(seed: int, costs: tuple[str, ...] = (SIZE,)) -> Draw:
    """A part of the recorded arms, in random order."""
    kept = recordings()
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


def replayed(draw: Callable[[int], Draw], scheduler: Scheduler, replays: int) -> Result:
    """Of a rule on draws by their seeds."""
    found = []
    for seed in range(FIRST_SEED, FIRST_SEED + replays):
        drawn = draw(seed)
        found.append(outcome(drawn, trained(drawn, scheduler, seed)))
    means = Outcome(*map(float, np.mean(found, axis=0)))
    equal = round(means.equal * replays)
    low = float(betaincinv(equal, replays - equal + 1, 0.05)) if equal else 0.0
    return Result(*means, float(np.sqrt(means.equal * (1 - means.equal) / replays)), low)


def matched(drawn: Draw, share: float) -> ASHA:
    """ASHA from ParetoStop's first rung on, with the largest reduction that leaves it this share of the epochs or more.

    What it trains depends on no score, hence one draw tells.
    """
    grace = ParetoStop().rungs(drawn.scores.shape[1])[0]
    for reduction in np.arange(3, 1, -0.05):
        found = ASHA(grace=grace, reduction=round(float(reduction), 2))
        if outcome(drawn, trained(drawn, found, 0)).share >= share:
            return found
    return found


def measure(quick: bool) -> dict[str, float]:
    replays, figures = QUICK_REPLAYS if quick else REPLAYS, dict[str, float]()
    kept = recordings()
    cases: dict[str, Callable[[int], Draw]] = {
        "recorded": recorded,
        "recorded_macs": lambda seed: recorded(seed, (MACS,)),
        "recorded_two_costs": lambda seed: recorded(seed, (SIZE, LATENCY)),
        "equal_speeds": lambda seed: simulated(seed, (5, 5)),
        "near_speeds": lambda seed: simulated(seed, (3, 8)),
        "other_speeds": lambda seed: simulated(seed, (2, 10)),
    }
    print(f"{replays} replays          scheduler     front equal     +-    low    kept  epochs trained")
    for case, draw in cases.items():
        ours = replayed(draw, ParetoStop(), replays)
        even = matched(draw(0), ours.share)
        rivals: dict[str, Scheduler] = {"asha_": ASHA(grace=3, reduction=2), "matched_asha_": even, "bold_": BOLD}
        results = {"": ours} | {name: replayed(draw, rival, replays) for name, rival in rivals.items()}
        for name, found in results.items():
            print(
                f"{case:<20} {name.strip('_') or 'pareto':<13} {found.equal:>11.1%} {found.error:>6.3f} "
                f"{found.low:>6.3f} {found.kept:>7.1%} {found.share:>15.1%}"
            )
            figures |= {f"{case}_{name}{figure}": value for figure, value in found._asdict().items()}
        figures[f"{case}_matched_reduction"] = even.reduction
    return figures | {"replays": replays, "arms": len(kept["arms"]), "drawn": ARMS, "recorded_epochs": kept["epochs"]}


if __name__ == "__main__":
    recording.run("pareto", __doc__, measure, LIMITS)

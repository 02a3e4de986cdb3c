"""Halving by cohorts against Ray's AsyncHyperBandScheduler and against halving once: epochs spent, and the best lost.

    python benchmarks/asha.py [--quick]

A search is 36 trials of 27 epochs, reduction 3. After epoch e a trial's score is 0.5 + (q - 0.5)(1 - exp(-s e / 27)) +
noise of sd 0.004, q uniform in 0.74 .. 0.84. `s` is 5 for all, and then uniform in 2 .. 10: early rungs favour the
quick and not the good. Trials come best first, best last, or in random order, to one worker or four,
and an epoch takes 0.5 to 2 units of time, drawn for each trial. Recorded: 24 of the arms in benchmarks/curves.json,
small hybrids that were trained for 16 epochs on drawn radiographs, in random order; of those the true final score is
taken to be the best that was seen.

share    epochs trained of all, in the worst of the orders
regret   true final score of the best trial, minus that of the best among those trained to the end, which only an oracle
         knows; mean over draws
picked   the same, minus that of the one that a person takes: of those trained to the end, the best score that was seen

A second table compares at equal epochs: other reductions, in random order, on four workers. A third has the plainest
rule beside them, on the same draws: every trial for i epochs, the best k of them to the end, with the smallest k that
trains no fewer epochs than the other rule; `gap` is its regret minus the other's. The best i is chosen by these
very draws, which favours it.

All figures are exact for the seeds: nothing is timed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import recording
from curves import FILE
from halving import Draw, Floats, Spent, keep_for, once, ours, rays
from recording import Limit

TRIALS, EPOCHS, REDUCTION = 36, 27, 3
ARMS = 24
ORDERS = ("best first", "best last", "random")
WORKERS = (1, 4)
DRAWS, QUICK_DRAWS = 300, 3
LIMITS = {
    "worst_order_share_max": Limit(most=0.15),
    "mean_regret_max": Limit(most=0.001),
    "worst_order_share_max_grace_3": Limit(most=0.28),
    "mean_regret_max_grace_3": Limit(most=0.0003),
}

#: of a draw: the epochs that each trial was trained
Search = Callable[[Draw], Spent]
#: a rule by grace, reduction and workers
Rule = Callable[..., Spent]


class Speeds(NamedTuple):
    """`s` at least and at most; what figures begin with, and what those of Cost.share, regret and picked are called."""

    title: str
    range: tuple[float, float]
    prefix: str
    names: tuple[str, str, str]


EQUAL = Speeds("equal speeds", (5, 5), "", ("worst_order_share", "mean_regret", "mean_picked_regret"))
OTHER = Speeds("speeds of 2 to 10: early rungs mislead", (2, 10), "other_speeds_", ("share", "regret", "picked_regret"))

#: what halving once is compared with, by a figure's stem: rule, grace, reduction
RIVALS: Mapping[str, tuple[str, Rule, int, float]] = {
    "reduction_3": ("ours", ours, 1, 3),
    "reduction_2": ("ours", ours, 1, 2),
    "grace_3": ("ours", ours, 3, 3),
    "ray_reduction_3": ("Ray", rays, 1, 3),
}


class Cost(NamedTuple):
    """Means over the draws; `error` is the regret's standard error."""

    share: float
    regret: float
    picked: float
    error: float

    @classmethod
    def of(cls, outcomes: Floats) -> Cost:
        share, regret, picked = outcomes.mean(axis=0)
        return cls(share, regret, picked, error_of(outcomes[:, 1]))


def error_of(values: Floats) -> float:
    """Standard error of a mean."""
    return float(np.std(values) / np.sqrt(len(values)))


def draw(order: str, speeds: tuple[float, float], seed: int) -> Draw:
    random = np.random.default_rng(seed)
    quality = random.uniform(0.74, 0.84, TRIALS)
    quality = {"best first": np.sort(quality)[::-1], "best last": np.sort(quality), "random": quality}[order]
    speed = random.uniform(*speeds, TRIALS)[:, None]
    course = 0.5 + (quality[:, None] - 0.5) * (1 - np.exp(-speed * np.arange(1, EPOCHS + 1) / EPOCHS))
    return Draw(course + random.normal(0, 0.004, course.shape), course[:, -1], random.uniform(0.5, 2, TRIALS))


@cache
def recordings() -> Floats:
    """`[arm, epoch]`"""
    return np.array([arm["curve"] for arm in json.loads(FILE.read_text(encoding="utf-8"))["arms"]])


def recorded(seed: int) -> Draw:
    scores = recordings()[np.random.default_rng(seed).permutation(len(recordings()))[:ARMS]]
    return Draw(scores, scores.max(axis=1), np.ones(ARMS))


def outcome(drawn: Draw, spent: Spent) -> tuple[float, float, float]:
    """Share, regret and picked of one draw."""
    done = np.flatnonzero(spent == drawn.scores.shape[1])
    picked = done[drawn.scores[done].max(axis=1).argmax()]
    best = drawn.final.max()
    return float(spent.sum() / drawn.scores.size), best - drawn.final[done].max(), best - drawn.final[picked]


def outcomes(search: Search, drawing: Callable[[int], Draw], draws: int) -> Floats:
    """`[draw, (share, regret, picked)]`, over draws that are the same for every search."""
    return np.array([outcome(drawn, search(drawn)) for drawn in map(drawing, range(draws))])


def table(speeds: Speeds, draws: int) -> dict[str, float]:
    """Prints every case. The figures are the most of all orders and workers, and the least share."""
    print(f"\n{speeds.title}\ngrace workers  order       share ours    Ray  regret ours      Ray  picked ours      Ray")
    figures: dict[str, float] = {}
    for grace in (1, 3):
        cases: dict[str, list[Cost]] = {"": [], "ray_": []}
        for workers in WORKERS:
            for order in ORDERS:
                drawing = partial(draw, order, speeds.range)
                one, other = (
                    Cost.of(outcomes(partial(rule, grace=grace, reduction=REDUCTION, workers=workers), drawing, draws))
                    for rule in (ours, rays)
                )
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
    for name, rule, reductions in (("ours", ours, (2, 2.5, 3, 4)), ("Ray", rays, (2, 3, 4, 5))):
        for reduction in reductions:
            search = partial(rule, grace=1, reduction=reduction, workers=4)
            found = Cost.of(outcomes(search, partial(draw, "random", speeds.range), draws))
            print(f"{name:<6} {reduction:>9g} {row(found)}")
            stem = speeds.prefix + ("ray_" if rule is rays else "") + f"reduction_{reduction:g}".replace(".", "_")
            figures |= {f"{stem}_{figure}": value for figure, value in found._asdict().items()}
    return figures


def row(found: Cost) -> str:
    return f"{found.share:>6.1%} {found.regret:>8.5f} {found.error:>7.5f} {found.picked:>8.5f}"


def against_once(title: str, prefix: str, drawing: Callable[[int], Draw], draws: int) -> dict[str, float]:
    """Prints halving once, for every i, beside each rival. Figures are called `once_grace_3_best_regret` and so on: of
    one epoch first, and of the best i."""
    trials, epochs = drawing(0).scores.shape
    figures: dict[str, float] = {}
    print(f"\n{title}, random order, four workers")
    print(f"{'search':<31}  share   regret      +-   picked      gap      +-")
    for stem, (name, rule, grace, reduction) in RIVALS.items():
        theirs = outcomes(partial(rule, grace=grace, reduction=reduction, workers=4), drawing, draws)
        rival, plain = Cost.of(theirs), dict[int, dict[str, float]]()
        print(f"{f'{name}, grace {grace}, reduction {reduction:g}':<31} {row(rival)}")
        for first in range(1, epochs):
            if not (keep := keep_for(rival.share, first, trials, epochs)):
                break
            mine = outcomes(partial(once, first=first, keep=keep), drawing, draws)
            found, gaps = Cost.of(mine), mine[:, 1] - theirs[:, 1]
            plain[first] = {"first": first, "keep": keep, "gap": gaps.mean(), "gap_error": error_of(gaps)}
            plain[first] |= found._asdict()
            said = f"    i = {first}, keep {keep}"
            print(f"{said:<31} {row(found)} {gaps.mean():>8.5f} {error_of(gaps):>7.5f}")
        best = min(plain.values(), key=lambda each: each["regret"])
        figures |= {f"{prefix}once_{stem}_rival_{figure}": value for figure, value in rival._asdict().items()}
        for which, chosen in (("one", plain[1]), ("best", best)):
            figures |= {f"{prefix}once_{stem}_{which}_{figure}": value for figure, value in chosen.items()}
    return figures


def measure(quick: bool) -> dict[str, float]:
    draws, figures = QUICK_DRAWS if quick else DRAWS, dict[str, float]()
    for speeds in (EQUAL, OTHER):
        figures |= table(speeds, draws) | at_equal_epochs(speeds, draws)
    for speeds in (EQUAL, OTHER):
        figures |= against_once(speeds.title, speeds.prefix, partial(draw, "random", speeds.range), draws)
    figures |= against_once("recorded trainings", "recorded_", recorded, draws)
    return figures | {"trials": TRIALS, "epochs": EPOCHS, "draws": draws, "drawn": ARMS, "arms": len(recordings())}


if __name__ == "__main__":
    recording.run("asha", __doc__, measure, LIMITS)

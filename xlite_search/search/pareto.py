"""Pareto stopping: in a study with several objectives, stops who is beaten by a run that costs no more.

Costs (`minimize`: parameters, MACs, latency) are known of a run before it is trained; only its score is not. A run can
be stopped before its end if another one that costs no more in any objective will be ahead of it at the end, for then it
is off the front (`results/front.py`). A run is compared with none that costs more, and who is ahead of all that cost no
more always goes on: that is the front as it stands at the rung, the best of the cheapest and the best of all in it.

What is judged is the best score up to a rung, as the front is drawn from best scores: a run's final one is no lower. At
a rung `r` of `end` epochs a run that is behind is stopped if the gap is more than it can be expected to catch up:

    gap > max(0, its gain - the other's gain) + t * sqrt(2) * sd(gains of all) + slack

Gains are those of a look back that is as long in proportion as what is left, from epoch r^2 / end to r, and at least a
doubling: learning curves flatten, so that what is left parts runs no further than the look back did. All that came to
the rung are in `sd`, those of a search's earlier rounds too. Those that were trained to their end would tell more, but
were chosen for being ahead, and gain less than who is behind; so their gains from the rung to the end only ever widen
`sd`. `t * sqrt(2) * sd` bounds the difference of two gains, `t` being Student's quantile: few runs make it wide.

Decisions are by whole cohorts, as ASHA's (`asha.py`): a pure function of what was reported. Who is stopped stays so,
even if the run that is ahead of it fails later. What the rule costs in fronts, and saves in epochs, is measured in
benchmarks/pareto.py. Early stopping of several objectives is asked for in optuna#3450.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from xlite_search.records import RunRecord
from xlite_search.search import asha
from xlite_search.search.asha import Decision
from xlite_search.spec import Spec

Floats = NDArray[np.float64]
#: each rung lies this much further than the one before
GROWTH = 1.5
#: gains that tell a spread; of two that are equal by chance nothing follows
FEWEST = 3


class ParetoStop(Spec):
    """How a study with several objectives stops the dominated.

    after       share of a trial's epochs before which none is stopped
    confidence  that a run which is stopped would not have overtaken the other, if gains were normal
    slack       of the metric: a gap is never wide if it is not wider than this
    """

    name: Literal["pareto"] = "pareto"
    after: float = Field(0.4, gt=0, lt=1)
    confidence: float = Field(0.99, gt=0.5, lt=1)
    slack: float = Field(0.002, ge=0)

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Epochs at which trials of `epochs` epochs are judged; not the first, before which nothing is gained."""
        return _rungs(self.after, epochs)

    def words(self, epochs: int) -> str:
        """What it does to trials of `epochs` epochs, as a phrase."""
        if not (rungs := self.rungs(epochs)):
            return "too few epochs for ParetoStop to stop any"
        return f"ParetoStop stops those dominated at equal or lower cost at epochs {', '.join(map(str, rungs))}"


@lru_cache(maxsize=64)
def _rungs(after: float, epochs: int) -> tuple[int, ...]:
    first = max(2, math.ceil(after * epochs - 1e-9))
    steps = (math.floor(first * GROWTH**power + 1e-9) for power in range(64))
    return tuple(rung for rung in steps if rung < epochs)


def decisions(
    spec: ParetoStop, metric: str, minimize: Sequence[str], runs: Sequence[RunRecord], decided: Sequence[Decision]
) -> Iterator[Decision]:
    """What can be decided now and has not been, until nothing can; `runs` are all of the study, in its order."""
    decided = list(decided)
    while new := list(_by_cohort(spec, metric, minimize, runs, decided)):
        decided += new
        yield from new


def _by_cohort(
    spec: ParetoStop, metric: str, minimize: Sequence[str], runs: Sequence[RunRecord], decided: Sequence[Decision]
) -> Iterator[Decision]:
    """One decision for every cohort that has reported; the rounds before it are over then, and count with it."""
    for rung, members in asha.ready(spec, runs, decided):
        earlier = _rounds_before(members, runs, decided)
        if all(run.over for run in earlier):
            yield judged(spec, rung, metric, minimize, members, earlier)


def _rounds_before(
    members: Sequence[RunRecord], runs: Sequence[RunRecord], decided: Sequence[Decision]
) -> list[RunRecord]:
    """The runs that the study had before this cohort's round began."""
    first = next((decision for decision in decided if members[0].key in decision.scores), None)
    of_round = first.scores.keys() if first else {run.key for run in members}
    begins = next(place for place, run in enumerate(runs) if run.key in of_round)
    return list(runs[:begins])


def judged(
    spec: ParetoStop,
    rung: int,
    metric: str,
    minimize: Sequence[str],
    members: Sequence[RunRecord],
    earlier: Sequence[RunRecord] = (),
) -> Decision:
    """Who of a cohort goes on from a rung. `earlier` are runs that are over: those that came to the rung tell how
    gains spread, and those that were trained to their end may be ahead of a member."""
    rivals = [*members, *(run for run in earlier if run.status == "finished")]
    table = _Standings.of(rung, metric, minimize, rivals)
    bound = spec.slack + _spread(spec.confidence, rung, metric, [*members, *earlier])
    reasons = {}
    for place, run in enumerate(members):
        if not math.isfinite(table.best[place]):
            reasons[run.key] = f"stopped at rung {rung}: {metric} has no value"
            continue
        excess = table.gaps(place) - table.catching_up(place) - bound
        ahead = int(np.argmax(excess))  # of equal ones the first in the study
        if excess[ahead] > 0:
            gap, more = table.gaps(place)[ahead], table.catching_up(place)[ahead] + bound
            reasons[run.key] = _sentence(rung, metric, minimize, run, rivals[ahead], table.best[place], gap, more)
    scores = {run.key: float(best) for run, best in zip(members, table.best, strict=False)}
    kept = tuple(key for key in scores if key not in reasons)
    return Decision(rung, scores, len(members), kept, -math.inf if kept else math.inf, reasons)


@dataclass(frozen=True)
class _Standings:
    """Runs at a rung: best score so far `[run]`, its gain over the look back `[run]`, costs `[run, objective]`."""

    best: Floats
    gain: Floats
    costs: Floats

    @classmethod
    def of(cls, rung: int, metric: str, minimize: Sequence[str], runs: Sequence[RunRecord]) -> _Standings:
        best = np.array([_best(run, rung, metric) for run in runs])
        gain = np.array([_gain(run, rung, metric) for run in runs])
        costs = np.array([[run.objective(name) for name in minimize] for run in runs]).reshape(len(runs), -1)
        return cls(best, gain, costs)

    def gaps(self, place: int) -> Floats:
        """By how much each run is ahead of this one, `[run]`; -inf of who costs more, or whose cost is not known."""
        no_dearer = (self.costs <= self.costs[place]).all(axis=1) & np.isfinite(self.best)
        return np.asarray(np.where(no_dearer, self.best - self.best[place], -math.inf))

    def catching_up(self, place: int) -> Floats:
        """What this run will come nearer to each other, `[run]`, if it goes on to gain on it as it did."""
        others = np.where(np.isfinite(self.gain), self.gain, 0.0)
        return np.asarray(np.maximum(self.gain[place] - others, 0.0))


def _best(run: RunRecord, epoch: int, metric: str) -> float:
    """The best score up to an epoch; -inf if there is none, or if the run failed before."""
    if len(run.epochs) < epoch and run.status != "finished":
        return -math.inf
    scores = (score for score in run.metric(metric)[:epoch] if math.isfinite(score))
    return max(scores, default=-math.inf)


def look_back(rung: int, end: int) -> int:
    """The epoch from which gains up to a rung are taken: as far back in proportion as the end is ahead, and at least a
    doubling."""
    return max(1, min(rung * rung // end, rung // 2))


def _gain(run: RunRecord, rung: int, metric: str) -> float:
    """Over the look back; inf where it had no score then, so that nobody can say what it will gain. A run that has
    ended before the rung gains nothing more."""
    if len(run.epochs) < rung:
        return 0.0
    before = _best(run, look_back(rung, run.length), metric)
    return _best(run, rung, metric) - before if math.isfinite(before) else math.inf


def _spread(confidence: float, rung: int, metric: str, runs: Sequence[RunRecord]) -> float:
    """How much the gains of two runs may still differ, from those of all runs that came to the rung; inf of too few."""
    came = [run for run in runs if len(run.epochs) >= rung and math.isfinite(_best(run, rung, metric))]
    gains = [gain for run in came if math.isfinite(gain := _gain(run, rung, metric))]
    ended = [run for run in came if run.status == "finished"]
    to_the_end = [_best(run, len(run.epochs), metric) - _best(run, rung, metric) for run in ended]
    if len(gains) < FEWEST:
        return math.inf
    from scipy.special import stdtrit  # costs a tenth of a second, which `plan` does not need

    sd = max(float(np.std(some, ddof=1)) for some in (gains, to_the_end) if len(some) > 1)
    return float(stdtrit(len(gains) - 1, confidence)) * math.sqrt(2) * sd


def _sentence(
    rung: int,
    metric: str,
    minimize: Sequence[str],
    run: RunRecord,
    ahead: RunRecord,
    best: float,
    gap: float,
    catch_up: float,
) -> str:
    """Why this run was stopped, and who is ahead of it."""
    costs = " and ".join(
        f"{_amount(ahead.objective(name))} {name.rpartition('/')[2]} (its own {_amount(run.objective(name))})"
        for name in minimize
    )
    return (
        f"stopped at rung {rung}: dominated by {ahead.label} at {costs}: {metric} {best:.4f} is {gap:.4f} behind, more "
        f"than the {catch_up:.4f} that it may catch up"
    )


def _amount(cost: float) -> str:
    return f"{cost:,.0f}" if abs(cost) >= 1000 else f"{cost:.4g}"

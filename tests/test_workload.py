"""The bound of what a rule trains, against the rule itself: brute force, with scores against it and at random."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.machine import Machine
from xlite_search.records import RunRecord, Status
from xlite_search.search.asha import ASHA, Decision, decisions, targets
from xlite_search.search.forecast import forecast
from xlite_search.search.plan import make_plan
from xlite_search.search.runner import begin
from xlite_search.search.study import TPE, Study
from xlite_search.search.workload import Member, remaining, stages

if TYPE_CHECKING:
    import optuna

METRIC = "val/auroc_macro"


def epochs(scheduler: ASHA | None, lengths: list[int]) -> int:
    return sum(map(sum, stages(scheduler, [Member(0, length) for length in lengths])))


@pytest.mark.parametrize(
    ("scheduler", "lengths", "expected"),
    [
        (None, [3, 5], 8),
        # rungs 1, 2, 4; of 8 members max(1, round(8/2 * (1 + 1/2))) = 6 go on, then round(6/2 * 1.25) = 4 (3.75), then
        # round(4/2 * 1.125) = 2 (2.25): 8*1 + 6*1 + 4*2 + 2*4
        (ASHA(grace=1), [8] * 8, 30),
        (ASHA(grace=3), [8] * 8, 8 * 3 + 5 * 3 + 3 * 2),  # rungs 3, 6: round(8/2 * 7/6) = 5, round(5/2 * 13/12) = 3
        (ASHA(grace=4), [3, 3], 6),
    ],
)
def test_epochs_are_those_of_the_rule(scheduler: ASHA | None, lengths: list[int], expected: int) -> None:
    assert epochs(scheduler, lengths) == expected


@given(st.lists(st.integers(1, 40), max_size=12), st.integers(1, 5), st.sampled_from([1.5, 2.0, 3.0]))
def test_asha_never_adds_epochs_and_lets_one_trial_reach_its_end(
    lengths: list[int], grace: int, reduction: float
) -> None:
    total = epochs(ASHA(grace=grace, reduction=reduction), lengths)
    assert max(lengths, default=0) <= total <= sum(lengths)


#: (number of the trial, its length) -> its score at every epoch; None: it fails in the next
Score = Callable[[int, int], float | None]


class Rule:
    """The rule at work: rounds of trials, one activation at a time in a random order, decided as the queue does it."""

    def __init__(self, spec: ASHA, rounds: list[list[int]], score: Score, order: random.Random) -> None:
        self.spec, self.score, self.order = spec, score, order
        self.runs: dict[str, RunRecord] = {}
        self.decided: list[Decision] = []
        self.bounds: list[int] = []
        self.after: list[int] = []
        for lengths in rounds:
            for length in lengths:
                key = f"{len(self.runs):03d}"
                config = {"epochs": length, "monitor": METRIC, "batch_size": 2}
                self.runs[key] = RunRecord(Path(), key, "trial", key, {}, config)
            while waiting := targets(spec, self.runs.values(), self.decided):
                if len(rounds) == 1:  # later rounds are not in what is said of those that have begun
                    self.look()
                self.train(*self.next(waiting))

    def next(self, waiting: dict[str, int | None]) -> tuple[str, int | None]:
        """On arrival in the study's order, so that an ascending score arrives in this order at every rung."""
        return min(waiting.items()) if self.spec.asynchronous else self.order.choice(sorted(waiting.items()))

    def look(self) -> None:
        """What the bound says at this moment of those that have begun."""
        found = remaining(self.spec, list(self.runs.values()), self.decided)
        self.bounds.append(sum(sum(stage) for cohort in found for stage in cohort))
        self.after.append(self.trained)

    @property
    def trained(self) -> int:
        return sum(len(run.epochs) for run in self.runs.values())

    def train(self, key: str, until: int | None) -> None:
        run = self.runs[key]
        last = until or run.length
        score = self.score(int(key), run.length)
        if score is None:
            self.runs[key] = replace(run, status="failed")
        else:
            status: Status = "finished" if last == run.length else "paused"
            self.runs[key] = replace(run, epochs=({METRIC: score},) * last, status=status)
        for decision in decisions(self.spec, METRIC, list(self.runs.values()), self.decided):
            self.decided.append(decision)
            for loser in decision.scores.keys() - set(decision.kept):
                if not self.runs[loser].over:
                    self.runs[loser] = replace(self.runs[loser], status="stopped")


def at_random(order: random.Random) -> Score:
    return lambda number, length: order.random() if order.random() > 0.02 else None


@pytest.mark.parametrize("seed", range(200))
def test_a_rule_trains_no_more_than_was_said_and_that_much_if_it_can(seed: int) -> None:
    """Rounds of any size, mostly of one length as a search has them; scores that favour the longest, or that rise from
    trial to trial; and random ones, with failures."""
    order = random.Random(seed)
    spec = ASHA(
        grace=order.randint(1, 6),
        reduction=order.choice([1.2, 1.5, 2.0, 2.5, 3.0, 4.0, order.uniform(1.05, 6)]),
        asynchronous=order.random() < 0.25,
    )
    longest, batch, samples = order.randint(1, 40), order.randint(1, 12), order.randint(1, 40)
    mixed = order.random() < 0.3
    lengths = [order.randint(1, longest) if mixed else longest for _ in range(samples)]
    rounds = [lengths[begun : begun + batch] for begun in range(0, samples, batch)]
    bound = sum(epochs(spec, some) for some in rounds)
    against = Rule(spec, rounds, lambda number, length: number / 1000 if spec.asynchronous else float(length), order)
    assert against.trained == bound
    chance = Rule(spec, rounds, at_random(order), order)
    assert chance.trained <= bound
    for found in (against, chance):
        assert all(found.trained - done <= said for said, done in zip(found.bounds, found.after, strict=True))


def test_a_search_in_rounds_is_said_to_train_what_its_rounds_do(tiny: RunConfig) -> None:
    def space(trial: optuna.Trial) -> None:
        trial.suggest_float("optimizer.lr", 1e-4, 1e-2, log=True)

    def said(base: RunConfig, **more: Any) -> int:
        study = Study("?", baseline, base, space, samples=20, search=TPE(batch=8), **more)
        return forecast(make_plan(study, "search"), Machine()).epochs

    base = tiny.with_settings({"epochs": 20})
    # rungs 3, 6, 12 of eight: 8 x 3, 5 x 3, 3 x 6, 2 x 8; and of the last four: 4 x 3, 2 x 3, 1 x 14
    assert said(base, scheduler=ASHA(grace=3)) == 2 * 73 + 32
    assert said(base, scheduler=ASHA(grace=3, asynchronous=True)) == said(base) == 20 * 20
    assert said(base.with_settings({"stop_after": 3}), scheduler=ASHA(grace=3)) == 20 * 3


def test_a_search_that_suggests_epochs_is_said_to_train_the_most_of_them(tiny: RunConfig) -> None:
    def space(trial: optuna.Trial) -> None:
        trial.suggest_int("epochs", 2, 9)

    study = Study("?", baseline, tiny, space, samples=3, search=TPE(batch=1))
    plan = make_plan(study, "search")
    assert forecast(plan, Machine()).epochs == plan.trials[0].config.epochs + 2 * 9


def test_a_round_that_came_back_short_is_the_last(tiny: RunConfig) -> None:
    """Its space is exhausted; asked again it might give single trials, cohorts that nobody stops."""

    def space(trial: optuna.Trial) -> None:
        trial.suggest_categorical("batch_size", [8, 16, 32])

    study = Study("?", baseline, tiny, space, samples=20, search=TPE(batch=2), scheduler=ASHA(grace=1))
    first = make_plan(study, "search")
    assert (len(first.trials), first.in_all) == (2, 20)
    for record in begin(first).runs():
        record.close("failed", "?")
    second = make_plan(study, "search")
    assert (len(second.trials), second.in_all) == (3, 3)
    for record in begin(second).runs():
        record.close("failed", "?")
    third = make_plan(study, "search")
    assert (len(third.trials), third.in_all) == (3, 3)
    assert forecast(third, Machine()).epochs == 0

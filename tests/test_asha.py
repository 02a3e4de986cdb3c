"""Halving by cohorts: what is kept, that no order matters, and what is told to whom."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from xlite_search.records import RunRecord, Status
from xlite_search.search.asha import ASHA, Decision, decisions, targets

METRIC = "val/auroc_macro"


def run(key: str, scores: list[float], *, epochs: int = 8, status: Status = "paused") -> RunRecord:
    course = tuple({METRIC: score} for score in scores)
    config = {"epochs": epochs, "monitor": METRIC, "batch_size": 32}
    return RunRecord(Path("nowhere"), key, "trial", key, {}, config, epochs=course, status=status)


def decide(spec: ASHA, runs: list[RunRecord], decided: list[Decision] | None = None) -> list[Decision]:
    return list(decisions(spec, METRIC, runs, decided or []))


@pytest.mark.parametrize(
    ("spec", "epochs", "rungs"),
    [
        (ASHA(grace=1, reduction=2), 20, (1, 2, 4, 8, 16)),
        (ASHA(grace=3, reduction=2), 20, (3, 6, 12)),
        (ASHA(grace=1, reduction=3), 27, (1, 3, 9)),  # 27 is the end, not a rung
        (ASHA(grace=1, reduction=3), 28, (1, 3, 9, 27)),
        (ASHA(grace=2, reduction=1.5), 10, (2, 3, 4, 6)),  # 2, 3, 4.5, 6.75
        (ASHA(grace=5, reduction=2), 5, ()),
        (ASHA(grace=2, reduction=1.5, asynchronous=True), 10, (2, 3, 5, 7)),
    ],
)
def test_rungs(spec: ASHA, epochs: int, rungs: tuple[int, ...]) -> None:
    assert spec.rungs(epochs) == rungs


@pytest.mark.parametrize(
    ("members", "rung", "reduction", "kept"),
    [
        (36, 1, 3, 16),  # 36/3 * (1 + 1/3) = 16
        (16, 3, 3, 6),  # 16/3 * (1 + 1/9) = 5.93
        (6, 9, 3, 2),  # 6/3 * (1 + 1/27) = 2.07
        (8, 1, 2, 6),  # 4 * 1.5
        (4, 4, 2, 2),  # 2 * 1.125 = 2.25
        (1, 1, 2, 1),
        (1, 4, 4, 1),  # at least one
    ],
)
def test_how_many_are_kept(members: int, rung: int, reduction: float, kept: int) -> None:
    assert ASHA(reduction=reduction).kept(members, rung) == kept


def test_nothing_is_decided_before_the_last_of_the_cohort_has_reported() -> None:
    spec = ASHA(grace=2, reduction=4)
    three = [run("a", [0.5, 0.6]), run("b", [0.5, 0.8]), run("c", [0.5, 0.7])]
    late = run("d", [0.5], status="running")
    assert decide(spec, [*three, late]) == []
    # 4/4 * (1 + 1/8) = 1.1: one is kept
    (decision,) = decide(spec, [*three, run("d", [0.5, 0.5])])
    assert decision == Decision(2, {"a": 0.6, "b": 0.8, "c": 0.7, "d": 0.5}, 4, ("b",), 0.8)
    assert decision.sentence("c", METRIC) == (
        "stopped at rung 2: val/auroc_macro 0.7000 is behind the cut of 0.8000 among 4 trials"
    )


def test_failed_and_no_number_count_as_reported_and_as_the_worst() -> None:
    spec = ASHA(grace=1, reduction=2)
    runs = [run("nan", [math.nan]), run("failed", [], status="failed"), run("a", [0.2]), run("b", [0.1])]
    (decision,) = decide(spec, runs)  # 4/2 * 1.5 = 3 places, two of which nobody deserves
    assert decision.kept == ("a", "b")
    assert decision.scores["nan"] == decision.scores["failed"] == -math.inf
    assert decision.sentence("nan", METRIC) == "stopped at rung 1: val/auroc_macro has no value"
    (nobody,) = decide(spec, [run("a", [], status="failed"), run("b", [math.nan])])
    assert (nobody.kept, nobody.cut) == ((), math.inf)


def test_of_equal_scores_the_earlier_in_the_study_is_kept() -> None:
    spec = ASHA(grace=4, reduction=2)
    (decision,) = decide(spec, [run("b", [0, 0, 0, 0.5]), run("a", [0, 0, 0, 0.5])])
    assert decision.kept == ("b",)


def test_a_run_that_ended_before_the_rung_is_judged_by_its_last_epoch_and_takes_a_place() -> None:
    spec = ASHA(grace=4, reduction=2)
    early = run("early", [0.5, 0.9], status="finished")
    (decision,) = decide(spec, [early, run("a", [0, 0, 0, 0.8])])
    assert decision.kept == ("early",)


def test_the_next_round_of_a_search_is_a_cohort_of_its_own() -> None:
    spec = ASHA(grace=1, reduction=2)
    first = [run("a", [0.9]), run("b", [0.8]), run("c", [0.1])]
    (one,) = decide(spec, first)
    second = [run("d", [0.3]), run("e", [0.2])]
    decided = decide(spec, [*first, *second], [one])
    assert [set(decision.scores) for decision in decided] == [{"d", "e"}]


def test_targets_are_the_next_rung_or_the_end() -> None:
    spec = ASHA(grace=1, reduction=2)
    runs = [run("a", [0.9]), run("b", [0.1]), run("new", []), run("over", [0.1], status="stopped")]
    assert targets(spec, runs, []) == {"new": 1}
    decision = Decision(1, {"a": 0.9, "b": 0.1}, 2, ("a",), 0.9)
    assert targets(spec, runs, [decision]) == {"a": 2, "new": 1}
    last = Decision(4, {"a": 0.9}, 1, ("a",), 0.9)
    assert targets(spec, [run("a", [0.9] * 4)], [last]) == {"a": None}
    assert targets(None, runs, []) == {"a": None, "b": None, "new": None}


class Search:
    """A study in memory, driven activation by activation as the queue does it; restarted from its records at will."""

    def __init__(self, spec: ASHA, curves: dict[str, list[float]], seed: int, *, restarts: float = 0.0) -> None:
        self.spec, self.curves, self.restarts = spec, curves, restarts
        self.random = random.Random(seed)
        self.runs = {key: run(key, [], epochs=len(curve), status="waiting") for key, curve in curves.items()}
        self.journal: list[Decision] = []
        while waiting := targets(spec, self.runs.values(), self.journal):
            self.train(*self.random.choice(sorted(waiting.items(), key=str)))
            self.decide()

    def train(self, key: str, until: int | None) -> None:
        """To its target or, where it is killed, to some epoch before."""
        curve = self.curves[key]
        done, last = len(self.runs[key].epochs), until or len(curve)
        if self.random.random() < self.restarts:
            last = self.random.randint(done, last)
        status: Status = "finished" if last == len(curve) else "paused"
        course = tuple({METRIC: score} for score in curve[:last])
        self.runs[key] = replace(self.runs[key], epochs=course, status=status)

    def decide(self) -> None:
        for decision in decisions(self.spec, METRIC, list(self.runs.values()), self.journal):
            self.journal.append(decision)
        for decision in self.journal:
            for key in decision.scores.keys() - set(decision.kept):
                if not self.runs[key].over:
                    self.runs[key] = replace(self.runs[key], status="stopped")

    def outcome(self) -> dict[str, tuple[str, int]]:
        return {key: (run.status, len(run.epochs)) for key, run in self.runs.items()}


curves = st.lists(
    st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, math.nan]), min_size=1, max_size=9), min_size=1, max_size=9
)


@given(curves, st.integers(1, 3), st.sampled_from([1.5, 2.0, 3.0]), st.integers(0, 99), st.integers(0, 99))
def test_neither_order_nor_kills_change_what_is_decided(
    courses: list[list[float]], grace: int, reduction: float, seed: int, other: int
) -> None:
    spec = ASHA(grace=grace, reduction=reduction)
    study = {f"trial{n}": course for n, course in enumerate(courses)}
    one, two = Search(spec, study, seed), Search(spec, study, other, restarts=0.5)
    assert one.outcome() == two.outcome()
    by_rung = sorted(one.journal, key=str)
    assert by_rung == sorted(two.journal, key=str)
    assert all(run.over for run in one.runs.values())


def test_of_equal_scores_the_earlier_in_the_study_is_kept_at_every_rung() -> None:
    """Whoever was ahead at the rung before."""
    spec = ASHA(grace=1, reduction=2)  # of four 3 are kept at rung 1, of three 2 at rung 2, of two 1 at rung 4
    scores = {"a": [0.5, 0.7, 0, 0.8], "b": [0.6, 0.7, 0, 0.8], "c": [0.7, 0.7, 0, 0.8], "d": [0.1]}
    kept = [decision.kept for decision in decide(spec, [run(key, found) for key, found in scores.items()])]
    assert kept == [("c", "b", "a"), ("a", "b"), ("a",)]


def test_on_arrival_each_is_judged_against_those_before_it() -> None:
    spec = ASHA(grace=1, reduction=2, asynchronous=True)
    journal: list[Decision] = []
    runs: list[RunRecord] = []
    kept = ""
    # the cuts are medians of those before: none, 0.5, 0.6 (of 0.5 0.7), 0.6 (of 0.5 0.6 0.7),
    # 0.575 (of 0.5 0.55 0.6 0.7), 0.575 (of 0.5 0.55 0.575 0.6 0.7)
    for n, score in enumerate([0.5, 0.7, 0.6, 0.55, 0.575, 0.57]):
        runs.append(run(f"trial{n}", [score]))
        (decision,) = decide(spec, runs, journal)
        journal.append(decision)
        kept += "y" if decision.kept else "n"
    assert kept == "yyynyn"
    assert journal[3].sentence("trial3", METRIC).endswith("0.5500 is behind the cut of 0.6000 among 4 trials")
    assert decide(spec, runs, journal) == []


def test_on_arrival_who_has_no_value_is_stopped_and_counts_for_nobody() -> None:
    spec = ASHA(grace=2, reduction=2, asynchronous=True)
    runs = [run("nan", [0.5, math.nan]), run("failed", [0.9], status="failed"), run("early", [0.9], status="finished")]
    (decision,) = decide(spec, runs)
    assert (decision.kept, decision.scores, decision.cut) == ((), {"nan": -math.inf}, math.inf)
    (other,) = decide(spec, [*runs, run("a", [0.1, 0.1])], [decision])
    assert (other.kept, other.peers) == (("a",), 1)


class Rays:
    """Ray's own scheduler, told what a worker reports, epoch by epoch."""

    def __init__(self, spec: ASHA, epochs: int) -> None:
        self.scheduler = AsyncHyperBandScheduler("epoch", METRIC, "max", epochs, spec.grace, spec.reduction)
        self.epochs = epochs

    def goes_on(self, key: str, epoch: int, score: float, ended: bool) -> bool:
        """Whether it trains another epoch; to Tune a result that is the last is a completion, and nothing to judge."""
        trial, result = SimpleNamespace(trial_id=key), {"epoch": epoch, METRIC: score}
        if epoch == 1:
            self.scheduler.on_trial_add(None, trial)
        if ended:
            self.scheduler.on_trial_complete(None, trial, result)
            return False
        return bool(self.scheduler.on_trial_result(None, trial, result) == TrialScheduler.CONTINUE)


@given(
    st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=24), min_size=1, max_size=12),
    st.integers(1, 4),
    st.sampled_from([1.1, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0]) | st.floats(1.05, 5),
    st.integers(4, 24),
    st.randoms(use_true_random=False),
)
def test_on_arrival_is_rays_own_rule(
    curves: list[list[float]], grace: int, reduction: float, epochs: int, order: random.Random
) -> None:
    """Trials report in a random order, some end early; Ray's class says of every report the same."""
    spec = ASHA(grace=grace, reduction=reduction, asynchronous=True)
    rays, journal = Rays(spec, epochs), list[Decision]()
    runs = {f"t{n}": run(f"t{n}", [], epochs=epochs) for n in range(len(curves))}
    while going := [key for key, found in runs.items() if not found.over]:
        key = order.choice(going)
        curve, done = curves[int(key[1:])][:epochs], len(runs[key].epochs) + 1
        ended = done == len(curve)
        course = (*runs[key].epochs, {METRIC: curve[done - 1]})
        runs[key] = replace(runs[key], epochs=course, status="finished" if ended else "running")
        new = decide(spec, list(runs.values()), journal)
        journal += new
        stopped = any(key not in decision.kept for decision in new)
        assert rays.goes_on(key, done, curve[done - 1], ended) == (not ended and not stopped), (key, done)
        if stopped and not ended:
            runs[key] = replace(runs[key], status="stopped")


@pytest.mark.parametrize("wrong", [{"grace": 0}, {"reduction": 1.0}, {"grace": 1.5}, {"eta": 3}])
def test_a_wrong_setting_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ASHA.model_validate(wrong)

"""Pareto stopping: cases by hand, what it never does, that no order matters, and that fronts stay what they are."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pareto import recorded, replayed, simulated

from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.errors import BadInput
from xlite_search.machine import Machine
from xlite_search.records import RunRecord, Status
from xlite_search.search.asha import ASHA, Decision, targets
from xlite_search.search.forecast import forecast
from xlite_search.search.journal import Journal
from xlite_search.search.pareto import ParetoStop, judged, look_back
from xlite_search.search.plan import make_plan
from xlite_search.search.runner import begin
from xlite_search.search.scheduling import decisions
from xlite_search.search.space import Grid
from xlite_search.search.study import Study, grid_search
from xlite_search.search.verify import _of_decision

METRIC, SIZE = "val/auroc_macro", "model/parameters"


def run(key: str, scores: list[float], cost: float = 1.0, *, epochs: int = 4, status: Status = "paused") -> RunRecord:
    course = tuple({METRIC: score} for score in scores)
    config = {"epochs": epochs, "monitor": METRIC, "batch_size": 32}
    return RunRecord(Path("nowhere"), key, "trial", key, {}, config, facts={SIZE: cost}, epochs=course, status=status)


def judge(
    members: list[RunRecord], earlier: list[RunRecord] | None = None, spec: ParetoStop | None = None, rung: int = 2
) -> Decision:
    return judged(spec or ParetoStop(), rung, METRIC, [SIZE], members, earlier or [])


@pytest.mark.parametrize(
    ("spec", "epochs", "rungs"),
    [
        (ParetoStop(), 20, (8, 12, 18)),
        (ParetoStop(), 27, (11, 16, 24)),  # 10.8, 16.5, 24.75
        (ParetoStop(after=0.5), 20, (10, 15)),
        (ParetoStop(), 4, (2, 3)),
        (ParetoStop(after=0.01), 4, (2, 3)),  # before epoch 2 there is no gain
        (ParetoStop(), 2, ()),
        (ParetoStop(), 1, ()),
    ],
)
def test_rungs(spec: ParetoStop, epochs: int, rungs: tuple[int, ...]) -> None:
    assert spec.rungs(epochs) == rungs


@pytest.mark.parametrize(
    ("rung", "end", "epoch"),
    [
        (8, 20, 3),  # 8/3.2 = 20/8
        (12, 20, 6),  # 12/7.2 = 20/12, and half is less
        (2, 20, 1),
        (3, 4, 1),
    ],
)
def test_the_look_back_is_as_long_in_proportion_as_what_is_left(rung: int, end: int, epoch: int) -> None:
    assert look_back(rung, end) == epoch


#: gains 0.10, 0.10, 0.12, 0.08: their sd is sqrt(0.0008 / 3) = 0.016330; t(3, 0.99) = 4.540703, so that two gains
#: differ by at most 4.540703 * sqrt(2) * 0.016330 = 0.104863, and with the slack a gap of 0.106863 is wide
FOUR = {"a": [0.70, 0.80], "b": [0.58, 0.68], "c": [0.57, 0.69], "d": [0.52, 0.60]}


def test_a_gap_is_wide_if_it_is_more_than_gains_differ_and_than_what_is_caught_up() -> None:
    decision = judge([run(key, scores) for key, scores in FOUR.items()])
    # b is 0.12 behind. c is 0.11 behind, but came 0.02 nearer, which is added to what it may catch up
    assert (decision.kept, decision.peers, decision.rung) == (("a", "c"), 4, 2)
    assert decision.scores == {"a": 0.80, "b": 0.68, "c": 0.69, "d": 0.60}
    assert decision.sentence("b", METRIC) == (
        "stopped at rung 2: dominated by a at 1 parameters (its own 1): val/auroc_macro 0.6800 is 0.1200 behind, more "
        "than the 0.1069 that it may catch up"
    )


def test_who_costs_more_is_not_compared_with_and_the_cheapest_goes_on() -> None:
    costs = {"a": 3.0, "b": 3.0, "c": 2.0, "d": 1.0}
    decision = judge([run(key, scores, costs[key]) for key, scores in FOUR.items()])
    assert decision.kept == ("a", "c", "d")
    assert judge([run(key, scores, {"a": 2.0}.get(key, 1.0)) for key, scores in FOUR.items()]).kept == tuple("abcd")


def test_with_two_costs_both_have_to_be_no_higher() -> None:
    fast, small = "model/latency_ms", SIZE
    facts = {"a": (2.0, 1.0), "b": (1.0, 2.0), "c": (2.0, 2.0), "d": (2.0, 1.0)}
    runs = [replace(run(k, s), facts=dict(zip((fast, small), facts[k], strict=True))) for k, s in FOUR.items()]
    decision = judged(ParetoStop(), 2, METRIC, [fast, small], runs)
    assert decision.kept == ("a", "b", "c")
    assert "dominated by a at 2 latency_ms (its own 2) and 1 parameters (its own 1)" in decision.sentence("d", METRIC)


def test_the_best_so_far_counts_as_it_does_for_the_front() -> None:
    """The look back to rung 3 of 4 begins at epoch 1."""
    runs = [run(key, [first, last, last - 0.3]) for key, (first, last) in FOUR.items()]
    assert judge(runs, rung=3).scores == {"a": 0.80, "b": 0.68, "c": 0.69, "d": 0.60}


def test_equal_scores_stop_nobody_and_neither_does_a_gap_within_the_slack() -> None:
    level = [run(key, [score, score]) for key, score in {"a": 0.8, "b": 0.8, "c": 0.79801}.items()]
    assert judge(level).kept == ("a", "b", "c")
    assert judge([*level, run("d", [0.79799] * 2)]).kept == ("a", "b", "c")
    assert judge(level, spec=ParetoStop(slack=0.0)).kept == ("a", "b")


def test_one_alone_or_two_have_no_spread_to_speak_of() -> None:
    assert judge([run("a", [0.5, 0.5])]).kept == ("a",)
    two = [run("a", [0.8, 0.85]), run("b", [0.1, 0.15])]
    assert judge(two).kept == ("a", "b")
    assert judge([*two, run("c", [0.2, 0.25])]).kept == ("a",)


def test_failed_and_no_number_are_not_ahead_and_go_no_further() -> None:
    runs = [run("nan", [math.nan] * 2), run("failed", [0.99], status="failed"), run("a", [0.2] * 2)]
    decision = judge([*runs, run("b", [0.1] * 2), run("c", [0.2] * 2)])
    assert decision.kept == ("a", "c")
    assert decision.sentence("nan", METRIC) == "stopped at rung 2: val/auroc_macro has no value"
    nobody = judge(runs[:2])
    assert (nobody.kept, nobody.cut) == ((), math.inf)


def test_who_had_no_score_when_the_look_back_began_may_gain_anything() -> None:
    level = [run(key, [score] * 2) for key, score in {"a": 0.8, "b": 0.7, "c": 0.8}.items()]
    assert judge([*level, run("late", [math.nan, 0.1])]).kept == ("a", "c", "late")


def test_who_ended_early_is_ahead_by_its_score_and_gains_no_more() -> None:
    early, level = run("early", [0.9], status="finished"), [run(key, [0.6] * 2) for key in "abc"]
    assert judge([early, *level]).kept == ("early",)
    # gains 0, 0, 0, 0.1: t(3, 0.99) * sqrt(2) * 0.05 + 0.002 is 0.323; d may come 0.1 nearer to early besides
    assert judge([early, *level, run("d", [0.4, 0.5])]).kept == ("early", "a", "b", "c", "d")
    assert judge([early, *level, run("d", [0.35, 0.45])]).kept == ("early", "a", "b", "c")


def test_rounds_before_count_with_it() -> None:
    """The finished as rivals; all that came to the rung in the spread; gains to the end where they spread wider."""
    old = [run("x", [0.9] * 4, status="finished"), run("y", [0.3] * 2, status="stopped")]
    new = [run("a", [0.6] * 2), run("b", [0.95] * 2)]
    assert judge(new, old).kept == ("b",)
    assert judge([new[0]], old).kept == ()
    assert judge([new[0]], [old[1]]).kept == ("a",)
    late = run("z", [0.5, 0.5, 0.5, 0.8], status="finished")  # two gains to the end, 0 and 0.3: an sd of 0.21
    assert judge(new, [*old, late]).kept == ("a", "b")


def test_a_round_waits_until_those_before_it_are_over() -> None:
    spec = ParetoStop()
    first = [run("x", [0.9] * 2), run("y", [0.3] * 2), run("z", [0.4] * 2)]
    (one,) = decisions(spec, METRIC, [SIZE], first, [])
    assert one.kept == ("x",)
    second = [run("a", [0.6] * 2), run("b", [0.95] * 2)]
    stopped = [replace(each, status="stopped") for each in first[1:]]
    waiting = [replace(first[0], epochs=first[0].epochs * 2), *stopped, *second]
    over = [replace(waiting[0], status="finished"), *waiting[1:]]
    at_three = Decision(3, {"x": 0.9}, 1, ("x",), -math.inf, {})
    assert list(decisions(spec, METRIC, [SIZE], waiting, [one, at_three])) == []
    (two,) = decisions(spec, METRIC, [SIZE], over, [one, at_three])
    assert (set(two.scores), two.kept) == ({"a", "b"}, ("b",))


class Search:
    """A study in memory, driven activation by activation as the queue does it; cut short at will."""

    def __init__(
        self, spec: ParetoStop, curves: dict[str, tuple[float, list[float]]], seed: int, *, restarts: float = 0.0
    ) -> None:
        self.spec, self.curves, self.restarts = spec, curves, restarts
        self.random = random.Random(seed)
        self.runs = {k: run(k, [], cost, epochs=len(s), status="waiting") for k, (cost, s) in curves.items()}
        self.journal: list[Decision] = []
        while waiting := targets(spec, self.runs.values(), self.journal):
            self.train(*self.random.choice(sorted(waiting.items(), key=str)))
            self.decide()

    def train(self, key: str, until: int | None) -> None:
        curve = self.curves[key][1]
        done, last = len(self.runs[key].epochs), until or len(curve)
        if self.random.random() < self.restarts:
            last = self.random.randint(done, last)
        status: Status = "finished" if last == len(curve) else "paused"
        course = tuple({METRIC: score} for score in curve[:last])
        self.runs[key] = replace(self.runs[key], epochs=course, status=status)

    def decide(self) -> None:
        for decision in decisions(self.spec, METRIC, [SIZE], list(self.runs.values()), self.journal):
            self.journal.append(decision)
            for key in decision.scores.keys() - set(decision.kept):
                if not self.runs[key].over:
                    self.runs[key] = replace(self.runs[key], status="stopped")

    def outcome(self) -> dict[str, tuple[str, int]]:
        return {key: (run.status, len(run.epochs)) for key, run in self.runs.items()}


scores = st.sampled_from([0.1, 0.2, 0.3, 0.31, 0.4, math.nan]) | st.floats(0, 1)
members = st.lists(
    st.tuples(st.sampled_from([1.0, 2.0, 3.0]), st.lists(scores, min_size=7, max_size=7)), min_size=1, max_size=9
)
specs = st.builds(
    ParetoStop, after=st.floats(0.1, 0.9), confidence=st.floats(0.51, 0.999), slack=st.sampled_from([0.0, 0.01, 0.2])
)


@given(members, specs, st.integers(0, 99), st.integers(0, 99))
def test_neither_order_nor_kills_change_what_is_decided(
    found: list[tuple[float, list[float]]], spec: ParetoStop, seed: int, other: int
) -> None:
    study = {f"trial{n}": each for n, each in enumerate(found)}
    one, two = Search(spec, study, seed), Search(spec, study, other, restarts=0.5)
    assert one.outcome() == two.outcome()
    assert one.journal == two.journal
    assert all(run.over for run in one.runs.values())


@given(members, specs)
def test_whoever_is_stopped_is_behind_one_that_goes_on_and_costs_no_more(
    found: list[tuple[float, list[float]]], spec: ParetoStop
) -> None:
    """So that the front at a rung goes on, and of each cost the best of all that cost no more: the cheapest too."""
    runs = {f"trial{n}": run(f"trial{n}", curve[:3], cost, epochs=7) for n, (cost, curve) in enumerate(found)}
    decision = judge(list(runs.values()), spec=spec, rung=3)
    for key, score in decision.scores.items():
        no_dearer = [k for k in decision.scores if runs[k].facts[SIZE] <= runs[key].facts[SIZE]]
        ahead = [k for k in no_dearer if decision.scores[k] > score + spec.slack]
        if key not in decision.kept:
            assert not math.isfinite(score) or set(ahead) & set(decision.kept)
        if math.isfinite(score) and not ahead:
            assert key in decision.kept


@given(members, specs, st.floats(0, 0.3), st.randoms(use_true_random=False))
def test_more_slack_stops_no_more_and_the_studys_order_decides_nothing(
    found: list[tuple[float, list[float]]], spec: ParetoStop, more: float, order: random.Random
) -> None:
    runs = [run(f"trial{n}", curve[:3], cost, epochs=7) for n, (cost, curve) in enumerate(found)]
    kept = set(judge(runs, spec=spec, rung=3).kept)
    assert kept <= set(judge(runs, spec=spec.model_copy(update={"slack": spec.slack + more}), rung=3).kept)
    others = runs.copy()
    order.shuffle(others)
    assert {run.key for run in others if run.key in judge(others, spec=spec, rung=3).kept} == kept


@pytest.mark.parametrize("speeds", [(5.0, 5.0), (2.0, 10.0)])
def test_fronts_of_200_simulated_searches_are_those_of_the_full_search(speeds: tuple[float, float]) -> None:
    found = replayed(lambda seed: simulated(seed, speeds), ParetoStop(), 200)
    assert found.equal >= 0.95
    assert found.share <= 0.90


def test_fronts_of_200_recorded_searches_are_those_of_the_full_search() -> None:
    found = replayed(recorded, ParetoStop(), 200)
    assert found.equal >= 0.95
    assert found.share <= 0.90


def test_a_journal_gives_the_reasons_again_and_ashas_entries_have_none(tmp_path: Path) -> None:
    nobody = judge([run("a", [], status="failed")])
    decided = [judge([run(k, s) for k, s in FOUR.items()]), nobody, Decision(1, {"a": 0.5}, 1, ("a",), 0.5)]
    journal = Journal(tmp_path)
    for decision in decided:
        journal.append(decision)
    assert Journal(tmp_path).decisions == decided
    *_, last = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert "reasons" not in json.dumps(json.loads(last))


def test_verify_compares_what_was_judged_by_bests_with_bests() -> None:
    fell = run("a", [0.8, 0.7, 0.6], status="stopped")
    decision = judge([fell, run("b", [0.9] * 2), run("c", [0.9] * 2)])
    assert list(_of_decision(decision, fell, 0.8, METRIC)) == []
    (broken,) = _of_decision(decision, fell, 0.75, METRIC)
    assert "its record has 0.8" in broken


def test_a_study_takes_it_with_further_objectives_only_and_runs_of_one_length(tiny: RunConfig) -> None:
    def a_study(space: Grid, minimize: tuple[str, ...] = (SIZE,)) -> Study:
        return Study("?", baseline, tiny, space, minimize=minimize, scheduler=ParetoStop())

    grid = {"optimizer.lr": grid_search([1e-3, 3e-3])}
    with pytest.raises(BadInput, match=r"^scheduler: ParetoStop .* this study has one objective; say the cost"):
        a_study(grid, ())
    with pytest.raises(BadInput, match=r"'model/parameter' is not one of .*did you mean 'model/parameters'\?"):
        a_study(grid, ("model/parameter",))
    for name in ("epochs", "stop_after"):
        with pytest.raises(BadInput, match=f"^{name} is swept, and ParetoStop compares runs of one length"):
            a_study({name: grid_search([2, 3])})
    with pytest.raises(BadInput, match="take ParetoStop"):
        replace(a_study(grid), scheduler=ASHA())
    with pytest.raises(BadInput, match="ParetoStop: unknown setting 'afer'; did you mean 'after'"):
        ParetoStop(**{"afer": 0.5})


def test_a_plan_says_what_it_does_and_promises_no_epochs(tiny: RunConfig) -> None:
    grid = {"optimizer.lr": grid_search([1e-3, 3e-3])}
    study = Study("?", baseline, tiny, grid, minimize=(SIZE,), scheduler=ParetoStop())
    plan = make_plan(study, "s")
    assert plan.scheduler_in_words() == "ParetoStop stops those dominated at equal or lower cost at epochs 2"
    assert plan.definition["scheduler"] == {"name": "pareto", "after": 0.4, "confidence": 0.99, "slack": 0.002}
    assert forecast(plan, Machine()).epochs == 2 * 3
    short = make_plan(replace(study, base=tiny.with_settings({"epochs": 2})), "t")
    assert short.scheduler_in_words() == "too few epochs for ParetoStop to stop any"
    begin(plan)
    assert make_plan(replace(study, scheduler=ParetoStop(after=0.5)), "s").definition != plan.definition

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from xlite_search.search.asha import ASHA, Halving

METRIC = "val/auroc_macro"


def halving(reduction: float = 2.0) -> Halving:
    return Halving(ASHA(grace=1, reduction=reduction), METRIC)


def verdicts(scores: list[float], reduction: float = 2.0) -> str:
    """s for stopped and g for goes on, one trial after another at the first rung."""
    rule = halving(reduction)
    return "".join("s" if rule.judge(f"trial{n}", 1, 8, score) else "g" for n, score in enumerate(scores))


@pytest.mark.parametrize(
    ("spec", "epochs", "rungs"),
    [
        (ASHA(grace=1, reduction=2), 20, [1, 2, 4, 8, 16]),
        (ASHA(grace=3, reduction=2), 20, [3, 6, 12]),
        (ASHA(grace=1, reduction=3), 27, [1, 3, 9]),  # 27 is the end, not a rung
        (ASHA(grace=1, reduction=3), 28, [1, 3, 9, 27]),
        (ASHA(grace=2, reduction=1.5), 10, [2, 3, 4, 6]),  # 2, 3, 4.5, 6.75
        (ASHA(grace=5, reduction=2), 5, []),
    ],
)
def test_rungs(spec: ASHA, epochs: int, rungs: list[int]) -> None:
    assert spec.rungs(epochs) == rungs


def test_a_sequence_worked_by_hand() -> None:
    # the cuts are lower medians of those before: none, 0.5, 0.5 (of 0.5 0.7), 0.6 (of 0.5 0.6 0.7),
    # 0.55 (of 0.5 0.55 0.6 0.7), 0.55 (of 0.5 0.55 0.55 0.6 0.7)
    assert verdicts([0.5, 0.7, 0.6, 0.55, 0.55, 0.54]) == "gggsgs"


def test_a_reduction_of_three_keeps_the_upper_third() -> None:
    # cut of 0.1 ... 0.6 at 2/3: the fourth of six, 0.4
    rule = halving(3)
    for n, score in enumerate([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]):
        rule.judge(f"trial{n}", 1, 8, score)
    assert rule.judge("below", 1, 8, 0.39) is not None
    assert halving(3).judge("first", 1, 8, 0.39) is None


def test_the_sentence_names_rung_score_cut_and_peers() -> None:
    rule = halving()
    rule.judge("a", 1, 8, 0.7)
    assert rule.judge("b", 1, 8, 0.6) == f"stopped at rung 1: {METRIC} 0.6000 is below the cut of 0.7000 among 1 other"
    sentence = rule.judge("c", 1, 8, 0.5)
    assert sentence is not None
    assert sentence.endswith("among 2 others")


def test_the_first_at_a_rung_stays_however_bad() -> None:
    assert verdicts([-1.0]) == "g"
    assert verdicts([math.nan]) == "g"


def test_a_tie_with_the_cut_stays() -> None:
    assert verdicts([0.5, 0.5, 0.5, 0.5]) == "gggg"


def test_nan_is_the_worst() -> None:
    assert verdicts([0.1, math.nan]) == "gs"
    assert verdicts([math.nan, 0.1, 0.05]) == "ggg"  # the lower median of nothing and 0.1 is nothing
    assert verdicts([math.nan, math.nan, 0.3, 0.2]) == "gggg"


def test_an_epoch_that_is_no_rung_is_not_judged() -> None:
    rule = halving()
    for epoch in (3, 5, 6, 7, 8):
        assert rule.judge("a", epoch, 8, 0.9) is None
        assert rule.judge("b", epoch, 8, 0.1) is None
    assert rule.scores == {}


def test_rungs_are_judged_apart() -> None:
    rule = halving()
    assert rule.judge("a", 1, 8, 0.9) is None
    assert rule.judge("b", 2, 8, 0.1) is None
    assert rule.scores == {1: {"a": 0.9}, 2: {"b": 0.1}}


def test_a_repeated_report_changes_nothing_and_stops_nobody() -> None:
    rule = halving()
    rule.judge("a", 1, 8, 0.5)
    rule.judge("b", 1, 8, 0.9)
    assert rule.judge("a", 1, 8, 0.1) is None
    assert rule.scores == {1: {"a": 0.5, "b": 0.9}}


def test_order_matters_and_only_through_those_who_came_before() -> None:
    assert verdicts([0.1, 0.2, 0.3, 0.4]) == "gggg"
    assert verdicts([0.4, 0.3, 0.2, 0.1]) == "gsss"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_a_new_best_is_never_stopped(scores: list[float]) -> None:
    found = verdicts(scores)
    for n, score in enumerate(scores):
        if score >= max(scores[:n], default=-math.inf):
            assert found[n] == "g"


@given(st.lists(st.floats(0, 1) | st.just(math.nan), min_size=1, max_size=20), st.integers(0, 20))
def test_a_memory_that_was_filled_again_decides_the_same(scores: list[float], cut: int) -> None:
    rule = halving()
    for n, score in enumerate(scores[:cut]):
        rule.judge(f"trial{n}", 1, 8, score)
    again = Halving(rule.spec, METRIC, {1: dict(rule.scores.get(1, {}))})
    late = list(enumerate(scores))[cut:]
    assert [rule.judge(f"trial{n}", 1, 8, s) for n, s in late] == [again.judge(f"trial{n}", 1, 8, s) for n, s in late]


@pytest.mark.parametrize("setting", [{"grace": 0}, {"reduction": 1.0}, {"grace": 1.5}])
def test_impossible_rules_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ASHA.model_validate(setting)

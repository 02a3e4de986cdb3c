"""Which factors a list of trials cannot tell apart."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlite_search.factors import aliases


def said(*settings: dict[str, Any]) -> list[str]:
    return list(aliases(settings))


def test_the_labs_own_mistake_is_told() -> None:
    (sentence,) = said(
        {"kd.alpha": 0.0, "optimizer.lr": 1e-4, "model": "a"},
        {"kd.alpha": 0.0, "optimizer.lr": 1e-4, "model": "b"},
        {"kd.alpha": 0.5, "optimizer.lr": 1e-3, "model": "a"},
        {"kd.alpha": 0.7, "optimizer.lr": 1e-3, "model": "a"},
        {"kd.alpha": 0.7, "optimizer.lr": 1e-3, "model": "b"},
    )
    assert sentence == (
        "kd.alpha 0.0 only ever with optimizer.lr 0.0001, kd.alpha 0.5, 0.7 only ever with optimizer.lr 0.001: "
        "what one does cannot be told from what the other does"
    )


def test_one_clean_pair_is_enough() -> None:
    confused = [{"a": 0, "b": 0}, {"a": 1, "b": 1}]
    assert len(said(*confused)) == 1
    assert said(*confused, {"a": 1, "b": 0}) == []


def test_three_factors_that_change_together_are_three_pairs() -> None:
    found = said({"a": 0, "b": 0, "c": 0}, {"a": 1, "b": 1, "c": 1})
    assert [sentence.split(":")[0] for sentence in found] == [
        "a 0 only ever with b 0, a 1 only ever with b 1",
        "a 0 only ever with c 0, a 1 only ever with c 1",
        "b 0 only ever with c 0, b 1 only ever with c 1",
    ]


def test_a_control_without_a_teacher_is_compared_with_every_tau() -> None:
    grid = [{"kd.alpha": alpha, "kd.tau": tau} for alpha in (0.5, 0.7) for tau in (4, 8)]
    assert said({"kd.alpha": 0.0}, *grid) == []


@pytest.mark.parametrize("changed", ["a", "b", "c"])
def test_one_change_at_a_time_is_clean(changed: str) -> None:
    base = {"a": 0, "b": 0, "c": 0}
    assert said(base, *({**base, name: 1} for name in base), {**base, changed: 2}) == []


def test_what_is_drawn_at_random_is_no_design() -> None:
    assert said(*({"lr": 0.1 / n, "decay": n * 0.3, "model": "ab"[n % 2]} for n in range(1, 9))) == []


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.randoms())
def test_a_full_grid_tells_everything_apart(sizes: list[int], random: Any) -> None:
    grid = [dict(zip("abcd", point, strict=False)) for point in itertools.product(*map(range, sizes))]
    random.shuffle(grid)
    assert said(*grid) == []


@given(st.lists(st.integers(0, 9), min_size=2, max_size=4, unique=True))
def test_a_factor_that_follows_another_is_told_whatever_else_there_is(values: list[int]) -> None:
    grid = [{"a": value, "b": value * 10, "c": c} for value in values for c in (0, 1)]
    assert any(sentence.startswith("a ") and " b " in sentence for sentence in said(*grid))

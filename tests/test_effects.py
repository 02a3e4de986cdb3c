"""Main effects of designs by pencil: full and fractional grids, nested factors, seeds, and aliases among survivors."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlite_search.records import RunRecord, StoredFile
from xlite_search.results.effects import Effects, aliased_survivors, main_effects, study_effects

GRID: list[dict[str, Any]] = [
    {"a": a, "b": b, "c": c} for a, b, c in itertools.product((1, 2), ("x", "y", "z"), (0, 1))
]
ADDS: dict[Any, float] = {1: -0.02, 2: 0.02, "x": -0.01, "y": 0.0, "z": 0.01}


def of(found: Effects | None) -> dict[tuple[str, Any], float]:
    assert found is not None
    return {(each.factor, each.level): each.effect for each in found.effects}


def scores(grid: list[dict[str, Any]]) -> list[float]:
    return [0.7 + ADDS[one["a"]] + ADDS[one["b"]] for one in grid]


def test_an_additive_grid_is_told_exactly() -> None:
    found = main_effects(GRID, scores(GRID))
    expected = {("a", 1): -0.02, ("a", 2): 0.02, ("b", "x"): -0.01, ("b", "y"): 0, ("b", "z"): 0.01}
    assert of(found) == pytest.approx(expected | {("c", 0): 0, ("c", 1): 0}, abs=1e-12)
    assert found is not None and (found.dof, found.by_seed, found.runs) == (12 - 5, False, 12)
    assert all(each.half == pytest.approx(0, abs=1e-9) for each in found.effects)


def test_half_of_a_grid_tells_the_same() -> None:
    """a x b x c with the sum of the levels even: each pair of factors is still crossed."""
    half = [{"a": a, "b": b, "c": (a + b) % 2} for a, b in itertools.product((0, 1), (0, 1))]
    found = main_effects(half, [one["a"] * 0.1 + one["b"] * 0.02 for one in half])
    assert of(found) == pytest.approx(
        {("a", 0): -0.05, ("a", 1): 0.05, ("b", 0): -0.01, ("b", 1): 0.01, ("c", 0): 0, ("c", 1): 0}, abs=1e-12
    )
    assert found is not None and found.dof == 0
    assert all(math.isnan(each.half) for each in found.effects), "nothing is left to estimate an error from"


def test_the_interval_is_that_of_a_pencil() -> None:
    """Two levels, two runs each: scores 0.1, 0.3 and 0.5, 0.9. The error's variance is (0.02 + 0.08) / 2."""
    found = main_effects([{"a": 0}, {"a": 0}, {"a": 1}, {"a": 1}], [0.1, 0.3, 0.5, 0.9])
    assert of(found) == pytest.approx({("a", 0): -0.25, ("a", 1): 0.25})
    assert found is not None and found.effects[0].half == pytest.approx(4.302653 * math.sqrt(0.05 / 4), abs=1e-6)


def test_factors_that_always_change_together_have_no_figures() -> None:
    grid = [{"a": a, "b": a * 10, "c": c} for a, c in itertools.product((0, 1), (0, 1))]
    found = main_effects(grid, [1.0, 1.1, 2.0, 2.1])
    assert of(found)["c", 1] == pytest.approx(0.05)
    assert all(math.isnan(value) for (name, _), value in of(found).items() if name != "c")
    assert found is not None and "aliased" in found.table().columns[3].cells
    assert found.as_json()["effects"][0]["effect"] is None


def test_tau_is_compared_among_those_with_a_teacher() -> None:
    grid: list[dict[str, Any]] = [{"kd.alpha": 0.0}]
    grid += [{"kd.alpha": alpha, "kd.tau": tau} for alpha, tau in itertools.product((0.5, 0.7), (4, 8))]
    found = of(main_effects(grid, [0.6, 0.7, 0.72, 0.8, 0.82]))
    assert found["kd.tau", 8] == pytest.approx(0.01)
    assert found["kd.alpha", 0.7] - found["kd.alpha", 0.5] == pytest.approx(0.1)
    assert found["kd.alpha", 0.5] - found["kd.alpha", 0.0] == pytest.approx(0.71 - 0.6), "at the mean tau"


def test_where_there_are_seeds_the_error_is_theirs() -> None:
    """An interaction is no error then, and the seeds' own means are none either."""
    grid = [{"a": a, "b": b, "seed": seed} for a, b, seed in itertools.product((0, 1), (0, 1), (1, 2, 3))]
    noise = np.random.default_rng(0).normal(scale=0.01, size=len(grid))
    clean = [0.3 * one["a"] * one["b"] + 0.1 * one["seed"] for one in grid]
    found = main_effects(grid, list(np.array(clean) + noise))
    assert found is not None and found.by_seed and found.dof == 12 - (4 + 3 - 1)
    assert {each.factor for each in found.effects} == {"a", "b"}, "a seed is chance"
    assert all(each.half < 0.02 for each in found.effects)
    without = main_effects([{n: v for n, v in one.items() if n != "seed"} for one in grid], clean)
    assert without is not None and all(each.half > 0.05 for each in without.effects)


def test_intervals_hold_what_they_say() -> None:
    """Over 400 drawn designs with seeds: an effect of 0 is within its interval in about 95 %."""
    grid = [{"a": a, "b": b, "seed": seed} for a, b, seed in itertools.product((0, 1), (0, 1, 2), (1, 2, 3))]
    random, held = np.random.default_rng(1), 0
    for _ in range(400):
        found = main_effects(grid, list(random.normal(size=len(grid))))
        assert found is not None
        held += abs(found.effects[0].effect) <= found.effects[0].half
    assert 0.92 <= held / 400 <= 0.98


def test_nothing_is_told_of_one_setting() -> None:
    assert main_effects([{"a": 1}, {"a": 1}], [0.1, 0.2]) is None
    assert main_effects([], []) is None
    assert main_effects([{"seed": 1}, {"seed": 2}], [0.1, 0.2]) is None


def run(folder: Path, settings: dict[str, Any], curve: list[float], status: str) -> RunRecord:
    key = "-".join(f"{value}" for value in settings.values())
    epochs = tuple({"m": score} for score in curve)
    best = StoredFile("b", "", 1 + int(np.argmax(curve)))
    record = RunRecord(folder / key, key, "trial", key, settings, {"epochs": 4}, epochs=epochs, bests=(best,))
    return record.save().close("finished" if status == "finished" else "stopped", "")


def test_of_a_search_with_a_scheduler_effects_are_those_at_the_first_rung(tmp_path: Path) -> None:
    runs = [
        run(tmp_path, {"a": 0, "b": 0}, [0.5, 0.6, 0.7, 0.8], "finished"),
        run(tmp_path, {"a": 0, "b": 1}, [0.3], "stopped"),
        run(tmp_path, {"a": 1, "b": 0}, [0.4, 0.41], "stopped"),
        run(tmp_path, {"a": 1, "b": 1}, [0.6, 0.7, 0.8, 0.95], "finished"),
    ]
    found = study_effects(runs, "m")
    assert found is not None and found.rung == 1
    assert of(found) == pytest.approx({("a", 0): -0.05, ("a", 1): 0.05, ("b", 0): 0, ("b", 1): 0}, abs=1e-12)
    (sentence,) = found.aliased
    assert sentence == (
        "of those that were trained to the end: a 0 only ever with b 0, a 1 only ever with b 1: "
        "what one does cannot be told from what the other does"
    )
    assert sentence in found.table().notes
    finished = study_effects([run(tmp_path, one.settings, list(one.metric("m")), "finished") for one in runs], "m")
    assert finished is not None and finished.rung is None and finished.aliased == ()
    assert of(finished)["a", 1] == pytest.approx((0.41 + 0.95 - 0.8 - 0.3) / 4)


def test_what_the_whole_study_confused_is_no_news_of_its_survivors(tmp_path: Path) -> None:
    runs = [
        run(tmp_path, {"a": a, "b": a, "c": c}, [0.1, 0.2], "finished" if c == 0 else "stopped")
        for a, c in itertools.product((0, 1), (0, 1))
    ]
    assert aliased_survivors(runs) == ()

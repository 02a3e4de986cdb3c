from __future__ import annotations

import functools
import json
import linecache
import math
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from xlite_search.errors import BadInput
from xlite_search.search.suggest import (
    TPE,
    Direction,
    Suggester,
    Tried,
    _rebuilt,
    code_of,
    described,
    probe,
    suggest,
)

if TYPE_CHECKING:
    import optuna

UP: tuple[Direction, ...] = ("maximize",)
BEST = 0.7


def line(trial: optuna.Trial) -> None:
    trial.suggest_float("x", 0, 1)


def losses(trial: optuna.Trial) -> None:
    trial.suggest_float("optimizer.lr", 1e-5, 1e-2, log=True)
    if trial.suggest_categorical("loss", ["bce", "focal"]) == "focal":
        trial.suggest_float("loss.alpha", 0.25, 0.95)
        trial.suggest_int("loss.gamma", 1, 5)


def small(trial: optuna.Trial) -> None:
    """4 x 3 + 4 x 3 x 2 = 36 points."""
    trial.suggest_categorical("model", list("abcd"))
    trial.suggest_int("depth", 1, 3)
    if trial.suggest_categorical("loss", ["bce", "focal"]) == "focal":
        trial.suggest_categorical("loss.alpha", [0.25, 0.5])


def scalars(trial: optuna.Trial) -> None:
    trial.suggest_categorical("any", [None, True, 2, 0.5, "x"])
    trial.suggest_int("whole", 1, 1000, log=True)
    trial.suggest_float("stepped", 0, 1, step=0.1)
    trial.suggest_float("log", 1e-9, 1e9, log=True)


def itself(point: dict[str, Any]) -> Hashable:
    return json.dumps(point, sort_keys=True)


def finished(point: dict[str, Any], *values: float) -> Tried:
    return Tried(point, values, {}, "finished")


def ask(
    space: Suggester,
    tried: Sequence[Tried] = (),
    count: int = 8,
    *,
    startup: int = 10,
    directions: tuple[Direction, ...] = UP,
    seed: int = 0,
    identity: Callable[[dict[str, Any]], Hashable] = itself,
) -> list[dict[str, Any]]:
    tpe = TPE(startup=startup)
    return suggest(space, tried, count, tpe=tpe, directions=directions, seed=seed, identity=identity)


def search(
    space: Suggester, judge: Callable[[dict[str, Any]], Tried], rounds: int, *, seed: int = 0, startup: int = 10
) -> list[Tried]:
    """All runs of so many rounds, each judged at once."""
    tried: list[Tried] = []
    for _ in range(rounds):
        tried += map(judge, ask(space, tried, seed=seed, startup=startup))
    return tried


def parabola(point: dict[str, Any]) -> Tried:
    return finished(point, -((point["x"] - BEST) ** 2))


def distance(tried: Sequence[Tried]) -> float:
    return float(np.mean([abs(one.settings["x"] - BEST) for one in tried]))


def worth(point: dict[str, Any]) -> Tried:
    return finished(point, float(point["model"] == "c") + point["depth"] / 10 + point.get("loss.alpha", 0.0))


def test_a_point_is_what_the_space_suggested() -> None:
    for point in ask(losses, count=20):
        expected = {"optimizer.lr", "loss"} | ({"loss.alpha", "loss.gamma"} if point["loss"] == "focal" else set())
        assert list(point) == [n for n in ("optimizer.lr", "loss", "loss.alpha", "loss.gamma") if n in expected]


@pytest.mark.parametrize("seed", range(3))
def test_the_model_moves_toward_the_better_half(seed: int) -> None:
    tried = search(line, parabola, 5, seed=seed)
    assert distance(tried[24:]) < 0.6 * distance(tried[:16])


def test_directions_are_heeded() -> None:
    at_random = ask(line, count=12)
    tried = [finished(point, point["x"]) for point in at_random]
    up, down = (ask(line, tried, directions=(way,)) for way in cast("list[Direction]", ["maximize", "minimize"]))
    assert min(point["x"] for point in up) > max(point["x"] for point in down)


def test_the_seed_is_heeded() -> None:
    assert ask(losses, seed=1) != ask(losses, seed=2)


def test_rounds_differ_before_the_model_speaks() -> None:
    first = ask(line)
    assert not {p["x"] for p in first} & {p["x"] for p in ask(line, [finished(p, 0.0) for p in first], startup=99)}


@given(st.integers(1, 8), st.integers(0, 2**32), st.sampled_from([0, 3, 10]))
@settings(max_examples=15, deadline=None)
def test_fewer_are_the_first_of_more(count: int, seed: int, startup: int) -> None:
    tried = [finished(point, point["optimizer.lr"]) for point in ask(losses, count=5)]
    assert (
        ask(losses, tried, count, seed=seed, startup=startup) == ask(losses, tried, seed=seed, startup=startup)[:count]
    )


def test_records_that_went_through_json_suggest_the_same() -> None:
    tried = [finished(point, point["stepped"]) for point in ask(scalars, count=16)]
    again = [finished(json.loads(json.dumps(one.settings)), *cast("tuple[float, ...]", one.values)) for one in tried]
    assert ask(scalars, again) == ask(scalars, tried)


def test_settings_are_plain_values() -> None:
    points = ask(scalars, count=40)
    points += ask(scalars, [finished(point, point["stepped"]) for point in points])
    for point in points:
        assert {type(value) for value in point.values()} <= {type(None), bool, int, float, str}
        assert [type(v) for v in json.loads(json.dumps(point)).values()] == [type(v) for v in point.values()]
        assert type(point["whole"]) is int and type(point["log"]) is float
    assert {point["any"] for point in points} == {None, True, 2, 0.5, "x"}


CODE = """
import json
from tests.test_suggest import losses, search, finished
judge = lambda p: finished(p, p["optimizer.lr"] + p.get("loss.alpha", 0))
print(json.dumps([one.settings for one in search(losses, judge, 3, startup=5)]))
"""


def test_another_process_suggests_the_same() -> None:
    def points(hash_seed: str) -> str:
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parents[1])}
        command = [sys.executable, "-W", "error", "-c", CODE]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout

    here = [
        one.settings
        for one in search(losses, lambda p: finished(p, p["optimizer.lr"] + p.get("loss.alpha", 0)), 3, startup=5)
    ]
    assert len(here) == 24
    assert json.loads(points("1")) == json.loads(points("2")) == here


@pytest.mark.parametrize("seed", range(2))
def test_a_small_space_is_exhausted_without_repeats(seed: int) -> None:
    tried = search(small, worth, 4, seed=seed)
    rest = ask(small, tried, seed=seed)
    assert len(tried) == 32
    assert len({itself(one.settings) for one in tried} | {itself(point) for point in rest}) == 32 + len(rest)
    assert 3 <= len(rest) <= 4


def test_a_space_of_which_all_is_known_has_no_more() -> None:
    tried = [finished({"x": 1}, 0.0), finished({"x": 2}, 1.0)]
    assert ask(lambda trial: (trial.suggest_int("x", 1, 2), None)[1], tried) == []


def test_one_run_by_two_names_is_suggested_once() -> None:
    def distilled(trial: optuna.Trial) -> None:
        trial.suggest_categorical("kd.alpha", [0.0, 0.5])
        trial.suggest_categorical("kd.tau", [1, 2, 4])

    def identity(point: dict[str, Any]) -> Hashable:
        return point["kd.alpha"] and (point["kd.alpha"], point["kd.tau"])

    assert sorted(map(repr, map(identity, ask(distilled, identity=identity)))) == [
        "(0.5, 1)",
        "(0.5, 2)",
        "(0.5, 4)",
        "0.0",
    ]
    known = [finished({"kd.alpha": 0.0, "kd.tau": 4}, 0.8)]
    assert len(ask(distilled, known, identity=identity)) == 3


def test_what_optuna_is_told() -> None:
    point = {"optimizer.lr": 1e-3, "loss": "focal", "loss.alpha": 0.5, "loss.gamma": 2}
    tried = [
        finished(point, 0.8),
        Tried({"optimizer.lr": 1e-4, "loss": "bce"}, None, {1: 0.6, 3: 0.7}, "stopped"),
        Tried(point, None, {1: 0.6}, "failed"),
        finished(point, math.nan),
        Tried(point, None, {}, "finished"),
    ]
    complete, pruned, *failed = _rebuilt(losses, tried, TPE(), UP, 0).trials
    assert (complete.state.name, complete.params, complete.values) == ("COMPLETE", point, [0.8])
    assert (pruned.state.name, pruned.intermediate_values) == ("PRUNED", {1: 0.6, 3: 0.7})
    assert list(pruned.distributions) == ["optimizer.lr", "loss"]
    assert [one.state.name for one in failed] == ["FAIL"] * 3


def test_stopped_runs_teach_by_their_course() -> None:
    at_random = [point["x"] for point in ask(line, count=16)]
    tried = [Tried({"x": x}, None, {1: 0.0, 3: -((x - BEST) ** 2)}, "stopped") for x in at_random]
    assert distance([finished(point) for point in ask(line, tried)]) < sum(abs(x - BEST) for x in at_random) / 16 / 2


def test_failed_runs_do_not_count_as_startup() -> None:
    failed = [Tried(point, None, {}, "failed") for point in ask(line, count=12)]
    assert ask(line, failed) == ask(line, failed, startup=99)


def test_two_objectives() -> None:
    ways: tuple[Direction, ...] = ("maximize", "minimize")
    tried: list[Tried] = []
    for _ in range(5):
        new = ask(line, tried, directions=ways)
        tried += [finished(p, -((p["x"] - 0.4) ** 2), (p["x"] - 0.6) ** 2) for p in new]
    tried.append(Tried({"x": 0.1}, None, {1: 0.5}, "stopped"))
    assert len(ask(line, tried, directions=ways)) == 8
    on_the_front = [0.35 < one.settings["x"] < 0.65 for one in tried[:-1]]
    assert np.mean(on_the_front[16:]) > 1.5 * np.mean(on_the_front[:16])


def test_a_run_from_an_older_space_is_known_and_not_learnt_from() -> None:
    tried = [finished({"x": 3.0}, 1.0), finished({"y": 0.5}, 1.0), finished({"x": 0.5, "y": 1}, 1.0)]
    study = _rebuilt(line, tried, TPE(), UP, 0)
    assert [trial.params for trial in study.trials] == [{"x": 0.5}]


def test_no_startup_is_possible() -> None:
    assert len(ask(losses, startup=0)) == 8


@pytest.mark.parametrize("setting", [{"batch": 0}, {"startup": -1}, {"gamma": 1}])
def test_impossible_searches_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        TPE.model_validate(setting)


def test_ranges_in_words() -> None:
    assert list(described(losses).items()) == [
        ("optimizer.lr", "1e-05 .. 0.01, log"),
        ("loss", "bce, focal"),
        ("loss.alpha", "0.25 .. 0.95"),
        ("loss.gamma", "1 .. 5 (int)"),
    ]
    assert described(scalars) == {
        "any": "None, True, 2, 0.5, x",
        "whole": "1 .. 1000 (int), log",
        "stepped": "0 .. 1, step 0.1",
        "log": "1e-09 .. 1000000000, log",
    }

    def stepped(trial: optuna.Trial) -> None:
        trial.suggest_int("a", 2, 8, step=2)
        trial.suggest_float("b", 0, 5, step=1)

    assert described(stepped) == {"a": "2 .. 8 (int), step 2", "b": "0 .. 5, step 1"}


def test_a_probe_meets_every_end_in_every_branch() -> None:
    points: list[dict[str, Any]] = []
    probe(losses, points.append, draws=4)
    assert {point["optimizer.lr"] for point in points} >= {1e-5, 1e-2}
    assert {point["loss"] for point in points} == {"bce", "focal"}
    assert {point.get("loss.alpha") for point in points} >= {None, 0.25, 0.95}
    assert {point.get("loss.gamma") for point in points} >= {None, 1, 5}
    assert all(("loss.alpha" in point) == (point["loss"] == "focal") for point in points)
    again: list[dict[str, Any]] = []
    probe(losses, again.append, draws=4)
    assert again == points


def test_a_probe_stays_inside_ranges_that_depend_on_each_other() -> None:
    def ordered(trial: optuna.Trial) -> None:
        trial.suggest_float("high", trial.suggest_float("low", 0, 1), 2)

    def check(point: dict[str, Any]) -> None:
        assert 0 <= point["low"] <= 1 and point["low"] <= point["high"] <= 2

    probe(ordered, check)


def test_a_complaint_comes_through() -> None:
    def check(point: dict[str, Any]) -> None:
        if point.get("loss.gamma") == 5:
            raise BadInput("loss.gamma = 5: too sharp")

    with pytest.raises(BadInput, match=r"^loss\.gamma = 5: too sharp$"):
        probe(losses, check)


def throws_dice(trial: optuna.Trial) -> None:
    trial.suggest_float("x", 0, random.random())


def counts(trial: optuna.Trial) -> None:
    trial.suggest_float("x", 0, 1)
    if trial.number % 2:
        trial.suggest_float("y", 0, 1)


@pytest.mark.parametrize("space", [throws_dice, counts])
def test_a_space_that_suggests_otherwise_when_called_again_is_refused(space: Suggester) -> None:
    with pytest.raises(BadInput, match="suggests otherwise when it is called again"):
        probe(space, lambda point: None)


def nothing(trial: optuna.Trial) -> None: ...


def returns(trial: optuna.Trial) -> dict[str, float]:
    return {"x": trial.suggest_float("x", 0, 1)}


def divides(trial: optuna.Trial) -> None:
    trial.suggest_float("x", 0, 1 / trial.suggest_int("n", 0, 3))


def other_choices(trial: optuna.Trial) -> None:
    trial.suggest_categorical("x", ["a", "b"][: trial.suggest_int("n", 1, 2)])


def lists(trial: optuna.Trial) -> None:
    trial.suggest_categorical("x", [[1, 2], [3]])  # type: ignore[list-item]


def uneven(trial: optuna.Trial) -> None:
    trial.suggest_float("x", 0, 1, step=0.3)


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (nothing, "space: it suggested nothing; it has to call trial.suggest_float, _int or _categorical"),
        (returns, "space: it returned a dict; the names it suggests are the settings, so let it return nothing"),
        (divides, "space: ZeroDivisionError: division by zero"),
        (other_choices, "space: one name is suggested from different choices"),
        (lists, "space: a choice of suggest_categorical is no plain value; expected None, True, False, text"),
        (uneven, "space: a range is no multiple of its step"),
    ],
)
def test_bad_spaces_have_their_sentence(space: Suggester, sentence: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what users run under
        with pytest.raises(BadInput) as caught:
            probe(space, lambda point: None)
    assert str(caught.value).startswith(sentence)


def test_only_the_code_of_a_space_counts() -> None:
    def first(trial: optuna.Trial) -> None:
        trial.suggest_float("x", 0, 1)

    plain = code_of(first)

    def first(trial: optuna.Trial) -> None:  # type: ignore[no-redef]
        """What is known of x."""
        # it lies between
        trial.suggest_float(
            "x", 0, 1
        )  # fmt: skip

    assert code_of(first) == plain
    assert len(plain) == 12 and int(plain, 16) >= 0

    def first(trial: optuna.Trial) -> None:  # type: ignore[no-redef]
        trial.suggest_float("x", 0, 2)

    assert code_of(first) != plain


def test_a_space_without_source_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = "def other(trial): trial.suggest_float('y', 0, 1)\n"
    monkeypatch.setitem(linecache.cache, "<string>", (len(other), None, [other], "<string>"))
    made: dict[str, Any] = {}
    exec("def made(trial): trial.suggest_float('x', 0, 1)", made)
    for space in (lambda trial: None, made["made"], functools.partial(line), len):  # Ray may patch print
        with pytest.raises(BadInput, match="written with def in the study's file"):
            code_of(cast("Suggester", space))

"""What runs are called: names say what differs, and never the same of two."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.data.dataset import DataSpec
from xlite_search.data.packed import PackedSet
from xlite_search.labels import labels, short, texts, told_apart
from xlite_search.search.study import Study, grid_search

values = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-5, 5),
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map("/".join),
    st.none(),
)


def test_a_label_is_the_model_and_what_differs() -> None:
    points: list[dict[str, Any]] = [
        {"kd.tau": 4.0, "model": "mobilenet_v3_small_mhsa", "kd.alpha": 0.7},
        {"optimizer.lr": 1e-3, "loss": {"name": "focal", "gamma": 2.0}},
    ]
    assert labels(points) == ["mobilenet_v3_small_mhsa tau=4 alpha=0.7", "lr=0.001 loss=focal(gamma=2)"]


@pytest.mark.parametrize(
    ("different", "written"),
    [
        (["cxr/model.st", "imagenet/model.st"], ["cxr/model.st", "imagenet/model.st"]),
        (["/w/a/x/m.st", "/w/b/x/m.st", None], ["a/x/m.st", "b/x/m.st", "None"]),
        (["/w/a.st", "/w/b.st"], ["a.st", "b.st"]),
        ([0.9999, 0.99999], ["0.9999", "0.99999"]),
        ([1e-3, 1.0000001e-3], ["0.001", "0.0010000001"]),
        ([0.1, 0.2], ["0.1", "0.2"]),
        ([{"name": "file", "path": "a/m"}, {"name": "file", "path": "b/m"}], ["file(path=a/m)", "file(path=b/m)"]),
    ],
)  # fmt: skip
def test_values_that_differ_are_written_so(different: list[Any], written: list[str]) -> None:
    assert texts(different) == written


def test_the_numbers_of_a_search_are_short_and_told_apart() -> None:
    points = [{"ema": 0.9999, "optimizer.lr": 0.00123456}, {"ema": 0.99999, "optimizer.lr": 0.00123456}]
    assert labels(points, ["ema", "optimizer.lr"]) == ["ema=0.9999 lr=0.00123", "ema=0.99999 lr=0.00123"]
    assert labels(points[1:], ["ema", "optimizer.lr"]) == ["ema=0.99999 lr=0.00123"], "just below 1 is not 1"


@given(st.lists(st.fixed_dictionaries({}, optional={"a.x": values, "b.x": values, "model": values}), max_size=6))
def test_no_two_points_share_a_label(points: list[dict[str, Any]]) -> None:
    found = labels(points)
    assert len(set(found)) == len(points)


def test_equal_names_say_whose_they_are_or_are_numbered() -> None:
    assert told_apart(["tau=4", "tau=1", "tau=4"], ["A", "A", "B"]) == ["A: tau=4", "tau=1", "B: tau=4"]
    assert told_apart(["x", "x", "x #2", "x"]) == ["x", "x #2", "x #2 #2", "x #3"]
    assert told_apart(["x", "x"], ["A", "A"]) == ["x", "x #2"]


def test_a_name_is_cut_where_that_is_clear() -> None:
    assert short(["kd.alpha", "loss.alpha", "kd.tau"]) == ["kd.alpha", "loss.alpha", "tau"]


def test_a_round_of_a_search_is_told_from_those_before(phantom: PackedSet) -> None:
    def space(trial: optuna.Trial) -> None:
        trial.suggest_float("optimizer.lr", 1e-5, 1e-2)

    base = RunConfig(model="test_efficientnet_none", data=DataSpec(name="phantom-tiny"))
    study = Study(question="?", trainable=baseline, base=base, space=space)
    (near,) = study.trials("", [{"optimizer.lr": 1.0001e-3}], beside=[{"optimizer.lr": 1.0002e-3}])
    assert near.label == "lr=0.0010001"


def test_a_study_without_differences_calls_its_trial_by_the_model(phantom: PackedSet) -> None:
    base = RunConfig(model="test_efficientnet_none", data=DataSpec(name="phantom-tiny"))
    study = Study(question="?", trainable=baseline, base=base, space={})
    assert [trial.label for trial in study.trials("")] == ["test_efficientnet_none"]
    swept = Study(question="?", trainable=baseline, base=base, space={"epochs": grid_search([1])})
    assert [trial.label for trial in swept.trials("")] == ["epochs=1"]

"""Values after `--set` and in best.yaml: JSON's numbers and words, the setting's type for the rest."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from xlite_search.cli.options import settings_of
from xlite_search.config import RunConfig
from xlite_search.errors import BadInput
from xlite_search.results.best import _Best
from xlite_search.spec import flatten
from xlite_search.training.optim import AdamW
from xlite_search.written import document, dumped


def set_to(*given: str) -> dict[str, Any]:
    return flatten(RunConfig().with_settings(settings_of(list(given))).model_dump())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("seed=010", 10),
        ("seed=12", 12),
        ("batch_size=1_28", 128),
        ("optimizer.lr=1e-3", 1e-3),
        ("optimizer.lr=.5", 0.5),
        ("data.name=2024_01", "2024_01"),
        ("data.name=202401", "202401"),
        ("data.name=010", "010"),
        ("data.name=1e5", "1e5"),
        ("data.name=true", "true"),
        ("data.name=2024-01-31", "2024-01-31"),
        ("data.name=12:30", "12:30"),
        ("compile=true", True),
        ("early_stopping=null", None),
        ("micro_batch=null", None),
    ],
)
def test_a_value_is_what_its_setting_takes(given: str, expected: object) -> None:
    value = set_to(given)[given.partition("=")[0]]
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("batch_size=1:30", "batch_size = '1:30': input should be a whole number"),
        ("seed=true", "seed = 'true': input should be a whole number"),
        ("seed=0o10", "seed = '0o10': input should be a whole number"),
        ("seed=0x10", "seed = '0x10': input should be a whole number"),
        ("epochs=2024-01-31", "epochs = '2024-01-31': input should be a whole number"),
        ("optimizer.lr=.inf", "optimizer.lr = '.inf': input should be a number"),
        ("optimizer.lr=1e400", "optimizer.lr = inf: input should be"),
        ("seed=", "--set seed=: there is no value; say null if you mean none"),
        ("seed=[1", "--set seed=[1: the value is not a number, word or list"),
        ("seed=[&a [*a]]", "--set seed=[&a [*a]]: the value is not a number, word or list"),
        ("loss={name: focal, name: bce}", "--set loss={name: focal, name: bce}: the value is not"),
        ("loss=7", "loss = '7' is not known"),
    ],
)
def test_what_is_no_such_value_is_refused(given: str, sentence: str) -> None:
    with pytest.raises(BadInput) as refused:
        set_to(given)
    assert str(refused.value).startswith(sentence) and "\n" not in str(refused.value)


def test_a_name_that_is_set_twice_is_refused() -> None:
    with pytest.raises(BadInput, match=r"--set seed=2: seed is set twice; .* 'seed=\[A, B\]'"):
        settings_of(["seed=1", "seed=2"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("kd.tau=[1,4]", [1, 4]),
        ("data.split={name: official, path: lists}", {"name": "official", "path": "lists"}),
        ("data.split={name: official, path: 2024, seed: 010}", {"name": "official", "path": "2024", "seed": "010"}),
        ("loss=focal", "focal"),
        ("weights=[FILE, null]", ["FILE", None]),
        ("weights=C:\\nih\\a #1: b.safetensors", "C:\\nih\\a #1: b.safetensors"),
        ("weights='null'", "null"),
        ("model=[2024, 'b']", ["2024", "b"]),
        ("teacher=2024", "2024"),
        ("teacher=[a, 2024]", ["a", "2024"]),
        ("teacher=null", None),
        ("teacher.seed=3", 3),
        ("teacher.model=3", "3"),
        ("data.split.ratios=[0.7, 0.15, 0.15]", [0.7, 0.15, 0.15]),
        ("augment={name: light, rotate: 3}", {"name": "light", "rotate": 3}),
    ],
)
def test_the_documented_forms(given: str, expected: object) -> None:
    assert settings_of([given]) == {given.partition("=")[0]: expected}


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)
WORDS = st.one_of(st.sampled_from(["804e12", "1:30", "010", "2024_01", "yes", "null", "true", "~", "", "1e3"]), TEXT)
NUMBERS = st.one_of(st.integers(), st.booleans(), st.none(), st.floats(-1e9, 1e9))


#: names that are no setting's, whose values are read by its type: hypothesis takes `data.split` from our own sources
NAMES = TEXT.filter(lambda name: name.partition(".")[0] not in RunConfig.model_fields)


@given(st.dictionaries(NAMES, st.one_of(WORDS, NUMBERS)))
def test_what_is_dumped_is_read_as_it_was(tree: dict[str, object]) -> None:
    assert document(dumped(tree), RunConfig) == tree
    assert yaml.safe_load(dumped(tree)) == tree


def test_a_commit_that_looks_like_a_number_stays_a_commit() -> None:
    """As a best.yaml of before has it, without quotes."""
    text = "trial: 804e12\ncode: {version: 12e4, commit: 010}\nbest_epoch: 3\nconfig: {seed: 1, data: {name: 2024_01}}"
    assert document(text, _Best) == {
        "trial": "804e12",
        "code": {"version": "12e4", "commit": "010"},
        "best_epoch": 3,
        "config": {"seed": 1, "data": {"name": "2024_01"}},
    }


@pytest.mark.parametrize("value", [np.float32(1e-3), np.float64(1e-3), np.array(1e-3), np.int64(1)])
def test_a_number_of_numpys_is_a_number(value: Any) -> None:
    lr = AdamW(lr=value).lr
    assert type(lr) is float and lr == float(value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"lr": -1}, "AdamW: lr = -1: input should be greater than 0"),
        ({"lr": True}, "AdamW: lr = 'true': input should be a number"),
        ({"lr": "fast"}, "AdamW: lr = 'fast': input should be a number"),
        ({"lr": [1]}, r"AdamW: lr = \[1\]: input should be a number"),
        ({"rate": 1}, "AdamW: unknown setting 'rate'"),
    ],
)
def test_a_spec_that_is_built_refuses_in_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=f"^{sentence}$"):
        AdamW(**settings)


def test_a_value_without_a_name_is_refused() -> None:
    with pytest.raises(BadInput, match=r"AdamW: settings are given by name, such as AdamW\(name=\.\.\.\)"):
        cast(Any, AdamW)(1e-3)

"""Importance of suggested settings: what decides a score is found, from what a study's record has of a search."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest

from xlite_search.search.importance import FEWEST, distribution, importances
from xlite_search.search.suggest import described


def space(trial: optuna.Trial) -> None:
    trial.suggest_float("optimizer.lr", 1e-5, 1e-2, log=True)
    trial.suggest_int("batch_size", 8, 64, step=8)
    trial.suggest_float("mixup", 0.0, 1.0, step=0.25)
    if trial.suggest_categorical("loss", ["bce", "focal", "asymmetric"]) == "focal":
        trial.suggest_float("loss.gamma", 0.5, 3.0)


def drawn(count: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    found = []
    for _ in range(count):
        trial = study.ask()
        space(trial)
        found.append(dict(trial.params))
    return found


def test_what_decides_the_score_is_the_most_important() -> None:
    settings = drawn(200)
    noise = np.random.default_rng(0).normal(scale=0.05, size=200)
    scores = [-abs(np.log10(one["optimizer.lr"]) + 3) + error for one, error in zip(settings, noise, strict=True)]
    found = importances(described(space), settings, scores)
    assert found is not None and next(iter(found.shares)) == "optimizer.lr"
    assert found.shares["optimizer.lr"] > 0.7 and sum(found.shares.values()) == pytest.approx(1)
    assert (found.runs, found.left_out) == (200, ("loss.gamma",)), "only some runs have a gamma"


def test_few_runs_have_no_best_tenth() -> None:
    settings = drawn(FEWEST)
    assert importances(described(space), settings, [0.1] * (FEWEST - 1) + [float("nan")]) is None
    assert importances(described(space), [], []) is None


def test_ranges_in_words_are_distributions_again() -> None:
    words = described(space)
    values = drawn(50)
    for name, text in words.items():
        seen = [one[name] for one in values if name in one]
        found = distribution(text, seen)
        assert all(found._contains(found.to_internal_repr(value)) for value in seen), name
    rate: Any = distribution(words["optimizer.lr"], [1e-3])
    assert (rate.low, rate.high, rate.log) == (1e-5, 1e-2, True)
    size: Any = distribution(words["batch_size"], [8])
    assert (size.low, size.high, size.log) == (8, 64, False)
    loss: Any = distribution(words["loss"], ["bce"])
    assert set(loss.choices) == {"bce", "focal", "asymmetric"}

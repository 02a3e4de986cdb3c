"""Importance of suggested settings: what decides a score is found, from the ranges that a study's record has."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import json_to_distribution

from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.records import RunRecord, StoredFile
from xlite_search.results.importance import FEWEST, Importances, importances, importances_of, range_of
from xlite_search.search.plan import changes, make_plan
from xlite_search.search.runner import begin
from xlite_search.search.study import TPE, Study, grid_search
from xlite_search.search.suggest import described, distributions
from xlite_search.storage import read_manifest, write_manifest
from xlite_search.study_record import StudyRecord


def space(trial: optuna.Trial) -> None:
    trial.suggest_float("optimizer.lr", 1e-5, 1e-2, log=True)
    trial.suggest_int("batch_size", 8, 64, step=8)
    trial.suggest_float("mixup", 0.0, 1.0, step=0.25)
    trial.suggest_categorical("clip_norm", [None, 1.0])
    if trial.suggest_categorical("loss", ["bce", "focal", "asymmetric"]) == "focal":
        trial.suggest_float("loss.gamma", 0.5, 3.0)


def points(count: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    found = []
    for _ in range(count):
        trial = study.ask()
        space(trial)
        found.append(dict(trial.params))
    return found


def by_rate(settings: list[dict[str, Any]]) -> list[float]:
    """Scores that are the best at a rate of 1e-3, and chance."""
    chance = np.random.default_rng(0).normal(scale=0.05, size=len(settings))
    return [-abs(math.log10(one["optimizer.lr"]) + 3) + float(e) for one, e in zip(settings, chance, strict=True)]


def run(folder: Path, number: int, settings: dict[str, Any], curve: list[float], status: Any) -> RunRecord:
    epochs = tuple({"m": score, "size": 1.0} for score in curve)
    best = StoredFile("b", "", 1 + int(np.argmax(curve)))
    home = folder / "trials" / str(number)
    return RunRecord(
        home, str(number), "trial", "", settings, {"epochs": 4}, status=status, epochs=epochs, bests=(best,)
    )


def study_of(folder: Path, **values: Any) -> StudyRecord:
    return StudyRecord(folder, "s", "?", "a:b", "m", {}, (), distributions=distributions(space), **values)


def test_what_decides_the_score_is_the_most_important() -> None:
    settings = points(200)
    found = importances(distributions(space), settings, by_rate(settings))
    assert found is not None and next(iter(found.shares)) == "optimizer.lr"
    assert found.shares["optimizer.lr"] > 0.7 and sum(found.shares.values()) == pytest.approx(1)
    assert (found.runs, found.best, found.rung) == (200, 20, None)
    assert found.left_out == ("loss.gamma",), "only some runs have a gamma"


def test_it_does_not_matter_where_a_search_went() -> None:
    """What most runs have, of two choices that do nothing, is no reason to be among the best."""
    random = np.random.default_rng(0)
    mixups = [float(value) for value in random.random(300)]
    settings = [{"loss": "bce" if random.random() < 0.9 else "focal", "mixup": value} for value in mixups]
    ranges = {"loss": distributions(space)["loss"], "mixup": json.dumps(_float(0.0, 1.0))}
    found = importances(ranges, settings, [value + 0.05 * random.normal() for value in mixups])
    assert found is not None and found.shares["mixup"] > 0.95


def _float(low: float, high: float) -> dict[str, Any]:
    return {"name": "FloatDistribution", "attributes": {"low": low, "high": high, "log": False, "step": None}}


def test_a_table_and_json_have_the_same_and_say_what_it_is_not() -> None:
    settings = points(40)
    found = importances(distributions(space), settings, by_rate(settings))
    assert found is not None
    table, about = found.table(), json.loads(json.dumps(found.as_json()))
    assert table.rows == [(name, f"{share:.2f}") for name, share in about["shares"].items()]
    notes = " ".join(table.notes)
    assert "not which of its values is better" in notes and "the best 4 of 40 runs at the best epochs" in notes
    assert "4 runs are few" in notes and "loss.gamma" in notes
    assert about["left_out"] == ["loss.gamma"] and about["rung"] is None
    assert "few" not in " ".join(Importances({"a": 1.0}, 50, 5).notes)


def test_few_runs_have_no_best_tenth(tmp_path: Path) -> None:
    settings = points(FEWEST)
    scores = by_rate(settings)
    runs = [run(tmp_path, n, one, [s], "finished") for n, (one, s) in enumerate(zip(settings, scores, strict=True))]
    study = study_of(tmp_path)
    assert importances_of(study.distributions, study.metric, runs) is not None
    lost = replace(runs[0], epochs=({"m": float("nan")},))
    assert importances_of(study.distributions, study.metric, [lost, *runs[1:]]) is None, (
        "a run without a score does not count"
    )
    assert importances_of(study.distributions, study.metric, [replace(runs[0], status="failed"), *runs[1:]]) is None
    assert importances_of(study.distributions, study.metric, []) is None


def test_scores_that_are_all_equal_or_settings_that_never_differ_have_none() -> None:
    settings = points(30)
    assert importances(distributions(space), settings, [0.5] * 30) is None
    alone = {"loss": json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": ["bce"]}})}
    assert importances(alone, [{"loss": "bce"}] * 30, list(range(30))) is None
    tied = importances(distributions(space), settings, [0.5] * 10 + [0.4] * 20)
    assert tied is not None and tied.best == 10, "those that tie with the last of the tenth are of it"


def test_of_a_search_with_a_scheduler_all_runs_count_at_its_first_rung(tmp_path: Path) -> None:
    settings = points(60)
    runs = []
    for number, (one, score) in enumerate(zip(settings, by_rate(settings), strict=True)):
        late = [float(number), float(number)]  # nothing that the settings decide
        survives = number % 3 == 0
        runs.append(run(tmp_path, number, one, [score, *(late if survives else [])], _end(survives)))
    study = study_of(tmp_path)
    found = importances_of(study.distributions, study.metric, runs)
    assert found is not None and (found.runs, found.rung) == (60, 1)
    assert next(iter(found.shares)) == "optimizer.lr"
    assert "of 60 runs at epoch 1, the first rung" in " ".join(found.notes)


def _end(survives: bool) -> str:
    return "finished" if survives else "stopped"


def test_of_several_objectives_it_is_of_the_metric(tmp_path: Path) -> None:
    settings = points(100)
    scores = by_rate(settings)
    runs = [run(tmp_path, n, one, [s], "finished") for n, (one, s) in enumerate(zip(settings, scores, strict=True))]
    studies = [study_of(tmp_path, minimize=down) for down in ((), ("size",))]
    alone, several = (importances_of(study.distributions, study.metric, runs) for study in studies)
    assert alone is not None and alone == several


def test_a_seed_is_chance() -> None:
    settings = [one | {"seed": number} for number, one in enumerate(points(30))]
    ranges = distributions(space) | {"seed": json.dumps(_float(0, 30))}
    found = importances(ranges, settings, by_rate(settings))
    assert found is not None and "seed" not in (*found.shares, *found.left_out)


def test_recorded_ranges_are_what_the_space_suggests_from(tmp_path: Path) -> None:
    study_of(tmp_path).save()
    recorded = StudyRecord.load(tmp_path).distributions
    assert recorded == distributions(space) and list(recorded) == list(described(space))
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(1)).ask()
    space(trial)
    assert all(json_to_distribution(recorded[name]) == one for name, one in trial.distributions.items())


def test_a_study_keeps_its_ranges_from_its_beginning(tiny: RunConfig) -> None:
    search = Study(question="?", trainable=baseline, base=tiny, space=space, samples=4, search=TPE(batch=2))
    plan = make_plan(search, "s")
    begun = begin(plan)
    assert begun.distributions == distributions(space)
    assert "distributions" not in begun.definition and begin(plan).distributions == begun.distributions
    replace(begun, distributions={}).save()
    assert changes(StudyRecord.load(begun.folder), plan) == [], "a study of an earlier version is no other study"
    assert begin(plan).distributions == distributions(space), "and has them when it is gone on with"
    narrowed = begin(make_plan(search.with_settings({"loss": "bce"}), "s"), accept_changes=True)
    assert set(narrowed.distributions) == {"optimizer.lr", "batch_size", "mixup", "clip_norm"}
    grid = Study(question="?", trainable=baseline, base=tiny, space={"epochs": grid_search([1, 2])})
    assert begin(make_plan(grid, "g")).distributions == {}


def test_a_record_of_an_earlier_version_has_no_ranges_and_no_importances(tmp_path: Path) -> None:
    study_of(tmp_path).save()
    body = read_manifest(tmp_path / "study.json")
    del body["distributions"]
    write_manifest(tmp_path / "study.json", body)
    study = StudyRecord.load(tmp_path)
    runs = [run(tmp_path, n, one, [float(n)], "finished") for n, one in enumerate(points(30))]
    assert study.distributions == {} and importances_of(study.distributions, study.metric, runs) is None


def test_a_range_of_numbers_is_as_wide_as_the_runs_values() -> None:
    recorded = distributions(space)
    rate: Any = range_of(recorded["optimizer.lr"], [1e-6, 1e-3])
    assert (rate.low, rate.high, rate.log) == (1e-6, 1e-2, True)
    size: Any = range_of(recorded["batch_size"], [8, 64])
    assert (size.low, size.high, size.step) == (8, 64, 8), "as recorded, where it holds them"
    odd: Any = range_of(recorded["batch_size"], [8, 100])
    assert (odd.low, odd.high, odd.step) == (8, 100, 1)
    between: Any = range_of(recorded["mixup"], [0.1, 0.25])
    assert (between.low, between.high, between.step) == (0, 1, None)
    assert range_of(recorded["optimizer.lr"], [0.0, 1e-3]) is None, "no logarithm"
    assert range_of(recorded["batch_size"], [8, 8.5]) is None and range_of(recorded["batch_size"], ["8"]) is None


def test_a_choice_that_is_not_on_record_leaves_its_setting_out() -> None:
    settings = points(50)
    settings[0] = settings[0] | {"loss": "other", "kd.tau": 2.0}
    found = importances(distributions(space), settings, by_rate(settings))
    assert found is not None and found.left_out == ("loss", "loss.gamma", "kd.tau")
    assert sum(found.shares.values()) == pytest.approx(1) and set(found.shares).isdisjoint(found.left_out)

"""Every file in search_spaces/ is tested as soon as it is saved: it loads, plans, and runs a trial on phantoms."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.data.loaders import open_data
from xlite_search.distill.teacher import publish
from xlite_search.places import teacher_folder
from xlite_search.records import RunRecord, follow
from xlite_search.search.plan import make_plan
from xlite_search.search.study import DEMO_DATA, load_study

SPACES = sorted(p for p in (Path(__file__).parents[1] / "search_spaces").glob("*.py") if p.stem != "__init__")


@pytest.fixture
def demo_data(drawn_once: Path, runs: Path) -> None:
    shutil.copytree(drawn_once, Path(os.environ["XLITE_DATA"]) / DEMO_DATA)


def test_the_main_grid_is_two_students_two_taus_two_alphas() -> None:
    study = load_study(str(SPACES[0].with_name("kd_grid.py")))
    settings = [point for point, _ in study.configs()]
    assert len(settings) == 8
    assert {(p["kd.tau"], p["kd.alpha"]) for p in settings} == {(4.0, 0.5), (4.0, 0.7), (8.0, 0.5), (8.0, 0.7)}


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_study_asks_a_question_and_says_how_to_run_it(path: Path) -> None:
    study = load_study(str(path))
    first = study.question.strip().splitlines()[0]
    assert first.endswith("?")
    assert f"python -m xlite_search run search_spaces/{path.name}" in study.question
    assert len(study.configs()) > 1


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("demo_data")
def test_a_studys_first_trial_runs_on_phantoms(path: Path) -> None:
    study = load_study(str(path)).as_demo().with_settings({"epochs": 1})
    if isinstance(study.teacher, RunConfig):
        study = study.with_settings({"teacher.epochs": 1})
    plan = make_plan(study, "first")
    if plan.teacher_config:
        teach(plan.teacher, plan.teacher_config)
    trial = plan.trials[0]
    results = list(plan.study.trainable(trial.config, None))
    assert [result.epoch for result in results] == [1]
    assert 0 < results[0].metrics["val/auroc_macro"] < 1


def teach(key: str, config: RunConfig) -> None:
    home = teacher_folder(key)
    record = RunRecord(home, key, "teacher", "t", {}, config.model_dump(mode="json"))
    *_, record = follow(record, lambda resume: baseline(config, resume))
    publish(home, record, config.loss, open_data(config.data), {})

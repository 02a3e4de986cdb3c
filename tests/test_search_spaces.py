"""Every file in search_spaces/ is tested as soon as it is saved: it loads, plans, and runs a trial on phantoms."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.data.dataset import open_data
from xlite_search.execution import follow
from xlite_search.model_folder import publish
from xlite_search.places import teacher_folder
from xlite_search.records import RunRecord
from xlite_search.search.plan import Plan, make_plan
from xlite_search.search.study import DEMO_DATA, TPE, Study
from xlite_search.search.study_file import load_study

SPACES = sorted(p for p in (Path(__file__).parents[1] / "search_spaces").glob("*.py") if p.stem != "__init__")
SEARCHES = ["tpe_search", "pareto_search"]
every_study = pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)


@pytest.fixture
def demo_data(drawn_once: Path, runs: Path) -> None:
    shutil.copytree(drawn_once, Path(os.environ["XLITE_DATA"]) / DEMO_DATA)


def study_of(stem: str) -> Study:
    return load_study(str(SPACES[0].with_name(f"{stem}.py")))


def on_phantoms(study: Study) -> Study:
    """The study as it is, its demo's settings aside, on the drawn images and without anybody's weights."""
    if any("weights" in grid for grid in study.grids):
        pytest.skip("what it sweeps are weights, which are not here")
    return study.with_settings(
        {"data.name": DEMO_DATA, "weights": None} | ({"teacher.weights": None} if study.teacher else {})
    )


def test_the_main_grid_is_two_students_two_taus_two_alphas() -> None:
    settings = [point for point, _ in study_of("kd_grid").configs()]
    assert len(settings) == 8
    assert {(p["kd.tau"], p["kd.alpha"]) for p in settings} == {(4.0, 0.5), (4.0, 0.7), (8.0, 0.5), (8.0, 0.7)}


@every_study
def test_a_study_asks_a_question_and_says_how_to_run_it(path: Path) -> None:
    study = load_study(str(path))
    first = study.question.strip().splitlines()[0]
    assert first.endswith("?")
    command = f"    python -m xlite_search run search_spaces/{path.name} "
    assert re.search(rf"^{re.escape(command)}.*# .*\b\d+ trials", study.question, re.M)
    assert len(path.read_text("utf-8").splitlines()) < 110


@every_study
@pytest.mark.usefixtures("demo_data")
def test_a_study_plans_as_many_trials_as_it_says(path: Path) -> None:
    study = load_study(str(path))
    said = re.search(r"(\d+) trials", study.question)
    assert said and int(said[1]) == (len(study.configs()) or study.samples) > 1
    plan = make_plan(on_phantoms(study), path.stem)
    assert plan.in_all == int(said[1])
    assert len(plan.trials) == (study.search.batch if study.suggester else plan.in_all)
    assert len({trial.label for trial in plan.trials}) == len(plan.trials), "two trials of one name"
    factors = plan.factors()
    print(path.stem, *(f"  {name}: {', '.join(map(str, values))}" for name, values in factors.items()), sep="\n")
    swept = {name for trial in plan.trials for name in trial.settings}
    assert factors and set(factors) >= swept if study.suggester else set(factors) <= swept


@every_study
def test_a_demo_is_the_study_in_small(path: Path) -> None:
    """No weights to fetch, all of the phantoms, few epochs, and no more trials than the study has."""
    study = load_study(str(path))
    demo = study.as_demo()
    configs = [config for _, config in demo.configs()] or [demo.base]
    for config in configs:
        assert config.weights is None and config.data.fraction == 1 and config.epochs <= 10
    if study.suggester:
        assert 6 <= demo.samples < study.samples
    else:
        assert 2 <= len(configs) <= len(study.configs())


@pytest.mark.parametrize(
    "stem", ["loss_ablation", "sampler_ablation", "loss_x_sampler", "schedule_x_epochs", "six_baselines"]
)
def test_no_arm_of_an_ablation_is_cut_and_each_has_the_same_seeds(stem: str) -> None:
    study = study_of(stem)
    assert study.scheduler is None
    arms: dict[str, list[int]] = {}
    for settings, config in study.configs():
        arm = str(sorted((name, str(value)) for name, value in settings.items() if name != "seed"))
        arms.setdefault(arm, []).append(config.seed)
        assert config.early_stopping is None or stem == "six_baselines"
    assert len({tuple(seeds) for seeds in arms.values()}) == 1


@every_study
@pytest.mark.usefixtures("demo_data")
def test_a_studys_first_trial_runs_on_phantoms(path: Path) -> None:
    study = load_study(str(path)).as_demo().with_settings({"epochs": 2, "stop_after": 1})  # a warm-up may take both
    if isinstance(study.teacher, RunConfig):
        study = study.with_settings({"teacher.epochs": 1})
    plan = make_plan(study, "first")
    if plan.teaching:
        for key, config in plan.teaching.members.items():
            assert config is not None
            teach(key, config)
    trial = plan.trials[0]
    results = list(plan.study.trainable(trial.config, None))
    assert [result.epoch for result in results] == [1]
    assert 0 < results[0].metrics["val/auroc_macro"] < 1


def teach(key: str, config: RunConfig) -> None:
    home = teacher_folder(key)
    record = RunRecord(home, key, "teacher", "t", {}, config.model_dump(mode="json"))
    *_, record = follow(record, lambda begun: baseline(config, begun.resume_path()))
    publish(home, record, config.loss, open_data(config.data), {})


@pytest.mark.parametrize("stem", SEARCHES)
def test_a_search_asks_only_for_settings_that_stand_beside_their_choice(stem: str) -> None:
    study = study_of(stem)
    assert study.suggester
    suggested = [point for seed in range(4) for point in replace(study, base=at_seed(study, seed)).proposals([])]
    assert len(suggested) == 4 * study.search.batch
    for point in suggested:
        assert set(point) <= set(study.ranges)
        assert ("loss.gamma" in point) == (point.get("loss") == "focal")
        assert ("sampler.no_finding" in point) == (point.get("sampler") == "mean_rarity")
    assert {name for point in suggested for name in point} == set(study.ranges), "a name that is hardly ever asked for"


def at_seed(study: Study, seed: int) -> RunConfig:
    return study.base.with_settings({"seed": seed})


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("stem", SEARCHES)
@pytest.mark.usefixtures("demo_data", "ray_here")
def test_a_search_runs_its_trials_in_rounds(stem: str) -> None:
    from xlite_search.search.runner import run

    small = study_of(stem).as_demo().with_settings({"epochs": 4, "batch_size": 16})
    search = replace(small, samples=7, search=TPE(batch=3, startup=3))
    plan = make_plan(search, stem)
    assert (len(plan.trials), plan.in_all) == (3, 7)
    study = run(plan)

    records = study.runs()
    assert len({record.key for record in records}) == len(records) == 7
    assert {record.status for record in records} <= {"finished", "stopped"}, [record.cause for record in records]
    assert records[0].status == "finished" or search.scheduler
    assert_facts(search, records)
    again = make_plan(search, stem)
    assert_same_trials(again, records)


def assert_facts(search: Study, records: list[RunRecord]) -> None:
    """Every trial of a study with more objectives than one knows them, and equal models have equal ones."""
    assert all(set(record.facts) >= set(search.minimize) for record in records)
    if search.minimize:
        assert all(record.facts["model/latency_ms"] > 0 for record in records)
        for name in search.minimize:
            assert len({(record.config["model"], record.facts[name]) for record in records}) == len(
                {record.config["model"] for record in records}
            )


def assert_same_trials(plan: Plan, records: list[RunRecord]) -> None:
    """A search that is done is planned as it went, and asks for nothing more."""
    assert [trial.key for trial in plan.trials] == [record.key for record in records]

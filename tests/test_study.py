"""A study's space: expansion, labels, `--set`, and everything that a study file can have wrong."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from trainables.baseline import baseline
from trainables.distill import distill
from xlite_search.config import RunConfig
from xlite_search.data.dataset import open_data
from xlite_search.data.lists import write_lists
from xlite_search.data.packed import PackedSet
from xlite_search.data.prepare import prepare
from xlite_search.data.sources.folder import Folder
from xlite_search.data.sources.labels import write_labels
from xlite_search.data.sources.phantom import Phantom
from xlite_search.data.splits import ByPatient
from xlite_search.errors import BadInput
from xlite_search.models.cost import Cost
from xlite_search.records import RunRecord, StoredFile
from xlite_search.search import runner
from xlite_search.search.asha import ASHA
from xlite_search.search.plan import _tried, changes, make_plan
from xlite_search.search.runner import begin, run
from xlite_search.search.space import Space
from xlite_search.search.study import TPE, Study, grid_search
from xlite_search.search.study_file import load_study
from xlite_search.storage import alone
from xlite_search.trainable import reference, trainable_at

if TYPE_CHECKING:
    import optuna


def study_of(tiny: RunConfig, space: Space, **more: Any) -> Study:
    return Study(question="?", trainable=baseline, base=tiny, space=space, **more)


def test_a_grid_is_every_combination_in_order(tiny: RunConfig) -> None:
    study = study_of(tiny, {"epochs": grid_search([1, 2]), "seed": grid_search([3, 4]), "batch_size": 8})
    assert study.points() == [
        {"epochs": 1, "seed": 3, "batch_size": 8},
        {"epochs": 1, "seed": 4, "batch_size": 8},
        {"epochs": 2, "seed": 3, "batch_size": 8},
        {"epochs": 2, "seed": 4, "batch_size": 8},
    ]


def test_rays_own_grid_and_samplers_are_understood(tiny: RunConfig) -> None:
    from ray import tune

    space = {"epochs": tune.grid_search([1, 2]), "seed": tune.choice([5, 6, 7])}
    study = study_of(tiny, space, samples=4)
    points = study.points()
    assert points == study.points()
    assert [p["epochs"] for p in points] == [1, 2] * 4
    assert {p["seed"] for p in points} <= {5, 6, 7}


def test_alpha_zero_is_one_trial_however_many_taus(tiny: RunConfig) -> None:
    space = {"kd.tau": grid_search([1.0, 4.0, 8.0]), "kd.alpha": grid_search([0.0, 0.5])}
    study = Study(question="?", trainable=distill, base=tiny, space=space, teacher=tiny)
    trials = study.trials("a-teacher")
    assert len(trials) == 4
    assert sum(trial.config.kd is None for trial in trials) == 1
    assert len({trial.key for trial in trials}) == 4


def test_a_list_of_grids_is_one_after_the_other_without_what_is_there_twice(tiny: RunConfig) -> None:
    seeds = {"seed": grid_search([1, 2])}
    space: list[dict[str, Any]] = [
        {"loss": grid_search(["bce", "focal"]), **seeds},
        {"loss": "focal", "loss.gamma": grid_search([2, 3]), **seeds},
    ]
    trials = study_of(tiny, space).trials("")
    assert [trial.label for trial in trials] == [
        "loss=bce seed=1",
        "loss=bce seed=2",
        "loss=focal seed=1",
        "loss=focal seed=2",
        "loss=focal gamma=3 seed=1",
        "loss=focal gamma=3 seed=2",
    ]
    fixed = study_of(tiny, space).with_settings({"loss": "asymmetric", "seed": [5]})
    assert [trial.label for trial in fixed.trials("")] == ["seed=5"]


def search_space(trial: optuna.Trial) -> None:
    trial.suggest_float("optimizer.lr", 1e-5, 1e-2, log=True)
    if trial.suggest_categorical("loss", ["bce", "focal"]) == "focal":
        trial.suggest_float("loss.alpha", 0.25, 0.75)


def a_search(tiny: RunConfig, **more: Any) -> Study:
    return study_of(tiny, search_space, **{"samples": 5, "search": TPE(batch=2, startup=2), **more})


def finished(folder: Path, score: float) -> None:
    """As if the run in this folder had been trained."""
    record = RunRecord.load(folder)
    best = (StoredFile("checkpoints/best", "", 1),)
    replace(record, epochs=({"val/auroc_macro": score},), bests=best).save().close("finished", "done")


def test_a_search_grows_by_a_round_at_a_time_until_its_samples_are_reached(tiny: RunConfig) -> None:
    sizes, keys = [], list[str]()
    for _ in range(4):
        plan = make_plan(a_search(tiny), "s")
        study = begin(plan)
        assert study.trials[: len(keys)] == tuple(keys)
        keys = list(study.trials)
        sizes.append(len(keys))
        for record in study.runs():
            if not record.over:
                assert make_plan(a_search(tiny), "s").trials == plan.trials, "a round that is not over is not left"
                finished(record.folder, record.config["optimizer"]["lr"])
    assert sizes == [2, 4, 5, 5]
    assert len(set(keys)) == 5
    assert (plan.in_all, changes(study, plan)) == (5, [])
    more = make_plan(a_search(tiny, samples=7), "s")
    assert (len(more.trials), changes(study, more)) == (7, [])


def test_a_failed_and_a_stopped_run_are_told_as_such(tiny: RunConfig) -> None:
    study = begin(make_plan(a_search(tiny, samples=8), "s"))
    one, other = study.runs()
    one.close("failed", "nan_loss")
    replace(other, epochs=({"val/auroc_macro": 0.6},)).save().close("stopped", "at rung 1")
    records = [_tried(run, a_search(tiny)) for run in study.runs()]
    assert [(tried.outcome, tried.curve) for tried in records] == [("failed", {}), ("stopped", {1: 0.6})]
    assert len(make_plan(a_search(tiny, samples=8), "s").trials) == 4


def test_a_search_that_changed_is_refused_with_what(tiny: RunConfig) -> None:
    begin(make_plan(a_search(tiny), "s"))
    other = a_search(tiny).with_settings({"loss": ["bce", "asymmetric"], "epochs": 9})
    with pytest.raises(BadInput) as error:
        begin(make_plan(other, "s"))
    assert "search.ranges.loss was bce, focal, is bce, asymmetric" in str(error.value)
    assert "base.epochs was 3, is 9" in str(error.value)


def test_what_is_set_is_no_longer_the_searchers(tiny: RunConfig) -> None:
    fixed = a_search(tiny).with_settings({"loss": {"name": "focal", "alpha": 0.5}, "epochs": 1})
    assert fixed.ranges == {"optimizer.lr": "1e-05 .. 0.01, log"}
    assert {trial.config.loss.model_dump_json() for trial in make_plan(fixed, "a").trials} == {
        fixed.base.loss.model_dump_json()
    }
    again = fixed.with_settings({"optimizer.lr": [1e-3, 1e-4]})
    assert sorted(str(trial.settings) for trial in make_plan(again, "b").trials) == [
        "{'optimizer.lr': 0.0001}",
        "{'optimizer.lr': 0.001}",
    ]
    assert again.definition()["search"]["code"] == a_search(tiny).definition()["search"]["code"]
    with pytest.raises(BadInput, match="this search does not suggest it"):
        fixed.with_settings({"seed": [1, 2]})


def test_what_is_below_a_fixed_choice_is_still_searched(tiny: RunConfig) -> None:
    """`loss=focal` used to take loss.alpha and loss.gamma out of the search, and what was set of them with it."""
    fixed = a_search(tiny).with_settings({"loss": "focal", "loss.alpha": [0.4, 0.6]})
    assert "loss" not in fixed.ranges
    assert fixed.ranges["loss.alpha"] == "0.4, 0.6"
    plan = make_plan(fixed, "a")
    assert {trial.config.loss.name for trial in plan.trials} == {"focal"}
    assert {trial.settings["loss.alpha"] for trial in plan.trials} <= {0.4, 0.6}
    grid = study_of(tiny, {"loss": "focal", "loss.gamma": grid_search([0.0, 1.0])})
    assert grid.with_settings({"loss": "focal"}).points() == [{"loss.gamma": 0.0}, {"loss.gamma": 1.0}]
    assert grid.with_settings({"loss": "bce"}).points() == [{}]
    assert grid.with_settings({"loss": {"name": "focal", "alpha": 0.5}}).points() == [{}]


def test_a_loss_and_a_monitor_that_do_not_fit_the_findings_are_refused_by_plan(tiny: RunConfig) -> None:
    with pytest.raises(BadInput, match="no finding 'Hernai'; did you mean 'Hernia'"):
        make_plan(study_of(tiny, {}).with_settings({"monitor": "val/auroc/Hernai"}), "a")
    with pytest.raises(BadInput, match="alpha"):
        make_plan(study_of(tiny, {}).with_settings({"loss": {"name": "focal", "alpha": [0.2, 0.3]}}), "a")


def test_a_metric_that_the_split_cannot_give_is_refused_by_plan(tiny: RunConfig) -> None:
    """Where a finding has positives and negatives in validation it can be ranked by; nowhere else."""
    small = tiny.with_settings({"data.split.ratios": [0.97, 0.015, 0.015]})
    data = open_data(small.data)
    positives = data.val.labels.sum(axis=0).astype(int).tolist()
    assert any(0 < found < len(data.val) for found in positives) and 0 in positives
    for finding, found in zip(data.classes, positives, strict=True):
        study = study_of(small, {}, metric=f"val/auroc/{finding}")
        if 0 < found < len(data.val):
            make_plan(study, "a")
        else:
            with pytest.raises(BadInput, match=f"val/auroc/{finding}: it has no value, for {found} of the"):
                make_plan(study, "a")
    with pytest.raises(BadInput, match="val/auroc_supported: it has no value, for no finding has 10 positives"):
        make_plan(study_of(small, {}, metric="val/auroc_supported"), "a")


def test_a_machine_that_takes_fewer_images_is_no_place_for_batches_that_cannot_be_cut(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "machine.toml").write_text("micro_batch = 8")
    monkeypatch.setenv("XLITE_MACHINE", str(tmp_path / "machine.toml"))
    whole = Study("?", distill, tiny, {"kd.intra": 1.0}, teacher=tiny)
    for accept in (False, True):
        with pytest.raises(BadInput, match=r"micro_batch = 8: kd\.intra compares all images of a batch"):
            begin(make_plan(whole, "whole"), accept_changes=accept)
    mean = begin(make_plan(Study("?", distill, tiny, {"kd.tau": 4.0}, teacher=tiny), "mean"), accept_changes=True)
    assert [record.micro_batch for record in mean.runs()] == [8]


def test_what_a_study_ranks_by_is_never_a_factor(tiny: RunConfig) -> None:
    with pytest.raises(BadInput, match="monitor cannot be swept: it is what the study ranks by"):
        study_of(tiny, {"monitor": grid_search(["val/auroc_macro", "val/ap_macro"])})


def test_a_wrong_name_in_a_function_is_refused_when_the_study_is_built(tiny: RunConfig) -> None:
    def wrong(trial: optuna.Trial) -> None:
        if trial.suggest_categorical("loss", ["bce", "focal"]) == "focal":
            trial.suggest_float("loss.alhpa", 0, 1)

    with pytest.raises(BadInput, match=r"unknown setting 'loss.alhpa'; did you mean 'loss.alpha'"):
        study_of(tiny, wrong)


def test_further_objectives_are_known_ones_and_go_without_a_scheduler(tiny: RunConfig) -> None:
    with pytest.raises(BadInput, match=r"minimize: 'model/latency' is not one of .*did you mean 'model/latency_ms'"):
        a_search(tiny, minimize=("model/latency",))
    with pytest.raises(BadInput, match="ASHA stops trials by their metric alone"):
        a_search(tiny, minimize=("model/latency_ms",), scheduler=ASHA())


def test_all_trials_of_a_model_share_the_latency_that_was_measured_first(
    tiny: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def cost_of(name: str, size: int) -> Cost:
        asked.append((name, size))
        return Cost(name, size, 10 * len(asked), 100, 0.5 * len(asked))

    monkeypatch.setattr(runner, "cost_of", cost_of)
    space = {"model": grid_search(["test_resnet_none", "test_efficientnet_none"]), "seed": grid_search([1, 2])}
    study = study_of(tiny, space, minimize=("model/latency_ms",))
    for _ in range(2):
        facts = [run.facts["model/latency_ms"] for run in begin(make_plan(study, "s")).runs()]
        assert facts == [0.5, 0.5, 1.0, 1.0]
    more = make_plan(study_of(tiny, {**space, "seed": grid_search([1, 2, 3])}, minimize=("model/latency_ms",)), "s")
    assert [run.facts["model/latency_ms"] for run in begin(more, accept_changes=True).runs()] == [0.5] * 3 + [1.0] * 3
    assert asked == [("test_resnet_none", 32), ("test_efficientnet_none", 32)]


def test_setting_the_monitor_sets_what_the_study_ranks_by(tiny: RunConfig) -> None:
    assert study_of(tiny, {}).with_settings({"monitor": "val/ap_macro"}).metric == "val/ap_macro"


def test_labels_say_what_differs_and_are_unique(tiny: RunConfig) -> None:
    space = {"optimizer.lr": grid_search([1e-3, 1e-4]), "model": grid_search(["test_resnet", "test_resnet_mhsa"])}
    labels = [trial.label for trial in study_of(tiny, space).trials("")]
    assert labels[0] == "test_resnet lr=0.001"
    assert len(set(labels)) == 4


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ({"kd.tua": grid_search([1])}, "unknown setting 'kd.tua'; did you mean 'kd.tau'?"),
        ({"kd.alpha": grid_search([0.5, 1.5])}, "kd.alpha = 1.5: input should be less than or equal to 1"),
        ({"loss": grid_search(["bce", "focl"])}, "loss = 'focl' is not known; expected one of bce, weighted_bce"),
        ({"model": "efficientnet_bo_mhsa"}, "did you mean 'efficientnet_b0'?"),
        ({"epochs": grid_search([0])}, "epochs = 0"),
    ],
)
def test_a_wrong_space_is_refused_when_the_study_is_built(
    tiny: RunConfig, space: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadInput) as error:
        study_of(tiny, space)
    assert sentence in str(error.value)


def test_set_replaces_a_swept_name_and_a_list_makes_a_grid(tiny: RunConfig) -> None:
    study = study_of(tiny, {"epochs": grid_search([1, 2])})
    fixed = study.with_settings({"epochs": 5})
    assert fixed.points() == [{}]
    assert fixed.base.epochs == 5
    assert [p["seed"] for p in study.with_settings({"seed": [1, 2]}).points()] == [1, 2, 1, 2]


def test_what_is_set_of_the_data_goes_for_the_teacher_too(tiny: RunConfig) -> None:
    study = study_of(tiny, {}, teacher=tiny).with_settings({"data.split.seed": 7, "teacher.epochs": 9, "epochs": 4})
    assert isinstance(study.teacher, RunConfig)
    assert study.teacher.data == study.base.data
    assert study.base.data.split == ByPatient(seed=7)
    assert (study.teacher.epochs, study.base.epochs) == (9, 4)


def test_a_teachers_wrong_setting_names_the_teacher(tiny: RunConfig) -> None:
    with pytest.raises(BadInput, match=r"teacher: unknown setting 'epoch'; did you mean 'epochs'"):
        study_of(tiny, {}, teacher=tiny).with_settings({"teacher.epoch": 1})
    with pytest.raises(BadInput, match=r"teacher.epochs cannot be set: this study has no teacher"):
        study_of(tiny, {}).with_settings({"teacher.epochs": 1})


STUDY = """\
from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.search.study import Study, grid_search
"""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\n", "has no `study = Study(...)`"),
        ("study = 3\n", "has no `study = Study(...)`"),
        ("a = 1\ndef f(:\n", "line 2: invalid syntax"),
        ("import math\n\nmath.nothing\n", "line 3: AttributeError"),
        ("import no_such_module\n", "line 1: ModuleNotFoundError"),
        (
            STUDY + 'study = Study("?", baseline, RunConfig(), {"epoch": 3})\n',
            "line 4: unknown setting 'epoch'; did you mean 'epochs'?",
        ),
    ],
)
def test_a_wrong_study_file_gets_one_sentence_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(BadInput) as error:
        load_study(str(path))
    assert str(error.value).startswith(str(path))
    assert sentence in str(error.value)


def test_a_missing_study_file_suggests_one_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "kd_grid.py").write_text("")
    with pytest.raises(BadInput, match=r"there is no such study file.*did you mean 'kd_grid.py'"):
        load_study(str(tmp_path / "kd_gird.py"))


def test_what_is_there_and_is_no_study_file_is_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / "study.txt").write_text("")
    with pytest.raises(BadInput, match=r"study\.txt is no Python file; expected a study file like"):
        load_study(str(tmp_path / "study.txt"))
    with pytest.raises(BadInput, match=r" is a folder; expected a study file like"):
        load_study(str(tmp_path))


def test_a_file_that_starts_ray_is_refused_and_its_ray_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = list[str]()
    engine = SimpleNamespace(is_initialized=lambda: bool(running), init=lambda: running.append("Ray"))
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(**vars(engine), shutdown=running.clear))
    (tmp_path / "own.py").write_text(
        "import ray\nray.init()\n" + STUDY + "study = Study('?', baseline, RunConfig(), {})\n"
    )
    with pytest.raises(BadInput, match=r"own\.py: it starts Ray \(ray\.init\); leave that out"):
        load_study(str(tmp_path / "own.py"))
    assert running == []
    running.append("of who loads it")
    (tmp_path / "none.py").write_text("")
    with pytest.raises(BadInput, match="has no `study"):
        load_study(str(tmp_path / "none.py"))
    assert running == ["of who loads it"]


def test_a_trainable_is_found_again_by_its_name_or_file(tmp_path: Path) -> None:
    assert trainable_at(reference(distill)) is distill
    path = tmp_path / "own.py"
    path.write_text(STUDY + "def mine(config, resume=None):\n    yield 7\nstudy = Study('?', mine, RunConfig(), {})\n")
    where = reference(load_study(str(path)).trainable)
    assert where == f"{path}:mine"
    assert [str(seven) for seven in trainable_at(where)(RunConfig(), None)] == ["7"]
    with pytest.raises(BadInput, match="is not there"):
        trainable_at("trainables.distill:gone")


def test_a_study_that_changed_is_refused_with_a_list_of_what(tiny: RunConfig) -> None:
    study = study_of(tiny, {"seed": grid_search([1, 2])})
    begin(make_plan(study, "s"))
    assert begin(make_plan(study, "s")).accepted == ()
    changed = make_plan(study.with_settings({"epochs": 7, "seed": [1, 3]}), "s")
    with pytest.raises(BadInput) as error:
        begin(changed)
    for phrase in ("trial 'seed=2' is gone", "trial 'seed=3' is new", "epochs was 3, is 7", "--accept-changes"):
        assert phrase in str(error.value)
    accepted = begin(changed, accept_changes=True).accepted
    assert "epochs was 3, is 7" in accepted[0]["changes"]
    assert changes(begin(changed), changed) == []


def test_beginning_again_keeps_what_was_trained(tiny: RunConfig) -> None:
    plan = make_plan(study_of(tiny, {"seed": grid_search([1, 2])}), "s")
    record = begin(plan).runs()[0]
    record.close("finished", "done")
    assert [run.status for run in begin(plan).runs()] == ["finished", "waiting"]


def test_an_empty_list_of_values_is_refused(tiny: RunConfig) -> None:
    with pytest.raises(BadInput, match="seed: the list of values is empty"):
        study_of(tiny, {}).with_settings({"seed": []})


def test_a_study_has_one_driver_at_a_time(tiny: RunConfig) -> None:
    plan = make_plan(study_of(tiny, {"seed": grid_search([1, 2])}), "s")
    with alone(plan.folder, "study 's'"), pytest.raises(BadInput, match="study 's' is being run by process"):
        run(plan)


def test_data_are_never_a_factor(tiny: RunConfig) -> None:
    with pytest.raises(BadInput, match=r"data\.split\.seed cannot be swept"):
        study_of(tiny, {}).with_settings({"data.split.seed": [0, 1]})


def test_setting_kd_to_null_takes_its_grid_away(tiny: RunConfig) -> None:
    study = study_of(tiny, {"kd.tau": grid_search([1.0, 4.0]), "seed": grid_search([1, 2])}, teacher=tiny)
    without = study.with_settings({"kd": None})
    assert [(settings, config.kd) for settings, config in without.configs()] == [
        ({"seed": 1}, None),
        ({"seed": 2}, None),
    ]


def test_weights_that_do_not_fit_are_refused_before_anything_starts(tiny: RunConfig, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"no weights")
    with pytest.raises(BadInput, match="not a safetensors file"):
        make_plan(study_of(tiny, {"seed": 1}).with_settings({"weights": str(path)}), "s")


def test_only_the_fraction_of_the_data_can_be_swept(tiny: RunConfig, phantom: PackedSet) -> None:
    trials = study_of(tiny, {"data.fraction": grid_search([0.25, 1.0])}).trials("")
    assert [trial.label for trial in trials] == ["fraction=0.25", "fraction=1"]


def test_folds_are_swept_for_chance(tiny: RunConfig) -> None:
    """By other images each: a teacher would know some of them, and no rung or suggestion compares them."""
    folds: dict[str, object] = {"data.split.fold": grid_search([0, 1])}
    with pytest.raises(BadInput, match=r"data\.split\.fold"):
        study_of(tiny, folds)
    in_folds = tiny.with_settings({"data.split": "folds"})
    plan = make_plan(study_of(in_folds, folds), "s")
    assert [trial.label for trial in plan.trials] == ["fold=0", "fold=1"]
    parts = [set(plan.data(trial.config).val.rows) for trial in plan.trials]
    assert parts[0] and parts[1] and not parts[0] & parts[1]
    with pytest.raises(BadInput, match="patients that the teacher was trained on"):
        study_of(in_folds, folds, teacher=in_folds)
    with pytest.raises(BadInput, match="a scheduler would stop runs by scores on other images"):
        study_of(in_folds, folds, scheduler=ASHA(grace=1, reduction=2))

    def suggested(trial: optuna.Trial) -> None:
        trial.suggest_categorical("data.split.fold", [0, 1])

    with pytest.raises(BadInput, match="a search cannot suggest it"):
        study_of(in_folds, suggested)


def test_what_could_spoil_the_night_is_said_before_it(tiny: RunConfig, tmp_path: Path) -> None:
    """A sampler that draws normal images, and the same pixels under two patients on both sides of given lists."""
    source = Phantom(images=120, size=48)
    table = source.table()
    one, other = 0, next(row for row, patient in enumerate(table.groups) if patient != table.groups[0])
    (tmp_path / "png").mkdir()
    for row, name in enumerate(table.names):
        cv2.imwrite(str(tmp_path / "png" / name), source.pixels(one if row == other else row))
    write_labels(tmp_path / "labels.csv", table)
    prepare("twins", Folder(tmp_path / "png", tmp_path / "labels.csv"), 32)
    validated = {table.groups[other], *table.groups[-20:]} - {table.groups[one]}
    codes = np.array([int(patient in validated) for patient in table.groups])
    write_lists(tmp_path / "lists", table, codes, {})
    split = {"name": "lists", "path": str(tmp_path / "lists")}
    base = tiny.with_settings({"data.name": "twins", "data.split": split})
    space = {
        "sampler": grid_search(["none", {"name": "mean_rarity", "no_finding": {"name": "unscaled", "weight": 9.0}}])
    }
    warnings = make_plan(study_of(base, space), "night").warnings()
    assert any(f"{table.names[one]} = {table.names[other]}" in warning for warning in warnings)
    assert any("sampler mean_rarity" in warning and "of draws are No Finding" in warning for warning in warnings)
    fair = study_of(base.with_settings({"data.split": "patient"}), {})
    assert make_plan(fair, "day").warnings() == []

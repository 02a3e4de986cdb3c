"""Cross-fit: members that each leave a fold out, whose out-of-fold logits calibrate the ensemble."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finished import finished_study
from test_cli import call

from xlite_search import storage
from xlite_search.config import RunConfig
from xlite_search.data.dataset import DataSpec, open_data
from xlite_search.data.splits import ByPatient
from xlite_search.distill.losses import KD
from xlite_search.evaluation.calibration import read_calibration
from xlite_search.evaluation.scored import data_of, scored
from xlite_search.evaluation.validation import validation_of
from xlite_search.model_folder import copy_model, key_of, manifest_of, read_model
from xlite_search.places import model_folder, teacher_folder
from xlite_search.results.best import write_best
from xlite_search.results.crossfit import fold_teacher

CPU = torch.device("cpu")


@pytest.fixture
def exported(tiny: RunConfig, tmp_path: Path) -> Path:
    finished_study("s", tiny, [{"optimizer.lr": 1e-3}], (1.0,))
    write_best("s", tmp_path / "best.yaml")
    return tmp_path / "best.yaml"


def test_out_of_fold_logits_calibrate_a_cross_fit(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("train", str(exported), "--folds", "3", "--name", "cv", "--set", "epochs=1")
    code, out, err = call(capsys, *arguments)
    assert code == 0 and "member 3 of 3" in err, err
    assert out.splitlines()[-1] == "next: python -m xlite_search calibrate cv"
    about = read_model(model_folder("cv"))
    members = [model_folder(name) for name in about.members]
    assert about.members == ("cv-fold1", "cv-fold2", "cv-fold3")
    data, base = data_of(about), open_data(DataSpec(name=about.config["data"]["name"]))
    assert data.split.fingerprint == base.split.fingerprint and not len(data.val)
    assert about.trained_on is not None
    groups = base.packed.table.groups
    assert set(about.trained_on.patients) == {groups[row] for part in ("train", "val") for row in base.split.rows[part]}

    of = validation_of(model_folder("cv"), "", CPU)
    assert np.array_equal(of.scored.rows, data.train.rows)
    seen = np.zeros(len(of.scored.rows), int)
    for member in members:
        fold = data_of(manifest_of(member))
        assert np.array_equal(fold.split.rows["test"], base.split.rows["test"])
        own = scored(member, fold, "val", CPU)
        places = np.searchsorted(of.scored.rows, own.rows)
        assert np.array_equal(of.scored.logits[places], own.logits)
        assert np.array_equal(of.scored.truth[places], own.truth)
        seen[places] += 1
        trained = manifest_of(member).trained_on
        assert trained is not None and not {groups[row] for row in own.rows} & set(trained.patients)
    assert (seen == 1).all(), "each image is scored by the one member that has not seen it"

    assert call(capsys, *arguments)[0] == 0, "the same command again trains nothing"
    code, out, _ = call(capsys, "calibrate", "cv", "--json")
    assert code == 0 and json.loads(out)["calibration"]["on"]["part"] == "folds"
    found = read_calibration(model_folder("cv"))
    assert found is not None and found.on.images == len(data.train) and "out-of-fold" in found.caveat
    code, out, err = call(capsys, "evaluate", "cv", "--on", "test")
    assert code == 0 and "out-of-fold" in out, err
    code, _, err = call(capsys, "evaluate", "cv", "--on", "val")
    assert (code, err.count("\n")) == (2, 1) and "the model was trained on" in err, err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--folds", "1"), "two folds at least"),
        (("--folds", "3", "--seeds", "2"), "leave --seeds out"),
        (("--folds", "3", "--split", "train+val"), "leave --split train+val out"),
    ],
)
def test_what_cannot_be_a_cross_fit_is_said(
    exported: Path, arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "train", str(exported), *arguments)
    assert (code, err.count("\n")) == (2, 1) and says in err


@pytest.fixture
def taught(exported: Path, tiny: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> RunConfig:
    """A student whose teacher was trained here, on the training part."""
    config = tiny.model_copy(update={"epochs": 1})
    teacher = imported_teacher(exported, capsys)
    student = config.model_copy(update={"kd": KD(teacher=teacher)})
    study = finished_study("kd", student, [{"optimizer.lr": 1e-3}], (1.0,))
    sha256 = read_model(teacher_folder(teacher)).sha256
    replace(study, trainable="trainables.distill:distill", teacher_sha256=sha256).save()
    write_best("kd", tmp_path / "kd.yaml")
    return student


def imported_teacher(exported: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A trained model, taken in among the teachers."""
    assert call(capsys, "train", str(exported), "--name", "t", "--set", "epochs=1")[0] == 0
    key = key_of(model_folder("t"))
    copy_model(model_folder("t"), teacher_folder(key))
    return key


def test_a_teacher_is_trained_anew_for_each_fold(
    taught: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "train", str(tmp_path / "kd.yaml"), "--folds", "2", "--name", "cv")
    assert code == 0, err
    keys = set()
    for member in ("cv-fold1", "cv-fold2"):
        about = manifest_of(model_folder(member))
        key = about.config["kd"]["teacher"]
        keys.add(key)
        seen, data = read_model(teacher_folder(key)).trained_on, data_of(about)
        assert seen is not None
        assert not set(seen.patients) & {data.packed.table.groups[row] for row in data.val.rows}
    assert len(keys) == 2


def test_a_teacher_that_saw_the_fold_and_cannot_be_trained_anew_is_refused(
    taught: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert taught.kd is not None
    folder = teacher_folder(taught.kd.teacher)
    body = storage.read_manifest(folder / "model.json")
    body["provenance"].pop("trained_by")
    storage.write_manifest(folder / "model.json", body)
    code, _, err = call(capsys, "train", str(tmp_path / "kd.yaml"), "--folds", "2", "--name", "cv")
    assert (code, err.count("\n")) == (2, 1) and "cannot be trained anew" in err, err


def test_other_data_whose_patients_the_teacher_knows_are_refused(
    taught: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "train", str(tmp_path / "kd.yaml"), "--set", "data.split.seed=5", "--name", "other")
    assert (code, err.count("\n")) == (2, 1) and "keep the study's split" in err, err


def test_a_teacher_that_has_not_seen_the_fold_stays(taught: RunConfig) -> None:
    assert taught.kd is not None
    same = taught.data.model_copy(update={"split": ByPatient()})
    assert fold_teacher(taught.kd.teacher, same) == taught.kd.teacher

"""What is written beside a model is in MLflow, in the model's run; MLflow's trouble is a sentence."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from test_tracking import a_run, runs_of
from test_tracking import client as client  # one database for these tests
from test_tracking import database as database

from xlite_search import storage
from xlite_search.model_folder import ModelManifest, manifest_of
from xlite_search.places import FINAL
from xlite_search.records import ARTIFACTS, RunRecord
from xlite_search.tracking.models import differences, log_files
from xlite_search.tracking.registry import CHAMPION, register

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def a_model(home: Path, key: str) -> Path:
    """A final training's folder, with a file beside it and one among its artifacts."""
    folder = home / key
    (folder / ARTIFACTS / "calibration").mkdir(parents=True)
    (folder / ARTIFACTS / "calibration" / "x.svg").write_text("<svg/>")
    (folder / "calibration.json").write_text("{}")
    replace(a_run(key, 1, "finished"), folder=folder, kind="final").save()
    return folder


def test_files_are_artifacts_of_the_models_run(client: object, tmp_path: Path) -> None:
    folder = a_model(tmp_path, "tracked")
    for _ in range(2):
        assert log_files(folder, ["calibration.json"]) == ""
    runs = runs_of(client, FINAL)
    run = runs["tracked"].info.run_id  # type: ignore[attr-defined]
    names = {each.path for each in client.list_artifacts(run)}  # type: ignore[attr-defined]
    assert names >= {"calibration.json", "calibration"}
    assert [each.path for each in client.list_artifacts(run, "calibration")] == ["calibration/x.svg"]  # type: ignore[attr-defined]


def test_a_folder_that_was_written_anew_takes_its_place(client: MlflowClient, tmp_path: Path) -> None:
    folder, place = a_model(tmp_path, "anew"), Path(ARTIFACTS) / "explain" / "val"
    for file, other in (("old.png", "one.txt"), ("new.png", "two.txt")):
        shutil.rmtree(folder / place, ignore_errors=True)
        (folder / place).mkdir(parents=True)
        (folder / place / file).write_text("")
        (folder / ARTIFACTS / other).write_text("")
        assert log_files(folder, [], anew=place) == ""
    run = runs_of(client, FINAL)["anew"].info.run_id  # type: ignore[attr-defined]
    assert [each.path for each in client.list_artifacts(run, "explain/val")] == ["explain/val/new.png"]
    assert {each.path for each in client.list_artifacts(run)} >= {"calibration", "one.txt", "two.txt"}


def test_a_model_that_was_not_trained_here_has_no_run(tmp_path: Path) -> None:
    assert log_files(tmp_path, []) == f"not in MLflow: '{tmp_path.name}' was not trained here, and has no run"


def test_trouble_is_told_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("disk I/O error")

    folder = a_model(tmp_path, "troubled")
    monkeypatch.setattr("xlite_search.tracking.mirror.connect", broken)
    assert log_files(folder, ["calibration.json"]) == "not in MLflow: RuntimeError: disk I/O error"


def an_ensemble(home: Path, name: str, members: list[str]) -> Path:
    """Its folder, beside its members', of one recipe with a seed each."""
    for seed, member in enumerate(members):
        folder = a_model(home, member)
        config = {"monitor": "val/auroc_macro", "seed": seed, "epochs": 3, "data": {"fit": "train"}}
        record = replace(RunRecord.load(folder), config=config, label="m in s, on train", settings={"study": "s"})
        replace(record, started=100.0 + seed, ended=200.0 + seed).save()
    folder = home / name
    (folder / ARTIFACTS / "evaluation").mkdir(parents=True)
    (folder / ARTIFACTS / "evaluation" / "test.json").write_text("{}")
    about = ModelManifest(members=tuple(members), sha256="0" * 64, config={"model": "m + m"}, classes=("Mass",))
    storage.write_manifest(folder / "model.json", about.model_copy(update={"parameters": 8}).as_json())
    return folder


def test_an_ensemble_has_a_run_of_its_own(client: MlflowClient, tmp_path: Path) -> None:
    folder = an_ensemble(tmp_path, "both", ["both-seed0", "both-seed1"])
    for _ in range(2):
        assert log_files(folder, ["model.json"]) == ""
    runs = [run for run in runs_of(client, FINAL).values() if run.data.tags.get("xlite.kind") == "ensemble"]  # type: ignore[attr-defined]
    (run,) = runs
    assert run.data.tags["xlite.members"] == "both-seed0, both-seed1"  # type: ignore[attr-defined]
    assert run.info.run_name == "ensemble of 2: m in s, on train"  # type: ignore[attr-defined]
    assert (run.info.start_time, run.info.end_time, run.info.status) == (100_000, 201_000, "FINISHED")  # type: ignore[attr-defined]
    params = run.data.params  # type: ignore[attr-defined]
    assert params["seed"] == "0, 1" and params["epochs"] == "3" and params["study"] == "s"
    metrics = run.data.metrics  # type: ignore[attr-defined]
    assert metrics == {"members/auroc_macro": pytest.approx(0.51), "model/parameters": 8}
    names = {each.path for each in client.list_artifacts(run.info.run_id)}  # type: ignore[attr-defined]
    assert names >= {"model.json", "config.json", "evaluation"}
    assert differences(folder) == []
    client.set_terminated(run.info.run_id, "FAILED")  # type: ignore[attr-defined]
    assert differences(folder) == ["MLflow says that ensemble of 2: m in s, on train is FAILED, and it is FINISHED"]
    assert log_files(folder, ()) == "" and differences(folder) == []


def test_an_ensemble_of_other_members_is_another_run(client: MlflowClient, tmp_path: Path) -> None:
    folder = an_ensemble(tmp_path, "grown", ["grown-seed0"])
    log_files(folder, ())
    an_ensemble(tmp_path / "again", "grown", ["grown-seed0"])
    about = manifest_of(folder).model_copy(update={"sha256": "1" * 64})
    storage.write_manifest(folder / "model.json", about.as_json())
    again = "`python -m xlite_search card grown`, and it is filled in"
    assert differences(folder) == [f"MLflow has 0 runs of ensemble of 1: m in s, on train; {again}"]
    assert log_files(folder, ()) == "" and differences(folder) == []


def test_an_ensemble_of_others_has_no_run(tmp_path: Path) -> None:
    folder = an_ensemble(tmp_path, "both", ["one", "two"])
    (tmp_path / "two" / "run.json").unlink()
    assert log_files(folder, []) == "not in MLflow: 'both' was not trained here, and has no run"
    assert differences(folder) == []


def test_an_ensemble_is_registered_from_its_run(client: MlflowClient, tmp_path: Path) -> None:
    folder, out = an_ensemble(tmp_path, "listed", ["listed-seed0", "listed-seed1"]), tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_bytes(b"graph")
    about: dict[str, Any] = {"model": "m + m", "classes": ["Mass"], "sha256": "0" * 64, "files": {"a": "1"}}
    assert register("both", out, folder, about) == ("1", "")
    found = client.get_model_version_by_alias("both", CHAMPION)
    assert client.get_run(found.run_id).data.tags["xlite.members"] == "listed-seed0, listed-seed1"

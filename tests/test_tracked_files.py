"""What is written beside a model is in MLflow, in the model's run; MLflow's trouble is a sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_tracking import a_run, runs_of
from test_tracking import client as client  # one database for these tests
from test_tracking import database as database

from xlite_search.places import FINAL
from xlite_search.records import ARTIFACTS
from xlite_search.tracking import models
from xlite_search.tracking.models import log_files


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


def test_a_model_that_was_not_trained_here_has_no_run(tmp_path: Path) -> None:
    assert log_files(tmp_path, []) == f"not in MLflow: '{tmp_path.name}' was not trained here, and has no run"


def test_trouble_is_told_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("disk I/O error")

    folder = a_model(tmp_path, "troubled")
    monkeypatch.setattr(models, "find_run", lambda experiment, key: "1")
    monkeypatch.setattr(models, "connect", broken)
    assert log_files(folder, ["calibration.json"]) == "not in MLflow: RuntimeError: disk I/O error"

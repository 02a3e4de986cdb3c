"""Final training over several seeds: members beside an ensemble that knows its data and whom it has seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from finished import finished_study
from test_cli import call

from xlite_search import load_model
from xlite_search.cli.model import _changed
from xlite_search.config import RunConfig
from xlite_search.evaluation.scored import data_of, scored
from xlite_search.model_folder import manifest_of, read_model
from xlite_search.places import FINAL, model_folder
from xlite_search.results.best import write_best
from xlite_search.tracking import store


@pytest.fixture
def exported(tiny: RunConfig, tmp_path: Path) -> Path:
    finished_study("s", tiny, [{"optimizer.lr": 1e-3}], (1.0,))
    write_best("s", tmp_path / "best.yaml")
    return tmp_path / "best.yaml"


def test_an_ensemble_of_seeds_is_a_model(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("train", str(exported), "--seeds", "2", "--name", "both", "--set", "epochs=1")
    code, out, err = call(capsys, *arguments)
    assert code == 0 and "member 2 of 2: seed 43" in err, err
    assert out.splitlines()[-1] == "next: python -m xlite_search calibrate both"
    about = read_model(model_folder("both"))
    members = [manifest_of(model_folder(name)) for name in about.members]
    assert about.members == ("both-seed42", "both-seed43")
    assert [member.config["seed"] for member in members] == [42, 43]
    assert about.parameters == sum(member.parameters for member in members)
    assert about.data == members[0].data and about.trained_on == members[0].trained_on
    data = data_of(about)
    both, one, other = (
        scored(model_folder(name), data, "val", torch.device("cpu")).logits for name in ("both", *about.members)
    )
    assert np.allclose(both, (one + other) / 2, atol=1e-5) and not np.allclose(one, other)
    before = load_model(model_folder("both-seed43")).manifest.sha256
    assert call(capsys, *arguments)[0] == 0, "the same command again trains nothing"
    assert call(capsys, "verify", "both")[:2] == (0, "both: its files and the ledger of looks agree\n")
    run = store.connect().get_run(str(store.find_run(FINAL, f"both-{about.sha256[:12]}")))
    assert run.data.tags["xlite.members"] == "both-seed42, both-seed43" and run.data.params["seed"] == "42, 43"
    mean = sum(member.metrics["val/auroc_macro"] for member in members) / 2
    assert run.data.metrics["members/auroc_macro"] == pytest.approx(mean)
    assert read_model(model_folder("both-seed43")).sha256 == before


def test_one_seed_is_no_ensemble(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "train", str(exported), "--seeds", "1")
    assert (code, err.count("\n")) == (2, 1) and "two members at least" in err


def test_another_score_than_the_trials_names_the_settings_that_were_changed(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("train", str(exported), "--name", "one", "--set", "epochs=1", "--set", "optimizer.lr=1e-3")
    code, _, err = call(capsys, *arguments)
    assert code == 0, err
    assert err.splitlines()[-1] == "another score than the trial's: epochs 1, the trial's 2"


def test_settings_are_told_apart_from_the_trials_by_name() -> None:
    trials = {"epochs": 8, "loss": {"name": "bce"}, "data": {"fit": "train"}}
    ours = {"epochs": 2, "loss": {"name": "focal", "gamma": 2.0}, "data": {"fit": "train"}}
    told = "epochs 2, the trial's 8; loss.name focal, the trial's bce; loss.gamma 2.0, which the trial has not"
    assert _changed(ours, trials, {"epochs": 2, "loss": "focal"}) == told
    assert _changed(ours, trials, {"data.fit": "train"}) == ""

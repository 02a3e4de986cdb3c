"""What a run leaves of where it ran and what it was given."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.baseline import baseline
from xlite_search import provenance
from xlite_search.config import RunConfig, run_key
from xlite_search.data.dataset import open_data
from xlite_search.errors import BadInput
from xlite_search.execution import drive
from xlite_search.records import ARTIFACTS, RunRecord
from xlite_search.training import environment


def left(record: RunRecord) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((record.folder / ARTIFACTS / environment.FILE).read_bytes())
    return found


@pytest.fixture
def record(tiny: RunConfig, tmp_path: Path) -> RunRecord:
    return RunRecord(tmp_path / "run", run_key(tiny), "trial", "a", {}, tiny.model_dump(mode="json"))


def test_a_run_says_what_it_ran_on_and_what_it_was_given(tiny: RunConfig, record: RunRecord) -> None:
    config = tiny.with_settings({"loss": "weighted_bce"})
    data = open_data(config.data)
    environment.write_artifacts(record, run_key(config), config, data)
    found = left(record)
    run, (start,) = found["run"], found["starts"]
    assert run["config_hash"] == run_key(config)
    assert (run["key"], run["seed"], run["threads"]) == (record.key, config.seed, config.threads)
    assert (run["data"], run["split"]) == (data.packed.fingerprint, data.split.fingerprint)
    assert run["images"] == {"train": len(data.train), "val": len(data.val)}
    assert list(run["findings"]) == list(data.classes)
    positives = data.train.labels.sum(axis=0)
    for place, counts in enumerate(run["findings"].values()):
        expected = (len(data.train) - positives[place]) / (positives[place] + 1)
        assert counts["train"] == positives[place]
        assert counts["pos_weight"] == pytest.approx(expected, rel=1e-6)
    assert start["machine"]["python"] == platform.python_version()
    assert torch.__version__.startswith(start["machine"]["torch"])
    assert {start["machine"][name] == version(name) for name in ("albumentations", "optuna")} == {True}
    assert set(start["machine"]) >= {"gpu", "driver", "cuda", "cpu", "cores", "platform"}
    assert start["machine"]["cpu"]
    assert start["determinism"]["deterministic_algorithms"] is torch.are_deterministic_algorithms_enabled()
    assert start["from_epoch"] == 1


@pytest.mark.parametrize(("commit", "dirty"), [("abc", False), ("abc-dirty", True), ("", None)])
def test_the_commit_and_whether_it_was_all(
    tiny: RunConfig, record: RunRecord, monkeypatch: pytest.MonkeyPatch, commit: str, dirty: bool | None
) -> None:
    monkeypatch.setattr(provenance, "git_commit", lambda: commit)
    environment.write_artifacts(record, run_key(tiny), tiny, open_data(tiny.data))
    assert left(record)["starts"][0]["code"] == {"commit": commit.removesuffix("-dirty"), "dirty": dirty}


def test_going_on_elsewhere_is_added_and_going_on_here_is_not(
    tiny: RunConfig, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_data(tiny.data)
    environment.write_artifacts(record, run_key(tiny), tiny, data)
    environment.write_artifacts(record, run_key(tiny), tiny, data)
    assert len(left(record)["starts"]) == 1
    monkeypatch.setattr(provenance, "environment", lambda: {"gpu": "another"})
    later = replace(record, epochs=({"train/loss": 1.0},))
    environment.write_artifacts(later, run_key(tiny), tiny, data)
    first, second = left(record)["starts"]
    assert (first["from_epoch"], second["from_epoch"], second["machine"]) == (1, 2, {"gpu": "another"})
    (record.folder / ARTIFACTS / environment.FILE).write_text("no json")
    environment.write_artifacts(record, run_key(tiny), tiny, data)
    assert len(left(record)["starts"]) == 1


def starts_of(record: RunRecord) -> list[tuple[int, str]]:
    return [(start["from_epoch"], start["machine"]["gpu"]) for start in left(record)["starts"]]


def test_a_start_is_told_from_the_epoch_that_was_trained_there(
    tiny: RunConfig, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that falls back by damaged checkpoints trains epochs anew: where they were trained before says nothing."""

    def one_epoch_on(gpu: str, damaged: int) -> None:
        """Another epoch than the ones that are good, on this GPU."""
        monkeypatch.setattr(provenance, "environment", lambda: {"gpu": gpu})
        for stored in record.reload().checkpoints[:damaged]:
            (record.folder / stored.name).write_bytes(b"damaged")
        epochs = drive(record.reload(), baseline, tiny)
        next(epochs)
        epochs.close()  # type: ignore[attr-defined]

    record.save()
    one_epoch_on("a", damaged=0)
    one_epoch_on("a", damaged=0)
    assert starts_of(record) == [(1, "a")]
    one_epoch_on("b", damaged=1)
    assert starts_of(record) == [(1, "a"), (2, "b")]
    one_epoch_on("c", damaged=1)
    assert starts_of(record) == [(1, "a"), (2, "c")]
    one_epoch_on("c", damaged=2)
    assert starts_of(record) == [(1, "c")]


def test_what_cannot_be_opened_is_the_run_s_failure_and_a_full_disk_is_not(
    tiny: RunConfig, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = tiny.with_settings({"data.name": "nowhere"})
    with pytest.raises(BadInput, match="nowhere"):
        next(drive(record.save(), baseline, away))
    assert record.reload().status == "failed"
    assert "nowhere" in record.reload().cause

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(environment, "write_atomic", full)
    with pytest.raises(OSError, match="No space"):
        next(drive(record.save(), baseline, tiny))
    assert (record.reload().status, record.reload().epochs) == ("running", ()), "a full disk is no failure of the run"


@pytest.mark.parametrize("keeps", [False, True])
def test_a_machine_says_whether_the_finished_keep_their_states(
    tiny: RunConfig, record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeps: bool
) -> None:
    (tmp_path / "machine.toml").write_text(f"keep_states = {str(keeps).lower()}\n")
    monkeypatch.setenv("XLITE_MACHINE", str(tmp_path / "machine.toml"))
    *_, ended = drive(record.save(), baseline, tiny)
    assert ended.status == "finished" and ended.weights()
    assert len(list((ended.folder / "checkpoints").glob("*.pt"))) == (2 if keeps else 0)

"""What a run leaves of where it ran and what it was given."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest
import torch

from xlite_search import provenance
from xlite_search.config import RunConfig, run_key
from xlite_search.data.loaders import open_data
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
    environment.leave(record, config, data)
    found = left(record)
    run, (start,) = found["run"], found["starts"]
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
    assert set(start["machine"]) >= {"gpu", "driver", "cuda", "cores", "platform"}
    assert start["determinism"]["deterministic_algorithms"] is torch.are_deterministic_algorithms_enabled()
    assert start["from_epoch"] == 1


@pytest.mark.parametrize(("commit", "dirty"), [("abc", False), ("abc-dirty", True)])
def test_the_commit_and_whether_it_was_all(
    tiny: RunConfig, record: RunRecord, monkeypatch: pytest.MonkeyPatch, commit: str, dirty: bool
) -> None:
    monkeypatch.setattr(provenance, "git_commit", lambda: commit)
    environment.leave(record, tiny, open_data(tiny.data))
    assert left(record)["starts"][0]["code"] == {"commit": "abc", "dirty": dirty}


def test_going_on_elsewhere_is_added_and_going_on_here_is_not(
    tiny: RunConfig, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_data(tiny.data)
    environment.leave(record, tiny, data)
    environment.leave(record, tiny, data)
    assert len(left(record)["starts"]) == 1
    monkeypatch.setattr(provenance, "environment", lambda: {"gpu": "another"})
    later = RunRecord(**{**vars(record), "epochs": ({"train/loss": 1.0},)})
    environment.leave(later, tiny, data)
    first, second = left(record)["starts"]
    assert (first["from_epoch"], second["from_epoch"], second["machine"]) == (1, 2, {"gpu": "another"})
    (record.folder / ARTIFACTS / environment.FILE).write_text("no json")
    environment.leave(record, tiny, data)
    assert len(left(record)["starts"]) == 1

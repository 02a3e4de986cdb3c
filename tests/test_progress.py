"""How far within an epoch a run is: said at most twice a second, and kept beside the record where that can be done."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from xlite_search import progress
from xlite_search.config import RunConfig
from xlite_search.data.dataset import open_data
from xlite_search.data.loaders import batches_per_epoch
from xlite_search.models.hybrid import build_model
from xlite_search.progress import Progress, listening, read, report, written
from xlite_search.records import RunRecord
from xlite_search.search.worker import _epochs, job_for
from xlite_search.training import loop
from xlite_search.training.losses import bce


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def test_it_is_told_at_most_twice_a_second_with_the_rate_since_the_phase_began(clock: Clock) -> None:
    told = list[Progress]()
    with listening(told.append):
        report("training", 0, 40)
        for step in range(1, 41):
            clock.now += 0.125
            report("training", step, 40, 16)
        report("validating", 0, 3)
    assert [found.step for found in told] == [0, *range(4, 41, 4), 0]
    assert {round(found.rate) for found in told[1:-1]} == {128}, "16 images in an eighth of a second"
    assert told[-1] == Progress("validating", 0, 3, 0.0)


def test_nobody_who_listens_no_more_is_told(tmp_path: Path) -> None:
    told = list[Progress]()
    with listening(told.append):
        report("training", 0, 2)
    report("training", 1, 2, 8)
    assert len(told) == 1


def test_what_is_written_is_read_until_it_is_over(tmp_path: Path, clock: Clock) -> None:
    assert read(tmp_path) is None
    with written(tmp_path):
        report("training", 0, 4)
        clock.now += 2
        report("training", 1, 4, 30)
        assert read(tmp_path) == Progress("training", 1, 4, 15.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b'{"else": 1}', b"\xff"])
def test_what_is_no_progress_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / progress.FILE).write_bytes(content)
    assert read(tmp_path) is None


def test_a_disk_that_is_full_costs_the_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with written(tmp_path):
        report("training", 0, 4)
    assert read(tmp_path) is None


def test_the_loop_tells_every_step_of_training_and_of_validation(
    tiny: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    told, data = list[Progress](), open_data(tiny.data)
    model = build_model(tiny.model, classes=len(data.classes))

    def objective(logits: Any, batch: Any) -> Any:
        return bce(logits, batch.labels)

    with listening(told.append):
        next(iter(loop.train(tiny, model, data, objective)))
    steps, of_val = batches_per_epoch(data.train, 16), -(-len(data.val) // 16)
    training = [found.step for found in told if found.what == progress.TRAINING]
    validating = [found.step for found in told if found.what == progress.VALIDATING]
    assert (training, validating) == ([*range(steps + 1)], [*range(of_val + 1)])
    assert {found.steps for found in told} == {steps, of_val}


def test_a_worker_keeps_it_beside_the_record_while_it_is_at_it(tiny: RunConfig, tmp_path: Path) -> None:
    config = tiny.with_settings({"epochs": 2}).resolved()
    record = RunRecord(tmp_path / "run", "k", "trial", "k", {}, config.model_dump(mode="json")).save()
    activation = _epochs(job_for(record, "trainables.baseline:baseline", Path.cwd()))
    next(activation)
    found = read(record.folder)
    assert found is not None and found.what in (progress.TRAINING, progress.VALIDATING)
    assert [len(epoch.epochs) for epoch in activation] == [2]
    assert read(record.folder) is None
    assert not [name for name in os.listdir(record.folder) if name.startswith(progress.FILE)]

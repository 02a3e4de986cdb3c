from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from power import cut_at, flip, steps_of

from xlite_search import storage
from xlite_search.errors import BadInput, Damaged, OutOfMemory, RunFailed, cause_of
from xlite_search.execution import follow
from xlite_search.records import RunRecord
from xlite_search.storage import alone, held_by, read_manifest, write_atomic, write_manifest
from xlite_search.study_record import StudyRecord

MONITOR = "val/auroc_macro"
CONFIG = {"epochs": 5, "monitor": MONITOR, "batch_size": 32}


@dataclass(frozen=True)
class Epoch:
    """What a record needs to know of an epoch."""

    epoch: int
    score: float = 0.5
    improved: bool = True
    ended: str | None = None
    predicts: bool = True
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.metrics.update({MONITOR: self.score, "time/epoch_s": 2.0})

    def predictions_bytes(self) -> bytes | None:
        return f"answers {self.epoch}".encode() if self.predicts else None

    def checkpoint_bytes(self) -> bytes:
        return f"checkpoint {self.epoch} ".encode() * 50

    def weights_bytes(self) -> bytes:
        return f"weights {self.epoch} ".encode() * 50


def new_run(folder: Path) -> RunRecord:
    return RunRecord(folder / "run", "0123456789ab", "trial", "a tau=4", {"kd.tau": 4.0}, CONFIG).save()


def run_with(folder: Path, epochs: list[Epoch]) -> RunRecord:
    record = new_run(folder)
    for epoch in epochs:
        record = record.add(epoch)
    return record


def files(record: RunRecord) -> set[str]:
    return {path.name for path in (record.folder / "checkpoints").iterdir()}


@pytest.mark.parametrize("improved", [True, False])
def test_a_power_cut_at_any_step_of_an_epoch_leaves_the_old_or_the_new_state(improved: bool, tmp_path: Path) -> None:
    third = Epoch(3, improved=improved)
    steps = steps_of(lambda: run_with(tmp_path / "whole", [Epoch(1), Epoch(2)]).add(third))
    steps -= steps_of(lambda: run_with(tmp_path / "two", [Epoch(1), Epoch(2)]))
    assert steps >= 9
    after = run_with(tmp_path / "new", [Epoch(1), Epoch(2), third])
    outcomes = []
    for n in range(1, steps + 1):
        before = run_with(tmp_path / str(n), [Epoch(1), Epoch(2)])
        cut_at(n, lambda before=before: before.add(third))  # type: ignore[misc]
        found = RunRecord.load(before.folder)
        assert found in (before, replace(after, folder=before.folder))
        assert found.rewound() == found
        assert len(found.weights()) > 0
        outcomes.append(len(found.epochs))
        again = found.add(third) if len(found.epochs) == 2 else found
        assert RunRecord.load(before.folder) == again == replace(after, folder=before.folder)
        again.tidy()
        assert files(again) == files(after)
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {2, 3}


def test_a_power_cut_at_any_step_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    steps = steps_of(lambda: write_atomic(path, b"old" * 1000))
    for n in range(1, steps + 1):
        write_atomic(path, b"old" * 1000)
        cut_at(n, lambda: write_atomic(path, b"new!" * 1000))
        assert path.read_bytes() in (b"old" * 1000, b"new!" * 1000)


def test_files_are_synced_before_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def noted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            calls.append(name)
            return real(*args)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noted(name, getattr(os, name)))
    write_atomic(tmp_path / "file", b"data")
    assert calls == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 0.99])
def test_a_flipped_bit_in_a_manifest_is_damage(share: float, tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(1)])
    path = record.folder / "run.json"
    flip(path, int(share * path.stat().st_size))
    with pytest.raises(Damaged, match=r"run\.json is damaged"):
        RunRecord.load(record.folder)


def test_every_flipped_bit_of_a_manifest_is_noticed(tmp_path: Path) -> None:
    path, body = tmp_path / "m.json", {"a": [1, 2.5, "x"], "b": {"c": None}}
    write_manifest(path, body)
    good = path.read_bytes()
    for place in range(len(good)):
        for bit in range(8):
            data = bytearray(good)
            data[place] ^= 1 << bit
            path.write_bytes(data)
            try:
                assert read_manifest(path) == body
            except Damaged:
                continue


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"schema": 1, "sha256": "", "body": {}}']
)
def test_what_is_no_manifest_is_damage(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_bytes(content)
    with pytest.raises(Damaged):
        read_manifest(tmp_path / "m.json")


def test_a_manifest_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    write_manifest(path, {"a": 1})
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 2}))
    with pytest.raises(Damaged):
        read_manifest(path)


def test_a_missing_manifest_is_not_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_manifest(tmp_path / "m.json")


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(1, 0.6), Epoch(2, 0.5, improved=False, ended="trained to its end, 2 epochs")])
    assert RunRecord.load(record.folder) == record == record.reload()
    assert (record.status, record.cause) == ("finished", "trained to its end, 2 epochs")
    assert record.over
    assert record.metric(MONITOR) == [0.6, 0.5]
    assert record.best_score(MONITOR) == 0.6
    assert record.seconds == 4.0
    assert record.weights() == Epoch(1).weights_bytes()


def test_the_newest_two_checkpoints_and_the_newest_two_best_weights_are_kept(tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(n, improved=n < 4) for n in (1, 2, 3, 4)])
    states = {f"epoch-000{n}-0.5000.pt" for n in (3, 4)}
    bests = {f"best-000{n}-0.5000.{kind}" for n in (2, 3) for kind in ("safetensors", "npz")}
    assert files(record) == states | bests | {"last-0004-0.5000.npz"}
    assert record.resume_path() == record.folder / "checkpoints" / "epoch-0004-0.5000.pt"


def test_a_run_that_has_ended_keeps_what_it_is_judged_by_and_no_states(tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(1), Epoch(2)]).add(Epoch(3, improved=False, ended="the end"), keep_states=False)
    bests = {f"best-000{n}-0.5000.{kind}" for n in (1, 2) for kind in ("safetensors", "npz")}
    assert files(record) == bests | {"last-0003-0.5000.npz"}
    assert record == record.reload() and record.over and record.checkpoints == ()
    assert record.weights() == Epoch(2).weights_bytes() and record.predictions_path().is_file()
    kept = run_with(tmp_path / "kept", [Epoch(1), Epoch(2)]).add(Epoch(3, ended="the end"), keep_states=True)
    assert [stored.epoch for stored in kept.checkpoints] == [3, 2]


def test_a_power_cut_at_any_step_of_the_last_epoch_leaves_a_state_or_the_end(tmp_path: Path) -> None:
    """The states go after the manifest that says that nobody goes on from them."""
    last = Epoch(3, 0.8, ended="the end")
    steps = steps_of(lambda: run_with(tmp_path / "whole", [Epoch(1), Epoch(2)]).add(last, keep_states=False))
    steps -= steps_of(lambda: run_with(tmp_path / "two", [Epoch(1), Epoch(2)]))
    ended = []
    for n in range(1, steps + 1):
        before = run_with(tmp_path / str(n), [Epoch(1), Epoch(2)])
        cut_at(n, lambda before=before: before.add(last, keep_states=False))  # type: ignore[misc]
        found = RunRecord.load(before.folder)
        ended.append(found.over)
        assert all(stored.good(found.folder) for stored in found.files())
        assert found.weights() == Epoch(3 if found.over else 2).weights_bytes()
        assert found.over or found.rewound() == before
    assert steps >= 8 and not ended[0] and ended[-1] and ended == sorted(ended)


def test_a_run_that_another_process_has_finished_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(1)]).add(Epoch(2, ended="the end"), keep_states=False)

    def never(_: RunRecord) -> Iterator[Epoch]:
        raise AssertionError("it was trained again")

    assert list(follow(record, never)) == []
    assert RunRecord.load(record.folder) == record


def test_tidy_removes_what_no_manifest_names(tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(1)])
    kept = files(record)
    for stray in ("epoch-0007-0.5000.pt", "best-0009-0.5000.safetensors", "epoch-0002-0.5000.pt.1234.tmp"):
        (record.folder / "checkpoints" / stray).write_bytes(b"stray")
    record.tidy()
    assert files(record) == kept


def test_a_damaged_newest_checkpoint_costs_one_epoch(tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(n, improved=n == 1) for n in (1, 2, 3)])
    flip(record.folder / "checkpoints" / "epoch-0003-0.5000.pt", 10)
    found = record.rewound()
    assert found.resume_path() == record.folder / "checkpoints" / "epoch-0002-0.5000.pt"
    assert len(found.epochs) == 2
    assert found.best == record.best
    assert found.weights() == Epoch(1).weights_bytes()


def test_a_damaged_newest_checkpoint_costs_one_epoch_although_that_was_the_best(tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(n, 0.5 + 0.1 * n) for n in (1, 2, 3)])
    flip(record.folder / "checkpoints" / "epoch-0003-0.8000.pt", 10)
    found = record.rewound()
    assert len(found.epochs) == 2
    assert (found.bests, found.predictions) == (record.bests[1:], record.predictions[1:])
    assert found.predictions_path().read_bytes() == b"answers 2"


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_damage_to_what_the_newest_best_epoch_left_costs_one_epoch(kind: str, tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(n, 0.5 + 0.1 * n) for n in (1, 2, 3)])
    flip(record.folder / "checkpoints" / f"best-0003-0.8000.{kind}", 3)
    found = record.rewound()
    assert (len(found.epochs), found.weights()) == (2, Epoch(2).weights_bytes())
    assert found.predictions_path().read_bytes() == b"answers 2"


def test_a_rewound_run_has_spent_the_time_of_its_epochs(tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(n, improved=n == 1) for n in (1, 2, 3)])
    flip(record.folder / "checkpoints" / "epoch-0003-0.5000.pt", 10)
    assert record.rewound().seconds == 4.0


def test_predictions_are_kept_and_rewound_with_the_best_weights(tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(1, 0.6), Epoch(2, 0.7), Epoch(3, 0.5, improved=False)])
    assert record.predictions_path().read_bytes() == b"answers 2"
    assert RunRecord.load(record.folder).predictions == record.predictions
    for name in ("epoch-0003-0.5000.pt", "epoch-0002-0.7000.pt"):
        flip(record.folder / "checkpoints" / name, 10)
    assert record.rewound().predictions == ()
    with pytest.raises(Damaged, match="best epoch's predictions of a tau=4"):
        record.rewound().predictions_path()


def test_damaged_predictions_take_the_run_back_and_are_not_handed_out(tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(1, 0.6), Epoch(2, 0.7), Epoch(3, 0.5, improved=False)])
    flip(record.predictions_path(), 3)
    with pytest.raises(Damaged, match="best epoch's predictions of a tau=4"):
        record.predictions_path()
    assert record.rewound().epochs == ()


def test_predictions_of_another_epoch_than_the_best_are_not_handed_out(tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(1, 0.6), Epoch(2, 0.7, predicts=False)])
    assert [stored.epoch for stored in record.predictions] == [1]
    with pytest.raises(Damaged, match="best epoch's predictions of a tau=4"):
        record.predictions_path()


def test_a_manifest_from_before_predictions_were_kept_is_loaded_and_gone_on_with(tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(1, 0.6, predicts=False)])
    path = record.folder / "run.json"
    body = read_manifest(path)
    del body["predictions"]
    write_manifest(path, body)
    found = RunRecord.load(record.folder).rewound()
    assert found == record
    assert found.add(Epoch(2, 0.7)).predictions_path().read_bytes() == b"answers 2"


def test_the_last_epochs_predictions_are_kept_beside_the_bests(tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(1, 0.6), Epoch(2, 0.7)])
    assert record.last_predictions_path() == record.predictions_path()
    for epoch in (3, 4):
        record = record.add(Epoch(epoch, 0.5, improved=False, ended="the end" if epoch == 4 else None))
    last = record.last_predictions_path()
    assert last is not None and last.read_bytes() == b"answers 4"
    assert record.predictions_path().read_bytes() == b"answers 2"
    assert {name for name in files(record) if name.endswith("npz")} == {
        "best-0001-0.6000.npz",
        "best-0002-0.7000.npz",
        "last-0004-0.5000.npz",
    }
    assert RunRecord.load(record.folder) == record
    flip(last, 3)
    with pytest.raises(Damaged, match="last epoch's predictions of a tau=4"):
        record.last_predictions_path()


def test_damage_to_the_last_epochs_predictions_costs_no_epoch(tmp_path: Path) -> None:
    """The next epoch's take their place; what is damaged is named no more."""
    record = run_with(tmp_path, [Epoch(1, 0.6), Epoch(2, 0.5, improved=False)])
    assert record.rewound() == record
    assert record.last is not None
    flip(record.folder / record.last.name, 3)
    found = record.rewound()
    assert (len(found.epochs), found.last, found.last_predictions_path()) == (2, None, None)
    after = found.add(Epoch(3, 0.5, improved=False)).last_predictions_path()
    assert after is not None and after.read_bytes() == b"answers 3"


def test_a_rewound_run_has_no_predictions_of_an_epoch_that_is_trained_again(tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(1, 0.6), Epoch(2, 0.5, improved=False), Epoch(3, 0.4, improved=False)])
    flip(record.folder / "checkpoints" / "epoch-0003-0.4000.pt", 10)
    assert (len(record.rewound().epochs), record.rewound().last) == (2, None)


def test_a_manifest_from_before_the_last_epochs_were_kept_is_loaded_and_gone_on_with(tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(1, 0.6), Epoch(2, 0.5, improved=False)])
    path = record.folder / "run.json"
    body = read_manifest(path)
    del body["last"]
    write_manifest(path, body)
    found = RunRecord.load(record.folder)
    assert (found.last_predictions_path(), found.rewound()) == (None, found)
    assert found.predictions_path().read_bytes() == b"answers 1"
    after = found.add(Epoch(3, 0.5, improved=False)).last_predictions_path()
    assert after is not None and after.read_bytes() == b"answers 3"


def test_a_run_without_validation_has_neither_predictions_nor_a_score_in_its_names(tmp_path: Path) -> None:
    class Blind(Epoch):
        def __post_init__(self) -> None:
            self.metrics.clear()

    record = run_with(tmp_path, [Blind(1, predicts=False)])
    assert files(record) == {"epoch-0001.pt", "best-0001.safetensors"}
    assert record.rewound() == record


@pytest.mark.parametrize("lost", [["epoch-0002-0.5000.pt", "epoch-0003-0.5000.pt"], ["best-0001-0.5000.safetensors"]])
def test_without_a_good_checkpoint_or_its_best_weights_a_run_starts_anew(lost: list[str], tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(n, improved=n == 1) for n in (1, 2, 3)])
    for name in lost:
        (record.folder / "checkpoints" / name).unlink()
    found = record.rewound()
    assert (found.epochs, found.checkpoints, found.best, found.resume_path()) == ((), (), None, None)


def test_an_undamaged_run_is_not_rewound(tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(1), Epoch(2, improved=False)])
    assert record.rewound() == record


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_damaged_best_weights_are_not_handed_out(damage: str, tmp_path: Path) -> None:
    record = run_with(tmp_path, [Epoch(1)])
    path = record.folder / "checkpoints" / "best-0001-0.5000.safetensors"
    if damage == "flipped":
        flip(path, 3)
    else:
        path.unlink()
    with pytest.raises(Damaged, match="best weights of a tau=4"):
        record.weights()


def course(first: int, last: int) -> Iterator[Epoch]:
    for n in range(first, last + 1):
        yield Epoch(n, 0.5 + 0.1 * n, ended="trained to its end, 3 epochs" if n == 3 else None)


def test_following_a_run_writes_every_epoch_before_it_is_told(tmp_path: Path) -> None:
    told = 0
    for record in follow(new_run(tmp_path), lambda begun: course(1, 3)):
        told += 1
        assert len(RunRecord.load(record.folder).epochs) == told
    assert told == 3
    assert record.status == "finished"


def test_following_goes_on_from_the_newest_checkpoint(tmp_path: Path) -> None:
    steps = follow(new_run(tmp_path), lambda begun: course(1, 3))
    next(steps)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    asked: list[Path | None] = []

    def rest(begun: RunRecord) -> Iterator[Epoch]:
        asked.append(begun.resume_path())
        return course(3, 3)

    (record,) = follow(RunRecord.load(tmp_path / "run"), rest)
    assert asked == [tmp_path / "run" / "checkpoints" / "epoch-0002-0.7000.pt"]
    assert record.metric(MONITOR) == pytest.approx([0.6, 0.7, 0.8])
    assert record.seconds == 6.0


@pytest.mark.parametrize(
    ("error", "cause"), [(RunFailed("the loss is nan"), "the loss is nan"), (ValueError("odd"), "ValueError: odd")]
)
def test_a_failure_is_written_with_its_cause_and_raised(error: Exception, cause: str, tmp_path: Path) -> None:
    def failing(begun: RunRecord) -> Iterator[Epoch]:
        yield Epoch(1)
        raise error

    with pytest.raises(type(error)):
        list(follow(new_run(tmp_path), failing))
    record = RunRecord.load(tmp_path / "run")
    assert (record.status, record.cause, len(record.epochs)) == ("failed", cause, 1)
    assert record.over


def test_an_interruption_is_no_failure(tmp_path: Path) -> None:
    def interrupted(begun: RunRecord) -> Iterator[Epoch]:
        yield Epoch(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(follow(new_run(tmp_path), interrupted))
    assert RunRecord.load(tmp_path / "run").status == "running"


def test_a_run_is_paused_at_its_rung_and_goes_on_from_there(tmp_path: Path) -> None:
    *_, record = follow(new_run(tmp_path), lambda begun: course(1, 3), until=2)
    assert (record.status, len(record.epochs), record.over) == ("paused", 2, False)
    *_, record = follow(record, lambda begun: course(3, 3), until=None)
    assert (record.status, len(record.epochs)) == ("finished", 3)


def test_a_run_that_ends_at_its_rung_is_finished(tmp_path: Path) -> None:
    *_, record = follow(new_run(tmp_path), lambda begun: course(1, 3), until=3)
    assert record.status == "finished"


def test_out_of_memory_is_tried_once_with_half_as_many_images_and_then_fails(tmp_path: Path) -> None:
    def full(begun: RunRecord) -> Iterator[Epoch]:
        if not begun.epochs:
            yield Epoch(1)
        raise OutOfMemory("out of memory on the GPU")

    *_, record = follow(new_run(tmp_path), full)
    assert (record.status, record.micro_batch, len(record.epochs)) == ("waiting", 16, 1)
    assert record.cause == "out of memory on the GPU; tried again with 16 images at once"
    with pytest.raises(OutOfMemory):
        list(follow(record, full))
    record = record.reload()
    assert (record.status, record.micro_batch) == ("failed", 16)
    assert record.cause == "out of memory on the GPU, with 16 images at once"


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "half"),
    [(32, None, 16), (32, 8, 4), (5, None, 3), (3, None, None), (7, 4, None), (8, 4, 2), (2, None, None)],
)
def test_half_as_many_images(tmp_path: Path, batch_size: int, micro_batch: int | None, half: int | None) -> None:
    config = {"epochs": 1, "batch_size": batch_size, "micro_batch": micro_batch}
    smaller = replace(new_run(tmp_path), config=config).smaller()
    assert (smaller.micro_batch if smaller else None) == half


def test_a_run_whose_batches_cannot_be_cut_fails_by_the_setting_that_forbids_it(tmp_path: Path) -> None:
    def full(begun: RunRecord) -> Iterator[Epoch]:
        raise OutOfMemory("out of memory on the GPU")
        yield

    record = replace(new_run(tmp_path), batchwise=("kd.intra",)).save()
    with pytest.raises(OutOfMemory):
        list(follow(record.reload(), full))
    record = record.reload()
    assert (record.status, record.micro_batch, record.halved) == ("failed", None, False)
    assert record.cause == (
        "out of memory on the GPU, with 32 images at once; kd.intra compares all images of a batch, so that it cannot "
        "be cut"
    )


def test_a_lost_worker_is_replaced_until_it_happens_three_times_without_an_epoch(tmp_path: Path) -> None:
    record = new_run(tmp_path)
    for _ in range(2):
        record = record.abandoned()
        assert record.status == "waiting"
    record = record.add(Epoch(1))
    assert record.lost == 0
    for _ in range(3):
        record = record.abandoned()
    assert (record.status, record.cause) == ("failed", "its worker was lost 3 times in epoch 2")


def test_a_full_disk_is_not_the_runs_fault(tmp_path: Path) -> None:
    def full(begun: RunRecord) -> Iterator[Epoch]:
        yield Epoch(1)
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    with pytest.raises(OSError, match="No space"):
        list(follow(new_run(tmp_path), full))
    assert RunRecord.load(tmp_path / "run").status == "running"


def test_a_write_that_fails_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # as write and fsync have it: without a name

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as refused:
        write_atomic(tmp_path / "run.json", b"new")
    assert refused.value.filename == str(tmp_path / "run.json")
    assert list(tmp_path.iterdir()) == []


def test_a_clock_that_was_set_back_makes_no_run_end_before_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, record = follow(new_run(tmp_path), lambda begun: course(1, 2))
    monkeypatch.setattr(time, "time", lambda: record.started - 3600)
    *_, ended = follow(record, lambda begun: course(3, 3))
    assert ended.started == record.started
    assert ended.ended == ended.started + ended.seconds


def test_the_second_driver_is_told_who_the_first_is(tmp_path: Path) -> None:
    with (
        alone(tmp_path, "study 's'"),
        pytest.raises(BadInput, match=rf"study 's' is being run by process {os.getpid()} on \S+ since \d\d:\d\d;"),
        alone(tmp_path, "study 's'"),
    ):
        pass
    with alone(tmp_path, "study 's'"):
        pass


def test_who_looks_keeps_nobody_out(tmp_path: Path) -> None:
    """`status` in a loop beside a start; who holds it is named meanwhile, and nobody is where nobody does."""
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            held_by(tmp_path)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(200):
            with alone(tmp_path, "study 's'", shown=True):
                assert held_by(tmp_path).startswith(f"process {os.getpid()} on ")
            assert held_by(tmp_path) == ""
    finally:
        over.set()
        for looker in lookers:
            looker.join()


def test_a_study_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    study = StudyRecord(tmp_path, "s", "why?", "m:f", MONITOR, {"metric": MONITOR}, ("a", "b"), teacher="t")
    study.save()
    assert StudyRecord.load(tmp_path) == study
    assert study.trial_folder("a") == tmp_path / "trials" / "a"


@pytest.mark.parametrize("value", [{"b": 1, "a": [1.5, None]}, [], "x", 3])
def test_a_digest_does_not_depend_on_the_order_of_keys(value: object) -> None:
    mixed = {"a": [1.5, None], "b": 1} if isinstance(value, dict) else value
    assert storage.digest(value) == storage.digest(mixed)
    assert storage.digest(value) != storage.digest([value])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Damaged("x is damaged: mend it"), "x is damaged: mend it"),
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (KeyError(), "KeyError"),
    ],
)
def test_the_cause_of_any_exception_is_one_line(error: Exception, said: str) -> None:
    assert cause_of(error) == said

"""What can be given back of a study's disk, where a study stands, and what `verify` finds when somebody broke it."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from xlite_search import disk
from xlite_search.config import RunConfig, run_key
from xlite_search.records import RunRecord, Status
from xlite_search.results.status import standing
from xlite_search.search.asha import Decision
from xlite_search.search.journal import Journal
from xlite_search.search.verify import verify
from xlite_search.storage import alone
from xlite_search.study_record import StudyRecord
from xlite_search.tracking import store
from xlite_search.tracking.recorder import Recorder

METRIC = "val/auroc_macro"


@dataclass(frozen=True)
class Epoch:
    """What a record needs to know of an epoch; 1,000 bytes of state, 100 of weights, 10 of predictions."""

    epoch: int
    score: float
    ended: str | None = None
    improved: bool = True
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.metrics.update({METRIC: self.score, "train/loss": 1.0, "time/epoch_s": 1.0})

    def checkpoint_bytes(self) -> bytes:
        return bytes(1000)

    def weights_bytes(self) -> bytes:
        return bytes(100)

    def predictions_bytes(self) -> bytes:
        return bytes(10)


@pytest.fixture
def study(tiny: RunConfig, runs: Path) -> StudyRecord:
    """A winner, a loser at rung 1, one that failed, and one that is interrupted; MLflow was never asked."""
    found = StudyRecord(runs / "studies" / "s", "s", "?", "m:f", METRIC, {}, ())
    keys = []
    courses: list[tuple[str, list[float], Status]] = [
        ("winner", [0.6, 0.7, 0.8], "finished"),
        ("loser", [0.5], "stopped"),
        ("broken", [0.55, 0.6], "failed"),
        ("open", [0.58, 0.6], "waiting"),
    ]
    for seed, (label, scores, status) in enumerate(courses):
        config = tiny.with_settings({"seed": seed}).resolved()
        key = run_key(config)
        record = RunRecord(found.trial_folder(key), key, "trial", label, {}, config.model_dump(mode="json"), started=1)
        for epoch, score in enumerate(scores, start=1):
            record = record.add(Epoch(epoch, score, "the end" if epoch == 3 else None))
        replace(record, status=status, ended=9.0).save()
        keys.append(key)
    decision = Decision(1, dict(zip(keys, (0.6, 0.5, 0.55, 0.58), strict=True)), 4, (keys[0], keys[3], keys[2]), 0.55)
    found = replace(found, trials=tuple(keys)).save()
    Journal(found.folder).append(decision)
    return found


def by_label(study: StudyRecord, label: str) -> RunRecord:
    return next(run for run in study.runs() if run.label == label)


def names(run: RunRecord) -> list[str]:
    return sorted(path.suffix for path in (run.folder / "checkpoints").iterdir())


def test_nothing_that_somebody_may_go_on_with_is_given_back(study: StudyRecord) -> None:
    # states: 2 + 1 + 2 + 2; weights and predictions: 2 + 1 + 2 + 2
    assert disk.checkpoint_bytes(study.runs()) == 7 * 1000 + 7 * 110
    disk.free(study.runs())
    assert names(by_label(study, "winner")) == [".npz", ".safetensors"]
    assert names(by_label(study, "loser")) == names(by_label(study, "broken")) == []
    assert names(by_label(study, "open")) == [".npz", ".npz", ".pt", ".pt", ".safetensors", ".safetensors"]
    assert by_label(study, "winner").weights() == bytes(100)
    assert by_label(study, "loser").best_score(METRIC) == 0.5
    assert verify(study) == []
    assert disk.free(study.runs()) == []


def test_the_predictions_of_the_best_and_of_the_last_epoch_stay(study: StudyRecord, tiny: RunConfig) -> None:
    """A comparison that corrects for the choice of the epoch needs both."""
    winner = by_label(study, "winner")
    shutil.rmtree(winner.folder)
    record = replace(winner, epochs=(), checkpoints=(), bests=(), predictions=(), last=None, status="running", ended=0)
    for epoch, score in enumerate([0.6, 0.7, 0.6], start=1):
        record = record.add(Epoch(epoch, score, "the end" if epoch == 3 else None, improved=epoch < 3))
    before = {path.name for path in (record.folder / "checkpoints").iterdir()}
    disk.free(study.runs())
    kept = {path.name for path in (record.folder / "checkpoints").iterdir()}
    assert kept == {"best-0002-0.7000.safetensors", "best-0002-0.7000.npz", "last-0003-0.6000.npz"}
    assert kept < before
    assert verify(study) == []
    _flip(record.folder / "checkpoints" / "last-0003-0.6000.npz")
    (told,) = verify(study)
    assert told.endswith("last-0003-0.6000.npz is missing, or not what was written")


def test_what_a_power_cut_left_of_a_run_that_is_over_is_given_back_too(study: StudyRecord) -> None:
    winner, open_one = by_label(study, "winner"), by_label(study, "open")
    for run in (winner, open_one):
        (run.folder / "checkpoints" / "epoch-0009-0.1000.pt").write_bytes(bytes(10))
    disk.free(study.runs(), 10**9)
    assert not (winner.folder / "checkpoints" / "epoch-0009-0.1000.pt").exists()
    assert (open_one.folder / "checkpoints" / "epoch-0009-0.1000.pt").exists(), "somebody may be at it"


@pytest.mark.parametrize(
    ("budget", "winners", "losers"),
    [
        (7770, 6, 3),  # it fits
        (6770, 6, 2),  # one state too many: the loser's
        (4770, 6, 2),  # all of the losers' states
        (4440, 6, 0),  # and their weights and predictions
        (2500, 4, 0),  # and the states of the finished
    ],
)
def test_the_losers_go_first_and_no_more_than_the_budget_asks_for(
    study: StudyRecord, budget: int, winners: int, losers: int
) -> None:
    disk.free(study.runs(), budget)
    assert len(names(by_label(study, "winner"))) == winners
    assert len(names(by_label(study, "loser"))) == losers
    assert disk.checkpoint_bytes(study.runs()) <= budget


def test_where_a_study_stands(study: StudyRecord) -> None:
    found = standing("s")
    assert found.line() == (
        "s: 1 finished, 1 stopped, 1 failed, 1 waiting; 8 of 12 epochs; nobody runs it; 0.0 MB of checkpoints"
    )
    with alone(study.folder, "study 's'", shown=True):
        assert standing("s").owner.startswith("process ")


def test_a_study_that_is_whole_is_said_to_be(study: StudyRecord) -> None:
    assert verify(study) == []


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _checkpoint(study: StudyRecord) -> None:
    run = by_label(study, "open")
    _flip(run.folder / run.checkpoints[0].name)


def _weights(study: StudyRecord) -> None:
    run = by_label(study, "winner")
    (run.folder / run.bests[0].name).unlink()


def _manifest(study: StudyRecord) -> None:
    _flip(by_label(study, "winner").folder / "run.json")


def _record(study: StudyRecord) -> None:
    (by_label(study, "winner").folder / "run.json").unlink()


def _journal(study: StudyRecord) -> None:
    _flip(study.folder / "journal.jsonl")


def _score(study: StudyRecord) -> None:
    run = by_label(study, "loser")
    replace(run, epochs=({**run.epochs[0], METRIC: 0.9},)).save()


def _status(study: StudyRecord) -> None:
    replace(by_label(study, "open"), status="running").save()


def _config(study: StudyRecord) -> None:
    run = by_label(study, "open")
    replace(run, config={**run.config, "batch_size": 8}).save()


def _promoted(study: StudyRecord) -> None:
    replace(by_label(study, "winner"), status="stopped", epochs=by_label(study, "winner").epochs[:1]).save()


@pytest.mark.parametrize(
    ("hurt", "sentence"),
    [
        (_checkpoint, "is missing, or not what was written"),
        (_weights, "is missing, or not what was written"),
        (_manifest, "is damaged: its content does not match its checksum"),
        (_record, "is gone; `run` the study again"),
        (_journal, "journal.jsonl, line 1 is damaged"),
        (_score, "loser was judged at rung 1 by val/auroc_macro 0.5, and its record has 0.9"),
        (_status, "open is said to be running, and nobody trains it"),
        (_config, "its key would be"),
        (_promoted, "winner was kept at rung 1, and its record says that it was stopped there"),
    ],
)
def test_what_is_broken_is_named(study: StudyRecord, hurt: object, sentence: str) -> None:
    hurt(study)  # type: ignore[operator]
    assert any(sentence in line for line in verify(study)), verify(study)


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("delete from runs where name = 'winner in s'", "MLflow has 0 runs of winner"),
        ("update runs set status = 'RUNNING' where name = 'winner in s'", "winner is RUNNING, and it is FINISHED"),
        ("delete from metrics where step = 2 and key = 'train/loss'", "at epochs [1, 3], and its record at [1, 2, 3]"),
    ],
)
def test_mlflow_that_says_otherwise_is_named(study: StudyRecord, statement: str, sentence: str) -> None:
    with Recorder("s", parent={}) as recorder:
        for run in study.runs():
            recorder.sync(run)
    assert verify(study) == []
    with sqlite3.connect(store.database()) as connection:
        connection.execute(statement)
    connection.close()
    assert any(sentence in line for line in verify(study)), verify(study)


def test_a_database_that_had_the_study_and_is_gone_is_missed(study: StudyRecord) -> None:
    assert any("mlflow.db is gone" in line for line in verify(replace(study, tracked=True)))


def test_every_status_is_shown(study: StudyRecord, capsys: pytest.CaptureFixture[str]) -> None:
    from xlite_search.results.status import show

    statuses: list[Status] = ["waiting", "running", "paused", "finished", "stopped", "failed"]
    for status in statuses:
        replace(by_label(study, "open"), status=status).save()
        show(standing("s"))
        assert f"open    {status:8}" in capsys.readouterr().out

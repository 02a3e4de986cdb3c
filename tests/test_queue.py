"""The queue, asked as Ray Tune asks it, with workers that are written down here: no Ray."""

from __future__ import annotations

import errno
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from power import cut_at, steps_of
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.utils.callback import _create_default_callbacks

from xlite_search.errors import Damaged, Interrupted
from xlite_search.records import RunRecord, Status
from xlite_search.search.asha import ASHA, Decision
from xlite_search.search.engine import Shutdown
from xlite_search.search.journal import Journal
from xlite_search.search.pareto import ParetoStop
from xlite_search.search.queue import Queue, _Scheduler, _Silent
from xlite_search.search.scheduling import Scheduler
from xlite_search.search.worker import Job, _epochs
from xlite_search.study_record import StudyRecord

METRIC = "val/auroc_macro"
CONFIG: dict[str, Any] = {"epochs": 4, "monitor": METRIC, "batch_size": 8}


@pytest.fixture
def study(tmp_path: Path) -> StudyRecord:
    """Three trials, none begun."""
    found = StudyRecord(tmp_path, "s", "?", "m:f", METRIC, {}, ("a", "b", "c")).save()
    for key in found.trials:
        RunRecord(found.trial_folder(key), key, "trial", key, {}, dict(CONFIG)).save()
    return found


class Driver:
    """Ray's part: asks for activations, and says how they ended."""

    def __init__(self, study: StudyRecord, scheduler: Scheduler | None = None, *, workers: int = 0) -> None:
        self.told: list[tuple[str, Status]] = []
        self.shutdown = Shutdown()
        self.study = study
        self.queue = Queue(study, scheduler, Path(), self._tell, self.shutdown, workers)
        self.queue.ending.close()  # its clock would go on in other tests
        self.given = 0

    def _tell(self, record: RunRecord) -> None:
        self.told.append((record.key, record.status))

    def ask(self) -> tuple[str, dict[str, Any]] | str | None:
        """The trial's id and its job; or that there is none now, or none any more."""
        self.given += 1
        found = self.queue.suggest(str(self.given))
        return (str(self.given), found["job"]) if isinstance(found, dict) else found

    def job(self) -> tuple[str, dict[str, Any]]:
        found = self.ask()
        assert isinstance(found, tuple)
        return found

    def train(
        self, job: dict[str, Any], score: float, *, until: int | None = None, status: Status = "paused", s: float = 0.0
    ) -> None:
        """What a worker leaves in the record, whose epochs take `s` seconds."""
        record = RunRecord.load(Path(job["folder"]))
        last = until or job["until"] or CONFIG["epochs"]
        epochs = record.epochs + tuple({METRIC: score, "time/epoch_s": s} for _ in range(len(record.epochs), last))
        replace(record, epochs=epochs, status="finished" if last == 4 else status, started=1.0).save()

    def end(self, trial: str, *, error: bool = False) -> None:
        self.queue.on_trial_complete(trial, {}, error=error)

    def status(self) -> dict[str, tuple[str, int]]:
        return {run.key: (run.status, len(run.epochs)) for run in self.study.runs()}


def test_without_a_scheduler_every_run_is_handed_out_once_to_its_end(study: StudyRecord) -> None:
    driver = Driver(study)
    jobs = [driver.job() for _ in range(3)]
    assert [job["key"] for _, job in jobs] == ["a", "b", "c"]
    assert [job["until"] for _, job in jobs] == [None] * 3
    assert driver.ask() is None
    for trial, job in jobs:
        driver.train(job, 0.5)
        driver.end(trial)
    assert driver.ask() == "FINISHED"
    assert driver.told == [(key, "finished") for key in "abc"]


@pytest.mark.parametrize(
    ("workers", "seconds", "jobs"),
    [
        # 1.5 epochs of the middle one are what the first worker has no time for
        (2, 60.0, [("b", 3), ("a", None), ("c", None), ("b", None)]),
        (2, 0.1, [("a", None), ("b", None), ("c", None)]),
        (3, 60.0, [("a", None), ("b", None), ("c", None)]),
        (0, 60.0, [("a", None), ("b", None), ("c", None)]),
    ],
)
def test_who_would_train_alone_at_the_end_is_cut(
    study: StudyRecord, workers: int, seconds: float, jobs: list[tuple[str, int | None]]
) -> None:
    """From the first rung on, where every run has told how long it takes; all train as many epochs as without."""
    driver = Driver(study, ASHA(grace=1, reduction=1.1), workers=workers)
    for _ in range(3):
        trial, job = driver.job()
        assert job["until"] == 1
        driver.train(job, 0.5, s=seconds)
        driver.end(trial)
    driver.queue.scheduler = None  # who stays is not what this is about
    given, ended = list[tuple[str, int | None]](), list[str]()
    while isinstance(asked := driver.ask(), tuple):
        trial, job = asked
        given.append((job["key"], job["until"]))
        driver.train(job, 0.5, s=seconds)
        ended.append(trial)
        if len(ended) >= max(workers, 1):
            driver.end(ended.pop(0))
    assert given == jobs


def test_who_waits_at_a_rung_takes_no_place_and_the_best_go_on(study: StudyRecord) -> None:
    driver = Driver(study, ASHA(grace=2, reduction=3))  # 3/3 * (1 + 1/6) = 1.2: one is kept
    for _ in range(3):
        trial, job = driver.job()
        assert job["until"] == 2
        driver.train(job, {"a": 0.6, "b": 0.7, "c": 0.5}[job["key"]])
        driver.end(trial)
    assert driver.status() == {"a": ("stopped", 2), "b": ("paused", 2), "c": ("stopped", 2)}
    assert len(Journal(study.folder).decisions) == 1
    trial, job = driver.job()
    assert (job["key"], job["until"]) == ("b", None)
    driver.train(job, 0.8)
    driver.end(trial)
    assert driver.ask() == "FINISHED"
    assert RunRecord.load(study.trial_folder("a")).cause == (
        "stopped at rung 2: val/auroc_macro 0.6000 is behind the cut of 0.7000 among 3 trials"
    )


def test_a_decision_that_was_journaled_and_not_acted_on_is_acted_on(study: StudyRecord) -> None:
    driver = Driver(study, ASHA(grace=2, reduction=3))
    for score in (0.6, 0.7, 0.5):
        trial, job = driver.job()
        driver.train(job, score)
        driver.end(trial)
    for key in "ac":  # as a kill between the journal and the records leaves it
        replace(RunRecord.load(study.trial_folder(key)), status="paused", cause="").save()
    again = Driver(study, ASHA(grace=2, reduction=3))
    assert again.status() == {"a": ("stopped", 2), "b": ("paused", 2), "c": ("stopped", 2)}
    assert len(Journal(study.folder).decisions) == 1


def test_a_lost_worker_is_replaced_and_three_in_a_row_are_the_runs_fault(study: StudyRecord) -> None:
    driver = Driver(study)
    for attempt in range(3):
        trial, job = driver.job()
        assert job["key"] == "a"
        driver.train(job, 0.5, until=1, status="running")
        driver.end(trial, error=True)
        assert driver.status()["a"] == ("waiting" if attempt < 2 else "failed", 1)
    assert driver.job()[1]["key"] == "b"


def test_a_worker_that_dies_before_it_begins_is_not_replaced_for_ever(study: StudyRecord) -> None:
    driver = Driver(study)
    for _ in range(3):
        driver.end(driver.job()[0], error=True)
    assert driver.status()["a"] == ("failed", 0)


def test_a_worker_that_was_ended_for_memory_is_tried_again_with_half_the_images_once(study: StudyRecord) -> None:
    driver = Driver(study)
    for half, status in ((4, "waiting"), (4, "failed")):
        trial, job = driver.job()
        driver.train(job, 0.5, until=1, status="running")
        driver.queue.starved.add(trial)
        driver.end(trial, error=True)
        record = RunRecord.load(study.trial_folder("a"))
        assert (record.status, record.micro_batch) == (status, half)
    assert record.cause == "out of memory on the host, with 4 images at once"


def test_a_run_that_cannot_be_cut_is_not_tried_again_when_the_hosts_memory_ran_out(study: StudyRecord) -> None:
    driver = Driver(study)
    trial, job = driver.job()
    replace(RunRecord.load(study.trial_folder("a")), batchwise=("kd.intra",)).save()
    driver.train(job, 0.5, until=1, status="running")
    driver.queue.starved.add(trial)
    driver.end(trial, error=True)
    record = RunRecord.load(study.trial_folder("a"))
    assert (record.status, record.micro_batch) == ("failed", None)
    assert "kd.intra" in record.cause


def test_who_is_asked_to_leave_hands_out_nothing_and_loses_nobody(study: StudyRecord) -> None:
    driver = Driver(study)
    trial, job = driver.job()
    driver.train(job, 0.5, until=1, status="running")
    driver.shutdown.requested = True
    driver.end(trial)
    assert driver.ask() == "FINISHED"
    record = RunRecord.load(study.trial_folder("a"))
    assert (record.status, record.cause, record.lost) == ("waiting", "interrupted", 0)


class Tune:
    """Ray's controller: trials by status, and who was stopped."""

    def __init__(self, **trials: str) -> None:
        self.trials = [SimpleNamespace(name=name, status=status) for name, status in trials.items()]
        self.stopped: list[str] = []

    def get_trials(self) -> list[SimpleNamespace]:
        return self.trials

    def stop_trial(self, trial: SimpleNamespace) -> None:
        self.stopped.append(trial.name)


def test_who_was_handed_out_and_waits_for_a_place_gets_none_after_a_signal(study: StudyRecord) -> None:
    driver = Driver(study)
    tune, scheduler = Tune(a="RUNNING", b="PENDING", c="PENDING"), _Scheduler(driver.queue)
    assert scheduler.choose_trial_to_run(tune).name == "b"
    driver.shutdown.requested = True
    assert scheduler.choose_trial_to_run(tune) is None
    assert tune.stopped == ["b", "c"]


def test_ray_says_nothing_of_who_is_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside a reporter that is given, Ray makes none of its own; its own tells who is stopped after a signal."""
    (reporter,) = (
        found
        for found in _create_default_callbacks([_Silent()], air_verbosity=None)
        if isinstance(found, TrialProgressCallback)
    )
    reporter.on_trial_complete(1, [], Mock(last_result={}))
    assert capsys.readouterr() == ("", "")


def test_a_worker_that_is_asked_after_a_signal_begins_nothing(study: StudyRecord) -> None:
    """Its job was on the way when the signal came."""
    driver, begun = Driver(study), list[RunRecord]()

    def search() -> None:
        with driver.shutdown.stop_after_epoch(study.folder / "stopping"):
            _, job = driver.job()
            driver.shutdown.on_signal(signal.SIGINT, None)
            begun.extend(_epochs(Job(**job | {"trainable": "trainables.baseline:baseline"})))  # type: ignore[typeddict-item]

    with pytest.raises(Interrupted):
        search()
    assert begun == []
    assert driver.status()["a"] == ("waiting", 0)
    assert not (study.folder / "stopping").exists()


def test_after_the_last_it_is_said_what_is_waited_for(study: StudyRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, begun = Driver(study), list[int]()
    monkeypatch.setattr(driver.queue.ending, "begin", lambda: begun.append(len(driver.queue.active)))
    for trial, job in [driver.job() for _ in range(3)]:
        assert begun == []
        driver.train(job, 0.5)
        driver.end(trial)
    assert begun == [0]


def test_a_full_disk_ends_the_search_and_is_no_runs_fault(study: StudyRecord) -> None:
    driver = Driver(study)
    trial, job = driver.job()
    driver.train(job, 0.5, until=1, status="running")
    driver.queue.on_trial_complete(trial, {"trouble": "the disk is full"})  # Ray tells no more of a last result
    assert driver.ask() == "FINISHED"
    assert isinstance(driver.queue.trouble, Damaged)
    assert driver.status()["a"] == ("waiting", 1)


def test_a_journal_that_cannot_be_written_ends_the_search(study: StudyRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    driver = Driver(study, ASHA(grace=2, reduction=3))
    monkeypatch.setattr(Journal, "append", full)
    for _ in range(3):
        trial, job = driver.job()
        driver.train(job, 0.5)
        driver.end(trial)
    assert isinstance(driver.queue.trouble, OSError)
    assert {status for status, _ in driver.status().values()} == {"paused"}
    assert driver.ask() == "FINISHED"


def test_a_second_chance_with_fewer_images_is_handed_out_at_once(study: StudyRecord) -> None:
    driver = Driver(study)
    trial, job = driver.job()
    record = RunRecord.load(Path(job["folder"])).smaller()
    assert record is not None
    replace(record, status="waiting").save()
    driver.end(trial)
    assert driver.job()[1]["key"] == "a"
    assert driver.status()["a"] == ("waiting", 0)


HALVING = ASHA(grace=1, reduction=2)


def searched(study: StudyRecord, scheduler: Scheduler = HALVING) -> tuple[dict[str, tuple[str, int]], list[Decision]]:
    """The search from what is on the disk to its end: the outcome of every run, and every decision."""
    driver = Driver(study, scheduler)
    while isinstance(found := driver.ask(), tuple):
        trial, job = found
        driver.train(job, {"a": 0.6, "b": 0.7, "c": 0.5}[job["key"]])
        driver.end(trial)
    assert driver.queue.trouble is None
    return driver.status(), Journal(study.folder).decisions


def test_who_is_dominated_at_equal_cost_is_stopped_and_the_cheapest_goes_on(study: StudyRecord) -> None:
    """Scores do not change, so that nothing can be caught up but the slack."""
    study = with_sizes(study)
    status, (first, second) = searched(study, ParetoStop())
    assert status == {"a": ("finished", 4), "b": ("finished", 4), "c": ("stopped", 2)}
    assert (first.rung, first.kept, second.rung, second.kept) == (2, ("a", "b"), 3, ("a", "b"))
    assert RunRecord.load(study.trial_folder("c")).cause == (
        "stopped at rung 2: dominated by b at 2,000 parameters (its own 2,000): val/auroc_macro 0.5000 is 0.2000 "
        "behind, more than the 0.0020 that it may catch up"
    )


def with_sizes(study: StudyRecord) -> StudyRecord:
    """One that minimizes parameters; b and c have as many, a has fewer."""
    for run in study.runs():
        replace(run, facts={"model/parameters": {"a": 1000.0}.get(run.key, 2000.0)}).save()
    return replace(study, minimize=("model/parameters",)).save()


@pytest.mark.parametrize(
    ("scheduler", "status", "kept"),
    [
        (HALVING, {"a": ("stopped", 2), "b": ("finished", 4), "c": ("stopped", 1)}, [("b", "a"), ("b",)]),
        (
            ParetoStop(),
            {"a": ("finished", 4), "b": ("finished", 4), "c": ("stopped", 2)},
            [("a", "b"), ("a", "b")],
        ),
    ],
    ids=["asha", "pareto"],
)
def test_a_kill_at_every_step_changes_no_decision(
    study: StudyRecord, tmp_path: Path, scheduler: Scheduler, status: dict[str, tuple[str, int]], kept: list[Any]
) -> None:
    """At every write, fsync, rename and removal of a whole search, the workers' among them."""
    study = with_sizes(study)

    def copy(name: str) -> StudyRecord:
        shutil.copytree(study.folder, tmp_path.with_name(f"{tmp_path.name}-{name}"))
        return StudyRecord.load(tmp_path.with_name(f"{tmp_path.name}-{name}"))

    whole = searched(copy("whole"), scheduler)
    assert whole[0] == status
    assert [decision.kept for decision in whole[1]] == kept
    once = copy("once")
    steps = steps_of(lambda: searched(once, scheduler))
    assert steps > 20
    for step in range(1, steps + 1):
        again = copy(f"cut{step}")
        cut_at(step, lambda: searched(again, scheduler))  # noqa: B023
        assert searched(again, scheduler) == whole, f"step {step} of {steps}"

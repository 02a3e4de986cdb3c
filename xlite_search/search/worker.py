"""Worker: what a Ray process does with a job.

A job says what to run and where things are, as strings; workers are reused, so each is told everything every time. The
worker drives the trainable's generator and writes the record; to the driver it says only that there is news.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, TypedDict

import torch
from ray import tune

from xlite_search import places, power, progress
from xlite_search.data.dataset import open_data
from xlite_search.distill import teacher_logits
from xlite_search.errors import cause_of
from xlite_search.execution import drive, release_memory
from xlite_search.machine import Machine, device, this_machine
from xlite_search.records import RunRecord
from xlite_search.spec import parse
from xlite_search.storage import FULL, alone
from xlite_search.trainable import Trainable, config_class, config_named, trainable_at

WORKER = "worker.lock"
#: part of a shared GPU's memory that its processes take beside torch's allocator: CUDA's own, a display
BESIDE = 0.05


class Job(TypedDict):
    """`root` is the project's folder, where trainables are; `places` is JSON. The run's config is in its record.

    `until` is the epoch after which the run is paused; None: it goes to its end. Where there is a file `stop`, nothing
    begins any more; empty: there never is.
    """

    key: str
    folder: str
    trainable: str
    places: str
    root: str
    until: int | None
    stop: str


def job_for(record: RunRecord, trainable: str, root: Path, until: int | None = None, stop: Path | None = None) -> Job:
    return Job(
        key=record.key,
        folder=str(record.folder),
        trainable=trainable,
        places=json.dumps(places.environment()),
        root=str(root),
        until=until,
        stop=str(stop or ""),
    )


class Activation(tune.Trainable):  # type: ignore[misc]
    """A Tune trial: a run from where it stands to its next rung, or to its end. A step is an epoch; it says that there
    is news, and no more.

    A failure is news like any other, and the record tells it; to Ray only a worker that was lost is an error. (A class,
    because Tune looks after a function by a thread and a queue that it polls, at some tenths of a second a trial.)
    """

    over = True  # nothing has begun

    def setup(self, config: dict[str, Job]) -> None:
        gc.freeze()  # what is there now stays: modules, most of it. It need not be looked through after every trial
        job = config["job"]
        _share(_entered(job).gpus_per_trial)
        self.folder, self.until, self.epochs, self.over = Path(job["folder"]), job["until"], _epochs(job), False

    def step(self) -> dict[str, Any]:
        try:
            record = next(self.epochs, None)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL:
                trouble = f"{error.filename}: {error.strerror}; nothing is lost, make room and run again"
                return {"epoch": 0, "done": True, "trouble": trouble}
            record = _failed(RunRecord.load(self.folder), error)
        epoch = len(record.epochs) if record else 0
        done = record is None or record.over or epoch == self.until
        if done:
            self.cleanup()
        return {"epoch": epoch, "done": done}

    def reset_config(self, new_config: dict[str, Job]) -> bool:
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Gives back the run's lock and memory, once: while this worker waits, another one may go on with the run."""
        if not self.over:
            self.over = True
            self.epochs.close()
            release_memory()


def _failed(record: RunRecord, error: Exception) -> RunRecord:
    """The record that says why it failed: it does, unless that happened before its training began."""
    if record.over:
        return record
    return record.close("failed", cause_of(error))


def run_teacher(job: Job) -> Iterator[int]:
    """A Ray task that yields its finished epochs."""
    _entered(job)
    _share(1.0)  # it has no neighbours
    for record in _epochs(job):
        yield len(record.epochs)


def verify_teacher_logits(config: str, named: str, root: str, where: dict[str, str]) -> None:
    """Checks a run's teacher and its cached logits. `config` is JSON, of the class `named`.

    Raises as `distill.teacher_logits.verify`.
    """
    os.environ.update(where)
    if root not in sys.path:
        sys.path.insert(0, root)
    settings = config_named(named).model_validate_json(config)
    assert settings.kd is not None
    teacher_logits.verify(settings, settings.kd, open_data(settings.data), device())


def _epochs(job: Job) -> Generator[RunRecord]:
    """The record after every epoch, on disk already; none if the search was asked to end before it begins."""
    trainable, folder = _trainable(job["trainable"]), Path(job["folder"])
    # the worker of a driver that is dead may still be at it
    with alone(folder, "the run", wait=True, lock=WORKER), progress.written(folder):
        progress.report(progress.PREPARING)
        record = RunRecord.load(folder)
        if job["stop"] and Path(job["stop"]).exists():
            return
        yield from drive(record, trainable, parse(config_class(trainable), record.config), until=job["until"])
        record = record.reload()
        if record.status == "running":
            cause = (
                f"its trainable ended after epoch {len(record.epochs)} and did not say why: the last EpochResult has"
            )
            yield record.close("failed", f"{cause} to have `ended`")


def _entered(job: Job) -> Machine:
    """The machine, once this process knows the job's places and finds the project's trainables."""
    os.environ.update(json.loads(job["places"]))
    if job["root"] not in sys.path:
        sys.path.insert(0, job["root"])
    return this_machine()


@functools.cache
def _trainable(where: str) -> Trainable:
    """Loaded once: the file that it lives in may hold a study of a thousand trials, and may be edited meanwhile."""
    return trainable_at(where)


def _share(share: float) -> None:
    """A run's part of its GPU: the energy that it is charged, and the memory that it may take.

    Were memory whoever's comes first, a neighbour could halve a run's micro-batch, and so change its result.
    """
    power.charge(share)
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share * (1 - BESIDE) if share < 1 else 1.0)

"""Teacher stage before the trials: a missing teacher is trained, and its cached logits are checked."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from xlite_search import model_folder, places, provenance
from xlite_search.config import RunConfig
from xlite_search.console import Board, say
from xlite_search.data.dataset import open_data
from xlite_search.distill.teacher import write_ensemble
from xlite_search.errors import BadInput, RunFailed
from xlite_search.machine import Machine
from xlite_search.model_folder import publish, read_model
from xlite_search.places import TEACHERS
from xlite_search.records import RunRecord
from xlite_search.search.engine import gpus
from xlite_search.search.plan import Plan
from xlite_search.search.teaching import TRAINABLE, Teaching
from xlite_search.search.worker import job_for, run_teacher, verify_teacher_logits
from xlite_search.storage import FULL, alone
from xlite_search.study_record import StudyRecord
from xlite_search.tracking.recorder import Recorder
from xlite_search.trainable import config_name, maker, trainable_at
from xlite_search.training import balance


def teach(plan: Plan, study: StudyRecord, machine: Machine) -> StudyRecord:
    """Trains the study's teacher if it is missing and a trial uses it; pins its weights' sha256 to the study.

    Raises:
        RunFailed: it failed, now or before; or its logits are not finite.
        BadInput: the teacher's weights are not those that this study began with.
        Damaged: its cached logits are not those that it gives.
    """
    teaching = plan.teaching
    if teaching is None or not plan.uses_teacher:
        return study
    train_missing(teaching, plan.root, machine)
    home = places.teacher_folder(teaching.key)
    sha256 = read_model(home).sha256
    if study.teacher_sha256 not in ("", sha256):
        raise BadInput(
            f"teacher {teaching.key} has been trained again since study '{plan.name}' began: its trials would not "
            f"compare. Restore {home}, or start another study with --name"
        )
    _verify(plan, study, machine)
    return replace(study, teacher_sha256=sha256).save()


def train_missing(teaching: Teaching, root: Path, machine: Machine) -> None:
    """Trains those members that are not there, on a Ray that runs; of several, writes the ensemble.

    Raises:
        RunFailed: one failed, now or before.
    """
    for key, config in teaching.members.items():
        home = places.teacher_folder(key)
        if config is not None and not model_folder.exists(home):
            with alone(home, "the teacher", wait=True):
                _train(home, config, root, machine)
    if teaching.key not in teaching.members:
        write_ensemble(list(teaching.members))


def mirror(teaching: Teaching) -> None:
    """Has MLflow say what the records of the teachers say."""
    homes = [places.teacher_folder(key) for key in teaching.members]
    with Recorder(TEACHERS) as teachers:
        for home in homes:
            if (home / "run.json").exists():
                teachers.sync(RunRecord.load(home))


def _train(home: Path, config: RunConfig, root: Path, machine: Machine) -> None:
    """Leaves a model folder, of a single run as a Ray task that yields its epochs, on all that a run may have here."""
    if (home / "run.json").exists():
        record = RunRecord.load(home)
    else:
        label, tree = f"teacher {config.model}", config.model_dump(mode="json")
        record = RunRecord(home, home.name, "teacher", label, {"model": config.model}, tree, batchwise=config.batchwise)
        record.save()
        balance.write_artifacts(home, config.sampler, config.loss, open_data(config.data))
    say(f"Teacher {config.model}, trained once for every study that asks for it:")
    resources = machine.resources(config.threads, gpus(), augments=config.augment is not None)
    task = ray.remote(num_cpus=resources["CPU"], num_gpus=resources.get("GPU", 0), max_retries=0)(run_teacher)
    with Recorder(TEACHERS) as recorder, Board([record], at_once=1, resources=machine.words(gpus())) as board:
        board.watch(lambda: [home.name])
        while not record.over:
            for news in _activation(record, task, root):
                record = news
                board.update(record)
                recorder.sync(record)
        recorder.sync(record)
        if record.status == "failed":
            raise RunFailed(f"the teacher failed: {record.cause}. Remove {home} to try it again")
        made = provenance.of_training(maker(trainable_at(TRAINABLE)))
        publish(home, record, config.loss, open_data(config.data), made)
        recorder.sync(record)  # a model now, with its files


def _activation(record: RunRecord, task: Any, root: Path) -> Iterator[RunRecord]:
    """Its record after every epoch, and when its worker is gone, however that ended."""
    try:
        for epoch in task.remote(job_for(record, TRAINABLE, root)):
            ray.get(epoch)
            yield record.reload()
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, OSError) and error.cause.errno in FULL:
            raise error.cause from None
    except ray.exceptions.OutOfMemoryError:  # Ray's guard of the host's memory ended it
        record.reload().starved("out of memory on the host")
    except ray.exceptions.RayError:
        pass
    finally:
        record = record.reload()
        if record.status == "running":
            record = record.interrupted() if sys.exception() else record.abandoned()
    yield record


def _verify(plan: Plan, study: StudyRecord, machine: Machine) -> None:
    """Checks each cache of logits that the waiting trials read, once: here, or on the GPU if there is one."""
    waiting = {run.key for run in study.runs() if not run.over}
    configs: dict[str, RunConfig] = {}
    for trial in plan.trials:
        if trial.key in waiting and trial.config.kd:
            augment = trial.config.augment.model_dump_json(exclude={"views"}) if trial.config.augment else ""
            configs.setdefault(json.dumps([augment, trial.config.data.fraction, trial.config.compile]), trial.config)
    for config in configs.values():
        given = config.model_dump_json(), config_name(type(config)), str(plan.root), places.environment()
        if gpus():
            share = machine.resources(1, gpus(), augments=False)
            task = ray.remote(num_cpus=share["CPU"], num_gpus=share["GPU"], max_retries=0)(verify_teacher_logits)
            try:
                ray.get(task.remote(*given))
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
        else:
            verify_teacher_logits(*given)

"""`verify`: the records against themselves, their files, the journal, the teacher and MLflow."""

from __future__ import annotations

import math
from collections.abc import Iterator

from xlite_search import places
from xlite_search.config import run_key
from xlite_search.errors import XliteError
from xlite_search.model_folder import read_model
from xlite_search.records import RunRecord
from xlite_search.search.asha import Decision
from xlite_search.search.journal import Journal
from xlite_search.storage import held_by
from xlite_search.study_record import StudyRecord
from xlite_search.tracking import store
from xlite_search.trainable import config_of


def verify(study: StudyRecord) -> list[str]:
    """What is broken, a sentence each; nothing is changed. A study that is being run is looked at as it stands."""
    broken: list[str] = []
    runs: list[RunRecord] = []
    for key in study.trials:
        try:
            runs.append(RunRecord.load(study.trial_folder(key)))
        except FileNotFoundError:
            broken.append(f"the record of trial {key} is gone; `run` the study again, and it is trained anew")
        except XliteError as error:
            broken.append(str(error))
    busy = bool(held_by(study.folder))
    for run in runs:
        broken += _of_run(run, busy, study.maker)
    broken += _of_journal(study, {run.key: run for run in runs})
    broken += _of_teacher(study)
    if study.tracked and not store.is_there():
        broken.append(f"{store.database()} is gone; `run` the study again, and it is filled in")
    elif not busy:
        broken += store.differences(study.name, runs)
    return broken


def _of_run(run: RunRecord, busy: bool, maker: str) -> Iterator[str]:
    if run.status == "running" and not busy:
        yield f"{run.label} is said to be running, and nobody trains it; `run` the study again, and it goes on"
    if not run.over and busy:
        return
    if len(run.epochs) > run.length:
        yield f"{run.label} has {len(run.epochs)} epochs of {run.length}"
    if run.status == "finished" and run.best is None:
        yield f"{run.label} is finished, and has no best weights"
    for stored in run.files():
        if stored.name not in run.freed and not stored.good(run.folder):
            yield f"{run.folder / stored.name} is missing, or not what was written"
    try:
        key = run_key(config_of(run), maker)
    except XliteError as error:
        yield f"{run.label}: its config cannot be read with this data and code: {error}"
        return
    if key != run.key:
        yield f"{run.label}: with this data and code its key would be {key}, and it is {run.key}"


def _of_journal(study: StudyRecord, runs: dict[str, RunRecord]) -> Iterator[str]:
    try:
        decided = Journal(study.folder).decisions
    except XliteError as error:
        yield str(error)
        return
    for decision in decided:
        for key, score in decision.scores.items():
            if run := runs.get(key):
                yield from _of_decision(decision, run, score, study.metric)


def _of_decision(decision: Decision, run: RunRecord, score: float, metric: str) -> Iterator[str]:
    if run.status == "stopped" and run.key in decision.kept and len(run.epochs) <= decision.rung:
        yield f"{run.label} was kept at rung {decision.rung}, and its record says that it was stopped there"
    if run.status == "finished" and run.key not in decision.kept and len(run.epochs) > decision.rung:
        yield f"{run.label} was stopped at rung {decision.rung}, and was trained on"
    if len(run.epochs) >= decision.rung and math.isfinite(score):
        now = run.epochs[decision.rung - 1].get(metric, math.nan)
        if decision.reasons is not None:
            now = max(filter(math.isfinite, run.metric(metric)[: decision.rung]), default=math.nan)
        if now != score:
            yield f"{run.label} was judged at rung {decision.rung} by {metric} {score!r}, and its record has {now!r}"


def _of_teacher(study: StudyRecord) -> Iterator[str]:
    if not study.teacher_sha256:
        return
    home = places.teacher_folder(study.teacher)
    try:
        if read_model(home).sha256 != study.teacher_sha256:
            yield f"{home} is not the teacher that this study began with"
    except (XliteError, FileNotFoundError) as error:
        yield f"the teacher: {error}"

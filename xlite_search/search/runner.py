"""Runner of a plan on Ray Tune: the teacher first, then the trials, each epoch on disk before it is reported.

    run(plan)
      ├── begin        study.json and one waiting record per trial, or a refusal that lists what changed
      ├── teach        the missing teacher, as a Ray task
      └── search       the trials that are not over, on Tuner.fit: the queue says which goes on, how far, and whom ASHA
                       stops; MLflow and the board listen; where a function suggests the trials, a round at a time

Workers (`worker.py`) write the records and say that there is news; the driver reads the news from the records. So a
search that is killed anywhere goes on from its records and its journal, and Ray's own files are thrown away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

import ray

from xlite_search import disk, provenance
from xlite_search.console import Board, say
from xlite_search.data.dataset import open_data
from xlite_search.errors import BadInput
from xlite_search.machine import Machine, this_machine
from xlite_search.models.cost import cost_of
from xlite_search.records import ARTIFACTS, RunRecord
from xlite_search.search.engine import Shutdown, engine, gpus
from xlite_search.search.forecast import forecast
from xlite_search.search.plan import Plan, changes, make_plan
from xlite_search.search.queue import Queue, drain
from xlite_search.search.study import LATENCY, MACS, PARAMETERS
from xlite_search.search.suggest import distributions
from xlite_search.search.teach import mirror, teach, train_missing
from xlite_search.storage import alone, write_atomic
from xlite_search.study_record import StudyRecord
from xlite_search.tracking.recorder import Recorder
from xlite_search.trainable import config_name, reference
from xlite_search.training import balance

#: there, in the study's folder, while a search that was asked to end waits for epochs
STOPPING = "stopping"
#: a study's name -> files by name
Summary = Callable[[str], Mapping[str, bytes]]


def run(
    plan: Plan, *, accept_changes: bool = False, summary: Summary | None = None, address: str | None = None
) -> StudyRecord:
    """Runs a plan to its end, or goes on with it. Finished trials are never trained again.

    `summary` tells, of a study that is done, the files by name that its folder and its MLflow run shall have; `address`
    is a Ray cluster's, all of whose machines see the runs' and the data's folders under the same paths.

    Raises:
        BadInput: the study's definition, data or code changed since it began, it is being run elsewhere, or the disk
            has no room for it.
        RunFailed: the teacher failed, without which there is nothing to search.
        Damaged: a file of the study is not what was written, or the disk is full.
        EngineDied: Ray did not start, or died.
        Interrupted: somebody asked it to end.
    """
    with alone(plan.folder, f"study '{plan.name}'", shown=True):
        return _run(plan, accept_changes, summary, address)


def train_teacher(plan: Plan, *, address: str | None = None) -> None:
    """Trains the teacher of a study that has not begun: what its trials are may depend on it (`near_duplicates.py`).

    Raises:
        RunFailed, EngineDied, Interrupted: as `run`.
        BadInput: the disk has no room for the study.
        Damaged: the data are not what was prepared.
    """
    machine = this_machine()
    forecast(plan, machine).expect_room()
    open_data(plan.study.base.data).packed.verify()
    if plan.teaching:
        with engine(machine, address):
            train_missing(plan.teaching, plan.root, machine)


def _run(plan: Plan, accept_changes: bool, summary: Summary | None, address: str | None) -> StudyRecord:
    forecast(plan, this_machine()).expect_room()
    study = begin(plan, accept_changes=accept_changes)
    waiting = [record for record in study.runs() if not record.over]
    open_data(plan.trials[0].config.data).packed.verify()
    tags = {"mlflow.note.content": plan.study.question, "xlite.study": plan.name}
    with Recorder(plan.name, parent=tags, artifacts=plan.folder / ARTIFACTS) as recorder:
        try:
            if waiting:
                study = _search(plan, study, recorder, address)
        finally:
            _settle(study, recorder)
        for name, content in (summary(plan.name) if summary else {}).items():
            write_atomic(plan.folder / ARTIFACTS / name, content)
    if not waiting and plan.teaching:
        mirror(plan.teaching)
    if recorder.failed:
        say(f"MLflow could not be written ({recorder.failed}); nothing is lost, the same command fills it in")
    return replace(study, tracked=recorder.failed is None).save()


def _search(plan: Plan, study: StudyRecord, recorder: Recorder, address: str | None) -> StudyRecord:
    """Trains the teacher, what is waiting and, where a function suggests the trials, all that it suggests then."""
    machine = this_machine()

    def last() -> None:
        _settle(study, recorder)
        recorder.close(done=False, in_haste=True)

    with engine(machine, address, last) as shutdown:
        _settle(study, recorder)
        study = teach(plan, study, machine)
        search(plan, study, machine, recorder, shutdown)
        while plan.study.suggester:
            # the definition stays that of this command: who edits a file meanwhile must not end the search
            following = replace(make_plan(plan.study, plan.name, plan.command), definition=plan.definition)
            if len(following.trials) == len(plan.trials):
                break
            plan, study = following, begin(following)
            search(plan, study, machine, recorder, shutdown)
    return study


def _settle(study: StudyRecord, recorder: Recorder) -> None:
    """None of the study's runs is being trained: those that were are waiting again, and say so. (On a disk that is
    full, the next start has them say so.)"""
    for record in StudyRecord.load(study.folder).runs():
        if record.status == "running":
            with suppress(OSError):
                record = record.interrupted()
        recorder.sync(record)


def begin(plan: Plan, *, accept_changes: bool = False) -> StudyRecord:
    """The study's record: made now, or found and compared."""
    fresh = StudyRecord(
        folder=plan.folder,
        name=plan.name,
        question=plan.study.question,
        trainable=reference(plan.study.trainable),
        metric=plan.study.metric,
        definition=plan.definition,
        trials=tuple(trial.key for trial in plan.trials),
        minimize=plan.study.minimize,
        teacher=plan.teacher,
        commit=provenance.git_commit(),
        environment=provenance.environment(),
        maker=plan.maker,
        teacher_maker=plan.teacher_maker,
        files=plan.files,
        command=plan.command,
        distributions=distributions(plan.study.suggester) if plan.study.suggester else {},
    )
    study = fresh
    if (plan.folder / "study.json").exists():
        study = StudyRecord.load(plan.folder)
        changed = changes(study, plan)
        if changed and not accept_changes:
            raise BadInput(
                f"study '{plan.name}' began with another definition: {'; '.join(changed[:8])}. Give this one a --name "
                f"of its own, or go on with --accept-changes, which is recorded"
            )
        if changed:
            note = {"time": time.time(), "changes": changed, "code": plan.definition["code"]}
            study = replace(fresh, teacher_sha256=study.teacher_sha256, accepted=(*study.accepted, note), tracked=False)
        known = study.distributions or fresh.distributions  # an earlier version kept none, and the space is the same
        study = replace(study, trials=fresh.trials, files=fresh.files, exhausted=plan.exhausted, distributions=known)
    facts = _facts(plan, study)
    for trial in plan.trials:
        folder = study.trial_folder(trial.key)
        if not (folder / "run.json").exists():
            config, named = trial.config.model_dump(mode="json"), config_name(type(trial.config))
            about = facts.get(trial.config.model, {})
            record = RunRecord(folder, trial.key, "trial", trial.label, trial.settings, config, facts=about)
            _capped(replace(record, batchwise=trial.config.batchwise, config_class=named), accept_changes).save()
    study = study.save()
    _show_balances(plan, study)
    return study


def _capped(record: RunRecord, accept: bool) -> RunRecord:
    """With no more images at once than this machine takes.

    Raises:
        BadInput: the run asks for more, and nobody accepts that, or its batches cannot be cut.
    """
    cap = this_machine().micro_batch
    if cap is None or record.at_once <= cap:
        return record
    if record.batchwise:
        raise BadInput(
            f"{record.label} asks for {record.at_once} images at once, and machine.toml has micro_batch = {cap}: "
            f"{' and '.join(record.batchwise)} compares all images of a batch, so that it cannot be cut. Set "
            f"batch_size = {cap} in the study"
        )
    if not accept:
        raise BadInput(
            f"{record.label} asks for {record.at_once} images at once, and machine.toml has micro_batch = {cap}: batch "
            f"norm would see other batches. Set micro_batch in the study, or go on with --accept-changes, which is "
            f"recorded"
        )
    return replace(record, micro_batch=cap)


def _facts(plan: Plan, study: StudyRecord) -> dict[str, dict[str, float]]:
    """What every model costs, by its name, if the study asks for it: measured once, now, while nothing else computes.

    All trials of a model share one latency, this study's first: timed again, equal models would differ.
    """
    if not plan.study.minimize:
        return {}
    folders = [study.trial_folder(trial.key) for trial in plan.trials]
    begun = [RunRecord.load(folder) for folder in folders if (folder / "run.json").exists()]
    facts = {record.config["model"]: record.facts for record in begun if record.facts}
    size = open_data(plan.trials[0].config.data).packed.size
    for model in {trial.config.model: None for trial in plan.trials}:
        if model not in facts:
            cost = cost_of(model, size)
            facts[model] = {LATENCY: cost.latency_ms, PARAMETERS: float(cost.parameters), MACS: float(cost.macs)}
            say(f"  {model}: {cost.latency_ms:.1f} ms an image on a CPU thread, {cost.parameters:,} parameters")
    return facts


def _show_balances(plan: Plan, study: StudyRecord) -> None:
    """Prints the warnings on class balance; writes the audit of its sampler and its loss with every trial."""
    for warning in plan.warnings():
        say(f"warning: {warning}")
    for found in plan.balances:
        homes = [study.trial_folder(trial.key) / ARTIFACTS for trial in found.trials]
        if all((home / "balance.png").exists() for home in homes):
            continue
        files = balance.files(found.audit, found.loss)
        for home in homes:
            for name, content in files.items():
                write_atomic(home / name, content)


def search(plan: Plan, study: StudyRecord, machine: Machine, recorder: Recorder, shutdown: Shutdown) -> None:
    """Trains every trial that is not over; returns when all are.

    Raises:
        Interrupted: somebody asked it to end; every record says where its run stands.
        Damaged: the disk is full.
    """
    records = study.runs()
    for record in records:
        recorder.sync(record)
    waiting = [record for record in records if not record.over]
    if not waiting:
        return
    configs = [trial.config for trial in plan.trials]
    resources = machine.resources(
        max(config.threads for config in configs), gpus(), augments=any(config.augment for config in configs)
    )
    at_once = min(machine.at_once(resources, ray.cluster_resources()), len(waiting))
    of = (
        f"{len(records)} trials" if not plan.study.suggester else f"{len(records)} trials so far, {plan.in_all} in all,"
    )
    say(f"{len(waiting)} of {of} to go, {at_once} at a time on {machine.words(gpus())}:")
    showing = Board(records, at_once=at_once, resources=machine.words(gpus()))
    with showing as board, shutdown.stop_after_epoch(study.folder / STOPPING):

        def tell(record: RunRecord) -> None:
            board.update(record)
            recorder.sync(record)
            if record.over and machine.checkpoints_gb:
                disk.free(study.runs(), round(machine.checkpoints_gb * 1e9))

        apart = resources.get("GPU", 1.0) >= 1
        queue = Queue(study, plan.study.scheduler, plan.root, tell, shutdown, at_once if apart else 0)
        board.watch(lambda: queue.at_work(at_once))
        drain(queue, resources, at_once)

"""A plan on Ray Tune: the teacher first, then the trials, each epoch on disk before anybody hears of it.

    run(plan)
      ├── begin        study.json and one waiting record per trial, or a refusal that lists what changed
      ├── teach        the missing teacher, as a Ray task
      └── search       the trials that are not over, on Tuner.fit: ASHA judges, MLflow and the board listen;
                       where a function suggests the trials, a round at a time

Workers (`worker.py`) write the records and say that there is news; the driver reads the news from the records. So a run
that is killed anywhere goes on from its records, and Ray's own files are thrown away.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from xlite_search import provenance
from xlite_search.console import Board, clock, say
from xlite_search.data.loaders import open_data
from xlite_search.errors import BadInput, EngineDied
from xlite_search.machine import Machine, this_machine, visible_gpus
from xlite_search.models.cost import cost_of
from xlite_search.records import ARTIFACTS, RunRecord, StudyRecord, alone, write_atomic
from xlite_search.search.asha import Halving
from xlite_search.search.plan import Plan, changes, make_plan
from xlite_search.search.study import LATENCY, MACS, PARAMETERS
from xlite_search.search.teach import mirror, teach
from xlite_search.search.worker import job_for, run_trial
from xlite_search.tracking import Recorder
from xlite_search.trainable import reference
from xlite_search.training import balance

#: a study's name -> files by name
Summary = Callable[[str], Mapping[str, bytes]]


def run(plan: Plan, *, accept_changes: bool = False, summary: Summary | None = None) -> StudyRecord:
    """Runs a plan to its end, or goes on with it. Finished trials are never trained again.

    `summary` tells, of a study that is done, the files by name that its folder and its MLflow run shall have.

    Raises:
        BadInput: the study's definition, data or code changed since it began, or it is being run elsewhere.
        RunFailed: the teacher failed, without which there is nothing to search.
    """
    with alone(plan.folder, f"study '{plan.name}'"):
        return _run(plan, accept_changes, summary)


def _run(plan: Plan, accept_changes: bool, summary: Summary | None) -> StudyRecord:
    study = begin(plan, accept_changes=accept_changes)
    waiting = [record for record in study.runs() if not record.over]
    open_data(plan.trials[0].config.data).packed.verify()
    tags = {"mlflow.note.content": plan.study.question, "xlite.study": plan.name}
    with Recorder(plan.name, parent=tags, artifacts=plan.folder / ARTIFACTS) as recorder:
        if waiting:
            machine = this_machine()
            with engine(machine):
                study = teach(plan, study, machine)
                study = _in_rounds(plan, study, machine, recorder)
        for record in study.runs():
            recorder.sync(record)
        for name, content in (summary(plan.name) if summary else {}).items():
            write_atomic(plan.folder / ARTIFACTS / name, content)
    if not waiting and plan.teaching:
        mirror(plan.teaching)
    if recorder.failed:
        say(f"MLflow could not be written ({recorder.failed}); nothing is lost, the same command fills it in")
    return replace(study, tracked=recorder.failed is None).save()


def _in_rounds(plan: Plan, study: StudyRecord, machine: Machine, recorder: Recorder) -> StudyRecord:
    """Trains what is waiting and, where a function suggests the trials, all that it suggests then."""
    search(plan, study, machine, recorder)
    while plan.study.suggester:
        # the definition stays that of this command: who edits a file meanwhile must not end the night
        following = replace(make_plan(plan.study, plan.name), definition=plan.definition)
        if len(following.trials) == len(plan.trials):
            break
        plan, study = following, begin(following)
        search(plan, study, machine, recorder)
    return study


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
            note = {"time": time.time(), "changes": changed}
            study = replace(fresh, teacher_sha256=study.teacher_sha256, accepted=(*study.accepted, note), tracked=False)
        study = replace(study, trials=fresh.trials)
    facts = _facts(plan, study)
    for trial in plan.trials:
        folder = study.trial_folder(trial.key)
        if not (folder / "run.json").exists():
            config = trial.config.model_dump(mode="json")
            about = facts.get(trial.config.model, {})
            RunRecord(folder, trial.key, "trial", trial.label, trial.settings, config, facts=about).save()
    study = study.save()
    _show_balances(plan, study)
    return study


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
    """Says what could spoil the night; leaves the audit of its sampler and its loss with every trial."""
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


def search(plan: Plan, study: StudyRecord, machine: Machine, recorder: Recorder) -> None:
    """Trains every trial that is not over; returns when all are, or when Ray has lost some."""
    halving = Halving(plan.study.scheduler, plan.study.metric) if plan.study.scheduler else None
    if halving:
        _remember(halving, study.runs())
    records = study.runs()
    for record in records:
        recorder.sync(record)
    waiting = [record for record in records if not record.over]
    if not waiting:
        return
    gpus = visible_gpus(machine)
    configs = [trial.config for trial in plan.trials]
    augments = any(config.augment for config in configs)
    resources = machine.resources(max(config.threads for config in configs), gpus, augments=augments)
    total = ray.cluster_resources()
    at_once = max(1, int(min(total.get(kind, 0) / amount for kind, amount in resources.items())))
    at_once = min(at_once, len(waiting))
    of = (
        f"{len(records)} trials" if not plan.study.suggester else f"{len(records)} trials so far, {plan.in_all} in all,"
    )
    say(f"{len(waiting)} of {of} to go, {at_once} at a time on {machine.words(gpus)}:")
    cache = plan.folder / "ray"
    shutil.rmtree(cache, ignore_errors=True)
    with Board(records, at_once=at_once, resources=machine.words(gpus)) as board:
        tune.Tuner(
            tune.with_resources(run_trial, resources),
            param_space={"job": tune.grid_search([job_for(r, study.trainable, plan.root) for r in waiting])},
            tune_config=tune.TuneConfig(
                scheduler=_Judge(halving), reuse_actors=True, trial_name_creator=_key, trial_dirname_creator=_key
            ),
            run_config=tune.RunConfig(
                name="trials", storage_path=str(cache), verbose=0, callbacks=[_Listener(study, recorder, board)]
            ),
        ).fit()
    shutil.rmtree(cache, ignore_errors=True)


class _Judge(FIFOScheduler):  # type: ignore[misc]
    """First come, first served; a trial whose rung says so is stopped, and its record says why."""

    def __init__(self, halving: Halving | None) -> None:
        super().__init__()
        self.halving = halving

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        record = RunRecord.load(Path(trial.config["job"]["folder"]))
        if self.halving is None or record.over:
            return str(TrialScheduler.CONTINUE)
        verdict = self.halving.judge(record.key, result["epoch"], record.config["epochs"], result["score"])
        if verdict is None:
            return str(TrialScheduler.CONTINUE)
        record.close("stopped", verdict)
        return str(TrialScheduler.STOP)


class _Listener(tune.Callback):  # type: ignore[misc]
    """Tells the board and MLflow what the record says, whenever Ray says that something happened."""

    def __init__(self, study: StudyRecord, recorder: Recorder, board: Board) -> None:
        self.study, self.recorder, self.board = study, recorder, board

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its callbacks to restore them; ours are never restored, and hold a thread and a terminal."""
        return {}

    def _tell(self, trial: Any) -> None:
        record = RunRecord.load(self.study.trial_folder(trial.config["job"]["key"]))
        self.board.update(record)
        self.recorder.sync(record)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        self._tell(trial)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._tell(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        record = RunRecord.load(self.study.trial_folder(trial.config["job"]["key"]))
        if not record.over:
            say(f"  {record.label}: its worker was lost; the same command goes on with it")
        self._tell(trial)


def _key(trial: Any) -> str:
    return str(trial.config["job"]["key"])


def _remember(halving: Halving, records: list[RunRecord]) -> None:
    """Fills the rule's table from the records; judges those that were interrupted right at a rung."""
    standing = []
    for record in records:
        for rung in halving.spec.rungs(record.config["epochs"]):
            if rung > len(record.epochs):
                continue
            if rung == len(record.epochs) and not record.over:
                standing.append(record)
            else:
                score = record.epochs[rung - 1].get(halving.metric, -math.inf)
                halving.scores.setdefault(rung, {})[record.key] = score
    for record in standing:
        epoch = len(record.epochs)
        verdict = halving.judge(record.key, epoch, record.config["epochs"], record.metric(halving.metric)[-1])
        if verdict:
            record.close("stopped", verdict)
            say(f"  {record.label}: {verdict}")


@contextmanager
def engine(machine: Machine) -> Iterator[None]:
    """Ray on this machine, quiet, loopback only; or the one that runs in this process already.

    Raises:
        EngineDied: it does not start.
    """
    if ray.is_initialized():
        yield
        return
    started = time.monotonic()
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial's failure is told by its record, in a sentence
    try:
        ray.init(
            num_cpus=machine.cores,
            num_gpus=visible_gpus(machine),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except Exception as error:  # a bare one, if the machine is too busy to start it in time
        ray.shutdown()
        reason = str(error).partition("\n")[0]
        raise EngineDied(f"Ray did not start: {reason} Nothing is lost; the same command goes on") from None
    say(f"Ray started in {clock(time.monotonic() - started)}")
    try:
        yield
    finally:
        ray.shutdown()

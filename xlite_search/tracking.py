"""MLflow: every run of every study, for people to look at. A mirror of the records, never read back as truth.

One experiment per study, one parent run, one child run per trial (found again by the tag `xlite.trial_key`); teachers
and final trainings have an experiment each. `sync` takes a record and makes MLflow say the same: it creates the run if
there is none, adds the epochs that are missing and none twice, and sets the status. So live tracking, a restart after a
kill, and a database that was away are one and the same call. A single background thread writes; training never waits.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from xlite_search import entities, places
from xlite_search.console import Wait
from xlite_search.errors import BadInput, EngineDied, RunFailed, cause_of
from xlite_search.records import ARTIFACTS, TABLE, RunRecord

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Metric
    from mlflow.tracking import MlflowClient

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # the recorder tries again by itself, and looks first
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

NOTE, VIEW = "mlflow.note.content", "mlflow.sharedViewState."
#: the view that `ui` opens
BEST_FIRST = "best-first"
KEY, KIND, STATUS, CAUSE = "xlite.trial_key", "xlite.kind", "xlite.status", "xlite.cause"
#: of a run that is over: how many epochs it has; images at once, where memory asked for fewer than the config says
COMPLETE, MICRO_BATCH = "xlite.epochs", "xlite.micro_batch"
#: of a run that has been made a model: MLflow's id of it
MODEL = "xlite.model"
TEACHERS, FINAL = places.TEACHERS, places.FINAL
MLFLOW_STATUS = {
    "waiting": "SCHEDULED",
    "running": "RUNNING",
    "paused": "SCHEDULED",
    "finished": "FINISHED",
    "stopped": "KILLED",
    "failed": "FAILED",
}
SQLITE = "sqlite:///"
#: MLflow takes at most 1,000 metrics and 100 params a call
METRICS_A_CALL, PARAMS_A_CALL = 1000, 100
#: between attempts; how long leaving waits for MLflow; how long if somebody asked us to end
RETRY_S, PATIENCE_S, HASTE_S = 2.0, 60.0, 3.0
#: what a study may end by and still wait for MLflow: not for a signal, nor on a disk that is full
PATIENT = (BadInput, RunFailed, EngineDied)


def database() -> Path:
    return places.runs_root() / "mlflow.db"


def server() -> str:
    """The server, or the database, that `MLFLOW_TRACKING_URI` names; empty if none is named."""
    return places.variable("MLFLOW_TRACKING_URI")


def tracking_uri() -> str:
    """The server that is named, else the database under the runs' folder: SQLAlchemy's URL, which unquotes its path."""
    return server() or SQLITE + database().as_posix().replace("%", "%25").replace("?", "%3F")


def is_there() -> bool:
    """There is a database to look at, or a server is named."""
    return bool(server()) or database().exists()


def knows(experiment: str) -> bool:
    """Whether the database under the runs' folder has the experiment, asked without MLflow's seconds of imports; a
    database or a server that somebody names is taken to."""
    if server():
        return True
    if not database().exists():
        return False
    with closing(sqlite3.connect(database())) as connection:
        try:
            query = "select 1 from experiments where name = ? and lifecycle_stage = 'active'"
            return connection.execute(query, (experiment,)).fetchone() is not None
        except sqlite3.Error:
            return False


class Recorder:
    """Mirrors records into one experiment. Use as a context; deadline it waits until all is written, or gives up.

    `failed` is the last trouble with MLflow, or None; what could not be written is written by the next run.
    """

    def __init__(self, experiment: str, parent: Mapping[str, str] | None = None, artifacts: Path | None = None) -> None:
        """`parent` are the tags of the parent run, if the experiment has one; `artifacts` what it is left with."""
        self.failed: str | None = None
        self._experiment, self._parent_tags, self._artifacts = experiment, parent, artifacts
        self._pending: dict[str, RunRecord] = {}
        self._parent_status = "RUNNING"
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(done=kind is None, in_haste=kind is not None and not issubclass(kind, PATIENT))

    def close(self, *, done: bool, in_haste: bool) -> None:
        """Waits until all is written, or gives up; soon, if the process is being ended."""
        with self._changed:
            self._parent_status = "FINISHED" if done else "KILLED"
            self._deadline = time.monotonic() + (HASTE_S if in_haste else PATIENCE_S)
            self._changed.notify()
        with Wait("MLflow is being written"):
            self._thread.join(self._deadline - time.monotonic() + RETRY_S if in_haste else None)

    def sync(self, record: RunRecord) -> None:
        """Has MLflow say what the record says, soon. A later record of the same run replaces one that waits."""
        with self._changed:
            self._pending[record.key] = record
            self._changed.notify()

    def _work(self) -> None:
        mirror: _Mirror | None = None
        uncertain, seen = False, set[str]()
        while True:
            with self._changed:
                while not self._pending and self._deadline is None and mirror is not None:
                    self._changed.wait()
                deadline, batch, self._pending = self._deadline, self._pending, {}
            try:
                mirror = mirror or _Mirror(self._experiment, self._parent_tags)
                if uncertain:
                    mirror.look()
                    uncertain = False
                while batch:
                    key = next(iter(batch))
                    mirror.sync(batch[key])
                    seen.add(key)
                    del batch[key]
                if deadline is not None:
                    mirror.end(self._parent_status, self._artifacts, seen)
                    self.failed = None
                    return
                self.failed = None
            except Exception as error:  # whatever MLflow's trouble is, training goes on
                self.failed = cause_of(error)
                uncertain = mirror is not None
                with self._changed:
                    self._pending = batch | self._pending
                    if deadline is not None and time.monotonic() > deadline:
                        return
                    self._changed.wait(RETRY_S)


class _Mirror:
    """The experiment as MLflow has it; lives in the recorder's thread. Every call can be made again.

    runs    MLflow's run of every record that has one, by key
    status  what MLflow says of each run
    logged  epochs that MLflow has, of the records that were seen here
    described  the records whose params and config it has
    columns    settings that the table of runs shows, in order
    models     the runs whose model folder it has, as a model with its files
    """

    def __init__(self, experiment: str, parent_tags: Mapping[str, str] | None) -> None:
        self.client, self.experiment = _client(), experiment
        self.question = (parent_tags or {}).get(NOTE, "")
        self.experiment_id = self._experiment(experiment)
        self.runs: dict[str, str] = {}
        self.status: dict[str, str] = {}
        self.logged: dict[str, int] = {}
        self.described: set[str] = set()
        self.models: set[str] = set()
        self.columns: dict[str, None] = {}
        self.parent = ""
        self.look()
        if parent_tags is not None:
            self._begin(experiment, parent_tags)

    def look(self) -> None:
        """Asks what there is: at the start, and after trouble, when nobody knows whether the last call arrived."""
        self.logged.clear()
        page = None
        while page is None or page.token:
            page = self.client.search_runs([self.experiment_id], page_token=page.token if page else None)
            for run in page:
                run_id, tags = str(run.info.run_id), run.data.tags
                self.status[run_id] = run.info.status
                if tags.get(KIND) == "study":
                    self.parent = run_id
                elif KEY in tags:
                    self.runs[tags[KEY]] = run_id
                    if tags.get(COMPLETE):
                        self.logged[tags[KEY]] = int(tags[COMPLETE])
                        self.described.add(tags[KEY])
                    if tags.get(MODEL):
                        self.models.add(run_id)

    def sync(self, record: RunRecord) -> None:
        if not record.started:
            return
        self._run(record)
        run_id = self.runs[record.key]
        if run_id not in self.models and entities.is_model(record):
            self._model(run_id, record)
            self.models.add(run_id)

    def _run(self, record: RunRecord) -> None:
        run_id = self.runs.get(record.key) or self._create(record)
        if record.key not in self.described:
            self._describe(run_id, record)
            self.described.add(record.key)
            self._view(record)
        if record.key not in self.logged:
            history = self.client.get_metric_history(run_id, "train/loss")
            self.logged[record.key] = max((point.step for point in history), default=0)
        elif self.logged[record.key] == len(record.epochs) and self.status[run_id] == MLFLOW_STATUS[record.status]:
            return
        for batch in self._batches(record):
            self.client.log_batch(run_id, metrics=batch)
        self.logged[record.key] = max(len(record.epochs), self.logged[record.key])
        if record.over:
            self._finish(run_id, record)
        elif self.status[run_id] != MLFLOW_STATUS[record.status]:
            self.client.update_run(run_id, status=MLFLOW_STATUS[record.status])
        self.status[run_id] = MLFLOW_STATUS[record.status]

    def end(self, parent_status: str, artifacts: Path | None, seen: Iterable[str]) -> None:
        """No run stays RUNNING without an owner: what is not over is KILLED until somebody goes on with it."""
        for run_id in {self.runs[key] for key in seen if key in self.runs}:
            if self.status[run_id] == "RUNNING":
                self.client.set_terminated(run_id, "KILLED")
        if self.parent:
            if artifacts is not None and artifacts.is_dir():
                self.client.log_artifacts(self.parent, str(artifacts))
                if (artifacts / TABLE).is_file():
                    table = (artifacts / TABLE).read_text(encoding="utf-8")
                    asked, _, more = self.question.strip().partition("\n\n")  # the pages cut a note after a few lines
                    self.client.set_tag(self.parent, NOTE, "\n\n".join(filter(None, (asked, table, more))))
            self.client.set_terminated(self.parent, parent_status)

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        local = tracking_uri().startswith("sqlite:")
        home = (places.runs_root() / "artifacts" / name).as_uri() if local else None
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(self.client.create_experiment(name, artifact_location=home, tags=tags))

    def _begin(self, name: str, tags: Mapping[str, str]) -> None:
        """The experiment says what it asks. The parent runs; of its children none does yet: one that says so was left
        by a driver that was killed."""
        if self.question:
            self.client.set_experiment_tag(self.experiment_id, NOTE, self.question)
        for run_id in self.runs.values():
            if self.status[run_id] == "RUNNING":
                self.client.update_run(run_id, status="SCHEDULED")
                self.status[run_id] = "SCHEDULED"
        if self.parent:
            self.client.update_run(self.parent, status="RUNNING")
        else:
            everything = dict(tags) | {KIND: "study", "mlflow.runName": name}
            self.parent = str(self.client.create_run(self.experiment_id, tags=everything).info.run_id)

    def _create(self, record: RunRecord) -> str:
        tags = {KEY: record.key, KIND: record.kind, "mlflow.runName": entities.run_name(record, self.experiment)}
        if self.parent:
            tags["mlflow.parentRunId"] = self.parent
        started = int(record.started * 1000)
        run_id = str(self.client.create_run(self.experiment_id, start_time=started, tags=tags).info.run_id)
        self.runs[record.key], self.status[run_id] = run_id, "RUNNING"
        return run_id

    def _describe(self, run_id: str, record: RunRecord) -> None:
        params, facts = entities.params(record), entities.facts(record)
        for start in range(0, max(len(params), 1), PARAMS_A_CALL):
            self.client.log_batch(run_id, params=params[start : start + PARAMS_A_CALL], metrics=facts)
        self.client.log_dict(run_id, record.config, "config.json")
        self._artifacts(run_id, record)

    def _view(self, record: RunRecord) -> None:
        """What is swept has a column in the experiment's table of runs."""
        if not self.columns.keys() >= record.settings.keys():
            self.columns |= dict.fromkeys(record.settings)
            view = entities.view(record.config["monitor"], self.columns)
            self.client.set_experiment_tag(self.experiment_id, f"{VIEW}{BEST_FIRST}", view)

    def _artifacts(self, run_id: str, record: RunRecord) -> None:
        """What the run's folder has to show; again when it is over, for a run that went on elsewhere says so there."""
        if (record.folder / ARTIFACTS).is_dir():
            self.client.log_artifacts(run_id, str(record.folder / ARTIFACTS))

    def _model(self, run_id: str, record: RunRecord) -> None:
        """The model folder as one of MLflow's models, with its files; last the tag that says that it is whole."""
        name, params = record.folder.name, {param.key: param.value for param in entities.params(record)}
        begun = self.client.search_logged_models([self.experiment_id], f"source_run_id = '{run_id}'")
        model = begun[0] if begun else self.client.create_logged_model(self.experiment_id, name, run_id, params=params)
        for path in entities.model_files(record):
            self.client.log_model_artifact(model.model_id, str(path))
        self.client.log_batch(run_id, metrics=entities.bests(record, model.model_id))
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.set_tag(run_id, MODEL, model.model_id)

    def _batches(self, record: RunRecord) -> Iterator[list[Metric]]:
        """The epochs that are missing, whole ones in every call: MLflow takes all of a call or nothing."""
        batch: list[Metric] = []
        for epoch in range(self.logged[record.key] + 1, len(record.epochs) + 1):
            points = entities.points(record, epoch)
            if len(batch) + len(points) > METRICS_A_CALL:
                yield batch
                batch = []
            batch += points
        if batch:
            yield batch

    def _finish(self, run_id: str, record: RunRecord) -> None:
        """Its best, its cause, its status; last the tag that says that all of it is there."""
        from mlflow.entities import RunTag

        self._artifacts(run_id, record)
        ended = int(record.ended * 1000)
        tags = {STATUS: record.status, CAUSE: record.cause, NOTE: record.cause}
        tags[COMPLETE] = str(len(record.epochs))
        if record.micro_batch:
            tags[MICRO_BATCH] = str(record.micro_batch)
        best = entities.bests(record)
        self.client.log_batch(run_id, metrics=best, tags=[RunTag(name, value) for name, value in tags.items()])
        self.client.set_terminated(run_id, MLFLOW_STATUS[record.status], end_time=ended)


def _client() -> MlflowClient:
    """A client on a database that exists. Creating one takes MLflow some ten seconds; it gets WAL once, then."""
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # its troubles are told in a sentence, when all has ended
    fresh = not server() and not database().exists()
    if fresh:
        places.runs_root().mkdir(parents=True, exist_ok=True)
    with no_folder_of_the_url():
        client = MlflowClient(tracking_uri=tracking_uri())
        client.search_experiments(max_results=1)
    if fresh:
        with sqlite3.connect(database()) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
    return client


@contextmanager
def no_folder_of_the_url() -> Iterator[None]:
    """MLflow makes the folder that a quoted URL would have if it were a path, `a%3Fb` beside `a?b`: it goes again."""
    folder = Path(tracking_uri().removeprefix(SQLITE)).parent
    missing = [each for each in (folder, *folder.parents) if not server() and not each.exists()]
    try:
        yield
    finally:
        for stray in missing:
            if stray != database().parent and stray.exists():
                with suppress(OSError):
                    stray.rmdir()


def differences(experiment: str, records: Iterable[RunRecord]) -> list[str]:
    """Where MLflow says something else than the records, a sentence each; empty if it was never asked to say it."""
    if not is_there():
        return []
    try:
        client = _client()
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return [f"MLflow has no experiment '{experiment}'; `run` the study again, and it is filled in"]
        return [text for record in records if record.started for text in _different(client, found, record)]
    except Exception as error:
        why = cause_of(error)
        return [f"MLflow cannot be asked: {why}; if its database is damaged, remove it and `run` the study again"]


def _different(client: MlflowClient, experiment: Experiment, record: RunRecord) -> Iterator[str]:
    runs = client.search_runs([experiment.experiment_id], f"tags.`{KEY}` = '{record.key}'")
    if len(runs) != 1:
        yield f"MLflow has {len(runs)} runs of {record.label}"
        return
    said, meant = runs[0].info.status, MLFLOW_STATUS[record.status]
    if said != meant:
        yield f"MLflow says that {record.label} is {said}, and it is {meant}"
    for name in ("train/loss", record.config["monitor"]):
        steps = sorted(point.step for point in client.get_metric_history(runs[0].info.run_id, name))
        expected = [epoch for epoch, metrics in enumerate(record.epochs, start=1) if name in metrics]
        if steps != expected:
            yield f"MLflow has {name} of {record.label} at epochs {steps}, and its record at {expected}"


def find_run(experiment: str, key: str) -> str | None:
    """The MLflow run of a record, or None if MLflow has none or cannot be asked."""
    if not is_there():
        return None
    try:
        client = _client()
        found = client.get_experiment_by_name(experiment)
        runs = client.search_runs([found.experiment_id], f"tags.`{KEY}` = '{key}'") if found else []
    except Exception:  # MLflow's trouble is never ours
        return None
    return str(runs[0].info.run_id) if runs else None


def newest_experiment(names: Iterable[str]) -> Experiment | None:
    """Of the experiments with these names the one that was made last; None if there is none, or MLflow cannot be
    asked."""
    known = set(names)
    try:
        found = _client().search_experiments(order_by=["creation_time DESC"])
    except Exception:  # MLflow's trouble is never ours
        return None
    return next((each for each in found if each.name in known), None)

"""One MLflow experiment as a mirror of the records: runs, metrics by epoch, artifacts, models, statuses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from xlite_search import places
from xlite_search.records import ARTIFACTS, TABLE, RunRecord
from xlite_search.tracking import entities
from xlite_search.tracking.entities import BEST_FIRST, NOTE, VIEW
from xlite_search.tracking.store import KEY, MLFLOW_STATUS, SQLITE, connect, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import Metric

KIND, STATUS, CAUSE = "xlite.kind", "xlite.status", "xlite.cause"
#: of an ensemble: its members' names
MEMBERS = "xlite.members"
#: of a run that is over: how many epochs it has; images at once, where memory asked for fewer than the config says
COMPLETE, MICRO_BATCH = "xlite.epochs", "xlite.micro_batch"
#: of a run that has been made a model: MLflow's id of it
MODEL = "xlite.model"
#: MLflow takes at most 1,000 metrics and 100 params a call
METRICS_A_CALL, PARAMS_A_CALL = 1000, 100


class Mirror:
    """The experiment as MLflow has it; lives in the recorder's thread. Every call can be made again.

    runs    MLflow's run of every record that has one, by key
    status  what MLflow says of each run
    logged  epochs that MLflow has, of the records that were seen here
    described  the records whose params and config it has
    columns    settings that the table of runs shows, in order
    models     the runs whose model folder it has, as a model with its files
    """

    def __init__(self, experiment: str, parent_tags: Mapping[str, str] | None) -> None:
        self.client, self.experiment = connect(), experiment
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
        local = tracking_uri().startswith(SQLITE)
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
        if record.kind == "ensemble":
            tags[MEMBERS] = str(record.settings["members"])
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

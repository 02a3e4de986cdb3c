"""Runs and metrics of MLflow, read from its SQLite file or by its client, which takes seconds to import.

Both answer alike; a server needs the client, and so does a file that is damaged or of a version with other tables.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


class Tracked(NamedTuple):
    """A run of MLflow's: its id, and `FINISHED` or its like."""

    id: str
    status: str


class Reader(Protocol):
    """What is read of MLflow."""

    def experiment(self, name: str) -> str | None:
        """The id of an experiment, of a deleted one too."""

    def runs(self, experiment: str, tag: str, value: str) -> list[Tracked]:
        """Those with such a tag that are not deleted, the newest first."""

    def steps(self, run: str, metric: str) -> list[int]:
        """At which a run has values of a metric, ascending."""


class FileReader:
    """Of a connection to MLflow's file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def experiment(self, name: str) -> str | None:
        found = self._rows("select experiment_id from experiments where name = ?", name)
        return str(found[0][0]) if found else None

    def runs(self, experiment: str, tag: str, value: str) -> list[Tracked]:
        query = (
            "select runs.run_uuid, runs.status from runs join tags on tags.run_uuid = runs.run_uuid "
            "where runs.experiment_id = ? and runs.lifecycle_stage = 'active' and tags.key = ? and tags.value = ? "
            "order by runs.start_time desc, runs.run_uuid"
        )
        return [Tracked(*row) for row in self._rows(query, experiment, tag, value)]

    def steps(self, run: str, metric: str) -> list[int]:
        query = "select step from metrics where run_uuid = ? and key = ? order by step"
        return [int(step) for (step,) in self._rows(query, run, metric)]

    def _rows(self, query: str, *values: str) -> list[tuple[str, ...]]:
        return self.connection.execute(query, values).fetchall()


class ClientReader:
    """Of MLflow's client."""

    def __init__(self, client: MlflowClient) -> None:
        self.client = client

    def experiment(self, name: str) -> str | None:
        found = self.client.get_experiment_by_name(name)
        return str(found.experiment_id) if found else None

    def runs(self, experiment: str, tag: str, value: str) -> list[Tracked]:
        found = self.client.search_runs([experiment], f"tags.`{tag}` = '{value}'")
        return [Tracked(str(run.info.run_id), str(run.info.status)) for run in found]

    def steps(self, run: str, metric: str) -> list[int]:
        return sorted(int(point.step) for point in self.client.get_metric_history(run, metric))

"""Runs of any MLflow experiment, whoever logged them, as plain values. Nothing is written."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xlite_search.errors import BadInput, did_you_mean
from xlite_search.provenance import version_of
from xlite_search.tracking.store import KEY, MLFLOW_STATUS, SQLITE

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

PAGE = 1000
COMMIT = "mlflow.source.git.commit"
#: a status as a record of ours has it; others stay as MLflow has them, in small letters
STATUS = {theirs: ours for ours, theirs in MLFLOW_STATUS.items()} | {"SCHEDULED": "waiting"}


@dataclass(frozen=True)
class LoggedRun:
    """A run as MLflow has it: its params as text, of each metric the last value.

    commit  of the code, if it was logged
    ours    it was logged by this program: params that are not there have their defaults
    """

    name: str
    id: str
    status: str
    params: dict[str, str]
    metrics: dict[str, float]
    commit: str = ""
    ours: bool = False


def logged_runs(uri: str, experiment: str) -> list[LoggedRun]:
    """The runs of an experiment, oldest first, without those that have no metric: parents of others, say.

    `uri` is a server, a database (`sqlite:///...`, or the file), or a folder as older versions of MLflow write it.

    Raises:
        BadInput: there is no such store or experiment, or MLflow cannot read it.
    """
    where = _store(uri)
    try:
        client = _client(where)
        found = client.get_experiment_by_name(experiment)
        known = [] if found else [each.name for each in client.search_experiments(max_results=PAGE)]
        runs = [_logged(run) for run in _runs(client, found.experiment_id)] if found else []
    except Exception as error:  # MLflow and what lies below it raise dozens of kinds
        raise BadInput(
            f"--mlflow {uri}: MLflow cannot read it ({type(error).__name__}): is it a server that runs, or a store "
            f"that MLflow {version_of('mlflow')} reads?"
        ) from None
    if found is None:
        there = f"; there are {', '.join(known[:8])}" if known else "; there is none"
        raise BadInput(
            f"--experiment {experiment}: {uri} has none of that name{did_you_mean(experiment, known) or there}"
        )
    return [run for run in runs if run.metrics]


def _store(uri: str) -> str:
    """The URI of a store that is there: MLflow makes a new one where there is none."""
    if "://" in uri and not uri.startswith((SQLITE, "file:")):
        return uri
    path = Path(uri.removeprefix(SQLITE).removeprefix("file://").removeprefix("file:")).absolute()
    inside = path / "mlflow.db"
    path = inside if inside.is_file() else path
    if path.is_file():
        return SQLITE + path.as_posix().replace("%", "%25").replace("?", "%3F")
    if not path.is_dir() or not any(path.glob("*/meta.yaml")):
        raise BadInput(
            f"--mlflow {uri}: there is no MLflow database or folder of runs; expected a server, {SQLITE}FILE, ..."
        )
    return path.as_uri()


def _client(where: str) -> MlflowClient:
    if where.startswith("file:"):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow reads its older form when asked to alone
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return MlflowClient(tracking_uri=where)


def _runs(client: MlflowClient, experiment: str) -> Iterator[Run]:
    token = None
    while True:
        page = client.search_runs(
            [experiment], max_results=PAGE, order_by=["attributes.start_time ASC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _logged(run: Run) -> LoggedRun:
    status = str(run.info.status)
    tags = dict(run.data.tags)
    metrics = {str(name): float(value) for name, value in run.data.metrics.items()}
    return LoggedRun(
        str(run.info.run_name or run.info.run_id),
        str(run.info.run_id),
        STATUS.get(status, status.lower()),
        {str(name): str(value) for name, value in run.data.params.items()},
        {name: value for name, value in metrics.items() if abs(value) < float("inf")},
        str(tags.get(COMMIT, "")),
        KEY in tags,
    )

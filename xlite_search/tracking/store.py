"""MLflow's store: where it is, a client on it, and what it has of our records."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from xlite_search import places
from xlite_search.errors import cause_of
from xlite_search.records import RunRecord
from xlite_search.tracking.reading import ClientReader, FileReader, Reader, Tracked

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.tracking import MlflowClient

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # the recorder tries again by itself, and looks first
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

Answer = TypeVar("Answer")

#: tag of a run: the key of its record
KEY = "xlite.trial_key"
#: MLflow's status for each of a record's
MLFLOW_STATUS = {
    "waiting": "SCHEDULED",
    "running": "RUNNING",
    "paused": "SCHEDULED",
    "finished": "FINISHED",
    "stopped": "KILLED",
    "failed": "FAILED",
}
SQLITE = "sqlite:///"


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


def connect() -> MlflowClient:
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


def differences(experiment: str, records: Iterable[RunRecord], again: str = "`run` the study again") -> list[str]:
    """Where MLflow says something else than the records, a sentence each; empty if it was never asked to say it.

    `again` is what fills in what it lacks.
    """
    if not is_there():
        return []
    begun = [record for record in records if record.started]
    try:
        return _asked(lambda reader: list(_different(reader, experiment, begun, again)))
    except Exception as error:
        why = cause_of(error)
        return [f"MLflow cannot be asked: {why}; if its database is damaged, remove it; {again} fills it in"]


def _asked(question: Callable[[Reader], Answer]) -> Answer:
    """What the file under the runs' folder says; MLflow's client, of a server, and of a file that cannot be read."""
    if not server():
        try:
            with closing(sqlite3.connect(database())) as connection:
                return question(FileReader(connection))
        except sqlite3.Error:
            pass  # the client will say what is wrong with it
    return question(ClientReader(connect()))


def _different(reader: Reader, experiment: str, records: Iterable[RunRecord], again: str) -> Iterator[str]:
    found = reader.experiment(experiment)
    if found is None:
        yield f"MLflow has no experiment '{experiment}'; {again}, and it is filled in"
        return
    for record in records:
        runs = reader.runs(found, KEY, record.key)
        if len(runs) == 1:
            yield from _of_run(reader, runs[0], record)
        else:
            remedy = "" if runs else f"; {again}, and it is filled in"
            yield f"MLflow has {len(runs)} runs of {record.label}{remedy}"


def _of_run(reader: Reader, run: Tracked, record: RunRecord) -> Iterator[str]:
    meant = MLFLOW_STATUS[record.status]
    if run.status != meant:
        yield f"MLflow says that {record.label} is {run.status}, and it is {meant}"
    for name in ("train/loss", record.config["monitor"]):
        steps = reader.steps(run.id, name)
        expected = [epoch for epoch, metrics in enumerate(record.epochs, start=1) if name in metrics]
        if steps != expected:
            yield f"MLflow has {name} of {record.label} at epochs {steps}, and its record at {expected}"


def find_run(experiment: str, key: str) -> str | None:
    """The MLflow run of a record, or None if MLflow has none or cannot be asked."""
    if not is_there():
        return None

    def found(reader: Reader) -> str | None:
        home = reader.experiment(experiment)
        runs = reader.runs(home, KEY, key) if home is not None else []
        return runs[0].id if runs else None

    try:
        return _asked(found)
    except Exception:  # MLflow's trouble is never ours
        return None


def newest_experiment(names: Iterable[str]) -> Experiment | None:
    """Of the experiments with these names the one that was made last; None if there is none, or MLflow cannot be
    asked."""
    known = set(names)
    try:
        found = connect().search_experiments(order_by=["creation_time DESC"])
    except Exception:  # MLflow's trouble is never ours
        return None
    return next((each for each in found if each.name in known), None)

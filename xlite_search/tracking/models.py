"""What verbs write beside a delivered model, as artifacts of the model's run in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xlite_search.errors import cause_of
from xlite_search.places import FINAL, TEACHERS
from xlite_search.records import ARTIFACTS, RunRecord
from xlite_search.tracking.mirror import Mirror
from xlite_search.tracking.store import connect, find_run


def log_files(folder: Path, names: Sequence[str]) -> str:
    """Has the model's run hold these files of its folder, and what lies in `artifacts/`; files of it before are
    replaced.

    Returns why it could not, a sentence, else nothing: what is written here does not depend on MLflow.
    """
    if not (folder / "run.json").is_file():
        return f"not in MLflow: '{folder.name}' was not trained here, and has no run"
    try:
        record = RunRecord.load(folder)
        experiment = TEACHERS if record.kind == "teacher" else FINAL
        run_id = find_run(experiment, record.key) or _made(experiment, record)
        client = connect()
        for name in names:
            client.log_artifact(run_id, str(folder / name))
        if (folder / ARTIFACTS).is_dir():
            client.log_artifacts(run_id, str(folder / ARTIFACTS))
    except Exception as error:  # whatever the trouble is, the files are there
        return f"not in MLflow: {cause_of(error)}"
    return ""


def _made(experiment: str, record: RunRecord) -> str:
    mirror = Mirror(experiment, None)
    mirror.sync(record)
    return mirror.runs[record.key]

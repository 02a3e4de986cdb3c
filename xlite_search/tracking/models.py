"""What verbs write beside a delivered model, as artifacts of the model's run in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xlite_search import model_folder, places
from xlite_search.errors import cause_of
from xlite_search.places import FINAL, TEACHERS
from xlite_search.records import ARTIFACTS, RunRecord
from xlite_search.tracking import made, store
from xlite_search.tracking.mirror import Mirror

#: a training's record, within its folder
RUN = "run.json"


def log_files(folder: Path, names: Sequence[str], anew: Path | None = None) -> str:
    """Has the model's run hold these files of its folder, and what lies in `artifacts/`; files of it before are
    replaced, and a run that MLflow has not, or has otherwise than the record, is written first. What the run holds of
    `anew`, a folder in `artifacts/`, goes before.

    Returns why it could not, a sentence, else nothing: what is written here does not depend on MLflow.
    """
    try:
        record = record_of(folder)
        if record is None:
            return f"not in MLflow: '{folder.name}' was not trained here, and has no run"
        mirror, run_id = mirrored(record)
        for name in names:
            mirror.client.log_artifact(run_id, str(folder / name))
        if anew is not None:
            _remove(mirror.client.get_run(run_id).info.artifact_uri, anew.relative_to(ARTIFACTS).as_posix())
        if (folder / ARTIFACTS).is_dir():
            mirror.client.log_artifacts(run_id, str(folder / ARTIFACTS))
    except Exception as error:  # whatever the trouble is, the files are there
        return f"not in MLflow: {cause_of(error)}"
    return ""


def _remove(uri: str, path: str) -> None:
    """Files of an earlier call that have other names would stay beside those of this one. (The client has no such
    method.)"""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(uri).delete_artifacts(path)


def differences(folder: Path) -> list[str]:
    """Where MLflow says something else of a model than its record, a sentence each; nothing of one without a run."""
    record = record_of(folder)
    if record is None:
        return []
    return store.differences(experiment_of(record), [record], again=f"`python -m xlite_search card {folder.name}`")


def mirrored(record: RunRecord) -> tuple[Mirror, str]:
    """The experiment of a model, and the model's run there, which says what the record says."""
    mirror = Mirror(experiment_of(record), None)
    mirror.sync(record)
    return mirror, mirror.runs[record.key]


def record_of(folder: Path) -> RunRecord | None:
    """The record of a model's run: its training's; of an ensemble one made of its members'; of a checkpoint that was
    taken in, one of what is known of it. None of other models that were not trained here."""
    if (folder / RUN).is_file():
        return RunRecord.load(folder)
    if not model_folder.exists(folder):
        return None
    about = model_folder.manifest_of(folder)
    members = [folder.parent / name for name in about.members]
    if members and all((member / RUN).is_file() for member in members):
        return made.of_ensemble(folder, about, [RunRecord.load(member) for member in members])
    return made.of_checkpoint(folder, about) if about.provenance.get("file") else None


def experiment_of(record: RunRecord) -> str:
    """Where a model's run is: among the teachers', or the final trainings'."""
    among_teachers = record.folder.absolute() == places.teacher_folder(record.folder.name)
    return TEACHERS if record.kind == "teacher" or among_teachers else FINAL

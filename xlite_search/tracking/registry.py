"""MLflow's model registry: an exported folder as a version of a registered model, with alias `champion`.

A version is its files alone (ONNX, safetensors, JSON): no flavour, so that nothing unpickles when it is loaded. The
same export again is the same version.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlite_search import storage
from xlite_search.errors import cause_of
from xlite_search.places import FINAL
from xlite_search.tracking.mirror import Mirror
from xlite_search.tracking.models import mirrored, record_of
from xlite_search.tracking.store import connect

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

CHAMPION = "champion"
#: tag of a version: a hash of all files of the export
EXPORT = "xlite.export"


def register(name: str, exported: Path, folder: Path, about: dict[str, Any]) -> tuple[str, str]:
    """Registers an exported folder, which `about` is the manifest of, made of the model in `folder`.

    Returns the version and why there is none: one of them is empty. What is exported does not depend on MLflow.
    """
    try:
        client, of = connect(), storage.digest(about["files"])
        _expect_registered(client, name, about)
        version = _known(client, name, of) or _made(client, name, exported, folder, of, about)
        client.set_registered_model_alias(name, CHAMPION, version)
    except Exception as error:  # whatever the trouble is, the export is there
        return "", f"not in MLflow's model registry: {cause_of(error)}"
    return version, ""


def _expect_registered(client: MlflowClient, name: str, about: dict[str, Any]) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=f"{about['model']}: {', '.join(about['classes'])}")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _known(client: MlflowClient, name: str, of: str) -> str:
    """The version that has these files already, or nothing."""
    quoted = name.replace("'", "''")
    found = client.search_model_versions(f"name = '{quoted}'")
    return next((str(each.version) for each in found if each.tags.get(EXPORT) == of), "")


def _made(client: MlflowClient, name: str, exported: Path, folder: Path, of: str, about: dict[str, Any]) -> str:
    """A new version: first the files, as one of MLflow's models of the model's run, if it has one."""
    mirror, run_id = _run(folder)
    model = client.create_logged_model(mirror.experiment_id, f"{folder.name}-export", run_id)
    client.log_model_artifacts(model.model_id, str(exported))
    client.finalize_logged_model(model.model_id, "READY")
    source, tags = model.artifact_location, {EXPORT: of, "xlite.sha256": about["sha256"]}
    made = client.create_model_version(name, source, run_id, tags=tags)
    return str(made.version)


def _run(folder: Path) -> tuple[Mirror, str | None]:
    """The experiment of the model, and its run there; a model that was not trained here has none."""
    record = record_of(folder)
    return mirrored(record) if record else (Mirror(FINAL, None), None)

"""Files of a model in MLflow, as a verb that wrote them leaves them there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def track(folder: Path, names: Sequence[str] = (), anew: Path | None = None) -> None:
    """Has the model's run hold these files and what lies in `artifacts/`, of its folder `anew` nothing else; MLflow's
    trouble is a line on stderr."""
    from xlite_search import console
    from xlite_search.tracking.models import log_files

    with console.Wait("MLflow is being written"):
        trouble = log_files(folder, names, anew)
    if trouble:
        console.say(trouble)

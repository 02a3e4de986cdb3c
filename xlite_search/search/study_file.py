"""Study files: runs a file such as `search_spaces/kd_grid.py` and gives its `study`, or says in a sentence why not."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from xlite_search.errors import BadInput, did_you_mean
from xlite_search.search.study import Study
from xlite_search.trainable import load_file


def load_study(where: str) -> Study:
    """The `study` of a file such as `search_spaces/kd_grid.py`.

    The file's project (the folder above) goes on the import path, for its trainables.

    Raises:
        BadInput: there is no such file, it cannot be run, it has no `study`, or its space is wrong.
    """
    path = Path(where).absolute()
    if path.is_dir() or (path.exists() and path.suffix != ".py"):
        what = "a folder" if path.is_dir() else "no Python file"
        raise BadInput(f"{where} is {what}; expected a study file like search_spaces/kd_grid.py")
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.py")]) if path.parent.is_dir() else ""
        raise BadInput(f"{where}: there is no such study file; expected one like search_spaces/kd_grid.py{near}")
    study = getattr(_loaded(path, where), "study", None)
    if not isinstance(study, Study):
        raise BadInput(f"{where}: has no `study = Study(...)`; see search_spaces/kd_grid.py for how a study looks")
    return study


def _loaded(path: Path, where: str) -> ModuleType:
    """Runs the file. A Ray that it starts would be its own: with its own settings and words, and ended by nobody."""
    before = _ray_runs()
    module = load_file(path, where)
    if _ray_runs() and not before:
        sys.modules["ray"].shutdown()
        raise BadInput(
            f"{where}: it starts Ray (ray.init); leave that out: `run` starts one of its own, or joins a cluster's by "
            f"--address"
        )
    return module


def _ray_runs() -> bool:
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())

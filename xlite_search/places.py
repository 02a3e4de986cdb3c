"""Where things live: prepared data, studies, teachers, models and the tracking database.

`XLITE_RUNS` (default `mlruns`) and `XLITE_DATA` (default `data`) move the two folders. Paths are absolute:
Ray changes the folder of its workers.
"""

from __future__ import annotations

import os
from pathlib import Path

from xlite_search.errors import BadInput


def runs_root() -> Path:
    return Path(os.environ.get("XLITE_RUNS", "mlruns")).absolute()


def data_root() -> Path:
    return Path(os.environ.get("XLITE_DATA", "data")).absolute()


def data_folder(name: str) -> Path:
    return data_root() / plain_name(name, "data.name")


def study_folder(name: str) -> Path:
    return runs_root() / "studies" / plain_name(name, "the study name")


def studies() -> list[str]:
    """Names of the studies that have begun here."""
    return sorted(path.parent.name for path in (runs_root() / "studies").glob("*/study.json"))


def teacher_folder(key: str) -> Path:
    return runs_root() / "teachers" / key


def model_folder(name: str) -> Path:
    return runs_root() / "models" / plain_name(name, "the model name")


def environment() -> dict[str, str]:
    """The folders, and the settings of this machine if there are any, for a process that starts elsewhere."""
    found = {"XLITE_RUNS": str(runs_root()), "XLITE_DATA": str(data_root())}
    settings = machine_file()
    return found | ({"XLITE_MACHINE": str(settings)} if settings.is_file() else {})


def machine_file() -> Path:
    """This machine's settings, whether they are there or not."""
    return Path(os.environ.get("XLITE_MACHINE") or "machine.toml").absolute()


def plain_name(name: str, what: str) -> str:
    """A name that is safe as a folder on Linux and Windows.

    Raises:
        BadInput: it is empty, holds other than letters, digits, `.`, `_`, `-`, or starts with a dot.
    """
    if not name or name.startswith(".") or not all(c.isalnum() or c in "._-" for c in name):
        raise BadInput(f"{what} is '{name}': use letters, digits, '.', '_' and '-' only, not starting with '.'")
    return name

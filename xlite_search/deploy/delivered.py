"""A delivered model as its card reads it, once: what lies in its folder, its data if they are here, the export if it is
being written."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from xlite_search.data.dataset import Data
from xlite_search.deploy.folder import ExportManifest
from xlite_search.errors import Damaged, XliteError
from xlite_search.evaluation.calibration import Calibration, read_calibration
from xlite_search.evaluation.scored import data_of
from xlite_search.evaluation.thresholds import Thresholds, read_thresholds
from xlite_search.model_folder import ModelManifest, read_model


@dataclass(frozen=True)
class Delivered:
    """A model folder with what is read of it once; `data` is None where its data are not here, `why` says so.

    about     of an ensemble its own; `first` is then its first member's, else the same
    exported  and `home` are what `export` is writing, if it is
    """

    folder: Path
    about: ModelManifest
    first: ModelManifest
    calibration: Calibration | None
    thresholds: Thresholds | None
    data: Data | None
    why: str = ""
    exported: ExportManifest | None = None
    home: Path | None = None
    missing: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, exported: ExportManifest | None = None, home: Path | None = None) -> Delivered:
        """Raises BadInput or Damaged as the readers of a model folder's files do."""
        about = read_model(folder)
        first = read_model(folder.parent / about.members[0]) if about.members else about
        data, why = _data(about)
        found = read_calibration(folder), read_thresholds(folder)
        return cls(folder, about, first, *found, data, why, exported, home)

    @property
    def judged(self) -> dict[str, str]:
        """The hashes that `evaluate` writes with its figures."""
        hashes = {"calibration": self.calibration, "thresholds": self.thresholds}
        return {"sha256": self.about.sha256} | {name: each.hash if each else "" for name, each in hashes.items()}

    @cached_property
    def best(self) -> tuple[dict[str, Any] | None, str]:
        """What `best` exports of the study that it is the choice of; or None, and why that is not to be had."""
        from xlite_search.results.best import best

        made = self.first.provenance
        try:
            found = best(str(made.get("study", "")))
        except (XliteError, OSError) as error:
            return None, str(error)
        if found["trial"] != made.get("trial"):
            return None, f"the best of study '{made['study']}' is another trial by now, {found['label']}"
        return found, ""

    @property
    def folders(self) -> list[Path]:
        """Of the trainings: its own, or its members'."""
        return [self.folder.parent / name for name in self.about.members] or [self.folder]


def verb(rest: str) -> str:
    """A command as a sentence has it."""
    return f"`python -m xlite_search {rest}`"


def _data(about: ModelManifest) -> tuple[Data | None, str]:
    """The model's data as it was trained on them, or why there are none."""
    try:
        data = data_of(about)
    except (XliteError, OSError) as error:
        return None, str(error)
    same = about.data is None or (data.packed.fingerprint, data.split.fingerprint) == (
        about.data.fingerprint,
        about.data.split,
    )
    return (
        (data, "")
        if same
        else (None, "the data set of this name is not the one that it was trained on, or is split otherwise")
    )


def read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        raise Damaged(f"{path} is not what was written; remove it and make it again")
    return found

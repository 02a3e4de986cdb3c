"""Split lists in files: names of images that somebody gives, and those that `split` writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from xlite_search import storage
from xlite_search.data import integrity
from xlite_search.data.sources import LabelTable, image_id
from xlite_search.data.sources.labels import labels_in, read_names, write_labels
from xlite_search.data.stratify import SMALLEST_SHARE, balance, linked, stratify
from xlite_search.errors import BadInput
from xlite_search.remembered import Remembered, state_of
from xlite_search.spec import Spec

SPLITS = ("train", "val", "test")
TRAIN, VAL, TEST, NOWHERE = 0, 1, 2, -1
REPORT = "split.json"


_SAID = Remembered[str](8)


class FromFiles(Spec):
    """Name lists in the folder `path`. What counts is what they say: its hash is filled in when a config is resolved.

    incomplete  the lists may name images that this data set does not have: it is a part of what they were made for
    """

    path: str = ""
    sha256: str = ""
    incomplete: bool = False

    def lists(self) -> dict[str, tuple[str, ...]]:
        """Names by list. Raises BadInput if a list is missing or cannot be read."""
        raise NotImplementedError

    def resolved(self) -> Any:
        """With an absolute path and the hash of what the lists say."""
        return self.model_copy(update={"path": str(Path(self.path).absolute()), "sha256": self._described()})

    def files(self) -> dict[str, Path]:
        """The file of each list. Raises BadInput if one is missing."""
        raise NotImplementedError

    def _described(self) -> str:
        """Hash of what the lists say: read once while their files are as they were."""
        key = type(self), *(state_of(path) for path in self.files().values())
        return _SAID.get(key, lambda: _digest(self.lists()))

    @property
    def parts(self) -> tuple[str, ...]:
        """The splits that are to have images."""
        return SPLITS

    @property
    def shares(self) -> dict[str, float]:
        """The share that each split is to have of the images that are dealt; empty where the lists say who is where."""
        return {}

    def homes(self, table: LabelTable, set_aside: Iterable[str]) -> list[str]:
        """The list that each image of the table is in, `[image]`; empty for none.

        Raises:
            BadInput: an image is in two lists, too many of a list are not in the table, or the lists were changed.
        """
        lists = self.lists()
        if self.sha256 and self.sha256 != _digest(lists):
            raise BadInput(f"the lists in {self.path} were changed since this config was made: they say something else")
        home: dict[str, str] = {}
        for split, names in lists.items():
            for name in names:
                if home.setdefault(image_id(name), split) != split:
                    raise BadInput(f"{self.path}: image {name} is in the lists {home[image_id(name)]} and {split}")
        if not self.incomplete:
            there = {image_id(name) for name in (*table.names, *set_aside)}
            integrity.expect_listed(
                self.path, {s: [n for n in ns if image_id(n) not in there] for s, ns in lists.items()}, lists
            )
        return [home.get(image_id(name), "") for name in table.names]


class Official(FromFiles):
    """NIH's split: test_list.txt is the test split, a share `val` of train_val_list.txt the validation split, dealt by
    patient and stratified."""

    name: Literal["official"] = "official"
    val: float = Field(0.125, ge=SMALLEST_SHARE, lt=1)
    seed: int = 0

    def lists(self) -> dict[str, tuple[str, ...]]:
        return {name: read_names(path) for name, path in self.files().items()}

    def files(self) -> dict[str, Path]:
        """train_val_list.txt and test_list.txt."""
        return {name: _list_file(self.path, name) for name in ("train_val", "test")}

    @property
    def shares(self) -> dict[str, float]:
        """The shares of train and validation in train_val_list.txt."""
        return {"train": 1 - self.val, "val": self.val}

    def deal(self, table: LabelTable, set_aside: Iterable[str] = ()) -> NDArray[np.int64]:
        """Split number of every image, `[image]`, -1 for none."""
        numbers = {"train_val": TRAIN, "test": TEST, "": NOWHERE}
        codes = np.array([numbers[home] for home in self.homes(table, set_aside)])
        integrity.expect_covered(self.path, [table.names[row] for row in np.flatnonzero(codes == NOWHERE)], len(table))
        rows = np.flatnonzero(codes == TRAIN)
        groups = linked(table)
        codes[rows] = stratify(table.labels[rows], [groups[row] for row in rows], [1 - self.val, self.val], self.seed)
        return codes


class Lists(FromFiles):
    """Anybody's lists: train, val and, if it is there, test, as .csv or .txt, gz or not, with labels or without."""

    name: Literal["lists"] = "lists"

    def lists(self) -> dict[str, tuple[str, ...]]:
        return {name: read_names(path) for name, path in self.files().items()}

    def deal(self, table: LabelTable, set_aside: Iterable[str] = ()) -> NDArray[np.int64]:
        """Split number of every image, `[image]`, -1 for none."""
        numbers = {name: number for number, name in enumerate(SPLITS)} | {"": NOWHERE}
        codes = np.array([numbers[home] for home in self.homes(table, set_aside)])
        for path in self.files().values():
            if (said := labels_in(path, table.classes)) is not None:
                integrity.expect_same_labels(path, *said, table)
        return codes

    @property
    def parts(self) -> tuple[str, ...]:
        """The splits that are to have images."""
        return tuple(self.files())

    def files(self) -> dict[str, Path]:
        """Those of train, validation and, if it is there, test."""
        files = {name: _list_file(self.path, name, needed=name != "test") for name in SPLITS}
        return {name: path for name, path in files.items() if path.is_file()}


def write_lists(folder: Path, table: LabelTable, codes: NDArray[np.int64], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves `<split>.csv` (multi-hot), `<split>_patients.txt` and `split.json` in a folder; returns the last.

    Raises:
        BadInput: the folder holds another split, or files that are not ours.
    """
    rows = rows_by_split(codes)
    named = {split: [table.names[row] for row in found] for split, found in rows.items() if len(found)}
    fingerprint = storage.digest(named)[:16]
    about = {"spec": dict(spec), "fingerprint": fingerprint, "notes": list(table.notes)}
    about |= balance(table, {split: rows[split] for split in named})
    if folder.is_dir() and any(folder.iterdir()):
        ours = (folder / REPORT).exists() and storage.read_manifest(folder / REPORT)["fingerprint"] == fingerprint
        if not ours:
            raise BadInput(f"{folder} is not empty and holds another split, or other files; give a new folder")
    for split in named:
        part = table.part(rows[split])
        write_labels(folder / f"{split}.csv", part)
        patients = "\n".join(sorted(set(part.groups)))
        storage.write_atomic(folder / f"{split}_patients.txt", f"{patients}\n".encode())
    storage.write_manifest(folder / REPORT, about)
    return about


def rows_by_split(codes: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Rows of each split, ascending, from the split numbers of all images."""
    return {name: np.flatnonzero(codes == number) for number, name in enumerate(SPLITS)}


def _digest(lists: Mapping[str, tuple[str, ...]]) -> str:
    return storage.digest({name: list(names) for name, names in lists.items()})


def _list_file(folder: str, split: str, *, needed: bool = True) -> Path:
    """`train.csv`, `train.txt`, `train_list.txt`, ..., plain or gz.

    Raises:
        BadInput: no folder is named, it is none, or it has no such file, or two.
    """
    home = Path(folder)
    if not folder or not home.is_dir():
        raise BadInput(f"data.split.path = '{folder}': expected a folder that has {split}.csv or {split}_list.txt")
    names = [f"{split}{middle}.{end}" for middle in ("", "_list") for end in ("csv", "csv.gz", "txt", "txt.gz")]
    found = [home / name for name in names if (home / name).is_file()]
    if len(found) > 1:
        raise BadInput(f"{home}: {found[0].name} and {found[1].name} are both there; keep the one that is meant")
    if needed and not found:
        raise BadInput(f"{home}: no list of the {split} images; expected {split}.csv or {split}_list.txt, gz or not")
    return found[0] if found else home / names[0]

"""A folder of image files and the table of their labels: NIH's, or any other that `read_labels` takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlite_search import storage
from xlite_search.data.boxes import Box
from xlite_search.data.preprocess import Raw
from xlite_search.data.sources import LabelTable, Loss, Unreadable, chestxray14, image_id
from xlite_search.data.sources.box_list import read_boxes
from xlite_search.data.sources.chest import NO_FINDING
from xlite_search.data.sources.images import find_files, read_image
from xlite_search.data.sources.labels import read_labels
from xlite_search.errors import BadInput

NO_FILE, EMPTY_FILE = Loss("no such file", "absent"), Loss("the file is empty", "damaged")


@dataclass(frozen=True)
class Folder:
    """`images` holds the files at any depth (NIH ships twelve `images_0xx/images`); `labels` is the table.

    The table is read once and the folder is scanned once. A copy in another process (pickle) knows where each row's
    file is, and does neither again to read pixels.

    name            what the data are called; NIH's images, known by their names, are chestxray14's whatever is said
    cite            what the data's owner asks for; None: NIH's notice for NIH's images, none for others
    classes         as for `read_labels`, and so is `patient_column`
    incomplete      the table may name images that are not there: the data set is of those that are
    channels        1: the images are gray, colour counts by its luminance; 3: they are in colour
    box_list        the file that has boxes around findings, in pixels of these images; None if there is none
    normal          what an image of no class is called
    """

    images: Path
    labels: Path
    name: str = ""
    cite: str | None = None
    classes: tuple[str, ...] = ()
    patient_column: str = ""
    incomplete: bool = False
    channels: int = 1
    box_list: Path | None = None
    normal: str = NO_FINDING

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise BadInput(f"--channels {self.channels}: expected 1 for gray, or 3 for colour")
        if not self.images.is_dir():
            raise BadInput(f"--images {self.images}: there is no such folder; give the one that holds the images")
        if not self.labels.is_file():
            raise BadInput(f"--labels {self.labels}: there is no such file; give the label table of these images")

    @property
    def notice(self) -> str:
        if self.cite is not None:
            return self.cite
        return chestxray14.NOTICE if self._is_nih else ""

    def describe(self) -> dict[str, object]:
        """The name, the boxes' hash, and of an incomplete set how many images and patients its label table has."""
        name = chestxray14.NAME if self._is_nih else self.name
        about: dict[str, object] = {"source": name}
        if self.box_list:
            about["boxes"] = storage.digest(sorted(self._boxes.items()))[:16]
        if len(self._rows) == len(self._whole):
            return about
        patients = len(set(self._whole.groups))
        return about | {"part_of": {"images": len(self._whole), "patients": patients}}

    def table(self) -> LabelTable:
        """The label table, in its own order, whether the images are there or not; of an incomplete set, those there.

        Raises:
            BadInput: as `read_labels`; or no image is there at all.
        """
        return self._table

    def lost(self) -> dict[int, Loss]:
        """Rows without a file, or whose file has no bytes.

        Raises:
            BadInput: the table has an image whose name two files have.
        """
        stamps = enumerate(self.stamps())
        return {row: EMPTY_FILE if stamp else NO_FILE for row, stamp in stamps if not stamp or stamp.startswith("0-")}

    def pixels(self, row: int) -> Raw:
        if not self._files[row]:
            raise Unreadable(NO_FILE.reason)
        return read_image(self.images / self._files[row], self.channels)

    def boxes(self, row: int) -> tuple[Box, ...]:
        return self._boxes.get(row, ())

    def stamp(self, row: int) -> str:
        try:
            return _stamp(os.stat(os.path.join(self.images, self._files[row]))) if self._files[row] else ""
        except OSError:
            return ""

    def stamps(self) -> tuple[str, ...]:
        """Size and time of change of every row's file, by a scan of their folders: 112,120 files in half a second."""
        there: dict[str, str] = {}
        for folder in {os.path.dirname(file) for file in self._files if file}:
            try:
                with os.scandir(os.path.join(self.images, folder)) as entries:
                    for entry in entries:
                        there[os.path.join(folder, entry.name)] = _entry_stamp(entry)
            except OSError:
                continue
        return tuple(there.get(file, "") for file in self._files)

    @cached_property
    def _whole(self) -> LabelTable:
        found = read_labels(self.labels, self.classes, self.patient_column)
        if self.normal in found.classes:
            raise BadInput(
                f"--normal {self.normal}: that is one of the classes; it names images that have none of them"
            )
        return replace(found, normal=self.normal)

    @cached_property
    def _boxes(self) -> dict[int, tuple[Box, ...]]:
        return read_boxes(self.box_list, self._table.names, self._table.classes) if self.box_list else {}

    @cached_property
    def _is_nih(self) -> bool:
        return chestxray14.is_nih(self._whole)

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        """Rows of the whole table that the data set is of."""
        if not self.incomplete:
            return np.arange(len(self._whole))
        rows = np.flatnonzero([bool(file) for file in self._located])
        if not len(rows):
            raise BadInput(
                f"--images {self.images}: none of the {len(self._whole):,} images that {self.labels} names is there, "
                f"the first of them {self._whole.names[0]}; give the folder that holds them"
            )
        return rows

    @cached_property
    def _table(self) -> LabelTable:
        return self._whole if len(self._rows) == len(self._whole) else self._whole.part(self._rows)

    @cached_property
    def _files(self) -> tuple[str, ...]:
        return tuple(self._located[row] for row in self._rows.tolist())

    @cached_property
    def _located(self) -> tuple[str, ...]:
        """The file of each row of the whole table below `images`, empty where there is none.

        A name may have the folders that its image lies in; a file of another suffix will do. A file that is not called
        as images are counts where no other is there: DICOM files often have no suffix.
        """
        files = find_files(self.images)
        located = self._among(files.images)
        if all(located):
            return located
        return tuple(one or other for one, other in zip(located, self._among(files.others), strict=True))

    def _among(self, files: Mapping[str, tuple[Path, ...]]) -> tuple[str, ...]:
        """Of these files the one of each row of the whole table, empty where it is not among them."""
        root = os.path.join(self.images, "")
        found = [str(path).removeprefix(root) for paths in files.values() for path in paths]
        by_name, by_id = _by_end(found, self._whole.names), _by_end(map(image_id, found), self._whole.names, found)
        return tuple(self._only(name, by_name.get(name) or by_id.get(image_id(name), [])) for name in self._whole.names)

    def _only(self, name: str, files: list[str]) -> str:
        if len(files) > 1:
            one, other, *_ = (self.images / file for file in sorted(files))
            raise BadInput(f"{self.images}: two files are image {name}: {one} and {other}; remove one of them")
        return files[0] if files else ""

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)} | {
            "_files": self._files,
            "_boxes": self._boxes,
        }


def _by_end(paths: Iterable[str], names: Iterable[str], files: Iterable[str] | None = None) -> dict[str, list[str]]:
    """Files (default: `paths` themselves) by as many last parts of their paths as the names have: `a/b/1.png` is
    under `1.png`, and under `b/1.png` if some names have one folder."""
    depths = {name.count("/") + 1 for name in names}
    found: dict[str, list[str]] = {}
    paths = list(paths)
    for path, file in zip(paths, paths if files is None else files, strict=True):
        parts = path.replace(os.sep, "/").split("/")
        for depth in depths:
            if depth <= len(parts):
                found.setdefault("/".join(parts[-depth:]), []).append(file)
    return found


def _entry_stamp(entry: os.DirEntry[str]) -> str:
    try:
        return _stamp(entry.stat())
    except OSError:  # a link to nothing
        return ""


def _stamp(about: os.stat_result) -> str:
    return f"{about.st_size}-{about.st_mtime_ns}"

"""NIH ChestX-ray14: a folder of images and NIH's label table, or any other that `read_labels` takes."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlite_search.data.sources import LabelTable, Unreadable, image_id
from xlite_search.data.sources.images import find_images, read_gray
from xlite_search.data.sources.labels import read_labels
from xlite_search.errors import BadInput

NOTICE = (
    "ChestX-ray14 was provided by the NIH Clinical Center (https://nihcc.app.box.com/v/ChestXray-NIHCC). Acknowledge "
    "it and cite: X. Wang, Y. Peng, L. Lu, Z. Lu, M. Bagheri, R. M. Summers. ChestX-ray8: Hospital-scale Chest X-ray "
    "Database and Benchmarks on Weakly-Supervised Classification and Localization of Common Thorax Diseases. IEEE "
    "CVPR 2017, pp. 3462-3471."
)
NO_FILE, EMPTY_FILE = "no such file", "the file is empty"


@dataclass(frozen=True)
class ChestXray14:
    """`images` holds the files at any depth (NIH ships twelve `images_0xx/images`); `labels` is the table.
    `classes` and `patient_column` are as for `read_labels`.

    The table is read once and the folder is scanned once. A copy in another process (pickle) knows where each row's
    file is, and does neither again to read pixels.
    """

    images: Path
    labels: Path
    notice: str = NOTICE
    classes: tuple[str, ...] = ()
    patient_column: str = ""

    def __post_init__(self) -> None:
        if not self.images.is_dir():
            raise BadInput(f"--images {self.images}: there is no such folder; give the one that holds the images")
        if not self.labels.is_file():
            raise BadInput(f"--labels {self.labels}: there is no such file; give NIH's Data_Entry_2017*.csv")

    def describe(self) -> dict[str, object]:
        return {"source": "chestxray14"}

    def table(self) -> LabelTable:
        """The label table, in its own order, whether the images are there or not.

        Raises:
            BadInput: `read_labels` does.
        """
        return self._table

    def lost(self) -> dict[int, str]:
        """Rows without a file, or whose file has no bytes.

        Raises:
            BadInput: the table has an image whose name two files have.
        """
        reasons = ((row, self._loss(file)) for row, file in enumerate(self._files))
        return {row: reason for row, reason in reasons if reason}

    def pixels(self, row: int) -> NDArray[np.uint8]:
        if not self._files[row]:
            raise Unreadable(NO_FILE)
        return read_gray(self.images / self._files[row])

    def stamp(self, row: int) -> str:
        try:
            about = os.stat(os.path.join(self.images, self._files[row]))
        except OSError:
            return ""
        return f"{about.st_size}-{about.st_mtime_ns}"

    def _loss(self, file: str) -> str:
        if not file:
            return NO_FILE
        try:
            return "" if os.path.getsize(os.path.join(self.images, file)) else EMPTY_FILE
        except OSError:
            return NO_FILE

    @cached_property
    def _table(self) -> LabelTable:
        return read_labels(self.labels, self.classes, self.patient_column)

    @cached_property
    def _files(self) -> tuple[str, ...]:
        """Each row's file below `images`, empty where there is none; a file of another suffix will do."""
        found = find_images(self.images)
        by_id: dict[str, tuple[Path, ...]] = {}
        for name, paths in found.items():
            by_id[image_id(name)] = by_id.get(image_id(name), ()) + paths
        root = os.path.join(self.images, "")
        files = []
        for name in self._table.names:
            paths = found.get(name) or by_id.get(image_id(name), ())
            if len(paths) > 1:
                raise BadInput(
                    f"{self.images}: two files are image {name}: {paths[0]} and {paths[1]}; remove one of them"
                )
            files.append(str(paths[0]).removeprefix(root) if paths else "")
        return tuple(files)

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"_files": self._files}

"""NIH ChestX-ray14: a folder of PNG files and NIH's label table (`Data_Entry_2017*.csv`)."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from xlite_search.data.sources import CHEST_FINDINGS, LabelTable
from xlite_search.errors import BadInput, did_you_mean

NOTICE = (
    "ChestX-ray14 was provided by the NIH Clinical Center (https://nihcc.app.box.com/v/ChestXray-NIHCC). Acknowledge "
    "it and cite: X. Wang, Y. Peng, L. Lu, Z. Lu, M. Bagheri, R. M. Summers. ChestX-ray8: Hospital-scale Chest X-ray "
    "Database and Benchmarks on Weakly-Supervised Classification and Localization of Common Thorax Diseases. IEEE "
    "CVPR 2017, pp. 3462-3471."
)
NAME, FINDINGS, PATIENT, VIEW = "Image Index", "Finding Labels", "Patient ID", "View Position"
NO_FINDING = "No Finding"


@dataclass(frozen=True)
class ChestXray14:
    """`images` holds the files at any depth (NIH ships twelve `images_0xx/images`); `labels` is the table."""

    images: Path
    labels: Path
    notice: str = NOTICE

    def __post_init__(self) -> None:
        if not self.images.is_dir():
            raise BadInput(f"--images {self.images}: there is no such folder; give the one that holds the PNG files")
        if not self.labels.is_file():
            raise BadInput(f"--labels {self.labels}: there is no such file; give NIH's Data_Entry_2017*.csv")

    def describe(self) -> dict[str, object]:
        return {"source": "chestxray14", "labels": self.labels.name}

    def table(self) -> LabelTable:
        """The label table, in its own order, checked against the folder.

        Raises:
            BadInput: a column is missing, a label is unknown, a name appears twice, or an image is not there.
        """
        numbered = self._rows()
        rows = [row for _, row in numbered]
        names = [row[NAME] for row in rows]
        labels = np.zeros((len(rows), len(CHEST_FINDINGS)), np.uint8)
        seen: dict[str, int] = {}
        for number, (line, row) in enumerate(numbered):
            if seen.setdefault(row[NAME], line) != line:
                raise BadInput(f"{self.labels}, line {line}: image '{row[NAME]}' is already in line {seen[row[NAME]]}")
            labels[number, self._columns(row[FINDINGS], line)] = 1
        self._expect_images(names)
        return LabelTable(
            names=tuple(names),
            patients=tuple(row[PATIENT] for row in rows),
            labels=labels,
            views=tuple(row.get(VIEW) or "" for row in rows),
        )

    def pixels(self, row: int) -> NDArray[np.uint8]:
        path = self._files[self._names[row]]
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise BadInput(f"{path} cannot be read as an image; fetch it again or take it out of {self.labels.name}")
        return np.asarray(image, np.uint8)

    @cached_property
    def _files(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in sorted(self.images.rglob("*.png")):
            if found.setdefault(path.name, path) != path:
                raise BadInput(f"{self.images}: two files are named {path.name}: {found[path.name]} and {path}")
        return found

    @cached_property
    def _names(self) -> list[str]:
        return [row[NAME] for _, row in self._rows()]

    def _rows(self) -> list[tuple[int, dict[str, str]]]:
        """Rows with the file's line that they end on."""
        try:
            raw = self.labels.read_bytes()
            text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise BadInput(f"{self.labels} cannot be read as a CSV file: {error}") from None
        reader = csv.DictReader(io.StringIO(text))
        columns = list(reader.fieldnames or [])
        for wanted in (NAME, FINDINGS, PATIENT):
            if wanted not in columns:
                raise BadInput(
                    f"{self.labels}, line 1: no column '{wanted}'; expected NIH's header with '{NAME}', '{FINDINGS}' "
                    f"and '{PATIENT}', found {', '.join(repr(c) for c in columns[:6]) or 'nothing'}"
                )
        try:
            rows = [(reader.line_num, row) for row in reader]
        except csv.Error as error:
            raise BadInput(f"{self.labels}, line {reader.line_num}: not a CSV row ({error})") from None
        for line, row in rows:
            if not all(row[wanted] for wanted in (NAME, FINDINGS, PATIENT)):
                raise BadInput(f"{self.labels}, line {line}: '{NAME}', '{FINDINGS}' or '{PATIENT}' is empty")
        if not rows:
            raise BadInput(f"{self.labels} has a header and no rows")
        return rows

    def _columns(self, findings: str, line: int) -> list[int]:
        columns = []
        for finding in findings.split("|"):
            if finding == NO_FINDING:
                continue
            if finding not in CHEST_FINDINGS:
                hint = did_you_mean(finding, CHEST_FINDINGS)
                raise BadInput(f"{self.labels}, line {line}: '{finding}' is not one of the 14 findings{hint}")
            columns.append(CHEST_FINDINGS.index(finding))
        return columns

    def _expect_images(self, names: list[str]) -> None:
        missing = [name for name in names if name not in self._files]
        if missing:
            raise BadInput(
                f"{self.images}: {len(names):,} images expected from {self.labels.name}, {len(names) - len(missing):,} "
                f"found; the first missing is {missing[0]}. Give the folder that has them, or a table of those there"
            )

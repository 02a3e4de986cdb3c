"""The packed data set: one uint8 array and one index, written once, mapped by every trial.

    <XLITE_DATA>/<name>/
        manifest.json   what it was made from and how, counts, sha256 of the two files below
        index.csv       name, patient, view, sex, age, findings ("Mass|Nodule"), digest of the pixels; row i is image i
        pixels.u8       raw bytes, [image, height, width]
        stamps.json     size and time of change of each raw file when it was prepared, or last compared
        splits/         who is in which split (`data/splits.py`)
        lock            held while it is being prepared (`data/unfinished.py`)

A mapped file is never replaced in place: a data set of another size or source takes another name.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlite_search import places, storage
from xlite_search.data.sources import LabelTable, image_key
from xlite_search.errors import BadInput, Damaged, did_you_mean

PIXELS, INDEX, MANIFEST, STAMPS = "pixels.u8", "index.csv", "manifest.json", "stamps.json"
#: 3: with sex and age of each image, how it was preprocessed, and stamps of the raw files
FORMAT = 3


@dataclass(frozen=True)
class PackedSet:
    """A prepared data set. Pickles as a path: the array is mapped where it is used."""

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, name: str) -> PackedSet:
        """The data set of this name.

        Raises:
            BadInput: it is not prepared here, or by a version that wrote another format.
            Damaged: its manifest is.
        """
        folder = places.data_folder(name)
        try:
            manifest = storage.read_manifest(folder / MANIFEST)
        except FileNotFoundError:
            near = did_you_mean(name, (path.parent.name for path in folder.parent.glob(f"*/{MANIFEST}")))
            raise BadInput(
                f"data set '{name}' is not prepared in {folder.parent}{f'{near} Else' if near else ';'} prepare it "
                f"with `python -m xlite_search prepare {name} --images DIR --labels CSV`, or try the search with "
                f"--demo, which needs no data"
            ) from None
        if manifest.get("format") != FORMAT:
            raise BadInput(
                f"data set '{name}' was prepared by another version of this program, in another format: remove "
                f"{folder} and prepare it again"
            )
        return cls(folder, manifest)

    @property
    def size(self) -> int:
        """Height and width of an image, in pixels."""
        return int(self.manifest["size"])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.manifest["classes"])

    @property
    def fingerprint(self) -> str:
        """Changes if a pixel, a label, a name or the order of anything does."""
        return storage.digest([self.manifest[k] for k in ("size", "classes", "pixels_sha256", "index_sha256")])[:16]

    @property
    def set_aside(self) -> dict[str, str]:
        """Images of the label table that are not in it, and why: `{"00000013_005.png": "the file is empty"}`."""
        return {name: reason for name, reason, _ in self.manifest["set_aside"]}

    @property
    def incomplete(self) -> str:
        """A sentence if it lacks images that its label table names: set aside, or not asked for (`--incomplete`)."""
        whole = self.manifest["source"].get("part_of", {"images": self.manifest["expected"]})
        if len(self) == whole["images"]:
            return ""
        patients = f", {self.manifest['patients']:,} of {whole['patients']:,} patients" if "patients" in whole else ""
        return (
            f"incomplete: data set '{self.folder.name}' has {len(self):,} of its label table's {whole['images']:,} "
            f"images{patients}"
        )

    def __len__(self) -> int:
        return int(self.manifest["images"])

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """`[image, height, width]`, mapped read-only."""
        return np.memmap(self.folder / PIXELS, np.uint8, "r", shape=(len(self), self.size, self.size))

    @cached_property
    def table(self) -> LabelTable:
        """Names, patients and labels. Raises Damaged if they are not those that were prepared."""
        path = self.folder / INDEX
        raw = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(raw).hexdigest() != self.manifest["index_sha256"]:
            raise Damaged(f"{path} is missing or damaged: remove {self.folder} and prepare the data set again")
        return read_index(raw.decode(), self.classes)

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        """What each image's views are drawn by, `[image]`."""
        return np.array([image_key(name) for name in self.table.names], np.uint64)

    @property
    def stamps(self) -> dict[int, str]:
        """The stamp of each image's raw file by the image's row; none where what was remembered is lost."""
        try:
            return dict(enumerate(storage.read_manifest(self.folder / STAMPS)["stamps"]))
        except (FileNotFoundError, Damaged):
            return {}

    def remember(self, stamps: Sequence[str]) -> None:
        """Takes these stamps for the raw files of the images, which look as they are here. Nothing depends on it but
        the time that the next comparison takes, so a folder that may not be written to is left as it is."""
        with suppress(OSError):
            storage.write_manifest(self.folder / STAMPS, {"stamps": list(stamps)})

    def verify(self) -> None:
        """Reads every byte once.

        Raises:
            Damaged: a file is missing, or not what the manifest says.
        """
        for file, sha256 in ((PIXELS, "pixels_sha256"), (INDEX, "index_sha256")):
            path = self.folder / file
            if not path.is_file() or storage.sha256_of(path) != self.manifest[sha256]:
                raise Damaged(f"{path} is missing or damaged: remove {self.folder} and prepare the data set again")

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "manifest": self.manifest}


def digest_of(pixels: bytes) -> str:
    """16 hex digits that name these bytes: blake2b of 64 bits. Two of 10^6 images share one by chance once in 10^7."""
    return hashlib.blake2b(pixels, digest_size=8).hexdigest()


def index_text(table: LabelTable) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["name", "patient", "view", "sex", "age", "findings", "digest"])
    nothing = ("",) * len(table)
    about = [column or nothing for column in (table.views, table.sexes, table.ages)]
    findings = ["|".join(table.classes[c] for c in np.flatnonzero(row)) for row in table.labels]
    columns = (table.names, table.patients, *about, findings, table.digests or nothing)
    writer.writerows(zip(*columns, strict=True))
    return out.getvalue()


def read_index(text: str, classes: tuple[str, ...]) -> LabelTable:
    rows = list(csv.DictReader(io.StringIO(text)))
    number_of = {name: number for number, name in enumerate(classes)}
    labels = np.zeros((len(rows), len(classes)), np.uint8)
    for number, row in enumerate(rows):
        for finding in filter(None, row["findings"].split("|")):
            labels[number, number_of[finding]] = 1

    def column(name: str) -> tuple[str, ...]:
        values = tuple(row[name] for row in rows)
        return values if any(values) else ()

    return LabelTable(
        names=tuple(row["name"] for row in rows),
        patients=tuple(row["patient"] for row in rows),
        labels=labels,
        classes=classes,
        views=column("view"),
        sexes=column("sex"),
        ages=column("age"),
        digests=column("digest"),
    )

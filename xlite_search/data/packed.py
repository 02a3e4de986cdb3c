"""Packed data set: one uint8 array and one index, written once, memory-mapped by every trial.

    <XLITE_DATA>/<name>/
        manifest.json      what it was made from and how, counts, sha256 of the three files below
        index.csv          a row for each image: name, patient, view, sex, age, follow-up, raw size, findings
                           ("Mass|Nodule"), boxes in raw pixels, digest of pixels; row i is image i
        index.safetensors  the same, and what each image's views are drawn by, in columns (`data/index.py`)
        pixels.u8          raw bytes, [image, channel, height, width]
        stamps.json        size and time of change of each raw file when it was prepared, or last compared
        splits/            who is in which split (`data/splits.py`)
        lock               held while it is being prepared (`data/unfinished.py`)

A mapped file is never replaced in place: a data set of another size or source takes another name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlite_search import places, storage
from xlite_search.data.boxes import Box
from xlite_search.data.index import KEYS, LABELS, Columns, image_keys, index_text, read_columns, table_of
from xlite_search.data.preprocess import Preprocess
from xlite_search.data.sources import LabelTable
from xlite_search.errors import BadInput, Damaged, did_you_mean
from xlite_search.remembered import Remembered, state_of

PIXELS, INDEX, COLUMNS, MANIFEST, STAMPS = (
    "pixels.u8",
    "index.csv",
    "index.safetensors",
    "manifest.json",
    "stamps.json",
)
#: 3: with sex and age of each image, how it was preprocessed, and stamps of the raw files; 4: the index in columns too,
#: channels, and every setting of how it was preprocessed
FORMAT = 4


class NotPrepared(BadInput):
    """There is no data set of this name."""


@dataclass(frozen=True)
class PackedSet:
    """A prepared data set. Pickles as a path: the array is mapped where it is used."""

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, name: str) -> PackedSet:
        """The data set of this name: the same object as before, if neither its manifest nor its index has changed.

        Raises:
            NotPrepared: it is not prepared here.
            BadInput: a version prepared it that wrote another format.
            Damaged: its manifest is.
        """
        folder = places.data_folder(name)
        try:
            manifest = storage.read_manifest(folder / MANIFEST)
        except FileNotFoundError:
            near = did_you_mean(name, (path.parent.name for path in folder.parent.glob(f"*/{MANIFEST}")))
            raise NotPrepared(
                f"data set '{name}' is not prepared in {folder.parent}{f'{near} Else' if near else ';'} prepare it "
                f"with `python -m xlite_search prepare {name} --images DIR --labels CSV`"
            ) from None
        if manifest.get("format") != FORMAT:
            raise BadInput(
                f"data set '{name}' was prepared by another version of this program, in another format: remove "
                f"{folder} and prepare it again"
            )
        index = [state_of(folder / file) for file in (INDEX, COLUMNS)]
        return _OPENED.get((storage.digest(manifest), *index), lambda: cls(folder, manifest))

    @cached_property
    def preprocess(self) -> Preprocess:
        """What was done to its images."""
        return Preprocess.described(self.manifest)

    @property
    def size(self) -> int:
        """Height and width of an image, in pixels."""
        return int(self.manifest["size"])

    @property
    def channels(self) -> int:
        """1: gray; 3: RGB."""
        return int(self.manifest["channels"])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.manifest["classes"])

    @property
    def normal(self) -> str:
        """What an image of no class is called."""
        return str(self.manifest["normal"])

    @property
    def fingerprint(self) -> str:
        """Changes if a pixel, a label, a name or the order of anything does, or what a pixel is: of size, CLAHE and
        stretch the pixels tell. Boxes, raw sizes and follow-up numbers are no part of it: nothing learns
        from them."""
        told = [self.manifest[k] for k in ("size", "classes", "pixels_sha256", "identity_sha256")]
        about = {k: v for k, v in self.preprocess.identity.items() if k not in ("size", "clahe", "stretch")}
        return storage.digest([*told, about] if about else told)[:16]

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
        """`[image, channel, height, width]`, mapped read-only."""
        shape = len(self), self.channels, self.size, self.size
        return np.memmap(self.folder / PIXELS, np.uint8, "r", shape=shape)

    def boxes(self, row: int) -> tuple[Box, ...]:
        """Where findings lie on the prepared image of a row, in its pixels."""
        raw = self.table.boxes.get(row, ())
        if not raw:
            return ()
        height, width = self.table.sizes[row].tolist()
        return tuple(map(self.preprocess.placement(height, width).onto, raw))

    @cached_property
    def columns(self) -> Columns:
        """The index as it is stored, in columns. Raises Damaged if either form of it is not what was prepared."""
        self._checked(INDEX, "index_sha256")
        return read_columns(self._checked(COLUMNS, "columns_sha256"))

    @cached_property
    def table(self) -> LabelTable:
        """Names, patients and labels. Raises Damaged if they are not those that were prepared."""
        return table_of(self.columns, self.classes, self.normal)

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Multi-hot, `[image, class]`, read-only."""
        return self.columns[LABELS]

    @property
    def keys(self) -> NDArray[np.uint64]:
        """What each image's views are drawn by, `[image]`, read-only."""
        return self.columns[KEYS]

    def _checked(self, file: str, sha256: str) -> bytes:
        path = self.folder / file
        raw = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(raw).hexdigest() != self.manifest[sha256]:
            raise self._damaged(path)
        return raw

    def _damaged(self, path: Path) -> Damaged:
        return Damaged(f"{path} is missing or damaged: remove {self.folder} and prepare the data set again")

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
        """Reads every byte once, and compares the two forms of the index.

        Raises:
            Damaged: a file is missing, or not what the manifest says; or the two forms say different things.
        """
        path = self.folder / PIXELS
        if not path.is_file() or storage.sha256_of(path) != self.manifest["pixels_sha256"]:
            raise self._damaged(path)
        self._checked(INDEX, "index_sha256")
        columns = read_columns(self._checked(COLUMNS, "columns_sha256"))
        table = table_of(columns, self.classes, self.normal)
        text = hashlib.sha256(index_text(table).encode()).hexdigest()
        if text != self.manifest["index_sha256"] or not np.array_equal(columns[KEYS], image_keys(table)):
            raise Damaged(
                f"{self.folder / COLUMNS} says something else than {INDEX} beside it: remove {self.folder} and prepare "
                f"the data set again"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "manifest": self.manifest}


_OPENED = Remembered[PackedSet](4)


def digest_of(pixels: bytes) -> str:
    """16 hex digits that name these bytes: blake2b of 64 bits. Two of 10^6 images share one by chance once in 10^7."""
    return hashlib.blake2b(pixels, digest_size=8).hexdigest()

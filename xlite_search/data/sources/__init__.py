"""Sources of raw images and labels: one reader per data set.

A reader answers two questions, and nothing else: which images are there, with which labels
(`table`), and what does image `row` look like (`pixels`). `data/prepare.py` does the rest once.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from xlite_search.data.boxes import Box
from xlite_search.data.preprocess import Raw
from xlite_search.data.sources.chest import NO_FINDING

#: Of the image files that are looked for, in lower or upper case.
SUFFIXES = ("png", "jpg", "jpeg", "dcm", "dicom")


@dataclass(frozen=True)
class LabelTable:
    """One row per image.

    names        unique image names, `[image]`
    groups       what a split never cuts, `[image]`: the patient of each image, or whatever column was named, a lesion
    labels       multi-hot uint8, `[image, class]`; an all-zero row is of no class
    classes      class names, in column order
    projections  projection of each image ("PA", "AP" or ""), `[image]` or empty
    sexes        sex of each image's patient, as the table has it ("M", "F" or ""), `[image]` or empty
    ages         age in years at each image, as text ("57", or "" where it is not known), `[image]` or empty
    follow_ups   number of each image's examination of its patient, as text ("0" is the first), `[image]` or empty
    digests      hash of each image's prepared pixels, `[image]`; empty before there are any
    sizes        height and width of each raw image, int32 `[image, 2]`; empty before they are known
    boxes        where findings are, in raw pixels, by row; rows without a box are left out
    normal       what an image of no class is called
    notes        what was guessed or left out when the table was read, a sentence each
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    labels: NDArray[np.uint8]
    classes: tuple[str, ...]
    projections: tuple[str, ...] = ()
    sexes: tuple[str, ...] = ()
    ages: tuple[str, ...] = ()
    follow_ups: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    sizes: NDArray[np.int32] = field(default_factory=lambda: np.empty((0, 2), np.int32))
    boxes: Mapping[int, tuple[Box, ...]] = field(default_factory=dict)
    normal: str = NO_FINDING
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def part(self, rows: NDArray[np.int64]) -> LabelTable:
        """Some rows of it, in this order."""

        def of(column: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(column[row] for row in rows.tolist()) if column else ()

        return replace(
            self,
            names=of(self.names),
            groups=of(self.groups),
            labels=self.labels[rows],
            projections=of(self.projections),
            sexes=of(self.sexes),
            ages=of(self.ages),
            follow_ups=of(self.follow_ups),
            digests=of(self.digests),
            sizes=self.sizes[rows] if len(self.sizes) else self.sizes,
            boxes={place: self.boxes[row] for place, row in enumerate(rows.tolist()) if row in self.boxes},
        )


def image_id(name: str) -> str:
    """An image's name as names are compared: without its suffix, for lists and tables do not agree on whether it has
    one, and with its accents composed (NFC), for macOS writes them apart from their letters."""
    stem, dot, suffix = name.rpartition(".")
    found = stem if dot and suffix.lower() in SUFFIXES else name
    return found if found.isascii() else unicodedata.normalize("NFC", found)


def image_key(name: str) -> int:
    """64 bits of an image's name (BLAKE2b): its views are the same in every data set, subset and order."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


#: What is wrong with an image: its file is not there, is no whole image, or is one of no use here.
Cause = Literal["absent", "damaged", "unfit"]


class Unreadable(Exception):
    """An image that cannot be used. Its text says why in a phrase that fits behind the file's name."""

    cause: ClassVar[Cause] = "damaged"


class Unfit(Unreadable):
    """A whole image that is of no use here: to fetch it again would not help."""

    cause = "unfit"


class Loss(NamedTuple):
    """Why an image is not used: a phrase that fits behind its name, and what kind of trouble it is."""

    reason: str
    cause: Cause


class Source(Protocol):
    """A raw data set. It is picklable: `prepare` reads pixels in several processes."""

    @property
    def channels(self) -> int:
        """Channels of its images: 1 for gray, 3 for RGB."""

    @property
    def notice(self) -> str:
        """Acknowledgement and citation that the data's owner asks for; empty if none."""

    def describe(self) -> dict[str, object]:
        """What defines the data, as JSON values: goes into the prepared set's manifest."""

    def table(self) -> LabelTable:
        """Every image that there should be, with its labels, in a fixed order."""

    def lost(self) -> dict[int, Loss]:
        """Rows whose image is known to be of no use before any is decoded, and why."""

    def stamp(self, row: int) -> str:
        """Changes when the raw image of a row does, as far as can be told without reading it."""

    def stamps(self) -> tuple[str, ...]:
        """That of every row, `[image]`, empty where there is no file."""

    def boxes(self, row: int) -> Sequence[Box]:
        """Where findings are in image `row`, in raw pixels, as far as anybody knows; asked for after its pixels."""

    def pixels(self, row: int) -> Raw | NDArray[Any]:
        """Image `row` of the table as it is, or its pixels alone (`Raw.pixels`). Raises Unreadable."""

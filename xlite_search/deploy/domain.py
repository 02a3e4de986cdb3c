"""Domain of a model: whether an image is like those that it was trained on, by simple measured rules.

    domain.json   `Domain`, in the exported folder

An image is made a thumbnail of 16 x 16, its mean taken off and its spread set to one. Three numbers are held against
those of training images that the rules were not fitted on:

    contrast   spread of the thumbnail before that, in 8-bit levels: a blank has none
    agreement  correlation with the mean thumbnail: an inverted radiograph has a negative one
    residual   share of its variance that the first principal components of training thumbnails leave (Jackson and
               Mudholkar 1979): a lateral or turned radiograph, or a photograph, has more

They flag; a model has no way to know that an image is none of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from xlite_search.errors import XliteError
from xlite_search.spec import Spec, parse

FILE = "domain.json"
#: side of a thumbnail, principal components, and the share of held-out training images that each rule flags
SIDE, COMPONENTS, FLAGGED = 16, 24, 0.005
#: training images that it is fitted on at most, and at least
MOST, FEWEST = 2000, 40
FlagName = Literal["blank", "inverted", "unlike"]

Array = NDArray[np.float64]


class Flag(NamedTuple):
    """Why an image may be none that the model was made for; `says` is a sentence."""

    name: FlagName
    says: str


class Measured(NamedTuple):
    """Of one image, or of its inverse."""

    contrast: float
    agreement: float
    residual: float


class Domain(Spec):
    """What training images are like.

    mean, components  of their thumbnails, `[SIDE * SIDE]` each
    contrast, agreement, residual  limits: the first two from below
    images            that the limits were measured on, and how many of these each of them flags at most
    """

    mean: tuple[float, ...]
    components: tuple[tuple[float, ...], ...]
    contrast: float
    agreement: float
    residual: float
    images: int = Field(ge=1)
    flagged: float = FLAGGED

    def measured(self, image: NDArray[np.uint8], *, inverted: bool = False) -> Measured:
        """A prepared image, uint8 `[channel, size, size]`."""
        thumbnail, contrast = _thumbnail(255 - image if inverted else image)
        mean, components = self._basis
        away = thumbnail - mean
        left = away - (components @ away) @ components
        norm = float(np.linalg.norm(mean)) or 1.0
        return Measured(contrast, float(thumbnail @ mean) / (norm * SIDE), float(left @ left) / SIDE**2)

    @cached_property
    def _basis(self) -> tuple[Array, Array]:
        """Kept, for making arrays of so many numbers takes longer than all else."""
        return np.array(self.mean), np.array(self.components)

    def flags(self, image: NDArray[np.uint8]) -> list[Flag]:
        """What is unusual about a prepared image; empty if nothing is."""
        found = self.measured(image)
        if found.contrast < self.contrast:
            return [Flag("blank", "from afar it has hardly any contrast: nothing may be in it")]
        if self._fits(found):
            return []
        if self._fits(self.measured(image, inverted=True)):
            return [Flag("inverted", "its negative is like the training images: black and white may be exchanged")]
        return [
            Flag(
                "unlike",
                "it is unlike the training images: turned, lateral, cut out, or another kind of picture perhaps",
            )
        ]

    def _fits(self, found: Measured) -> bool:
        return found.agreement >= self.agreement and found.residual <= self.residual


def fit_domain(images: NDArray[np.uint8], groups: Sequence[str]) -> Domain | None:
    """Of prepared training images, uint8 `[image, channel, size, size]`, and whose they are; None of too few.

    Mean and components are of one half of the patients, the limits of the other half.
    """
    names = np.unique(np.array(groups))
    half = set(np.random.default_rng(0).permutation(names)[: len(names) // 2].tolist())
    first = np.array([name in half for name in groups])
    if len(images) < FEWEST or min(first.sum(), (~first).sum()) < FEWEST // 2:
        return None
    thumbnails = np.array([_thumbnail(image)[0] for image in images[first]])
    mean = thumbnails.mean(axis=0)
    _, _, components = np.linalg.svd(thumbnails - mean, full_matrices=False)
    known = {"mean": mean.tolist(), "components": components[:COMPONENTS].tolist()}
    bare = Domain(**known, contrast=0, agreement=-1, residual=SIDE**2, images=int((~first).sum()))
    found = np.array([bare.measured(image) for image in images[~first]])
    low = np.quantile(found[:, :2], FLAGGED, axis=0, method="lower")
    high = float(np.quantile(found[:, 2], 1 - FLAGGED, method="higher"))
    return bare.model_copy(update={"contrast": float(low[0]) / 2, "agreement": float(low[1]), "residual": high})


def _thumbnail(image: NDArray[np.uint8]) -> tuple[Array, float]:
    """Standardised, `[SIDE * SIDE]`, and its spread before."""
    gray = image.mean(axis=0, dtype=np.float32)
    small = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
    spread = float(small.std())
    return (small - small.mean()) / (spread or 1.0), spread


def domain_of(folder: Path) -> Domain | None:
    """Of a model folder's training images; None if its data are not here, or are too few."""
    from xlite_search.evaluation.scored import data_of
    from xlite_search.model_folder import manifest_of

    try:
        data = data_of(manifest_of(folder))
    except (XliteError, OSError):
        return None
    rows = np.sort(np.random.default_rng(0).permutation(data.train.rows)[:MOST])
    groups = data.packed.table.groups
    return fit_domain(np.array(data.packed.pixels[rows]), [groups[row] for row in rows])


def files_of(domain: Domain | None) -> dict[str, bytes]:
    """What an exported folder has of it."""
    return {FILE: domain.model_dump_json().encode()} if domain else {}


def read_domain(folder: Path) -> Domain | None:
    """Of an exported folder, whose files were checked; None if it has none."""
    path = folder / FILE
    return parse(Domain, json.loads(path.read_bytes()), f"{path}: ") if path.is_file() else None

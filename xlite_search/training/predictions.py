"""Predictions: logits of images, kept so that runs can be compared later, and a delivered model judged.

An npz of plain arrays, the same bytes for the same content; it is read without pickle, so that such a file cannot run
code.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xlite_search.errors import Damaged

LIMIT = float(np.finfo(np.float16).max)
TYPES = (np.float16, np.float32)


@dataclass(frozen=True)
class Predictions:
    """Logits `[image, class]` with the names of the images and the findings.

    Those of a run are float16, as far as that goes; those of a delivered model float32, for thresholds to be exact.
    """

    logits: NDArray[np.floating]
    images: tuple[str, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, logits: NDArray[np.float32], images: tuple[str, ...], classes: tuple[str, ...]) -> Predictions:
        return cls(np.clip(logits, -LIMIT, LIMIT).astype(np.float16), images, classes)

    def to_bytes(self) -> bytes:
        """An npz whose entries carry no date, so that its sha256 is that of its content."""
        images, classes = np.array(self.images, np.str_), np.array(self.classes, np.str_)
        file = io.BytesIO()
        np.savez(file, logits=self.logits, images=images, classes=classes)
        return file.getvalue()

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Raises Damaged if the file is no such thing."""
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                logits, images, classes = (file[name] for name in ("logits", "images", "classes"))
        except Exception as error:  # what zipfile and numpy raise depends on the byte that is wrong
            raise Damaged(f"{path} holds no predictions: {type(error).__name__}") from None
        named = all(names.ndim == 1 and names.dtype.kind == "U" for names in (images, classes))
        if not named or logits.dtype not in TYPES or logits.shape != (len(images), len(classes)):
            raise Damaged(f"{path} holds no predictions: {logits.dtype} of shape {logits.shape}, or no names for it")
        return cls(logits, tuple(images.tolist()), tuple(classes.tolist()))

"""Raw pixels to a prepared image: CLAHE, padding to a square, resize. One pure function and its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

CLIP_LIMIT, TILES = 2.0, 8


@dataclass(frozen=True)
class Preprocess:
    """What is done to every image, in this order; the shape of what it gives is `[size, size]`, uint8.

    clahe   CLAHE with a clip limit of 2.0 and 8 x 8 tiles (Zuiderveld 1994, as OpenCV has it), on the raw image
    size    height and width: padding with black to a square, then area averaging, or linear interpolation to enlarge
    """

    size: int
    clahe: bool = True

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.clahe:
            clahe = cv2.createCLAHE(clipLimit=CLIP_LIMIT, tileGridSize=(TILES, TILES))
            image = np.asarray(clahe.apply(image), np.uint8)
        return _resized(_square(image), self.size)

    def describe(self) -> dict[str, Any]:
        """What defines it, as JSON values: goes into the prepared set's manifest."""
        return {"size": self.size, "clahe": {"clip_limit": CLIP_LIMIT, "tiles": TILES} if self.clahe else None}


def _square(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape
    if height == width:
        return image
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    padded = np.zeros((side, side), np.uint8)
    padded[top : top + height, left : left + width] = image
    return padded


def _resized(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    shrinks = image.shape[0] > size
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size, size), interpolation=how), np.uint8)

"""Image sizes and channels that every reader keeps to: limits, and colour to gray."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from xlite_search.data.sources import Unfit

SHORTEST_SIDE, LONGEST_RATIO, MOST_PIXELS = 32, 4, 2**26


def expect_size(width: int, height: int) -> None:
    """Before anything is decoded: a header of a few bytes can ask for all memory."""
    if width * height > MOST_PIXELS:
        raise Unfit(f"{width} x {height} px by its header; expected at most {MOST_PIXELS / 1e6:.0f} million")
    if min(width, height) < SHORTEST_SIDE:
        raise Unfit(f"{width} x {height} px; expected at least {SHORTEST_SIDE} on each side")
    if max(width, height) > LONGEST_RATIO * min(width, height):
        raise Unfit(f"{width} x {height} px; expected sides of at most {LONGEST_RATIO}:1")


def with_channels(image: NDArray[Any], channels: int, *, blue_first: bool) -> NDArray[Any]:
    """Colour as its luminance, `[height, width]`, where one channel is asked for, else as RGB; gray as it is."""
    if image.ndim == 2:
        return image
    if channels == 1:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY if blue_first else cv2.COLOR_RGB2GRAY))
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)) if blue_first else image

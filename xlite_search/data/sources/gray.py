"""What every reader of images agrees on: sizes that make sense, and values to gray uint8."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from xlite_search.data.sources import Unfit

SHORTEST_SIDE, LONGEST_RATIO, MOST_PIXELS = 32, 4, 2**26
#: Pixels whose sides differ by less count as square: a spacing is measured, and written with few digits.
SQUARE_ENOUGH = 0.01


def expect_size(width: int, height: int) -> None:
    """Before anything is decoded: a header of a few bytes can ask for all memory."""
    if width * height > MOST_PIXELS:
        raise Unfit(f"{width} x {height} px by its header; expected at most {MOST_PIXELS / 1e6:.0f} million")
    if min(width, height) < SHORTEST_SIDE:
        raise Unfit(f"{width} x {height} px; expected at least {SHORTEST_SIDE} on each side")
    if max(width, height) > LONGEST_RATIO * min(width, height):
        raise Unfit(f"{width} x {height} px; expected sides of at most {LONGEST_RATIO}:1")


def to_gray(image: NDArray[Any], luminance: int, tail: float = 0.0) -> NDArray[np.uint8]:
    """Colour to luminance by OpenCV's code for its order of channels, and more than 8 bits to 8 (`stretched`)."""
    if image.ndim == 3:
        image = np.asarray(cv2.cvtColor(image, luminance))
    return image if image.dtype == np.uint8 else eight_bits(stretched(image, tail=tail))


def stretched(
    values: NDArray[Any], of_interest: NDArray[np.bool_] | None = None, *, tail: float = 0.0
) -> NDArray[np.float64]:
    """From the smallest to the largest value (of interest) to 0..1, without the `tail` percent at either end: one hot
    pixel of 4,095 beside a chest of 1,000 to 1,250 would leave it 20 gray levels."""
    judged = values if of_interest is None else values[of_interest]
    low, high = _ends(judged, tail) if judged.size else (0.0, 0.0)
    return np.clip((values - low) / (high - low or 1.0), 0, 1)


def _ends(values: NDArray[Any], tail: float) -> tuple[float, float]:
    """The percentiles `tail` and 100 - `tail`; where they are equal, which is where little is not background, the
    smallest and the largest value."""
    if tail:
        low, high = np.percentile(values, [tail, 100 - tail], method="nearest").tolist()
        if low < high:
            return float(low), float(high)
    return float(values.min()), float(values.max())


def squared(image: NDArray[np.uint8], aspect: float) -> NDArray[np.uint8]:
    """The image with square pixels: `aspect` is the height of a pixel by its width. The longer side of a pixel is
    divided (linear interpolation), so nothing that was measured is lost."""
    if abs(aspect - 1) < SQUARE_ENOUGH:
        return image
    height, width = image.shape
    width, height = (width, round(height * aspect)) if aspect > 1 else (round(width / aspect), height)
    expect_size(width, height)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def eight_bits(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.rint(shares * 255).astype(np.uint8)

"""Image transforms of a view: pose, distortion, light.

Light comes last, so that what lies outside of the image looks like the black that images are padded with.

Pose and light give the very pixels of albumentations' pipeline for the same draws, and take less time: what it does
around them costs more than they do. Only distortions (`distortions.py`) are its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import stringzilla
from numpy.typing import NDArray

if TYPE_CHECKING:
    from xlite_search.data.distortions import Distortion
    from xlite_search.data.views import _Numbers, _Strengths

WHITE = 255


class Transforms:
    """What a spec does to images of `height` x `width` pixels; every draw comes from `numbers`."""

    def __init__(self, spec: _Strengths, height: int, width: int, numbers: _Numbers) -> None:
        self.spec, self.size, self.numbers = spec, (width, height), numbers
        self.moves = any((spec.flip, spec.rotate, spec.shift, spec.zoom))
        self.exposes = bool(spec.brightness or spec.contrast)
        self.distortion: Distortion | None = None
        if any((spec.elastic, spec.grid, spec.optical)):
            from xlite_search.data.distortions import Distortion  # takes seconds

            self.distortion = Distortion(spec, max(height, width), numbers)

    def __call__(self, image: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """uint8 `[h, w]` into another, both contiguous."""
        self.numbers.random()  # albumentations' Compose draws one before all else, and views are for ever
        if self.moves:
            cv2.warpAffine(image, self.pose(), self.size, dst=out, flags=cv2.INTER_LINEAR, borderValue=0)
        else:
            out[:] = image
        if self.distortion:
            out[:] = self.distortion(out)
        if (light := self.light()) is not None:
            stringzilla.translate(out.data, light.data, inplace=True)  # faster than cv2.LUT

    def pose(self) -> NDArray[np.float64]:
        """Mirror, rotation, shift and zoom as one matrix `[2, 3]`, so that pixels are interpolated once."""
        spec, uniform = self.spec, self.numbers.uniform
        mirrored = self.numbers.random() < spec.flip
        degrees = uniform(-spec.rotate, spec.rotate)
        scale = uniform(1 - spec.zoom, 1 + spec.zoom)
        width, height = self.size
        matrix: NDArray[np.float64] = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)
        matrix[0, 2] += uniform(-spec.shift, spec.shift) * width
        matrix[1, 2] += uniform(-spec.shift, spec.shift) * height
        if mirrored:  # x -> width - 1 - x, before all else
            matrix[:, 2] += matrix[:, 0] * (width - 1)
            matrix[:, 0] *= -1
        return matrix

    def light(self) -> NDArray[np.uint8] | None:
        """What each gray level becomes, `[256]`, by gamma and then by contrast and brightness; None: nothing is drawn.

        As albumentations' RandomGamma and RandomBrightnessContrast, which round down after each.
        """
        spec, uniform, table = self.spec, self.numbers.uniform, None
        if spec.gamma:
            gamma = uniform(100 * (1 - spec.gamma), 100 * (1 + spec.gamma)) / 100
            table = (SHARES_OF_WHITE**gamma * WHITE).astype(np.uint8)
        if self.exposes:
            gain = 1 + uniform(-spec.contrast, spec.contrast)
            added = uniform(-spec.brightness, spec.brightness) * WHITE
            exposed = (LEVELS * gain + added).clip(0, WHITE).astype(np.uint8)
            table = exposed if table is None else exposed[table]
        return table


LEVELS = np.arange(WHITE + 1, dtype=np.float32)
SHARES_OF_WHITE = np.arange(0, (WHITE + 1) / WHITE, 1 / WHITE)

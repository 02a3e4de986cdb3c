"""Preprocessing: raw pixels to a prepared image, uint8; one pure function (CLAHE, window, resize) and its settings.

In this order: more than 8 bits to 8 (`window`, or else `stretch`), pixels made square, CLAHE on the raw image, padding
with black to a square (or cropping to one), resize. Everything that prepares an image calls this, so that a model sees
what it was trained on; the settings are recorded whole with every data set and every model. numpy and cv2 alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from xlite_search.data.boxes import Placement
from xlite_search.errors import BadInput

SMALLEST, LARGEST = 32, 1024
#: Percent that do not count at either end: more than a detector's dead pixels, and less than any part of a chest.
STRETCH, MOST_STRETCH = 0.1, 10.0
#: Pixels whose sides differ by less count as square: a spacing is measured, and written with few digits.
SQUARE_ENOUGH = 0.01


@dataclass(frozen=True)
class Raw:
    """An image as its source has it, before anything is done to it.

    pixels    `[height, width]` gray, bright = dense, or `[height, width, channel]`, three of them RGB; uint8 is shown
              as it is, any other type has more bits
    padding   bool `[height, width]`: what fills the frame and is no measurement; None if nothing does
    inverted  bright = air, in gray pixels
    aspect    height of a pixel by its width
    """

    pixels: NDArray[Any]
    padding: NDArray[np.bool_] | None = None
    inverted: bool = False
    aspect: float = 1.0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width once its pixels are square: the longer side of a pixel is divided, so nothing that was
        measured is lost. A box in raw pixels is in these."""
        height, width = self.pixels.shape[:2]
        if abs(self.aspect - 1) < SQUARE_ENOUGH:
            return height, width
        return (round(height * self.aspect), width) if self.aspect > 1 else (height, round(width / self.aspect))

    @property
    def measured(self) -> NDArray[Any]:
        """The values that are measurements: of gray `[pixel]` where there is padding, else as `pixels`."""
        return self.pixels if self.padding is None else self.pixels[~self.padding]

    @property
    def is_blank(self) -> bool:
        """Whether all its pixels are equal, whatever is done to them; gray padding is as black as the least value."""
        values = self.measured
        if values.size and (values.min(axis=(0, 1)[: values.ndim]) != values.max(axis=(0, 1)[: values.ndim])).any():
            return False
        whole = self.padding is None or not self.padding.any() or not values.size
        if self.pixels.dtype == np.uint8 and not whole:
            return bool((255 - values[0] if self.inverted else values[0]) == 0)
        return whole or not self.inverted


@dataclass(frozen=True)
class Clahe:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld 1994), as OpenCV has it: `tiles` x `tiles`."""

    clip_limit: float = 2.0
    tiles: int = 8


@dataclass(frozen=True)
class Preprocess:
    """What is done to every image; the shape of what it gives is `[channel, size, size]`, uint8.

    size      height and width: area averaging to shrink, linear interpolation to enlarge
    clahe     on the raw image; of RGB on the lightness alone (L of CIE L*a*b*), so that colours keep their hue; of any
              other number of channels on each; None for none
    stretch   of more than 8 bits: percent of the darkest, and of the brightest pixels that become 0 and 255 and do not
              count; between them is linear. Of RGB over all channels together
    window    of more than 8 bits: the two values that become 0 and 255 instead, in every image
    resize    "pad" with black to a square, or "crop" to the square in the middle; never stretched
    channels  1: gray, colour becomes its luminance (ITU-R BT.601); 3: RGB, gray is repeated; or as many as the raw
              image has
    """

    size: int
    clahe: Clahe | None = Clahe()
    stretch: float = STRETCH
    window: tuple[float, float] | None = None
    resize: Literal["pad", "crop"] = "pad"
    channels: int = 1

    def __post_init__(self) -> None:
        if not SMALLEST <= self.size <= LARGEST:
            raise BadInput(f"--size {self.size}: expected {SMALLEST} to {LARGEST} pixels")
        if not 0 <= self.stretch <= MOST_STRETCH:
            raise BadInput(f"--stretch {self.stretch:g}: expected 0 to {MOST_STRETCH:g} percent at either end")
        if self.channels < 1:
            raise BadInput(f"--channels {self.channels}: expected 1 for gray, or 3 for RGB")
        if self.window and not self.window[0] < self.window[1]:
            raise BadInput(f"window {list(self.window)}: expected two values, the smaller one first")

    def __call__(self, image: Raw | NDArray[Any]) -> NDArray[np.uint8]:
        """A raw image, or its pixels alone, prepared: uint8 `[channel, size, size]`."""
        raw = image if isinstance(image, Raw) else Raw(image)
        shown = self._contrasted(self.shown(raw))
        planes = [shown] if shown.ndim == 2 else list(np.moveaxis(shown, 2, 0))
        return np.stack([self._resized(self._placed(plane)) for plane in planes])

    def shown(self, raw: Raw) -> NDArray[np.uint8]:
        """Eight bits, square pixels, as many channels as asked for: `[height, width]` or `[height, width, channel]`."""
        raw = self._with_channels(raw)
        image = raw.pixels if raw.pixels.dtype == np.uint8 else _eight_bits(self._ranged(raw))
        if raw.inverted:
            image = 255 - image
        if raw.padding is not None and raw.padding.any():
            image = image.copy()
            image[raw.padding] = 0
        if raw.size != image.shape[:2]:
            image = np.asarray(cv2.resize(image, raw.size[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
        return np.asarray(image, np.uint8)

    @property
    def image_bytes(self) -> int:
        """What a prepared image takes: a byte for each pixel and channel."""
        return self.channels * self.size**2

    def placement(self, height: int, width: int) -> Placement:
        """Where an image with this height and width lies on the prepared one."""
        return Placement.of(height, width, self.size, crop=self.resize == "crop")

    def describe(self) -> dict[str, Any]:
        """All settings as JSON values: they go into the manifest of a data set and of a model."""
        return asdict(self) | {"window": list(self.window) if self.window else None}

    @classmethod
    def described(cls, about: Mapping[str, Any]) -> Preprocess:
        """The one that `describe` described, among whatever else a manifest holds. What an earlier version did not
        name it did as the default does."""
        clahe, window = about["clahe"], about.get("window")
        return cls(
            size=about["size"],
            clahe=Clahe(**clahe) if clahe else None,
            stretch=about.get("stretch", STRETCH),
            window=(window[0], window[1]) if window else None,
            resize=about.get("resize", "pad"),
            channels=about.get("channels", 1),
        )

    @property
    def identity(self) -> dict[str, Any]:
        """Size, CLAHE, and every other setting that is not the default: whatever two of these have in common, they
        prepare alike. A setting that a later version adds leaves it as it was."""
        plain = Preprocess(self.size).describe()
        return {k: v for k, v in self.describe().items() if k in ("size", "clahe") or v != plain[k]}

    def _with_channels(self, raw: Raw) -> Raw:
        there = 1 if raw.pixels.ndim == 2 else raw.pixels.shape[2]
        if there == self.channels:
            pixels = raw.pixels if raw.pixels.ndim == 2 or there > 1 else raw.pixels[..., 0]
        elif self.channels == 1 and there == 3:
            pixels = np.asarray(cv2.cvtColor(raw.pixels, cv2.COLOR_RGB2GRAY))
        elif there == 1:
            pixels = np.repeat(raw.pixels.reshape(*raw.pixels.shape[:2], 1), self.channels, axis=2)
        else:
            raise BadInput(f"an image of {there} channels, where {self.channels} are prepared; give images of one kind")
        return Raw(pixels, raw.padding, raw.inverted, raw.aspect)

    def _ranged(self, raw: Raw) -> NDArray[np.float64]:
        """The values between the window's ends, or those of their own range, as 0 to 1."""
        values = raw.measured
        low, high = self.window or (_ends(values, self.stretch) if values.size else (0.0, 0.0))
        return np.clip((raw.pixels - low) / (high - low or 1.0), 0, 1)

    def _contrasted(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.clahe is None:
            return image
        clahe = cv2.createCLAHE(self.clahe.clip_limit, (self.clahe.tiles, self.clahe.tiles))
        if image.ndim == 2:
            return np.asarray(clahe.apply(image), np.uint8)
        if image.shape[2] != 3:
            return np.stack([np.asarray(clahe.apply(plane), np.uint8) for plane in np.moveaxis(image, 2, 0)], axis=2)
        lab = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2LAB))
        lab[..., 0] = clahe.apply(np.ascontiguousarray(lab[..., 0]))
        return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)

    def _placed(self, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = plane.shape
        if height == width:
            return np.ascontiguousarray(plane)
        at = self.placement(height, width)
        if self.resize == "crop":
            return np.ascontiguousarray(plane[-at.top : at.side - at.top, -at.left : at.side - at.left])
        padded = np.zeros((at.side, at.side), np.uint8)
        padded[at.top : at.top + height, at.left : at.left + width] = plane
        return padded

    def _resized(self, square: NDArray[np.uint8]) -> NDArray[np.uint8]:
        how = cv2.INTER_AREA if square.shape[0] > self.size else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(square, (self.size, self.size), interpolation=how), np.uint8)


def _ends(values: NDArray[Any], tail: float) -> tuple[float, float]:
    """The percentiles `tail` and 100 - `tail`: one hot pixel of 4,095 beside a chest of 1,000 to 1,250 would leave it
    20 gray levels. Where they are equal, which is where little is not background, the smallest and largest value."""
    if tail:
        low, high = np.percentile(values, [tail, 100 - tail], method="nearest").tolist()
        if low < high:
            return float(low), float(high)
    return float(values.min()), float(values.max())


def _eight_bits(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.rint(shares * 255).astype(np.uint8)

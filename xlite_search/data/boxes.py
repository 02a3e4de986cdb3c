"""Bounding boxes of findings in pixels of the raw image, and where they lie on a prepared one.

Coordinates are continuous: x runs to the right and y down from the image's top left corner, and pixel (column, row)
covers [column, column + 1) x [row, row + 1), so a box of x 10 and width 5 covers the columns 10 to 14.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

#: Pixels by which a box may stick out: boxes are drawn by hand, and rounded.
TOLERANCE = 1.0


class Box(NamedTuple):
    """Where a finding is: left, top, width and height, in pixels of the raw image or of a prepared one."""

    label: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Placement:
    """How a raw image lies on a prepared one: a square of `side` raw pixels, scaled to `size`.

    side       of the square: the longer side of an image that is padded, the shorter one of an image that is cropped
    top, left  raw pixels between the square's top left corner and the image's; negative where it is cropped
    size       height and width of the prepared image
    """

    side: int
    top: int
    left: int
    size: int

    @classmethod
    def of(cls, height: int, width: int, size: int, *, crop: bool = False) -> Placement:
        """Of a raw image with this height and width, in its middle."""
        side = min(height, width) if crop else max(height, width)
        return cls(side, (side - height) // 2, (side - width) // 2, size)

    def onto(self, box: Box) -> Box:
        """A box in raw pixels in pixels of the prepared image. Of a cropped image it may lie beyond the border."""
        scale = self.size / self.side
        return Box(
            box.label, (box.x + self.left) * scale, (box.y + self.top) * scale, box.width * scale, box.height * scale
        )

    def back(self, box: Box) -> Box:
        """A box in pixels of the prepared image in raw ones."""
        scale = self.side / self.size
        return Box(
            box.label, box.x * scale - self.left, box.y * scale - self.top, box.width * scale, box.height * scale
        )


def outside(boxes: Iterable[Box], height: int, width: int) -> str:
    """Which box does not lie in an image of this size, as a phrase; empty if all do."""
    for box in boxes:
        right, bottom = box.x + box.width, box.y + box.height
        if min(box.x, box.y) < -TOLERANCE or right > width + TOLERANCE or bottom > height + TOLERANCE:
            return f"the box of {box.label} reaches from ({box.x:g}, {box.y:g}) to ({right:g}, {bottom:g})"
    return ""

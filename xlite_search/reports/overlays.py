"""Overlays of maps on radiographs, as PNG: a file a case, and a sheet of all.

Each shows the image as it is, with its boxes, and beside it the same with the map. Where a map is low the image stays
as it is; colours are matplotlib's plasma, which grows lighter with the value and holds for the colour-blind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
#: of the map where it is highest
OPACITY = 0.6
#: blue, green, red, as cv2 has them: true box, the map's own box, text
TRUE, OWN = (60, 230, 60), (255, 255, 0)
INK, PAPER, FAINT = (20, 20, 20), (255, 255, 255), (80, 80, 80)
FONT, LINE = cv2.FONT_HERSHEY_SIMPLEX, 18
#: side of a picture in a file of its own at least, and in a sheet
LARGE, SMALL = 448, 190
SHEET_WIDTH, MARGIN = 1640, 10


@dataclass(frozen=True)
class Overlay:
    """What is drawn of a case.

    pixels   uint8 `[channel, size, size]`, gray or RGB
    maps     what each is called and the map, `[size, size]`, 0 to its maximum
    boxes    where the finding is: x, y, width, height, in pixels of the image
    point    the first map's maximum, x, y; `box` around its region; None if it is empty
    caption  two lines: the finding with its probability, the image
    """

    pixels: Picture
    maps: Sequence[tuple[str, NDArray[np.floating]]]
    boxes: Sequence[tuple[float, float, float, float]] = ()
    point: tuple[float, float] | None = None
    box: tuple[float, float, float, float] | None = None
    caption: Sequence[str] = field(default_factory=tuple)


def overlay(of: Overlay, side: int = LARGE) -> Picture:
    """The image, and the image with each map, side by side, each `side` pixels wide, over a caption; BGR."""
    plain = _enlarged(of.pixels, side)
    scale = side / of.pixels.shape[-1]
    panes = [_boxed(plain.copy(), of.boxes, scale, TRUE)]
    for number, (_, shown) in enumerate(of.maps):
        pane = _boxed(_coloured(plain, shown), of.boxes, scale, TRUE)
        if number == 0 and of.point and of.box:
            pane = _pointed(_boxed(pane, [of.box], scale, OWN), of.point, scale)
        panes.append(pane)
    gap = np.full((side, 2, 3), PAPER, np.uint8)
    row = np.hstack([each for pane in panes for each in (pane, gap)][:-1])
    return np.vstack([row, _words(of.caption, row.shape[1], colours=(INK, FAINT))])


def contact_sheet(cases: Sequence[Overlay], head: Sequence[str]) -> Picture:
    """All cases, as many a row as fit, below lines that say what they are; BGR."""
    tiles = [overlay(case, SMALL) for case in cases]
    wide, high = max(tile.shape[1] for tile in tiles) + MARGIN, tiles[0].shape[0] + MARGIN
    columns = max(1, min(len(tiles), SHEET_WIDTH // wide))
    top = _words(head, max(columns * wide, 600) + MARGIN, colours=(INK, FAINT, FAINT))
    sheet = np.full((len(top) + MARGIN + high * -(-len(tiles) // columns), top.shape[1], 3), PAPER, np.uint8)
    sheet[: len(top)] = top
    for number, tile in enumerate(tiles):
        y, x = len(top) + MARGIN + high * (number // columns), MARGIN + wide * (number % columns)
        sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return sheet


def png(picture: Picture) -> bytes:
    """The file's bytes."""
    return bytes(cv2.imencode(".png", picture)[1].tobytes())


def _enlarged(pixels: Picture, side: int) -> Picture:
    plain = np.moveaxis(pixels, 0, 2)[..., ::-1] if len(pixels) == 3 else np.repeat(pixels[0][..., None], 3, axis=2)
    how = cv2.INTER_AREA if pixels.shape[-1] > side else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(plain), (side, side), interpolation=how), np.uint8)


def _coloured(plain: Picture, shown: NDArray[np.floating]) -> Picture:
    """An empty map leaves the image as it is."""
    peak = float(shown.max())
    if not peak > 0:
        return plain.copy()
    share = cv2.resize((shown / peak).astype(np.float32), plain.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap((share * 255).round().astype(np.uint8), cv2.COLORMAP_PLASMA)
    opacity = OPACITY * share[..., None]
    return np.asarray((plain * (1 - opacity) + colours * opacity).round(), np.uint8)


def _boxed(
    picture: Picture,
    boxes: Sequence[tuple[float, float, float, float]],
    scale: float,
    colour: tuple[int, int, int],
) -> Picture:
    for x, y, width, height in boxes:
        begin, end = (round(x * scale), round(y * scale)), (round((x + width) * scale), round((y + height) * scale))
        cv2.rectangle(picture, begin, end, colour, 2)
    return picture


def _pointed(picture: Picture, point: tuple[float, float], scale: float) -> Picture:
    at = round(point[0] * scale), round(point[1] * scale)
    for colour, thick in (((0, 0, 0), 3), (PAPER, 1)):
        cv2.drawMarker(picture, at, colour, cv2.MARKER_CROSS, max(8, picture.shape[0] // 20), thick, cv2.LINE_AA)
    return picture


def _words(lines: Sequence[str], width: int, colours: Sequence[tuple[int, int, int]]) -> Picture:
    """Black on white; letters that the font lacks become question marks, and what does not fit becomes smaller."""
    strip = np.full((LINE * len(lines) + 6, width, 3), PAPER, np.uint8)
    for number, line in enumerate(lines):
        text, size = line.encode("ascii", "replace").decode(), 0.45 if number == 0 else 0.4
        (long, _), _ = cv2.getTextSize(text, FONT, size, 1)
        colour = colours[min(number, len(colours) - 1)]
        at = (2, LINE * (number + 1) - 4)
        cv2.putText(strip, text, at, FONT, size * min(1.0, (width - 4) / max(long, 1)), colour, 1, cv2.LINE_AA)
    return strip

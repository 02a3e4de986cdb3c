"""Forest plot: a row for each estimate with its interval, its name above and its figures beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xlite_search.reports.drawing import (
    BLACK,
    BLUE,
    DARK,
    GRAY,
    LIGHT,
    SMALL,
    WIDTH,
    in_axes,
    panel,
    plain_axes,
    sheet,
    spread,
    svg,
    words,
    wrapped,
    write,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: points: of a line of text, of the bar below it, and of the axis at the foot
LINE, BAR, FOOT, LEFT, RIGHT = 11.0, 13.0, 36.0, 8.0, 8.0
#: letters of a name's first line, which ends where the row's figures begin, and of the others
FIRST, LETTERS = 40, 58
#: points of a letter, with little to spare
LETTER = 4.7


@dataclass(frozen=True)
class Estimate:
    """A row. `low` and `high` are NaN where the interval is not known; `says` stands at the right.

    strong  filled, in colour: it belongs to those that the figure is about
    faded   gray: too few images to be taken for more than it is
    """

    name: str
    value: float
    low: float
    high: float
    says: str = ""
    strong: bool = False
    faded: bool = False


def forest(
    rows: Sequence[Estimate],
    head: str,
    axis: str,
    reference: float | None = None,
    margin: float = 0.0,
    sides: tuple[str, str] = ("", ""),
) -> bytes:
    """SVG of one row at least, in their order.

    reference  where a line stands: 0 for gaps, the best one's score for scores
    margin     half the width of the band around it that matters to nobody
    sides      what the left and the right of the reference mean
    """
    names = [wrapped(row.name, LETTERS, FIRST) for row in rows]
    heights = [LINE * len(lines) + BAR for lines in names]
    over = 12.0 if any(sides) else 0.0
    page, top = sheet(head, over + sum(heights) + 4 + FOOT)
    top, bottom = top + over, top + over + sum(heights) + 4
    axes = panel(page, LEFT, top, WIDTH - RIGHT, bottom)
    _axes(axes, rows, bottom - top, reference, margin)
    words(axes, axis)
    if reference is not None and over:
        low, high = axes.get_xlim()
        at = LEFT + (WIDTH - LEFT - RIGHT) * (reference - low) / (high - low)
        for side, place, how, room in ((sides[0], at - 4, "right", at), (sides[1], at + 4, "left", WIDTH - at)):
            if room > 4 + 4.2 * len(side):
                write(page, place, top - 5, side, size=SMALL, color=DARK, ha=how)
    y = 4.0
    for row, lines, height in zip(rows, names, heights, strict=True):
        _row(axes, row, lines, y)
        y += height
    return svg(page)


def _axes(axes: Axes, rows: Sequence[Estimate], height: float, reference: float | None, margin: float) -> None:
    plain_axes(axes)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    axes.set_ylim(height, 0)
    ends = [end for row in rows for end in (row.low, row.value, row.high) if math.isfinite(end)]
    around = [] if reference is None else [reference - margin, reference + margin]
    axes.set_xlim(*spread([*ends, *around] or [0.0, 1.0], room=0.04))
    axes.locator_params(axis="x", nbins=6)
    if reference is None:
        return
    if margin:
        axes.axvspan(reference - margin, reference + margin, color=LIGHT, linewidth=0, zorder=0.4)
    axes.axvline(reference, color=BLACK, linewidth=0.9, linestyle=(0, (3, 2)), zorder=0.6)


def _row(axes: Axes, row: Estimate, lines: Sequence[str], y: float) -> None:
    ink = GRAY if row.faded else BLACK
    colour = BLUE if row.strong and not row.faded else ink
    left, right = axes.get_xlim()
    for number, line in enumerate(lines):
        at = y + LINE * (number + 0.5)
        weight = "bold" if row.strong else "normal"
        _blank(axes, left, LETTER * len(line), at)
        in_axes(axes, left, at, line, color=ink, weight=weight)
        if not number and row.says:
            _blank(axes, right, -LETTER * len(row.says), at)
            in_axes(axes, right, at, row.says, color=ink, ha="right")
    bar = y + LINE * len(lines) + BAR / 2 - 2
    if math.isfinite(row.low) and math.isfinite(row.high):
        axes.plot([row.low, row.high], [bar, bar], color=colour, linewidth=1.6 if row.strong else 1.1)
        for end in (row.low, row.high):
            axes.plot([end, end], [bar - 2.5, bar + 2.5], color=colour, linewidth=1.1)
    if math.isfinite(row.value):
        face = colour if row.strong else "white"
        axes.plot([row.value], [bar], marker="o", markersize=5, color=colour, markerfacecolor=face, zorder=3)


def _blank(axes: Axes, x: float, points: float, y: float) -> None:
    """White behind a text, over the grid and the reference and under all texts: how wide these are, a reader's fonts
    say, so that a white box of its own could hide its neighbour's end."""
    left, right = axes.get_xlim()
    end = x + points * (right - left) / (WIDTH - LEFT - RIGHT)
    low, high = y - LINE / 2, y + LINE / 2
    axes.fill([x, end, end, x], [low, low, high, high], facecolor="white", linewidth=0, zorder=0.8)

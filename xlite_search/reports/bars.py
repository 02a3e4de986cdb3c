"""Bars: parts of one, a row for each, its name at the left and its figure behind it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xlite_search.reports.drawing import (
    BLUE,
    DARK,
    SMALL,
    WIDTH,
    beside,
    panel,
    plain_axes,
    sheet,
    svg,
    words,
    wrapped,
)

#: points: of a row, of each further line of its name, left of the axis and below it; letters of a name's line
ROW, LINE, LEFT, FOOT, LETTERS = 17.0, 9.0, 124.0, 30.0, 22


def bars(rows: Sequence[tuple[str, float]], head: str, axis: str) -> bytes:
    """SVG of one row at least, in their order; `axis` says what the parts are."""
    names = [wrapped(name, LETTERS) for name, _ in rows]
    heights = np.array([ROW + LINE * (len(lines) - 1) for lines in names])
    high = float(heights.sum())
    page, top = sheet(head, high + FOOT)
    axes = panel(page, LEFT, top, WIDTH - 40, top + high)
    plain_axes(axes)
    axes.grid(axis="y", visible=False)
    middle, parts = np.cumsum(heights) - heights / 2, [part for _, part in rows]
    axes.barh(middle, parts, height=0.6 * ROW, color=BLUE)
    for y, part in zip(middle, parts, strict=True):
        axes.annotate(
            f"{part:.2f}", (part, y), xytext=(4, 0), textcoords="offset points", va="center", size=SMALL, color=DARK
        )
    axes.set_xlim(0, 1.02 * max(parts))
    axes.set_ylim(high, 0)
    beside(axes, names, middle.tolist(), LINE)
    words(axes, axis)
    return svg(page)

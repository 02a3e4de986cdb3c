"""Heat map of two factors: a cell for each pair of values, with its figure and how many runs it is the mean of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xlite_search.reports.drawing import BLACK, DARK, SMALL, WIDTH, beside, in_axes, panel, sheet, svg, words, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: points
CELL, LETTER, LINE = 44.0, 5.2, 11.0
#: letters of a row's line
ROW_LETTERS = 16
#: below so many points of width a cell's figures must be smaller
NARROW = 38.0
#: red, green and blue of the lowest value and of the highest
PALE, DEEP = np.array([0.93, 0.96, 0.98]), np.array([0.03, 0.25, 0.44])


def heatmap(
    values: NDArray[np.float64],
    counts: NDArray[np.int64],
    rows: tuple[str, Sequence[str]],
    columns: tuple[str, Sequence[str]],
    head: str,
) -> bytes:
    """SVG of `[row, column]`, NaN where there is no run; `rows` and `columns` are a factor's name and its values.

    Light is low and dark is high, and every cell has its figure: it needs no colour, and no legend.
    """
    many, wide = values.shape
    names = [wrapped(value, ROW_LETTERS) for value in rows[1]]
    left = 26 + LETTER * max(len(line) for lines in names for line in lines)
    room = (WIDTH - left - 8) / wide
    heads = [wrapped(value, max(int(room / LETTER), 3)) for value in columns[1]]
    page, top = sheet(head, CELL * many + 22 + 11 * max(map(len, heads)))
    axes = panel(page, left, top, WIDTH - 8, top + CELL * many)
    axes.set_xlim(0, wide)
    axes.set_ylim(many, 0)
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    shade = (values - low) / (high - low) if high > low else np.full(values.shape, 0.3)
    for row, column in np.ndindex(many, wide):
        cell = _Cell(float(values[row, column]), int(counts[row, column]), float(shade[row, column]), room > NARROW)
        cell.draw(axes, row, column)
    axes.set_xticks([])
    beside(axes, names, [row + 0.5 for row in range(many)], LINE / CELL)
    for column, lines in enumerate(heads):
        for down, line in enumerate(lines):
            in_axes(axes, column + 0.5, many + (8 + LINE * down) / CELL, line, ha="center")
    words(axes, columns[0], rows[0])
    axes.xaxis.labelpad, axes.yaxis.labelpad = 3 + LINE * max(map(len, heads)), left - 20
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_fontweight("bold")
    for spine in axes.spines.values():
        spine.set_visible(False)
    return svg(page)


@dataclass(frozen=True)
class _Cell:
    """A value, of how many runs, how dark from 0 to 1, and whether four digits have room."""

    value: float
    count: int
    shade: float
    roomy: bool

    def draw(self, axes: Axes, row: int, column: int) -> None:
        corners = [column, column + 1, column + 1, column], [row, row, row + 1, row + 1]
        if not math.isfinite(self.value):
            axes.fill(*corners, facecolor="white", edgecolor="#BBBBBB", linewidth=0.8)
            return in_axes(axes, column + 0.5, row + 0.5, "-", ha="center", color=DARK)
        axes.fill(*corners, facecolor=tuple(PALE + (DEEP - PALE) * self.shade), edgecolor="white", linewidth=1.5)
        size = SMALL if self.roomy else 5.5
        style = {"ha": "center", "color": "white" if self.shade > 0.5 else BLACK}
        in_axes(axes, column + 0.5, row + 0.42, f"{self.value:.4f}", size=size + 1.5, **style)
        in_axes(axes, column + 0.5, row + 0.74, f"n {self.count}", size=size - 0.5, **style)

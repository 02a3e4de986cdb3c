"""Curves: a metric over epochs, and ROC or precision-recall curves of findings as small multiples with their bands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xlite_search.reports.drawing import (
    BLACK,
    BLUE,
    DARK,
    GRAY,
    LIGHT,
    LINES,
    POINTS,
    SMALL,
    WIDTH,
    panel,
    plain_axes,
    sheet,
    svg,
    words,
    wrapped,
    write,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
#: small multiples: columns, points of a panel's side and around it
COLUMNS, SIDE, ACROSS, DOWN, HEADS = 3, 76.0, 93.0, 118.0, 26.0
NAME_LETTERS = 18
LEGEND_LETTERS = 50
#: points of the learning curves' axes
HIGH = 190.0


@dataclass(frozen=True)
class LearningCurve:
    """A metric over epochs 1, 2, ...; NaN where an epoch has none. `best` is the epoch with a mark, 0 for none.

    strong  drawn in a colour of its own, with its name in the legend (four at most); else thin and gray
    cut     it was stopped, or failed: a cross at its end
    """

    name: str
    values: Sequence[float]
    best: int = 0
    strong: bool = False
    cut: bool = False


def learning(curves: Sequence[LearningCurve], head: str, axis: str, chance: float | None = None) -> bytes:
    """SVG of one curve at least. `chance` is a dotted line, drawn where the curves come near it."""
    strong = [curve for curve in curves if curve.strong][: len(LINES)]
    rest = [curve for curve in curves if curve not in strong]
    legend = [wrapped(curve.name, LEGEND_LETTERS) for curve in strong]
    if rest:
        legend.append(["the other runs" + ("; x: stopped or failed there" if any(c.cut for c in rest) else "")])
    page, top = sheet(head, HIGH + 42 + 11 * sum(map(len, legend)))
    axes = panel(page, 44, top, WIDTH - 8, top + HIGH)
    plain_axes(axes)
    words(axes, "epoch", axis)
    for curve in rest:
        _draw_curve(axes, curve, GRAY, "-", "", 0.8)
    for curve, (colour, dashes, marker) in reversed([*zip(strong, LINES, strict=False)]):
        _draw_curve(axes, curve, colour, dashes, marker, 1.6)
    _limits(axes, curves, chance)
    _legend(page, legend, bool(rest), top + HIGH + 32)
    return svg(page)


def _draw_curve(axes: Axes, curve: LearningCurve, colour: str, dashes: Any, marker: str, width: float) -> None:
    epochs = np.arange(1, len(curve.values) + 1)
    axes.plot(epochs, curve.values, color=colour, linestyle=dashes, linewidth=width, zorder=3 if marker else 2)
    if curve.cut and len(epochs):
        axes.plot(epochs[-1:], curve.values[-1:], marker="x", color=DARK if not marker else colour, markersize=5)
    if marker and curve.best:
        at = curve.best - 1
        axes.plot([curve.best], [curve.values[at]], marker=marker, color=colour, markersize=6, zorder=4)


def _limits(axes: Axes, curves: Sequence[LearningCurve], chance: float | None) -> None:
    from matplotlib.ticker import MaxNLocator

    values = [value for curve in curves for value in curve.values if math.isfinite(value)]
    longest = max(len(curve.values) for curve in curves)
    axes.set_xlim(0.7, longest + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if chance is not None and values and min(values) - chance < 0.5 * (max(values) - min(values)):
        axes.axhline(chance, color=BLACK, linewidth=0.8, linestyle=":")
        axes.text(longest + 0.3, chance, "chance", size=SMALL, ha="right", va="bottom", color=DARK)


def _legend(page: Figure, legend: Sequence[Sequence[str]], rest: bool, y: float) -> None:
    from matplotlib.lines import Line2D

    styles = [*LINES[: len(legend) - rest], *([(GRAY, "-", "")] if rest else [])]
    high = page.get_figheight() * POINTS
    for lines, (colour, dashes, marker) in zip(legend, styles, strict=True):
        xs, ys = [12 / WIDTH, 36 / WIDTH], [1 - y / high] * 2
        page.add_artist(Line2D(xs, ys, color=colour, linestyle=dashes, linewidth=1.6 if marker else 0.8))
        if marker:
            page.add_artist(Line2D([24 / WIDTH], ys[:1], color=colour, marker=marker, markersize=5))
        for number, line in enumerate(lines):
            write(page, 44, y + 11 * number, line)
        y += 11.0 * len(lines)


@dataclass(frozen=True)
class Panel:
    """A finding's curve: `x` and `y` `[point]`, its band at `grid` `[place]`, `low` and `high` NaN where unknown.

    says   its area with its interval
    level  the height of a line that a classifier without knowledge has, of precision; None: the diagonal
    faded  too few positives
    """

    name: str
    says: str
    x: Array
    y: Array
    grid: Array
    low: Array
    high: Array
    level: float | None = None
    faded: bool = False


def multiples(panels: Sequence[Panel], head: str, across: str, up: str) -> bytes:
    """SVG of a panel for each finding, three in a row, axes from 0 to 1."""
    page, top = sheet(head, HEADS + DOWN * -(-len(panels) // COLUMNS))
    for number, one in enumerate(panels):
        row, column = divmod(number, COLUMNS)
        left, y = 24 + ACROSS * column, top + HEADS + DOWN * row
        colour = GRAY if one.faded else BLACK
        first, *more = wrapped(one.name, NAME_LETTERS)
        write(page, left, y - 18, f"{first}…" if more else first, weight="bold", color=colour)
        write(page, left, y - 7, one.says, size=SMALL, color=colour)
        axes = panel(page, left, y, left + SIDE, y + SIDE)
        _panel(axes, one)
        if column:
            axes.set_yticklabels([])
        words(axes, across if number + COLUMNS >= len(panels) else "", "" if column else up, SMALL)
    return svg(page)


def _panel(axes: Axes, one: Panel) -> None:
    plain_axes(axes)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.005)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([0, 0.5, 1], ["0", "½", "1"])
    colour = GRAY if one.faded else BLUE
    level = (0, 1) if one.level is None else (one.level, one.level)
    axes.plot((0, 1), level, color=DARK, linewidth=0.7, linestyle=":")
    known = np.isfinite(one.low) & np.isfinite(one.high)
    if known.any():
        axes.fill_between(
            one.grid[known], one.low[known], one.high[known], color=LIGHT if one.faded else "#BBD7EA", lw=0
        )
    axes.plot(one.x, one.y, color=colour, linewidth=1.3, drawstyle="steps-post" if one.level is None else "default")

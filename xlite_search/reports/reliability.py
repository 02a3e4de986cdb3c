"""Reliability diagrams and net benefit curves of findings, as small multiples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from xlite_search.reports.drawing import (
    BLACK,
    BLUE,
    DARK,
    GRAY,
    LIGHT,
    RED,
    SMALL,
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
#: small multiples: columns; points of a panel's side, of the histogram below it, from panel to panel, above it
COLUMNS, SIDE, BARS, ACROSS, HEADS = 3, 66.0, 16.0, 92.0, 38.0
NAME, NAME_LETTERS, NOTE_LETTERS, LINE = 8.0, 18, 66, 10.0
LEFT, GAP, FOOT = 36.0, 3.0, 50.0


@dataclass(frozen=True)
class Diagram:
    """A finding's points, mean predicted against observed `[bin]` with the interval's ends.

    says    a line below its name
    before  predicted and observed without calibration, `[bin]` each
    counts  images by predicted probability, `[bar]`, equally wide from 0 to `end`
    end     of both axes
    faded   too few positives to be judged
    """

    name: str
    says: str
    predicted: Array
    observed: Array
    low: Array
    high: Array
    before: tuple[Array, Array]
    counts: Array
    end: float
    faded: bool = False


@dataclass(frozen=True)
class Benefit:
    """A finding's net benefit `[threshold]` with its interval, and that of acting on every image."""

    name: str
    says: str
    thresholds: Array
    worth: Array
    low: Array
    high: Array
    everyone: Array
    faded: bool = False


Panel = TypeVar("Panel", Diagram, Benefit)


def reliability(diagrams: Sequence[Diagram], head: str, note: str) -> bytes:
    """SVG of a diagram for each finding, three in a row, its histogram below it; `note` is below the title."""

    def draw(page: Figure, one: Diagram, left: float, top: float, labels: tuple[bool, bool]) -> None:
        axes = panel(page, left, top, left + SIDE, top + SIDE)
        _draw_diagram(axes, one)
        below = panel(page, left, top + SIDE + GAP, left + SIDE, top + SIDE + GAP + BARS)
        _draw_counts(below, one)
        _label(axes, "", "observed" if labels[0] else "")
        _label(below, "predicted" if labels[1] else "", "")

    return _multiples(diagrams, head, note, SIDE + GAP + BARS, draw)


def net_benefit(curves: Sequence[Benefit], head: str, note: str) -> bytes:
    """SVG of a curve for each finding, three in a row; `note` is below the title."""

    def draw(page: Figure, one: Benefit, left: float, top: float, labels: tuple[bool, bool]) -> None:
        axes = panel(page, left, top, left + SIDE, top + SIDE)
        _draw_benefit(axes, one)
        _label(axes, "threshold" if labels[1] else "", "net benefit" if labels[0] else "")

    return _multiples(curves, head, note, SIDE, draw)


def _multiples(
    panels: Sequence[Panel],
    head: str,
    note: str,
    high: float,
    draw: Callable[[Figure, Panel, float, float, tuple[bool, bool]], None],
) -> bytes:
    lines = wrapped(note, NOTE_LETTERS)
    row = high + FOOT
    page, top = sheet(head, LINE * len(lines) + 4 + HEADS + row * -(-len(panels) // COLUMNS) - 14)
    for number, text in enumerate(lines):
        write(page, 4, top + 2 + LINE * number, text, size=SMALL, color=DARK)
    top += LINE * len(lines) + 4
    for number, one in enumerate(panels):
        down, column = divmod(number, COLUMNS)
        left, y = LEFT + ACROSS * column, top + HEADS - 8 + row * down
        colour = GRAY if one.faded else BLACK
        first, *more = wrapped(one.name, NAME_LETTERS)
        write(page, left - 4, y - 18, f"{first}…" if more else first, size=NAME, weight="bold", color=colour)
        write(page, left - 4, y - 8, one.says, size=SMALL, color=colour)
        draw(page, one, left, y, (column == 0, number + COLUMNS >= len(panels)))
    return svg(page)


def _ticks(end: float) -> tuple[list[float], list[str]]:
    """None, half, all: the half has no figure, which would take a digit more."""
    return [0.0, end / 2, end], ["0", "", _short(end)]


def _short(value: float) -> str:
    return f"{value:.2g}".removeprefix("0")


def _label(axes: Axes, across: str, up: str) -> None:
    """What the axes are of; the left one in the same place whatever its figures are."""
    words(axes, across, up, SMALL)
    axes.yaxis.set_label_coords(-24 / SIDE, 0.5)


def _draw_diagram(axes: Axes, one: Diagram) -> None:
    plain_axes(axes)
    axes.set_xlim(0, one.end)
    axes.set_ylim(0, one.end)
    at, names = _ticks(one.end)
    axes.set_xticks(at, [""] * len(at))
    axes.set_yticks(at, names)
    axes.plot((0, one.end), (0, one.end), color=DARK, linewidth=0.7, linestyle=":")
    axes.plot(*one.before, color=GRAY if one.faded else RED, linewidth=0.9, linestyle=(0, (4, 1.5)))
    colour = GRAY if one.faded else BLUE
    axes.vlines(one.predicted, one.low, one.high, color=colour, linewidth=1.1)
    axes.plot(one.predicted, one.observed, color=colour, linewidth=0, marker="o", markersize=3)


def _draw_counts(axes: Axes, one: Diagram) -> None:
    plain_axes(axes)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlim(0, one.end)
    axes.set_yticks([])
    at, names = _ticks(one.end)
    axes.set_xticks(at, names)
    edges = np.linspace(0, one.end, len(one.counts) + 1)
    axes.stairs(np.sqrt(one.counts), edges, fill=True, color="#BBD7EA" if not one.faded else LIGHT)
    axes.set_ylim(0, 1.05 * max(float(np.sqrt(one.counts.max())), 1.0))


def _draw_benefit(axes: Axes, one: Benefit) -> None:
    plain_axes(axes)
    end = float(one.thresholds.max()) if len(one.thresholds) else 1.0
    most = max(float(one.worth.max(initial=0.0)), float(one.everyone.max(initial=0.0)), 1e-6)
    axes.set_xlim(0, end)
    axes.set_ylim(-0.25 * most, 1.1 * most)
    axes.set_xticks(*_ticks(end))
    axes.set_yticks([0, most], ["0", _short(most)])
    axes.axhline(0, color=DARK, linewidth=0.7, linestyle=":")
    known = np.isfinite(one.low) & np.isfinite(one.high)
    if known.any():
        band = LIGHT if one.faded else "#BBD7EA"
        axes.fill_between(one.thresholds[known], one.low[known], one.high[known], color=band, linewidth=0)
    axes.plot(one.thresholds, one.everyone, color=GRAY if one.faded else RED, linewidth=0.9, linestyle=(0, (4, 1.5)))
    axes.plot(one.thresholds, one.worth, color=GRAY if one.faded else BLUE, linewidth=1.3)

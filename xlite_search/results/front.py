"""Pareto front of a study with several objectives: the runs that no other run is better than.

A run is dominated if another is at least as good in every objective and better in one. What is left is the answer of
such a study; which of these runs is best is for whoever has to pay the milliseconds.
"""

from __future__ import annotations

import io
import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlite_search.errors import BadInput

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, as in `training/balance.py`
BLUE, GRAY = "#0072B2", "#8A8A8A"
DPI, WIDTH, HEIGHT = 100, 1600, 1000
#: the axes, and the left of the list beside them, in pixels from the page's left and top
LEFT, RIGHT, TOP, BOTTOM, LIST = 100, 800, 130, 920, 860
#: the list's letters, each as wide as any other, so that its columns are plain text; its width in them; pixels
LETTERS: dict[str, Any] = {"family": "DejaVu Sans Mono", "size": 10.5}
COLUMNS, LINE, GAP = 81, 19, 7
#: ratio of the largest to the smallest value above which an axis is logarithmic, and has fewer ticks
WIDE, WIDER = 3.0, 15.0
#: areas of markers in points^2: of those without a third objective, of the largest third one, and the least visible
AREA, LARGEST, SMALLEST = 90.0, 700.0, 14.0
#: pixels from a marker's edge to its number's, and where around it, in order of preference
AWAY, AROUND = (2, 12, 24, 40, 60, 84), np.deg2rad([90, 45, 0, -45, -90, 135, 180, -135])


class Measure(NamedTuple):
    """How an objective is written: on an axis, in a table, multiplied by what, with how many digits."""

    axis: str
    word: str
    factor: float = 1.0
    form: str = "{:.4f}"

    def text(self, value: float) -> str:
        return self.form.format(self.factor * value) if math.isfinite(value) else "-"

    def flush(self, text: str) -> str:
        """A cell of the list beside the figure."""
        return text.rjust(max(len(self.word), 10) + 1)


MEASURES = {
    "val/auroc_macro": Measure("validation AUROC, macro", "AUROC"),
    "model/latency_ms": Measure("CPU latency of one image, ms", "latency", form="{:.1f} ms"),
    "model/parameters": Measure("parameters, millions", "parameters", 1e-6, "{:.2f} M"),
    "model/macs": Measure("MACs of one image, billions", "MACs", 1e-9, "{:.3f} G"),
}


def measure(name: str) -> Measure:
    """A metric or a fact in words; one without words keeps its name."""
    return MEASURES.get(name, Measure(name, name.rpartition("/")[2]))


def front(values: NDArray[np.float64], up: Sequence[bool]) -> NDArray[np.bool_]:
    """Which runs are not dominated, `[run]`, of their objectives `[run, objective]`.

    `up` says of each objective whether higher is better. Equal runs are kept together; a run with a value that is no
    number, or infinite, is never kept, nor does it dominate.
    """
    cost = np.where(np.isfinite(values), values, np.nan) * np.where(up, -1.0, 1.0)
    no_worse = (cost[:, None] <= cost).all(axis=2)
    better = (cost[:, None] < cost).any(axis=2)
    return np.asarray(~np.isnan(cost).any(axis=1) & ~(no_worse & better).any(axis=0))


def figure(labels: Sequence[str], values: NDArray[np.float64], names: Sequence[str], up: Sequence[bool]) -> bytes:
    """PNG: the first objective over the second, the third as the markers' area; the front numbered, and listed beside.

    `values` are `[run, objective]`, at least two objectives; `names` are the metrics. The line is the best of the first
    objective that is to be had at a value of the second: with a third objective, runs of the front may lie off it.
    Runs without a finite value of each are left out, and counted in the title. 1600 x 1000 pixels, or as high as the
    list is.

    Raises:
        BadInput: no run has all objectives.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    there = np.flatnonzero(np.isfinite(values).all(axis=1))
    if not len(there):
        raise BadInput(f"no run has {' and '.join(names)}: there is no front to draw")
    shown = values[there]
    best_first = np.lexsort((shown * np.where(up, -1.0, 1.0)).T[::-1])
    members = best_first[front(shown, up)[best_first]]
    lines = _list([labels[there[run]] for run in members], shown[members], names)
    page = Figure(figsize=(WIDTH / DPI, max(HEIGHT, lines[-1][0] + 2 * LINE) / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(page)
    left_out = f"; left out: {n} without a value" if (n := len(values) - len(shown)) else ""
    title = f"On the front: {len(members)} of {len(shown)} runs{left_out}"
    page.text(*_at(page, LEFT, 40), title, va="center", size=17, weight="bold")
    for y, line in lines:
        page.text(*_at(page, LIST, y), line, va="center", parse_math=False, **LETTERS)
    _scatter(page, shown, members, names, up)
    png = io.BytesIO()
    page.savefig(png, format="png")
    return png.getvalue()


def _at(page: Figure, x: float, y: float) -> tuple[float, float]:
    """A place in pixels from the page's left and top, as the shares from left and bottom that matplotlib wants."""
    return x / WIDTH, 1 - y / (DPI * page.get_figheight())


def _list(labels: Sequence[str], values: NDArray[np.float64], names: Sequence[str]) -> list[tuple[float, str]]:
    """The lines of the list, each at its height: number, label and objectives, a label on as many as it needs."""
    measures = [measure(name) for name in names]
    y: float = TOP
    lines = [(y, "".join(m.flush(m.word) for m in measures).rjust(COLUMNS))]
    for number, (label, row) in enumerate(zip(labels, values, strict=True), start=1):
        cells = "".join(m.flush(m.text(value)) for m, value in zip(measures, row, strict=True))
        room = COLUMNS - len(cells) - 4
        first, *rest = textwrap.wrap(label, room, break_on_hyphens=False) or [""]
        y += GAP
        for line in (f"{number:>2}  {first.ljust(room)}{cells}", *(f"    {line}" for line in rest)):
            y += LINE
            lines.append((y, line))
    return lines


def _scatter(
    page: Figure, values: NDArray[np.float64], members: NDArray[np.int64], names: Sequence[str], up: Sequence[bool]
) -> None:
    (left, top), (right, bottom) = _at(page, LEFT, TOP), _at(page, RIGHT, BOTTOM)
    axes = page.add_axes((left, bottom, right - left, top - bottom))
    points = values[:, 1::-1] * [measure(names[1]).factor, measure(names[0]).factor]
    area = np.full(len(values), AREA)
    if len(names) > 2:
        area = np.maximum(LARGEST * values[:, 2] / max(values[:, 2].max(), 1e-12), SMALLEST)
    _axes(axes, points[:, 0], names, up)
    steps = points[front(values[:, :2], up[:2])]
    x, y = steps[np.lexsort(steps.T[::-1])].T
    at_its_best = f"best {measure(names[0]).word} for the {measure(names[1]).word}"
    axes.step(x, y, where="pre" if up[1] else "post", color=BLUE, linewidth=1.5, alpha=0.6, label=at_its_best)
    others = np.setdiff1d(np.arange(len(values)), members)
    for runs, colour, label in ((others, GRAY, "dominated"), (members, BLUE, "on the front")):
        x, y = points[runs].T
        axes.scatter(x, y, area[runs], color=colour, alpha=0.7, edgecolor="white", zorder=3)
        axes.scatter([], [], AREA, color=colour, alpha=0.7, label=label)
    axes.margins(0.12)
    axes.autoscale_view()
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=3, frameon=False, fontsize=12, borderpad=0)
    _numbers(axes, axes.transData.transform(points), np.sqrt(area / math.pi) * DPI / 72, members)


def _axes(axes: Axes, x: NDArray[np.float64], names: Sequence[str], up: Sequence[bool]) -> None:
    """Scales, titles in words, ticks as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    log = x.min() > 0 and x.max() > WIDE * x.min()
    if log:
        axes.set_xscale("log")
        subs = (1, 2, 5) if x.max() > WIDER * x.min() else (1, 2, 3, 5, 7)
        axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=99))
        axes.xaxis.set_minor_locator(NullLocator())
    better = ["higher is better" if higher else "lower is better" for higher in up]
    area = f"\nmarkers' area: {measure(names[2]).word} ({better[2]})" if len(names) > 2 else ""
    axes.set_ylabel(f"{measure(names[0]).axis} ({better[0]})", size=13)
    axes.set_xlabel(f"{measure(names[1]).axis} ({better[1]}{', log scale' if log else ''}){area}", size=13)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axes.tick_params(labelsize=11)
    axes.grid(color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _numbers(axes: Axes, places: NDArray[np.float64], radius: NDArray[np.float64], members: NDArray[np.int64]) -> None:
    """Writes each member's place in the list beside its marker; members at one place share one text.

    `places` and `radius` are the markers', in pixels. A number is taken for a disc, and put where it covers the least
    of markers and other numbers, and nearest among these.
    """
    discs = np.column_stack([places, radius])
    for place, equal in itertools.groupby(enumerate(members, start=1), key=lambda pair: tuple(places[pair[1]])):
        (first, run), *others = equal
        text = f"{first}-{others[-1][0]}" if others else str(first)
        own = 5 + 4.5 * len(text)
        reach = radius[run] + own
        around = [np.add(place, (reach + d) * np.array([math.cos(a), math.sin(a)])) for d in AWAY for a in AROUND]
        covered = [np.maximum(discs[:, 2] + own - np.hypot(*(discs[:, :2] - at).T), 0).sum() for at in around]
        best = around[int(np.argmin(covered))]  # the first, hence nearest, of equals
        discs = np.vstack([discs, [*best, own]])
        line = (
            {"arrowstyle": "-", "color": BLUE, "linewidth": 0.8} if math.dist(best, place) > reach + AWAY[1] else None
        )
        style: dict[str, Any] = {"ha": "center", "va": "center", "size": 12, "weight": "bold", "zorder": 5}
        unit = "figure pixels"
        axes.annotate(text, place, xytext=tuple(best), xycoords=unit, textcoords=unit, arrowprops=line, **style)

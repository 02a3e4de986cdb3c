"""What a sampler draws: for each finding its share of the images and of the draws, on one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xlite_search.reports.drawing import (
    BLACK,
    BLUE,
    DARK,
    POINTS,
    SMALL,
    WIDTH,
    beside,
    panel,
    plain_axes,
    sheet,
    shown,
    svg,
    words,
    wrapped,
)

LINE, LEFT, FOOT = 15.0, 104.0, 48.0


@dataclass(frozen=True)
class Share:
    """Parts of one, of all images and of all draws (or of the loss's weight)."""

    name: str
    images: float
    drawn: float


def shares(rows: Sequence[Share], head: str, axis: str) -> bytes:
    """SVG: an open diamond is the data, a filled circle what is drawn of it; `axis` says of what it is a share."""
    names = [wrapped(row.name, 20) for row in rows]
    heights = np.array([LINE + 9.0 * (len(lines) - 1) for lines in names])
    page, top = sheet(head, float(heights.sum()) + FOOT)
    axes = panel(page, LEFT, top, WIDTH - 40, top + float(heights.sum()))
    plain_axes(axes)
    middle = np.cumsum(heights) - heights / 2
    images, drawn = (100 * np.array([getattr(row, name) for row in rows]) for name in ("images", "drawn"))
    axes.hlines(middle, images, drawn, color=BLUE, linewidth=1.4)
    axes.plot(
        images, middle, "D", color=BLACK, markerfacecolor="white", markersize=4.5, label="of all images", zorder=3
    )
    axes.plot(drawn, middle, "o", color=BLUE, markersize=4.5, label=shown(axis), zorder=4)
    furthest = np.maximum(images, drawn)
    for at, x, share in zip(middle, furthest, drawn, strict=True):
        axes.annotate(
            f"{share:.1f} %", (x, at), xytext=(6, 0), textcoords="offset points", va="center", size=SMALL, color=DARK
        )
    axes.set_xlim(0, 1.02 * float(furthest.max() or 1))
    axes.set_ylim(float(heights.sum()), 0)
    beside(axes, names, middle.tolist(), 9.0)
    words(axes, "%")
    high = page.get_figheight() * POINTS
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(LEFT / WIDTH, 2 / high),
        bbox_transform=page.transFigure,
        ncols=2,
        frameon=False,
        fontsize=SMALL,
        borderpad=0,
        handletextpad=0.3,
    )
    return svg(page)

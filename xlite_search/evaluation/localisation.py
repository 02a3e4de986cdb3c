"""Localisation: how well a map's maximum and its hottest region agree with boxes that a radiologist drew.

A map says two things: its maximum is a point, and the box around the region that has it, cut at half of the maximum,
is a box. (Wang et al. 2017 cut these maps at 60 and 180 of 255, a quarter and seven tenths.) They are held against the
boxes of the finding in the image; where there are several, the one that fits best counts.

    pointing  the point lies in a box (Zhang et al. 2016)
    iou       intersection over union of the two boxes
    iobb      intersection over the area of the map's box (Wang et al. 2017)
    iou_0.1   whether it is at least 0.1; so 0.25, 0.5, and those of iobb

A map that has nothing above 0 misses: all its figures are 0. Figures are the mean over cases of one finding, a case
being a finding in an image, and over findings their mean, so that the commonest does not speak for all.

A figure alone says nothing: a heart is where hearts are. So a constant guess stands beside it, which sees no image, the
best that there is for the finding's boxes; and the share of the image that the boxes cover, which is how often a random
point hits. Intervals are by patient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from xlite_search.data.boxes import Box
from xlite_search.evaluation.finding_means import Array, gaps, graded, shares
from xlite_search.results.intervals import Interval

#: a map's region is what has at least this share of its maximum
SHARE = 0.5
#: an IoU, or IoBB, that counts as a hit
HITS = (0.1, 0.25, 0.5)
FIGURES = ("pointing", "iou", "iobb", *(f"{name}_{hit:g}" for name in ("iou", "iobb") for hit in HITS))
#: those that are no 0 or 1
GRADED = ("iou", "iobb")
#: places along a side among which the best point is looked for
GRID = 100


class Guess(NamedTuple):
    """A point `x, y` and a box `x, y, width, height`, in pixels of the prepared image, continuous as `Box` has them."""

    point: tuple[float, float]
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Case:
    """A finding in an image, the boxes around it in pixels of the image, whose side is `size`, and whose it is."""

    image: str
    patient: str
    finding: str
    boxes: tuple[Box, ...]
    size: int

    @property
    def sides(self) -> Array:
        """x, y, width and height, `[box, 4]`."""
        return np.array([box[1:] for box in self.boxes], np.float64)

    @property
    def chance(self) -> float:
        """The share of the image that its boxes cover, by 256 x 256 points."""
        at = (np.arange(256) + 0.5) * self.size / 256
        inside = [_within(at, x, width)[None] & _within(at, y, height)[:, None] for x, y, width, height in self.sides]
        return float(np.any(inside, axis=0).mean())


def guess_of(shown: NDArray[np.floating], share: float = SHARE) -> Guess | None:
    """A map's `[height, width]` maximum, and the box around its region; None if nothing in it is above 0.

    Of several pixels that are the maximum the one nearest to the image's middle: a map is flat from its outermost cells
    on, and these are where that begins.
    """
    peak = float(shown.max())
    if not (peak > 0 and math.isfinite(peak)):
        return None
    row, column = _nearest(shown >= peak, (np.array(shown.shape) - 1) / 2)
    _, parts, sizes, _ = cv2.connectedComponentsWithStats((shown >= share * peak).astype(np.uint8), connectivity=4)
    x, y, width, height = sizes[parts[row, column], :4].tolist()
    return Guess((column + 0.5, row + 0.5), (x, y, width, height))


def _nearest(chosen: NDArray[np.bool_], middle: Array | None = None) -> tuple[int, int]:
    """Of the places that are chosen the one nearest to the middle, or to their own."""
    places = np.argwhere(chosen)
    apart = places - (places.mean(axis=0) if middle is None else middle)
    row, column = places[(apart**2).sum(axis=1).argmin()].tolist()
    return row, column


def judged(case: Case, guess: Guess | None) -> dict[str, float]:
    """Every figure of one case, from 0 to 1."""
    if guess is None:
        return dict.fromkeys(FIGURES, 0.0)
    sides, (x, y) = case.sides, guess.point
    hit = _within(np.array([x]), sides[:, :1], sides[:, 2:3]) & _within(np.array([y]), sides[:, 1:2], sides[:, 3:])
    shared = overlaps(np.array([guess.box]), sides)[0]
    area, areas = guess.box[2] * guess.box[3], sides[:, 2] * sides[:, 3]
    graded = {"iou": float((shared / (area + areas - shared)).max()), "iobb": float((shared / area).max())}
    hits = {f"{name}_{least:g}": float(graded[name] >= least) for name in GRADED for least in HITS}
    return {"pointing": float(hit.any())} | graded | hits


def _within(at: Array, start: Array | float, length: Array | float) -> NDArray[np.bool_]:
    return np.asarray((at >= start) & (at < start + length))


def overlaps(some: Array, others: Array) -> Array:
    """Area that boxes `[n, 4]` share with others `[m, 4]`, `[n, m]`."""
    ends = np.minimum((some[:, :2] + some[:, 2:])[:, None], (others[:, :2] + others[:, 2:])[None])
    both = (ends - np.maximum(some[:, None, :2], others[None, :, :2])).clip(min=0)
    return np.asarray(both[..., 0] * both[..., 1])


def constants(cases: Sequence[Case]) -> list[Guess]:
    """For each case the guess of its finding that sees no image: the best that there is for these very cases.

    Its point is the one that lies in a box of most of them, of 100 x 100; its box is, of theirs, the one with the
    highest mean IoU. Both are the same for all cases of a finding, and a bound: no other such point or box has more. To
    leave each patient's own boxes out gives less than that where a finding is in one of two places, alike frequent: the
    guess is then on the other side of each (measured on drawn radiographs: IoU 0.02, where this one has 0.21), and any
    map is better.
    """
    found: dict[str, tuple[Array, Array]] = {}
    for finding in {case.finding for case in cases}:
        found[finding] = _constant([case for case in cases if case.finding == finding])
    return [_scaled(*found[case.finding], case.size) for case in cases]


def _constant(cases: Sequence[Case]) -> tuple[Array, Array]:
    """Of one finding: the point and the box, as shares of the side."""
    at = (np.arange(GRID) + 0.5) / GRID
    counts = np.zeros((GRID, GRID), np.int64)
    for case in cases:
        x, y, width, height = (case.sides.T / case.size)[..., None]
        counts += (_within(at, y, height)[:, :, None] & _within(at, x, width)[:, None]).any(axis=0)
    row, column = _nearest(counts >= counts.max())
    sides = np.concatenate([case.sides / case.size for case in cases])
    firsts = np.cumsum([0, *(len(case.boxes) for case in cases[:-1])])
    fits = np.maximum.reduceat(_ious(sides), firsts, axis=1).mean(axis=1)
    return at[[column, row]], sides[fits.argmax()]


def _ious(sides: Array) -> Array:
    shared, areas = overlaps(sides, sides), sides[:, 2] * sides[:, 3]
    return np.asarray(shared / (areas[:, None] + areas[None] - shared))


def _scaled(point: Array, box: Array, size: int) -> Guess:
    x, y = (point * size).tolist()
    left, top, width, height = (box * size).tolist()
    return Guess((x, y), (left, top, width, height))


@dataclass(frozen=True)
class Row:
    """Figures of one finding, or the mean over findings, each with its 95 % interval by patient.

    maps, constant  of the maps, and of the guess that sees no image, by figure
    gap             the maps' less the constant's, paired
    chance          share of the image that the boxes cover: how often a random point hits
    empty           maps with nothing above 0
    median_box      median width and height of its boxes, in pixels of the prepared image
    """

    finding: str
    cases: int
    patients: int
    maps: dict[str, Interval]
    constant: dict[str, Interval]
    gap: dict[str, Interval]
    chance: float
    empty: int
    median_box: tuple[float, float]


OVER_ALL = "mean of findings"


def localisation(cases: Sequence[Case], guesses: Sequence[Guess | None]) -> list[Row]:
    """A row for each finding that has a case, in alphabetical order, and the mean over them."""
    ours = [judged(case, guess) for case, guess in zip(cases, guesses, strict=True)]
    theirs = [judged(case, guess) for case, guess in zip(cases, constants(cases), strict=True)]
    names = sorted({case.finding for case in cases})
    which = np.array([names.index(case.finding) for case in cases])
    patients = np.unique([case.patient for case in cases], return_inverse=True)[1].reshape(-1)
    chance, empty = np.array([case.chance for case in cases]), np.array([guess is None for guess in guesses])
    estimates = {figure: _estimates(ours, theirs, figure, which, patients) for figure in FIGURES}
    chosen = [which == number for number in range(len(names))]
    chances = [float(chance[of].mean()) for of in chosen]
    rows = []
    for number, name in enumerate([*names, OVER_ALL]):
        of = chosen[number] if number < len(names) else np.ones_like(empty)
        maps, constant, gap = ({figure: estimates[figure][kind][number] for figure in FIGURES} for kind in range(3))
        many, covered = len(set(patients[of].tolist())), chances[number] if number < len(names) else np.mean(chances)
        box = _median_box([case for case, own in zip(cases, of, strict=True) if own])
        rows.append(Row(name, int(of.sum()), many, maps, constant, gap, float(covered), int(empty[of].sum()), box))
    return rows


def _median_box(cases: Sequence[Case]) -> tuple[float, float]:
    width, height = np.median(np.concatenate([case.sides for case in cases]), axis=0)[2:].tolist()
    return width, height


def _estimates(
    ours: list[dict[str, float]],
    theirs: list[dict[str, float]],
    figure: str,
    which: NDArray[np.int64],
    patients: NDArray[np.int64],
) -> tuple[list[Interval], list[Interval], list[Interval]]:
    a, b = (np.array([each[figure] for each in some]) for some in (ours, theirs))
    if figure in GRADED:
        return (
            graded(a, which, patients),
            graded(b, which, patients),
            graded(a - b, which, patients, least=-1),
        )
    return shares(a, which, patients), shares(b, which, patients), gaps(a - b, which, patients)

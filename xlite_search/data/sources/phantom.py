"""Phantom chest radiographs, drawn by code: the data set of the demo and of the tests.

Nothing is downloaded and nobody was exposed. Image `i` has the same patient, labels and pixels
whatever `images` is, and in whatever order and process it is drawn: every random number is keyed
by (seed, what it is for, patient or image number).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist

import cv2
import numpy as np
from numpy.typing import NDArray

from xlite_search.data.boxes import Box
from xlite_search.data.sources import LabelTable, Loss
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.data.sources.phantom_drawing import Chest, Pose, stream
from xlite_search.data.sources.phantom_findings import CHRONIC, DRAWING, draw
from xlite_search.errors import BadInput

__all__ = ["PREVALENCE", "Phantom", "contact_sheet"]

#: Share of images with each finding: the order of NIH ChestX-ray14, its rare ones made commoner.
PREVALENCE: Mapping[str, float] = {
    "Atelectasis": 0.12,
    "Cardiomegaly": 0.10,
    "Effusion": 0.13,
    "Infiltration": 0.14,
    "Mass": 0.09,
    "Nodule": 0.10,
    "Pneumonia": 0.08,
    "Pneumothorax": 0.09,
    "Consolidation": 0.09,
    "Edema": 0.08,
    "Emphysema": 0.08,
    "Fibrosis": 0.08,
    "Pleural_Thickening": 0.09,
    "Hernia": 0.07,
}

#: Share of patients with 1, 2, 3, 4, 5 images (2 on average), and of images taken at the bedside.
FOLLOW_UPS = (0.42, 0.30, 0.16, 0.08, 0.04)
BEDSIDE = 0.35

#: Share of a finding's variance that all findings of a patient have in common, that comes from the
#: patient's chronic disease, and that comes from a passing one; the rest is drawn anew per image.
ILLNESS, CHRONIC_SHARE, ACUTE_SHARE = 0.18, 0.75, 0.2


@dataclass(frozen=True)
class Phantom:
    """A source of `images` drawn radiographs, `size` pixels square.

    prevalence    share of images with each finding: one number for all, or a mapping that overrides
                  `PREVALENCE` for the findings it names
    label_noise   probability that a label in `table()` is the opposite of what was drawn
    """

    images: int = 1500
    seed: int = 0
    size: int = 256
    prevalence: float | Mapping[str, float] = field(default_factory=lambda: dict(PREVALENCE))
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        _whole("images", self.images, 1, 10**9)
        _whole("seed", self.seed, 0, 2**63)
        _whole("size", self.size, 32, 4096)
        _share("label_noise", self.label_noise)
        if not isinstance(self.prevalence, Mapping):
            _share("prevalence", self.prevalence)
            return
        for finding, value in self.prevalence.items():
            if finding not in CHEST_FINDINGS:
                known = ", ".join(CHEST_FINDINGS)
                raise BadInput(f"phantom: prevalence names {finding!r}, which is not a finding; use one of {known}.")
            _share(f"prevalence of {finding}", value)

    @property
    def channels(self) -> int:
        return 1

    @property
    def notice(self) -> str:
        return ""

    def describe(self) -> dict[str, object]:
        return {
            "source": "phantom",
            "drawing": DRAWING,
            "images": self.images,
            "seed": self.seed,
            "size": self.size,
            "prevalence": dict(zip(CHEST_FINDINGS, self._prevalences, strict=True)),
            "label_noise": self.label_noise,
        }

    def table(self) -> LabelTable:
        patient, follow_up = self._patients
        flips = stream(self.seed, "flips").random((self.images, len(CHEST_FINDINGS))) < self.label_noise
        return LabelTable(
            names=tuple(f"{p:08d}_{f:03d}.png" for p, f in zip(patient.tolist(), follow_up.tolist(), strict=True)),
            groups=tuple(f"{p:08d}" for p in patient.tolist()),
            labels=self.truth() ^ flips.astype(np.uint8),
            classes=CHEST_FINDINGS,
            follow_ups=tuple(map(str, follow_up.tolist())),
            projections=tuple("AP" if bedside else "PA" for bedside in self._bedside.tolist()),
        )

    def lost(self) -> dict[int, Loss]:
        return {}

    def stamp(self, row: int) -> str:
        return ""

    def stamps(self) -> tuple[str, ...]:
        return ("",) * self.images

    def truth(self) -> NDArray[np.uint8]:
        """What is drawn, before label noise: multi-hot, `[image, class]`."""
        return self._truth.copy()

    def pixels(self, row: int) -> NDArray[np.uint8]:
        picture, boxes = self._drawing(row)
        self._last.clear()
        self._last[row] = boxes
        return picture

    def boxes(self, row: int) -> list[Box]:
        """Where the findings of image `row` are: one box or more for each finding that is drawn."""
        return list(self._last[row]) if row in self._last else self._drawing(row)[1]

    def findings(self, row: int) -> list[str]:
        """The findings drawn in image `row`."""
        return [name for name, present in zip(CHEST_FINDINGS, self._truth[row], strict=True) if present]

    def chest(self, row: int) -> Chest:
        """The build of the patient of image `row`."""
        return Chest.of(self.seed, int(self._patients[0][row]))

    def pose(self, row: int) -> Pose:
        """How image `row` was taken."""
        if not 0 <= row < self.images:
            raise BadInput(f"phantom: there is no image {row}; rows run from 0 to {self.images - 1}.")
        return Pose.of(self.seed, int(row), "AP" if self._bedside[row] else "PA")

    def _drawing(self, row: int) -> tuple[NDArray[np.uint8], list[Box]]:
        pose = self.pose(row)
        return draw(self.chest(row), pose, self.findings(row), self.size)

    @cached_property
    def _last(self) -> dict[int, list[Box]]:
        """The boxes of the picture that was drawn last, by its row: they are asked for next."""
        return {}

    @cached_property
    def _prevalences(self) -> list[float]:
        if isinstance(self.prevalence, Mapping):
            return [float(self.prevalence.get(name, PREVALENCE[name])) for name in CHEST_FINDINGS]
        return [float(self.prevalence)] * len(CHEST_FINDINGS)

    @cached_property
    def _patients(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Patient number (from 1) and follow-up number (from 0) of each image.

        Every patient has an image, so `images` patients are enough, and a longer data set only
        draws further numbers of the same stream. The streams of labels work the same way.
        """
        draws = stream(self.seed, "followups").random(self.images)
        counts = 1 + np.searchsorted(np.cumsum(FOLLOW_UPS)[:-1], draws, side="right")
        patient = np.repeat(np.arange(1, self.images + 1), counts)[: self.images]
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        return patient, np.arange(self.images) - first[patient - 1]

    @cached_property
    def _bedside(self) -> NDArray[np.bool_]:
        return stream(self.seed, "view").random(self.images) < BEDSIDE

    @cached_property
    def _truth(self) -> NDArray[np.uint8]:
        """A finding is present where a normal score falls below its prevalence's quantile.

        The score adds the patient's general illness, the patient's own part for the finding (large
        if the finding is chronic) and the image's part, so prevalence holds on average while
        findings come together and stay over follow-ups.
        """
        patient, classes = self._patients[0], len(CHEST_FINDINGS)
        share = np.array([CHRONIC_SHARE if name in CHRONIC else ACUTE_SHARE for name in CHEST_FINDINGS])
        illness = stream(self.seed, "illness").standard_normal((self.images, 1))[patient - 1]
        lasting = stream(self.seed, "chronic").standard_normal((self.images, classes))[patient - 1]
        passing = stream(self.seed, "acute").standard_normal((self.images, classes))
        score = ILLNESS**0.5 * illness + share**0.5 * lasting + (1 - ILLNESS - share) ** 0.5 * passing
        thresholds = np.array([_quantile(p) for p in self._prevalences])
        return np.asarray(score < thresholds, np.uint8)


def contact_sheet(phantom: Phantom, columns: int = 4) -> NDArray[np.uint8]:
    """Two normal chests (PA, AP), then one example of each finding with its boxes; RGB."""
    tiles = [_tile(phantom, _pick(phantom, view), (), f"No finding, {view}") for view in ("PA", "AP")]
    tiles += [_tile(phantom, 3 * number, (finding,), finding) for number, finding in enumerate(CHEST_FINDINGS)]
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    return np.asarray(np.vstack(rows), np.uint8)


def _pick(phantom: Phantom, view: str) -> int:
    return next((row for row in range(phantom.images) if phantom.pose(row).view == view), 0)


def _tile(phantom: Phantom, row: int, findings: tuple[str, ...], caption: str) -> NDArray[np.uint8]:
    """The chest of image `row` with these findings in place of its own."""
    row %= phantom.images
    gray, boxes = draw(phantom.chest(row), phantom.pose(row), findings, phantom.size)
    picture: NDArray[np.uint8] = np.repeat(gray[..., None], 3, axis=2)
    for box in boxes:
        corner = (box.x + box.width - 1, box.y + box.height - 1)
        cv2.rectangle(picture, (box.x, box.y), corner, (255, 200, 0), 1)
    picture[-20:] //= 3
    font, place = cv2.FONT_HERSHEY_SIMPLEX, (5, phantom.size - 6)
    cv2.putText(picture, caption.replace("_", " "), place, font, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return picture


def _quantile(share: float) -> float:
    if 0 < share < 1:
        return NormalDist().inv_cdf(share)
    return np.inf if share else -np.inf


def _whole(setting: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value < high:
        raise BadInput(f"phantom: {setting} must be a whole number from {low} to {high - 1}, got {value!r}.")


def _share(setting: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadInput(f"phantom: {setting} must be a number from 0 to 1, got {value!r}.")

"""Audit of a sampler: expected draws by finding and image, in closed form; nothing here is sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from xlite_search.data.samplers import Labels, Sampler
from xlite_search.data.sources.chest import NO_FINDING

#: Thresholds of `Audit.warnings`.
MOST_NO_FINDING = 0.90
MANY_NO_FINDING, NO_FINDING_GROWTH = 0.50, 1.10
LEAST_EFFECTIVE = 0.10
MOST_REPEATS = 10.0
NAMED = 3


@dataclass(frozen=True)
class Audit:
    """What a sampler draws, in expectation: nothing here is sampled. Shares are of draws or, where `apply` is "loss",
    of the loss's weight.

    sampler            its settings in a line
    classes            names of the findings, `[class]`
    images, draws      in the data, and drawn in an epoch
    positives          images with each finding, `[class]`; `normals` are those without any, called `normal`
    prevalence         share that shows each finding, `[class]`; an image may show several
    no_finding         share that shows none
    cv                 coefficient of variation of `prevalence`: population standard deviation / mean; 0 is even
    effective_size     Kish's (sum w)^2 / sum w^2: so many images of equal weight would be as informative
    distinct           different images in an epoch: sum 1 - (1 - p)^draws with replacement
    heaviest           expected draws an epoch of the image that weighs most (luck draws some image more often); or how
                       many times the mean it weighs in the loss
    """

    sampler: str
    apply: Literal["draw", "loss"]
    classes: tuple[str, ...]
    images: int
    draws: int
    positives: tuple[int, ...]
    normals: int
    prevalence: tuple[float, ...]
    no_finding: float
    cv: float
    effective_size: float
    distinct: float
    heaviest: float
    normal: str = NO_FINDING

    @property
    def repeats(self) -> tuple[float, ...]:
        """Draws an epoch (or multiples of the mean weight) of an average image with each finding, `[class]`."""
        times = self.draws if self.apply == "draw" else self.images
        return tuple(times * p / max(n, 1) for p, n in zip(self.prevalence, self.positives, strict=True))

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Problems with what it draws, a sentence each."""
        found = (self._normal(), self._narrow(), self._by_heart(), self._unseen())
        return tuple(sentence for sentence in found if sentence)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; findings by name."""
        by_name = {
            field: dict(zip(self.classes, getattr(self, field), strict=True))
            for field in ("positives", "prevalence", "repeats")
        }
        return asdict(self) | by_name | {"classes": list(self.classes), "warnings": list(self.warnings)}

    @property
    def starved(self) -> bool:
        """Whether nearly all is of no finding, or most of it and more than in the data."""
        normal = self.normals / self.images
        return self.no_finding > min(MOST_NO_FINDING, max(MANY_NO_FINDING, NO_FINDING_GROWTH * normal))

    def _normal(self) -> str:
        if not self.starved:
            return ""
        normal = self.normals / self.images
        if self.apply == "loss":
            return (
                f"{self.normal} has {percent(self.no_finding)} of the loss's weight, and is {percent(normal)} of images"
            )
        return (
            f"{percent(self.no_finding)} of draws are {self.normal} ({percent(normal)} of images are): "
            f"a batch of 32 shows {32 * (1 - self.no_finding):.1f} images with a finding"
        )

    def _narrow(self) -> str:
        if self.effective_size >= LEAST_EFFECTIVE * self.images:
            return ""
        what = "draws" if self.apply == "draw" else "the loss"
        share = percent(self.effective_size / self.images)
        return (
            f"effective size {self.effective_size:,.0f} of {self.images:,} images ({share}): a few images rule {what}"
        )

    def _by_heart(self) -> str:
        of_all = zip(self.repeats, self.classes, self.positives, strict=True)
        often = sorted((one for one in of_all if one[0] > MOST_REPEATS), reverse=True)
        if not often:
            return ""
        shown = ", ".join(f"{n:,} {name} {_images(n)} {times:.0f} times each" for times, name, n in often[:NAMED])
        more = f" and {len(often) - NAMED} more" if len(often) > NAMED else ""
        what = "counted in the loss" if self.apply == "loss" else "expected an epoch"
        return f"{what}: {shown}{more}, the heaviest image {self.heaviest:.0f} times: may be learnt by heart"

    def _unseen(self) -> str:
        shares = self.prevalence if self.apply == "draw" else [n / self.images for n in self.positives]
        seen = zip(self.classes, self.positives, shares, strict=True)
        unseen = [f"{name} ({n:,} {_images(n)})" for name, n, share in seen if n and share * self.draws < 1 - 1e-9]
        return f"seen less than once an epoch: {', '.join(unseen)}" if unseen else ""


def audit_of(
    spec: Sampler, labels: Labels, classes: Sequence[str], draws: int | None = None, *, normal: str = NO_FINDING
) -> Audit:
    """What `spec` draws from images with these labels in an epoch of `draws` (default: as many as there are images).

    `normal` is what an image of no class is called.
    """
    weights = spec.weights(labels)
    share = weights / weights.sum()
    there = labels != 0
    nothing = ~there.any(axis=1)
    draws = len(labels) if draws is None else draws
    prevalence = np.array([share[column].sum() for column in there.T])
    replaced = spec.build(labels).chances is not None
    return Audit(
        sampler=spec.title,
        apply=spec.apply,
        classes=tuple(classes),
        images=len(labels),
        draws=draws,
        positives=tuple(there.sum(axis=0).tolist()),
        normals=int(nothing.sum()),
        prevalence=tuple(prevalence.tolist()),
        no_finding=float(share[nothing].sum()),
        cv=float(prevalence.std() / prevalence.mean()) if prevalence.any() else 0.0,
        effective_size=float(weights.sum() ** 2 / (weights**2).sum()),
        distinct=float((1 - (1 - share) ** draws).sum()) if replaced else float(min(draws, len(labels))),
        heaviest=float(share.max() * (draws if spec.apply == "draw" else len(labels))),
        normal=normal,
    )


def percent(share: float, digits: int = 1) -> str:
    """A share as text: 0.986 is 98.6 %."""
    return f"{100 * share:.{digits}f} %"


def _images(count: int) -> str:
    return "image" if count == 1 else "images"

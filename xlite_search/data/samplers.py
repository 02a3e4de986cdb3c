"""Samplers: which images an epoch draws, and how often.

Rarity samplers weigh an image by 1/(count + 1) of its findings, as the lab's log does. What an image without finding
weighs decides nearly everything: read literally, the log's rule draws 98.6 % normal images on the NIH table. So that
choice has a name here, and `data/audit.py` says in closed form what will be drawn.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from xlite_search.spec import Spec, named

#: multi-hot, `[image, class]`; an all-zero row is "No Finding"
Labels = NDArray[np.uint8] | NDArray[np.float32]


class AsClass(Spec):
    """No Finding is one more class and weighs 1/(count + 1): no number to choose, whatever the size of the data."""

    name: Literal["as_class"] = "as_class"

    def of(self, images: int, largest: float) -> float:
        return 1 / (images + 1)

    @property
    def title(self) -> str:
        return self.name


class OfLargest(Spec):
    """`share` of the largest weight of an image with a finding: the log's 0.01, put in after the division by it."""

    name: Literal["of_largest"] = "of_largest"
    share: float = Field(0.01, gt=0, le=1)

    def of(self, images: int, largest: float) -> float:
        return self.share * largest

    @property
    def title(self) -> str:
        return f"{self.name} {self.share:g}"


class Unscaled(Spec):
    """`weight` itself beside 1/(count + 1): the log's rule as written. On the NIH table the largest of those is 0.0044,
    so nearly all draws are No Finding; kept so that the mistake can be seen and reproduced."""

    name: Literal["unscaled"] = "unscaled"
    weight: float = Field(0.01, gt=0)

    def of(self, images: int, largest: float) -> float:
        return self.weight

    @property
    def title(self) -> str:
        return f"{self.name} {self.weight:g}"


NoFinding = Annotated[Annotated[AsClass | OfLargest | Unscaled, Field(discriminator="name")], BeforeValidator(named)]


@dataclass(frozen=True, eq=False)
class Draws:
    """A sampler at work on one data set.

    images          how many there are, and how many an epoch draws
    chances         cumulated chances of a draw with replacement, `[image]`, the last is 1; None: every image once
    sample_weights  what multiplies an image's loss, `[image]`, mean 1; None: nothing does
    """

    images: int
    chances: NDArray[np.float64] | None = None
    sample_weights: NDArray[np.float64] | None = None

    @classmethod
    def weighted(cls, weights: NDArray[np.float64]) -> Draws:
        """With replacement, in proportion to `weights` `[image]`; an image of weight 0 is never drawn."""
        summed = np.cumsum(weights)
        return cls(len(weights), summed / summed[-1])

    def epoch(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Positions that this epoch draws, `[images]`: the same for the same (seed, epoch), on every machine."""
        generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
        if self.chances is None:
            return np.asarray(generator.permutation(self.images), np.int64)
        return np.searchsorted(self.chances, generator.random(self.images), side="right").astype(np.int64)


class Shuffled(Spec):
    """Every image once an epoch, in random order."""

    name: Literal["none"] = "none"
    apply: ClassVar[Literal["draw"]] = "draw"
    draws_once: ClassVar[bool] = True

    def weights(self, labels: Labels) -> NDArray[np.float64]:
        """1 for every image, `[image]`."""
        return np.ones(len(labels))

    def build(self, labels: Labels) -> Draws:
        return Draws(len(labels))

    @property
    def title(self) -> str:
        return self.name


class _ByRarity(Spec):
    name: str
    no_finding: NoFinding = AsClass()
    apply: Literal["draw", "loss"] = "draw"

    @property
    def draws_once(self) -> bool:
        """No image is drawn twice in an epoch."""
        return self.apply == "loss"

    def weights(self, labels: Labels) -> NDArray[np.float64]:
        """What an image weighs, `[image]`, from the counts of these labels `[image, class]`: give those of the training
        part, never of validation. Above 0, and not scaled."""
        there = labels != 0
        normal = ~there.any(axis=1)
        weights = self._of_findings(there, 1 / (there.sum(axis=0) + 1))
        largest = float(weights.max(where=~normal, initial=0.0)) or 1.0
        weights[normal] = self.no_finding.of(int(normal.sum()), largest)
        return weights

    @abstractmethod
    def _of_findings(self, there: NDArray[np.bool_], rarity: NDArray[np.float64]) -> NDArray[np.float64]:
        """From findings `[image, class]` and rarities `[class]`, `[image]`; any number for an image without finding."""

    def build(self, labels: Labels) -> Draws:
        weights = self.weights(labels)
        if self.apply == "loss":
            return Draws(len(labels), sample_weights=weights / weights.mean())
        return Draws.weighted(weights)

    @property
    def title(self) -> str:
        return f"{self.name}, no_finding = {self.no_finding.title}" + (", apply = loss" if self.apply == "loss" else "")


class MaxRarity(_ByRarity):
    """An image weighs 1/(count + 1) of its rarest finding.

    apply  draw: images are drawn with replacement in proportion to their weight; loss: every image is drawn once, and
           its weight, scaled to a mean of 1, multiplies its loss ("sample weights")
    """

    name: Literal["max_rarity"] = "max_rarity"

    def _of_findings(self, there: NDArray[np.bool_], rarity: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.where(there, rarity, 0.0).max(axis=1, initial=0.0))


class MeanRarity(_ByRarity):
    """An image weighs the mean of 1/(count + 1) over its findings: more even than `MaxRarity` on the NIH table, since a
    common finding beside a rare one is not carried along at the rare one's full weight. `apply` as there."""

    name: Literal["mean_rarity"] = "mean_rarity"

    def _of_findings(self, there: NDArray[np.bool_], rarity: NDArray[np.float64]) -> NDArray[np.float64]:
        # column by column: a matrix product may round otherwise on another processor, and draw otherwise
        total = np.zeros(len(there))
        for column, weight in zip(there.T, rarity, strict=True):
            total += column * weight
        total /= np.maximum(there.sum(axis=1), 1)
        return total


Sampler = Annotated[Annotated[Shuffled | MaxRarity | MeanRarity, Field(discriminator="name")], BeforeValidator(named)]


def occurrence(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each draw's image was drawn before in the same epoch, `[draw]`: every draw is another view of it."""
    order = np.argsort(positions, kind="stable")
    ordered = positions[order]
    place = np.arange(len(positions))
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(positions)]
    earlier = np.empty(len(positions), np.int64)
    earlier[order] = place - np.maximum.accumulate(np.where(first, place, 0))
    return earlier

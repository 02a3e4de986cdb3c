"""Data set as a run sees it: its spec, parts, labels and batches; opened once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from xlite_search.data import integrity
from xlite_search.data.packed import PackedSet
from xlite_search.data.split_files import Split, fraction_rows, split_of
from xlite_search.data.splits import AnySplit, ByPatient
from xlite_search.data.stratify import linked
from xlite_search.errors import BadInput
from xlite_search.remembered import Remembered
from xlite_search.spec import Spec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SMALLEST_TRAIN = 2


class DataSpec(Spec):
    """Which prepared data set, how it is split, and which part the weights are fitted on.

    fit       "train+val" leaves no validation: for the final training of a config that is already chosen
    fraction  of what is fitted on: a stratified part of its patients
    """

    name: str = "chestxray14"
    split: AnySplit = ByPatient()
    fit: Literal["train", "train+val"] = "train"
    fraction: float = Field(1.0, gt=0, le=1)


class Batch(NamedTuple):
    """One batch, on the device but for `rows` and `views`.

    images   uint8 `[batch, channel, size, size]` (float32 of the same scale after MixUp)
    labels   float32 `[batch, class]`
    rows     int64 `[batch]`, of the packed set
    views    int64 `[batch]`: which view of its image each is; 0 without augmentation
    weights  float32 `[batch]`, of each image in the loss; None if they all count the same
    """

    images: Tensor
    labels: Tensor
    rows: NDArray[np.int64]
    views: NDArray[np.int64]
    weights: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        weights = moved(self.weights) if self.weights is not None else None
        return self._replace(images=moved(self.images), labels=moved(self.labels), weights=weights)

    def parts(self, size: int | None) -> Iterator[Batch]:
        """The batch in as few pieces of at most `size` images as will do, as even as can be; whole if None."""
        count = math.ceil(len(self.rows) / size) if size else 1
        bounds = [len(self.rows) * number // count for number in range(count + 1)]
        for of in map(slice, bounds, bounds[1:]):
            weights = self.weights[of] if self.weights is not None else None
            yield Batch(self.images[of], self.labels[of], self.rows[of], self.views[of], weights)

    def pinned(self) -> Batch:
        weights = self.weights.pin_memory() if self.weights is not None else None
        return self._replace(images=self.images.pin_memory(), labels=self.labels.pin_memory(), weights=weights)


@dataclass(frozen=True)
class Part:
    """Some rows of a packed set."""

    packed: PackedSet
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def labels(self) -> NDArray[np.float32]:
        """`[image, class]`, in the order of `rows`."""
        return self.packed.labels[self.rows].astype(np.float32)

    @property
    def positives(self) -> Tensor:
        """Images with each finding, `[class]`."""
        import torch

        return torch.from_numpy(self.labels.sum(axis=0))


@dataclass(frozen=True)
class Data:
    """What a run trains on and is judged by. `val` is empty when everything is fitted on; `shares` were asked for."""

    packed: PackedSet
    split: Split
    train: Part
    val: Part
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.packed.classes

    @cached_property
    def missed_shares(self) -> list[str]:
        """Sentences on splits that are far from the share that was asked for."""
        return integrity.missed_shares(linked(self.packed.table), self.split.rows, self.shares)


def open_data(spec: DataSpec) -> Data:
    """The parts of a data set: the same object as before, if neither it nor its split's files have changed since.

    Raises:
        BadInput: it is not prepared, or its split leaves nothing to train on or to be judged by.
        Damaged: its manifest, index or split is.
    """
    packed = PackedSet.open(spec.name)
    split = split_of(packed, spec.split)
    # both are the same objects while their files are as they were, and are held by what is remembered
    return _OPENED.get((id(packed), id(split), spec.fit, spec.fraction), lambda: _parts(spec, packed, split))


_OPENED = Remembered[Data](8)


def _parts(spec: DataSpec, packed: PackedSet, split: Split) -> Data:
    train, val = split.rows["train"], split.rows["val"]
    if spec.fit == "train+val":
        train, val = np.sort(np.concatenate([train, val])), val[:0]
    elif not len(val):
        if spec.split.shares.get("val"):
            integrity.expect_parts(packed.table, split.rows, ["val"], f"data set '{spec.name}'")
        raise BadInput(f"data set '{spec.name}': the validation split is empty; give data.split.ratios a second share")
    train = fraction_rows(packed, split, spec.fit, train, spec.fraction)
    if len(train) < SMALLEST_TRAIN:
        raise BadInput(
            f"data set '{spec.name}': only {len(train)} images to train on; prepare more than these {len(packed)}, or "
            f"give them a larger share"
        )
    return Data(packed, split, Part(packed, train), Part(packed, val), spec.split.shares)

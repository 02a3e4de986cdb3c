"""Packed set + split -> batches, in an order that depends on (seed, epoch) alone.

A batch is gathered from the mapped array by one fancy index: no decoding and no worker processes are needed. On a GPU
a thread gathers and pins the next batches while the current one trains.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xlite_search.data.packed import PackedSet
from xlite_search.data.splits import ByPatient, Split, split_of
from xlite_search.errors import BadInput
from xlite_search.spec import Spec

PREFETCH = 3
SMALLEST_TRAIN = 2


class DataSpec(Spec):
    """Which prepared data set, how it is split, and which part the weights are fitted on.

    `fit="train+val"` leaves no validation: for the final training of a config that is already chosen.
    """

    name: str = "chestxray14"
    split: ByPatient = ByPatient()
    fit: Literal["train", "train+val"] = "train"


class Batch(NamedTuple):
    """images uint8 `[batch, 1, size, size]`, labels float32 `[batch, class]` on the device; rows int64 `[batch]`."""

    images: Tensor
    labels: Tensor
    rows: NDArray[np.int64]


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
        return self.packed.table.labels[self.rows].astype(np.float32)

    @property
    def positives(self) -> Tensor:
        """Images with each finding, `[class]`."""
        return torch.from_numpy(self.labels.sum(axis=0))


@dataclass(frozen=True)
class Data:
    """What a run trains on and is judged by. `val` is empty when everything is fitted on."""

    packed: PackedSet
    split: Split
    train: Part
    val: Part

    @property
    def classes(self) -> tuple[str, ...]:
        return self.packed.classes


def open_data(spec: DataSpec) -> Data:
    """The parts of a data set.

    Raises:
        BadInput: it is not prepared, or its split leaves nothing to train on or to be judged by.
        Damaged: its manifest, index or split is.
    """
    packed = PackedSet.open(spec.name)
    split = split_of(packed, spec.split)
    train, val = split.rows["train"], split.rows["val"]
    if spec.fit == "train+val":
        train, val = np.sort(np.concatenate([train, val])), val[:0]
    elif not len(val):
        raise BadInput(f"data set '{spec.name}': the validation split is empty; give data.split.ratios a second share")
    if len(train) < SMALLEST_TRAIN:
        raise BadInput(
            f"data set '{spec.name}': only {len(train)} images to train on; prepare more than these {len(packed)}"
        )
    return Data(packed, split, Part(packed, train), Part(packed, val))


def shuffled_batches(part: Part, batch_size: int, seed: int, epoch: int, device: torch.device) -> Iterator[Batch]:
    """One epoch in the order of (seed, epoch). A last batch that is not full is dropped, as in the lab's logs, unless
    it is the only one: batch statistics of a few images would be noise."""
    order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(len(part))
    return _batches(part, order[: batches_per_epoch(part, batch_size) * batch_size], batch_size, device)


def batches_per_epoch(part: Part, batch_size: int) -> int:
    return max(1, len(part) // batch_size)


def ordered_batches(part: Part, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """Every row once, in order."""
    return _batches(part, np.arange(len(part)), batch_size, device)


def _batches(part: Part, positions: NDArray[np.int64], batch_size: int, device: torch.device) -> Iterator[Batch]:
    pinned = device.type == "cuda"

    def gathered() -> Iterator[Batch]:
        for start in range(0, len(positions), batch_size):
            chosen = positions[start : start + batch_size]
            rows = part.rows[chosen]
            images = torch.from_numpy(part.packed.pixels[rows]).unsqueeze(1)
            labels = torch.from_numpy(part.labels[chosen])
            yield Batch(images.pin_memory(), labels.pin_memory(), rows) if pinned else Batch(images, labels, rows)

    if not pinned:
        yield from gathered()
        return
    for batch in _ahead(gathered):
        yield Batch(batch.images.to(device, non_blocking=True), batch.labels.to(device, non_blocking=True), batch.rows)


def _ahead(produce: Callable[[], Iterator[Batch]]) -> Iterator[Batch]:
    """Runs a producer in a thread, a few batches ahead. Its exception is raised here; leaving early ends it."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(PREFETCH)
    left = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not left.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in produce():
                put(batch)
                if left.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()

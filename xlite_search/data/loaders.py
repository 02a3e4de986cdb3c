"""Packed set + split + sampler + views -> batches.

What an epoch holds depends on (seed, epoch), the sampler and the augmentation alone: not on workers, order, trial or
machine. Without augmentation a batch is gathered from the mapped array by one fancy index, which needs no worker; on a
GPU a thread gathers and pins the next batches while the current one trains. Augmented batches are made by worker
processes where the machine's settings name some: each makes whole batches, so a batch crosses once, in shared memory.
"""

from __future__ import annotations

import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from multiprocessing.connection import Connection
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.multiprocessing  # teaches pipes to hand over shared memory
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from xlite_search.data import integrity, processes
from xlite_search.data.packed import PackedSet
from xlite_search.data.samplers import Sampler, Shuffled, occurrence
from xlite_search.data.splits import AnySplit, ByPatient, Split, fraction_of, split_of
from xlite_search.data.stratify import linked
from xlite_search.data.views import Augment, Views, view_number
from xlite_search.errors import BadInput
from xlite_search.spec import Spec

PREFETCH = 3
AHEAD = 3
SMALLEST_TRAIN = 2
EVERY_IMAGE = Shuffled()

#: positions in a part (or rows of the packed set) and the view of each, `[batch]`
Pick = tuple[NDArray[np.int64], NDArray[np.int64]]


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

    images   uint8 `[batch, 1, size, size]` (float32 of the same scale after MixUp)
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
        return self.packed.table.labels[self.rows].astype(np.float32)

    @property
    def positives(self) -> Tensor:
        """Images with each finding, `[class]`."""
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
        if spec.split.shares.get("val"):
            integrity.expect_parts(packed.table, split.rows, ["val"], f"data set '{spec.name}'")
        raise BadInput(f"data set '{spec.name}': the validation split is empty; give data.split.ratios a second share")
    train = fraction_of(packed.table, train, spec.fraction)
    if len(train) < SMALLEST_TRAIN:
        raise BadInput(
            f"data set '{spec.name}': only {len(train)} images to train on; prepare more than these {len(packed)}, or "
            f"give them a larger share"
        )
    return Data(packed, split, Part(packed, train), Part(packed, val), spec.split.shares)


def batches_per_epoch(part: Part, batch_size: int) -> int:
    """A last batch that is not full is dropped, as in the lab's logs, unless it is the only one: batch statistics of a
    few images would be noise."""
    return max(1, len(part) // batch_size)


def ordered_batches(
    part: Part,
    batch_size: int,
    device: torch.device,
    *,
    augment: Augment | None = None,
    view: int = 0,
    positions: NDArray[np.int64] | None = None,
) -> Iterator[Batch]:
    """Every image once, or those at some positions, in order: as it was prepared, or this view of it."""
    images = _Images(part.packed, augment)
    chosen = np.arange(len(part)) if positions is None else positions
    picks = _cut(chosen, np.full(len(chosen), view), batch_size)
    yield from _on(device, lambda: (_batch(part, *pick, images(part.rows[pick[0]], pick[1])) for pick in picks))


class Loader:
    """The training part, an epoch at a time. Close it: its workers stay from one epoch to the next.

    workers  processes that augment; 0: this one does. They cannot change a byte
    """

    def __init__(
        self,
        part: Part,
        batch_size: int,
        *,
        seed: int,
        device: torch.device,
        sampler: Sampler = EVERY_IMAGE,
        augment: Augment | None = None,
        workers: int = 0,
    ) -> None:
        self.part, self.batch_size, self.seed, self.device, self.augment = part, batch_size, seed, device, augment
        self.draws = sampler.build(part.labels)
        self.images = _Images(part.packed, augment)
        self.workers = _Workers(self.images, batch_size, workers) if workers and augment else None

    def epoch(self, epoch: int) -> Generator[Batch, None, None]:
        """The batches of an epoch, counted from 1. Each is valid until the next is asked for: memory is used again."""
        positions = self.draws.epoch(self.seed, epoch)
        positions = positions[: batches_per_epoch(self.part, self.batch_size) * self.batch_size]
        views = np.zeros_like(positions)
        if self.augment:
            views = view_number(epoch, occurrence(positions), self.augment.views)
        picks = _cut(positions, views, self.batch_size)
        asked = [(self.part.rows[chosen], of) for chosen, of in picks]

        def made() -> Iterator[Batch]:
            images = self.workers.images(asked) if self.workers else (self.images(*pick) for pick in asked)
            for pick, drawn in zip(picks, images, strict=True):
                yield self._batch(pick, drawn)

        yield from _on(self.device, made)

    def _batch(self, pick: Pick, images: Tensor) -> Batch:
        return _batch(self.part, *pick, images, self.draws.sample_weights)

    def close(self) -> None:
        if self.workers:
            self.workers.close()
            self.workers = None


def _cut(positions: NDArray[np.int64], views: NDArray[np.int64], batch_size: int) -> list[Pick]:
    starts = range(0, len(positions), batch_size)
    return [(positions[s : s + batch_size], views[s : s + batch_size]) for s in starts]


def _batch(
    part: Part,
    positions: NDArray[np.int64],
    views: NDArray[np.int64],
    images: Tensor,
    weights: NDArray[np.float64] | None = None,
) -> Batch:
    chosen = torch.from_numpy(weights[positions].astype(np.float32)) if weights is not None else None
    return Batch(images, torch.from_numpy(part.labels[positions]), part.rows[positions], views, chosen)


class _Images:
    """Makes images of rows and views, uint8 `[batch, 1, size, size]`. Pickles as a path, a spec and a key per image."""

    def __init__(self, packed: PackedSet, augment: Augment | None) -> None:
        self.packed, self.views = packed, Views(augment) if augment else None
        self.keys = packed.keys if augment else np.zeros(0, np.uint64)

    def __call__(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> Tensor:
        if self.views is None:
            return torch.from_numpy(self.packed.pixels[rows]).unsqueeze(1)
        images = torch.empty((len(rows), 1, self.packed.size, self.packed.size), dtype=torch.uint8)
        self.draw(rows, views, images.numpy())
        return images

    def draw(self, rows: NDArray[np.int64], views: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """The views, into `out`, `[batch, 1, size, size]`."""
        assert self.views is not None
        pixels = np.asarray(self.packed.pixels)  # a row of a plain array costs a fifth of one of a memmap
        keys = self.keys[rows].tolist()
        for place, (row, key, view) in enumerate(zip(rows.tolist(), keys, views.tolist(), strict=True)):
            out[place, 0] = self.views(pixels[row], key, view)


class _Workers:
    """Processes that draw views into memory that they share with this one: a batch each in turn, a few ahead."""

    def __init__(self, images: _Images, batch_size: int, count: int) -> None:
        side = images.packed.size
        self.slots: Tensor = torch.empty((count * AHEAD, batch_size, 1, side, side), dtype=torch.uint8)
        self.slots.share_memory_()  # type: ignore[no-untyped-call]
        self.processes = processes.start(count, _drawer, images, self.slots)
        self.pipes = list(self.processes)
        self.owed: deque[tuple[Connection, int, int]] = deque()

    def images(self, picks: list[Pick]) -> Iterator[Tensor]:
        """The images of each pick, in order; each is valid until the next is asked for."""
        while self.owed:  # by an epoch that was left in the middle
            self._next()
        waiting = iter(enumerate(picks))
        for number, pick in islice(waiting, len(self.slots)):
            self._ask(number, pick)
        while self.owed:
            yield self._next()
            if (following := next(waiting, None)) is not None:
                self._ask(*following)

    def close(self) -> None:
        processes.stop(self.processes)

    def _ask(self, number: int, pick: Pick) -> None:
        pipe, slot = self.pipes[number % len(self.pipes)], number % len(self.slots)
        processes.ask(self.processes, pipe, (slot, pick))
        self.owed.append((pipe, slot, len(pick[0])))

    def _next(self) -> Tensor:
        pipe, slot, size = self.owed.popleft()
        processes.answer(self.processes, pipe)
        return self.slots[slot, :size]


def _drawer(images: _Images, slots: Tensor) -> Callable[[tuple[int, Pick]], None]:
    """A worker's part of `_Workers`."""
    torch.set_num_threads(1)
    memory = slots.numpy()

    def draw(question: tuple[int, Pick]) -> None:
        slot, (rows, views) = question
        images.draw(rows, views, memory[slot])

    return draw


def _on(device: torch.device, produce: Callable[[], Iterator[Batch]]) -> Iterator[Batch]:
    """Batches on the device; for a GPU they are made and pinned ahead by a thread."""
    if device.type != "cuda":
        yield from produce()
        return
    for batch in _ahead(lambda: (made.pinned() for made in produce())):
        yield batch.to(device)


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

"""Packed set + split + sampler + views -> batches.

What an epoch holds depends on (seed, epoch), the sampler and the augmentation alone: not on workers, order, trial or
machine. Without augmentation a batch is gathered from the mapped array by one fancy index, which needs no worker; on a
GPU a thread gathers and pins the next batches while the current one trains. Augmented batches are made by worker
processes where the machine's settings name some: each makes whole batches, so a batch crosses once, in shared memory.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
import torch.utils.data
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from xlite_search.data.packed import PackedSet
from xlite_search.data.samplers import Sampler, Shuffled, occurrence
from xlite_search.data.splits import AnySplit, ByPatient, Split, fraction_of, split_of
from xlite_search.data.views import Augment, Views, image_key, view_number
from xlite_search.errors import BadInput
from xlite_search.spec import Spec

PREFETCH = 3
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
    train = fraction_of(packed.table, train, spec.fraction)
    if len(train) < SMALLEST_TRAIN:
        raise BadInput(
            f"data set '{spec.name}': only {len(train)} images to train on; prepare more than these {len(packed)}, or "
            f"give them a larger share"
        )
    return Data(packed, split, Part(packed, train), Part(packed, val))


def batches_per_epoch(part: Part, batch_size: int) -> int:
    """A last batch that is not full is dropped, as in the lab's logs, unless it is the only one: batch statistics of a
    few images would be noise."""
    return max(1, len(part) // batch_size)


def ordered_batches(part: Part, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """Every row once, in order, as it was prepared."""
    images = _Images(part.packed, None)
    picks = _cut(np.arange(len(part)), np.zeros(len(part), np.int64), batch_size)
    yield from _on(device, lambda: (_batch(part, *pick, images[part.rows[pick[0]], pick[1]]) for pick in picks))


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
        self.workers = _Workers(self.images, workers, pinned=device.type == "cuda") if workers and augment else None

    def epoch(self, epoch: int) -> Generator[Batch, None, None]:
        """The batches of an epoch, counted from 1."""
        positions = self.draws.epoch(self.seed, epoch)
        positions = positions[: batches_per_epoch(self.part, self.batch_size) * self.batch_size]
        views = np.zeros_like(positions)
        if self.augment:
            views = view_number(epoch, occurrence(positions), self.augment.views)
        picks = _cut(positions, views, self.batch_size)
        if self.workers:
            made = self.workers.images([(self.part.rows[chosen], of) for chosen, of in picks])
            for pick, images in zip(picks, made, strict=True):
                yield self._batch(pick, images).to(self.device)
        else:
            rows = self.part.rows
            yield from _on(self.device, lambda: (self._batch(p, self.images[rows[p[0]], p[1]]) for p in picks))

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


class _Images(torch.utils.data.Dataset[Tensor]):
    """(rows, views) -> uint8 `[batch, 1, size, size]`. Pickles as a path and a spec."""

    def __init__(self, packed: PackedSet, augment: Augment | None) -> None:
        self.packed, self.views = packed, Views(augment) if augment else None
        self.keys = [image_key(name) for name in packed.table.names] if augment else []

    def __getitem__(self, pick: Pick) -> Tensor:
        rows, views = pick
        images = self.packed.pixels[rows]
        if self.views:
            for place, (row, view) in enumerate(zip(rows.tolist(), views.tolist(), strict=True)):
                images[place] = self.views(images[place], self.keys[row], view)
        return torch.from_numpy(images).unsqueeze(1)


class _Workers:
    """torch's own worker processes, fed with whole batches; kept from epoch to epoch."""

    def __init__(self, images: _Images, workers: int, *, pinned: bool) -> None:
        self.picks: list[Pick] = []
        self.loader = torch.utils.data.DataLoader(
            images,
            batch_size=None,
            sampler=_Picks(self),
            num_workers=workers,
            prefetch_factor=PREFETCH,
            persistent_workers=True,
            pin_memory=pinned,
            multiprocessing_context="spawn",
            worker_init_fn=_one_thread,
            generator=torch.Generator(),  # the global one would be drawn from, and training with it
        )

    def images(self, picks: list[Pick]) -> Iterator[Tensor]:
        self.picks = picks
        return iter(self.loader)

    def close(self) -> None:
        del self.loader  # its workers end with it


class _Picks(torch.utils.data.Sampler[Pick]):
    def __init__(self, workers: _Workers) -> None:
        self.workers = workers

    def __iter__(self) -> Iterator[Pick]:
        return iter(self.workers.picks)


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)


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

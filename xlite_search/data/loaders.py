"""Data loader: packed set + split + sampler + views -> batches.

What an epoch holds depends on (seed, epoch), the sampler and the augmentation alone: not on workers, order, trial or
machine. Without augmentation a batch is gathered from the mapped array by one fancy index, which needs no worker; on a
GPU a thread gathers and pins the next batches while the current one trains. Augmented batches are made by worker
processes where the machine's settings name some: each makes whole batches, so a batch crosses once, in shared memory.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from xlite_search.data.dataset import Batch, Part
from xlite_search.data.samplers import Sampler, Shuffled, occurrence
from xlite_search.data.views import Augment, view_number
from xlite_search.data.workers import Pick, _Images, _on, _Workers

EVERY_IMAGE = Shuffled()


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

    def _batch(self, pick: Pick, images: NDArray[np.uint8]) -> Batch:
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
    images: NDArray[np.uint8],
    weights: NDArray[np.float64] | None = None,
) -> Batch:
    chosen = torch.from_numpy(weights[positions].astype(np.float32)) if weights is not None else None
    labels = torch.from_numpy(part.labels[positions])
    return Batch(torch.from_numpy(images), labels, part.rows[positions], views, chosen)

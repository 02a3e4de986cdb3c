"""Loader workers: batches made in this process, in others that draw views into shared memory, or pinned for a GPU."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing.connection import Connection

import numpy as np
import torch
import torch.multiprocessing  # teaches pipes to hand over shared memory
from numpy.typing import NDArray
from torch import Tensor

from xlite_search.data import processes
from xlite_search.data.dataset import Batch
from xlite_search.data.packed import PackedSet
from xlite_search.data.views import Augment, Views

PREFETCH = 3

AHEAD = 3

#: positions in a part (or rows of the packed set) and the view of each, `[batch]`
Pick = tuple[NDArray[np.int64], NDArray[np.int64]]


class _Images:
    """Makes images of rows and views, uint8 `[batch, channel, size, size]`.

    Pickles as a path, a spec and a key per image.
    """

    def __init__(self, packed: PackedSet, augment: Augment | None) -> None:
        self.packed, self.views = packed, Views(augment) if augment else None
        self.keys = packed.keys if augment else np.zeros(0, np.uint64)

    def __call__(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> Tensor:
        if self.views is None:
            return torch.from_numpy(self.packed.pixels[rows])
        images = torch.empty((len(rows), *self.packed.pixels.shape[1:]), dtype=torch.uint8)
        self.draw(rows, views, images.numpy())
        return images

    def draw(self, rows: NDArray[np.int64], views: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """The views, into `out`, `[batch, channel, size, size]`."""
        assert self.views is not None
        pixels = np.asarray(self.packed.pixels)  # a row of a plain array costs a fifth of one of a memmap
        keys = self.keys[rows].tolist()
        for place, (row, key, view) in enumerate(zip(rows.tolist(), keys, views.tolist(), strict=True)):
            for channel, image in enumerate(pixels[row]):
                out[place, channel] = self.views(image, key, view)


class _Workers:
    """Processes that draw views into memory that they share with this one: a batch each in turn, a few ahead."""

    def __init__(self, images: _Images, batch_size: int, count: int) -> None:
        shape = images.packed.pixels.shape[1:]
        self.slots: Tensor = torch.empty((count * AHEAD, batch_size, *shape), dtype=torch.uint8)
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
            self._request(number, pick)
        while self.owed:
            yield self._next()
            if (following := next(waiting, None)) is not None:
                self._request(*following)

    def close(self) -> None:
        processes.stop(self.processes)

    def _request(self, number: int, pick: Pick) -> None:
        pipe, slot = self.pipes[number % len(self.pipes)], number % len(self.slots)
        processes.request(self.processes, pipe, (slot, pick))
        self.owed.append((pipe, slot, len(pick[0])))

    def _next(self) -> Tensor:
        pipe, slot, size = self.owed.popleft()
        processes.reply(self.processes, pipe)
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

"""Loader workers: batches made in this process, in others that draw views into shared memory, or pinned for a GPU."""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xlite_search.data import processes
from xlite_search.data.dataset import Batch
from xlite_search.data.packed import PackedSet
from xlite_search.data.views import Augment, Views

if TYPE_CHECKING:
    import torch

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

    def __call__(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.uint8]:
        if self.views is None:
            return self.packed.pixels[rows]
        images = np.empty((len(rows), *self.packed.pixels.shape[1:]), np.uint8)
        self.draw(rows, views, images)
        return images

    def draw(self, rows: NDArray[np.int64], views: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """The views, into `out`, `[batch, channel, size, size]`."""
        assert self.views is not None
        pixels = np.asarray(self.packed.pixels)  # its rows are taken faster than a memmap's
        keys = self.keys[rows].tolist()
        for place, (row, key, view) in enumerate(zip(rows.tolist(), keys, views.tolist(), strict=True)):
            self.views.draw(pixels[row], key, view, out[place])


class _Workers:
    """Processes that draw views into memory that they share with this one: a batch each in turn, a few ahead.

    The memory has no name, and goes with the last process that maps it. They load no torch.
    """

    def __init__(self, images: _Images, batch_size: int, count: int) -> None:
        shape = (count * AHEAD, batch_size, *images.packed.pixels.shape[1:])
        memory = multiprocessing.get_context("spawn").RawArray(ctypes.c_uint8, math.prod(shape))
        self.slots = _as_slots(memory, shape)
        self.processes = processes.start(count, _drawer, images, memory, shape)
        self.pipes = list(self.processes)
        self.owed: deque[tuple[Connection, int, int]] = deque()

    def images(self, picks: list[Pick]) -> Iterator[NDArray[np.uint8]]:
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

    def _next(self) -> NDArray[np.uint8]:
        pipe, slot, size = self.owed.popleft()
        processes.reply(self.processes, pipe)
        return self.slots[slot, :size]


def _as_slots(memory: Any, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.frombuffer(memory, np.uint8).reshape(shape)


def _drawer(images: _Images, memory: Any, shape: tuple[int, ...]) -> Callable[[tuple[int, Pick]], None]:
    """A worker's part of `_Workers`."""
    slots = _as_slots(memory, shape)

    def draw(question: tuple[int, Pick]) -> None:
        slot, (rows, views) = question
        images.draw(rows, views, slots[slot])

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

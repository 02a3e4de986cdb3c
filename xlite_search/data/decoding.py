"""Decoding and preprocessing of raw images on all cores, a few images at a time.

The main process hands rows to workers through a pipe each, and no more than two chunks ahead, so memory does not grow
with the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from xlite_search import limits
from xlite_search.data import processes
from xlite_search.data.boxes import Box, outside
from xlite_search.data.packed import digest_of
from xlite_search.data.preprocess import Preprocess, Raw
from xlite_search.data.sources import Loss, Source, Unreadable
from xlite_search.errors import BadInput

CHUNK, CHUNK_BYTES = 16, 8 << 20
AHEAD = 2
FEW = 64


class Kept(NamedTuple):
    """A prepared image: the hash of its pixels, `1024x1024` (width by height before), the stamp of its raw file, and
    boxes around findings in it, in raw pixels."""

    digest: str
    raw_size: str
    stamp: str
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """Some rows of the table, prepared.

    kept    those that could be read, in the order of `pixels`
    pixels  uint8, `[kept, channel, size, size]`
    lost    the others, and why
    """

    kept: dict[int, Kept]
    pixels: NDArray[np.uint8]
    lost: dict[int, Loss]


def decode(source: Source, rows: Iterable[int], preprocess: Preprocess) -> Chunk:
    """Reads and prepares some rows. Raises BadInput if a box does not lie in its image."""
    images: list[NDArray[np.uint8]] = []
    kept: dict[int, Kept] = {}
    lost: dict[int, Loss] = {}
    for row in rows:
        stamp = source.stamp(row)
        try:
            found = source.pixels(row)
        except Unreadable as reason:
            lost[row] = Loss(str(reason), reason.cause)
            continue
        raw = found if isinstance(found, Raw) else Raw(found)
        image = preprocess(raw)
        images.append(image)
        height, width = raw.size
        boxes = tuple(source.boxes(row))
        if where := outside(boxes, height, width):
            raise BadInput(
                f"image {source.table().names[row]} has {width} x {height} px, and {where}: boxes are in pixels of the "
                "images that are prepared; give the images that they were drawn in, or leave --boxes off"
            )
        kept[row] = Kept(digest_of(image.tobytes()), f"{width}x{height}", stamp, boxes)
    nothing = np.empty((0, preprocess.channels, preprocess.size, preprocess.size), np.uint8)
    return Chunk(kept, np.stack(images) if images else nothing, lost)


def decoded(
    source: Source, rows: list[int], preprocess: Preprocess, workers: int | None = None
) -> Generator[Chunk, None, None]:
    """All these rows, each exactly once, in chunks that come as they are ready. Closing it ends the workers.

    Raises:
        XliteError: a worker was killed.
    """
    length = max(1, min(CHUNK, CHUNK_BYTES // preprocess.image_bytes))
    chunks = (rows[start : start + length] for start in range(0, len(rows), length))
    if len(rows) < FEW:
        yield from (decode(source, chunk, preprocess) for chunk in chunks)
        return
    started = processes.start(workers or limits.cores(), _decoder, source, preprocess)
    try:
        yield from _by_workers(started, chunks)
    finally:
        processes.stop(started)


def _by_workers(started: processes.Processes, chunks: Iterator[list[int]]) -> Iterator[Chunk]:
    owed = dict.fromkeys(started, 0)
    for pipe in list(started) * AHEAD:
        if (chunk := next(chunks, None)) is not None:
            processes.request(started, pipe, chunk)
            owed[pipe] += 1
    while busy := [pipe for pipe in owed if owed[pipe]]:
        for pipe in cast(list[Connection], connection.wait(busy)):
            done = processes.reply(started, pipe)
            if (chunk := next(chunks, None)) is not None:
                processes.request(started, pipe, chunk)
            else:
                owed[pipe] -= 1
            yield done


def _decoder(source: Source, preprocess: Preprocess) -> Callable[[list[int]], Chunk]:
    return lambda rows: decode(source, rows, preprocess)

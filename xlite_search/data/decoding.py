"""Raw images to prepared ones, on all cores: CLAHE and resize, a few images at a time.

The main process hands rows to workers through a pipe each, and no more than two chunks ahead, so memory does not grow
with the data set. A pipe ends with its process: a worker whose main process was killed leaves, and a worker that was
killed is noticed. Queues or a pool would leave orphans, and complaints about their semaphores, after a kill.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from xlite_search.data.packed import digest_of
from xlite_search.data.sources import Source, Unreadable
from xlite_search.errors import XliteError

CLIP_LIMIT, TILES = 2.0, 8
CHUNK, CHUNK_BYTES = 16, 8 << 20
AHEAD = 2
FEW = 64
#: Windows waits for at most 63 handles at once.
MOST_WORKERS = 60


class Kept(NamedTuple):
    """A prepared image: the hash of its pixels, and `1024x1024`, width by height before preparing."""

    digest: str
    raw_size: str


@dataclass(frozen=True)
class Chunk:
    """Some rows of the table, prepared.

    kept    those that could be read, in the order of `pixels`
    pixels  uint8, `[kept, size, size]`
    lost    the others, and why
    """

    kept: dict[int, Kept]
    pixels: NDArray[np.uint8]
    lost: dict[int, str]


def enhance(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """CLAHE, padding to a square, area-averaging resize: uint8 `[h, w]` to uint8 `[size, size]`."""
    clahe = cv2.createCLAHE(clipLimit=CLIP_LIMIT, tileGridSize=(TILES, TILES))
    return _resized(_square(np.asarray(clahe.apply(image), np.uint8)), size)


def decode(source: Source, rows: Iterable[int], size: int) -> Chunk:
    """Reads and prepares some rows."""
    images: list[NDArray[np.uint8]] = []
    kept: dict[int, Kept] = {}
    lost: dict[int, str] = {}
    for row in rows:
        try:
            raw = source.pixels(row)
        except Unreadable as reason:
            lost[row] = str(reason)
            continue
        image = enhance(raw, size)
        images.append(image)
        kept[row] = Kept(digest_of(image.tobytes()), f"{raw.shape[1]}x{raw.shape[0]}")
    return Chunk(kept, np.stack(images) if images else np.empty((0, size, size), np.uint8), lost)


def decoded(source: Source, rows: list[int], size: int, workers: int | None = None) -> Generator[Chunk, None, None]:
    """All these rows, each exactly once, in chunks that come as they are ready. Closing it ends the workers.

    Raises:
        XliteError: a worker was killed.
    """
    length = max(1, min(CHUNK, CHUNK_BYTES // size**2))
    chunks = (rows[start : start + length] for start in range(0, len(rows), length))
    if len(rows) < FEW:
        yield from (decode(source, chunk, size) for chunk in chunks)
    else:
        yield from _by_workers(source, chunks, size, min(workers or _cores(), MOST_WORKERS))


def _by_workers(source: Source, chunks: Iterator[list[int]], size: int, count: int) -> Generator[Chunk, None, None]:
    with _workers(count) as processes:
        owed = dict.fromkeys(processes, 0)
        for pipe in processes:
            _send(pipe, processes[pipe], (source, size))
        for pipe in list(processes) * AHEAD:
            if (chunk := next(chunks, None)) is not None:
                _send(pipe, processes[pipe], chunk)
                owed[pipe] += 1
        while busy := [pipe for pipe in owed if owed[pipe]]:
            for pipe in cast(list[Connection], connection.wait(busy)):
                done = _received(pipe, processes[pipe])
                if (chunk := next(chunks, None)) is not None:
                    _send(pipe, processes[pipe], chunk)
                else:
                    owed[pipe] -= 1
                yield done


@contextmanager
def _workers(count: int) -> Iterator[dict[Connection, SpawnProcess]]:
    context = multiprocessing.get_context("spawn")
    processes: dict[Connection, SpawnProcess] = {}
    try:
        with _interrupts_held():
            for _ in range(count):
                ours, theirs = context.Pipe()
                processes[ours] = context.Process(target=_serve, args=(theirs,), daemon=True)
                processes[ours].start()
                theirs.close()
        yield processes
    finally:
        for pipe, process in processes.items():
            pipe.close()
            if process.pid is not None:
                process.terminate()
                process.join()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that are started meanwhile never hear Ctrl+C, which goes to the whole terminal: they inherit the mask.

    Windows has none: there a worker turns deaf a moment after it began.
    """
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # later, its start would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection) -> None:
    """A worker's life: the source, then chunk after chunk until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    with suppress(EOFError, OSError):
        source, size = pipe.recv()
        while True:
            rows = pipe.recv()
            try:
                answer: object = decode(source, rows, size)
            except XliteError as error:
                answer = error
            except Exception:
                answer = RuntimeError(traceback.format_exc())
            pipe.send(answer)


def _send(pipe: Connection, process: SpawnProcess, what: object) -> None:
    try:
        pipe.send(what)
    except OSError:
        raise _killed(process) from None


def _received(pipe: Connection, process: SpawnProcess) -> Chunk:
    try:
        answer = pipe.recv()
    except (EOFError, OSError):
        raise _killed(process) from None
    if isinstance(answer, Exception):
        raise answer
    assert isinstance(answer, Chunk)
    return answer


def _killed(process: SpawnProcess) -> XliteError:
    process.join()
    return XliteError(
        f"a process that prepares images was ended from outside (exit code {process.exitcode}), perhaps because memory "
        "ran out; what is prepared is kept: close other programs and start the same command again"
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _square(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape
    if height == width:
        return image
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    padded = np.zeros((side, side), np.uint8)
    padded[top : top + height, left : left + width] = image
    return padded


def _resized(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    shrinks = image.shape[0] > size
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size, size), interpolation=how), np.uint8)

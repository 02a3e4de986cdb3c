"""Raw pixels to the packed set: CLAHE and resize, done once, on all cores.

CLAHE (clip limit 2.0, 8 x 8 tiles; Zuiderveld 1994, as OpenCV has it) runs on the raw image, before it is resized, as
in the lab's EXP-001. Images that are not square are padded with black, never stretched.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from xlite_search import places, records
from xlite_search.data import packed
from xlite_search.data.sources import Source
from xlite_search.errors import BadInput

CLIP_LIMIT, TILES = 2.0, 8
SMALLEST, LARGEST = 32, 1024
CHUNK = 32
FEW = 64

Progress = Callable[[int, int], None]


def enhance(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """CLAHE, padding to a square, area-averaging resize: uint8 `[h, w]` to uint8 `[size, size]`."""
    clahe = cv2.createCLAHE(clipLimit=CLIP_LIMIT, tileGridSize=(TILES, TILES))
    return _resized(_square(np.asarray(clahe.apply(image), np.uint8)), size)


def prepare(name: str, source: Source, size: int, progress: Progress = lambda done, total: None) -> packed.PackedSet:
    """Prepares a data set, unless it already is there and the same.

    Raises:
        BadInput: the name is taken by another data set, the size is out of range, an image cannot be read, no space.
    """
    if not SMALLEST <= size <= LARGEST:
        raise BadInput(f"--size {size}: expected {SMALLEST} to {LARGEST} pixels")
    folder = places.data_folder(name)
    table = source.table()
    index = packed.index_text(table).encode()
    wanted = {
        "source": source.describe(),
        "size": size,
        "clahe": {"clip_limit": CLIP_LIMIT, "tiles": TILES},
        "images": len(table),
        "patients": len(set(table.patients)),
        "classes": list(table.classes),
        "index_sha256": hashlib.sha256(index).hexdigest(),
        "notice": source.notice,
    }
    if (folder / packed.MANIFEST).exists():
        return _same_or_refuse(name, wanted)
    partial = folder.with_name(f"{name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _expect_space(partial, len(table) * size * size)
    pixels_sha256 = _write_pixels(partial / packed.PIXELS, source, len(table), size, progress)
    records.write_atomic(partial / packed.INDEX, index)
    records.write_manifest(partial / packed.MANIFEST, wanted | {"pixels_sha256": pixels_sha256})
    os.replace(partial, folder)
    records.sync_folder(folder.parent)
    return packed.PackedSet.open(name)


def _write_pixels(path: Path, source: Source, images: int, size: int, progress: Progress) -> str:
    sha = hashlib.sha256()
    with open(path, "wb") as file:
        for done, image in enumerate(_images(source, images, size), start=1):
            data = image.tobytes()
            sha.update(data)
            file.write(data)
            progress(done, images)
        file.flush()
        os.fsync(file.fileno())
    return sha.hexdigest()


def _images(source: Source, images: int, size: int) -> Iterator[NDArray[np.uint8]]:
    """Every prepared image in order; in processes of their own when there is enough to do."""
    if images < FEW:
        yield from (enhance(source.pixels(row), size) for row in range(images))
        return
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), _start_worker, (source, size)) as pool:
        yield from pool.imap(_enhance_row, range(images), chunksize=CHUNK)


_job: tuple[Source, int]


def _start_worker(source: Source, size: int) -> None:
    global _job
    _job = source, size
    cv2.setNumThreads(1)


def _enhance_row(row: int) -> NDArray[np.uint8]:
    source, size = _job
    return enhance(source.pixels(row), size)


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


def _same_or_refuse(name: str, wanted: dict[str, object]) -> packed.PackedSet:
    there = packed.PackedSet.open(name)
    differs = [key for key in wanted if there.manifest.get(key) != wanted[key]]
    if differs:
        raise BadInput(
            f"data set '{name}' exists and differs in {', '.join(differs)}; take another name, or remove {there.folder}"
        )
    return there


def _expect_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed * 1.05:
        folder.rmdir()
        raise BadInput(
            f"{folder.parent}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free; make room, or set XLITE_DATA"
        )

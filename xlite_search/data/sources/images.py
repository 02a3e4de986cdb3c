"""Image files (PNG, JPEG, DICOM) to raw pixels, gray or RGB, or a phrase that says why one is of no use.

What a file holds decides how it is read, not its suffix: copies of ChestX-ray14 on the web have JPEGs named `.png`.
OpenCV fills what is missing of a cut file with gray and says nothing, therefore every PNG chunk is checked against its
CRC, and a JPEG is walked to its end marker, before anything is decoded. A JPEG has no checksum: a changed byte amid its
data shows in the picture only.

More than 8 bits stay as they are, and `data/preprocess.py` makes 8 of them, unless a DICOM file names a window.
"""

from __future__ import annotations

import heapq
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from struct import unpack_from
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from xlite_search.data.preprocess import Raw
from xlite_search.data.sources import SUFFIXES, Unfit, Unreadable
from xlite_search.data.sources.dicom import is_dicom, read_dicom
from xlite_search.data.sources.gray import expect_size, with_channels
from xlite_search.errors import BadInput

ENDINGS = tuple(f".{suffix}" for suffix in SUFFIXES)

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
#: A PNG's colour types: gray with or without alpha; colour, palette, colour with alpha.
GRAY_TYPES, COLOUR_TYPES = {0, 4}, {2, 3, 6}
#: Chunks that pixels and orientation need; about others libpng only complains, on stderr.
NEEDED_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"eXIf", b"IEND"}
JPEG_END, JPEG_SCAN = 0xD9, 0xDA
JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")


class Files(NamedTuple):
    """Files by their name, both sorted; a name that occurs twice has several paths.

    images  those that are called as images are
    others  the rest: DICOM files often have no suffix, or the last number of their UID looks like one
    """

    images: dict[str, tuple[Path, ...]]
    others: dict[str, tuple[Path, ...]]


def find_files(folder: Path) -> Files:
    """Files at any depth.

    Links to folders are followed, each folder counts once and by its direct path if it has one. Hidden files and what
    macOS puts into archives (`__MACOSX`, `._x.png`) are left out.

    Raises:
        BadInput: the folder, or one in it, is not there or cannot be listed.
    """
    found: dict[str, list[str]] = {}
    for entry in _file_entries(folder):
        found.setdefault(entry.name, []).append(entry.path)
    files = Files({}, {})
    for name in sorted(found):
        kind = files.images if name.lower().endswith(ENDINGS) else files.others
        kind[name] = tuple(map(Path, sorted(found[name])))
    return files


def read_image(path: Path, channels: int = 1) -> Raw:
    """The image in a PNG, JPEG or DICOM file, upright as its EXIF tag has it.

    Alpha is ignored. Colour becomes luminance (ITU-R BT.601) where one channel is asked for (where the channels are
    equal, that is the channel; of a JPEG it is the luminance that the file holds), else it is RGB; gray stays gray.

    Raises:
        Unreadable: it is missing, damaged, no image, of an absurd size, or all its pixels are equal.
        BadInput: it is a DICOM file and pydicom is not installed.
    """
    return image_in(_content(path), channels, str(path))


def image_in(data: bytes, channels: int = 1, name: str = "it") -> Raw:
    """The image in the bytes of a PNG, JPEG or DICOM file, as `read_image`; `name` is what a sentence calls it."""
    if data.startswith(PNG):
        raw = Raw(_png(data, channels))
    elif data.startswith(JPEG):
        raw = Raw(_jpeg(data, channels))
    elif is_dicom(data):
        raw = read_dicom(data, name, channels)
    else:
        raise Unreadable(f"not a PNG, JPEG or DICOM file: it begins with {data[:12]!r}")
    if raw.is_blank:
        raise Unfit("all its pixels are equal")
    return raw


def _file_entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    seen = {str(parent) for parent in Path(os.path.realpath(folder)).parents}
    waiting = [(False, str(folder))]
    while waiting:
        _, place = heapq.heappop(waiting)
        real = os.path.realpath(place)
        if real in seen:
            continue
        seen.add(real)
        for entry in _entries(place):
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            with suppress(OSError):  # a link to itself is neither
                if entry.is_file():
                    yield entry
                elif entry.is_dir():
                    heapq.heappush(waiting, (entry.is_symlink(), entry.path))


def _entries(place: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            return list(entries)
    except FileNotFoundError:
        raise BadInput(f"{place}: there is no such folder; give the one that holds the images") from None
    except OSError as error:
        raise BadInput(f"{place} cannot be listed: {error.strerror}; give a folder that can be read") from None


def _content(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise Unreadable("a folder, not a file" if stat.S_ISDIR(mode) else "a device or a pipe, not a file")
        data = path.read_bytes()
    except FileNotFoundError:
        raise Unreadable("no such file") from None
    except PermissionError:
        raise Unreadable("permission denied") from None
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from None
    if not data:
        raise Unreadable("empty (0 bytes)")
    return data


def _png(data: bytes, channels: int) -> NDArray[Any]:
    chunks = list(_png_chunks(memoryview(data)))
    kinds = {kind for kind, _, _ in chunks}
    if chunks[0][0] != b"IHDR" or b"IDAT" not in kinds:
        raise Unreadable("a PNG file without a header or without pixels")
    width, height, depth, colour = unpack_from(">IIBB", data, len(PNG) + 8)
    if colour not in GRAY_TYPES and colour not in COLOUR_TYPES:
        raise Unreadable(f"a PNG file of the unknown colour type {colour}")
    expect_size(width, height)
    if not kinds <= NEEDED_CHUNKS:
        data = PNG + b"".join(data[start:end] for kind, start, end in chunks if kind in NEEDED_CHUNKS)
    flags = cv2.IMREAD_GRAYSCALE if colour in GRAY_TYPES else cv2.IMREAD_COLOR
    flags = flags | cv2.IMREAD_ANYDEPTH if depth == 16 else flags
    return with_channels(_decoded(data, flags, "PNG"), channels, blue_first=True)


def _png_chunks(data: memoryview) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each chunk up to IEND, every one complete and with the CRC that it carries."""
    start, kind = len(PNG), b""
    while kind != b"IEND":
        if start + 12 > len(data):
            raise Unreadable("a PNG file that is cut off")
        length, kind = unpack_from(">I4s", data, start)
        end = start + 12 + length
        if not kind.isalpha():
            raise Unreadable("a PNG file that is damaged: no chunk where one is due")
        if end > len(data):
            raise Unreadable("a PNG file that is cut off")
        if zlib.crc32(data[start + 4 : end - 4]) != unpack_from(">I", data, end - 4)[0]:
            raise Unreadable(f"a PNG file that is damaged: the checksum of its {kind.decode()} chunk is wrong")
        yield kind, start, end
        start = end


def _jpeg(data: bytes, channels: int) -> NDArray[Any]:
    frames = [place for marker, place in _jpeg_markers(data) if marker in JPEG_FRAMES]
    if not frames or len(data) < frames[0] + 9:
        raise Unreadable("a JPEG file without a header")
    height, width = unpack_from(">HH", data, frames[0] + 5)
    expect_size(width, height)
    flags = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR
    return with_channels(_decoded(data, flags, "JPEG"), channels, blue_first=True)


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Each marker up to the end of the image, and its place. Segments are stepped over: a thumbnail has markers too."""
    place, next_marker = 2, JPEG_MARKER.match
    while found := next_marker(data, place):
        place, marker = found.end() - 2, data[found.end() - 1]
        if marker == JPEG_END:
            return
        if place + 4 > len(data):
            break
        yield marker, place
        place += 2 + unpack_from(">H", data, place + 2)[0]
        next_marker = JPEG_MARKER.search if marker == JPEG_SCAN else JPEG_MARKER.match
    raise Unreadable("a JPEG file that is cut off or damaged")


def _decoded(data: bytes, flags: int, kind: str) -> NDArray[Any]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise Unreadable(f"a {kind} file that cannot be decoded")
    return np.asarray(image)

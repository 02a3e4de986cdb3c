"""One image file to gray uint8, or a phrase that says why it is of no use.

What a file holds decides how it is read, not its suffix: copies of ChestX-ray14 on the web have JPEGs named `.png`.
OpenCV fills what is missing of a cut file with gray and says nothing, therefore every PNG chunk is checked against its
CRC, and a JPEG is walked to its end marker, before anything is decoded. A JPEG has no checksum: a changed byte amid its
data shows in the picture only.

Every reader gives bright = dense. Eight bits stay as they are; more are stretched from the image's own minimum and
maximum to 0 and 255, unless a DICOM file says which window is meant.
"""

from __future__ import annotations

import heapq
import io
import os
import re
import stat
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from struct import unpack_from
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from xlite_search.data.sources import SUFFIXES, Unreadable
from xlite_search.errors import BadInput

if TYPE_CHECKING:
    from pydicom import Dataset

ENDINGS = tuple(f".{suffix}" for suffix in SUFFIXES)
SHORTEST_SIDE, LONGEST_RATIO, MOST_PIXELS = 32, 4, 2**26

PNG, JPEG, DICOM = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"DICM"
#: A PNG's colour types: gray with or without alpha; colour, palette, colour with alpha.
GRAY_TYPES, COLOUR_TYPES = {0, 4}, {2, 3, 6}
#: Chunks that pixels and orientation need; about others libpng only complains, on stderr.
NEEDED_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"eXIf", b"IEND"}
JPEG_END, JPEG_SCAN = 0xD9, 0xDA
JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")

DICOM_KINDS = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR")
#: Stored value to 0..1, by centre and width: DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3.
WINDOWS: dict[str, Callable[[NDArray[np.float64], float, float], NDArray[np.float64]]] = {
    "LINEAR": lambda x, centre, width: np.clip((x - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5, 0, 1),
    "LINEAR_EXACT": lambda x, centre, width: np.clip((x - centre) / width + 0.5, 0, 1),
    "SIGMOID": lambda x, centre, width: (1 + np.tanh(2 * (x - centre) / width)) / 2,
}


def find_images(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Image files at any depth by their name, both sorted; a name that occurs twice has several paths.

    Links to folders are followed, each folder counts once and by its direct path if it has one. Hidden files and what
    macOS puts into archives (`__MACOSX`, `._x.png`) are no images.

    Raises:
        BadInput: the folder, or one in it, is not there or cannot be listed.
    """
    found: dict[str, list[str]] = {}
    for entry in _image_entries(folder):
        found.setdefault(entry.name, []).append(entry.path)
    return {name: tuple(map(Path, sorted(found[name]))) for name in sorted(found)}


def read_gray(path: Path) -> NDArray[np.uint8]:
    """The image in a PNG, JPEG or DICOM file, `[height, width]`, bright = dense, upright as its EXIF tag has it.

    Alpha is ignored, colour becomes luminance (ITU-R BT.601); where the channels are equal, that is the channel.

    Raises:
        Unreadable: it is missing, damaged, no image, of an absurd size, or all its pixels are equal.
        BadInput: it is a DICOM file and pydicom is not installed.
    """
    data = _content(path)
    if data.startswith(PNG):
        image = _png(data)
    elif data.startswith(JPEG):
        image = _jpeg(data)
    elif data[128:132] == DICOM:
        image = _dicom(data, path)
    else:
        raise Unreadable(f"not a PNG, JPEG or DICOM file: it begins with {data[:12]!r}")
    if image.min() == image.max():
        raise Unreadable("all its pixels are equal")
    return image


def _image_entries(folder: Path) -> Iterator[os.DirEntry[str]]:
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
                if entry.name.lower().endswith(ENDINGS) and entry.is_file():
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


def _expect_size(width: int, height: int) -> None:
    """Before anything is decoded: a header of a few bytes can ask for all memory."""
    if width * height > MOST_PIXELS:
        raise Unreadable(f"{width} x {height} px by its header; expected at most {MOST_PIXELS / 1e6:.0f} million")
    if min(width, height) < SHORTEST_SIDE:
        raise Unreadable(f"{width} x {height} px; expected at least {SHORTEST_SIDE} on each side")
    if max(width, height) > LONGEST_RATIO * min(width, height):
        raise Unreadable(f"{width} x {height} px; expected sides of at most {LONGEST_RATIO}:1")


def _png(data: bytes) -> NDArray[np.uint8]:
    chunks = list(_png_chunks(memoryview(data)))
    kinds = {kind for kind, _, _ in chunks}
    if chunks[0][0] != b"IHDR" or b"IDAT" not in kinds:
        raise Unreadable("a PNG file without a header or without pixels")
    width, height, depth, colour = unpack_from(">IIBB", data, len(PNG) + 8)
    if colour not in GRAY_TYPES and colour not in COLOUR_TYPES:
        raise Unreadable(f"a PNG file of the unknown colour type {colour}")
    _expect_size(width, height)
    if not kinds <= NEEDED_CHUNKS:
        data = PNG + b"".join(data[start:end] for kind, start, end in chunks if kind in NEEDED_CHUNKS)
    flags = cv2.IMREAD_GRAYSCALE if colour in GRAY_TYPES else cv2.IMREAD_COLOR
    return _gray(_decoded(data, flags | cv2.IMREAD_ANYDEPTH if depth == 16 else flags, "PNG"), cv2.COLOR_BGR2GRAY)


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


def _jpeg(data: bytes) -> NDArray[np.uint8]:
    frames = [place for marker, place in _jpeg_markers(data) if marker in JPEG_FRAMES]
    if not frames or len(data) < frames[0] + 9:
        raise Unreadable("a JPEG file without a header")
    height, width = unpack_from(">HH", data, frames[0] + 5)
    _expect_size(width, height)
    return _gray(_decoded(data, cv2.IMREAD_GRAYSCALE, "JPEG"), cv2.COLOR_BGR2GRAY)


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


def _gray(image: NDArray[Any], luminance: int) -> NDArray[np.uint8]:
    """Colour to luminance by OpenCV's code for its order of channels, and more than 8 bits to 8."""
    if image.ndim == 3:
        image = np.asarray(cv2.cvtColor(image, luminance))
    return image if image.dtype == np.uint8 else _eight_bits(_stretched(image))


def _stretched(values: NDArray[Any], of_interest: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """From the smallest to the largest value (of interest) to 0..1."""
    judged = values if of_interest is None else values[of_interest]
    low, high = (float(judged.min()), float(judged.max())) if judged.size else (0.0, 0.0)
    return np.clip((values - low) / (high - low or 1.0), 0, 1)


def _eight_bits(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.rint(shares * 255).astype(np.uint8)


def _dicom(data: bytes, path: Path) -> NDArray[np.uint8]:
    try:
        import pydicom
    except ImportError:
        raise BadInput(f"{path} is a DICOM file; to read it, pip install xlite-search[dicom]") from None
    try:
        with warnings.catch_warnings(action="ignore"):
            return _radiograph(pydicom.dcmread(io.BytesIO(data)))
    except Unreadable:
        raise
    except Exception:  # pydicom raises whatever it meets in a damaged file
        raise Unreadable("a DICOM file that is damaged or cut off") from None


def _radiograph(file: Dataset) -> NDArray[np.uint8]:
    """Modality LUT, window, inversion of MONOCHROME1, padding to black: the pipeline of DICOM PS3.4, annex N.2."""
    _expect_one_image(file)
    stored = _stored(file)
    if stored.ndim == 3:
        return _gray(stored, cv2.COLOR_RGB2GRAY)
    padding = _padding(file, stored)
    image = _eight_bits(_windowed(file, stored, ~padding))
    if file.PhotometricInterpretation == "MONOCHROME1":
        image = 255 - image
    image[padding] = 0
    return image


def _expect_one_image(file: Dataset) -> None:
    if "PixelData" not in file:
        raise Unreadable("a DICOM file without pixel data, or cut off before them")
    frames = int(file.get("NumberOfFrames") or 1)
    if frames != 1:
        raise Unreadable(f"a DICOM file of {frames} frames; expected one")
    kind = str(file.PhotometricInterpretation)
    if not kind.startswith(DICOM_KINDS):
        raise Unreadable(f"a DICOM file of the kind {kind!r}; expected {', '.join(DICOM_KINDS)}")
    if file.get("HighBit", file.BitsStored - 1) != file.BitsStored - 1:
        raise Unreadable(f"a DICOM file with {file.BitsStored} bits up to bit {file.HighBit}; expected them from bit 0")
    _expect_size(file.Columns, file.Rows)


def _stored(file: Dataset) -> NDArray[Any]:
    """The pixels as they are stored: `[height, width]`, or RGB in the last axis."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import pixel_array

    syntax = file.file_meta.TransferSyntaxUID
    try:
        known = get_decoder(syntax).is_available
    except NotImplementedError:
        known = False
    if not known:
        raise Unreadable(f"a DICOM file compressed as {syntax.name!r}, which no package installed here decodes")
    try:
        return pixel_array(file)
    except Exception:
        raise Unreadable(
            f"a DICOM file whose pixels ({syntax.name!r}) are cut off, damaged or cannot be decoded"
        ) from None


def _padding(file: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels that fill the frame and are no measurement. Some files give a signed value without its sign: it wraps."""
    value = file.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, np.bool_)
    ends = np.array([value, file.get("PixelPaddingRangeLimit", value)]).astype(stored.dtype)
    return np.asarray((stored >= ends.min()) & (stored <= ends.max()))


def _windowed(file: Dataset, stored: NDArray[Any], of_interest: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Stored values to 0..1 by the file's first VOI LUT, its first window, or else their own range.

    Eight bits without any of these are shown as they are, as in a PNG.
    """
    values = _rescaled(file, stored)
    if tables := file.get("VOILUTSequence"):
        first, table = _table(file, tables[0])
        return _looked_up(values, first, _stretched(table))
    centre, width = (_first(file, name) for name in ("WindowCenter", "WindowWidth"))
    function = str(file.get("VOILUTFunction") or "LINEAR")
    if function not in WINDOWS:
        raise Unreadable(f"a DICOM file with the unknown VOI LUT function {function!r}")
    if centre is not None and width is not None and width >= (1 if function == "LINEAR" else 1e-9):
        return WINDOWS[function](values.astype(np.float64), centre, width)
    if values is stored and stored.dtype == np.uint8 and file.BitsStored == 8:
        return stored / 255
    return _stretched(values, of_interest)


def _rescaled(file: Dataset, stored: NDArray[Any]) -> NDArray[Any]:
    if tables := file.get("ModalityLUTSequence"):
        return _looked_up(stored, *_table(file, tables[0]))
    slope, intercept = _first(file, "RescaleSlope"), _first(file, "RescaleIntercept")
    if slope is None or intercept is None or (slope, intercept) == (1, 0):
        return stored
    return stored * slope + intercept


def _first(file: Dataset, name: str) -> float | None:
    """The first number of an element that may have several; None if it has none, or none that is finite."""
    values = np.atleast_1d(np.array(file.get(name), np.float64))
    return float(values[0]) if values.size and np.isfinite(values[0]) else None


def _table(file: Dataset, lut: Dataset) -> tuple[int, NDArray[np.float64]]:
    """The stored value that a lookup table begins at, and the table."""
    entries, first, _ = lut.LUTDescriptor
    data = lut.LUTData
    if isinstance(data, bytes):
        order = "<" if file.file_meta.TransferSyntaxUID.is_little_endian else ">"
        data = np.frombuffer(data, f"{order}u2" if len(data) >= 2 * (entries or 2**16) else "u1")
    return first, np.atleast_1d(np.array(data, np.float64))[: entries or 2**16]


def _looked_up(values: NDArray[Any], first: int, table: NDArray[np.float64]) -> NDArray[np.float64]:
    places = np.rint(values.astype(np.float64) - first)
    return table[np.clip(places, 0, len(table) - 1).astype(np.int64)]

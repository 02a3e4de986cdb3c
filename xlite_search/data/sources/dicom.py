"""A radiograph in a DICOM file (PS3): modality LUT or rescale, window, inversion of MONOCHROME1. An extra: pydicom."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from xlite_search.data.sources import Unreadable
from xlite_search.data.sources.gray import eight_bits, expect_size, stretched, to_gray
from xlite_search.errors import BadInput

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_KINDS = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR")
#: Stored value to 0..1, by centre and width: DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3.
WINDOWS: dict[str, Callable[[NDArray[np.float64], float, float], NDArray[np.float64]]] = {
    "LINEAR": lambda x, centre, width: np.clip((x - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5, 0, 1),
    "LINEAR_EXACT": lambda x, centre, width: np.clip((x - centre) / width + 0.5, 0, 1),
    "SIGMOID": lambda x, centre, width: (1 + np.tanh(2 * (x - centre) / width)) / 2,
}


def read_dicom(data: bytes, path: Path) -> NDArray[np.uint8]:
    """The image in a DICOM file's bytes, `[height, width]`, bright = dense.

    Raises:
        Unreadable: it is damaged, has no image or several, or is compressed in a way that nobody here decodes.
        BadInput: pydicom is not installed.
    """
    try:
        import pydicom
    except ImportError:
        raise BadInput(f"{path} is a DICOM file; to read it, `pip install pydicom pillow`") from None
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
        return to_gray(stored, cv2.COLOR_RGB2GRAY)
    padding = _padding(file, stored)
    image = eight_bits(_windowed(file, stored, ~padding))
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
    expect_size(file.Columns, file.Rows)


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
        return _looked_up(values, first, stretched(table))
    centre, width = (_first(file, name) for name in ("WindowCenter", "WindowWidth"))
    function = str(file.get("VOILUTFunction") or "LINEAR")
    if function not in WINDOWS:
        raise Unreadable(f"a DICOM file with the unknown VOI LUT function {function!r}")
    if centre is not None and width is not None and width >= (1 if function == "LINEAR" else 1e-9):
        return WINDOWS[function](values.astype(np.float64), centre, width)
    if values is stored and stored.dtype == np.uint8 and file.BitsStored == 8:
        return stored / 255
    return stretched(values, of_interest)


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

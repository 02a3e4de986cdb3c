"""DICOM radiographs (PS3): modality LUT or rescale, and the window that the file names. An extra: pydicom.

A file without its preamble, as old modalities and exports leave it, is read as well. What a file does not say, such as
how more than 8 bits become 8, is left to `data/preprocess.py`. A window or lookup table that leaves nothing to see is
refused, and no other is tried: nobody knows which was meant.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from struct import unpack_from
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xlite_search.data.preprocess import Raw
from xlite_search.data.sources import Unreadable
from xlite_search.data.sources.gray import expect_size, with_channels
from xlite_search.errors import BadInput

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_KINDS = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR")
PREFIX, PREAMBLE = b"DICM", 128
#: Groups that the elements of a file without preamble may begin with: file meta, identification, image.
FIRST_GROUPS = (0x0002, 0x0008, 0x0028)
#: What the pixels cannot be told without (PS3.3, C.7.6.3).
NEEDED = (
    *("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored"),
    "PixelRepresentation",
)
#: Where the size of a pixel is said, height first; the standard has the ratio only where there is no spacing.
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
#: Packages that decode a family of transfer syntaxes, as pydicom's guide to compressed pixels lists them.
PACKAGES = {
    "JPEGTransferSyntaxes": "pylibjpeg pylibjpeg-libjpeg",
    "JPEGLSTransferSyntaxes": "pylibjpeg pylibjpeg-libjpeg",
    "JPEG2000TransferSyntaxes": "pylibjpeg pylibjpeg-openjpeg",
}
#: Stored value to 0..1, by centre and width: DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3.
WINDOWS: dict[str, Callable[[NDArray[np.float64], float, float], NDArray[np.float64]]] = {
    "LINEAR": lambda x, centre, width: np.clip((x - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5, 0, 1),
    "LINEAR_EXACT": lambda x, centre, width: np.clip((x - centre) / width + 0.5, 0, 1),
    "SIGMOID": lambda x, centre, width: (1 + np.tanh(2 * (x - centre) / width)) / 2,
}


def is_dicom(data: bytes) -> bool:
    """Whether a file's bytes begin as DICOM does, with its preamble or without."""
    if data[PREAMBLE : PREAMBLE + len(PREFIX)] == PREFIX or data.startswith(PREFIX):
        return True
    if len(data) < 12:
        return False
    explicit = data[4:6].isalpha() and data[4:6].isupper()
    little, big = (unpack_from(f"{order}HHI", data) for order in "<>")
    return (little[0] in FIRST_GROUPS and (explicit or little[2] < len(data))) or (big[0] in FIRST_GROUPS and explicit)


def read_dicom(data: bytes, name: str, channels: int = 1) -> Raw:
    """The image in a DICOM file's bytes: as its window or lookup table shows it, 8 bits, or else all its values.

    Raises:
        Unreadable: it is damaged, has no image or several, or is compressed in a way that nobody here decodes.
        BadInput: pydicom is not installed.
    """
    try:
        import pydicom
    except ImportError:
        raise BadInput(f"{name} is a DICOM file; to read it, `pip install pydicom pillow`") from None
    try:
        with warnings.catch_warnings(action="ignore"):
            file = pydicom.dcmread(io.BytesIO(data.removeprefix(PREFIX)), force=True)
            return _radiograph(_with_syntax(file), channels)
    except Unreadable:
        raise
    except Exception:  # pydicom raises whatever it meets in a damaged file
        raise Unreadable("a DICOM file that is damaged or cut off") from None


def _with_syntax(file: Dataset) -> Dataset:
    """The file with its transfer syntax; where it is not said, pixels are plain and ordered as the elements are."""
    from pydicom import uid
    from pydicom.dataset import FileMetaDataset

    if not hasattr(file, "file_meta"):
        file.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" not in file.file_meta:
        if "PixelData" in file and file["PixelData"].is_undefined_length:
            raise Unreadable("a DICOM file that lacks TransferSyntaxUID, without which nobody can decode its pixels")
        implicit, little = file.original_encoding
        plain = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        file.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else plain
    return file


def _radiograph(file: Dataset, channels: int) -> Raw:
    """Modality LUT and window: the pipeline of DICOM PS3.4, annex N.2, up to what the file says."""
    _expect_one_image(file)
    stored, aspect = _stored(file), _aspect(file)
    if stored.ndim == 3:
        raw = Raw(with_channels(stored, channels, blue_first=False), aspect=aspect)
    else:
        padding = _padding(file, stored)
        inverted = file.PhotometricInterpretation == "MONOCHROME1"
        raw = Raw(_windowed(file, stored, ~padding), padding if padding.any() else None, inverted, aspect)
    height, width = raw.size
    expect_size(width, height)
    return raw


def _expect_one_image(file: Dataset) -> None:
    if "PixelData" not in file:
        raise Unreadable("a DICOM file without pixel data, or cut off before them")
    missing = [name for name in NEEDED if file.get(name) is None]
    if missing:
        raise Unreadable(f"a DICOM file that lacks {', '.join(missing)}, without which nobody can tell its pixels")
    frames = int(file.get("NumberOfFrames") or 1)
    if frames != 1:
        raise Unreadable(f"a DICOM file of {frames} frames; expected one")
    kind = str(file.PhotometricInterpretation)
    if not kind.startswith(DICOM_KINDS):
        raise Unreadable(f"a DICOM file of the kind {kind!r}; expected {', '.join(DICOM_KINDS)}")
    if file.get("HighBit", file.BitsStored - 1) != file.BitsStored - 1:
        raise Unreadable(f"a DICOM file with {file.BitsStored} bits up to bit {file.HighBit}; expected them from bit 0")
    expect_size(file.Columns, file.Rows)


def _aspect(file: Dataset) -> float:
    """Height of a pixel by its width; 1 where the file does not say."""
    for name in SPACINGS:
        size = np.atleast_1d(np.array(file.get(name), np.float64))
        if size.shape == (2,) and np.isfinite(size).all() and size.min() > 0:
            return float(size[0] / size[1])
    return 1.0


def _stored(file: Dataset) -> NDArray[Any]:
    """The pixels as they are stored: `[height, width]`, or RGB in the last axis."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import pixel_array
    from pydicom.uid import JPEGExtended12Bit

    syntax = file.file_meta.TransferSyntaxUID
    try:
        known = get_decoder(syntax).is_available
    except NotImplementedError:
        known = False
    install = _install(syntax)
    if not known:
        raise Unreadable(
            f"a DICOM file compressed as {syntax.name!r}, which no package installed here decodes{install}"
        )
    try:
        return pixel_array(file)
    except Exception:
        more = install if syntax == JPEGExtended12Bit else ""  # pillow takes it for its own and decodes 8 bits only
        raise Unreadable(
            f"a DICOM file whose pixels ({syntax.name!r}) are cut off, damaged or cannot be decoded{more}"
        ) from None


def _install(syntax: str) -> str:
    from pydicom import uid

    packages = next((names for family, names in PACKAGES.items() if syntax in getattr(uid, family)), "")
    return f": `pip install {packages}`" if packages else ""


def _padding(file: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels that fill the frame and are no measurement. Some files give a signed value without its sign: it wraps."""
    value = file.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, np.bool_)
    ends = np.array([value, file.get("PixelPaddingRangeLimit", value)]).astype(stored.dtype)
    return np.asarray((stored >= ends.min()) & (stored <= ends.max()))


def _windowed(file: Dataset, stored: NDArray[Any], of_interest: NDArray[np.bool_]) -> NDArray[Any]:
    """Stored values as uint8 by the file's first VOI LUT or its first window, or else the values, of more bits.

    Eight bits without any of these are shown as they are, as in a PNG.

    Raises:
        Unreadable: what the file says makes no sense, or leaves nothing to see of pixels that differ.
    """
    values = _rescaled(file, stored)
    if tables := file.get("VOILUTSequence"):
        shown = _looked_up(values, *_scaled_table(file, tables[0]))
        return _expect_something(shown, values, of_interest, "lookup table (VOI LUT)")
    centre, width = (_first(file, name) for name in ("WindowCenter", "WindowWidth"))
    function = str(file.get("VOILUTFunction") or "LINEAR")
    if function not in WINDOWS:
        raise Unreadable(f"a DICOM file with the unknown VOI LUT function {function!r}")
    if centre is not None and width is not None and width >= (1 if function == "LINEAR" else 1e-9):
        shown = WINDOWS[function](values.astype(np.float64), centre, width)
        return _expect_something(shown, values, of_interest, f"window (centre {centre:g}, width {width:g})")
    if values.dtype == np.uint8 and not (values is stored and file.BitsStored == 8):
        return values.astype(np.uint16)  # not all of its eight bits are used
    return values


def _scaled_table(file: Dataset, lut: Dataset) -> tuple[int, NDArray[np.float64]]:
    """The stored value that a VOI LUT begins at, and the table to 0..1 of the bits that it declares (C.11.2.1.1)."""
    first, table = _table(file, lut)
    bits = int(lut.LUTDescriptor[2])
    top = 2**bits - 1 if 1 <= bits <= 16 else 0
    if table.max(initial=0) > top:
        raise Unreadable(f"a DICOM file whose VOI LUT goes up to {table.max():.0f} and declares {bits} bits")
    return first, table / top


def _expect_something(
    shares: NDArray[np.float64], values: NDArray[Any], of_interest: NDArray[np.bool_], by: str
) -> NDArray[np.uint8]:
    """Shares of white as uint8, if they are more than black and white, or the values are no more themselves."""
    shown = np.rint(shares * 255).astype(np.uint8)
    light = shown[of_interest]
    if light.size and not ((light > 0) & (light < 255)).any():
        low, high = values[of_interest].min(), values[of_interest].max()
        if ((values > low) & (values < high))[of_interest].any() or (low < high and light.min() == light.max()):
            raise Unreadable(f"a DICOM file whose {by} leaves nothing to see of its values, {low:g} to {high:g}")
    return shown


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

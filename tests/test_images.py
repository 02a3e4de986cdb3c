from __future__ import annotations

import io
import os
import stat
import struct
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_voi_lut
from pydicom.uid import (
    MPEG2MPML,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from xlite_search.data.preprocess import Preprocess
from xlite_search.data.sources import Unreadable
from xlite_search.data.sources.images import find_files, read_image
from xlite_search.errors import BadInput

GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
IN_A_FOLDER = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_gray(path: Path) -> NDArray[np.uint8]:
    """As it is before CLAHE and resize, stretched from its smallest to its largest value."""
    return Preprocess(32, stretch=0).shown(read_image(path))


def picture(seed: int = 0, height: int = 40, width: int = 48, channels: int = 1) -> NDArray[np.uint8]:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int, depth: int = 8, colour: int = GRAY, interlaced: int = 0) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    )


def scanlines(pixels: NDArray[Any], depth: int) -> bytes:
    rows = pixels.reshape(pixels.shape[0], -1)
    if depth == 16:
        return b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
    return b"".join(b"\0" + np.packbits(row.ravel()).tobytes() for row in bits)


def png(
    pixels: NDArray[Any], colour: int = GRAY, depth: int = 8, *, extra: bytes = b"", interlaced: bool = False
) -> bytes:
    """A PNG written by hand, so that no library's habits are tested against itself."""
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    lines = b"".join(scanlines(pixels[top::down, left::right], depth) for top, left, down, right in passes)
    start = header(pixels.shape[1], pixels.shape[0], depth, colour, int(interlaced))
    return start + extra + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def jpeg(pixels: NDArray[np.uint8], **how: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95, **how)
    return out.getvalue()


def dicom(
    pixels: NDArray[Any], *, syntax: UID = ExplicitVRLittleEndian, data: bytes | None = None, **tags: Any
) -> bytes:
    """A DICOM file: MONOCHROME2 or RGB, all allocated bits stored, unless tags say otherwise. None removes a tag."""
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = syntax
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = SecondaryCaptureImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = UID("1.2.3")
    bits = 8 * pixels.dtype.itemsize
    plain = {
        "SamplesPerPixel": 1 if pixels.ndim == 2 else 3,
        "PhotometricInterpretation": "MONOCHROME2" if pixels.ndim == 2 else "RGB",
        "PlanarConfiguration": None if pixels.ndim == 2 else 0,
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": (tags.get("BitsStored") or bits) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes() if data is None else data,
    }
    for name, value in (plain | tags).items():
        if value is not None:
            setattr(file, name, value)
    if "PixelData" in file:
        file["PixelData"].VR = "OW" if bits == 16 else "OB"
    out = io.BytesIO()
    file.save_as(out, enforce_file_format=True)
    return out.getvalue()


def bare(data: bytes, *, implicit: bool = True, big: bool = False) -> bytes:
    """A DICOM file without preamble and file meta, as old modalities and exports leave it."""
    file = pydicom.dcmread(io.BytesIO(data))
    file.file_meta = FileMetaDataset()
    file.preamble = None
    out = io.BytesIO()
    pydicom.dcmwrite(out, file, implicit_vr=implicit, little_endian=not big, enforce_file_format=False)
    assert b"DICM" not in out.getvalue()
    return out.getvalue()


def lookup(first: int, bits: int, values: list[int], dtype: str = "") -> list[Dataset]:
    """A lookup table, and one that no one asked for. With a dtype its data are bytes, as many writers have them."""
    item, other = Dataset(), Dataset()
    for table, entries in ((item, values), (other, [7, 8])):
        table.add_new("LUTDescriptor", "US", [len(entries), first, bits])
        if dtype:
            data = np.array(entries, dtype).tobytes()
            table.add_new("LUTData", "OW", data + bytes(len(data) % 2))
        else:
            table.add_new("LUTData", "US", entries)
    return [item, other]


LUT = lookup(0, 8, list(range(256)))


def read(data: bytes, folder: Path, name: str = "x.png") -> NDArray[np.uint8]:
    path = folder / name
    path.write_bytes(data)
    return read_gray(path)


def shown(folder: Path, values: list[int], dtype: str = "u2", **tags: Any) -> list[int]:
    """What a DICOM file makes of some stored values; the first one fills the rest of it."""
    stored = np.full((32, 32), values[0], dtype)
    stored[0, : len(values)] = values
    return [int(value) for value in read(dicom(stored, **tags), folder)[0, : len(values)]]


def linked(link: Path, target: Path | str) -> None:
    try:
        link.symlink_to(target)
    except OSError:
        pytest.skip("no symbolic links here")


def test_images_are_found_at_any_depth_by_name_in_order(tmp_path: Path) -> None:
    names = ["b/2.PNG", "1.png", "a/b/c/3.jpeg", "a/4.Jpg", "5.dcm", "z/6.DICOM", "a/1.png"]
    others = ["notes.txt", "png", "7.png.gz", ".8.png", "a/._1.png", "__MACOSX/a/9.png", ".cache/10.png"]
    for name in names + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "11.png").touch()
    found = find_files(tmp_path).images
    assert list(found) == ["1.png", "11.png", "2.PNG", "3.jpeg", "4.Jpg", "5.dcm", "6.DICOM"]
    assert found["1.png"] == (tmp_path / "1.png", tmp_path / "a" / "1.png")
    assert found["11.png"] == (tmp_path / "folder.png" / "11.png",)
    assert list(find_files(tmp_path).others) == ["7.png.gz", "notes.txt", "png"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    inside, outside = tmp_path / "images", tmp_path / "other disk"
    for folder in (inside / "real", outside):
        folder.mkdir(parents=True)
    (inside / "real" / "1.png").touch()
    (outside / "2.png").touch()
    (tmp_path / "beside, not inside.png").touch()
    links: dict[str, Path | str] = {
        "a link before real": inside / "real",
        "loop": inside,
        "up": tmp_path,
        "elsewhere": outside,
        "elsewhere again": outside,
        "itself": "itself",
        "itself.png": "itself.png",
        "broken.png": "nowhere.png",
    }
    for link, target in links.items():
        linked(inside / link, target)
    linked(outside / "back", inside)
    assert find_files(inside).images == {
        "1.png": (inside / "real" / "1.png",),
        "2.png": (inside / "elsewhere" / "2.png",),
    }


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"nowhere: there is no such folder"):
        find_files(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"file cannot be listed: .*; give a folder"):
        find_files(tmp_path / "file")

    def refuse(place: str) -> None:
        raise PermissionError(13, "Permission denied", place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(BadInput, match="cannot be listed: Permission denied"):
        find_files(tmp_path)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("suffix", ["png", "dcm", "jpg"])
def test_an_8_bit_gray_png_is_read_as_opencv_does(interlaced: bool, suffix: str, tmp_path: Path) -> None:
    found = read(png(picture(), interlaced=interlaced), tmp_path, f"x.{suffix}")
    assert np.array_equal(found, picture())
    assert found.dtype == np.uint8


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_bits_fill_the_range(depth: int, interlaced: bool, tmp_path: Path) -> None:
    levels = picture() >> (8 - depth)
    assert np.array_equal(
        read(png(levels, depth=depth, interlaced=interlaced), tmp_path), levels * (255 // (2**depth - 1))
    )


@pytest.mark.parametrize(
    ("colour", "expected"),
    [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29), ((255, 255, 0), 226), ((255, 255, 255), 255)],
)
def test_colour_becomes_luminance(colour: tuple[int, int, int], expected: int, tmp_path: Path) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = colour
    palette = chunk(b"PLTE", bytes((0, 0, 0, *colour)))
    alpha = np.full((32, 32, 1), 7, np.uint8)
    kinds = {
        "RGB": png(pixels, RGB),
        "RGB with gamma": png(pixels, RGB, extra=chunk(b"gAMA", struct.pack(">I", 45455))),
        "RGBA": png(np.concatenate([pixels, alpha], axis=2), RGBA),
        "16 bits": png(pixels.astype(np.uint16) * 257, RGB, 16),
        "palette": png(pixels.max(axis=2) // 255, PALETTE, 1, extra=palette),
        "DICOM": dicom(pixels),
    }
    light = {kind: int(read(data, tmp_path)[0, 0]) for kind, data in kinds.items()}
    wanted = dict.fromkeys(kinds, expected) | {"16 bits": 255}
    assert light == wanted


@settings(IN_A_FOLDER, max_examples=50)
@given(
    gray=st.tuples(st.integers(32, 44), st.integers(32, 44)).flatmap(lambda shape: arrays(np.uint8, shape)),
    interlaced=st.booleans(),
    seed=st.integers(0, 9),
)
def test_equal_channels_are_that_channel(tmp_path: Path, gray: NDArray[np.uint8], interlaced: bool, seed: int) -> None:
    assume(gray.min() < gray.max())
    alpha = picture(seed, *gray.shape)
    inverse = np.repeat(255 - np.arange(256, dtype=np.uint8), 3).tobytes()
    kinds = {
        "gray": png(gray, interlaced=interlaced),
        "gray and alpha": png(np.stack([gray, alpha], axis=2), GRAY_ALPHA, interlaced=interlaced),
        "RGB": png(np.stack([gray] * 3, axis=2), RGB, interlaced=interlaced),
        "RGBA": png(np.stack([gray] * 3 + [alpha], axis=2), RGBA, interlaced=interlaced),
        "palette": png(255 - gray, PALETTE, extra=chunk(b"PLTE", inverse), interlaced=interlaced),
        "DICOM": dicom(gray),
        "RGB DICOM": dicom(np.stack([gray] * 3, axis=2)),
    }
    assert [kind for kind, data in kinds.items() if not np.array_equal(read(data, tmp_path), gray)] == []


@pytest.mark.parametrize("colour", [GRAY, GRAY_ALPHA, RGB, RGBA])
@pytest.mark.parametrize("interlaced", [False, True])
def test_16_bits_are_stretched_from_their_own_range(colour: int, interlaced: bool, tmp_path: Path) -> None:
    gray = np.full((33, 35), 100, np.uint16)
    gray[0, :4] = 304, 610, 916, 1120
    channels = {GRAY: [gray], GRAY_ALPHA: [gray, gray * 7], RGB: [gray] * 3, RGBA: [*[gray] * 3, gray * 7]}[colour]
    found = read(png(np.stack(channels, axis=2), colour, 16, interlaced=interlaced), tmp_path)
    assert found.dtype == np.uint8
    assert found[0, :6].tolist() == [51, 128, 204, 255, 0, 0]


def test_8_bits_in_16_are_what_they_were(tmp_path: Path) -> None:
    gray = picture()
    gray[0, :2] = 0, 255
    assert np.array_equal(read(png(gray.astype(np.uint16) * 257, depth=16), tmp_path), gray)
    assert np.array_equal(read(png(gray.astype(np.uint16), depth=16), tmp_path), gray)


def test_what_surrounds_the_pixels_of_a_png_changes_nothing_and_says_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    extras = {
        "a bad profile": chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile" * 20)),
        "text": chunk(b"tEXt", b"Software\0none"),
        "a bad time": chunk(b"tIME", b"\xff" * 7),
        "animation": chunk(b"acTL", struct.pack(">II", 2, 0)),
        "transparency": chunk(b"tRNS", b"\0\7"),
        "junk": chunk(b"zZzZ", bytes(100)),
    }
    for what, extra in extras.items():
        assert np.array_equal(read(png(picture(), extra=extra), tmp_path), picture()), what
    assert np.array_equal(read(png(picture()) + b"after the end", tmp_path), picture())
    assert capfd.readouterr() == ("", "")


def test_a_picture_is_turned_as_its_exif_tag_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth = cv2.GaussianBlur(picture(), (0, 0), 4)
    for data in (png(smooth, extra=chunk(b"eXIf", exif.tobytes()[6:])), jpeg(smooth, exif=exif)):
        assert np.abs(read(data, tmp_path).astype(int) - np.rot90(smooth, -1)).max() <= 4


def test_any_cut_png_is_unreadable(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = png(picture(height=32, width=32) & 0xF0)
    for length in range(len(data)):
        with pytest.raises(Unreadable):
            read(data[:length], tmp_path)
    assert capfd.readouterr() == ("", "")


@settings(IN_A_FOLDER, max_examples=300)
@given(place=st.integers(0, 10**6), flip=st.integers(1, 255), interlaced=st.booleans())
def test_a_flipped_byte_in_a_png_is_found_or_harmless(tmp_path: Path, place: int, flip: int, interlaced: bool) -> None:
    data = bytearray(png(picture(), extra=chunk(b"tEXt", b"Software\0none"), interlaced=interlaced))
    data[place % len(data)] ^= flip
    with pytest.raises(Unreadable):
        read(bytes(data), tmp_path)


@pytest.mark.parametrize("name", ["x.jpg", "x.png"])
def test_a_jpeg_is_read_whatever_its_name(name: str, tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(picture(channels=3), (0, 0), 4)
    gray = cv2.cvtColor(smooth, cv2.COLOR_RGB2GRAY)
    cmyk = io.BytesIO()
    Image.fromarray(smooth).convert("CMYK").save(cmyk, "JPEG", quality=95)
    kinds = {
        "gray": jpeg(gray),
        "colour": jpeg(smooth),
        "progressive": jpeg(smooth, progressive=True),
        "restart markers": jpeg(smooth, restart_marker_blocks=1),
        "a thumbnail": jpeg(smooth, exif=b"Exif\0\0" + jpeg(picture(5))),
        "CMYK": cmyk.getvalue(),
        "padded": jpeg(gray) + bytes(99),
        "tables first": tables_first(jpeg(gray)),
    }
    off = {kind: np.abs(read(data, tmp_path, name).astype(int) - gray).max() for kind, data in kinds.items()}
    assert max(off.values()) <= 6, off


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
def test_any_cut_jpeg_is_unreadable(how: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = jpeg(picture(channels=3), exif=b"Exif\0\0" + jpeg(picture(5)), **how)
    for length in [*range(0, len(data), 31), len(data) - 2, len(data) - 1]:
        with pytest.raises(Unreadable):
            read(data[:length], tmp_path)
        with pytest.raises(Unreadable):
            read(data[:length].ljust(len(data), b"\0"), tmp_path)
    assert capfd.readouterr() == ("", "")


RESCALED = {"RescaleSlope": 2, "RescaleIntercept": -1000}


@pytest.mark.parametrize(
    ("stored", "tags", "expected"),
    [
        ([100, 304, 610, 916, 1120], {}, [0, 51, 128, 204, 255]),
        ([100, 304, 610, 916, 1120], {"PhotometricInterpretation": "MONOCHROME1"}, [255, 204, 127, 51, 0]),
        ([100, 304, 610, 916, 1120], {"RescaleSlope": -2, "RescaleIntercept": 7}, [255, 204, 128, 51, 0]),
        ([0, 819, 2457, 4095, 5000], {"WindowCenter": 2048, "WindowWidth": 4096}, [0, 51, 153, 255, 255]),
        ([0, 819, 2457], {"WindowCenter": [2048, 9], "WindowWidth": [4096, 2]}, [0, 51, 153]),
        ([475, 500, 525], {"WindowCenter": 0, "WindowWidth": 101, **RESCALED}, [1, 129, 255]),
        (
            [400, 475, 485, 500, 525],
            {"WindowCenter": 0, "WindowWidth": 100, "VOILUTFunction": "LINEAR_EXACT", **RESCALED},
            [0, 0, 51, 128, 255],
        ),
        (
            [400, 475, 500, 525],
            {"WindowCenter": 0, "WindowWidth": 100, "VOILUTFunction": "SIGMOID", **RESCALED},
            [0, 30, 128, 225],
        ),
        ([100, 304, 1120], {"WindowCenter": 300, "WindowWidth": 0}, [0, 51, 255]),
        (
            [0, 99, 100, 101, 102, 999],
            {"VOILUTSequence": lookup(100, 12, [819, 1638, 2457])},
            [51, 51, 51, 102, 153, 153],
        ),
        (
            [99, 100, 101, 102],
            {"VOILUTSequence": lookup(100, 8, [0, 51, 255]), "WindowCenter": 1, "WindowWidth": 2},
            [0, 0, 51, 255],
        ),
        ([600, 601, 602], {"VOILUTSequence": lookup(200, 8, [0, 9, 51, 9, 255]), **RESCALED}, [0, 51, 255]),
        ([0, 1, 3], {"VOILUTSequence": lookup(0, 8, [0, 51, 255], "u1")}, [0, 51, 255]),
        ([0, 1, 3], {"VOILUTSequence": lookup(0, 12, [819, 1638, 2457], "<u2")}, [51, 102, 153]),
        (
            [0, 1, 4],
            {"VOILUTSequence": lookup(0, 8, [0, 51, 102, 255]), "RescaleSlope": 0.7, "RescaleIntercept": 0},
            [0, 51, 255],
        ),
        ([0, 1, 2, 9], {"ModalityLUTSequence": lookup(0, 16, [100, 304, 1120])}, [0, 51, 255, 255]),
        ([0, 100, 304, 1120], {"PixelPaddingValue": 0}, [0, 0, 51, 255]),
        (
            [4000, 100, 304, 1120, 4010],
            {"PixelPaddingValue": 4010, "PixelPaddingRangeLimit": 4000, "PhotometricInterpretation": "MONOCHROME1"},
            [0, 255, 204, 0, 0],
        ),
        ([0x8064, 0x8130, 0x8460], {"BitsStored": 12}, [0, 51, 255]),
    ],
    ids=[
        "own range",
        "MONOCHROME1",
        "negative slope",
        "window",
        "first of two windows",
        "window after rescale",
        "exact window",
        "sigmoid",
        "window of no width",
        "VOI LUT",
        "VOI LUT before window",
        "VOI LUT after rescale",
        "VOI LUT of bytes",
        "VOI LUT of words",
        "VOI LUT of fractions",
        "modality LUT",
        "padding",
        "padding range is black in MONOCHROME1 too",
        "an overlay above the stored bits",
    ],
)
def test_dicom_values_become_light(
    stored: list[int], tags: dict[str, Any], expected: list[int], tmp_path: Path
) -> None:
    assert shown(tmp_path, stored, **tags) == expected


def test_dicom_of_the_other_byte_order(tmp_path: Path) -> None:
    stored = np.zeros((32, 32), ">u2")
    stored[0, :3] = 0, 1, 2
    table = lookup(0, 12, [819, 1638, 2457], ">u2")
    found = read(dicom(stored, syntax=ExplicitVRBigEndian, VOILUTSequence=table), tmp_path)
    assert found[0, :3].tolist() == [51, 102, 153]


def test_signed_dicom_values(tmp_path: Path) -> None:
    assert shown(tmp_path, [-410, -206, 610], "i2") == [0, 51, 255]
    assert shown(tmp_path, [-2000, -410, -206, 610], "i2", PixelPaddingValue=-2000) == [0, 0, 51, 255]
    padded = np.full((32, 32), -2000, np.int16)
    padded[0, 1:4] = -410, -206, 610
    signed = b"\x28\x00\x20\x01SS"
    written = dicom(padded, PixelPaddingValue=-2000)
    assert written.count(signed) == 1
    as_unsigned = written.replace(signed, signed[:4] + b"US")
    assert read(as_unsigned, tmp_path)[0, :4].tolist() == [0, 0, 51, 255]
    without_sign = [value & 0xFFF for value in (-410, -206, 610)]
    assert shown(tmp_path, without_sign, "u2", BitsStored=12, PixelRepresentation=1) == [0, 51, 255]


def test_8_bits_of_dicom_without_a_window_stay_as_they_are(tmp_path: Path) -> None:
    assert shown(tmp_path, [20, 90, 180], "u1") == [20, 90, 180]
    assert shown(tmp_path, [20, 90, 180], "u1", RescaleSlope=1, RescaleIntercept=0) == [20, 90, 180]
    assert shown(tmp_path, [20, 90, 180], "u1", PhotometricInterpretation="MONOCHROME1") == [235, 165, 75]
    assert shown(tmp_path, [20, 71, 122], "u1", RescaleSlope=2, RescaleIntercept=0) == [0, 128, 255]
    assert shown(tmp_path, [0, 10, 50], "u1", BitsStored=6) == [0, 51, 255]
    assert shown(tmp_path, [20, 71, 275], "u2", BitsStored=9) == [0, 51, 255]


@settings(IN_A_FOLDER, max_examples=50)
@given(
    bits=st.integers(10, 16),
    first=st.integers(-5, 40),
    table=st.lists(st.integers(0, 2**9 - 1), min_size=2, max_size=300),
    seed=st.integers(0, 99),
)
def test_a_voi_lut_gives_the_values_of_the_standard(
    tmp_path: Path, bits: int, first: int, table: list[int], seed: int
) -> None:
    """pydicom's `apply_voi_lut` as the oracle: its values are of the bits that the table declares."""
    stored = np.random.default_rng(seed).integers(-20, 400, (32, 32), np.int16)
    item = Dataset()
    item.add_new("LUTDescriptor", "SS", [len(table), first, bits])
    item.add_new("LUTData", "US", [value << bits - 9 for value in table])
    data = dicom(stored, VOILUTSequence=[item])
    right = np.rint(apply_voi_lut(stored, pydicom.dcmread(io.BytesIO(data))) / (2.0**bits - 1) * 255)
    assume(((right > 0) & (right < 255)).any() and right.min() < right.max())
    assert np.array_equal(read(data, tmp_path), right)


@pytest.mark.parametrize(
    ("tags", "shape"),
    [
        ({"PixelAspectRatio": [2, 1]}, (80, 48)),
        ({"PixelAspectRatio": [1, 2]}, (40, 96)),
        ({"PixelAspectRatio": [5, 4]}, (50, 48)),
        ({"PixelSpacing": [0.15, 0.1]}, (60, 48)),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, (40, 96)),
        ({"NominalScannedPixelSpacing": [0.2, 0.1]}, (80, 48)),
        ({"PixelSpacing": [0.1, 0.1], "PixelAspectRatio": [2, 1]}, (40, 48)),
        ({"PixelSpacing": None, "PixelAspectRatio": [2, 1]}, (80, 48)),
        ({"PixelSpacing": [0.143, 0.1435]}, (40, 48)),
        ({"PixelSpacing": [0, 0]}, (40, 48)),
        ({"PixelAspectRatio": [1, 1]}, (40, 48)),
    ],
    ids=str,
)
def test_pixels_that_are_not_square_become_so(tags: dict[str, Any], shape: tuple[int, int], tmp_path: Path) -> None:
    """The first value is the height of a pixel. What lies in the middle of the picture stays there."""
    disc = np.zeros((40, 48), np.uint8)
    disc[10:30, 12:36] = 255
    disc[20:30, 24:36] = 99
    for pixels in (disc, np.stack([disc] * 3, axis=2)):
        found = read(dicom(pixels, **tags), tmp_path)
        assert found.shape == shape
        quarters = found[1::2, 1::2][: shape[0] // 2, : shape[1] // 2]
        height, width = quarters.shape
        inside = quarters[height // 4 + 1 : 3 * height // 4 - 1, width // 4 + 1 : 3 * width // 4 - 1]
        assert inside[0, 0] == 255 and inside[-1, -1] == 99
        assert found[: shape[0] // 4 - 1].max() == found[:, : shape[1] // 4 - 1].max() == 0
        if shape == disc.shape:
            assert np.array_equal(found, disc)


def test_pixels_cannot_be_of_an_absurd_shape(tmp_path: Path) -> None:
    for ratio in ([9, 1], [1, 9], [10**8, 1], [1, 10**8]):
        with pytest.raises(Unreadable, match=r"expected sides of at most 4:1|expected at most 67 million"):
            read(dicom(picture(), PixelAspectRatio=ratio), tmp_path)


@pytest.mark.parametrize(("implicit", "order"), [(True, "little"), (False, "little"), (False, "big")])
def test_dicom_without_preamble(implicit: bool, order: str, tmp_path: Path) -> None:
    stored = picture().astype(np.uint16) * 16
    syntax = ExplicitVRBigEndian if order == "big" else ExplicitVRLittleEndian
    tags: dict[str, Any] = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096}
    whole = dicom(stored.astype(">u2") if order == "big" else stored, syntax=syntax, **tags)
    right = read(whole, tmp_path)
    assert np.array_equal(read(bare(whole, implicit=implicit, big=order == "big"), tmp_path, "IM0001"), right)
    assert np.array_equal(read(whole[128:], tmp_path), right)  # cut behind the preamble
    assert np.array_equal(read(whole[132:], tmp_path), right)  # file meta first, nothing before it


def test_compressed_dicom(tmp_path: Path) -> None:
    gray = cv2.GaussianBlur(picture(), (0, 0), 4)
    colour = cv2.GaussianBlur(picture(channels=3), (0, 0), 4)
    frame = encapsulate([jpeg(gray)])
    found = read(dicom(gray, syntax=JPEGBaseline8Bit, data=frame), tmp_path)
    assert np.abs(found.astype(int) - gray).max() <= 4

    frame = encapsulate([jpeg(colour)])
    found = read(dicom(colour, syntax=JPEGBaseline8Bit, data=frame, PhotometricInterpretation="YBR_FULL_422"), tmp_path)
    assert np.abs(found.astype(int) - cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)).max() <= 6

    file = pydicom.dcmread(io.BytesIO(dicom(gray)))
    file.compress(RLELossless)
    file.save_as(tmp_path / "rle.dcm")
    assert np.array_equal(read_gray(tmp_path / "rle.dcm"), gray)


def test_any_cut_dicom_is_unreadable_or_whole(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    gray = cv2.GaussianBlur(picture(height=32, width=32), (0, 0), 2)
    plain = dicom(gray.astype(np.uint16) * 16, BitsStored=12, WindowCenter=2048, WindowWidth=4096)
    packed = dicom(gray, syntax=JPEGBaseline8Bit, data=encapsulate([jpeg(gray)]))
    for data in (plain, packed):
        whole = read(data, tmp_path)
        for length in range(0, len(data), 3):
            with suppress(Unreadable):
                assert np.array_equal(read(data[:length], tmp_path), whole)
                assert length > len(data) - 16
    assert capfd.readouterr() == ("", "")


@settings(IN_A_FOLDER, max_examples=300)
@given(
    flips=st.lists(st.tuples(st.integers(128, 10**6), st.integers(1, 255)), min_size=1, max_size=4), coded=st.booleans()
)
def test_a_damaged_dicom_is_unreadable_or_an_image(tmp_path: Path, flips: list[tuple[int, int]], coded: bool) -> None:
    gray = picture(height=32, width=32)
    tags = {"syntax": JPEGBaseline8Bit, "data": encapsulate([jpeg(gray)])} if coded else {"VOILUTSequence": LUT}
    data = bytearray(dicom(gray, WindowCenter=99, WindowWidth=99, PixelPaddingValue=3, **tags))
    for place, flip in flips:
        data[128 + place % (len(data) - 128)] ^= flip
    with suppress(Unreadable):
        found = read(bytes(data), tmp_path)
        assert found.dtype == np.uint8
        assert found.ndim == 2


def test_dicom_without_pydicom_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(BadInput, match="`pip install pydicom pillow`"):
        read(dicom(picture()), tmp_path)


def test_what_pydicom_only_complains_about_is_read_in_silence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    data = dicom(picture(), data=picture().tobytes() + bytes(100))
    with pytest.warns(UserWarning, match="padding"):
        assert pydicom.dcmread(io.BytesIO(data)).pixel_array.size
    recwarn.clear()
    capfd.readouterr()
    assert np.array_equal(read(data, tmp_path), picture())
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


def tables_first(data: bytes) -> bytes:
    """A JPEG with its Huffman tables before its frame header."""
    frame, tables = data.index(b"\xff\xc0"), data.index(b"\xff\xc4")
    length = struct.unpack_from(">H", data, tables + 2)[0] + 2
    return data[:frame] + data[tables : tables + length] + data[frame:tables] + data[tables + length :]


def resized_jpeg(width: int, height: int) -> bytes:
    data = jpeg(picture())
    return data.replace(struct.pack(">HH", 40, 48), struct.pack(">HH", height, width), 1)


GOOD = png(picture())
UNREADABLE: dict[str, tuple[bytes | Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such file"),
    "in no folder": (lambda path: path.parent.rmdir(), "no such file"),
    "a folder": (Path.mkdir, "a folder, not a file"),
    "no bytes": (b"", r"empty \(0 bytes\)"),
    "a web page": (b"<!DOCTYPE html>\n<html>Sign in</html>", r"not a PNG, JPEG or DICOM file: .* b'<!DOCTYPE ht'"),
    "zeros": (bytes(5000), "not a PNG, JPEG or DICOM file"),
    "a GIF": (b"GIF89a" + bytes(500), "not a PNG, JPEG or DICOM file"),
    "a PNG's first bytes": (GOOD[:7], "not a PNG, JPEG or DICOM file"),
    "PNG signature alone": (GOOD[:8], "a PNG file that is cut off"),
    "PNG of garbage": (GOOD[:8] + bytes(range(1, 255)) * 9, "a PNG file that is damaged: no chunk"),
    "PNG cut off": (GOOD[: len(GOOD) // 2], "a PNG file that is cut off"),
    "PNG without its end": (GOOD[:-12], "a PNG file that is cut off"),
    "PNG, zeros from the middle on": (GOOD[:900].ljust(len(GOOD), b"\0"), "damaged: the checksum of its IDAT chunk"),
    "PNG with a byte changed": (GOOD[:99] + bytes([GOOD[99] ^ 1]) + GOOD[100:], "the checksum of its IDAT chunk"),
    "PNG with a header byte changed": (GOOD[:19] + b"\x77" + GOOD[20:], "the checksum of its IHDR chunk"),
    "PNG without pixels": (header(40, 40) + chunk(b"IEND", b""), "without a header or without pixels"),
    "PNG without a header": (GOOD[:8] + GOOD[33:], "without a header or without pixels"),
    "PNG of no known colour type": (png(picture(), 5), "of the unknown colour type 5"),
    "PNG bomb": (header(60_000, 60_000) + chunk(b"IDAT", b"x") + chunk(b"IEND", b""), "60000 x 60000 px by its header"),
    "JPEG signature alone": (b"\xff\xd8\xff", "a JPEG file that is cut off or damaged"),
    "JPEG of garbage": (b"\xff\xd8\xff" + bytes(range(256)) * 9, "a JPEG file that is cut off or damaged"),
    "JPEG cut off": (jpeg(picture())[:-50], "a JPEG file that is cut off or damaged"),
    "JPEG with bytes between its segments": (
        jpeg(picture()).replace(b"\xff\xdb", b"stray\xff\xdb", 1),
        "a JPEG file that is cut off or damaged",
    ),
    "JPEG without a header": (b"\xff\xd8\xff\xd9", "a JPEG file without a header"),
    "JPEG bomb": (resized_jpeg(60_000, 60_000), "60000 x 60000 px by its header; expected at most 67 million"),
    "DICOM without pixels": (dicom(picture(), PixelData=None), "a DICOM file without pixel data"),
    "DICOM cut off": (dicom(picture())[:-100], r"\('Explicit VR Little Endian'\) are cut off, damaged or"),
    "DICOM of garbage": (bytes(128) + b"DICM" + bytes(range(256)) * 9, "without pixel data, or cut off"),
    **{
        f"DICOM without {name}": (
            dicom(picture(), **dict[str, Any]({name: None})),
            f"a DICOM file that lacks {name}, without which",
        )
        for name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel")
    },
    "DICOM of no kind": (dicom(picture(), PhotometricInterpretation=None), "that lacks PhotometricInterpretation, "),
    "DICOM without preamble, its compression not said": (
        bare(dicom(picture(), syntax=JPEGBaseline8Bit, data=encapsulate([jpeg(picture())])), implicit=False),
        "that lacks TransferSyntaxUID, without which nobody can decode",
    ),
    "DICOM without preamble, cut off": (bare(dicom(picture()))[:-100], "are cut off, damaged or"),
    "DICOM, JPEG without loss": (
        dicom(picture(), syntax=JPEGLosslessSV1, data=encapsulate([b"packed"])),
        "compressed as 'JPEG Lossless.*: `pip install pylibjpeg pylibjpeg-libjpeg`",
    ),
    "DICOM, a JPEG of 12 bits": (
        dicom(picture(), syntax=JPEGExtended12Bit, data=encapsulate([b"packed"])),
        "'JPEG Extended.* or cannot be decoded: `pip install pylibjpeg pylibjpeg-libjpeg`",
    ),
    "DICOM whose VOI LUT goes beyond itself": (
        dicom(picture(), VOILUTSequence=lookup(0, 8, [0, 51, 256])),
        "VOI LUT goes up to 256 and declares 8 bits",
    ),
    "DICOM with a VOI LUT of no bits": (
        dicom(picture(), VOILUTSequence=lookup(0, 0, [0, 51, 255])),
        "VOI LUT goes up to 255 and declares 0 bits",
    ),
    "DICOM with a black VOI LUT": (
        dicom(picture(), VOILUTSequence=lookup(0, 16, [0, 1, 2])),
        r"whose lookup table \(VOI LUT\) leaves nothing to see of its values, 0 to 255",
    ),
    "DICOM in black and white by its window": (
        dicom(picture(), WindowCenter=100, WindowWidth=1),
        r"whose window \(centre 100, width 1\) leaves nothing to see of its values, 0 to 255",
    ),
    "DICOM of three frames": (dicom(picture(), NumberOfFrames=3), "a DICOM file of 3 frames; expected one"),
    "DICOM, a film": (
        dicom(picture(), syntax=MPEG2MPML, data=encapsulate([b"film"])),
        "compressed as 'MPEG2 .*', which no package installed here decodes",
    ),
    "DICOM with a damaged JPEG": (
        dicom(picture(), syntax=JPEGBaseline8Bit, data=encapsulate([jpeg(picture())[:-300]])),
        r"whose pixels \('JPEG Baseline .*'\) are cut off, damaged or",
    ),
    "DICOM with bits elsewhere": (dicom(picture(), BitsStored=6, HighBit=7), "with 6 bits up to bit 7"),
    "DICOM with a palette": (
        dicom(picture(), PhotometricInterpretation="PALETTE COLOR"),
        "of the kind 'PALETTE COLOR'",
    ),
    "DICOM of a kind with a line break": (
        dicom(picture()).replace(b"MONOCHROME2 ", b"MONO\nCHROME2"),
        r"of the kind 'MONO\\nCHROME2'",
    ),
    "DICOM with an unknown window": (
        dicom(picture(), VOILUTFunction="CUBIC", WindowCenter=1, WindowWidth=2),
        "unknown VOI LUT function 'CUBIC'",
    ),
    "DICOM bomb": (dicom(picture(), Rows=60_000, Columns=60_000), "60000 x 60000 px by its header"),
    "DICOM outside its window": (
        dicom(picture(), WindowCenter=5000, WindowWidth=10),
        r"whose window \(centre 5000, width 10\) leaves nothing to see of its values, 0 to 255",
    ),
    "DICOM of padding": (
        dicom(picture().astype(np.uint16), PixelPaddingValue=0, PixelPaddingRangeLimit=255),
        "all its pixels are equal",
    ),
    "all black": (png(np.zeros((40, 40))), "all its pixels are equal"),
    "all gray": (png(np.full((40, 40), 99)), "all its pixels are equal"),
    "all gray, 16 bits": (png(np.full((40, 40), 999), depth=16), "all its pixels are equal"),
    "all transparent": (png(np.stack([np.zeros((40, 40)), picture(0, 40, 40)], axis=2), GRAY_ALPHA), "are equal"),
    "tiny": (png(picture(0, 31, 64)), r"64 x 31 px; expected at least 32 on each side"),
    "tiny JPEG": (jpeg(picture(0, 64, 31)), r"31 x 64 px; expected at least 32 on each side"),
    "a strip": (png(picture(0, 32, 129)), r"129 x 32 px; expected sides of at most 4:1"),
    "a strip of DICOM": (dicom(picture(0, 129, 32)), r"32 x 129 px; expected sides of at most 4:1"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_is_of_no_use_is_named_in_a_phrase(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    made, says = UNREADABLE[kind]
    path = tmp_path / "images" / "x.png"
    path.parent.mkdir()
    if callable(made):
        made(path)
    else:
        path.write_bytes(made)
    with pytest.raises(Unreadable, match=says) as caught:
        read_gray(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


@pytest.mark.parametrize("shape", [(32, 128), (128, 32), (32, 32)])
def test_the_smallest_and_the_longest_that_pass(shape: tuple[int, int], tmp_path: Path) -> None:
    for data in (png(picture(0, *shape)), jpeg(picture(0, *shape)), dicom(picture(0, *shape))):
        assert read(data, tmp_path).shape == shape


@pytest.mark.parametrize("kind", [kind for kind in UNREADABLE if "bomb" in kind])
def test_a_bomb_is_refused_before_it_is_decoded(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", explode)
    monkeypatch.setattr("pydicom.pixels.utils.pixel_array", explode)
    made = UNREADABLE[kind][0]
    assert isinstance(made, bytes)
    with pytest.raises(Unreadable, match="by its header"):
        read(made, tmp_path)


def test_pixels_that_end_too_early_behind_right_checksums(tmp_path: Path) -> None:
    for interlaced in (False, True):
        lines = zlib.compress(scanlines(picture()[:20], 8))
        data = header(48, 40, interlaced=interlaced) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
        with pytest.raises(Unreadable, match="a PNG file that cannot be decoded"):
            read(data, tmp_path)


def test_a_compression_that_nothing_here_decodes(tmp_path: Path) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    if get_decoder(JPEGLSLossless).is_available:
        pytest.skip("a JPEG-LS decoder is installed")
    with pytest.raises(Unreadable, match=r"compressed as 'JPEG-LS .* which no package installed here decodes"):
        read(dicom(picture(), syntax=JPEGLSLossless, data=encapsulate([b"packed"])), tmp_path)


def test_permissions_and_other_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(GOOD)
    for error, says in {
        PermissionError(13, "Permission denied"): "^permission denied$",
        OSError(5, "Input/output error"): "^cannot be read: Input/output error$",
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda _, error=error: (_ for _ in ()).throw(error))
            with pytest.raises(Unreadable, match=says):
                read_gray(path)


def test_an_error_in_opencv_is_a_phrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise cv2.error("out of memory")

    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(Unreadable, match="a PNG file that cannot be decoded"):
        read(GOOD, tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    assert stat.S_ISFIFO((tmp_path / "x.png").stat().st_mode)
    assert find_files(tmp_path).images == {}
    with pytest.raises(Unreadable, match="a device or a pipe"):
        read_gray(tmp_path / "x.png")


def test_real_png_are_what_opencv_reads(shared: Path) -> None:
    folder = shared / "data" / "chestxray14"
    if not (folder / "images_224").is_dir():
        pytest.skip(f"no {folder / 'images_224'}")
    found = find_files(folder).images
    assert len(found) == sum(1 for _ in folder.rglob("*.png")) - sum(len(paths) - 1 for paths in found.values())
    for name in list(found)[::20]:
        for path in found[name]:
            expected = np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
            assert np.array_equal(read_gray(path), expected), path


def test_real_dicom_has_dark_lungs(shared: Path) -> None:
    folder = shared / "data" / "dicom"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    image = read_gray(folder / "chest_monochrome2.dcm")
    assert image.shape == (1024, 1024)
    lungs, spine = image[250:600, 220:360], image[350:800, 500:560]
    air_above_shoulder, abdomen = image[:60, :60], image[800:, 200:450]
    assert air_above_shoulder.mean() < lungs.mean() < abdomen.mean()
    assert lungs.mean() + 60 < spine.mean()
    # the same pixels under the other tag: the standard shows its lowest value white
    assert np.array_equal(read_gray(folder / "chest_monochrome1.dcm"), 255 - image)
    for name in ("ct_slice_7106.dcm", "ct_slice_7136.dcm"):
        with pytest.raises(Unreadable, match="16 x 16 px"):
            read_gray(folder / name)


SMOOTH = cv2.GaussianBlur(picture(channels=3), (0, 0), 3)
SOUND: dict[str, bytes] = {
    "gray PNG": png(picture()),
    "interlaced PNG of 16 bits": png(picture().astype(np.uint16) * 200, depth=16, interlaced=True),
    "PNG with a palette": png(picture() & 3, PALETTE, 2, extra=chunk(b"PLTE", bytes(range(12)))),
    "JPEG": jpeg(SMOOTH),
    "progressive JPEG": jpeg(SMOOTH, progressive=True),
    "DICOM": dicom(picture().astype(np.uint16) * 16, BitsStored=12, WindowCenter=2048, WindowWidth=4096),
    "DICOM with lookup tables": dicom(picture(), VOILUTSequence=LUT, ModalityLUTSequence=LUT),
    "DICOM with oblong pixels": dicom(picture(), PixelAspectRatio=[2, 1], PixelPaddingValue=0),
    "DICOM without preamble": bare(dicom(picture())),
    "DICOM with JPEG": dicom(SMOOTH[..., 0], syntax=JPEGBaseline8Bit, data=encapsulate([jpeg(SMOOTH[..., 0])])),
}


def mutated(data: bytes, chance: np.random.Generator) -> bytes:
    """Bytes changed, cut out, repeated, put in, cut off, or swapped for those that headers are made of."""
    damaged = bytearray(data)
    for _ in range(int(chance.integers(1, 6))):
        place, length = int(chance.integers(len(damaged) or 1)), int(chance.integers(1, 40))
        match int(chance.integers(6)):
            case 0:
                damaged[place : place + length] = chance.bytes(len(damaged[place : place + length]))
            case 1:
                del damaged[place : place + length]
            case 2:
                damaged[place:place] = damaged[place : place + length]
            case 3:
                damaged[place:place] = chance.bytes(length)
            case 4:
                del damaged[place:]
            case _:
                extreme = chance.choice([0, 1, 0x7F, 0x80, 0xFF], 4).astype(np.uint8).tobytes()
                damaged[place % 400 : place % 400 + 4] = extreme
    return bytes(damaged)


def repaired(data: bytes) -> bytes:
    """A PNG whose chunks have right checksums again, so that its decoder meets what was damaged."""
    out, place = bytearray(data), 8
    while place + 12 <= len(out):
        end = place + 12 + struct.unpack_from(">I", out, place)[0]
        if end > len(out):
            break
        struct.pack_into(">I", out, end - 4, zlib.crc32(out[place + 4 : end - 4]))
        place = end
    return bytes(out)


@pytest.mark.parametrize("kind", SOUND)
def test_damage_of_any_kind_is_an_image_or_a_phrase(
    kind: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """400 mutations of each format, the same every time: never another exception, nor a warning."""
    chance = np.random.default_rng([sum(kind.encode()), 15])
    assert read(SOUND[kind], tmp_path).size
    refused: list[str] = []
    for _ in range(400):
        data = mutated(SOUND[kind], chance)
        try:
            found = read(repaired(data) if "PNG" in kind and chance.integers(2) else data, tmp_path)
        except Unreadable as reason:
            refused.append(str(reason))
            continue
        assert str(found.dtype) == "uint8" and found.ndim == 2
        assert found.min() < found.max()
    assert len(refused) > 100
    assert all(reason.isprintable() for reason in refused)
    assert not recwarn.list

"""Bodies that are no good image, or hardly one, made from a seed: what a stranger may send to a decoder."""

from __future__ import annotations

import io
import random
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from struct import pack

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset

from xlite_search.data.sources.phantom import Phantom

PNG = b"\x89PNG\r\n\x1a\n"
Make = Callable[[random.Random], bytes]


@cache
def pixels(size: int = 96) -> NDArray[np.uint8]:
    return np.asarray(Phantom(1, seed=3, size=size).pixels(0), np.uint8)


@cache
def encoded(kind: str) -> bytes:
    """A good image: png, jpg, progressive, cmyk, apng, interlaced."""
    picture, out = Image.fromarray(pixels()), io.BytesIO()
    if kind == "cmyk":
        picture.convert("CMYK").save(out, "JPEG")
    elif kind == "apng":
        picture.save(out, "PNG", save_all=True, append_images=[picture.rotate(90)] * 3)
    elif kind == "interlaced":
        return interlaced(pixels())
    else:
        picture.save(out, "PNG" if kind == "png" else "JPEG", progressive=kind == "progressive")
    return out.getvalue()


def chunk(kind: bytes, content: bytes, length: int | None = None) -> bytes:
    size = len(content) if length is None else length
    return pack(">I", size) + kind + content + pack(">I", zlib.crc32(kind + content))


def png(
    width: int, height: int, data: bytes, *, depth: int = 8, colour: int = 0, lace: int = 0, more: bytes = b""
) -> bytes:
    head = chunk(b"IHDR", pack(">IIBBBBB", width, height, depth, colour, 0, 0, lace))
    return PNG + head + more + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def interlaced(plane: NDArray[np.uint8]) -> bytes:
    """A PNG by Adam7's seven passes."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b"".join(
        b"\0" + line.tobytes() for top, left, down, right in passes for line in plane[top::down, left::right]
    )
    return png(plane.shape[1], plane.shape[0], zlib.compress(rows), lace=1)


def dicom(**said: object) -> bytes:
    """A DICOM file, explicit little-endian, of the phantom; `said` replaces elements, None takes one away."""
    file, plane = Dataset(), pixels()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    whole = {
        "Rows": plane.shape[0],
        "Columns": plane.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": plane.tobytes(),
    } | said
    with warnings.catch_warnings(action="ignore"):  # pydicom sees that values are odd
        for name, value in whole.items():
            if value is not None:
                setattr(file, name, value)
    out = io.BytesIO()
    file.save_as(out, enforce_file_format=False)
    return b"\0" * 128 + b"DICM" + out.getvalue().removeprefix(b"\0" * 128 + b"DICM")


def deflated(rng: random.Random) -> bytes:
    syntax = b"1.2.840.10008.1.2.1.99"
    element = pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    return b"\0" * 128 + b"DICM" + element + zlib.compress(b"\0" * rng.randrange(1 << 20, 1 << 25), 9)


def nested(rng: random.Random) -> bytes:
    """Sequences in sequences, of undefined length, deeper than any stack."""
    head = dicom(PixelData=None)
    level = pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return head + level * rng.randrange(500, 100_000)


def long_text(rng: random.Random) -> bytes:
    """A word where there are megabytes."""
    return dicom(PhotometricInterpretation=None) + pack("<HH2sH", 0x28, 4, b"CS", 60_000) + b"A" * 60_000


def bomb(rng: random.Random) -> bytes:
    """A PNG that expands a thousand times: as large as its header says, larger, or much smaller."""
    side = rng.choice([2000, 6000, 8000])
    channels, colour = rng.choice([(1, 0), (3, 2), (4, 6)])
    depth = rng.choice([8, 16])
    rows = (side * channels * depth // 8 + 1) * side
    made = zlib.compressobj(9)
    zeros = b"\0" * (1 << 20)
    data = b"".join(made.compress(zeros) for _ in range(rng.choice([rows, rows // 2, 2 * rows]) >> 20))
    return png(side, side, data + made.flush(), depth=depth, colour=colour)


def text_bomb(rng: random.Random) -> bytes:
    """Compressed text, EXIF or a colour profile beside good pixels that expand to no end."""
    kind, before = rng.choice(
        [(b"zTXt", b"k\0\0"), (b"iCCP", b"p\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"eXIf", b"II*\0")]
    )
    content = before + zlib.compress(b"\0" * (1 << 24), 9)
    good = encoded("png")
    return good[:33] + chunk(kind, content) + good[33:]


def exif(rng: random.Random) -> bytes:
    """A JPEG whose EXIF is tiny, huge, or points at itself."""
    good = encoded("jpg")
    size = rng.choice([0, 1, 6, 20, 65_000])
    content = (b"Exif\0\0" + b"II*\0" + pack("<I", 8) + pack("<H", rng.randrange(65536)) + rng.randbytes(65_000))[:size]
    return good[:2] + (b"\xff\xe1" + pack(">H", len(content) + 2) + content) * rng.choice([1, 1, 200]) + good[2:]


def header_jpeg(rng: random.Random) -> bytes:
    """A JPEG whose header says another size."""
    good = bytearray(encoded(rng.choice(["jpg", "progressive"])))
    place = next(place for place in range(2, len(good)) if good[place] == 0xFF and good[place + 1] in (0xC0, 0xC2))
    good[place + 5 : place + 9] = pack(
        ">HH", *rng.choice([(30_000, 30_000), (8000, 8000), (65_535, 1), (0, 0), (97, 95)])
    )
    return bytes(good)


def flipped(rng: random.Random, good: bytes) -> bytes:
    changed = bytearray(good)
    for _ in range(rng.choice([1, 3, 30])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def spliced(rng: random.Random, good: bytes) -> bytes:
    """A piece is doubled, taken away, or becomes noise."""
    first, last = sorted(rng.randrange(len(good)) for _ in range(2))
    return good[:first] + rng.choice([b"", good[first:last] * 2, rng.randbytes(last - first)]) + good[last:]


def polyglot(rng: random.Random) -> bytes:
    """Two kinds in one file."""
    one, other = rng.sample(
        [encoded("png"), encoded("jpg"), dicom(), b"PK\3\4" + b"\0" * 99, b"<svg onload=alert(1)>"], 2
    )
    return rng.choice([one + other, other[:132] + one, one[: len(one) // 2] + other])


def lying_chunk(rng: random.Random) -> bytes:
    """A PNG one of whose chunks says another length than it has."""
    length = rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 24])
    return encoded("png")[:33] + chunk(rng.choice([b"IDAT", b"tEXt", b"PLTE"]), b"x" * 40, length) + encoded("png")[33:]


def odd_dicom(rng: random.Random) -> bytes:
    """A DICOM file whose elements contradict each other or its pixels."""
    return dicom(**rng.choice(ODD))


def lying_dicom(rng: random.Random) -> bytes:
    """A DICOM file one of whose lengths is another."""
    good = bytearray(dicom())
    place = rng.choice(
        [place for place in range(140, 300) if bytes(good[place : place + 2]) in (b"US", b"CS", b"OW", b"OB")]
    )
    good[place + 2 : place + 4] = pack("<H", rng.choice([0, 1, 7, 0xFFFF]))
    return bytes(good)


ODD: list[dict[str, object]] = [
    *[dict[str, object](Rows=rows, Columns=columns) for rows in (0, 1, 65_535) for columns in (0, 65_535)],
    *[dict[str, object](NumberOfFrames=frames) for frames in ("2", "1000000", "2147483647", "-1")],
    {"Rows": 8000, "Columns": 8000},
    {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11},
    {"BitsAllocated": 64, "BitsStored": 64, "HighBit": 63},
    {"BitsAllocated": 0},
    {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0},
    {"SamplesPerPixel": 65_535},
    {"PhotometricInterpretation": "PALETTE COLOR"},
    {"WindowCenter": ["1e308", "nan"], "WindowWidth": "1e-308"},
    {"RescaleSlope": "1e300", "RescaleIntercept": "-1e300"},
    {"PixelSpacing": ["1e-300", "1e300"]},
    {"PixelPaddingValue": 0},
    {"PixelData": b""},
    {"PixelData": None},
    {"PixelRepresentation": 7},
]

#: each of them is asked for in turn
MAKERS: list[Make] = [
    lambda rng: encoded("png")[: rng.randrange(len(encoded("png")))],
    lambda rng: encoded("jpg")[: rng.randrange(len(encoded("jpg")))],
    lambda rng: dicom()[: rng.randrange(len(dicom()))],
    *(
        lambda rng, kind=kind: flipped(rng, encoded(kind))
        for kind in ("png", "jpg", "progressive", "apng", "interlaced", "cmyk")
    ),
    lambda rng: flipped(rng, dicom()),
    lambda rng: spliced(rng, encoded(rng.choice(["png", "jpg", "progressive"]))),
    lambda rng: spliced(rng, dicom()),
    lambda rng: png(
        30_000, 30_000, zlib.compress(b"\0" * 999), depth=rng.choice([8, 16]), colour=rng.choice([0, 2, 3, 6])
    ),
    lambda rng: encoded(rng.choice(["cmyk", "progressive", "apng", "interlaced"])),
    lambda rng: rng.randbytes(rng.randrange(3000)),
    bomb,
    text_bomb,
    exif,
    header_jpeg,
    polyglot,
    lying_chunk,
    odd_dicom,
    odd_dicom,
    lying_dicom,
    deflated,
    nested,
    long_text,
]


def bodies(count: int, seed: int = 0) -> Iterator[bytes]:
    """So many of them, the same for the same seed."""
    rng = random.Random(seed)
    for number in range(count):
        yield MAKERS[number % len(MAKERS)](rng)


def good() -> bytes:
    return cv2.imencode(".png", pixels())[1].tobytes()

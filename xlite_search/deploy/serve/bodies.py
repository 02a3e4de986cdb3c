"""What a request's body is, by its first bytes, and whether it may be decoded at all.

DICOM's transfer syntaxes are an allow-list: a deflated file may expand a thousand times before its header can be read,
and a syntax that nobody tested is a decoder that nobody tested.
"""

from __future__ import annotations

from struct import unpack_from
from typing import Literal

from xlite_search.data.sources import Unfit, Unreadable
from xlite_search.data.sources.dicom import PREAMBLE, PREFIX, is_dicom
from xlite_search.data.sources.images import JPEG, PNG

Kind = Literal["PNG", "JPEG", "DICOM"]
#: what people send instead of a file
WRAPPED = {b"--": "a form", b"\x1f\x8b": "compressed by gzip", b"{": "JSON", b"data:": "a data URI"}
#: transfer syntaxes that are decoded: plain, RLE, JPEG baseline and lossless, JPEG-LS, JPEG 2000
SYNTAXES = {
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
}
#: the meta group, its element that names the transfer syntax, and kinds of values whose length has four bytes
META, SYNTAX, LONG = 0x0002, 0x0010, {b"OB", b"OW", b"UN", b"UT", b"SQ", b"OF", b"OD", b"OL", b"UC", b"UR"}


def kind_of(body: bytes) -> Kind:
    """Raises Unfit if it is none of them, Unreadable if it is empty."""
    if body.startswith(PNG):
        return "PNG"
    if body.startswith(JPEG):
        return "JPEG"
    if is_dicom(body):
        return "DICOM"
    if not body:
        raise Unreadable("empty (0 bytes)")
    for begin, what in WRAPPED.items():
        if body.startswith(begin):
            raise Unfit(f"{what}: the body has to be the file itself, as `curl --data-binary @FILE` sends it")
    raise Unfit("not a PNG, JPEG or DICOM file")


def expect_allowed(body: bytes) -> None:
    """Of a DICOM file: that its transfer syntax is one that is decoded here. Raises Unfit if not."""
    syntax = _syntax(body)
    if syntax and (syntax not in SYNTAXES or not _has_decoder(syntax)):
        raise Unfit(f"a DICOM file of the transfer syntax {syntax}, which is not decoded here")


def _has_decoder(syntax: str) -> bool:
    """Whether what is installed decodes it; JPEG lossless takes packages under the GPL, which are nobody's duty."""
    try:
        from pydicom.pixels.decoders.base import get_decoder
    except ImportError:
        return True  # that is said where the file is read
    return bool(get_decoder(syntax).is_available)


def _syntax(body: bytes) -> str:
    """The transfer syntax that the file's meta group names (PS3.10, 7.1: explicit, little-endian); empty if none."""
    place = len(PREFIX) if body.startswith(PREFIX) else PREAMBLE + len(PREFIX)
    if body[place - len(PREFIX) : place] != PREFIX:
        place = 0
    while place + 12 <= len(body):
        group, element = unpack_from("<HH", body, place)
        long = body[place + 4 : place + 6] in LONG
        length = unpack_from("<I", body, place + 8)[0] if long else unpack_from("<H", body, place + 6)[0]
        place += 12 if long else 8
        if group != META:
            break
        if element == SYNTAX:
            return body[place : place + length].decode("ascii", "replace").strip("\0 ")[:64]
        place += length
    return ""

"""Guard of the service: whom it answers, and how much of a body it takes.

A page of another origin, or a name that somebody points at this machine (DNS rebinding), gets no answer. Beyond
loopback a token is needed.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Request
from starlette.requests import ClientDisconnect

from xlite_search.deploy.serve.refusals import Refusal
from xlite_search.errors import BadInput

#: bytes of a body, and of all bodies that are held at once
LARGEST, ROOM = 32 << 20, 512 << 20
#: seconds that a body's pieces may be waited for, and bytes that earn another second
PAUSE, RATE = 4.0, 128 << 10
LOOPBACK = ("localhost", "127.0.0.1", "::1")
#: addresses that anybody may ask: that it lives, and the page, which has no data and asks for the token
OPEN = ("/v2/health/live", "/v2/health/ready", "/")
#: a Host header: name or address, and port
HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")


def is_loopback(host: str) -> bool:
    """Whether an address or a name is this machine's alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Guard:
    """`hosts` are names by which it may be called; empty: any, for a token is needed then."""

    token: str = ""
    hosts: frozenset[str] = frozenset(LOOPBACK)

    @classmethod
    def of(cls, host: str, token: str) -> Guard:
        """For a service that listens at `host`. Raises BadInput if that is not loopback and there is no token, or if
        nobody could send it."""
        if token and (token != token.strip() or not token.isprintable()):
            raise BadInput("--token, XLITE_TOKEN: expected what a header can carry, not spaces alone or a line's end")
        if is_loopback(host):
            return cls(token, frozenset((*LOOPBACK, host)))
        if not token:
            raise BadInput(f"--host {host}: others could ask it; give a token too, --token, or XLITE_TOKEN")
        return cls(token, frozenset())

    def __call__(self, request: Request) -> None:
        """Raises Refusal if this request gets no answer."""
        if {"content-length", "transfer-encoding"} <= set(request.headers):
            raise Refusal(400, "malformed", "a body has one length: Content-Length or Transfer-Encoding, not both")
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if self.hosts and _name(host) not in self.hosts:
            raise Refusal(
                421, "foreign host", f"this service is not called that; it is {', '.join(sorted(self.hosts))}"
            )
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            raise Refusal(403, "foreign origin", "a page of another origin gets no answer")
        path = request.scope["path"]  # `request.url` is made of the Host header, which may say anything
        said = request.headers.get("authorization", "")
        if self.token and path not in OPEN and not self._known(*said.partition(" ")[::2]):
            words = "this is not the right token" if said else "a token is needed"
            raise Refusal(401, "token", f"{words}: Authorization: Bearer TOKEN")

    def _known(self, scheme: str, token: str) -> bool:
        """In a time that does not tell how much of it is right."""
        same = hmac.compare_digest(token.encode("latin-1", "replace"), self.token.encode())
        return same and scheme.lower() == "bearer"


def _name(host: str) -> str:
    """A Host header without its port; empty if it is none."""
    found = HOST.fullmatch(host)
    return (found[1] or found[2]).lower() if found else ""


async def pieces_of(request: Request) -> AsyncIterator[bytes]:
    """A body, piece by piece. Raises Refusal: it comes too slowly, or is cut off."""
    pieces, left, clock = request.stream().__aiter__(), PAUSE, asyncio.get_running_loop().time
    try:
        while True:
            asked = clock()
            async with asyncio.timeout(left):
                piece = await anext(pieces, None)
            if piece is None:
                return
            left = min(PAUSE, left - (clock() - asked) + len(piece) / RATE)
            yield piece
    except TimeoutError:
        sentence = f"the body came too slowly: it is waited for {PAUSE:g} s, and a second for every {RATE >> 10} KiB"
        raise Refusal(408, "slow", sentence) from None
    except ClientDisconnect:
        raise Refusal(400, "cut off", "the body was cut off") from None


@dataclass
class Bodies:
    """Bodies that are held in memory; `room` is for all of them, in bytes."""

    room: int = ROOM
    held: int = 0

    @asynccontextmanager
    async def of(self, request: Request, most: int = LARGEST) -> AsyncIterator[bytes]:
        """The whole body, counted as long as it is used. Raises Refusal: larger than `most`, slow, cut off, no room."""
        said = request.headers.get("content-length", "0")
        if not said.isdigit() or len(said) > 18 or int(said) > most:
            raise _too_large(most)
        pieces: list[bytes] = []
        size = 0
        try:
            async for piece in pieces_of(request):
                pieces.append(piece)
                size += len(piece)
                self.held += len(piece)
                if size > most:
                    raise _too_large(most)
                if self.held > self.room:
                    raise Refusal(503, "busy", "too many large bodies wait already: try again in a moment", again=1)
            yield b"".join(pieces)
        finally:
            self.held -= size


def _too_large(most: int) -> Refusal:
    return Refusal(413, "too large", f"the body is larger than {most / (1 << 20):.3g} MiB")

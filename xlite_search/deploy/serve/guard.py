"""Guard of the service: whom it answers, and how much of a body it takes.

A page of another origin, or a name that somebody points at this machine (DNS rebinding), gets no answer. Beyond
loopback a token is needed.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import Request
from starlette.requests import ClientDisconnect

from xlite_search.deploy.serve.refusals import Refusal
from xlite_search.errors import BadInput

#: bytes of a body, and seconds between two pieces of it and for all of it
LARGEST, PAUSE, WHOLE = 32 << 20, 5.0, 30.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")
#: addresses that anybody may ask: they say nothing but that it lives
OPEN = ("/v2/health/live", "/v2/health/ready")


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
        """For a service that listens at `host`. Raises BadInput if that is not loopback and there is no token."""
        if is_loopback(host):
            return cls(token)
        if not token:
            raise BadInput(f"--host {host}: others could ask it; give a token too, --token, or XLITE_TOKEN")
        return cls(token, frozenset())

    def __call__(self, request: Request) -> None:
        """Raises Refusal if this request gets no answer."""
        host = _name(request.headers.get("host", ""))
        if self.hosts and host not in self.hosts:
            raise Refusal(
                421, "foreign host", f"this service is not called that; it is {', '.join(sorted(self.hosts))}"
            )
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host", ""):
            raise Refusal(403, "foreign origin", "a page of another origin gets no answer")
        if self.token and request.url.path not in OPEN and not self._known(request.headers.get("authorization", "")):
            raise Refusal(401, "token", "a token is needed: Authorization: Bearer TOKEN")

    def _known(self, said: str) -> bool:
        """In a time that does not tell how much of it is right."""
        return hmac.compare_digest(said.encode("utf-8", "replace"), f"Bearer {self.token}".encode())


def _name(host: str) -> str:
    """A Host header without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def body_of(request: Request, most: int = LARGEST) -> bytes:
    """The whole body. Raises Refusal: it is larger, or comes too slowly, or is cut off."""
    said = request.headers.get("content-length", "0")
    if said.isdigit() and int(said) > most:
        raise _too_large(most)
    pieces, size = request.stream().__aiter__(), 0
    body: list[bytes] = []
    try:
        async with asyncio.timeout(WHOLE):
            while True:
                async with asyncio.timeout(PAUSE):
                    piece = await anext(pieces, None)
                if piece is None:
                    return b"".join(body)
                size += len(piece)
                if size > most:
                    raise _too_large(most)
                body.append(piece)
    except TimeoutError:
        raise Refusal(408, "slow", f"the body came too slowly: nothing for {PAUSE:g} s, or not all of it") from None
    except ClientDisconnect:
        raise Refusal(400, "cut off", "the body was cut off") from None


def _too_large(most: int) -> Refusal:
    return Refusal(413, "too large", f"the body is larger than {most >> 20} MiB")

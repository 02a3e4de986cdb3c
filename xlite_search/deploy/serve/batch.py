"""Batches: lines of JSON in, lines of JSON out, in their order, a few at work at a time.

{"name": "a.png", "image": "<base64>"}
{"name": "a.png", "reply": {...}}   or   {"name": "a.png", "error": {"code": ..., "sentence": ...}}
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request

from xlite_search.deploy.serve.guard import LARGEST, pieces_of
from xlite_search.deploy.serve.refusals import Refusal
from xlite_search.deploy.serve.service import Service

LINE = 'expected a line {"name": ..., "image": base64 of a file}'
#: bytes of a line but for its image, and of all of it
REST_OF_LINE = 4096
LONGEST = LARGEST * 4 // 3 + REST_OF_LINE
#: the image of a line, cut out before the rest is read as JSON: 44 MiB of `[],[],` would take gigabytes
IMAGE = re.compile(rb'"image"\s*:\s*"([A-Za-z0-9+/=\\]*)"')
#: batches at once: each holds some lines in memory
BATCHES = 8
#: times that a line is tried while others fill the queue, and seconds between
TRIES, REST = 100, 0.1


async def replies(service: Service, request: Request) -> AsyncIterator[bytes]:
    """A line for each line. A line that is too long, or comes too slowly, ends the batch with its error."""
    waiting: deque[asyncio.Task[dict[str, Any]]] = deque()
    service.batches += 1
    try:
        async for line in _lines(request):
            while waiting and service.bodies.held + len(line) > service.bodies.room:
                yield _line(await waiting.popleft())
            waiting.append(asyncio.create_task(_reply(service, line)))
            if len(waiting) > service.engine.cores:
                yield _line(await waiting.popleft())
        while waiting:
            yield _line(await waiting.popleft())
    except Refusal as why:
        while waiting:
            yield _line(await waiting.popleft())
        yield _line({"name": "", **why.as_json()})
    finally:
        service.batches -= 1
        for task in waiting:
            task.cancel()


def expect_room(service: Service) -> None:
    """Raises Refusal if as many batches are at work as there may be."""
    if service.batches >= BATCHES:
        raise Refusal(503, "busy", f"{BATCHES} batches are at work already: try again in a moment", again=5)


async def _reply(service: Service, line: bytes) -> dict[str, Any]:
    named = {"name": ""}
    service.bodies.held += len(line)
    try:
        said, image = _parsed(line)
        if not isinstance(name := said.get("name", ""), str):
            raise Refusal(422, "malformed", '"name": expected text')
        named = {"name": name}
        reply = await _patient(service, _image(said, image))
        return named | {"reply": reply.model_dump(mode="json")}
    except Refusal as why:
        return named | why.as_json()
    finally:
        service.bodies.held -= len(line)


async def _patient(service: Service, body: bytes) -> Any:
    """A batch gives way to single requests: it waits where these are refused."""
    for tried in range(TRIES):
        try:
            return await service.reply(body)
        except Refusal as why:
            if why.code != "busy" or tried == TRIES - 1:
                raise
            await asyncio.sleep(REST)
    raise AssertionError


def _parsed(line: bytes) -> tuple[dict[str, Any], bytes]:
    """What a line says, and the image's base64, which is not in it any more. Raises Refusal."""
    found = IMAGE.search(line)
    image = found[1].replace(b"\\/", b"/") if found else b""
    rest = IMAGE.sub(b'"image":""', line, count=1)
    if len(rest) > REST_OF_LINE:
        raise Refusal(422, "malformed", f"a line has more than {REST_OF_LINE} bytes beside its image, or no base64")
    try:
        said = json.loads(rest)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise Refusal(422, "malformed", LINE)
    return said, image


def _image(said: dict[str, Any], image: bytes) -> bytes:
    try:
        if said["image"] == "":
            return base64.b64decode(image, validate=True)
    except (KeyError, binascii.Error):
        pass
    raise Refusal(422, "malformed", LINE)


async def _lines(request: Request) -> AsyncIterator[bytes]:
    rest = bytearray()
    async for piece in pieces_of(request):
        rest += piece
        *whole, rest = rest.split(b"\n") if b"\n" in piece else [rest]
        for line in whole:
            if line.strip():
                yield bytes(line)
        if len(rest) > LONGEST:
            raise Refusal(413, "too large", f"a line is longer than {LONGEST >> 20} MiB")
    if rest.strip():
        yield bytes(rest)


def _line(said: dict[str, Any]) -> bytes:
    return json.dumps(said).encode() + b"\n"

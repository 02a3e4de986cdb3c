"""Batches: lines of JSON in, lines of JSON out, in their order, a few at work at a time.

{"name": "a.png", "image": "<base64>"}
{"name": "a.png", "reply": {...}}   or   {"name": "a.png", "error": {"code": ..., "sentence": ...}}
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from xlite_search import limits
from xlite_search.deploy.serve.guard import LARGEST, PAUSE
from xlite_search.deploy.serve.refusals import Refusal
from xlite_search.deploy.serve.service import Service

#: bytes of a line: an image in base64, and its name; and letters of a name
LONGEST, NAME = LARGEST * 4 // 3 + 4096, 200
#: times that a line is tried while others fill the queue, and seconds between
TRIES, REST = 100, 0.1


async def replies(service: Service, request: Request) -> AsyncIterator[bytes]:
    """A line for each line. A line that is too long, or comes too slowly, ends the batch with its error."""
    waiting: deque[asyncio.Task[dict[str, Any]]] = deque()
    try:
        async for line in _lines(request):
            waiting.append(asyncio.create_task(_reply(service, line)))
            if len(waiting) > limits.cores():
                yield _line(await waiting.popleft())
        while waiting:
            yield _line(await waiting.popleft())
    except Refusal as why:
        while waiting:
            yield _line(await waiting.popleft())
        yield _line({"name": "", **why.as_json()})
    finally:
        for task in waiting:
            task.cancel()


async def _reply(service: Service, line: bytes) -> dict[str, Any]:
    said = _parsed(line)
    name = said.get("name", "")
    named = {"name": name[:NAME] if isinstance(name, str) else ""}
    try:
        reply = await _patient(service, _image(said))
        return named | {"reply": reply.model_dump(mode="json", exclude_none=True)}
    except Refusal as why:
        return named | why.as_json()


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


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _image(said: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(said["image"], validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise Refusal(422, "malformed", 'expected a line {"name": ..., "image": base64 of a file}') from None


async def _lines(request: Request) -> AsyncIterator[bytes]:
    rest, pieces = bytearray(), request.stream().__aiter__()
    try:
        while True:
            async with asyncio.timeout(PAUSE):
                piece = await anext(pieces, None)
            if piece is None:
                break
            rest += piece
            *whole, rest = rest.split(b"\n") if b"\n" in piece else [rest]
            for line in whole:
                if line.strip():
                    yield bytes(line)
            if len(rest) > LONGEST:
                raise Refusal(413, "too large", f"a line is longer than {LONGEST >> 20} MiB")
    except TimeoutError:
        raise Refusal(408, "slow", f"nothing came for {PAUSE:g} s") from None
    except ClientDisconnect:
        raise Refusal(400, "cut off", "the body was cut off") from None
    if rest.strip():
        yield bytes(rest)


def _line(said: dict[str, Any]) -> bytes:
    return json.dumps(said).encode() + b"\n"

"""Clients of the service that cost next to nothing: one process, many connections that are kept alive, bare sockets."""

from __future__ import annotations

import multiprocessing
import re
import selectors
import socket
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answers:
    """Of a drive: seconds from when each request was due, how many answers were others or none, seconds in all."""

    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    lost: int = 0
    whole: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.seconds) / self.whole

    def p95_ms(self) -> float:
        return statistics.quantiles(self.seconds, n=20)[-1] * 1e3


@dataclass
class Connection:
    """One that is kept alive: of the request under way its number, when it was due, and what came of its answer."""

    socket: socket.socket
    number: int = 0
    due: float = 0.0
    came: bytearray = field(default_factory=bytearray)

    def answer(self) -> bytes | None:
        """Status and body, once all of it is there."""
        head, _, body = self.came.partition(b"\r\n\r\n")
        said = re.search(rb"\r\ncontent-length: *(\d+)", bytes(head), re.IGNORECASE)
        if not said or len(body) < int(said[1]):
            return None
        return bytes(head[9:12]) + bytes(body)


def requested(body: bytes) -> bytes:
    return b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def drive(port: int, bodies: Sequence[bytes], expected: Sequence[bytes], due: Sequence[float], clients: int) -> Answers:
    """Sends body after body, each when it is due or when one of the connections is free, and compares the answers."""
    found, sent = Answers(), 0
    ready = selectors.DefaultSelector()
    free = deque(Connection(socket.create_connection(("127.0.0.1", port))) for _ in range(clients))
    requests = [requested(body) for body in bodies]
    for each in free:
        each.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ready.register(each.socket, selectors.EVENT_READ, each)
    began = time.perf_counter()
    while len(found.seconds) + found.lost < len(due):
        now = time.perf_counter() - began
        while free and sent < len(due) and due[sent] <= now:
            one = free.popleft()
            one.number, one.due, one.came = sent % len(bodies), due[sent], bytearray()
            one.socket.sendall(requests[one.number])
            sent += 1
        pause = max(0.0, due[sent] - now) if free and sent < len(due) else 30.0
        events = ready.select(pause)
        if not events and pause == 30.0:
            break
        for key, _ in events:
            receive(key.data, found, expected, free, ready, began)
    found.whole = time.perf_counter() - began
    found.lost = len(due) - len(found.seconds)
    return found


def receive(
    one: Connection,
    found: Answers,
    expected: Sequence[bytes],
    free: deque[Connection],
    ready: selectors.BaseSelector,
    began: float,
) -> None:
    piece = one.socket.recv(1 << 18)
    if not piece:
        ready.unregister(one.socket)
        found.lost += 1
        return
    one.came += piece
    answer = one.answer()
    if answer is not None:
        found.seconds.append(time.perf_counter() - began - one.due)
        found.wrong += answer != expected[one.number]
        free.append(one)


def asked(port: int, body: bytes) -> bytes:
    """Status and body of one answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        one.sendall(requested(body))
        whole = Connection(one)
        while (answer := whole.answer()) is None:
            whole.came += one.recv(1 << 18)
        return answer


def apart(*given: Any) -> Answers:
    """`drive`, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(drive, given)

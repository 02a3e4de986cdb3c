"""The service as a command: begun, asked, and ended by a signal while it is at work."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import malformed
import psutil
import pytest
from exported import handmade

ROOT = Path(__file__).parents[1]
#: clients that ask all the time, and seconds that an end may take
CLIENTS, ENDING = 12, 10
WINDOWS = sys.platform == "win32"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade(tmp_path_factory.mktemp("exported"))


@contextmanager
def command(folder: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process and its port, once it says that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "xlite_search", "serve", str(folder), "--port", "0", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout
        found = re.search(r":(\d+) serves", process.stdout.readline())
        assert found
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


def request(body: bytes, *, close: bool = False) -> bytes:
    more = b"Connection: close\r\n" if close else b""
    return b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n" % (more, len(body)) + body


def answer(connection: socket.socket) -> bytes:
    """All of one answer, or what came of it."""
    came = b""
    with suppress(ConnectionError):
        while not (head := re.search(rb"content-length: (\d+)\r\n.*?\r\n\r\n", came, re.I | re.S)) or len(
            came
        ) < head.end() + int(head[1]):
            piece = connection.recv(1 << 16)
            if not piece:
                break
            came += piece
    return came


class Client:
    """Asks until it is refused; `unanswered` are requests that were sent whole before the signal, and got no answer."""

    def __init__(self, port: int, body: bytes, *, kept: bool) -> None:
        self.port, self.body, self.kept = port, body, kept
        self.answered, self.unanswered, self.torn = 0, 0, 0
        self.signalled = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        with suppress(ConnectionError):
            while True:
                with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
                    while self.ask(connection) and self.kept:
                        pass

    def ask(self, connection: socket.socket) -> bool:
        connection.sendall(request(self.body, close=not self.kept))
        before = not self.signalled.is_set()
        came = answer(connection)
        whole = came.startswith(b"HTTP/1.1 200") and came.endswith(b"}")
        self.answered += whole
        self.torn += bool(came) and not whole
        self.unanswered += before and not whole
        return whole


@pytest.mark.skipif(WINDOWS, reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("everybody", [False, True])
def test_what_was_taken_is_answered_before_the_end(folder: Path, number: int, everybody: bool) -> None:
    """`everybody`: the decoders get the signal, too, as from a terminal or an init system."""
    with command(folder) as (process, port):
        clients = [Client(port, malformed.good(), kept=bool(each % 2)) for each in range(CLIENTS)]
        while sum(client.answered for client in clients) < 60:
            clients[0].thread.join(0.05)
        for client in clients:
            client.signalled.set()
        children = psutil.Process(process.pid).children(recursive=True) if everybody else []
        began = time.monotonic()
        process.send_signal(number)
        for each in children:
            with suppress(psutil.NoSuchProcess):
                each.send_signal(number)
        _, errors = process.communicate(timeout=ENDING)
        took = time.monotonic() - began
        for client in clients:
            client.thread.join(30)
        counts = {name: sum(getattr(client, name) for client in clients) for name in ("answered", "unanswered", "torn")}
        print(f"{counts}, exit {process.returncode} after {took:.2f} s")
        assert process.returncode == 0 and errors.splitlines() == ["ended; what was taken is answered"]
        assert counts["unanswered"] == counts["torn"] == 0


@pytest.mark.skipif(WINDOWS, reason="signals are POSIX's")
def test_an_end_does_not_wait_for_who_hangs(folder: Path) -> None:
    """A decoder that stopped, a body that does not come, a batch without end: told so, and the end is in time."""
    with command(folder) as (process, port):
        head = b"POST /v1/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n\r\n"
        said = [
            head % b"predict",
            head % b"predict-batch" + b'{"name"',
            request(malformed.good()),
            request(malformed.good()),
        ]
        with socket.create_connection(("127.0.0.1", port)) as first:
            first.sendall(request(malformed.good()))
            answer(first)
            for child in psutil.Process(process.pid).children():
                if "multiprocessing.spawn" in " ".join(child.cmdline()):
                    child.suspend()
            hung = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in said]
            for each, content in zip(hung, said, strict=True):
                each.sendall(content)
            select.select([], hung, [], 1)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=ENDING + 2)
            assert process.returncode == 0 and "Traceback" not in errors
            assert re.search(r"^ended; (what was taken is answered|[1-4] requests were cut off)$", errors, re.MULTILINE)
            assert all(each.recv(4096).startswith(b"HTTP/1.1") for each in hung)
            for each in hung:
                each.close()


def test_nothing_of_a_file_is_in_the_log(folder: Path) -> None:
    """Not what a tag says either, which DICOM readers like to complain about."""
    odd = malformed.dicom(PatientName="Nobody^Else\\=" * 40, PatientBirthDate="yesterday")
    with command(folder) as (process, port):
        for body in (odd, *malformed.bodies(30)):
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                connection.sendall(request(body))
                came = answer(connection)
                assert b"Nobody" not in came and b"yesterday" not in came
        process.terminate()
        _, errors = process.communicate(timeout=30)
        assert errors.splitlines() == ["ended; what was taken is answered"]


@pytest.mark.skipif(WINDOWS, reason="there is no core count to hold")
def test_it_is_soon_ready(folder: Path) -> None:
    """Within 3 s of processor time; by the clock a busy machine may take longer, so that 20 s are allowed."""
    began = time.monotonic()
    with command(folder) as (process, _):
        took = time.monotonic() - began
        times = psutil.Process(process.pid).cpu_times()
        print(f"ready after {took:.2f} s, {times.user + times.system:.2f} s of them computing")
        assert times.user + times.system < 3 and took < 20

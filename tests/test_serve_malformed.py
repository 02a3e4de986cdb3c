"""The service under bodies that are no good image, and under a thousand connections that send hardly anything."""

from __future__ import annotations

import gc
import json
import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import malformed
import numpy as np
import psutil
import pytest
from exported import handmade
from test_serve import Reply, Running, error, running
from test_serve_end import command

from xlite_search.deploy.predict import Predictor, raw_in
from xlite_search.deploy.serve import guard, server

#: bodies in all and in a run that is not slow; bytes that the service's process may grow by; seconds that each may take
ALL, FEW, GROWTH, SECONDS = 500, 60, 50 << 20, 6.0
CONNECTIONS = 1000


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(handmade(tmp_path_factory.mktemp("exported"))) as found:
        yield found


def held(process: int | None = None) -> int:
    gc.collect()
    return int(psutil.Process(process).memory_info().rss)


def expect_right(here: Running, of: Predictor) -> None:
    """That a good image is answered as `predict` does."""
    logits, _ = of(of.preprocess(raw_in(malformed.good(), of.preprocess.channels))[None])
    status, _, reply = here.post(malformed.good())
    assert status == 200 and [np.float32(each["logit"]) for each in reply["findings"]] == logits[0].tolist()


def refused_or_good(reply: Reply, body: bytes) -> int:
    """A machine that is at other things may have no time to decode one."""
    code = error(reply) if reply[0] != 200 else (200, "")
    assert code[0] < 500 or code == (503, "not decoded"), (reply, body[:200])
    return reply[0]


@pytest.mark.parametrize("count", [FEW, pytest.param(ALL, marks=pytest.mark.slow)])
def test_bodies_that_are_no_good_image(here: Running, count: int) -> None:
    """Asked of the command, whose memory is its own."""
    of = here.service.engine.predictor
    with command(of.folder) as (process, port):
        there = Running(here.service, port)
        for body in malformed.bodies(10):  # what is loaded once is no growth
            there.post(body)
        before, slowest, said = held(process.pid), 0.0, Counter[int]()
        for number, body in enumerate(malformed.bodies(count, seed=1)):
            began = time.monotonic()
            reply = there.post(body)
            took = time.monotonic() - began
            slowest = max(slowest, took)
            said[refused_or_good(reply, body)] += 1
            assert took < SECONDS, (number, reply)
            if number % 10 == 0:
                expect_right(there, of)
        growth = held(process.pid) - before
    print(f"{count} bodies: {dict(said)}, slowest {slowest:.2f} s, growth {growth / 2**20:.1f} MiB")
    assert growth < GROWTH and said[503] <= count / 20


def test_a_large_body_leaves_nothing(here: Running) -> None:
    body = malformed.good() + b"\0" * (20 << 20)
    here.post(body)
    before = held()
    with ThreadPoolExecutor(2) as pool:
        assert {reply[0] for reply in pool.map(here.post, [body] * 10)} <= {200, 422}
    assert held() - before < 3 * GROWTH and here.service.bodies.held == 0


def test_all_bodies_together_have_a_limit(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here.service.bodies, "room", 1 << 20)
    assert error(here.post(b"\0" * (2 << 20))) == (503, "busy")
    expect_right(here, here.service.engine.predictor)
    assert here.service.bodies.held == 0


def test_json_that_costs_memory_is_refused(here: Running) -> None:
    """Lists in lists take thirty times their text; numpy makes text as wide as the longest of it."""
    side = here.service.engine.predictor.preprocess.size
    about = {"name": "images", "shape": [1, 1, side, side], "datatype": "UINT8"}
    before = held()
    for data, code in (
        (["x" * 40_000, *[""] * 20_000], (422, "data")),
        ([[[[[1]]]]] * 10_000, (422, "data")),
        ([[]] * (1 << 20), (413, "too large")),
        ([True, None], (422, "data")),
        ([1e308] * 5, (422, "data")),
        ({"a": 1}, (422, "malformed")),
    ):
        assert (
            error(here.ask("POST", "/v2/models/m/infer", json.dumps({"inputs": [about | {"data": data}]}).encode()))
            == code
        )
    assert error(here.ask("POST", "/v2/models/m/infer", b"[" * 100_000)) == (422, "malformed")
    line = b'{"name": "x", "image": "aGVsbG8=", "more": [' + b"[]," * (8 << 20) + b"[]]}"
    _, _, content = here.ask("POST", "/v1/predict-batch", line)
    assert json.loads(content)["error"]["code"] == "malformed"
    assert held() - before < 2 * GROWTH


def test_slashes_may_be_escaped_in_a_line(here: Running) -> None:
    lines = [
        rb'{"image":"\/\/8=","name":"a"}',
        rb'{"name":"\"image\":\"AAAA\"","image" : "!"}',
        b'{"image":{"image":"AAAA"}}',
    ]
    found = [json.loads(line) for line in here.ask("POST", "/v1/predict-batch", b"\n".join(lines))[2].splitlines()]
    assert [each["error"]["code"] for each in found] == ["unfit", "malformed", "malformed"]
    assert [each["name"] for each in found] == ["a", '"image":"AAAA"', ""]


def test_a_body_that_drips_is_refused(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is no reason to wait longer."""
    monkeypatch.setattr(guard, "PAUSE", 0.5)
    for address in (b"predict", b"predict-batch"):
        with socket.create_connection(("127.0.0.1", here.port), timeout=10) as slow:
            slow.sendall(b"POST /v1/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n" % address)
            began, said, watched = time.monotonic(), b"", selectors.DefaultSelector()
            watched.register(slow, selectors.EVENT_READ)
            while not said and time.monotonic() - began < 5:
                slow.sendall(b"x")
                if watched.select(0.1):
                    said = slow.recv(4096)
            assert b'"slow"' in said or b'"slow"' in slow.recv(4096)


@pytest.mark.slow
def test_a_thousand_slow_connections(here: Running) -> None:
    """Each sends a piece of a request and no more, and is told within 6 s; others are answered meanwhile."""
    server.raise_file_limit()
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"
    pieces = [
        b"",
        b"POST",
        head,
        head + b"Content-Length: 99\r\n\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    ]
    of, told, latest = here.service.engine.predictor, Counter[bytes](), 0.0
    with command(of.folder) as (process, port):
        there, waiting = Running(here.service, port), selectors.DefaultSelector()
        expect_right(there, of)
        before = held(process.pid)
        for number in range(CONNECTIONS):
            slow = socket.create_connection(("127.0.0.1", port), timeout=10)
            slow.sendall(pieces[number % len(pieces)])
            waiting.register(slow, selectors.EVENT_READ, time.monotonic())
        expect_right(there, of)
        while waiting.get_map() and latest < 60:
            for key, _ in waiting.select(1):
                latest = max(latest, time.monotonic() - key.data)
                waiting.unregister(key.fileobj)
                one = key.fileobj
                assert isinstance(one, socket.socket)
                with one:
                    told[one.recv(4096)[9:12]] += 1
        expect_right(there, of)
        growth = held(process.pid) - before
    print(f"{dict(told)}; the last after {latest:.2f} s, growth {growth / 2**20:.1f} MiB")
    assert told == {b"408": CONNECTIONS} and latest < SECONDS and growth < GROWTH

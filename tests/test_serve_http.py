"""HTTP at its edges: hosts and origins that say anything, lengths that disagree, heads without end, odd methods."""

from __future__ import annotations

import hmac
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from exported import handmade
from test_serve import Running, error, running

from xlite_search.deploy.serve.guard import Guard
from xlite_search.errors import BadInput

CLOSE = b"Connection: close\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def here(folder: Path) -> Iterator[Running]:
    with running(folder) as found:
        yield found


def said(here: Running, request: bytes) -> tuple[int, bytes]:
    """The status, and all that comes until the connection is closed."""
    with socket.create_connection(("127.0.0.1", here.port), timeout=20) as connection:
        connection.sendall(request)
        came = b""
        while piece := connection.recv(1 << 16):
            came += piece
    return int(came[9:12]), came


def get(target: bytes = b"/v1/model", host: bytes = b"localhost", more: bytes = b"", method: bytes = b"GET") -> bytes:
    return b"%s %s HTTP/1.1\r\nHost: %s\r\n%s%s\r\n" % (method, target, host, more, CLOSE)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"localhost", 200),
        (b"LOCALHOST:1", 200),
        (b"127.0.0.1:8000", 200),
        (b"[::1]", 200),
        (b"[::1]:8000", 200),
        (b"::1", 421),
        (b"[::2]", 421),
        (b"[::1", 421),
        (b"", 421),
        (b"localhost.evil.example", 421),
        (b"evil.example@localhost", 421),
        (b"localhost/v2/health/live?", 421),
        (b"localhost#", 421),
        (b"127.0.0.1 evil", 421),
        (b"localhost\r\nHost: evil.example", 400),
    ],
)
def test_it_answers_to_its_own_names_alone(here: Running, host: bytes, status: int) -> None:
    assert said(here, get(host=host))[0] == status


@pytest.mark.parametrize(
    "origin", [b"null", b"http://[", b"http://", b"http://localhost.evil", b"file://", b"http://localhost:1", b"\xff"]
)
def test_foreign_origins_get_nothing(here: Running, origin: bytes) -> None:
    assert said(here, get(more=b"Origin: %s\r\n" % origin))[0] == 403
    assert said(here, get(b"/", more=b"Origin: %s\r\n" % origin))[0] == 403


def test_a_request_without_host(here: Running) -> None:
    assert said(here, b"GET /v1/model HTTP/1.0\r\n\r\n")[0] == 421
    assert said(here, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")[0] == 421
    status, came = said(here, b"GET /v1/model HTTP/1.1\r\n\r\n")
    assert status == 400 and b'"malformed"' in came


@pytest.mark.parametrize(
    "target",
    [
        b"/v2/health/live/../../v1/model",
        b"//v1/model",
        b"/v1/model/",
        b"/v1/model;/v2/health/live",
        b"http://localhost/v1/model",
        b"/%2e/v1/model",
        b"*",
        b"/v1/model%00",
        b"/V1/MODEL",
    ],
)
@pytest.mark.parametrize("host", [b"localhost", b"x/v2/health/live?", b"x/?", b"x/#"])
def test_no_address_goes_past_the_token(with_token: Running, target: bytes, host: bytes) -> None:
    """With a token any host is taken, so that nothing may be concluded from it."""
    for each in (target, b"/v1/model"):
        assert said(with_token, get(each, host))[0] in (400, 401)


@pytest.fixture(scope="module")
def with_token(folder: Path) -> Iterator[Running]:
    with running(folder, "gehörig", host="0.0.0.0") as found:
        yield found


def test_a_token_may_have_any_letters(with_token: Running) -> None:
    right = "Bearer gehörig".encode()
    assert said(with_token, get(more=b"Authorization: %s\r\n" % right))[0] == 200
    for wrong in (right[:-1], right + b"g", right.replace(b"Bearer ", b""), b"Bearer ", b"", b"\xff" * 5000):
        status, came = said(with_token, get(more=b"Authorization: %s\r\n" % wrong))
        assert status == 401 and b"gehorig" not in came
    assert said(with_token, get(b"/"))[0] == said(with_token, get(b"/v2/health/ready"))[0] == 200
    for data in (b"/v1/model", b"/v1/card", b"/metrics", b"/openapi.json", b"/v2", b"/v2/models/m", b"/nothing"):
        assert said(with_token, get(data))[0] == 401


def test_the_scheme_of_a_token_may_be_in_any_case(with_token: Running) -> None:
    for scheme in ("bearer", "BEARER"):
        assert said(with_token, get(more=f"Authorization: {scheme} gehörig\r\n".encode()))[0] == 200


@pytest.mark.parametrize("token", [" ", "abc\n", "\tabc", "a\x00b"])
def test_a_token_that_nobody_could_send_is_refused(token: str) -> None:
    with pytest.raises(BadInput, match="what a header can carry"):
        Guard.of("0.0.0.0", token)


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"http://localhost/v1/model", b"localhost", 200),
        (b"HTTP://127.0.0.1:8000/v1/model?x=1", b"evil.example", 200),  # the target's name counts
        (b"http://localhost", b"localhost", 200),
        (b"http://evil.example/v1/model", b"localhost", 421),
        (b"http:///v1/model", b"localhost", 421),
        (b"http://localhost@evil.example/v1/model", b"localhost", 421),
        (b"http://localhost/nothing", b"localhost", 404),
    ],
)
def test_a_target_may_be_a_whole_address(here: Running, target: bytes, host: bytes, status: int) -> None:
    assert said(here, get(target, host))[0] == status


@pytest.mark.parametrize("target", [b"/", b"/v2/health/live", b"/v2/health/ready"])
def test_who_asks_for_the_head_gets_no_body(here: Running, target: bytes) -> None:
    status, came = said(here, get(target, method=b"HEAD"))
    assert status == 200 and came.endswith(b"\r\n\r\n")


def test_a_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert not Guard("secret")._known("Bearer", "wrong")
    assert not Guard("secret")._known("Basic", "wrong")
    assert compared == [(b"wrong", b"secret")] * 2


POST = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"
SMUGGLED = b"0\r\n\r\nGET /v1/model HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        POST + b"Content-Length: 3, 4\r\n\r\nabcd",
        POST + b"Content-Length: +3\r\n\r\nabc",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 0x3\r\n\r\nabc",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: xchunked\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding : chunked\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + SMUGGLED,
        POST + b" folded: x\r\n\r\n",
        POST + b"no colon\r\n\r\n",
        POST + b"a\0b: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 99 + b"\r\n\r\n",
    ],
)
def test_lengths_that_disagree_end_the_connection(here: Running, request_: bytes) -> None:
    """One answer, a refusal, and nothing for what was hidden behind it."""
    status, came = said(here, request_)
    assert (
        status in (400, 413, 421)
        and came.count(b"HTTP/1.1 4") == came.count(b"HTTP/1.1 2") + 1 == 1
        and b'"sentence"' in came
    )


def test_heads_without_end(here: Running) -> None:
    for endless in (b"/" + b"a" * (1 << 22), b"/v1/model?" + b"a=1&" * (1 << 20)):
        assert refused(here, b"GET " + endless + b" HTTP/1.1\r\nHost: localhost\r\n" + CLOSE + b"\r\n")
    assert refused(here, get(more=b"X: %s\r\n" % (b"a" * (1 << 22))))
    assert refused(here, get(more=b"X: a\r\n" * (1 << 18)))
    assert here.ask("GET", "/v2/health/ready")[0] == 200


def refused(here: Running, request: bytes) -> bool:
    try:
        return said(here, request)[0] in (400, 404, 431)
    except (ConnectionError, ValueError):
        return True  # it was closed while the rest was on its way


def test_other_methods(here: Running) -> None:
    for method in (b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE", b"PATCH", b"CONNECT", b"FOO"):
        status, came = said(here, get(method=method))
        assert status == 405 and b"evil" not in came
        assert method == b"HEAD" or b'"refused"' in came
    assert said(here, get(b"*", method=b"OPTIONS"))[0] == 404
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    assert said(here, get(more=upgrade))[0] == 200


def test_whatever_fails_has_the_shape_of_every_error(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(here.service), "about", lambda self: 1 / 0)
    reply = here.ask("GET", "/v1/model")
    assert error(reply) == (500, "failed") and reply[1]["cache-control"] == "no-store"
    assert "ZeroDivision" not in reply[2]["error"]["sentence"]

"""The service: bodies to the answers that `predict` gives, and one sentence for whatever else comes."""

from __future__ import annotations

import asyncio
import base64
import http.client
import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import pack
from typing import Any, cast

import cv2
import numpy as np
import pytest
from exported import drawn, gray, handmade
from test_cli import call

from xlite_search.data.sources import Unreadable
from xlite_search.deploy.domain import fit_domain
from xlite_search.deploy.predict import Predictor
from xlite_search.deploy.serve import decoders, guard, server
from xlite_search.deploy.serve.engine import AHEAD, Answered, Engine
from xlite_search.deploy.serve.guard import Guard
from xlite_search.deploy.serve.service import Service, opened

Reply = tuple[int, dict[str, str], Any]


@dataclass
class Running:
    """A service that listens at a port of loopback."""

    service: Service
    port: int

    def ask(self, method: str, address: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, address, body, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            content, kind = answer.read(), answer.getheader("content-type", "")
            return answer.status, dict(answer.getheaders()), json.loads(content) if "/json" in kind else content
        finally:
            connection.close()

    def post(self, body: bytes, more: str = "") -> Reply:
        return self.ask("POST", f"/v1/predict{more}", body)


@contextmanager
def running(folder: Path, token: str = "", *, strict: bool = False, host: str = "127.0.0.1") -> Iterator[Running]:
    """`host` is where it is guarded as if it listened there."""
    service = opened(folder, strict=strict)
    own = server.server(service, Guard.of(host, token), "127.0.0.1", 0)
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    thread = threading.Thread(target=own.run, args=([listening],))
    thread.start()
    try:
        service.check()
        yield Running(service, listening.getsockname()[1])
    finally:
        own.should_exit = True
        thread.join(30)
        service.close()
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def here(folder: Path) -> Iterator[Running]:
    with running(folder) as found:
        yield found


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    return drawn(tmp_path / "x.png").read_bytes()


def error(reply: Reply) -> tuple[int, str]:
    assert set(reply[2]) == {"error"} and set(reply[2]["error"]) == {"code", "sentence"}, reply
    return reply[0], reply[2]["error"]["code"]


def test_a_reply_is_what_predict_says_to_the_bit(here: Running, folder: Path, tmp_path: Path) -> None:
    predictor = Predictor.open(folder)
    for row in range(4):
        path = drawn(tmp_path / f"{row}.png", row)
        status, headers, reply = here.post(path.read_bytes())
        answer = predictor.of_file(path)
        assert status == 200 and reply["kind"] == "PNG" and reply["model"] == predictor.manifest.name
        assert [each["finding"] for each in reply["findings"]] == list(predictor.manifest.classes)
        assert [np.float32(each["logit"]) for each in reply["findings"]] == answer.logits.tolist()
        assert [np.float32(each["probability"]) for each in reply["findings"]] == answer.probabilities.tolist()
        assert [each["decision"] for each in reply["findings"]] == predictor.decisions(answer)
        assert headers["cache-control"] == "no-store" and "server" not in headers


def test_content_tells_what_a_body_is(here: Running, image: bytes) -> None:
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_GRAYSCALE)
    jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
    assert here.ask("POST", "/v1/predict", jpeg, Content_Type="image/png")[2]["kind"] == "JPEG"


@pytest.mark.parametrize("name", ["chest_monochrome1.dcm", "chest_monochrome2.dcm"])
def test_a_dicom_file_is_answered(here: Running, folder: Path, shared: Path, name: str) -> None:
    path = shared / "data" / "dicom" / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    status, _, reply = here.post(path.read_bytes())
    assert status == 200 and reply["kind"] == "DICOM"
    said = Predictor.open(folder).of_file(path).logits.tolist()
    assert [np.float32(each["logit"]) for each in reply["findings"]] == said


def png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return pack(">I", len(content)) + kind + content + pack(">I", zlib.crc32(kind + content))

    head = pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return predict_png() + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def predict_png() -> bytes:
    return b"\x89PNG\r\n\x1a\n"


def deflated() -> bytes:
    syntax = b"1.2.840.10008.1.2.1.99"
    element = pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    return b"\0" * 128 + b"DICM" + element + zlib.compress(b"\0" * (1 << 24))


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        (b"", "damaged", "empty"),
        (b"hello", "unfit", "not a PNG, JPEG or DICOM file"),
        (b"--x\r\nContent-Disposition: form-data", "unfit", "a form: the body has to be the file itself"),
        (b"\x1f\x8b\x08", "unfit", "compressed by gzip"),
        (png(30_000, 30_000), "unfit", "30000 x 30000 px"),
        (png(64, 64), "damaged", "cannot be decoded"),
        (deflated(), "unfit", "1.2.840.10008.1.2.1.99, which is not decoded here"),
        (b"\xff\xd8\xff\xe0", "damaged", "JPEG"),
    ],
)
def test_a_body_that_cannot_be_used_is_told_why(here: Running, body: bytes, code: str, says: str) -> None:
    reply = here.post(body)
    assert error(reply) == (422, code) and says in reply[2]["error"]["sentence"]


def test_a_colour_photograph_is_refused(here: Running) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:32, :, 2], picture[32:, :, 0] = 200, 90
    reply = here.post(cv2.imencode(".png", picture)[1].tobytes())
    assert error(reply) == (422, "unfit") and "in colour" in reply[2]["error"]["sentence"]


def test_addresses_that_are_not_there(here: Running, image: bytes) -> None:
    assert error(here.ask("GET", "/v1/nothing")) == (404, "not found")
    assert error(here.ask("GET", "/v1/predict")) == (405, "refused")
    reply = here.post(image, "?explain=Mas")
    assert error(reply) == (422, "unknown finding") and "Mass" in reply[2]["error"]["sentence"]
    assert error(here.post(image, "?image=perhaps"))[0] == 422


def test_a_map_comes_with_the_reply(here: Running, folder: Path, image: bytes) -> None:
    status, _, reply = here.post(image, "?explain=Mass&image=true")
    assert status == 200 and reply["overlay"]["finding"] == "Mass" and reply["overlay"]["method"] == "occlusion"
    side = Predictor.open(folder).preprocess.size
    for uri in (reply["overlay"]["png"], reply["image"]):
        content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
        picture = np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))
        assert picture.shape == (side, side, 3)
    assert reply["overlay"]["png"] != reply["image"]


def test_whom_it_answers(here: Running, image: bytes) -> None:
    ours = f"127.0.0.1:{here.port}"
    assert error(here.ask("GET", "/v1/model", Host="evil.example")) == (421, "foreign host")
    assert error(here.ask("GET", "/v1/model", Origin="http://evil.example")) == (403, "foreign origin")
    assert error(here.ask("POST", "/v1/predict", image, Origin="null")) == (403, "foreign origin")
    assert here.ask("POST", "/v1/predict", image, Origin=f"http://{ours}")[0] == 200
    assert here.ask("GET", "/v1/model", Host=f"localhost:{here.port}")[0] == 200


def test_a_token_is_asked_for(folder: Path, image: bytes) -> None:
    with running(folder, "secret") as here:
        for said in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            reply = here.ask("POST", "/v1/predict", image, **said)
            assert error(reply) == (401, "token") and reply[1]["www-authenticate"] == "Bearer"
        assert here.ask("POST", "/v1/predict", image, Authorization="Bearer secret")[0] == 200
        assert here.ask("GET", "/v2/health/live")[0] == 200 and here.ask("GET", "/metrics")[0] == 401


def test_beyond_loopback_only_with_a_token(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "serve", str(folder), "--host", "0.0.0.0")
    assert (code, err.count("\n")) == (2, 1) and "--token" in err
    assert Guard.of("0.0.0.0", "secret").hosts == frozenset() and Guard.of("127.0.0.5", "").hosts


def test_more_than_32_mib_are_not_taken(here: Running) -> None:
    assert error(here.post(b"x" * (guard.LARGEST + 1))) == (413, "too large")
    lines = [b"x" * (1 << 20)] * 40
    connection = http.client.HTTPConnection("127.0.0.1", here.port, timeout=60)
    try:
        connection.request("POST", "/v1/predict", iter(lines), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # it answered and closed while the rest was on its way
    finally:
        connection.close()
    assert here.ask("GET", "/v2/health/ready")[0] == 200


def test_heads_and_bodies_that_come_slowly_are_refused(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD", 0.3)
    monkeypatch.setattr(guard, "PAUSE", 0.3)
    head = b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    for said in (b"", b"POST /v1", head, head + b"Content-Length: 100\r\n\r\nabc"):
        with socket.create_connection(("127.0.0.1", here.port), timeout=10) as slow:
            slow.sendall(said)
            assert b"408" in slow.recv(4096).split(b"\r\n")[0]


def test_a_second_head_that_comes_slowly_is_refused(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD", 0.5)
    with socket.create_connection(("127.0.0.1", here.port), timeout=10) as slow:
        slow.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        said = b""
        while not said.endswith(b"}"):
            said += slow.recv(4096)
        slow.sendall(b"GET /v2/hea")
        assert b"408" in slow.recv(4096)


def test_a_decoder_that_is_killed_fails_its_request_alone(here: Running, image: bytes) -> None:
    assert here.post(image)[0] == 200
    found: list[Reply] = []
    free, count = here.service.engine.decoders._free, here.service.engine.decoders.count
    kids = [next(iter(child.started.values())) for child in list(free.queue)[:count]]
    for kid in kids:
        assert kid.pid
        os.kill(kid.pid, signal.SIGSTOP)
    threads = [threading.Thread(target=lambda: found.append(here.post(image))) for _ in kids]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 20
    while free.qsize() > decoders.SPARE and time.monotonic() < until:
        threading.Event().wait(0.01)
    for kid in kids:
        assert kid.pid
        os.kill(kid.pid, signal.SIGKILL)
    for thread in threads:
        thread.join(30)
    assert [error(reply) for reply in found] == [(422, "decoder ended")] * len(kids)
    assert here.post(image)[0] == 200


def test_a_file_that_takes_too_long_ends_its_decoder(
    folder: Path, image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does if its decoder computed meanwhile; one that got no time may be asked again."""
    own = decoders.Decoders(Predictor.open(folder).preprocess, 1, seconds=0.5)
    try:
        assert [own(image).kind for _ in range(1 + decoders.SPARE)] == ["PNG"] * 2  # all of them have begun
        for computed, expected in ((0.2, decoders.BusyError), (0.3, TimeoutError)):
            clock = itertools.chain([0.0], itertools.repeat(computed))
            monkeypatch.setattr(decoders._Child, "processor_s", lambda _, clock=clock: next(clock))
            child = own._free.queue[0]
            assert child.process.pid
            os.kill(child.process.pid, signal.SIGSTOP)
            with pytest.raises(expected, match=r"0\.5 s"):
                own(image)
            own.seconds = 60.0
            assert [own(image).kind for _ in range(2)] == ["PNG"] * 2
            own.seconds = 0.5
    finally:
        own.close()


def test_decoders_that_ended_while_nobody_asked_cost_no_request(folder: Path, image: bytes) -> None:
    own = decoders.Decoders(Predictor.open(folder).preprocess, 1)
    try:
        for child in own._all:
            child.process.kill()
            child.process.join()
        assert [own(image).kind for _ in range(3)] == ["PNG"] * 3
    finally:
        own.close()


def test_a_decoder_that_cannot_begin_is_no_fault_of_the_file(
    folder: Path, image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = decoders.Decoders(Predictor.open(folder).preprocess, 1)
    try:
        monkeypatch.setattr(decoders, "BEGINNING", 0.0)
        with pytest.raises(decoders.BusyError, match="could begin"):
            own(image)
        monkeypatch.undo()
        assert own(image).kind == "PNG"
    finally:
        own.close()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_a_decoder_that_has_not_begun_does_not_hear_the_signal_to_end(folder: Path, image: bytes) -> None:
    own = decoders.Decoders(Predictor.open(folder).preprocess, 1)
    try:
        for child in own._all:
            os.kill(next(iter(child.started.values())).pid or 0, signal.SIGTERM)
        assert [own(image).kind for _ in own._all] == ["PNG"] * 2
    finally:
        own.close()


class Recorded:
    """A transport that says what became of what was written."""

    def __init__(self) -> None:
        self.said: list[bytes | str] = []

    def write(self, piece: bytes) -> None:
        self.said.append(piece)

    def close(self) -> None:
        self.said.append("closed")


def test_what_is_written_in_one_turn_of_the_loop_is_sent_as_one() -> None:
    async def write() -> list[bytes | str]:
        transport = Recorded()
        joined = server.Joined(transport, asyncio.get_running_loop())
        joined.write(b"head ")
        joined.write(b"body")
        await asyncio.sleep(0)
        joined.write(b"last ")
        joined.write(b"words")
        joined.close()
        await asyncio.sleep(0)
        return transport.said

    assert asyncio.run(write()) == [b"head body", b"last words", "closed"]


class Gated:
    """A model that answers once it may, and counts how many images it is at."""

    def __init__(self) -> None:
        self.may, self.lock, self.now, self.most = threading.Event(), threading.Lock(), 0, 0

    def __call__(self, images: Any) -> tuple[Any, Any]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.may.wait(30)
        with self.lock:
            self.now -= 1
        return images[:, 0, 0], images[:, 0, 0]


def test_images_are_decoded_ahead_and_computed_by_as_many_at_a_time_as_there_are_cores(image: bytes) -> None:
    model, decoded, count = Gated(), threading.Semaphore(0), 3 + AHEAD

    def decode(body: bytes) -> decoders.Decoded:
        decoded.release()
        return decoders.Decoded("PNG", np.zeros((1, 4, 4), np.uint8))

    def watch() -> None:
        for _ in range(count):
            assert decoded.acquire(timeout=30)
        model.may.set()

    async def ask(own: Engine) -> list[Answered]:
        return await asyncio.gather(*(own.answer(image) for _ in range(2 * count)))

    own = Engine(cast(Any, model), cast(Any, decode), cores=3)
    watching = threading.Thread(target=watch)
    watching.start()
    assert len(asyncio.run(ask(own))) == 2 * count and model.most == 3
    watching.join()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux")
def test_a_file_that_takes_too_much_memory_is_refused(folder: Path, image: bytes) -> None:
    pixels = np.zeros((6000, 6000), np.uint16)
    pixels[0, 0] = 1
    bomb = cv2.imencode(".png", pixels)[1].tobytes()
    own = decoders.Decoders(Predictor.open(folder).preprocess, 1, memory=60 << 20)
    try:
        with pytest.raises(Unreadable, match="cannot be decoded"):
            own(bomb)
        assert own(image).kind == "PNG"
    finally:
        own.close()


def test_who_finds_no_room_is_told_when_to_try_again(
    here: Running, image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here.service.engine, "at_work", here.service.engine.most)
    reply = here.post(image)
    assert error(reply) == (503, "busy") and reply[1]["retry-after"] == "1"


def test_a_slip_in_a_parameter_is_told(here: Running, image: bytes) -> None:
    reply = here.post(image, "?explian=Mass")
    assert error(reply) == (422, "unknown parameter") and "did you mean 'explain'" in reply[2]["error"]["sentence"]


def test_an_end_counts_what_it_cut_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ENDING", 1)
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n"
    with socket.socket() as connection:
        with running(folder) as here:
            connection.connect(("127.0.0.1", here.port))
            connection.sendall(head)
            assert here.ask("GET", "/v2/health/live")[0] == 200  # the other has been taken by then
        assert here.service.unanswered == 1 and connection.recv(4096).startswith(b"HTTP/1.1 503")


def test_names_of_lines_are_kept_or_refused(here: Running, image: bytes) -> None:
    good, long = base64.b64encode(image).decode(), "é" * 300
    lines = [{"name": long, "image": good}, {"name": 5, "image": good}, {"name": "x" * 5000, "image": good}]
    body = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode()
    found = [json.loads(line) for line in here.ask("POST", "/v1/predict-batch", body)[2].splitlines()]
    assert found[0]["name"] == long and "reply" in found[0]
    assert [each["error"]["sentence"] for each in found[1:]] == [
        '"name": expected text',
        "a line has more than 4096 bytes beside its image, or no base64",
    ]


@pytest.mark.parametrize("reads", [False, True])
def test_who_does_not_read_answers_is_cut_off(
    folder: Path, image: bytes, monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    """Answers that wait have a bound, and a time; who reads late within both gets all of them."""
    monkeypatch.setattr(server, "UNREAD", 64 << 20 if reads else 4096)
    monkeypatch.setattr(server, "STALLED", 0.5)
    line = json.dumps({"name": "n" * 3000, "image": base64.b64encode(image).decode()}).encode() + b"\n"
    count = 2000
    head = b"POST /v1/predict-batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (count * len(line))
    with running(folder) as own, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", own.port))
        connection.settimeout(60)
        if reads:
            connection.sendall(head + count * line)
            came = b""
            while came.count(b'"reply"') < count:
                piece = connection.recv(1 << 16)
                assert piece
                came += piece
        else:
            with pytest.raises(ConnectionError):
                connection.sendall(head + count * line)
        assert own.post(image)[0] == 200
    assert own.service.batches == 0 and own.service.bodies.held == 0


def test_lines_in_lines_out(here: Running, image: bytes) -> None:
    good = base64.b64encode(image).decode()
    lines = [{"name": "a", "image": good}, {"name": "b", "image": "!"}, {"name": "c", "image": "aGVsbG8="}, {"x": 1}]
    body = "\n".join([*map(json.dumps, lines), "", "no json", json.dumps({"name": "d", "image": good})]).encode()
    status, _, content = here.ask("POST", "/v1/predict-batch", body)
    found = [json.loads(line) for line in content.splitlines()]
    assert status == 200 and [each["name"] for each in found] == ["a", "b", "c", "", "", "d"]
    codes = [each.get("error", {}).get("code") for each in found]
    assert codes == [None, "malformed", "unfit", "malformed", "malformed", None]
    assert found[0]["reply"]["findings"][0]["logit"] == here.post(image)[2]["findings"][0]["logit"]
    assert found[0]["reply"] == found[5]["reply"]


def test_the_open_inference_protocol(here: Running, folder: Path) -> None:
    name, of = here.service.name, Predictor.open(folder)
    assert here.ask("GET", "/v2/health/live")[2] == {"live": True}
    assert here.ask("GET", f"/v2/models/{name}/ready")[2] == {"name": name, "ready": True}
    about = here.ask("GET", f"/v2/models/{name}")[2]
    shape = about["inputs"][0]["shape"][1:]
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    tensor = {"name": "images", "shape": list(images.shape), "datatype": "UINT8", "data": images.ravel().tolist()}
    ask = json.dumps({"id": "7", "inputs": [tensor]}).encode()
    status, _, reply = here.ask("POST", f"/v2/models/{name}/infer", ask)
    assert status == 200 and reply["id"] == "7"
    logits = np.array(reply["outputs"][0]["data"], np.float32).reshape(reply["outputs"][0]["shape"])
    assert np.array_equal(logits, np.concatenate([of(each[None])[0] for each in images]))
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"shape": [1, 1, 2, 2], "data": [1] * 4}, "shape"),
        ({"data": [1, 2]}, "data"),
        ({"data": [300] * images.size}, "data"),
        ({"data": [0.5] * images.size}, "data"),
        ({"data": [True] * images.size}, "data"),
        ({"datatype": "FP32"}, "malformed"),
    ]
    for wrong, code in wrongs:
        bad = json.dumps({"inputs": [tensor | wrong]}).encode()
        assert error(here.ask("POST", f"/v2/models/{name}/infer", bad)) == (422, code)
    assert error(here.ask("GET", "/v2/models/other")) == (404, "unknown model")
    version = here.ask("GET", f"/v2/models/{name}")[2]["versions"][0]
    assert here.ask("POST", f"/v2/models/{name}/versions/{version}/infer", ask)[2] == reply
    assert here.ask("GET", f"/v2/models/{name}/versions/{version}/ready")[0] == 200
    assert error(here.ask("GET", f"/v2/models/{name}/versions/1")) == (404, "unknown version")
    one = json.dumps({"inputs": [tensor], "outputs": [{"name": "probabilities"}]}).encode()
    assert here.ask("POST", f"/v2/models/{name}/infer", one)[2]["outputs"] == reply["outputs"][1:]
    for more, code in (
        ({"outputs": [{"name": "nope"}]}, "malformed"),
        ({"outputs": [{"name": "logits", "parameters": {"binary_data": True}}]}, "binary"),
        ({"parameters": {"binary_data_output": True}}, "binary"),
    ):
        bad = json.dumps({"inputs": [tensor], **more}).encode()
        assert error(here.ask("POST", f"/v2/models/{name}/infer", bad)) == (422, code)


def test_metrics_count_and_name_nobody(here: Running, image: bytes) -> None:
    here.post(image)
    here.post(b"hello")
    text = here.ask("GET", "/metrics")[2].decode()
    assert 'xlite_requests_total{address="/v1/predict",status="200"}' in text
    assert 'xlite_refused_images_total{code="damaged"}' in text
    assert "xlite_decisions_total{decision=" in text or "xlite_decisions_total{finding=" in text


def test_what_is_unlike_the_training_images_is_flagged_or_refused(folder: Path, tmp_path: Path) -> None:
    paths = [drawn(tmp_path / f"{row}.png", row) for row in range(80)]
    of = Predictor.open(folder)
    domain = fit_domain(np.array([of.prepared(path) for path in paths]), [str(row) for row in range(80)])
    assert domain is not None
    negative = cv2.imencode(".png", 255 - gray(paths[0]))[1].tobytes()
    for strict in (False, True):
        with running(folder, strict=strict) as here:
            here.service.engine.domain = domain
            reply = here.post(negative)
            if strict:
                assert error(reply) == (422, "inverted")
            else:
                assert [flag["code"] for flag in reply[2]["flags"]] == ["inverted"]
            assert here.post(paths[1].read_bytes())[2].get("flags", []) == []


def test_openapi_has_every_address(here: Running) -> None:
    about = here.ask("GET", "/openapi.json")[2]
    assert {"/v1/predict", "/v1/predict-batch", "/metrics", "/v2/models/{model}/infer"} <= set(about["paths"])
    assert "example" in json.dumps(about["paths"]["/v1/predict"]["post"]["responses"]["422"])


def test_the_page_asks_nobody_else(here: Running) -> None:
    status, headers, page = here.ask("GET", "/")
    assert status == 200 and b"Not for clinical use" in page
    assert (
        "default-src 'none'" in headers["content-security-policy"]
        and "unsafe" not in headers["content-security-policy"]
    )
    assert b"http://" not in page and b"https://" not in page

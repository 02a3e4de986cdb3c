"""Two thousand requests of all kinds at once: none is lost, none is wrong, each is what `predict` says to the bit."""

from __future__ import annotations

import base64
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import malformed
import numpy as np
import pytest
from exported import drawn, gray, handmade
from test_serve import Running, error, running

from xlite_search.deploy.predict import Predictor

CLIENTS, KINDS = 16, 24
Check = Callable[[Running], bool]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(handmade(tmp_path_factory.mktemp("exported"))) as found:
        yield found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """PNG, JPEG and DICOM files of different images, and some that are no use."""
    home, found = tmp_path_factory.mktemp("files"), list[Path]()
    for row in range(KINDS):
        path = drawn(home / f"{row}.png", row)
        plane = gray(path)
        if row % 3 == 1:
            path = home / f"{row}.jpg"
            cv2.imwrite(str(path), plane)
        elif row % 3 == 2:
            path = home / f"{row}.dcm"
            path.write_bytes(malformed.dicom(Rows=plane.shape[0], Columns=plane.shape[1], PixelData=plane.tobytes()))
        found.append(path)
    bad = home / "bad.png"
    bad.write_bytes(found[0].read_bytes()[:300])
    return [*found, bad]


def logits(reply: dict[str, Any]) -> list[np.float32]:
    return [np.float32(each["logit"]) for each in reply["findings"]]


def single(body: bytes, expected: list[float]) -> Check:
    def check(here: Running) -> bool:
        reply = here.post(body)
        while reply[0] == 503:  # the queue is full, and says when to come again
            reply = here.post(body)
        return logits(reply[2]) == expected if expected else error(reply) == (422, "damaged")

    return check


def lines(bodies: list[bytes], expected: list[list[float]]) -> Check:
    content = b"\n".join(
        json.dumps({"name": str(row), "image": base64.b64encode(body).decode()}).encode()
        for row, body in enumerate(bodies)
    )

    def check(here: Running) -> bool:
        reply = here.ask("POST", "/v1/predict-batch", content)
        while reply[0] == 503:
            reply = here.ask("POST", "/v1/predict-batch", content)
        found = [json.loads(line) for line in reply[2].splitlines()]
        return [each["name"] for each in found] == [str(row) for row in range(len(bodies))] and all(
            logits(each["reply"]) == row if row else each["error"]["code"] == "damaged"
            for each, row in zip(found, expected, strict=True)
        )

    return check


def tensor(name: str, images: np.ndarray[Any, np.dtype[np.uint8]], expected: list[list[float]]) -> Check:
    about = {"name": "images", "shape": list(images.shape), "datatype": "UINT8", "data": images.ravel().tolist()}
    content = json.dumps({"inputs": [about]}).encode()

    def check(here: Running) -> bool:
        reply = here.ask("POST", f"/v2/models/{name}/infer", content)
        while reply[0] == 503:
            reply = here.ask("POST", f"/v2/models/{name}/infer", content)
        return [np.float32(each) for each in reply[2]["outputs"][0]["data"]] == [
            each for row in expected for each in row
        ]

    return check


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_answer_is_wrong_or_lost(here: Running, files: list[Path], count: int) -> None:
    predictor, rng = Predictor.open(here.service.folder), random.Random(0)
    answers = {file: predictor.of_file(file).logits.tolist() for file in files}
    good = [file for file in files if answers[file]]
    prepared = {file: predictor.prepared(file) for file in good}

    def drawn_check() -> Check:
        kind = rng.choices(["single", "lines", "tensor"], [8, 1, 1])[0]
        if kind == "single":
            file = rng.choice(files)
            return single(file.read_bytes(), answers[file])
        some = rng.sample(files if kind == "lines" else good, 4)
        if kind == "lines":
            return lines([file.read_bytes() for file in some], [answers[file] for file in some])
        return tensor(here.service.name, np.stack([prepared[file] for file in some]), [answers[file] for file in some])

    checks, found, lock = iter([drawn_check() for _ in range(count)]), Counter[str](), threading.Lock()

    def client(_: int) -> None:
        while True:
            with lock:
                check = next(checks, None)
            if check is None:
                return
            try:
                said = "right" if check(here) else "wrong"
            except (OSError, ValueError, KeyError):
                said = "lost"
            with lock:
                found[said] += 1

    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))
    print(f"{dict(found)} in {time.monotonic() - began:.1f} s")
    assert found == {"right": count} and here.service.engine.at_work == here.service.bodies.held == 0

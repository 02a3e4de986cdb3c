"""Nothing that we start listens beyond this machine, and MLflow's pages answer no page of somebody else."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from xlite_search.tracking import store

ROOT = Path(__file__).parents[1]
LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


def listening(process: psutil.Process) -> list[tuple[str, int]]:
    """Addresses on which a process and all below it listen."""
    found: list[tuple[str, int]] = []
    for each in (process, *process.children(recursive=True)):
        try:
            open_ones = [c for c in each.net_connections("inet") if c.status == psutil.CONN_LISTEN]
            found += [(str(c.laddr.ip), int(c.laddr.port)) for c in open_ones]
        except psutil.Error:
            continue
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def pages() -> Iterator[tuple[psutil.Process, int]]:
    """`ui`, answering, and its port."""
    store.connect().create_experiment("looked at")
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "xlite_search", "ui", "--port", str(port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    process = psutil.Process(server.pid)
    try:
        deadline = time.monotonic() + 90
        while answer(port, "GET", "/health")[0] != 200:
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        yield process, port
    finally:
        for each in (*process.children(recursive=True), process):
            each.kill()
        server.communicate()


def answer(port: int, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
    """Status and text; 0 where nobody answers yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, response.read().decode()
    except ConnectionError:
        return 0, ""
    finally:
        connection.close()


def test_pages_are_for_this_machine_and_for_no_other_site(pages: tuple[psutil.Process, int]) -> None:
    process, port = pages
    assert {host for host, _ in listening(process)} == {"127.0.0.1"}
    search, asked = "/api/2.0/mlflow/experiments/search", json.dumps({"max_results": 10})
    status, text = answer(port, "POST", search, asked)
    assert status == 200 and "looked at" in text
    assert answer(port, "POST", search, asked, Host=f"localhost:{port}")[0] == 200
    assert answer(port, "POST", search, asked, Origin=f"http://localhost:{port}")[0] == 200
    for foreign in ({"Host": "evil.example"}, {"Host": f"evil.example:{port}"}, {"Origin": "http://evil.example"}):
        status, text = answer(port, "POST", search, asked, **foreign)
        assert status == 403 and "looked at" not in text, foreign
    assert answer(port, "GET", "/", Host="evil.example")[0] == 403
    made = json.dumps({"name": "theirs"})
    assert answer(port, "POST", "/api/2.0/mlflow/experiments/create", made, Origin="http://evil.example")[0] == 403
    assert "theirs" not in answer(port, "POST", search, asked)[1]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_here")
def test_ray_listens_on_this_machine_only() -> None:
    found = listening(psutil.Process())
    assert found
    assert {host for host, _ in found} <= set(LOOPBACK), sorted(set(found))

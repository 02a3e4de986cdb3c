"""The Orthanc plugin: what is stored is sent to the service, and its reply is kept beside the instance."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from exported import handmade
from test_container import CONTAINER

SCRIPT = CONTAINER / "orthanc_xlite.py"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancPython.so")


#: what is said before the service replies: by itself, and by a proxy
FIRST = (
    (503, b'{"error": {"code": "busy"}}'),
    (502, b"<html>Bad Gateway</html>"),
    (504, b'{"message": "timeout"}'),
    (200, b"<html>Sign in</html>"),
    (500, b""),
)


class Service(BaseHTTPRequestHandler):
    """Says what `first` has; then it replies with what it was asked."""

    asked: list[tuple[str | None, bytes]]
    first: list[tuple[int, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.headers["Authorization"], body))
        own = (422 if body == b"bad" else 200, b'{"of": "' + body + b'"}')
        status, reply = self.first.pop(0) if self.first else own
        self.send_response(status)
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def service() -> Iterator[int]:
    Service.asked, Service.first = [], list(FIRST)
    own = HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=own.serve_forever)
    thread.start()
    yield own.server_port
    own.shutdown()
    thread.join()
    own.server_close()


def waited(for_: Callable[[], Any], seconds: float = 20) -> Any:
    """What it gives once that is something."""
    until = time.monotonic() + seconds
    while not (found := for_()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def test_a_stored_radiograph_gets_its_reply_and_other_modalities_are_not_sent(
    service: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"1": b"good", "large": bytes((32 << 20) + 1), "2": b"bad"}
    kept, failed, stored = dict[str, bytes](), list[str](), list[Any]()
    orthanc = SimpleNamespace(
        RestApiGet=lambda path: files[path.split("/")[2]],
        RestApiPut=kept.__setitem__,
        LogError=failed.append,
        RegisterOnStoredInstanceCallback=stored.append,
    )
    monkeypatch.setitem(sys.modules, "orthanc", orthanc)
    monkeypatch.setenv("XLITE_URL", f"http://127.0.0.1:{service}/")
    monkeypatch.setenv("XLITE_TOKEN", "secret")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    made = runpy.run_path(str(SCRIPT))
    made["answer"].__globals__["PAUSE"] = 0
    came = (("1", "CR"), ("gone", "DX"), ("ct", "CT"), ("teeth", "PX"), ("large", "DX"), ("2", "RG"))
    for instance, modality in came:
        tags = json.dumps({"Modality": modality})
        stored[0](SimpleNamespace(GetInstanceSimplifiedJson=lambda tags=tags: tags), instance)
    waited(lambda: len(kept) == 3)
    large = json.loads(kept.pop("/instances/large/metadata/xlite"))
    assert large == {"error": {"code": "too large", "sentence": "the file is larger than 32 MiB"}}
    assert kept == {"/instances/1/metadata/xlite": b'{"of": "good"}', "/instances/2/metadata/xlite": b'{"of": "bad"}'}
    assert [each[1] for each in Service.asked] == [b"good"] * 6 + [b"bad"], "asked again while it was busy"
    assert {each[0] for each in Service.asked} == {"Bearer secret"}
    assert failed == ["xlite: gone: 'gone'"]
    made["answer"].__globals__["TRIES"] = 2
    for status, reply in FIRST:  # and nothing else, ever: what a proxy says is no reply
        Service.first = [(status, reply)] * 2
        if status == 503:
            assert made["asked"](b"good") == reply
        else:
            with pytest.raises(RuntimeError, match=f"no reply in 2 tries: HTTP {status}"):
                made["asked"](b"good")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def got(address: str, body: bytes | None = None) -> Any:
    """The JSON there; None if there is none yet."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body), timeout=10) as reply:
            return json.load(reply)
    except (urllib.error.URLError, ValueError):
        return None


@pytest.mark.slow
def test_orthanc_itself(shared: Path, tmp_path: Path) -> None:
    if shutil.which("Orthanc") is None or not PLUGIN.is_file():
        pytest.skip("not installed: apt-get install orthanc orthanc-python")
    home, service = free_port(), free_port()
    about = {"StorageDirectory": "db", "IndexDirectory": "db", "HttpPort": home, "DicomServerEnabled": False}
    about |= {"AuthenticationEnabled": False, "RemoteAccessAllowed": False, "UserMetadata": {"xlite": 4200}}
    about |= {"Plugins": [str(PLUGIN)], "PythonScript": str(SCRIPT)}
    (tmp_path / "orthanc.json").write_text(json.dumps(about))
    environment = os.environ | {"XLITE_URL": f"http://127.0.0.1:{service}", "XLITE_TOKEN": "secret"}
    model = str(handmade(tmp_path / "m"))
    serve = [sys.executable, "-m", "xlite_search", "serve", model, "--port", str(service)]
    running = [
        subprocess.Popen(command, env=environment, cwd=tmp_path) for command in (serve, ["Orthanc", "orthanc.json"])
    ]
    try:
        here = f"http://127.0.0.1:{home}"
        waited(lambda: got(f"{here}/system"), 60)
        body = (shared / "data" / "dicom" / "chest_monochrome2.dcm").read_bytes()
        instance = got(f"{here}/instances", body)["ID"]
        reply = waited(lambda: got(f"{here}/instances/{instance}/metadata/xlite"), 60)
        print(reply["kind"], reply["findings"])
        assert reply["kind"] == "DICOM" and len(reply["findings"]) == 2
    finally:
        for process in running:
            process.terminate()
    assert [process.wait(30) for process in running] == [0, 0]

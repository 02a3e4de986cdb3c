"""The image of the service, as its files say it: what it installs is what is needed, and what it runs as."""

from __future__ import annotations

import http.client
import json
import os
import re
import runpy
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from exported import drawn, handmade
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CONTAINER = ROOT / "container"
OWN = "xlite-search"
#: put before every other module of a process and of its children: a package that the image does not have is not there
ABSENT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"the image has no {{name}}", name=name)
sys.meta_path.insert(0, Absent())
"""


class Ready(BaseHTTPRequestHandler):
    """The service, as its health check asks it."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/v2/health/ready" else 404)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


def installed() -> list[str]:
    """Names of what the image has."""
    lines = (CONTAINER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line]


def of_yaml(name: str) -> Any:
    return yaml.safe_load((CONTAINER / name).read_text(encoding="utf-8"))


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that finds the image's packages, and no other."""
    there = {*installed(), OWN}
    missing = {
        module
        for module, owners in packages_distributions().items()
        if not there & {canonicalize_name(owner) for owner in owners}
    }
    assert {"torch", "ray", "mlflow", "timm", "yaml"} <= missing
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "sitecustomize.py").write_text(ABSENT.format(missing=missing))
    return os.environ | {"PYTHONPATH": str(tmp_path / "first")}


def test_requirements_are_made_of_the_constraints() -> None:
    made = runpy.run_path(str(CONTAINER / "requirements.py"))
    assert (CONTAINER / "requirements.txt").read_text(encoding="utf-8") == made["text"](), (
        "python container/requirements.py"
    )
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f'"{name}>=' in project for name in (*made["NEEDED"], *made["EXTRAS"]))


def test_predict_needs_no_more_than_the_image_has(bare: dict[str, str], tmp_path: Path) -> None:
    folder, image = handmade(tmp_path / "m"), drawn(tmp_path / "x.png")
    command = [sys.executable, "-m", "xlite_search", "predict", str(folder), str(image), "--selftest", "--csv"]
    done = subprocess.run(command, env=bare, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("file,finding,") and "1 known answers" in done.stderr


def test_serve_needs_no_more_than_the_image_has(bare: dict[str, str], tmp_path: Path, shared: Path) -> None:
    bodies = [drawn(tmp_path / "x.png"), *sorted((shared / "data" / "dicom").glob("chest_*.dcm"))]
    command = [sys.executable, "-m", "xlite_search", "serve", str(handmade(tmp_path / "m")), "--port", "0"]
    with subprocess.Popen(command, env=bare, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            port = int(service.stdout.readline().split(" serves")[0].rpartition(":")[2])
            addresses = ("/v1/predict", "/v1/predict?explain=Mass&image=true")
            assert [asked(port, address, body) for body in bodies for address in addresses] == [200] * 2 * len(bodies)
            assert asked(port, "/metrics") == 200
        finally:
            service.terminate()
    assert service.returncode == 0


def asked(port: int, address: str, body: Path | None = None) -> int:
    """The status of the reply."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST" if body else "GET", address, body.read_bytes() if body else None)
    status = connection.getresponse().status
    connection.close()
    return status


def test_the_image_names_no_registry_and_runs_as_nobody() -> None:
    lines = (CONTAINER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("FROM")] == ["FROM ${BASE} AS build", "FROM ${BASE}"]
    assert "ARG BASE" in lines and "USER 10001:10001" in lines
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    for file in CONTAINER.iterdir():
        if file.is_file():
            assert not re.search(r"[a-z]\.(io|com|org|dev)\b", file.read_text(encoding="utf-8")), file


def test_the_health_check_uses_no_proxy() -> None:
    text = (CONTAINER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    (line,) = [line for line in text.splitlines() if line.startswith("HEALTHCHECK")]
    _, *arguments = json.loads(line.partition("CMD ")[2])
    with HTTPServer(("127.0.0.1", 0), Ready) as ready:
        threading.Thread(target=ready.handle_request, daemon=True).start()
        command = [each.replace(":8000", f":{ready.server_port}") for each in arguments]
        environment = os.environ | {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
        subprocess.run([sys.executable, *command], env=environment, check=True, timeout=60)


def test_the_example_takes_away_what_the_service_does_not_need() -> None:
    services = of_yaml("compose.yaml")["services"]
    for name, about in services.items():
        assert about["read_only"] is True and about["cap_drop"] == ["ALL"], name
        assert about["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in about["ports"]), name
        assert all(volume.endswith(":ro") or volume.startswith("figures:") for volume in about["volumes"]), name
    assert services["xlite"]["environment"]["XLITE_TOKEN"].startswith("${XLITE_TOKEN:?")
    (scraped,) = of_yaml("prometheus.yml")["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": ["xlite:8000"]}]
    assert scraped["authorization"]["credentials_file"] in str(services["prometheus"])

"""docs/service.md: its commands work, and its limits are those of the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from exported import drawn, handmade
from test_serve import running

from xlite_search.deploy import watch
from xlite_search.deploy.serve import batch, bodies, decoders, engine, guard, protocol, server, service

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")


def test_every_curl_command_of_the_page_works(tmp_path: Path, shared: Path) -> None:
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("no curl")
    lines = [line.strip() for line in PAGE.splitlines() if re.match(r" {4}(curl|printf) ", line)]
    assert len(lines) == 8
    drawn(tmp_path / "image.png")
    shutil.copy(shared / "data" / "dicom" / "chest_monochrome2.dcm", tmp_path / "image.dcm")
    with running(handmade(tmp_path / "m"), token="secret") as here:
        script = "\n".join(lines).replace(":8000", f":{here.port}").replace("explain=Effusion", "explain=Mass")
        home = tmp_path / ".curlrc"  # the page's service has no token
        home.write_text('header = "Authorization: Bearer secret"\n')
        environment = os.environ | {"XLITE_TOKEN": "secret", "CURL_HOME": str(tmp_path)}
        done = subprocess.run(
            ["bash", "-euc", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.count('"notice":"Not for clinical use."') + done.stdout.count('"notice": "Not for') == 4
    assert "xlite_requests_total" in done.stdout and '"overlay":{"finding":"Mass"' in done.stdout


@pytest.mark.parametrize(
    ("of", "limit"),
    [
        ("a body", f"{guard.LARGEST >> 20} MiB"),
        ("all bodies at once", f"{guard.ROOM >> 20} MiB"),
        ("a slow body", f"{guard.PAUSE:g} s, and a second for every {guard.RATE >> 10} KiB"),
        ("the head of a request", f"{server.HEAD:g} s"),
        ("requests that wait", f"{engine.WAITING}"),
        ("a request in all", f"{engine.DEADLINE:g} s"),
        ("batches at once", f"{batch.BATCHES}"),
        ("maps that wait", f"{service.MAPS}"),
        ("images of a V2 request", f"1 to {protocol.MOST}"),
        ("a line of a batch beside its image", f"{batch.REST_OF_LINE >> 10} KiB"),
        ("answers that nobody reads", f"{server.UNREAD >> 20} MiB for {server.STALLED:g} s"),
        ("decoding an image, wall time", f"{decoders.SECONDS:g} s"),
        ("decoding an image, processor time", f"{decoders.SECONDS:g} s"),
        ("decoding an image, memory", f"{decoders.MEMORY >> 20} MiB"),
        ("the end, after a signal", f"{server.ENDING} s"),
    ],
)
def test_a_limit_is_that_of_the_code(of: str, limit: str) -> None:
    assert f"\n| {of} | {limit} |" in PAGE


def test_what_the_page_says_of_files_and_syntaxes_is_so() -> None:
    assert "1.2.840.10008.1.2.1.99" not in bodies.SYNTAXES, "deflated files are refused"
    assert watch.EVERY == 2 and all(ending in PAGE for ending in watch.UNFINISHED)
    assert watch.TABLE in PAGE

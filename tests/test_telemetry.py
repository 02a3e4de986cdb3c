"""Nothing that answers for a radiograph tells anybody: onnxruntime's telemetry is off before it is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from exported import drawn, handmade


@pytest.mark.skipif(sys.platform == "win32", reason="looks below a home that HOME names")
def test_onnxruntime_keeps_no_id_and_no_events(tmp_path: Path) -> None:
    home, folder, image = tmp_path / "home", handmade(tmp_path / "m"), drawn(tmp_path / "x.png")
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    command = [sys.executable, "-m", "xlite_search", "predict", str(folder), str(image)]
    subprocess.run(command, env=kept | {"HOME": str(home)}, cwd=tmp_path, check=True, capture_output=True)
    assert [path for path in home.rglob("*") if path.is_file()] == []

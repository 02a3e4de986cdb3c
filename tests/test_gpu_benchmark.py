"""benchmarks/gpu.py on a CPU: the code that a GPU is to run, on tiny images and models."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import figures
import pytest
import recording
import torch

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is visible: run the benchmark itself")

#: as `python -m benchmarks.gpu`, and then a look at what was imported
MODULE = """
import runpy, sys
sys.argv = ["gpu.py", "--quick", "--cpu", "--check"]
runpy.run_module("benchmarks.gpu", run_name="__main__")
assert not {"ray", "mlflow"} & sys.modules.keys()
"""


def written() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in recording.RECORDS.glob("*")}


@pytest.mark.timeout(900)
def test_every_switch_and_check_runs_on_a_cpu_without_ray_and_mlflow() -> None:
    before = written()
    ran = subprocess.run(
        [sys.executable, "-c", MODULE], cwd=recording.ROOT, capture_output=True, text=True, timeout=850, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert written() == before
    said = ran.stdout.splitlines()
    assert said[0].startswith("gpu none, driver none, ") and f"torch {torch.__version__.partition('+')[0]}" in said[0]
    record = figures.Record("gpu", json.loads(said[-1]))
    placeholders = re.findall(r"{gpu\.[^}]*}", figures.TEMPLATE.read_text(encoding="utf-8"))
    assert placeholders and all(placeholder.format(gpu=record) for placeholder in placeholders)
    assert record.oom_halved.held == record.resume_difference.held == record.stored_difference.held == "held"


@pytest.mark.parametrize(("options", "code"), [([], 0), (["--check"], 2)])
def test_without_a_gpu_it_says_so_in_a_sentence(options: list[str], code: int) -> None:
    command = [sys.executable, "benchmarks/gpu.py", *options]
    ran = subprocess.run(command, cwd=recording.ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert (ran.returncode, ran.stdout.count("\n")) == (code, 1), ran.stderr[-2000:]
    assert ran.stdout.startswith("skipped: torch sees no GPU here; ")

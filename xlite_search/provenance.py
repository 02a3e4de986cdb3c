"""Provenance: code, commit, library versions and machine, written down with every study and model."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
DIRTY = "-dirty"
LIBRARIES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "opencv-python-headless",
    "albumentations",
    "ray",
    "optuna",
    "mlflow",
    "pydantic",
    "safetensors",
)


#: ... whose version can change what a run, or a trained model, gives
RESULT_LIBRARIES = ("torch", "timm", "numpy", "opencv-python-headless", "albumentations")


def libraries() -> dict[str, str]:
    """Versions of the libraries that can change a result."""
    return {name: version_of(name) for name in RESULT_LIBRARIES}


def version_of(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def of_training(maker: str) -> dict[str, Any]:
    """What made a model, for its manifest: commit, trainable and its code (`trainable.maker`), libraries."""
    return {"commit": git_commit(), "trained_by": maker, "libraries": libraries()}


def git_commit() -> str:
    """The checkout's commit, with `-dirty` if tracked files differ from it; empty outside a checkout."""
    command = ["git", "-C", str(PACKAGE), "describe", "--always", f"--dirty={DIRTY}", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


@functools.cache
def environment() -> dict[str, str]:
    """Versions and machine, as strings; looked up once in a process."""
    import torch

    found = {"python": platform.python_version(), "platform": platform.platform(), "cores": str(os.cpu_count())}
    for library in LIBRARIES:
        found[library] = version_of(library)
    found["cpu"] = _cpu()
    found["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    found["driver"] = _driver() if torch.cuda.is_available() else "none"
    found["cuda"] = str(torch.version.cuda or "none")
    found["cudnn"] = str(torch.backends.cudnn.version() or "none")  # type: ignore[no-untyped-call]
    return found


def _cpu() -> str:
    """The processor's name; its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _driver() -> str:
    """The NVIDIA driver's version."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.SubprocessError):
        return "unknown"

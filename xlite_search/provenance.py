"""Which code, on which machine: written down with every study and model."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

PACKAGE = Path(__file__).parent
#: the parts of the package whose code can change a run's result
RESULT_PARTS = ("data", "models", "training", "distill")
#: ... but for what only makes the prepared pixels, whose own fingerprint stands in every run's key, and what only tells
WITHOUT_EFFECT = (
    "data/sources/",
    "data/prepare.py",
    "data/decoding.py",
    "data/processes.py",
    "data/unfinished.py",
    "data/integrity.py",
    "data/audit.py",
    "training/balance.py",
    "training/environment.py",
    "models/cost.py",
)
DIRTY = "-dirty"
LIBRARIES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "opencv-python-headless",
    "ray",
    "mlflow",
    "pydantic",
    "safetensors",
)


def code_version(trainable_file: Path) -> str:
    """Hash of the syntax trees of all code that can change a result, docstrings left out.

    A finding written into a docstring, a comment or a reformatted line changes nothing.
    """
    files = [path for part in RESULT_PARTS for path in sorted((PACKAGE / part).rglob("*.py"))]
    named = [(path.relative_to(PACKAGE).as_posix(), path) for path in files]
    named = [(name, path) for name, path in named if not name.startswith(WITHOUT_EFFECT)]
    named += [(path.name, path) for path in _neighbours(trainable_file)]
    sha = hashlib.sha256()
    for name, path in named:
        sha.update(f"{name}\n{_tree(path, path.stat().st_mtime_ns)}\n".encode())
    return sha.hexdigest()[:16]


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
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "not installed"
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


def _neighbours(trainable_file: Path) -> list[Path]:
    """The trainable's own file, and the others of `trainables/` that it may build on."""
    if trainable_file.parent.name == "trainables":
        return sorted(trainable_file.parent.glob("*.py"))
    return [trainable_file]


@functools.cache
def _tree(path: Path, modified: int) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return ast.dump(tree)

"""What the image of the service installs: container/requirements.txt, made of constraints.txt.

    python container/requirements.py

The package's own dependencies train models; the service needs few of them. What is imported was measured
(tests/test_container.py takes everything else away and asks a model); what these need in turn is their own word.
"""

from __future__ import annotations

from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).absolute().parent
CONSTRAINTS, WRITTEN = HERE.parent / "constraints.txt", HERE / "requirements.txt"
#: what `predict` and `serve` import: of the package's dependencies, and of its extras `dicom` and `serve`
NEEDED = ("filelock", "numpy", "opencv-python-headless", "psutil", "pydantic", "typer")
EXTRAS = ("pillow", "pydicom", "fastapi", "onnxruntime", "prometheus-client", "uvicorn")
HEAD = "# Made by `python container/requirements.py` of constraints.txt: change that.\n"


def closure() -> list[str]:
    """Names of the packages that are needed, and of those that they need."""
    found, left = set[str](), [*NEEDED, *EXTRAS]
    while left:
        name = canonicalize_name(left.pop())
        if name not in found:
            found.add(name)
            asked = [Requirement(line) for line in requires(name) or ()]
            left += [each.name for each in asked if each.marker is None or each.marker.evaluate({"extra": ""})]
    return sorted(found)


def text() -> str:
    """The file: a line for each, of the version that the tests ran with."""
    lines = [line.strip() for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if "==" in line]
    pinned: dict[str, str] = {canonicalize_name(line.partition("==")[0]): line for line in lines}
    return HEAD + "".join(f"{pinned[name]}\n" for name in closure())


if __name__ == "__main__":
    WRITTEN.write_bytes(text().encode())
    print(f"wrote {WRITTEN.name}")

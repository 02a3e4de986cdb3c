"""What a delivered model costs, as facts of its card: files, training, milliseconds of an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from xlite_search.deploy.delivered import Delivered, verb
from xlite_search.deploy.folder import ONNX, WEIGHTS
from xlite_search.records import RunRecord


def cost(of: Delivered) -> dict[str, Any]:
    files = {name: _bytes(folder / WEIGHTS for folder in of.folders) for name in (WEIGHTS,)}
    if of.home:
        files |= {path.name: path.stat().st_size for path in (of.home / WEIGHTS, of.home / ONNX)}
    found: dict[str, Any] = {"files": files, "training": _training(of.folders)}
    if of.exported is None:
        of.missing["latency"] = (
            f"Time for an image is not measured here. {verb(f'export {of.folder.name} -o DIR')} measures it."
        )
        return found
    return found | {"latency": of.exported.latency, "parity": of.exported.parity, "int8": of.exported.int8}


def _bytes(paths: Iterator[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def _training(folders: Sequence[Path]) -> dict[str, Any] | None:
    """Epochs, seconds and watt-hours of all trainings; None where their records are not here."""
    if not all((folder / "run.json").is_file() for folder in folders):
        return None
    epochs = [each for folder in folders for each in RunRecord.load(folder).epochs]
    energy = [each["energy/gpu_wh"] for each in epochs if "energy/gpu_wh" in each]
    seconds = sum(each.get("time/epoch_s", 0.0) for each in epochs)
    return {
        "epochs": len(epochs),
        "seconds": seconds,
        "gpu_wh": sum(energy) if len(energy) == len(epochs) > 0 else None,
    }

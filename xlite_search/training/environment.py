"""Environment of a run: `environment.json` among its artifacts, with versions, machine, data and class weights.

run      key, config hash, seed, threads, precision; images and positives of each finding; what its loss weighs them
starts   the machine, versions, determinism and code of its epochs from the first on, and from each where they changed
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from xlite_search import provenance
from xlite_search.data.dataset import Data
from xlite_search.records import ARTIFACTS, RunRecord
from xlite_search.storage import write_atomic
from xlite_search.training.recipe import Recipe

FILE = "environment.json"


def write_artifacts(record: RunRecord, config_hash: str, recipe: Recipe, data: Data) -> None:
    """Writes the file beside a run that begins, or that goes on after the epochs its record has.

    `config_hash` is the run's key, `config.run_key`; a final training's record goes by the name of its folder instead.
    """
    path = record.folder / ARTIFACTS / FILE
    here, first = _here() | ({"micro_batch": record.micro_batch} if record.micro_batch else {}), len(record.epochs) + 1
    starts = _starts(path, first)
    if not starts or {**starts[-1], "from_epoch": first} != {"from_epoch": first} | here:
        starts.append({"from_epoch": first} | here)
    run = {"key": record.key, "config_hash": config_hash} | _run(recipe, data)
    write_atomic(path, json.dumps({"run": run, "starts": starts}, indent=1).encode())


def _starts(path: Path, first: int) -> list[dict[str, Any]]:
    """The starts of epochs before `first`: later ones are trained anew. A file that nobody can read says nothing."""
    try:
        return [start for start in json.loads(path.read_bytes())["starts"] if start["from_epoch"] < first]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def _run(recipe: Recipe, data: Data) -> dict[str, Any]:
    weights = recipe.loss.pos_weight(data.train.positives, len(data.train))
    given = weights.tolist() if weights is not None else [None] * len(data.classes)
    counts = zip(data.train.labels.sum(axis=0), data.val.labels.sum(axis=0), given, strict=True)
    return {
        "seed": recipe.seed,
        "threads": recipe.threads,
        "precision": recipe.precision,
        "data": data.packed.fingerprint,
        "split": data.split.fingerprint,
        "images": {"train": len(data.train), "val": len(data.val)},
        "findings": {
            name: {"train": int(train), "val": int(val), "pos_weight": weight}
            for name, (train, val, weight) in zip(data.classes, counts, strict=True)
        },
    }


def _here() -> dict[str, Any]:
    import torch

    commit = provenance.git_commit()
    return {
        "machine": provenance.environment(),
        "determinism": {
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn.deterministic": torch.backends.cudnn.deterministic,
            "cudnn.benchmark": torch.backends.cudnn.benchmark,
            "cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
            "cuda.matmul.allow_tf32": torch.backends.cuda.matmul.allow_tf32,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
        },
        "code": {
            "commit": commit.removesuffix(provenance.DIRTY),
            "dirty": commit.endswith(provenance.DIRTY) if commit else None,
        },
    }

"""A delivered model on disk: weights and a manifest in a folder, read and written here alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from xlite_search import storage
from xlite_search.data.dataset import Data
from xlite_search.errors import BadInput, Damaged
from xlite_search.models.hybrid import Hybrid, build_model, parameters
from xlite_search.records import RunRecord
from xlite_search.training.losses import Loss

WEIGHTS, MANIFEST = "model.safetensors", "model.json"

#: what a pixel is, by the number of channels
PIXELS = {1: "uint8 gray", 3: "uint8 RGB"}
#: how many of the weights that do not fit are named
NAMED = 3


def read_model(folder: Path) -> dict[str, Any]:
    """A model folder's manifest, its weights checked against it.

    Raises:
        BadInput: this is no model folder.
        Damaged: the manifest is damaged, or the weights are not its.
    """
    try:
        about = storage.read_manifest(folder / MANIFEST)
    except FileNotFoundError:
        raise BadInput(f"{folder} is not a model folder (no {MANIFEST} in it)") from None
    if "members" in about:
        for member in about["members"]:
            read_model(folder.parent / member)
        return about
    if not (folder / WEIGHTS).is_file() or storage.sha256_of(folder / WEIGHTS) != about["sha256"]:
        raise Damaged(f"{folder / WEIGHTS} is missing or is not the file that {MANIFEST} names")
    return about


def input_of(data: Data) -> dict[str, Any]:
    """What a data set's images are, every setting of it: a teacher of others would answer, and be wrong."""
    return {**data.packed.preprocess.describe(), "pixels": PIXELS.get(data.packed.channels, "uint8")}


def trained_on(data: Data, patients: list[str]) -> dict[str, Any]:
    """Whom a teacher has seen. Patient 7 of one source of images is not patient 7 of another."""
    return {"source": data.packed.manifest["source"], "patients": patients}


def write_model(folder: Path, weights: bytes, about: dict[str, Any]) -> str:
    """Leaves a model folder; returns the weights' sha256. The manifest comes last: without it there is no model."""
    sha256 = storage.write_atomic(folder / WEIGHTS, weights)
    storage.write_manifest(folder / MANIFEST, about | {"sha256": sha256})
    return sha256


def expect_loadable(record: RunRecord, classes: int) -> Hybrid:
    """The model that a run's config builds, on torch's meta device: its best weights are this model's.

    Raises:
        BadInput: they are not, because its trainable built another one; the sentence names the strangers.
        Damaged: they are not what was written.
    """
    name = str(record.config["model"])
    with torch.device("meta"):
        model = build_model(name, classes=classes)
    wanted = {key: tensor.shape for key, tensor in model.state_dict().items()}
    given = {key: tensor.shape for key, tensor in safetensors.torch.load(record.weights()).items()}
    strangers, missing = sorted(given.keys() - wanted.keys()), sorted(wanted.keys() - given.keys())
    other = sorted(key for key in given.keys() & wanted.keys() if given[key] != wanted[key])
    found = [
        f"{len(keys)} that {what} ({', '.join(keys[:NAMED])}{', ...' if len(keys) > NAMED else ''})"
        for keys, what in ((strangers, "it does not have"), (missing, "are missing"), (other, "have another shape"))
        if keys
    ]
    if found:
        raise BadInput(
            f"{record.label}: its weights are not those of a '{name}' with {classes} findings: {', '.join(found)}. "
            f"Nobody could load them; let weights_bytes of the EpochResults that its trainable yields have the "
            f"model's own weights alone, under its names (`part` says where they are, docs/own_trainable.md)"
        )
    return model


def publish(folder: Path, record: RunRecord, loss: Loss, data: Data, provenance: dict[str, Any]) -> str:
    """Makes a finished run's best epoch a model folder; returns the weights' sha256.

    Raises as `expect_loadable`; no folder is begun then.
    """
    model = expect_loadable(record, len(data.classes))
    weight = loss.pos_weight(data.train.positives, len(data.train))
    about = {
        "config": record.config,
        "run": record.key,
        "classes": list(data.classes),
        "input": input_of(data),
        "parameters": parameters(model),
        "pos_weight": weight.tolist() if weight is not None else None,
        "best_epoch": record.best.epoch if record.best else 0,
        "metrics": record.epochs[record.best.epoch - 1] if record.best else {},
        "data": {
            "name": data.packed.folder.name,
            "fingerprint": data.packed.fingerprint,
            "split": data.split.fingerprint,
        },
        "trained_on": trained_on(data, sorted({data.packed.table.groups[row] for row in data.train.rows})),
        "notice": data.packed.manifest["notice"],
        "provenance": provenance,
    }
    return write_model(folder, record.weights(), about)

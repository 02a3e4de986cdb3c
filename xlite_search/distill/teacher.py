"""A teacher: a trained model folder, loaded frozen and in eval mode.

A model folder holds `model.safetensors` and `model.json` (a manifest: config, classes, input size, pos_weight,
provenance, the weights' sha256). A study's teacher lives in `mlruns/teachers/<key>/`; a final training leaves the same
kind of folder in `mlruns/models/<name>/`, which can teach in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from xlite_search import places, storage
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


@dataclass(frozen=True)
class Teacher:
    """Answers in logits as they would be had it learned with no pos_weight; an ensemble in the mean of its members'.

    A pos_weight w moves a logit's optimum by log w; members that were weighed otherwise, and a student that is, would
    pull apart. `pos_weights` is what each member's own loss gave positives, `[class]`, or None.
    """

    models: tuple[Hybrid, ...]
    pos_weights: tuple[Tensor | None, ...]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 `[batch, channel, size, size]` -> float32 `[batch, class]`, in float32 inside autocast."""
        with torch.autocast(images.device.type, enabled=False):
            members = zip(self.models, self.pos_weights, strict=True)
            logits = [model(images).float() - (0 if w is None else torch.log(w)) for model, w in members]
        return torch.stack(logits).mean(dim=0)


def load_teacher(key: str, classes: tuple[str, ...], device: torch.device) -> Teacher:
    """The study's teacher by its key. It leaves torch's seed as it was: a student may be in the middle of an epoch.

    Raises:
        BadInput: there is no such teacher here, it knows other classes, or its weights are another model's.
        Damaged: its weights are not those of its manifest.
    """
    members = [places.teacher_folder(member) for member in read_model(places.teacher_folder(key)).get("members", [key])]
    models, pos_weights = [], []
    for folder in members:
        about = read_model(folder)
        if tuple(about["classes"]) != classes:
            raise BadInput(
                f"teacher {folder.name} knows other classes, or in another order ({', '.join(about['classes'])}), than "
                f"this data set has ({', '.join(classes)})"
            )
        with torch.random.fork_rng(devices=[]):
            model = build_model(about["config"]["model"], classes=len(classes))
        try:
            model.load_state_dict(safetensors.torch.load((folder / WEIGHTS).read_bytes()))
        except RuntimeError:
            raise BadInput(
                f"teacher {folder.name}: its weights are not those of a '{about['config']['model']}' with "
                f"{len(classes)} findings, which its manifest says it is"
            ) from None
        models.append(model.to(device).eval().requires_grad_(False))
        weight = about["pos_weight"]
        pos_weights.append(torch.tensor(weight, device=device) if weight is not None else None)
    return Teacher(tuple(models), tuple(pos_weights))


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


def write_ensemble(members: list[str]) -> str:
    """Several teachers, in whatever order, as one that answers in the mean of their logits; returns its key.

    Raises:
        BadInput: a member is not there, or they know other findings, or in another order.
    """
    members = sorted(members)
    abouts = [read_model(places.teacher_folder(member)) for member in members]
    if len({tuple(about["classes"]) for about in abouts}) > 1:
        raise BadInput("teacher: the members of the ensemble know other findings, or in another order")
    about = {
        "members": members,
        "sha256": storage.digest([about["sha256"] for about in abouts]),
        "config": {"model": " + ".join(about["config"]["model"] for about in abouts)},
        "classes": abouts[0]["classes"],
        "input": abouts[0]["input"],
        "pos_weight": None,
        "metrics": {},
    }
    key = ensemble_key(members)
    storage.write_manifest(places.teacher_folder(key) / MANIFEST, about)
    return key


def ensemble_key(members: list[str]) -> str:
    return storage.digest(["ensemble", *sorted(members)])[:12]


def input_of(data: Data) -> dict[str, Any]:
    """What a data set's images are, every setting of it: a teacher of others would answer, and be wrong."""
    return {**data.packed.preprocess.describe(), "pixels": PIXELS.get(data.packed.channels, "uint8")}


def trained_on(data: Data, patients: list[str]) -> dict[str, Any]:
    """Whom a teacher has seen. Patient 7 of one source of images is not patient 7 of another."""
    return {"source": data.packed.manifest["source"], "patients": patients}


def shared_patients(about: dict[str, Any], data: Data) -> list[str]:
    """Patients that the teacher was trained on and that the student is judged by, in validation or test."""
    seen = about.get("trained_on") or {}
    if _source_of(seen.get("source")) != _source_of(data.packed.manifest["source"]):
        return []
    patients = data.packed.table.groups
    judged = {patients[row] for name in ("val", "test") for row in data.split.rows.get(name, ())}
    return sorted(judged & set(seen["patients"]))


def _source_of(about: Any) -> Any:
    """A source as today's describe themselves: how its values were stretched was part of it once."""
    return {name: value for name, value in about.items() if name != "tail"} if isinstance(about, dict) else about


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

"""A teacher: a trained model folder, loaded frozen and in eval mode.

A model folder holds `model.safetensors` and `model.json` (a manifest: config, classes, input size, pos_weight,
provenance, the weights' sha256). A study's teacher lives in `mlruns/teachers/<key>/`; a final training leaves the same
kind of folder in `mlruns/models/<name>/`, which can teach in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from xlite_search import places, storage
from xlite_search.data.dataset import Data
from xlite_search.errors import BadInput
from xlite_search.model_folder import MANIFEST, WEIGHTS, read_model
from xlite_search.models.hybrid import Hybrid, build_model


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

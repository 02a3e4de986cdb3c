"""Teacher: a delivered model, or the mean of several, that students learn from; found by its key in `teachers/`."""

from __future__ import annotations

import torch
from torch import Tensor

from xlite_search import model_folder, places, storage
from xlite_search.errors import BadInput
from xlite_search.model import Model
from xlite_search.model_folder import manifest_of


class Teacher(Model):
    """Gives its logits as they would be had it learned with no pos_weight; an ensemble the mean of its members'."""

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 `[batch, channel, size, size]` -> float32 `[batch, class]`, in float32 inside autocast."""
        return self.logits(images)


def load_teacher(key: str, classes: tuple[str, ...], device: torch.device) -> Teacher:
    """The study's teacher by its key. It leaves torch's seed as it was: a student may be in the middle of an epoch.

    Raises:
        BadInput: there is no such teacher here, it knows other classes, or its weights are another model's.
        Damaged: its weights are not those of its manifest.
    """
    folder = places.teacher_folder(key)
    known = manifest_of(folder).classes
    if known != classes:
        raise BadInput(
            f"teacher {key} knows other classes, or in another order ({', '.join(known)}), than this data set has "
            f"({', '.join(classes)})"
        )
    return Teacher.load(folder, device)


def write_ensemble(members: list[str]) -> str:
    """Several teachers, in whatever order, as one whose logits are the mean of theirs; returns its key.

    Raises:
        BadInput: a member is not there, or they know other findings, or in another order.
    """
    key = ensemble_key(members)
    model_folder.write_ensemble(places.teacher_folder(key), sorted(members))
    return key


def ensemble_key(members: list[str]) -> str:
    return storage.digest(["ensemble", *sorted(members)])[:12]

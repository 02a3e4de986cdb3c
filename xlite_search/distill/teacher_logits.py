"""Teacher logits for a batch: read from the cache on disk, or computed online where a view cannot be cached."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from xlite_search import places
from xlite_search.data.dataset import Batch, Data, Part
from xlite_search.data.loaders import ordered_batches
from xlite_search.distill import platt
from xlite_search.distill.logit_store import INFERENCE_BATCH, LogitStore, rounded
from xlite_search.distill.losses import KD, attention_transfer
from xlite_search.distill.teacher import Teacher, load_teacher
from xlite_search.errors import BadInput
from xlite_search.model_folder import ModelManifest, read_model
from xlite_search.models.hybrid import Hybrid
from xlite_search.training.compiling import compile_model, whole_batches_only
from xlite_search.training.recipe import Recipe


def online_reason(recipe: Recipe, kd: KD) -> str:
    """Why the teacher logits that a run needs cannot be cached; empty if they can."""
    if recipe.mixup:
        return "MixUp makes images that no other run sees"
    if kd.hint:
        return "a hint needs the teacher's features, which are not stored"
    if recipe.augment and recipe.augment.views is None and not recipe.sampler.draws_once:
        return "the sampler draws images several times an epoch, each time another view; augment.views would bound them"
    return ""


def logits_for(recipe: Recipe, kd: KD, data: Data, device: torch.device) -> TeacherLogits:
    """Where a run has its teacher logits from. Raises as `load_teacher` and `LogitStore.open`."""
    kind = Online if online_reason(recipe, kd) else Cached
    return kind(recipe, kd, data, device)


def verify(recipe: Recipe, kd: KD, data: Data, device: torch.device) -> None:
    """Checks the teacher and its cached logits before a search relies on them.

    Raises:
        BadInput, Damaged: as `load_teacher` and `LogitStore.verify`.
        RunFailed: the teacher's logits are not finite.
    """
    about = read_model(places.teacher_folder(kd.teacher))
    teacher = _loaded(recipe, kd, data, device)
    store = LogitStore.open(kd.teacher, about, data, recipe.augment, compiled=recipe.compile)
    store.verify(lambda images: _in_bulk(recipe, teacher, images), device, _recorded(about, data))


def _loaded(recipe: Recipe, kd: KD, data: Data, device: torch.device) -> Teacher:
    teacher = load_teacher(kd.teacher, data.classes, device)
    if recipe.compile:
        for model in teacher.models:
            compile_model(model)
    return teacher


def _in_bulk(recipe: Recipe, teacher: Teacher, images: Tensor) -> Tensor:
    """The store's logits. A compiled teacher is compiled once, at the size of the store's batches; what is left over of
    a block is computed uncompiled."""
    with whole_batches_only(len(images), INFERENCE_BATCH, compiled=recipe.compile):
        return teacher(images)


def _recorded(about: ModelManifest, data: Data) -> float | None:
    """The teacher's validation AUROC, if these are the images that it was validated on."""
    seen = about.data
    same = seen is not None and (seen.fingerprint, seen.split) == (data.packed.fingerprint, data.split.fingerprint)
    return about.metrics.get("val/auroc_macro") if same else None


class TeacherLogits(Protocol):
    """A batch -> the teacher's logits float32 `[batch, class]`, as they suit the student's loss."""

    @property
    def teacher(self) -> Teacher:
        """Loaded when it is first used."""
        ...

    def __call__(self, batch: Batch) -> Tensor: ...

    def counters(self) -> dict[str, float]:
        """Metrics since the last call: views whose logits were computed (`kd/computed`), and that students were given
        (`kd/used`); seconds that the former took, and that the others would have taken (`time/teacher_saved_s`).
        """
        ...


class _Source:
    """What both have: the teacher, loaded when it is first used, and its logits' adjustment to this student's loss."""

    def __init__(self, recipe: Recipe, kd: KD, data: Data, device: torch.device) -> None:
        self.recipe, self.kd, self.data, self.device = recipe, kd, data, device
        self.computed, self.used, self.seconds = 0, 0, 0.0

    @cached_property
    def teacher(self) -> Teacher:
        return _loaded(self.recipe, self.kd, self.data, self.device)

    @cached_property
    def val(self) -> Part:
        """The split's validation part, although a final training may fit on it too."""
        return Part(self.data.packed, self.data.split.rows["val"])

    def compute(self, images: Tensor) -> Tensor:
        return _in_bulk(self.recipe, self.teacher, images)

    @cached_property
    def affine(self) -> tuple[Tensor | float, Tensor | float]:
        """Slope and offset of the teacher's logits: calibrated if asked for, and weighed as the student's loss does.

        A pos_weight w moves the optimum of the hard loss by log w; without the same here the terms would pull apart.
        """
        slope: Tensor | float = 1.0
        offset: Tensor | float = 0.0
        if self.kd.platt:
            if not len(self.val):
                raise BadInput("kd.platt: the split has no validation images to calibrate on; set kd.platt to false")
            found = platt.fit(self.validation(), self.val.labels)
            slope, offset = torch.from_numpy(found).to(self.device, torch.float32)
        weight = self.recipe.loss.pos_weight(self.data.train.positives, len(self.data.train))
        return slope, offset + (torch.log(weight).to(self.device) if weight is not None else 0.0)

    def validation(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        batches = ordered_batches(self.val, INFERENCE_BATCH, self.device)
        return np.concatenate([rounded(self.compute(batch.images)).float().cpu().numpy() for batch in batches])

    def adjusted(self, logits: Tensor) -> Tensor:
        slope, offset = self.affine
        return slope * logits.float() + offset


class Online(_Source):
    """Computes the logits of every batch of every run."""

    def __call__(self, batch: Batch) -> Tensor:
        started = time.perf_counter()
        logits = rounded(self.teacher(batch.images))
        self.seconds += time.perf_counter() - started
        self.computed += len(batch.rows)
        return self.adjusted(logits)

    def counters(self) -> dict[str, float]:
        found = {"kd/computed": float(self.computed), "kd/used": float(self.computed)}
        found |= {"time/teacher_s": self.seconds, "time/teacher_saved_s": 0.0}
        self.computed, self.seconds = 0, 0.0
        return found


class Cached(_Source):
    """Reads the store; computes what is missing there, for everybody."""

    @cached_property
    def store(self) -> LogitStore:
        about = read_model(places.teacher_folder(self.kd.teacher))
        return LogitStore.open(self.kd.teacher, about, self.data, self.recipe.augment, compiled=self.recipe.compile)

    def __call__(self, batch: Batch) -> Tensor:
        positions = np.searchsorted(self.data.train.rows, batch.rows)
        logits = np.empty((len(positions), len(self.data.classes)), np.float16)
        for view in np.unique(batch.views).tolist():
            of = batch.views == view
            logits[of] = self.store.view(view, self.compute, self.device)[positions[of]]
        self.used += len(positions)
        return self.adjusted(torch.from_numpy(logits).to(self.device, non_blocking=True))

    def validation(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return self.store.validation(self.compute, self.device)

    def counters(self) -> dict[str, float]:
        store = self.store
        saved = max(self.used - store.computed, 0) * store.seconds_per_image()
        found = {"kd/computed": float(store.computed), "kd/used": float(self.used)}
        found |= {"time/teacher_s": store.seconds, "time/teacher_saved_s": saved}
        store.computed, store.seconds, self.used = 0, 0.0, 0
        return found


class Hint:
    """The last feature maps of student and teacher, as they come by.

    Raises BadInput for a model without one, and for an ensemble.
    """

    def __init__(self, student: Hybrid, teacher: Teacher) -> None:
        if len(teacher.models) > 1:
            raise BadInput("kd.hint: an ensemble has no feature map of its own; set kd.hint to 0")
        self.maps: dict[str, Tensor] = {}
        for name, model in (("student", student), ("teacher", teacher.models[0])):
            model.last.register_forward_hook(lambda _, __, features, name=name: self.maps.update({name: features}))

    def __call__(self) -> Tensor:
        """Of the last batch that both have seen; scalar."""
        student, teacher = self.maps["student"], self.maps["teacher"]
        if student.ndim != 4 or teacher.ndim != 4:
            raise BadInput("kd.hint: one of the two models has tokens, not a feature map; set kd.hint to 0")
        if 1 in (student[0, 0].numel(), teacher[0, 0].numel()):
            raise BadInput("kd.hint: on images this small a feature map is a single cell, which looks nowhere")
        return attention_transfer(student, teacher)

"""What has to be right on a GPU: precision, resume, memory that runs out, stored logits. Part of gpu.py."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import safetensors.torch
import torch
from gpu_switches import cleared, trainer_of
from torch import Tensor

from trainables.baseline import baseline
from xlite_search import places
from xlite_search.config import RunConfig
from xlite_search.data.dataset import Batch, open_data
from xlite_search.data.loaders import ordered_batches
from xlite_search.distill.logit_store import RELATIVE, SPREAD
from xlite_search.distill.teacher_logits import Cached, Online
from xlite_search.execution import drive
from xlite_search.machine import device, peak_memory
from xlite_search.model_folder import ModelManifest, input_of, write_model
from xlite_search.records import RunRecord
from xlite_search.training.loop import Trainer


def write_teacher(config: RunConfig, name: str, key: str) -> None:
    """An untrained teacher of that model, where a study would find it."""
    data = open_data(config.data)
    torch.manual_seed(1)
    model = config.with_settings({"model": name}).build(data)[0].eval()
    weights = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    about = ModelManifest(config={"model": name}, classes=data.classes, input=input_of(data))
    write_model(places.teacher_folder(key), bytes(safetensors.torch.save(weights)), about)


def precision(config: RunConfig) -> dict[str, float]:
    """How far bf16's losses of two epochs are from fp32's, as a part of them: the larger of training and validation."""
    half, full = (
        list(baseline(config.with_settings({"epochs": 2, "precision": precision})))[-1].metrics
        for precision in ("bf16", "fp32")
    )
    return {"bf16_loss_difference": max(abs(half[of] / full[of] - 1) for of in ("train/loss", "val/loss"))}


@contextmanager
def deterministic() -> Iterator[None]:
    """Kernels that give the same bits each time, where torch has such; what it has none of it names in a warning."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def resume(config: RunConfig) -> dict[str, float]:
    """Three epochs in one go, and one and two after a resume: the largest difference of the last weights.

    `resume_default` is of the kernels that torch chooses by itself, `resume_difference` of deterministic ones.
    """
    short = config.with_settings({"epochs": 3})
    found = {"resume_default": _resumed_difference(short)}
    with deterministic():
        return found | {"resume_difference": _resumed_difference(short)}


def _resumed_difference(config: RunConfig) -> float:
    with tempfile.TemporaryDirectory() as folder:
        kept, whole = Path(folder) / "checkpoint", None
        for whole in baseline(config):
            if whole.epoch == 1:
                kept.write_bytes(whole.checkpoint_bytes())
        *_, resumed = baseline(config, kept)
    assert whole is not None
    one, other = (safetensors.torch.load(each.weights_bytes()) for each in (whole, resumed))
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def out_of_memory(config: RunConfig) -> dict[str, float]:
    """1 if a run whose batch does not fit is halved, goes on and is finished; 0 if not."""
    whole = config.with_settings({"epochs": 1, "batch_size": 2 * config.batch_size})
    with tempfile.TemporaryDirectory() as folder:
        record = RunRecord(Path(folder) / "run", "oom", "trial", "oom", {}, whole.model_dump(mode="json")).save()
        with room_for(config.batch_size, whole):
            (waiting,) = drive(record, baseline, whole)
            cleared()
            *_, ended = drive(waiting, baseline, whole)
    right = waiting.status == "waiting" and ended.status == "finished" and ended.micro_batch == config.batch_size
    return {"oom_halved": float(right)}


@contextmanager
def room_for(images: int, whole: RunConfig) -> Iterator[None]:
    """Within it a step on so many images fits, and one on the whole batch does not: on a GPU because there is no room,
    on a CPU because it is said so."""
    if device().type != "cuda":
        plain = Trainer.backward

        def backward(trainer: Trainer, part: Batch, share: float) -> Tensor:
            if len(part.rows) > images:
                raise torch.OutOfMemoryError("CUDA out of memory: as if")
            return plain(trainer, part, share)

        with mock.patch.object(Trainer, "backward", backward):
            yield
        return
    enough, too_much = (_taken(whole.with_settings({"micro_batch": size})) for size in (images, None))
    total = torch.cuda.get_device_properties(device()).total_memory
    torch.cuda.set_per_process_memory_fraction((enough + too_much) / 2 / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        cleared()


def _taken(config: RunConfig) -> int:
    """Bytes at the peak of some steps and of validation."""
    cleared()
    with trainer_of(config) as trainer:
        batches = trainer.endless()
        for _ in range(3):
            trainer.step(next(batches))
        trainer.predict()
        found = peak_memory(trainer.device)
        batches.close()
    del trainer, batches
    cleared()
    return found


def stored_logits(config: RunConfig) -> dict[str, float]:
    """The largest difference of stored teacher logits from those that are computed online, as a part of what the store
    allows; plain, and of a compiled bulk pass."""
    assert config.kd is not None
    data, where = open_data(config.data), device()
    batch = next(ordered_batches(data.train, config.batch_size, where))
    found = {}
    for name, compile in (("stored_difference", False), ("compiled_stored_difference", True)):
        cleared()
        online = Online(config, config.kd, data, where)(batch).float().cpu().numpy()
        cached = Cached(config.with_settings({"compile": compile}), config.kd, data, where)
        stored = cached(batch).float().cpu().numpy()
        allowed = SPREAD * stored.std(axis=0) + RELATIVE * np.abs(online) + RELATIVE
        found[name] = float((np.abs(stored - online) / allowed).max())
    return found


def checks(config: RunConfig) -> dict[str, float]:
    """All of them, by figure."""
    found: dict[str, float] = {}
    for check in (precision, resume, out_of_memory, stored_logits):
        cleared()
        found |= check(config)
    return found

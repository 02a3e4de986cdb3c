"""One run with a teacher: a student learns from labels and from what a frozen teacher says of the same image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.data.loaders import Batch, open_data
from xlite_search.distill.teacher import load_teacher
from xlite_search.machine import device
from xlite_search.models.hybrid import build_model
from xlite_search.training.loop import EpochResult, settle, train


def distill(config: RunConfig, resume: Path | None = None) -> Iterator[EpochResult]:
    """Trains `config.model` with `alpha * soft + (1 - alpha) * hard` (`distill/losses.py`).

    Without `config.kd`, or with alpha = 0, this is `baseline`, bit for bit. The teacher sees the student's very pixels.
    """
    kd = config.canonical().kd
    if kd is None:
        yield from baseline(config, resume)
        return
    settle(config)
    data = open_data(config.data)
    model = build_model(config.model, classes=len(data.classes), weights=config.weights)
    hard = config.loss.build(data.train.positives, len(data.train))
    teacher = load_teacher(kd.teacher, data.classes, device())
    shift = teacher.speaking_like(config.loss.pos_weight(data.train.positives, len(data.train)))

    def objective(logits: Tensor, batch: Batch) -> Tensor:
        hard_loss = hard(logits, batch.labels, batch.weights)
        return kd(logits, teacher(batch.images) + shift, hard_loss, batch.weights)

    yield from train(config, model, data, objective, resume, alone=False)

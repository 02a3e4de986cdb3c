"""Knowledge distillation: one run of a student that learns from labels and from a frozen teacher's logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.data.dataset import Batch, open_data
from xlite_search.distill.teacher_logits import Hint, logits_for
from xlite_search.machine import device
from xlite_search.training.evaluator import MultiLabel
from xlite_search.training.loop import configure_process, train
from xlite_search.training.result import EpochResult


def distill(config: RunConfig, resume: Path | None = None) -> Iterator[EpochResult]:
    """Trains `config.model` with `alpha * soft + (1 - alpha) * hard` (`distill/losses.py`).

    Without `config.kd`, or with alpha = 0, this is `baseline`, bit for bit. The teacher's logits for a view are read
    from the cache that all runs share; only what cannot be cached is computed online.
    """
    kd = config.canonical().kd
    if kd is None:
        yield from baseline(config, resume)
        return
    configure_process(config)
    data = open_data(config.data)
    model, hard = config.build(data)
    teacher = logits_for(config, kd, data, device())
    hint = Hint(model, teacher.teacher) if kd.hint else None

    def objective(logits: Tensor, batch: Batch) -> Tensor:
        soft, labelled = teacher(batch), hard(logits, batch.labels, batch.weights)
        return kd(logits, soft, labelled, batch.weights, hint() if hint else None)

    for result in train(config, model, data, objective, resume, evaluate=MultiLabel.of(data)):
        yield replace(result, metrics=result.metrics | teacher.counters())

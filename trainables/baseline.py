"""Baseline: one run without a teacher, a model trained on labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from xlite_search.config import RunConfig
from xlite_search.data.dataset import Batch, open_data
from xlite_search.training.evaluator import MultiLabel
from xlite_search.training.loop import configure_process, train
from xlite_search.training.result import EpochResult


def baseline(config: RunConfig, resume: Path | None = None) -> Iterator[EpochResult]:
    """Trains `config.model` with `config.loss`; `resume` is a checkpoint of the same config."""
    configure_process(config)
    data = open_data(config.data)
    model, hard = config.build(data)

    def objective(logits: Tensor, batch: Batch) -> Tensor:
        return hard(logits, batch.labels, batch.weights)

    yield from train(config, model, data, objective, resume, evaluate=MultiLabel.of(data, hard))

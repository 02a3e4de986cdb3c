"""Evaluators: validation logits and labels in; metrics, a collapse, and what is kept of them out.

The loop is handed one (`loop.train(..., evaluate=...)`) and knows nothing of what it computes: of its metrics it reads
the one that the recipe's `monitor` names, and a collapse ends the run. There is one, for findings that occur together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from xlite_search.data.dataset import Data
from xlite_search.training.collapse import Collapse, decision_posterior, diagnose
from xlite_search.training.losses import LossFunction, bce
from xlite_search.training.metrics import Array, validation_metrics
from xlite_search.training.predictions import Predictions


@dataclass(frozen=True)
class Evaluation:
    """What a validation pass comes to.

    metrics      finite floats by slashed name, `val/...`; an undefined metric is absent
    collapse     what is wrong with the model, which ends the run; None if nothing is
    predictions  what is kept of it beside the run; None: nothing
    """

    metrics: dict[str, float] = field(default_factory=dict)
    collapse: Collapse | None = None
    predictions: Predictions | None = None


class Evaluator(Protocol):
    def __call__(self, logits: NDArray[np.float32], labels: NDArray[np.float32]) -> Evaluation:
        """Of the whole validation part, `[image, class]` twice, in the order of its rows."""
        ...


@dataclass(frozen=True)
class MultiLabel:
    """Multi-label classification: a sigmoid for each finding, by every metric of `training/metrics.py`.

    classes   the findings, in the order of the logits
    images    names of the validation images, in the order of its rows: what is kept is kept by name
    decision  chance of each finding from which on the loss says "yes", `collapse.decision_posterior`; None: unknown,
              and a model that never says it is not taken for a collapsed one
    """

    classes: tuple[str, ...]
    images: tuple[str, ...]
    decision: Array | None = None

    @classmethod
    def of(cls, data: Data, loss: LossFunction | None = None) -> MultiLabel:
        """For the validation part of these data; `loss` is the objective's, if the objective is nothing else."""
        names = data.val.packed.table.names
        decision = decision_posterior(loss, len(data.classes)) if loss is not None else None
        return cls(data.classes, tuple(names[row] for row in data.val.rows), decision)

    def __call__(self, logits: NDArray[np.float32], labels: NDArray[np.float32]) -> Evaluation:
        predictions = Predictions.of(logits, self.images, self.classes)
        collapse = diagnose(logits, labels, self.classes, self.decision)
        if collapse is not None:
            return Evaluation(collapse=collapse, predictions=predictions)
        loss = bce(torch.from_numpy(logits), torch.from_numpy(labels))
        metrics = {"val/loss": float(loss)} | validation_metrics(logits, labels, self.classes)
        return Evaluation(metrics, predictions=predictions)

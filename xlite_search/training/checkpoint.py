"""Checkpoint: the state from which a run goes on exactly as if it had never been interrupted.

Schema 1, a dict of tensors and plain values that `torch.load(weights_only=True)` accepts:

    schema      1
    epoch       finished epochs, 1..n
    model       the model's state dict
    optimizer   the optimizer's state dict
    schedule    the schedule's state (`optim.LRScheduler.state`)
    scaler      the gradient scaler's state; empty unless the precision is fp16
    average     the moving average's state dict; empty unless the recipe has `ema`
    best        {"epoch", "score"}: the best epoch so far, for early stopping

There is no random state in it: every epoch starts from the seed (run's seed, epoch) for the order of the images and
for torch alike. Later fields are added with a default here; nobody writes another kind of checkpoint.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from xlite_search.errors import Damaged

SCHEMA = 1


@dataclass
class Checkpoint:
    """See the module's docstring for every field. Lives on the device; `to_bytes` takes the copy."""

    epoch: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    scaler: dict[str, Any]
    best: dict[str, float] = field(default_factory=dict)
    average: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def judged(self) -> dict[str, Any]:
        """The weights that validation saw: the average's if there is one."""
        return self.average or self.model

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        torch.save({name: getattr(self, name) for name in self.__dataclass_fields__}, buffer)
        return buffer.getvalue()

    @classmethod
    def load(cls, path: Path, device: torch.device) -> Checkpoint:
        """Raises Damaged if the file is no checkpoint of this schema. Never runs code from the file."""
        try:
            fields = torch.load(path, map_location=device, weights_only=True)
            checkpoint = cls(**fields)
        except Exception as error:
            raise Damaged(f"{path} is not a checkpoint: {type(error).__name__}") from None
        if checkpoint.schema != SCHEMA:
            raise Damaged(f"{path} has checkpoint schema {checkpoint.schema}, expected {SCHEMA}")
        return checkpoint

"""Optimizer (AdamW) and learning rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from xlite_search.spec import Spec, named

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim import lr_scheduler


class AdamW(Spec):
    """AdamW (Loshchilov and Hutter 2019); norms, biases and other vectors are not decayed.

    On a GPU a step is torch's fused one: a kernel for many tensors, and no wait for the GPU under fp16.
    """

    name: Literal["adamw"] = "adamw"
    lr: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-5, ge=0)

    def build(self, model: nn.Module) -> torch.optim.AdamW:
        import torch

        matrices = [p for p in model.parameters() if p.ndim > 1]
        vectors = [p for p in model.parameters() if p.ndim <= 1]
        groups: Iterable[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        fused = True if matrices and all(p.is_cuda for p in [*matrices, *vectors]) else None
        return torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.weight_decay, fused=fused)


class LRScheduler:
    """A schedule at work. Its state is plain numbers, so that it resumes exactly."""

    def __init__(
        self,
        per_step: lr_scheduler.LambdaLR | None = None,
        per_epoch: lr_scheduler.ReduceLROnPlateau | None = None,
    ) -> None:
        self.per_step, self.per_epoch = per_step, per_epoch

    def after_step(self) -> None:
        if self.per_step is not None:
            self.per_step.step()

    def after_epoch(self, score: float | None) -> None:
        """`score` is the monitored validation metric, higher is better; None if there is no validation."""
        if self.per_epoch is not None and score is not None:
            self.per_epoch.step(score)

    def state(self) -> dict[str, Any]:
        active = self.per_step or self.per_epoch
        return {k: v for k, v in active.state_dict().items() if k != "lr_lambdas"} if active else {}

    def restore(self, state: dict[str, Any]) -> None:
        if self.per_step is not None:
            self.per_step.load_state_dict(state | {"lr_lambdas": [None] * len(self.per_step.lr_lambdas)})
        elif self.per_epoch is not None:
            self.per_epoch.load_state_dict(state)


def by_step(optimizer: torch.optim.Optimizer, factor: Callable[[int], float]) -> LRScheduler:
    """The optimizer's learning rate times a factor of the step, counted from 0."""
    from torch.optim import lr_scheduler

    return LRScheduler(per_step=lr_scheduler.LambdaLR(optimizer, factor))


class Constant(Spec):
    """The optimizer's learning rate, all along."""

    name: Literal["constant"] = "constant"

    def build(self, optimizer: torch.optim.Optimizer, epochs: int, steps: int) -> LRScheduler:
        return LRScheduler()


class Plateau(Spec):
    """Times `factor` after more than `patience` epochs without a better validation score (the lab's schedule).

    threshold  better by less than this share of the best score is not better (torch's ReduceLROnPlateau: 1e-4)
    """

    name: Literal["plateau"] = "plateau"
    patience: int = Field(5, ge=0)
    factor: float = Field(0.5, gt=0, lt=1)
    threshold: float = Field(1e-4, ge=0, lt=1)

    def build(self, optimizer: torch.optim.Optimizer, epochs: int, steps: int) -> LRScheduler:
        from torch.optim import lr_scheduler

        plateau = lr_scheduler.ReduceLROnPlateau(
            optimizer, "max", factor=self.factor, patience=self.patience, threshold=self.threshold
        )
        return LRScheduler(per_epoch=plateau)


def risen(step: int, rising: float) -> float:
    """The share of the learning rate that a linear warm-up over `rising` steps, whole or not, has at a step from 0."""
    return min(1.0, (step + 1) / rising)


class Cosine(Spec):
    """Linear warm-up over `warmup` epochs, then half a cosine down to zero at the last configured step."""

    name: Literal["cosine"] = "cosine"
    warmup: float = Field(0.0, ge=0)

    def build(self, optimizer: torch.optim.Optimizer, epochs: int, steps: int) -> LRScheduler:
        rising, total = self.warmup * steps, epochs * steps

        def factor(step: int) -> float:
            if step < rising:
                return risen(step, rising)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1.0, total - rising))))

        return by_step(optimizer, factor)


#: Parts of a step: a cosine that ends so near after a step has ended there, for 0.1 + 0.2 is not 0.3.
NEAR = 1e-6


class WarmRestarts(Spec):
    """Cosines one after another (SGDR; Loshchilov and Hutter 2017), after a linear warm-up over `warmup` epochs.

    The first lasts `period` epochs, each later one `growth` times as long as the one before.
    """

    name: Literal["warm_restarts"] = "warm_restarts"
    period: float = Field(5.0, ge=0.1)
    growth: float = Field(2.0, ge=1)
    warmup: float = Field(0.0, ge=0)

    def build(self, optimizer: torch.optim.Optimizer, epochs: int, steps: int) -> LRScheduler:
        rising = self.warmup * steps

        def factor(step: int) -> float:
            if step < rising:
                return risen(step, rising)
            since, length = step - rising, self.period * steps
            while since >= length - NEAR:
                since, length = max(0.0, since - length), length * self.growth
            return 0.5 * (1 + math.cos(math.pi * since / length))

        return by_step(optimizer, factor)


class Recorded(Spec):
    """One factor per epoch, as an earlier run recorded them: how a plateau is followed without a validation split."""

    name: Literal["recorded"] = "recorded"
    factors: tuple[Annotated[float, Field(ge=0)], ...] = Field(min_length=1)

    def build(self, optimizer: torch.optim.Optimizer, epochs: int, steps: int) -> LRScheduler:
        last = len(self.factors) - 1
        return by_step(optimizer, lambda step: self.factors[min(step // steps, last)])


Schedule = Annotated[
    Annotated[Constant | Plateau | Cosine | WarmRestarts | Recorded, Field(discriminator="name")],
    BeforeValidator(named),
]

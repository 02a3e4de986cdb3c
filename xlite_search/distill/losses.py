"""Distillation of a multi-label teacher: the Bernoulli KL divergence at a temperature, per label.

    soft = tau^2 * mean( BCEwithLogits(s / tau, sigmoid(t / tau)) - H(sigmoid(t / tau)) )
    loss = alpha * soft + (1 - alpha) * hard

alpha weighs the teacher (as in DeiT; torchdistill and Keras mean the opposite). tau^2 keeps the gradient's size (Hinton
et al. 2015); the teacher's entropy H is subtracted, so that soft(t, t) = 0 at every tau. As tau grows the gradient
tends to (s - t) / (4 * batch * classes).
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from xlite_search.spec import Spec


class KD(Spec):
    """tau is the temperature, alpha the teacher's share; `teacher` is its key, filled in when the study is resolved."""

    tau: float = Field(4.0, gt=0)
    alpha: float = Field(0.5, ge=0, le=1)
    teacher: str = ""

    def __call__(self, student: Tensor, teacher: Tensor, hard: Tensor, weights: Tensor | None = None) -> Tensor:
        """Logits `[batch, class]` of both, the loss against the labels, each image's weight `[batch]` -> scalar."""
        return self.alpha * soft(student, teacher, self.tau, weights) + (1 - self.alpha) * hard


def soft(student: Tensor, teacher: Tensor, tau: float, weights: Tensor | None = None) -> Tensor:
    """tau^2 times the mean KL divergence between the tempered Bernoullis of each label, in float32 inside autocast."""
    with torch.autocast(student.device.type, enabled=False):
        s, t = student.float() / tau, teacher.float() / tau
        target = torch.sigmoid(t)
        each = weights[:, None] if weights is not None else None
        entropy = F.binary_cross_entropy_with_logits(t, target, weight=each)
        return tau**2 * (F.binary_cross_entropy_with_logits(s, target, weight=each) - entropy)

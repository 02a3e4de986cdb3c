"""Multi-label losses: pure functions of logits and targets, mean over batch and label.

A spec is built with the counts of what is trained on (never of validation) and gives the function.
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from pydantic import BeforeValidator, Field
from torch import Tensor
from torch.nn import functional as F

from xlite_search.errors import BadInput
from xlite_search.spec import Spec, named


class LossFunction(Protocol):
    """Logits and targets float `[batch, class]`, and each image's weight `[batch]` or None -> scalar."""

    def __call__(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor: ...


class BCE(Spec):
    """Binary cross-entropy with logits."""

    name: Literal["bce"] = "bce"

    def pos_weight(self, positives: Tensor, images: int) -> Tensor | None:
        """What positives count for, `[class]`; None if the same as negatives."""
        return None

    def build(self, positives: Tensor, images: int) -> LossFunction:
        return bce


class WeightedBCE(Spec):
    """BCE whose positives count `pos_weight` times, from the counts n of N training images:

    ratio         (N - n) / (n + 1): balances every finding; 4.68 to 508.64 on the log's 78,484 images
    inverse_sqrt  (n + 1)^-0.5, scaled to a mean of 1 over the findings: the log's EXP-000
    """

    name: Literal["weighted_bce"] = "weighted_bce"
    weighting: Literal["ratio", "inverse_sqrt"] = "ratio"

    def pos_weight(self, positives: Tensor, images: int) -> Tensor | None:
        """Raises BadInput if a finding is in every training image: it would weigh nothing."""
        if self.weighting == "ratio":
            if (positives >= images).any():
                raise BadInput(
                    "loss.weighting = 'ratio': a finding is positive in every training image; use inverse_sqrt"
                )
            return (images - positives) / (positives + 1)
        weight = (positives + 1) ** -0.5
        return weight / weight.mean()

    def build(self, positives: Tensor, images: int) -> LossFunction:
        weight = self.pos_weight(positives, images)

        def weighted_bce(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
            on_device = weight.to(logits.device) if weight is not None else None
            return bce(logits, targets, weights, pos_weight=on_device)

        return weighted_bce


def bce(logits: Tensor, targets: Tensor, weights: Tensor | None = None, pos_weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy, each image counted `weights` times, positives `pos_weight` times."""
    each = weights[:, None] if weights is not None else None
    return F.binary_cross_entropy_with_logits(logits.float(), targets, weight=each, pos_weight=pos_weight)


Loss = Annotated[Annotated[BCE | WeightedBCE, Field(discriminator="name")], BeforeValidator(named)]

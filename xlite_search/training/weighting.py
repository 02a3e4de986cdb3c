"""Class weights from the counts n of N training images, `[class]`: ratio, inverse square root, effective number.

A finding without positives is weighed as if it had one, or nearly: the weight is never used, but it is finite, and it
takes part in the mean of the schemes that are scaled to a mean of 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from xlite_search.errors import BadInput
from xlite_search.spec import Spec, named

if TYPE_CHECKING:
    from torch import Tensor


class Ratio(Spec):
    """(N - n) / (n + 1): balances every finding; 4.68 to 508.64 on the log's 78,484 images."""

    name: Literal["ratio"] = "ratio"

    def of(self, positives: Tensor, images: int) -> Tensor:
        """Raises BadInput if a finding is in every training image: it would weigh nothing."""
        if (positives >= images).any():
            raise BadInput("loss.weighting = 'ratio': a finding is positive in every training image; use inverse_sqrt")
        return (images - positives) / (positives + 1)


class InverseSqrt(Spec):
    """(n + 1)^-0.5, scaled to a mean of 1 over the findings: the log's EXP-000."""

    name: Literal["inverse_sqrt"] = "inverse_sqrt"

    def of(self, positives: Tensor, images: int) -> Tensor:
        weight = (positives + 1) ** -0.5
        return weight / weight.mean()


class EffectiveNumber(Spec):
    """(1 - beta) / (1 - beta^n), scaled to a mean of 1 over the findings (Cui et al. 2019, class-balanced loss).

    n images are worth (1 - beta^n) / (1 - beta) different ones: at beta 0 every finding weighs the same, towards 1 the
    weight tends to 1/n. The paper weighs all of a class's terms; here, as in the other schemes, its positives alone.
    """

    name: Literal["effective_number"] = "effective_number"
    beta: float = Field(0.9999, ge=0, lt=1)

    def of(self, positives: Tensor, images: int) -> Tensor:
        counts = positives.double().clamp(min=1)  # in float32 the difference to 1 would be rounding
        weight = (1 - self.beta) / (1 - self.beta**counts)
        return (weight / weight.mean()).float()


Weighting = Annotated[
    Annotated[Ratio | InverseSqrt | EffectiveNumber, Field(discriminator="name")], BeforeValidator(named)
]

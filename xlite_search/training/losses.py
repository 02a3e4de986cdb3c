"""Multi-label losses: pure functions of logits and targets, mean over batch and label.

A spec is built with the counts of what is trained on (never of validation) and gives the function. Every loss is linear
in the target, as the papers write them for 0 and 1: a target of 0.3 (MixUp) costs 0.3 of a positive and 0.7 of a
negative. Reference codes of focal and asymmetric loss put it into the focusing factor instead; for 0 and 1 they agree.
Computed in float32 under autocast too, and finite, as their gradients are, for logits of 10,000 and more.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field

from xlite_search.errors import BadInput, did_you_mean
from xlite_search.spec import Spec, named
from xlite_search.training.weighting import Ratio, Weighting

if TYPE_CHECKING:
    from torch import Tensor

#: Least base of the asymmetric loss's focusing power: below one, a power of 0 has no finite slope.
LEAST = 1e-8


class LossFunction(Protocol):
    """Logits and targets float `[batch, class]`, and each image's weight `[batch]` or None -> scalar."""

    def __call__(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor: ...


class _Loss(Spec):
    name: str

    @property
    def batchwise(self) -> tuple[str, ...]:
        """Settings that make it other than a mean over images; a batch may be cut into pieces if there are none."""
        return ()


class _NoPosWeight(_Loss):
    def pos_weight(self, positives: Tensor, images: int) -> Tensor | None:
        """None: nothing here moves a logit's optimum by its logarithm. So there is nothing to add to a teacher's
        logits or to undo before calibration; what focal or asymmetric loss do to the optimum has no such form, which
        is why neither is offered with a pos_weight."""
        return None


class BCE(_NoPosWeight):
    """Binary cross-entropy with logits.

    With label smoothing the targets are y (1 - s) + s/2 for s = `smoothing`, and the best logit for a chance p is that
    of p (1 - s) + s/2: at s = 0.1 a finding of 0.2 % answers -2.9, not -6.2. The logit is no longer calibrated, and
    rare findings are moved most: fit Platt's line afterwards.
    """

    name: Literal["bce"] = "bce"
    smoothing: float = Field(0.0, ge=0, lt=1)

    def build(self, positives: Tensor, images: int) -> LossFunction:
        def smoothed_bce(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
            return bce(logits, smoothed(targets, self.smoothing), weights)

        return smoothed_bce


class WeightedBCE(_Loss):
    """BCE whose positives count `pos_weight` times, by a scheme of `training/weighting.py`; none more than `clip`.

    `smoothing` is that of BCE. It spoils the calibration but not what a weight w does: the best logit is that of
    p (1 - s) + s/2, plus log w.
    """

    name: Literal["weighted_bce"] = "weighted_bce"
    weighting: Weighting = Ratio()
    clip: float | None = Field(None, gt=0)
    smoothing: float = Field(0.0, ge=0, lt=1)

    def pos_weight(self, positives: Tensor, images: int) -> Tensor | None:
        """What positives count for, `[class]`. It moves a logit's optimum by its logarithm.

        Raises BadInput if the scheme cannot weigh such counts.
        """
        weight = self.weighting.of(positives, images)
        return weight if self.clip is None else weight.clamp(max=self.clip)

    def build(self, positives: Tensor, images: int) -> LossFunction:
        weight = self.pos_weight(positives, images)

        def weighted_bce(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
            on_device = weight.to(logits.device) if weight is not None else None
            return bce(logits, smoothed(targets, self.smoothing), weights, pos_weight=on_device)

        return weighted_bce


def _numbers_or_word(value: Any) -> Any:
    numbers = value if isinstance(value, list | tuple) else [value]
    if numbers and all(isinstance(number, int | float) and 0 <= number <= 1 for number in numbers):
        return value
    if value == "inverse_frequency":
        return value
    meant = did_you_mean(str(value), ["inverse_frequency"])
    raise ValueError(f"expected a number from 0 to 1, a list of one for each finding, or inverse_frequency{meant}")


class _Focusing(_NoPosWeight):
    gamma: float = Field(2.0, ge=0, le=100)
    alpha: Annotated[float | tuple[float, ...] | Literal["inverse_frequency"], BeforeValidator(_numbers_or_word)] = 0.25

    def alphas(self, positives: Tensor, images: int) -> Tensor:
        """`alpha` as numbers, `[]` or `[class]`.

        Raises BadInput if there are not as many as classes, or if the inverse frequency of a finding is 0.
        """
        import torch

        if self.alpha == "inverse_frequency":
            if (positives >= images).any():
                raise BadInput(
                    "loss.alpha = 'inverse_frequency': a finding is positive in every training image; give a number"
                )
            return (images - positives) / (images + 1)
        alpha = torch.tensor(self.alpha)
        if alpha.ndim and len(alpha) != len(positives):
            raise BadInput(
                f"loss.alpha has {len(alpha)} values and the data have {len(positives)} findings; "
                "give one for each, or a single number"
            )
        return alpha


class Focal(_Focusing):
    """Focal loss (Lin et al. 2017) on every label's sigmoid: easy answers count (1 - p_t)^gamma, positives `alpha`,
    negatives 1 - alpha.

    gamma 0 with alpha 0.5 is half of BCE. `alpha` may be a list, one for each finding, or inverse_frequency:
    (N - n) / (N + 1) of n positives in N training images, so that alpha / (1 - alpha) is the ratio by which
    weighted_bce balances. Its logits are not calibrated: by default (gamma 2, alpha 0.25) the best one for a chance of
    5 % is -1.5, not -2.9.
    """

    name: Literal["focal"] = "focal"

    def build(self, positives: Tensor, images: int) -> LossFunction:
        alpha = self.alphas(positives, images)

        def focal_loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
            return focal(logits, targets, weights, gamma=self.gamma, alpha=alpha.to(logits.device))

        return focal_loss


class Mixed(_Focusing):
    """`share` of BCE and the rest of focal loss, by default the log's 0.7 and 0.3; `gamma` and `alpha` as in Focal."""

    name: Literal["bce_focal"] = "bce_focal"
    share: float = Field(0.7, ge=0, le=1)

    def build(self, positives: Tensor, images: int) -> LossFunction:
        alpha = self.alphas(positives, images)

        def mixed(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
            focused = focal(logits, targets, weights, gamma=self.gamma, alpha=alpha.to(logits.device))
            return self.share * bce(logits, targets, weights) + (1 - self.share) * focused

        return mixed


class Asymmetric(_NoPosWeight):
    """Asymmetric loss (Ridnik et al. 2021; timm's AsymmetricLossMultiLabel, with the mean over labels for its sum).

    Positives are focused by `gamma_pos`, negatives by `gamma_neg`; a negative whose probability is below `clip` costs
    nothing.
    """

    name: Literal["asymmetric"] = "asymmetric"
    gamma_pos: float = Field(1.0, ge=0, le=100)
    gamma_neg: float = Field(4.0, ge=0, le=100)
    clip: float = Field(0.05, ge=0, lt=1)

    def build(self, positives: Tensor, images: int) -> LossFunction:
        def asymmetric_loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
            gammas = self.gamma_pos, self.gamma_neg
            return asymmetric(logits, targets, weights, gammas=gammas, clip=self.clip)

        return asymmetric_loss


Loss = Annotated[
    Annotated[BCE | WeightedBCE | Focal | Mixed | Asymmetric, Field(discriminator="name")], BeforeValidator(named)
]


def bce(logits: Tensor, targets: Tensor, weights: Tensor | None = None, pos_weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy, each image counted `weights` times, positives `pos_weight` times."""
    from torch.nn import functional as F

    each = weights[:, None] if weights is not None else None
    return F.binary_cross_entropy_with_logits(_full(logits), targets, weight=each, pos_weight=pos_weight)


def focal(
    logits: Tensor, targets: Tensor, weights: Tensor | None = None, *, gamma: float, alpha: Tensor | float
) -> Tensor:
    """-alpha y (1 - p)^gamma log p - (1 - alpha) (1 - y) p^gamma log(1 - p); alpha a number or `[class]`."""
    x = _full(logits)
    return _mean(alpha * targets * _focused(x, gamma) + (1 - alpha) * (1 - targets) * _focused(-x, gamma), weights)


def asymmetric(
    logits: Tensor, targets: Tensor, weights: Tensor | None = None, *, gammas: tuple[float, float], clip: float
) -> Tensor:
    """-y (1 - p)^g log p - (1 - y) q^h log(1 - q), with q = max(p - clip, 0) and (g, h) = `gammas`."""
    import torch
    from torch.nn import functional as F

    x = _full(logits)
    margin = torch.full_like(x, math.log(clip) if clip else -math.inf)
    log_not_q = torch.logaddexp(F.logsigmoid(-x), margin).clamp(max=0)
    q = -torch.expm1(log_not_q)
    negative = -(q.clamp(min=LEAST) ** gammas[1]) * log_not_q
    return _mean(targets * _focused(x, gammas[0]) + (1 - targets) * negative, weights)


def smoothed(targets: Tensor, smoothing: float) -> Tensor:
    """y (1 - s) + s/2: the targets themselves, to the last bit, for s = 0."""
    return targets * (1 - smoothing) + smoothing / 2


def _focused(x: Tensor, gamma: float) -> Tensor:
    """-(1 - p)^gamma log p, the power taken in logarithms: its slope is finite where p is 0 or 1."""
    from torch.nn import functional as F

    return -(gamma * F.logsigmoid(-x)).exp() * F.logsigmoid(x)


def _mean(loss: Tensor, weights: Tensor | None) -> Tensor:
    return loss.mean() if weights is None else (loss * weights[:, None]).mean()


def _full(logits: Tensor) -> Tensor:
    """At least float32; double stays double."""
    import torch

    return logits.to(torch.promote_types(logits.dtype, torch.float32))

"""Distillation losses for multi-label teachers: pure functions of two sets of logits `[batch, class]`.

    soft = tau^2 * mean( BCEwithLogits(s / tau, sigmoid(t / tau)) - H(sigmoid(t / tau)) )
    loss = alpha * (soft + intra * intra_class + hint * attention) + (1 - alpha) * hard

alpha weighs the teacher (as in DeiT; torchdistill and Keras mean the opposite). tau^2 keeps the gradient's size (Hinton
et al. 2015); the teacher's entropy H is subtracted, so that soft(t, t) = 0 at every tau. As tau grows the gradient
tends to (s - t) / (4 * batch * classes), which is that of the squared difference below. There is no pos_weight in the
soft term: a weight w would move its optimum by tau log w, some 25 logits for the rarest finding at tau 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from xlite_search.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

#: keeps the correlation of a label that does not vary in a batch at zero
EPSILON = 1e-8


class KD(Spec):
    """How a student listens to its teacher; see the module's docstring.

    tau      the temperature, up to 100: beyond, `mse` says the same and rounds less
    alpha    the teacher's share
    form     kl: the Bernoulli KL divergence; mse: the squared difference of the logits, its limit as tau grows
    intra    weight of DIST's intra-class relation beside it: it compares the images of a batch, which then stays whole
    hint     weight of attention transfer, what the last feature maps look at; the teacher runs online then
    platt    the teacher's logits are calibrated per label on the validation part before they are used
    teacher  its key, filled in when the study is resolved
    """

    missing: ClassVar[Mapping[str, str]] = {
        "pos_weight": "the soft term has none, for a weight w would move a logit's optimum by tau log w; set "
        "loss=weighted_bce, and the teacher's logits are shifted by log w as the student's are"
    }

    tau: float = Field(4.0, gt=0, le=100)
    alpha: float = Field(0.5, ge=0, le=1)
    form: Literal["kl", "mse"] = "kl"
    intra: float = Field(0.0, ge=0)
    hint: float = Field(0.0, ge=0)
    platt: bool = False
    teacher: str = ""

    @property
    def batchwise(self) -> tuple[str, ...]:
        """Settings that make it other than a mean over images; a batch may be cut into pieces if there are none."""
        return ("intra",) if self.alpha and self.intra else ()

    def __call__(
        self,
        student: Tensor,
        teacher: Tensor,
        hard: Tensor,
        weights: Tensor | None = None,
        attention: Tensor | None = None,
    ) -> Tensor:
        """Logits `[batch, class]` of both, the loss against the labels, each image's weight `[batch]`, and what
        `attention_transfer` says if there is a hint -> scalar."""
        said = soft(student, teacher, self.tau, weights) if self.form == "kl" else squared(student, teacher, weights)
        if self.intra:
            said = said + self.intra * intra_class(student, teacher, self.tau, weights)
        if self.hint and attention is not None:
            said = said + self.hint * attention
        return self.alpha * said + (1 - self.alpha) * hard


def soft(student: Tensor, teacher: Tensor, tau: float, weights: Tensor | None = None) -> Tensor:
    """tau^2 times the mean KL divergence between the tempered Bernoullis of each label, in float32 inside autocast."""
    import torch
    from torch.nn import functional as F

    with torch.autocast(student.device.type, enabled=False):
        s, t = student.float() / tau, teacher.float() / tau
        target = torch.sigmoid(t)
        each = weights[:, None] if weights is not None else None
        entropy = F.binary_cross_entropy_with_logits(t, target, weight=each)
        return tau**2 * (F.binary_cross_entropy_with_logits(s, target, weight=each) - entropy)


def squared(student: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """An eighth of the mean squared difference of the logits: what `soft` tends to as tau grows (Kim et al. 2021)."""
    import torch

    with torch.autocast(student.device.type, enabled=False):
        each = (student.float() - teacher.float()) ** 2 / 8
        return (each * weights[:, None] if weights is not None else each).mean()


def intra_class(student: Tensor, teacher: Tensor, tau: float, weights: Tensor | None = None) -> Tensor:
    """tau^2 (1 - mean over labels of the correlation over the batch of the tempered probabilities): how images of a
    batch rank for each finding, whatever the scale (DIST's intra-class relation; Huang et al. 2022)."""
    import torch

    with torch.autocast(student.device.type, enabled=False):
        s, t = torch.sigmoid(student.float() / tau), torch.sigmoid(teacher.float() / tau)
        share = torch.ones_like(s[:, :1]) if weights is None else weights[:, None].float()
        share = share / share.sum()
        s, t = s - (share * s).sum(dim=0), t - (share * t).sum(dim=0)
        norms = (share * s**2).sum(dim=0).clamp_min(EPSILON).sqrt() * (share * t**2).sum(dim=0).clamp_min(
            EPSILON
        ).sqrt()
        return tau**2 * (1 - ((share * s * t).sum(dim=0) / norms).mean())


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of the maps, each of length one, of where the features are large; a mean over the batch
    (Zagoruyko and Komodakis 2017). Features are `[batch, channel, height, width]`, of any number of channels; if their
    sizes differ the student's map is resized."""
    import torch
    from torch.nn import functional as F

    with torch.autocast(student.device.type, enabled=False):
        s, t = (features.float().pow(2).mean(dim=1, keepdim=True) for features in (student, teacher))
        if s.shape[-2:] != t.shape[-2:]:
            s = F.interpolate(s, t.shape[-2:], mode="bilinear", align_corners=False)
        s, t = F.normalize(s.flatten(1)), F.normalize(t.flatten(1))
        return (s - t).pow(2).sum(dim=1).mean()

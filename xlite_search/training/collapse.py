"""Collapse of a run (NaN, constant logits, all negative, vanished gradients): noticed within its epoch and named.

Each check is a pure function of what an epoch leaves behind. None looks at how small the probabilities are next to the
prevalence: with findings of a few per cent a healthy model predicts next to nothing above 0.5, and with BCE at a high
learning rate the first epoch's largest probability can be a fortieth of the prevalence, only to come back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xlite_search.training.losses import LossFunction
from xlite_search.training.metrics import Array, Truth

#: Standard deviation of a class's logits over the images, as multiple of their |mean|, below which they say nothing of
#: the image, in a model that has left 0 behind: |mean| above ANSWERED somewhere.
CONSTANT, ANSWERED = 1e-4, 1.0
#: The same for a model that has not: the last digits of single precision. Deep models with
#: batch norm can have a hundred times that at their initialisation, and learn well.
ROUNDING = 8 * float(np.finfo(np.float32).eps)
#: Median |logit| from which on the model has diverged. An epoch of ten steps at an adventurous learning rate, 0.03, can
#: end at 400 only because batch norm's averages lag behind.
ABSURD = 1000.0
#: A mean loss above 1 that is this multiple of the first step's has diverged. Learning rates of 10 came to 20,000.
EXPLODED = 100.0
#: Odds for a finding from which on a loss that waits for them before it says "yes" asks too much. BCE asks for 1.
DEMANDING = 20.0
#: Share of the positives that must at least be predicted, in number, where the loss is that demanding.
FEW = 0.1
#: Root mean square of a gradient that AdamW cannot tell from none: its epsilon.
NO_GRADIENT = 1e-8
#: A loss this small has no gradient for the best of reasons.
LEARNT = 1e-4


@dataclass(frozen=True)
class Collapse:
    """What happened: a name for tables and tags, and a sentence that ends with a remedy."""

    name: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.name}: {self.sentence}"


def diagnose(
    logits: NDArray[np.floating],
    labels: NDArray[np.floating],
    classes: tuple[str, ...],
    decision: Array | None = None,
) -> Collapse | None:
    """What is wrong with a validation pass, `[image, class]` twice; None if nothing is.

    not_finite       some logits are NaN or infinite
    diverged         the logits are absurdly large: half of them beyond 1,000
    constant_logits  every class has the same logit for every image
    all_negative     findings are predicted next to never, because the loss asks for more than 20 to 1 before it says
                     "yes"; only looked for if `decision` tells what the loss asks for, see `decision_posterior`
    """
    finite = np.isfinite(logits)
    if not finite.all():
        return _not_finite(finite, classes)
    median = float(np.median(np.abs(logits)))
    if median > ABSURD:
        return Collapse(
            "diverged",
            f"half of the validation logits are beyond {median:.3g}, where 10 already means 1 in 20,000: "
            "lower optimizer.lr",
        )
    if len(logits) > 1 and _constant(logits):
        return Collapse(
            "constant_logits",
            f"the model answers all {len(logits)} validation images with the same logits: its units are dead or the "
            "images are all alike; lower optimizer.lr, or look at the images",
        )
    return _all_negative(logits, labels > 0, decision) if decision is not None else None


def _constant(logits: NDArray[np.floating]) -> bool:
    level = np.abs(logits.mean(axis=0, dtype=np.float64))
    bound = CONSTANT if level.max() > ANSWERED else ROUNDING
    return bool((logits.std(axis=0, dtype=np.float64) < bound * level).all())


def _not_finite(finite: Truth, classes: tuple[str, ...]) -> Collapse:
    images, columns = (np.flatnonzero(~finite.all(axis=axis)) for axis in (1, 0))
    if len(images) < len(finite):
        where = f"{len(images)} of {len(finite)} validation images, first in row {images[0]}"
        remedy = "look at these images, and try precision fp32"
    else:
        where = f"all validation images ({classes[columns[0]]} and {len(columns) - 1} more classes)"
        remedy = "lower optimizer.lr, or try precision fp32"
    return Collapse("not_finite", f"the logits of {where} are not finite: {remedy}")


def _all_negative(logits: NDArray[np.floating], truth: Truth, decision: Array) -> Collapse | None:
    demanding = (decision > DEMANDING / (DEMANDING + 1)) & truth.any(axis=0)
    predicted, positive = ((of[:, demanding]).mean() if demanding.any() else 0.0 for of in (logits >= 0, truth))
    if not demanding.any() or predicted >= FEW * positive:
        return None
    asked = float(decision[demanding].min())
    return Collapse(
        "all_negative",
        f"{demanding.sum()} of {len(demanding)} findings are predicted in {predicted:.2%} of cases although "
        f"{positive:.2%} are positive: the loss says yes only to a chance above {asked:.1%}; "
        "raise loss.alpha, or what else weighs positives",
    )


def decision_posterior(loss: LossFunction, classes: int) -> Array:
    """The chance of a finding from which on a model at this loss's optimum predicts it at 0.5, `[class]`.

    Where the chance is q, the optimum has q g(1) + (1 - q) g(0) = 0 of the slopes g for a positive and a negative; at
    logit 0 that is q = g(0) / (g(0) - g(1)). BCE: 1/2. BCE with pos_weight w: 1 / (1 + w). Focal loss with any gamma:
    1 - alpha, so that alpha 0.01 says "yes" above 99 % only, while its mean probability may equal the prevalence.
    """
    logits = torch.zeros(2, classes, requires_grad=True)
    targets = torch.stack([torch.zeros(classes), torch.ones(classes)])
    (slopes,) = torch.autograd.grad(loss(logits, targets), logits)
    negative, positive = slopes.double().numpy()
    steepness = negative - positive
    return np.where(steepness > 0, negative / np.where(steepness > 0, steepness, 1), 0.5)


def watched(steps: int) -> int:
    """Of how many steps at an epoch's end `diagnose_training` looks at the gradient: its norm costs a pass over it."""
    return max(1, steps // 4)


def diagnose_training(
    losses: NDArray[np.floating],
    gradient_norms: NDArray[np.floating],
    parameters: int,
    images: Iterable[Tensor] = (),
) -> Collapse | None:
    """What is wrong with an epoch's training; None if nothing is.

    nan_pixels          a loss is not finite, and neither are pixels of `images`
    nan_loss            a loss is not finite, for another reason
    diverged            the mean loss is above 1 and above 100 times the first step's
    gradients_vanished  in the last quarter of the epoch AdamW would not have noticed the gradient (root mean square
                        over the parameters below its epsilon, 1e-8) although there is a loss to lower

    `losses` are those of every step, `gradient_norms` those of the last `watched` at least, `[step]`: the global norm
    before clipping and without a scaler's factor (it may be infinite where the scaler skips a step). `images` are the
    epoch's batches once more, best a generator: they are asked for only if a loss is not finite, so that a healthy
    epoch does not pay.
    """
    loss = float(np.mean(losses, dtype=np.float64))
    if not np.isfinite(loss):
        return _not_finite_loss(losses, images)
    if loss > max(1.0, EXPLODED * losses[0]):
        return Collapse(
            "diverged",
            f"the training loss went from {losses[0]:.3g} at the first step to {loss:.3g} on average: "
            "lower optimizer.lr",
        )
    norm = float(np.median(gradient_norms[-watched(len(losses)) :]))
    if loss > LEARNT and norm < NO_GRADIENT * parameters**0.5:
        return Collapse(
            "gradients_vanished",
            f"the gradient's norm is {norm:.2g} although the loss is {loss:.3g}: the model is saturated or the "
            "precision too low; lower optimizer.lr, or use precision fp32",
        )
    return None


def _not_finite_loss(losses: NDArray[np.floating], images: Iterable[Tensor]) -> Collapse:
    if any(not bool(batch.isfinite().all()) for batch in images):
        return Collapse("nan_pixels", "training images have pixels that are NaN or infinite: prepare the data anew")
    step = int(np.flatnonzero(~np.isfinite(losses))[0]) + 1
    return Collapse(
        "nan_loss",
        f"the training loss is {losses[step - 1]} from step {step} of {len(losses)} on: lower optimizer.lr, clip "
        "gradients, or use precision fp32",
    )

"""Loss gradients of distillation settings, compared by their cosine: which of them would train the same student.

A step moves a student's parameters along J^T g: g is the loss's gradient with respect to its logits, `[image, class]`,
and J says how its logits move with its parameters, which is the same for every loss. If two g have one direction, so
have the steps of every student, whatever its architecture, and AdamW divides their lengths out. So g is compared, which
takes the teacher's logits and no student. J^T g of an untrained student would tell less: all images look alike to it,
and what is left of g is its mean over them, in which most losses agree.

A cosine is of one state of the student: `stages` are some that it passes, and two settings are as near as where they
are farthest apart. Measured at alpha 0.7 on 256 training images (28 November 2026), beside the cosines of J^T g of a
student that was trained at tau 4 for 0, 1 and 4 epochs:

                                           tau 4 and 8   J^T g                 tau 1 and 4   J^T g
    1,500 phantoms, 64 px                  0.988         1.000, 0.998, 0.985   0.764         0.995, 0.972,  0.091
    1,000 NIH radiographs, 96 px           0.999         1.000, 1.000, 0.999   0.838         0.998, 0.979,  0.068
    the same, its teacher overfitted       0.889         0.996, 0.992, 0.926   0.613         0.986, 0.967, -0.096

The teacher's learning rate was 1e-4 and 1e-3 on the radiographs; the second's logits go down to -12. Before the first
step J^T g would take tau 1 and 4 for one point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

#: how far from the classes' log odds to the teacher's logits the last stages are
TOWARDS = 0.5, 0.75

#: a student's logits float `[image, class]` -> scalar
LossOfLogits = Callable[[Tensor], Tensor]


def stages(teacher: Tensor, positives: Tensor, images: int) -> tuple[Tensor, ...]:
    """Logits that a student passes, `[image, class]` each: all zero, as before the first step; each class's log odds in
    the training part, which the first steps learn; half and three quarters of the way from there to the teacher's.

    `teacher` are its logits, `positives` the training images with each class, of `images`.
    """
    odds = torch.logit((positives.to(teacher) + 0.5) / (images + 1)).expand_as(teacher)
    return torch.zeros_like(teacher), odds, *(torch.lerp(odds, teacher, part) for part in TOWARDS)


def directions(loss: LossOfLogits, logits: Sequence[Tensor]) -> Tensor:
    """The gradient at each stage, of length one, `[stage, image * class]`; zero where the loss has none."""
    found = []
    for each in logits:
        student = each.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(student), student)
        found.append(torch.nn.functional.normalize(gradient.double().flatten(), dim=0))
    return torch.stack(found)


def least_cosines(found: Sequence[Tensor]) -> Tensor:
    """Of the `directions` of each setting: the cosine of each two, at the stage where it is least,
    `[setting, setting]`."""
    return torch.stack([stage @ stage.T for stage in torch.stack(tuple(found)).unbind(dim=1)]).amin(dim=0)

"""Class maps: where in an image a model's logit of a finding comes from.

Grad-CAM (Selvaraju et al. 2017) and HiResCAM (Draelos and Carin 2020) at `Hybrid.last`, the backbone's last features
before attention, so that the gradient runs through the attention and the head. Grad-CAM weighs a channel by its mean
gradient; HiResCAM multiplies place by place, so that a map's sum is the logit's own (less a constant) where the head is
linear in the features. Occlusion (Zeiler and Fergus 2014) knows no layer: by how much a logit falls where a patch of
the image is covered.

Maps are float32 `[image, finding, height, width]`, from 0 to their maximum, as large as the image, with one target per
finding and image. Cells are laid where they look (`cells.py`); the grad-cam package stretches the same cells over the
image, which is the same for some backbones and half a cell off for others. A map without anything above 0 is all 0:
the method found nothing that speaks for the finding.

Of an ensemble each member's map is divided by its maximum, and the mean taken: how large gradients are differs from
network to network, and the one with the largest would be the only one seen. (The grad-cam package joins layers so.)
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xlite_search.errors import BadInput
from xlite_search.evaluation.cells import cells_of
from xlite_search.evaluation.occlusion import patches
from xlite_search.model import Model
from xlite_search.models.hybrid import Hybrid

Maps = NDArray[np.float32]
Method = Literal["gradcam", "hirescam"]
METHODS: tuple[Method, ...] = get_args(Method)
#: images, or covered copies of one, that go through the model at once
BATCH = 32


def class_maps(model: Model, images: Tensor, findings: Sequence[int], method: Method = "gradcam") -> Maps:
    """Of images uint8 `[batch, channel, size, size]`, for the findings with these numbers among the model's classes.

    Raises BadInput if a member's backbone gives tokens that are no square grid.
    """
    size = images.shape[-1]
    members = []
    for member in model.models:
        signed = signed_maps(member, images, findings, method)
        members.append(cells_of(member, size).enlarged(signed.clamp(min=0), size))
    if len(members) == 1:
        return _numbers(members[0])
    return _numbers(torch.stack([each / _peaks(each).clamp(min=1e-30) for each in members]).mean(dim=0))


def signed_maps(model: Hybrid, images: Tensor, findings: Sequence[int], method: Method) -> Tensor:
    """One network's maps before anything is cut or enlarged, `[image, finding, rows, columns]` of its last features."""
    kept: list[Tensor] = []

    def at_last(_module: nn.Module, _inputs: tuple[Tensor, ...], features: Tensor) -> Tensor:
        kept.append(features.detach().float().requires_grad_())
        return kept[0]

    handle = model.last.register_forward_hook(at_last)
    try:
        with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
            logits = model(images)
            features = kept[0]
            slopes = [torch.autograd.grad(logits[:, each].sum(), features, retain_graph=True)[0] for each in findings]
    finally:
        handle.remove()
    grid = as_grid(features.detach())
    return torch.stack([_weighed(grid, as_grid(slope), method) for slope in slopes], dim=1)


def _weighed(grid: Tensor, slope: Tensor, method: Method) -> Tensor:
    weights = slope.mean(dim=(2, 3), keepdim=True) if method == "gradcam" else slope
    return (weights * grid).sum(dim=1)


def as_grid(features: Tensor) -> Tensor:
    """`[batch, channel, rows, columns]` of a map, or of tokens that are a square grid."""
    if features.ndim == 4:
        return features
    batch, tokens, channels = features.shape
    side = isqrt(tokens)
    if side**2 != tokens:
        raise BadInput(f"its backbone gives {tokens} tokens, which are no square grid: there is no map of them")
    return features.transpose(1, 2).reshape(batch, channels, side, side)


@torch.no_grad()
def occlusion_maps(model: Model, images: Tensor, findings: Sequence[int], batch: int = BATCH) -> Maps:
    """By how much the logit falls on average over the patches that cover a pixel; 0 where it rises.

    A patch is filled with the image's own mean. It takes 13 x 13 passes an image.
    """
    size = images.shape[-1]
    patch, places = patches(size)
    chosen = list(findings)
    found = torch.zeros(len(images), len(chosen), size, size, device=images.device)
    counts = torch.zeros(size, size, device=images.device)
    for top, left in places:
        counts[top : top + patch, left : left + patch] += 1
    for number, image in enumerate(images):
        whole = model.logits(image[None])[0, chosen]
        mean = image.float().mean(dim=(1, 2), keepdim=True).round().to(torch.uint8)
        for begin in range(0, len(places), batch):
            some = places[begin : begin + batch]
            covered = image.repeat(len(some), 1, 1, 1)
            for copy, (top, left) in zip(covered, some, strict=True):
                copy[:, top : top + patch, left : left + patch] = mean
            falls = whole - model.logits(covered)[:, chosen]
            for fall, (top, left) in zip(falls, some, strict=True):
                found[number, :, top : top + patch, left : left + patch] += fall[:, None, None]
    return _numbers((found / counts).clamp(min=0))


def _peaks(maps: Tensor) -> Tensor:
    return maps.amax(dim=(2, 3), keepdim=True)


def _numbers(maps: Tensor) -> Maps:
    return np.asarray(maps.float().cpu().numpy(), np.float32)

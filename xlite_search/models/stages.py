"""Feature maps of a timm backbone: its stages, and whether it gives a map or bare tokens.

Asked on torch's meta device: exact shapes, nothing computed, no weight drawn, torch's seed left where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Stage:
    """A stage by its index in timm's `forward_intermediates`, and the channels of its map."""

    index: int
    width: int


@dataclass(frozen=True)
class Anatomy:
    """`is_map`: the last features are `[batch, channel, height, width]` in some order, not `[batch, token, channel]`.

    `finer`: the two stages before the last, finest first; empty where timm names fewer than three resolutions.
    """

    is_map: bool
    finer: tuple[Stage, ...]


@cache
def anatomy(backbone: str) -> Anatomy:
    """Of a backbone by timm's name, at the size that it was made for."""
    with torch.device("meta"), torch.no_grad():
        model: Any = timm.create_model(backbone, pretrained=False, num_classes=0).eval()
        images = torch.zeros(1, *model.pretrained_cfg["input_size"])
        last = model.forward_features(images)
        return Anatomy(isinstance(last, Tensor) and last.ndim == 4, _finer(model, images, last))


def _finer(model: Any, images: Tensor, last: Any) -> tuple[Stage, ...]:
    info = getattr(model, "feature_info", [])
    index_of = {stage["reduction"]: index for index, stage in enumerate(getattr(info, "info", info))}
    indices = [index_of[reduction] for reduction in sorted(index_of)][-3:-1]
    if len(indices) < 2 or not isinstance(last, Tensor):
        return ()
    found, maps = model.forward_intermediates(images, indices=indices)
    if found.shape != last.shape or not all(m.ndim == 4 for m in maps):
        return ()
    return tuple(Stage(index, each.shape[1]) for index, each in zip(indices, maps, strict=True))


def last_and_finer(backbone: nn.Module, images: Tensor, finer: tuple[Stage, ...]) -> tuple[Tensor, list[Tensor]]:
    """The last features as the backbone lays them out, and the maps of the finer stages, in one pass."""
    timms: Any = backbone
    if not finer:
        return timms.forward_features(images), []
    last, maps = timms.forward_intermediates(images, indices=[stage.index for stage in finer])
    return last, maps

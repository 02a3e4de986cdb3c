"""Sanity check of class maps (Adebayo et al. 2018): a network with other weights must give other maps.

A method that gives the same ones shows edges of the image and nothing that the network learned. Weights are drawn anew
from the head downwards: the head; the head and the attention; all of it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import nn

from xlite_search.model import Model
from xlite_search.models.hybrid import Hybrid

Depth = Literal["head", "attention", "all"]
DEPTHS: tuple[Depth, ...] = get_args(Depth)
#: from here on half of the ranks' variance is shared: the maps hardly differ
ALIKE = 0.7


def reinitialised(model: Model, depth: Depth, seed: int = 0) -> Model:
    """The same model with weights drawn anew from the head down to this depth, frozen; torch's seed is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return replace(model, models=tuple(_redrawn(member, depth) for member in model.models))


def _redrawn(network: Hybrid, depth: Depth) -> Hybrid:
    device = next(network.parameters()).device
    fresh = copy.deepcopy(network).cpu()
    for part in _parts(fresh, depth):
        for module in part.modules():
            reset: Any = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return fresh.to(device).eval().requires_grad_(False)


def _parts(network: Hybrid, depth: Depth) -> Iterator[nn.Module]:
    yield from (network.classifier, network.scales)
    if depth != "head" and network.attention is not None:
        yield network.attention
    if depth == "all":
        yield network.backbone


def rank_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Spearman's, of two maps `[height, width]`, ties by their mean rank; NaN if either is the same everywhere."""
    first, second = (rankdata(each.ravel()) for each in (one, other))
    first, second = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / scale) if scale else float("nan")

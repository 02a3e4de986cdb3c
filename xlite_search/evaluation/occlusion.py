"""Occlusion maps of an exported model: by how much a finding's logit falls where a patch covers the image.

They know no layer, and need no gradients, so that a graph without PyTorch is enough (Zeiler and Fergus 2014).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

#: side of a patch by the image's, and how many places it has along each side
PATCH, PLACES = 1 / 7, 13

#: prepared images, uint8 `[batch, channel, size, size]`, to logits `[batch, finding]`
Logits = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def patches(size: int) -> tuple[int, list[tuple[int, int]]]:
    """The side of a patch in pixels, and where each begins: top and left."""
    side = max(1, round(size * PATCH))
    starts = np.unique(np.linspace(0, size - side, PLACES).round().astype(int)).tolist()
    return side, [(top, left) for top in starts for left in starts]


def occlusion_map(logits: Logits, image: NDArray[np.uint8], finding: int) -> NDArray[np.float32]:
    """By how much the finding's logit falls on average over the patches that cover a pixel, float32 `[size, size]`; 0
    where it rises. A patch is filled with the image's own mean, by channel.

    It takes 13 x 13 passes.
    """
    size = image.shape[-1]
    side, places = patches(size)
    whole = logits(image[None])[0, finding]
    mean = np.rint(image.mean(axis=(1, 2), keepdims=True)).astype(np.uint8)
    found, counts = np.zeros((2, size, size), np.float32)
    for top, left in places:
        covered, of = image.copy(), np.s_[top : top + side, left : left + side]
        covered[(slice(None), *of)] = mean
        found[of] += whole - logits(covered[None])[0, finding]
        counts[of] += 1
    return np.asarray((found / counts).clip(min=0), np.float32)

"""Cells of a network's last map: where in the image they lie, and a map enlarged accordingly.

A 3 x 3 kernel with stride 2 and padding 1 has its first place on the image's first pixel and not in the middle of its
first two, so that cell i of an EfficientNet looks at pixel 32 i, and not at 32 i + 16. A map that is only
stretched to the image, as is usual, lies up to half a cell too far to the right and down: on drawn radiographs of 128
pixels a small EfficientNet's maxima lay in 0.13 of the boxes so, and in 0.30 where they belong. Kernels as wide as
their stride (ConvNeXt's, patches of a ViT) lie in the middle, and there nothing changes. Networks with TensorFlow's
weights (timm's `tf_...`) pad at the right and below, and cell i looks at pixel 32 i + 31.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xlite_search.models.hybrid import Hybrid


@dataclass(frozen=True)
class Cells:
    """Cell i, from 0, looks at `first + i * step` along x and along y, in pixels from the image's left and top."""

    first: float
    step: float

    @classmethod
    def stretched(cls, size: int, cells: int) -> Cells:
        """Of a map that is stretched to an image of `size` pixels."""
        return cls(size / cells / 2, size / cells)

    def enlarged(self, maps: Tensor, size: int) -> Tensor:
        """Square maps `[image, finding, row, column]`, linear between the cells and flat beyond the outermost."""
        cells = maps.shape[-1]
        at = ((torch.arange(size, device=maps.device) + 0.5 - self.first) / self.step).clamp(0, cells - 1)
        weights = (1 - (at[:, None] - torch.arange(cells, device=maps.device)).abs()).clamp(min=0)
        return weights @ maps @ weights.T


class Grid(NamedTuple):
    """How coarse a map is: cells along a side, and pixels of the image along a side of a cell."""

    side: int
    pixels: float

    @property
    def words(self) -> str:
        return f"{self.side} x {self.side} cells of {self.pixels:g} px"


def grids_of(networks: Iterable[Hybrid], size: int) -> list[Grid]:
    """Those of an ensemble's members, each once, the finest first."""
    found = {Grid(_strides(network, size)[1], cells_of(network, size).step) for network in networks}
    return sorted(found, key=lambda grid: (grid.pixels, -grid.side))


@dataclass(frozen=True)
class _Stride:
    """A layer with a stride: sides of its input and output, the stride, and on which place of its input its first
    output is centred."""

    before: int
    after: int
    stride: int
    centre: float


@torch.no_grad()
def cells_of(network: Hybrid, size: int) -> Cells:
    """Of images of `size` pixels, by the layers with a stride that make one side of another.

    Layers beside each other (a block, and its shortcut, which a ResNet-D pools) count by their mean. Where no such
    layer is found, as where a reshape joins places, cells are taken to lie in the middle of what they cover.
    """
    found, sides = _strides(network, size)
    first, step, side = 0.0, 1.0, size
    while side > sides:
        here = [each for each in found if each.before == side and sides <= each.after < side]
        if here:
            after, stride = here[0].after, here[0].stride
            same = [each.centre for each in here if each.after == after]
            centre = sum(same) / len(same)
        else:
            after = max((each.before for each in found if sides <= each.before < side), default=sides)
            stride = round(side / after)
            centre = (stride - 1) / 2
        first, step, side = first + step * centre, step * stride, after
    return Cells(first + 0.5, step)


def _strides(network: Hybrid, size: int) -> tuple[list[_Stride], int]:
    """The layers with a stride, in the order in which they are used, and the side of the last map."""
    found: list[_Stride] = []
    last: list[Tensor] = []

    def used(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kernel, stride, padding, dilation = (
            _first(getattr(module, name, 1)) for name in ("kernel_size", "stride", "padding", "dilation")
        )
        if stride > 1 and inputs[0].ndim == output.ndim == 4 and inputs[0].shape[-1] > output.shape[-1] > 1:
            before, after = inputs[0].shape[-1], output.shape[-1]
            if type(module).__name__.endswith("Same"):  # timm's, of TensorFlow's weights: by the size of its input
                padding = max((after - 1) * stride + dilation * (kernel - 1) + 1 - before, 0) // 2
            found.append(_Stride(before, after, stride, dilation * (kernel - 1) / 2 - padding))

    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    handles = [each.register_forward_hook(used) for each in network.backbone.modules() if isinstance(each, kinds)]
    handles.append(network.last.register_forward_hook(lambda _module, _inputs, output: last.append(output)))
    try:
        device = next(network.parameters()).device
        network(torch.zeros(1, 1, size, size, dtype=torch.uint8, device=device))
    finally:
        for handle in handles:
            handle.remove()
    tokens = last[0]
    return found, tokens.shape[-1] if tokens.ndim == 4 else round(tokens.shape[1] ** 0.5)


def _first(value: Any) -> int:
    """Of a setting that is a number, or one for each axis; padding by a word ("same") is none at the beginning."""
    value = value[0] if isinstance(value, tuple) else value
    return value if isinstance(value, int) else 0

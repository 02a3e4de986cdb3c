"""Trace of a model on torch's meta device: which parts get a gradient, and which layers break a CPU's memory.

Exact shapes, no weight drawn, torch's seed left where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Idle:
    """What has no part in an answer, by name.

    modules     the outermost that nothing calls and none of whose parameters has a gradient: they can be taken out
    parameters  those of them, and others that never get a gradient
    """

    modules: tuple[str, ...]
    parameters: tuple[str, ...]


def idle_parts(make: Callable[[], nn.Module], size: tuple[int, int]) -> Idle:
    """Of a model of images `[batch, 1, *size]`; RGB differs in none of this.

    Raises whatever the model raises of such images; timm's raise anything: of shapes, of asserts, of lists where they
    have no map.
    """
    with torch.device("meta"):
        model, called = make(), set[str]()
        for name, module in model.named_modules():
            module.register_forward_hook(lambda _module, _inputs, _output, name=name: called.add(name))
        images = torch.zeros(2, 1, *size, dtype=torch.uint8)
        with torch.no_grad():
            model.eval()(images)
        torch.autograd.backward(model.train()(images).sum())
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    modules = list[str]()
    for name, module in model.named_modules():
        own = [f"{name}.{parameter}" for parameter, _ in module.named_parameters()]
        parts = {f"{name}.{part}" for part, _ in module.named_modules() if part} | {name}
        if (
            own
            and set(own) <= set(idle)
            and not parts & called
            and not name.startswith(tuple(f"{m}." for m in modules))
        ):
            modules.append(name)
    return Idle(tuple(modules), tuple(idle))


def breaks_memory(model: nn.Module) -> bool:
    """Whether training it in channels-last layout on a CPU writes outside its memory, or reads there.

    oneDNN's backward pass does for strided 1 x 1 convolutions of fewer than 16 channels (torch 2.14: a segmentation
    fault at 3, 8 and 15), such as the stems of MobileOne and FastViT have.
    """
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    return any(c.kernel_size == (1, 1) and max(c.stride) > 1 and c.in_channels // c.groups < 16 for c in convolutions)

"""Hybrid models `<backbone>_<attention>`: a timm backbone, attention on its last feature map, two linear layers.

This is the lab's hybrid: efficientnet_b0_mhsa has 11.395 M parameters, convnext_tiny_mhsa 30.483 M. No norm layer is
added; ConvNeXt's own last norm is applied to its feature map. `mhsa` and `performer` are residual over the map's
tokens; `se` (Hu et al. 2018) and `cbam` (Woo et al. 2018) multiply the map, as in their papers. The stem has three
channels, so that ImageNet weights fit, for gray images and for RGB: a gray image is repeated, on the device, and every
channel gets its own mean and deviation, those that the backbone was made with (ImageNet's). Only what receives
gradients is kept and counted: what a backbone carries behind its last map (MobileNetV3's `conv_head`) is taken out.

`<backbone>_<attention>_ms` is multi-scale: the maps of the two stages before the last are averaged too, brought to one
scale by a LayerNorm each (with ImageNet weights they are up to eight times larger), and put beside the last.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import timm
import torch
from timm.layers import SEModule
from timm.layers.cbam import CbamModule
from torch import Tensor, nn

from xlite_search.errors import BadInput, did_you_mean
from xlite_search.models.attention import MultiHeadSelfAttention, Performer
from xlite_search.models.stages import Stage, anatomy, last_and_finer
from xlite_search.models.trace import Idle, breaks_memory, idle_parts
from xlite_search.models.weights import Weights, expect_fit, load_backbone

BACKBONES = {
    "efficientnet_b0": "efficientnet_b0",
    "convnext_tiny": "convnext_tiny",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
}
ATTENTIONS: dict[str, Callable[[int], nn.Module] | None] = {
    "none": None,
    "mhsa": MultiHeadSelfAttention,
    "performer": Performer,
    "se": SEModule,
    "cbam": CbamModule,
}
GATES = (SEModule, CbamModule)
MULTI_SCALE = "_ms"
HYBRIDS = tuple(f"{backbone}_{attention}" for backbone in BACKBONES for attention in ATTENTIONS)
#: where timm keeps the classifier, which files of weights may have and a hybrid has not
HEADS = ("classifier.", "fc.", "head.fc.", "head.")


class Hybrid(nn.Module):
    """Gray or RGB images, uint8 `[batch, 1 or 3, height, width]`, to logits `[batch, class]`; one model takes both."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        attention: Callable[[int], nn.Module] | None,
        classes: int,
        finer: tuple[Stage, ...] = (),
    ) -> None:
        super().__init__()
        features: Any = backbone
        width = int(features.num_features)
        pooled = width + sum(stage.width for stage in finer)
        self.backbone, self.finer = backbone, finer
        self.attention = attention(width) if attention else None
        self.last = nn.Identity()  # the last features pass through it: where a hook can see them
        self.scales = nn.ModuleList(nn.LayerNorm(stage.width) for stage in finer)
        self.classifier = nn.Sequential(nn.Linear(pooled, width // 2), nn.GELU(), nn.Linear(width // 2, classes))
        statistics = features.pretrained_cfg
        self.channels_last = not breaks_memory(backbone)
        self.register_buffer("mean", torch.tensor(statistics["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(statistics["std"]).view(1, 3, 1, 1), persistent=False)

    @property
    def layout(self) -> torch.memory_format:
        """How its weights and images lie in memory. (An attribute would keep torch.save from saving it whole.)"""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def forward(self, images: Tensor) -> Tensor:
        last, finer = self.features(self.normalised(images))
        pooled = [norm(each.mean(dim=(2, 3))) for norm, each in zip(self.scales, finer, strict=True)]
        logits: Tensor = self.classifier(torch.cat([*pooled, self.attended(self.last(last)).mean(dim=1)], dim=1))
        return logits

    def normalised(self, images: Tensor) -> Tensor:
        """What the backbone was made for: three channels, its own mean and deviation, channels last where it can. One
        channel becomes three here: it is measured by each of the three means and deviations."""
        scaled = (images.float() / 255 - self.mean) / self.std
        return scaled.contiguous(memory_format=torch.channels_last if images.is_cuda else self.layout)

    def attended(self, features: Tensor) -> Tensor:
        """The last features after attention, `[batch, token, channel]`."""
        if isinstance(self.attention, GATES):
            return as_tokens(self.attention(features))
        tokens = as_tokens(features)
        return tokens if self.attention is None else tokens + self.attention(tokens)

    def tokens(self, images: Tensor) -> Tensor:
        """The places of the last feature map before attention, `[batch, token, channel]`."""
        return as_tokens(self.features(images)[0])

    def features(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last features, normed if the backbone norms them there, and the finer maps if it is multi-scale.

        Maps are `[batch, channel, height, width]`; a backbone without one gives `[batch, token, channel]`.
        """
        backbone: Any = self.backbone
        last, finer = last_and_finer(backbone, images, self.finer)
        norm = getattr(getattr(backbone, "head", None), "norm", None)
        if norm is not None and not _is_behind_pooling(norm, backbone.num_features):
            last = norm(last)
        if last.ndim == 3:
            return last[:, getattr(backbone, "num_prefix_tokens", 0) :], finer
        if last.shape[1] != backbone.num_features:
            last = last.permute(0, 3, 1, 2)
        return last, finer


def _is_behind_pooling(norm: nn.Module, width: int) -> bool:
    """A norm of another width than the features is that of a classifier's hidden layer."""
    weight = getattr(norm, "weight", None)
    return weight is not None and len(weight) != width


def as_tokens(features: Tensor) -> Tensor:
    return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features


class Parts(NamedTuple):
    """A hybrid's name, taken apart."""

    backbone: str
    attention: str
    multi_scale: bool


def full_name(name: str) -> str:
    """`<backbone>_<attention>`, with `_none` added where no attention is named; `_ms` stays last.

    Raises:
        BadInput: neither the lab's names nor timm know the backbone, or it lacks what `_se`, `_cbam` or `_ms` needs.
    """
    backbone, attention, multi_scale = split_name(name)
    if not (backbone in BACKBONES or timm.is_model(backbone)):
        raise BadInput(f"unknown backbone '{backbone}'{_suggestion(name)}")
    if ATTENTIONS[attention] in GATES and not anatomy(timm_name(name)).is_map:
        raise BadInput(f"model '{name}': _{attention} wants a feature map, '{backbone}' gives tokens; use _mhsa")
    if multi_scale and not anatomy(timm_name(name)).finer:
        raise BadInput(f"model '{name}': '{backbone}' has not three stages to pool; leave {MULTI_SCALE} off")
    return f"{backbone}_{attention}{MULTI_SCALE if multi_scale else ''}"


def _suggestion(name: str) -> str:
    """The nearest name, the lab's before timm's; of the whole where no attention was understood."""
    backbone, attention, multi_scale = split_name(name)
    whole = [hybrid + MULTI_SCALE * multi_scale for hybrid in HYBRIDS] if attention == "none" else []
    choices = ", ".join(f"_{attention}" for attention in ATTENTIONS)
    return (
        did_you_mean(name if whole else backbone, [*BACKBONES, *whole])
        or did_you_mean(backbone, timm.list_models())
        or f"; any of timm's names will do, with one of {choices} behind, and {MULTI_SCALE} for multi-scale"
    )


def split_name(name: str) -> Parts:
    stem = name.removesuffix(MULTI_SCALE)
    backbone, _, attention = stem.rpartition("_")
    known = attention in ATTENTIONS and backbone
    return Parts(backbone if known else stem, attention if known else "none", stem != name)


def timm_name(name: str) -> str:
    """timm's name of a hybrid's backbone."""
    backbone = split_name(name).backbone
    return BACKBONES.get(backbone, backbone)


def build_model(name: str, *, classes: int, weights: Weights | None = None) -> Hybrid:
    """A hybrid by its name, initialised from torch's current seed, its backbone from `weights` if given.

    What never gets a gradient is taken out, and frozen where it cannot be.

    Raises:
        BadInput: the weights do not fit the backbone. Names are checked by `full_name`.
    """
    model = _assembled(name, classes)
    idle = _idle(name)
    for path in idle.modules:
        model.set_submodule(path, nn.Identity())
    for path, parameter in model.named_parameters():
        parameter.requires_grad_(path not in idle.parameters)
    if weights is not None:
        load_backbone(model.backbone, weights, _foreign_to(name))
    return model.to(memory_format=model.layout)


def expect_weights(name: str, weights: Weights, setting: str = "weights") -> None:
    """Raises BadInput if a hybrid's weights are in a file that is not there, or is not its backbone's.

    Reads the file's header alone, and asks no network: what the hub has is not looked at.
    """
    path = weights.local_file(timm_name(name), setting)
    if path is not None:
        with torch.device("meta"):
            backbone = build_model(name, classes=1).backbone
        expect_fit(backbone, path, _foreign_to(name), f"{setting} = {weights.path}: for model '{name}'")


def _foreign_to(name: str) -> tuple[str, ...]:
    """What a file of timm's weights may have and a hybrid has not: the classifier, and what was taken out."""
    return (*HEADS, *(f"{path.removeprefix('backbone.')}." for path in _idle(name).modules))


def _assembled(name: str, classes: int) -> Hybrid:
    parts = split_name(name)
    backbone = timm.create_model(timm_name(name), pretrained=False, num_classes=0)
    finer = anatomy(timm_name(name)).finer if parts.multi_scale else ()
    return Hybrid(backbone, ATTENTIONS[parts.attention], classes, finer)


@cache
def _idle(name: str) -> Idle:
    """At the size that the backbone was made for; of a model that cannot be trained at all, nothing."""
    size = made_for(name)
    return _traced(name, size) or Idle((), ())


def takes_images(name: str, size: tuple[int, int]) -> bool:
    """Whether a hybrid can be trained on images of that height and width."""
    return _traced(name, size) is not None


@cache
def _traced(name: str, size: tuple[int, int]) -> Idle | None:
    """What of a hybrid is idle at that height and width; None if it cannot be trained on such images."""
    try:
        return idle_parts(lambda: _assembled(name, 1), size)
    except Exception:
        return None


@cache
def made_for(name: str) -> tuple[int, int]:
    """Height and width of the images that timm made a hybrid's backbone for."""
    with torch.device("meta"):
        backbone: Any = timm.create_model(timm_name(name), pretrained=False, num_classes=0)
    _, height, width = backbone.pretrained_cfg["input_size"]
    return int(height), int(width)


def expect_size(name: str, size: int) -> None:
    """Raises BadInput if a hybrid cannot be trained on images of `size` pixels; computes nothing."""
    if takes_images(name, (size, size)):
        return
    height, width = made_for(name)
    if not takes_images(name, (height, width)):
        raise BadInput(f"model '{name}' cannot be trained here: its backbone gives no feature map; choose another")
    raise BadInput(
        f"model '{name}' cannot be trained on images of {size} pixels: it is made for {height} x {width}. Prepare the "
        f"data with --size {max(height, width)}, or choose another model"
    )


def expect_channels(channels: int, data: str) -> None:
    """Raises BadInput unless a hybrid's stem takes the images of a data set: gray, or RGB."""
    if channels not in (1, 3):
        raise BadInput(
            f"data set '{data}' has images of {channels} channels; models here take 1 (gray) or 3 (RGB): prepare it "
            "with --channels 1 or 3"
        )


def parameters(model: nn.Module) -> int:
    """How many numbers training changes: what never gets a gradient is not counted."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)

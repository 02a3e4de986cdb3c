"""`<backbone>_<attention>`: a timm backbone, attention on its last feature map, Linear(C, C/2), GELU, Linear(C/2, 14).

This is the lab's hybrid: efficientnet_b0_mhsa has 11.395 M parameters, convnext_tiny_mhsa 30.483 M. No norm layer is
added; ConvNeXt's own last norm is applied to its feature map. Attention is residual. The stem has three channels, so
that ImageNet weights fit; the gray image is normalised and repeated on the device. Only what receives gradients is
kept: timm's MobileNetV3 carries an unused `conv_head` behind the last map, which is removed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import Tensor, nn

from xlite_search.errors import BadInput, did_you_mean
from xlite_search.models.attention import MultiHeadSelfAttention, Performer
from xlite_search.models.weights import Weights, load_backbone

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
}
UNUSED = ("conv_head", "norm_head", "act2")


class Hybrid(nn.Module):
    """Gray images uint8 `[batch, 1, height, width]` to logits `[batch, class]`."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, attention: Callable[[int], nn.Module] | None, classes: int) -> None:
        super().__init__()
        features: Any = backbone
        width = int(features.num_features)
        self.backbone = backbone
        self.attention = attention(width) if attention else None
        self.classifier = nn.Sequential(nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, classes))
        statistics = features.pretrained_cfg
        self.register_buffer("mean", torch.tensor(statistics["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(statistics["std"]).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.tokens(self.normalised(images))
        if self.attention is not None:
            tokens = tokens + self.attention(tokens)
        logits: Tensor = self.classifier(tokens.mean(dim=1))
        return logits

    def normalised(self, images: Tensor) -> Tensor:
        """What the backbone was made for: three channels, its own mean and deviation, channels last."""
        scaled = (images.float() / 255 - self.mean) / self.std
        return scaled.contiguous(memory_format=torch.channels_last)

    def tokens(self, images: Tensor) -> Tensor:
        """The last feature map, normed if the backbone norms it there, as `[batch, token, channel]`."""
        backbone: Any = self.backbone
        features: Tensor = backbone.forward_features(images)
        norm = getattr(getattr(backbone, "head", None), "norm", None)
        if norm is not None:
            features = norm(features)
        if features.ndim == 3:
            return features[:, getattr(backbone, "num_prefix_tokens", 0) :]
        if features.shape[1] != backbone.num_features:
            features = features.permute(0, 3, 1, 2)
        return features.flatten(2).transpose(1, 2)


def full_name(name: str) -> str:
    """`<backbone>_<attention>`, with `_none` added where no attention is named.

    Raises:
        BadInput: neither the lab's names nor timm know the backbone.
    """
    backbone, attention = split_name(name)
    known = backbone in BACKBONES or timm.is_model(backbone)
    if not known:
        hint = did_you_mean(backbone, BACKBONES) or did_you_mean(backbone, timm.list_models())
        raise BadInput(
            f"unknown backbone '{backbone}'{hint or ';'} any of timm's names will do, with _mhsa or _performer behind"
        )
    return f"{backbone}_{attention}"


def split_name(name: str) -> tuple[str, str]:
    backbone, _, attention = name.rpartition("_")
    return (backbone, attention) if attention in ATTENTIONS and backbone else (name, "none")


def timm_name(name: str) -> str:
    """timm's name of a hybrid's backbone."""
    backbone, _ = split_name(name)
    return BACKBONES.get(backbone, backbone)


def build_model(name: str, *, classes: int, weights: Weights | None = None) -> Hybrid:
    """A hybrid by its name, initialised from torch's current seed, its backbone from `weights` if given.

    Raises:
        BadInput: the backbone is unknown, or the weights do not fit it.
    """
    _, attention = split_name(name)
    backbone = timm.create_model(timm_name(name), pretrained=False, num_classes=0)
    heads: tuple[str, ...] = ("classifier.", "fc.", "head.fc.", "head.")
    if isinstance(backbone, timm.models.MobileNetV3):
        for part in UNUSED:
            if hasattr(backbone, part):
                setattr(backbone, part, nn.Identity())
        heads = (*heads, *(f"{part}." for part in UNUSED))
    if weights is not None:
        load_backbone(backbone, weights, heads)
    return Hybrid(backbone, ATTENTIONS[attention], classes).to(memory_format=torch.channels_last)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())

"""An exported model's weights for PyTorch: `model.safetensors` with `config.json`.

A plain timm backbone, without attention and scales, is written as timm's `local-dir:` reads it:

    timm.create_model("local-dir:DIR", pretrained=True).forward_features(images)

gives our last feature map; our two linear layers lie beside it as `xlite.classifier.*`, which timm leaves out (it says
so). Any other hybrid keeps the names that `build_model` gives, an ensemble's with `members.N.` before them.
"""

from __future__ import annotations

import json
from typing import Any

import safetensors.torch
from torch import Tensor

from xlite_search.model import Model
from xlite_search.models.hybrid import split_name, timm_name

#: of what timm says of a backbone, what its reader needs
TIMM = ("input_size", "interpolation", "crop_pct", "mean", "std", "pool_size", "first_conv", "fixed_input_size")
OWN, BACKBONE = "xlite.", "backbone."


def is_plain(model: Model) -> bool:
    """Whether it is one timm backbone with our classifier alone."""
    return _is_plain(model.manifest.model, len(model.models))


def reads_with(hybrid: str, members: int) -> str:
    """Which library makes a model of an exported folder: timm of a plain backbone's, else onnxruntime of its graph."""
    return "timm" if _is_plain(hybrid, members) else "onnx"


def _is_plain(hybrid: str, members: int) -> bool:
    parts = split_name(hybrid)
    return members == 1 and parts.attention == "none" and not parts.multi_scale


def tensors_of(model: Model) -> dict[str, Tensor]:
    """The weights by their names in the file."""
    if is_plain(model):
        named = model.models[0].state_dict().items()
        return {name.removeprefix(BACKBONE) if name.startswith(BACKBONE) else OWN + name: at for name, at in named}
    if len(model.models) == 1:
        return dict(model.models[0].state_dict())
    return {
        f"members.{number}.{name}": tensor
        for number, member in enumerate(model.models)
        for name, tensor in member.state_dict().items()
    }


def config_of(model: Model) -> dict[str, Any]:
    """`config.json`: timm's for a plain backbone, else ours."""
    about = model.manifest
    own = {
        "model": about.model,
        "models": [name for name in about.model.split(" + ") if name],
        "classes": list(about.classes),
        "pos_weight": [None if weight is None else weight.tolist() for weight in model.pos_weights],
        "input": about.input,
    }
    if not is_plain(model):
        return {"library": "xlite_search", **own}
    backbone: Any = model.models[0].backbone
    said = {name: backbone.pretrained_cfg[name] for name in TIMM if backbone.pretrained_cfg.get(name) is not None}
    classifier = backbone.pretrained_cfg.get("classifier") or f"{OWN}classifier.2"
    return {
        "architecture": timm_name(about.model),
        "num_classes": len(about.classes),
        "num_features": backbone.num_features,
        "label_names": list(about.classes),
        "model_args": {"num_classes": 0},  # the head is ours, under names that timm does not know
        "pretrained_cfg": {**said, "num_classes": len(about.classes), "classifier": classifier},
        "xlite": own,
    }


def weight_files(model: Model) -> tuple[bytes, bytes]:
    """The content of `model.safetensors` and of `config.json`."""
    tensors = {name: tensor.contiguous().clone() for name, tensor in tensors_of(model).items()}
    weights = safetensors.torch.save(tensors, {"format": "pt"})
    return bytes(weights), json.dumps(config_of(model), indent=1).encode()

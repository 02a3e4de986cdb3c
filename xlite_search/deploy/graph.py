"""A delivered model as one ONNX graph: uint8 images in, logits and calibrated probabilities out.

It is written by torch's dynamo exporter with two images, for one fixes the batch size to one, and with a free batch
size. All members of an ensemble are in one graph, their logits' mean is what goes out. The calibration's line is its
last layer: probability = sigmoid(slope x logit + offset).
"""

from __future__ import annotations

import importlib.util
import io
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xlite_search.deploy.folder import IMAGES, INSTALL, LOGITS, PROBABILITIES
from xlite_search.errors import BadInput
from xlite_search.model import Model
from xlite_search.training.metrics import sigmoid

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
SLOPE, OFFSET = "slope", "offset"
#: images that it is exported with
EXAMPLE = 2


@dataclass(frozen=True)
class Line:
    """A calibration: probability = sigmoid(slope x logit + offset), `[class]` each; `hash` names it, empty for none."""

    slope: NDArray[np.float64]
    offset: NDArray[np.float64]
    hash: str = ""

    @classmethod
    def none(cls, classes: int) -> Line:
        """Probabilities are the sigmoid of the logits."""
        return cls(np.ones(classes), np.zeros(classes))

    def probabilities(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Of logits `[..., class]`, in double precision."""
        return sigmoid(self.slope * logits + self.offset)


class Served(nn.Module):
    """A model's members with what their losses' pos_weight moved undone, and the calibration's line."""

    log_pos_weight: Tensor
    slope: Tensor
    offset: Tensor

    def __init__(self, model: Model, line: Line) -> None:
        super().__init__()
        self.members = nn.ModuleList(model.models)
        nothing = torch.ones(len(model.classes))
        moved = torch.stack([nothing if weight is None else weight for weight in model.pos_weights]).log()
        self.register_buffer("log_pos_weight", moved)
        self.register_buffer(SLOPE, torch.from_numpy(line.slope).float())
        self.register_buffer(OFFSET, torch.from_numpy(line.offset).float())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        members = [member(images) - moved for member, moved in zip(self.members, self.log_pos_weight, strict=True)]
        logits = torch.stack(members).mean(dim=0)
        return logits, torch.sigmoid(self.slope * logits + self.offset)


def expect_packages() -> None:
    """Raises BadInput if what writes and runs ONNX is not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise BadInput(f"export needs {', '.join(missing)}, which is not installed: {INSTALL}")


def example_of(model: Model) -> Tensor:
    """Images that a model takes, uint8 `[2, channel, size, size]`."""
    shape = (EXAMPLE, model.preprocess.channels, model.preprocess.size, model.preprocess.size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def to_onnx(model: Model, line: Line, properties: Mapping[str, Any]) -> bytes:
    """The graph with `properties` as its metadata, JSON each; where the code lies that made it is left out.

    Raises BadInput if torch cannot export this model.
    """
    served = Served(model, line).eval()
    try:
        with warnings.catch_warnings(action="ignore"):
            program = torch.onnx.export(
                served,
                (example_of(model),),
                dynamo=True,
                verbose=False,
                input_names=[IMAGES],
                output_names=[LOGITS, PROBABILITIES],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
        assert program is not None
        proto = program.model_proto
    except Exception as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(f"'{model.manifest.model}' cannot be exported to ONNX: {why}") from error
    return _finished(proto, properties)


def _finished(proto: Any, properties: Mapping[str, Any]) -> bytes:
    graph = proto.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph, proto):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    for name, value in properties.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = name, value if isinstance(value, str) else json.dumps(value)
    return bytes(proto.SerializeToString(deterministic=True))


def to_pt2(model: Model, line: Line) -> bytes:
    """A program of `torch.export`. Loading it runs pickle."""
    out = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        program = torch.export.export(
            Served(model, line).eval(), (example_of(model),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        torch.export.save(program, out)
    return out.getvalue()

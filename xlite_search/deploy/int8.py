"""An exported graph in 8 bits (onnxruntime's static QDQ), written only if it loses next to nothing.

Weights are int8 per channel, activations uint8 by their range in 300 training images; the first and the last layer
stay in float32, and so does everything that is no convolution and no matrix product. The calibration's line is fitted
anew on the validation part, for the logits are others. Whether the 8-bit model is offered is decided there, too: by how
much AUROC it loses to the float one on the same images, with an interval by patient. A model that was trained on the
validation part as well keeps the float graph's line, and what it loses is said to be of patients that it knows.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xlite_search.deploy.folder import IMAGES, INT8, LOGITS, ONNX
from xlite_search.deploy.graph import OFFSET, SLOPE, Line
from xlite_search.deploy.predict import open_session
from xlite_search.errors import BadInput
from xlite_search.evaluation.calibration import fit
from xlite_search.evaluation.scored import data_of, part_of, scored
from xlite_search.model_folder import seen_among
from xlite_search.results.inference import half_widths, joint
from xlite_search.results.influence import influence

if TYPE_CHECKING:
    import torch

    from xlite_search.data.dataset import Data, Part
    from xlite_search.evaluation.calibration import Calibration
    from xlite_search.evaluation.calibration import Line as Fitted
    from xlite_search.model_folder import ModelManifest

#: training images that the activations' ranges are taken from, and what goes through onnxruntime at once
CALIBRATED_ON, BATCH = 300, 32
#: the most that may be lost: of macro AUROC (upper end of its interval), of any finding's; and its part of the size
MACRO, FINDING, SIZE = 0.002, 0.01, 0.30
#: layers that are computed in 8 bits
LAYERS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Gate:
    """What an 8-bit model loses on the validation part.

    loss, upper     of macro AUROC, and the upper end of its 95 % interval by patient
    finding, worst  the finding that loses most AUROC, and how much
    size            bytes of its graph by those of the float one
    seen            patients of these images that the model was trained on
    """

    loss: float
    upper: float
    finding: str
    worst: float
    size: float
    images: int
    seen: int = 0

    @property
    def failed(self) -> tuple[str, ...]:
        """Each criterion that it fails, with figure and limit. A figure that is no number fails."""
        most = f"up to {self.upper:.3g}" if np.isfinite(self.upper) else "an unknown part, with so few patients,"
        criteria = (
            (self.upper, MACRO, f"it may lose {most} of macro AUROC (limit {MACRO:g})"),
            (self.worst, FINDING, f"it loses {self.worst:.3g} of the AUROC of {self.finding} (limit {FINDING:g})"),
            (self.size, SIZE, f"it has {self.size:.2%} of the float graph's size (limit {SIZE:.0%})"),
        )
        return tuple(said for figure, limit, said in criteria if not figure <= limit)

    @property
    def passed(self) -> bool:
        return not self.failed

    def __str__(self) -> str:
        """Whether it is offered, and why; to be read after "int8 is"."""
        kept = (
            f"offered: it loses {self.loss:.4f} of macro AUROC, at most {self.upper:.4f} (limit {MACRO:g}), and "
            f"{self.worst:.4f} of {self.finding} (limit {FINDING:g}), at {self.size:.1%} of the size (limit {SIZE:.0%})"
        )
        return (f"not offered: {'; '.join(self.failed)}" if self.failed else kept) + self._judged_on

    @property
    def _judged_on(self) -> str:
        if not self.seen:
            return ""
        return (
            f". It was judged on images of {self.seen:,} patients whom the model was trained on, and may lose more on "
            "others"
        )


def in_8_bits(
    home: Path, folder: Path, about: ModelManifest, calibration: Calibration | None, device: torch.device | None
) -> Gate:
    """Leaves in `home`, beside the float graph, the 8-bit one if it may be offered, of the model of `folder`.

    Its calibration is fitted anew where the validation part is new to the model. Raises as `data_of` and `scored`.
    """
    import torch

    data = data_of(about)
    judged = scored(folder, data, "val", device or torch.device("cpu"))
    rows = np.sort(np.random.default_rng(0).permutation(data.train.rows)[:CALIBRATED_ON])
    graph = home / INT8
    quantised(home / ONNX, np.array(data.packed.pixels[rows]), graph)
    eight = logits_of(graph, part_of(data, "val"))[:, [about.classes.index(name) for name in judged.classes]]
    size = graph.stat().st_size / (home / ONNX).stat().st_size
    found = gate(judged.logits, eight, judged.truth, judged.groups, judged.classes, size)
    found = replace(found, seen=_seen(about, data, judged.rows))
    if not found.passed:
        graph.unlink()
    elif calibration and not found.seen:
        lines = fit(eight, judged.truth, calibration.method)
        with_line(graph, _line(about.classes, judged.classes, *lines))
    return found


def _seen(about: ModelManifest, data: Data, rows: NDArray[np.int64]) -> int:
    """How many patients of some rows the model was trained on: those its manifest names, and those its data say."""
    groups = data.packed.table.groups
    fitted = {groups[row] for row in data.train.rows} & {groups[row] for row in rows}
    return len(fitted.union(seen_among(about.trained_on, data, rows.tolist())))


def _line(classes: Sequence[str], known: Sequence[str], pooled: Fitted, lines: Sequence[Fitted]) -> Line:
    """The lines of all findings; one that the data do not have takes the pooled one."""
    fitted = dict(zip(known, lines, strict=True))
    chosen = [fitted.get(name, pooled) for name in classes]
    return Line(np.array([line.slope for line in chosen]), np.array([line.offset for line in chosen]))


def quantised(graph: Path, images: NDArray[np.uint8], output: Path) -> None:
    """Writes the 8-bit graph; `images` are prepared training images, uint8 `[image, channel, size, size]`.

    Raises BadInput if there is nothing between the first and the last layer.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    shaped = output.with_suffix(".shaped")
    try:
        with _quiet():
            quant_pre_process(graph, shaped, skip_symbolic_shape=True)
            layers = [node.name for node in onnx.load(shaped).graph.node if node.op_type in LAYERS]
            if len(layers) <= 2:
                raise BadInput("int8: the model has no layer between its first and its last one")
            quantize_static(
                shaped,
                output,
                _Reader(images),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=list(LAYERS),
                nodes_to_exclude=[layers[0], layers[-1]],
            )
    finally:
        shaped.unlink(missing_ok=True)


class _Reader:
    """Images one after the other, as onnxruntime asks for them."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._waiting = iter(images)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        image = next(self._waiting, None)
        return None if image is None else {IMAGES: image[None]}


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime advises, through the root logger, to do what is being done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def with_line(graph: Path, line: Line) -> None:
    """Puts another calibration's line into a graph. Raises BadInput if it has no line of its own to replace."""
    import onnx
    from onnx import numpy_helper

    proto = onnx.load(graph)
    places = {each.name: each for each in proto.graph.initializer}
    for name, values in ((SLOPE, line.slope), (OFFSET, line.offset)):
        if name not in places:
            raise BadInput(f"int8: the exporter left no '{name}' in the graph: the calibration cannot be fitted anew")
        places[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    graph.write_bytes(proto.SerializeToString(deterministic=True))


def logits_of(graph: Path, part: Part, counter: Callable[[int, int], None] | None = None) -> NDArray[np.float32]:
    """A graph's logits of a part's images, `[image, class]`."""
    session: Any = open_session(graph)
    found = []
    for start in range(0, len(part), BATCH):
        images = np.array(part.packed.pixels[part.rows[start : start + BATCH]])
        found.append(session.run([LOGITS], {IMAGES: images})[0])
        if counter:
            counter(min(start + BATCH, len(part)), len(part))
    return np.concatenate(found)


def gate(
    whole: NDArray[np.floating],
    eight: NDArray[np.floating],
    truth: NDArray[np.bool_],
    groups: NDArray[np.int64],
    classes: Sequence[str],
    size: float,
) -> Gate:
    """Float and 8-bit logits of the same images, `[image, finding]`, held against each other.

    A finding without positives or without negatives does not count; with none left, nothing is known, and lost.
    """
    both = np.asarray(truth.any(axis=0) & ~truth.all(axis=0))
    if not both.any():
        return Gate(float("inf"), float("inf"), classes[0], float("inf"), size, len(truth))
    runs = [influence(logits[:, both], truth[:, both], groups) for logits in (whole, eight)]
    lost = runs[0].score - runs[1].score
    half = float(half_widths(np.array([[1.0, -1.0]]), joint(runs))[0])
    worst = int(np.argmax(lost))
    names = [name for name, there in zip(classes, both, strict=True) if there]
    return Gate(float(lost.mean()), float(lost.mean()) + half, names[worst], float(lost[worst]), size, len(truth))

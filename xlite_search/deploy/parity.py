"""Parity of an exported graph with the PyTorch model: logits at several batch sizes, probabilities from file bytes.

Both compute in float32, in another order of summation, and so does PyTorch itself with another batch size. Of a deep
network that alone can move logits by more than the limits, the more so the larger they are. Where the limits do not
hold, the model is computed in float64 as well: the graph is refused if it is further from that than the PyTorch model's
own float32 is, within a factor of two, for both are the largest of many differences.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from xlite_search.data.sources import SUFFIXES
from xlite_search.data.sources.images import read_image
from xlite_search.deploy.graph import Line
from xlite_search.deploy.predict import ANSWERS_LIMIT, Predictor
from xlite_search.errors import RunFailed
from xlite_search.model import Model

BATCHES = (1, 2, 7, 32)
#: largest differences that are allowed
LOGITS, PROBABILITIES = 1e-4, 1e-5
#: where float32 has no more digits: the graph's distance from float64 by the PyTorch model's own
AS_NEAR = 2.0
MOST_IMAGES = max(BATCHES)
#: images that are computed in float64 at once
FEW = 4


@dataclass(frozen=True)
class Parity:
    """Largest differences between the graph and the PyTorch model over `images`, at every batch size and from files on.

    logits, probabilities   both in float32; `from_bytes` are the probabilities' from files on
    line                    of the graph's probabilities from the calibration's line of its own logits
    largest                 logit, without its sign
    graph_off, model_off    of the logits in float32 from those in float64; 0: the limits hold, and it was not computed
    """

    images: int
    logits: float
    probabilities: float
    from_bytes: float
    line: float
    largest: float
    graph_off: float = 0.0
    model_off: float = 0.0

    @property
    def within(self) -> bool:
        """Whether the limits hold."""
        return self.logits <= LOGITS and max(self.probabilities, self.from_bytes) <= PROBABILITIES

    @property
    def rounding(self) -> bool:
        """Whether the differences are float32's alone, and no larger than the known answers' may be."""
        near = 0 < self.graph_off <= AS_NEAR * self.model_off
        return near and self.logits <= ANSWERS_LIMIT and self.line <= PROBABILITIES

    @property
    def holds(self) -> bool:
        return self.within or self.rounding

    def __str__(self) -> str:
        said = f"logits within {self.logits:.1e}, probabilities from file bytes on within {self.from_bytes:.1e}"
        return said if self.within else f"{said}; {self.off}"

    @property
    def off(self) -> str:
        """How far either is from float64, a phrase."""
        return (
            f"from logits in float64 the graph's differ by {self.graph_off:.1e}, PyTorch's own in float32 by "
            f"{self.model_off:.1e}"
        )


class _Said(NamedTuple):
    """What the graph says of some rows of the images."""

    rows: NDArray[np.int64]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]


def parity(model: Model, line: Line, predictor: Predictor, files: Sequence[Path]) -> Parity:
    """Of image files: the PyTorch model prepares and judges them its way, the graph its own, each file alone.

    In batches of each size the graph is asked about 32 of them or some more, of each size about others where there are
    enough, and about some again where there are too few.
    """
    prepared = model.prepared([read_image(file, model.preprocess.channels) for file in files])
    batched, of_files = list(_of_batches(predictor, prepared)), list(_of_files(predictor, files))
    expected, said = _logits(model, prepared), [*batched, *of_files]
    chances = line.probabilities(expected)
    found = Parity(
        images=len(files),
        logits=_largest(each.logits - expected[each.rows] for each in said),
        probabilities=_largest(each.probabilities - chances[each.rows] for each in batched),
        from_bytes=_largest(each.probabilities - chances[each.rows] for each in of_files),
        line=_largest(each.probabilities - line.probabilities(each.logits) for each in said),
        largest=_largest([expected]),
    )
    if found.within:
        return found
    exact = exact_logits(model, prepared)
    graph_off = _largest(each.logits - exact[each.rows] for each in said)
    return replace(found, graph_off=graph_off, model_off=_largest([expected - exact]))


def expect_parity(found: Parity) -> None:
    """Raises RunFailed if the graph does not say what the model does."""
    if not found.holds:
        raise RunFailed(
            f"the exported graph is not the model: logits differ by {found.logits:.1e} (limit {LOGITS:g}), "
            f"probabilities by {max(found.probabilities, found.from_bytes):.1e} (limit {PROBABILITIES:g}); {found.off}"
            "; nothing was written. Another version of torch or onnxscript may export it"
        )


def _of_batches(predictor: Predictor, prepared: NDArray[np.uint8]) -> Iterator[_Said]:
    for turn, size in enumerate(BATCHES):
        for start in range(0, min(MOST_IMAGES, len(prepared)), size):
            rows = (turn * MOST_IMAGES + start + np.arange(size)) % len(prepared)
            yield _Said(rows, *predictor(prepared[rows]))


def _of_files(predictor: Predictor, files: Sequence[Path]) -> Iterator[_Said]:
    for row, answer in enumerate(predictor.of_files(files)):
        yield _Said(np.array([row]), answer.logits[None], answer.probabilities[None])


def _largest(differences: Iterable[NDArray[np.floating]]) -> float:
    return max(float(np.abs(each).max()) for each in differences)


def _logits(model: Model, images: NDArray[np.uint8], at_once: int = MOST_IMAGES) -> NDArray[np.floating]:
    starts = range(0, len(images), at_once)
    found: NDArray[np.floating] = torch.cat(
        [model.logits(torch.from_numpy(images[start : start + at_once])) for start in starts]
    ).numpy()
    return found


def exact_logits(model: Model, images: NDArray[np.uint8]) -> NDArray[np.floating]:
    """Logits of prepared images with weights and features in float64, `[image, class]`: what float32 rounds.

    It leaves the model as it is.
    """
    doubled = replace(model, models=tuple(copy.deepcopy(each).double() for each in model.models))
    with _Double():
        return _logits(doubled, images, FEW)


class _Double(TorchFunctionMode):
    """Has code that asks for float32, for its digits, get float64."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        wanted = torch.Tensor.double if func is torch.Tensor.float else func
        return wanted(*args, **(kwargs or {}))


def image_files(folder: Path, most: int) -> list[Path]:
    """Some image files of a folder, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower().lstrip(".") in SUFFIXES)[:most]

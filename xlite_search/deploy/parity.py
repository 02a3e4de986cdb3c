"""Parity of an exported graph with the PyTorch model: logits at several batch sizes, probabilities from file bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from xlite_search.data.sources import SUFFIXES
from xlite_search.data.sources.images import read_image
from xlite_search.deploy.graph import Line
from xlite_search.deploy.predict import Predictor
from xlite_search.errors import RunFailed
from xlite_search.model import Model

BATCHES = (1, 2, 7, 32)
#: largest differences that are allowed; of logits beyond 10 their 100,000th part, for float32 has no more digits
LOGITS, PROBABILITIES, OF_LARGEST = 1e-4, 1e-5, 1e-5
MOST_IMAGES = max(BATCHES)


@dataclass(frozen=True)
class Parity:
    """Largest differences over `images`, at every batch size; `from_bytes` is the probabilities' from files on, and
    `largest` the largest logit itself, without its sign."""

    images: int
    logits: float
    probabilities: float
    from_bytes: float
    largest: float

    @property
    def limit(self) -> float:
        """Of the logits' difference."""
        return max(LOGITS, OF_LARGEST * self.largest)

    @property
    def holds(self) -> bool:
        return self.logits <= self.limit and max(self.probabilities, self.from_bytes) <= PROBABILITIES


def parity(model: Model, line: Line, predictor: Predictor, files: Sequence[Path]) -> Parity:
    """Of image files: the PyTorch model prepares and judges them its way, the graph its own.

    A batch size above the number of files is filled by taking them again.
    """
    prepared = model.prepared([read_image(file, model.preprocess.channels) for file in files])
    expected = _logits(model, prepared)
    chances = line.probabilities(expected)
    logits, probabilities = 0.0, 0.0
    for size in BATCHES:
        for start in range(0, len(files), size):
            rows = np.arange(start, start + size) % len(files)
            found = predictor(prepared[rows])
            logits = max(logits, float(np.abs(found[0] - expected[rows]).max()))
            probabilities = max(probabilities, float(np.abs(found[1] - chances[rows]).max()))
    from_bytes = [predictor.of_file(file).probabilities - chance for file, chance in zip(files, chances, strict=True)]
    largest = float(np.abs(expected).max())
    return Parity(len(files), logits, probabilities, float(np.abs(from_bytes).max()), largest)


def expect_parity(found: Parity) -> None:
    """Raises RunFailed if the graph does not say what the model does."""
    if not found.holds:
        raise RunFailed(
            f"the exported graph is not the model: logits differ by {found.logits:.1e} (limit {found.limit:g}), "
            f"probabilities by {max(found.probabilities, found.from_bytes):.1e} (limit {PROBABILITIES:g}); nothing was "
            "written. Another version of torch or onnxscript may export it"
        )


def _logits(model: Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    found = [model.logits(torch.from_numpy(images[start : start + 32])) for start in range(0, len(images), 32)]
    return torch.cat(found).numpy()


def image_files(folder: Path, most: int) -> list[Path]:
    """Some image files of a folder, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower().lstrip(".") in SUFFIXES)[:most]

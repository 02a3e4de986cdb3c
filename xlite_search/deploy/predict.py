"""Prediction from an exported folder: image files to logits, probabilities and decisions, without PyTorch.

It takes numpy, OpenCV and onnxruntime, and pydicom for DICOM files. Every file of the folder is checked before one of
them is used. An image goes through the model alone, so that its answer does not depend on what is asked beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from xlite_search import limits
from xlite_search.data.preprocess import Preprocess, Raw
from xlite_search.data.sources import Unfit, Unreadable
from xlite_search.data.sources.images import image_in, read_image
from xlite_search.deploy.domain import Domain, Flag, read_domain
from xlite_search.deploy.folder import (
    ANSWERS,
    IMAGES,
    INSTALL,
    INT8,
    LOGITS,
    ONNX,
    PREPROCESS,
    PROBABILITIES,
    ExportManifest,
    read_exported,
)
from xlite_search.errors import BadInput, Damaged

Floats = NDArray[np.float32]
#: how far apart a pixel's channels may be on average, in 8-bit levels, for an image to count as gray
TINT = 8.0
#: onnxruntime says errors alone
SEVERITY = 3
#: largest difference to a known answer's logits: other processors and versions round otherwise
ANSWERS_LIMIT = 1e-3


@dataclass(frozen=True)
class Answer:
    """What a model says of a file.

    logits, probabilities  float32 `[class]`; empty if the file cannot be used
    error                  why not, a phrase; empty if it can
    flags                  why the image may be none that the model was made for
    """

    file: str
    logits: Floats
    probabilities: Floats
    error: str = ""
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True)
class Predictor:
    """An exported model that is ready. `session` is onnxruntime's, `domain` what its training images are like."""

    folder: Path
    manifest: ExportManifest
    preprocess: Preprocess
    session: Any
    domain: Domain | None = None

    @classmethod
    def open(cls, folder: Path, *, int8: bool = False, threads: int | None = 1) -> Self:
        """Checks the folder and loads its graph, the 8-bit one if asked for; `threads` None takes all cores.

        Raises:
            BadInput: this is no exported folder, it has no 8-bit model, or onnxruntime is not installed.
            Damaged: a file is not what was written.
        """
        manifest = read_exported(folder)
        if int8 and INT8 not in manifest.files:
            raise BadInput(f"{folder} has no 8-bit model; `export --int8` makes one where it loses next to nothing")
        preprocess = read_preprocess(folder / PREPROCESS)
        session = open_session(folder / (INT8 if int8 else ONNX), threads)
        side = preprocess.size
        if session.get_inputs()[0].shape[1:] != [preprocess.channels, side, side]:
            raise Damaged(f"{folder / PREPROCESS} makes other images than {ONNX} takes; export the model again")
        return cls(folder, manifest, preprocess, session, read_domain(folder))

    def __call__(self, images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Prepared images, uint8 `[batch, channel, size, size]`, to logits and probabilities, `[batch, class]`."""
        logits, probabilities = self.session.run([LOGITS, PROBABILITIES], {IMAGES: images})
        return logits, probabilities

    def prepared(self, path: Path) -> NDArray[np.uint8]:
        """A file's image as the model takes it, uint8 `[channel, size, size]`.

        Raises:
            Unreadable: it is damaged, no image, too large, in colour where the model was trained on gray.
            BadInput: it is a DICOM file and pydicom is not installed.
        """
        return self.preprocess(read_raw(path, self.preprocess.channels))

    def of_file(self, path: Path) -> Answer:
        """A file's answer; a file that cannot be used has its reason instead."""
        try:
            image = self.prepared(path)
        except Unreadable as why:
            nothing = np.empty(0, np.float32)
            return Answer(str(path), nothing, nothing, str(why))
        logits, probabilities = self(image[None])
        flags = self.domain.flags(image) if self.domain else ()
        return Answer(str(path), logits[0], probabilities[0], flags=tuple(flags))

    def of_files(self, paths: Sequence[Path]) -> Iterator[Answer]:
        """Answers in the order of the files, as many at a time as there are cores; each is computed on one thread, so
        that it is the same on every number of them."""
        pool = ThreadPoolExecutor(limits.cores())
        try:
            yield from pool.map(self.of_file, paths)
        finally:
            pool.shutdown(cancel_futures=True)

    def decisions(self, answer: Answer) -> list[bool | None]:
        """Whether each finding is said to be there, `[class]`; None where the folder has no threshold for it."""
        limit = self.manifest.thresholds
        chances = zip(self.manifest.classes, answer.probabilities.tolist(), strict=True)
        return [chance >= limit[name] if name in limit else None for name, chance in chances]


def open_session(path: Path, threads: int | None = None) -> Any:
    """onnxruntime's session of a graph, on the CPU. Raises BadInput if it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        raise BadInput(f"onnxruntime is not installed; {INSTALL}") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SEVERITY
    options.intra_op_num_threads = threads or limits.cores()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def read_preprocess(path: Path) -> Preprocess:
    """What `preprocess.json` describes. Raises Damaged if this version cannot do it."""
    try:
        return Preprocess.described(json.loads(path.read_bytes()))
    except (BadInput, ValueError, TypeError, KeyError, IndexError):
        raise Damaged(f"{path} is not a preprocessing of this version of xlite_search") from None


def read_raw(path: Path, channels: int) -> Raw:
    """A file's raw image. For a gray model, colour whose channels are nearly equal is gray, as it was in training.

    Raises:
        Unreadable: it cannot be used; a colour photograph where gray is wanted is among these.
        BadInput: it is a DICOM file and pydicom is not installed.
    """
    return _wanted(lambda asked: read_image(path, asked), channels)


def raw_in(data: bytes, channels: int) -> Raw:
    """The raw image in a file's bytes, as `read_raw`."""
    return _wanted(lambda asked: image_in(data, asked), channels)


def _wanted(read: Callable[[int], Raw], channels: int) -> Raw:
    raw = read(3)
    if channels != 1 or raw.pixels.ndim == 2:
        return raw
    tint = np.ptp(raw.pixels, axis=2).mean() * (255 / np.iinfo(raw.pixels.dtype).max)
    if tint > TINT:
        raise Unfit(
            f"in colour (its channels differ by {tint:.0f} of 255 on average), and the model was trained on gray images"
        )
    return read(1)


@dataclass(frozen=True)
class SelfTest:
    """How far a folder's known answers are from what is computed here; `images` were asked."""

    images: int
    logits: float
    probabilities: float

    @property
    def passed(self) -> bool:
        return self.logits <= ANSWERS_LIMIT


def self_test(predictor: Predictor, *, int8: bool = False) -> SelfTest:
    """Asks the folder's own images again, from their bytes on. Raises Damaged if its answers cannot be read."""
    path = predictor.folder / ANSWERS
    try:
        known = json.loads(path.read_bytes())["int8" if int8 else "float"]
        found = [predictor(predictor.prepared(path.parent / each["file"])[None]) for each in known]
        logits, chances = (
            max(float(np.abs(out[place][0] - each[name]).max()) for out, each in zip(found, known, strict=True))
            for place, name in enumerate((LOGITS, PROBABILITIES))
        )
    except (ValueError, TypeError, KeyError, Unreadable):
        raise Damaged(f"{path} is not a list of known answers") from None
    return SelfTest(len(known), logits, chances)

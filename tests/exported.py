"""Exported folders for tests: one made by hand in milliseconds, of a graph that looks at an image's mean alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from xlite_search import storage
from xlite_search.data.preprocess import Preprocess
from xlite_search.data.sources.phantom import Phantom
from xlite_search.deploy import folder as names
from xlite_search.deploy.folder import ExportManifest

CLASSES, SLOPES, OFFSETS = ("Mass", "Hernia"), (0.05, -0.02), (-4.0, 1.0)


def lines(count: int = len(CLASSES)) -> NDArray[np.float64]:
    """Slope and offset of each logit over an image's mean, `[2, class]`: `SLOPES` and `OFFSETS` come first."""
    turn = np.arange(count)
    return np.array([np.resize(SLOPES, count) / (1 + turn // 2), np.resize(OFFSETS, count)])


def expected(images: NDArray[np.uint8], count: int = len(CLASSES)) -> NDArray[np.float64]:
    """The hand-made graph's logits of prepared images, `[image, class]`."""
    slopes, offsets = lines(count)
    return np.asarray(images.mean(axis=(1, 2, 3))[:, None] * slopes + offsets)


def drawn(path: Path, row: int = 0, size: int = 64) -> Path:
    """A phantom as PNG."""
    cv2.imwrite(str(path), Phantom(row + 1, seed=3, size=size).pixels(row))
    return path


def gray(path: Path) -> NDArray[np.uint8]:
    """A gray image file's pixels."""
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.uint8)


def graph(path: Path, channels: int, size: int, count: int) -> None:
    from onnx import TensorProto, helper, numpy_helper, save

    line = [
        numpy_helper.from_array(each[None].astype(np.float32), name)
        for each, name in zip(lines(count), ("a", "b"), strict=True)
    ]
    axes = numpy_helper.from_array(np.array([1, 2, 3], np.int64), "axes")
    nodes = [
        helper.make_node("Cast", [names.IMAGES], ["scaled"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["scaled", "axes"], ["four"]),
        helper.make_node("Flatten", ["four"], ["mean"]),
        helper.make_node("Mul", ["mean", "a"], ["sloped"]),
        helper.make_node("Add", ["sloped", "b"], [names.LOGITS]),
        helper.make_node("Sigmoid", [names.LOGITS], [names.PROBABILITIES]),
    ]
    shape: list[str | int | None] = ["batch", channels, size, size]
    out: list[str | int | None] = ["batch", count]
    inputs = [helper.make_tensor_value_info(names.IMAGES, TensorProto.UINT8, shape)]
    outputs = [
        helper.make_tensor_value_info(each, TensorProto.FLOAT, out) for each in (names.LOGITS, names.PROBABILITIES)
    ]
    made = helper.make_graph(nodes, "mean", inputs, outputs, [*line, axes])
    save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def handmade(
    folder: Path,
    *,
    channels: int = 1,
    size: int = 32,
    classes: Sequence[str] = CLASSES,
    **about: Any,
) -> Path:
    """An exported folder whose answers `expected` gives, with what lies in it; `about` is of its manifest."""
    preprocess = Preprocess(size, channels=channels)
    (folder / names.ANSWERS).parent.mkdir(parents=True)
    graph(folder / names.ONNX, channels, size, len(classes))
    storage.write_atomic(folder / names.PREPROCESS, json.dumps(preprocess.describe()).encode())
    known = drawn((folder / names.ANSWERS).parent / "phantom_1.png")
    logits = expected(preprocess(gray(known))[None], len(classes))[0]
    answer = {"file": known.name, "logits": logits.tolist(), "probabilities": (1 / (1 + np.exp(-logits))).tolist()}
    storage.write_atomic(folder / names.ANSWERS, json.dumps({"float": [answer]}).encode())
    files = {
        path.relative_to(folder).as_posix(): storage.sha256_of(path) for path in folder.rglob("*") if path.is_file()
    }
    manifest = ExportManifest(model="mean", name="m", sha256="0" * 64, classes=tuple(classes), files=files, **about)
    storage.write_manifest(folder / names.MANIFEST, manifest.model_dump(mode="json"))
    return folder

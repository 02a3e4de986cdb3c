"""Parity: a graph is the model, of real radiographs, at every batch size, as far as float32 can tell."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from untrained import delivered, drawn

from xlite_search.data.preprocess import Preprocess
from xlite_search.data.sources.images import read_image
from xlite_search.data.sources.phantom import Phantom
from xlite_search.deploy import folder as names
from xlite_search.deploy import latency
from xlite_search.deploy.folder import ExportManifest
from xlite_search.deploy.graph import Line, to_onnx
from xlite_search.deploy.parity import BATCHES, Parity, exact_logits, expect_parity, image_files, parity
from xlite_search.deploy.predict import Predictor, open_session
from xlite_search.errors import RunFailed
from xlite_search.model import Model, load_model
from xlite_search.models.hybrid import HYBRIDS, Hybrid

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason="pip install 'xlite-search[export]'")

PLAIN, HYBRID = "test_efficientnet_none", "test_efficientnet_mhsa"
#: of timm's, beside the lab's: convolutions, branches that could be one, tokens, windows, both; one has idle layers
MORE = (
    *("resnet18_mhsa_ms", "densenet121_none", "regnety_002_se", "repvgg_a0_cbam", "ghostnet_100_none"),
    *("mobileone_s0_se", "repvit_m1_cbam", "fastvit_t8_none", "convnext_atto_none", "mobilevit_xxs_none"),
    *("deit_tiny_patch16_224_none", "vit_tiny_patch16_224_mhsa", "swin_tiny_patch4_window7_224_mhsa"),
    *("efficientformerv2_s0_none", "edgenext_xx_small_performer"),
)
#: which nobody trained either, and whose logits of a radiograph are 20 deviations off: float32 has no more digits there
ROUNDED = ("mobileone_s0_se",)
#: onnxruntime's time by eager torch's, for one image on one thread
SLOWEST = 1.5


def test_beyond_the_limits_a_graph_is_as_near_float64_as_pytorch_is() -> None:
    fine = Parity(images=32, logits=9e-5, probabilities=1e-6, from_bytes=1e-6, line=1e-7, largest=3.0)
    assert fine.holds and fine.within
    rounded = replace(fine, logits=3e-4, probabilities=2e-5, from_bytes=2e-5, graph_off=2e-4, model_off=1.5e-4)
    assert rounded.holds and not rounded.within
    assert str(fine) == "logits within 9.0e-05, probabilities from file bytes on within 1.0e-06"
    assert str(rounded).endswith(
        "; from logits in float64 the graph's differ by 2.0e-04, PyTorch's own in float32 by 1.5e-04"
    )
    for worse in (
        replace(fine, logits=2e-4),
        replace(fine, probabilities=2e-5),
        replace(fine, from_bytes=2e-5),
        replace(rounded, graph_off=3.1e-4),
        replace(rounded, line=2e-5),
        replace(rounded, logits=1.1e-3),
    ):
        with pytest.raises(RunFailed, match="nothing was written"):
            expect_parity(worse)


@pytest.mark.parametrize("name", [PLAIN, "test_resnet_performer"])
def test_float64_logits_leave_the_model_as_it_is(name: str, tmp_path: Path) -> None:
    images = drawn(64)
    model = load_model(delivered(tmp_path / "m", name, ("Mass", "Hernia"), images, weight=3.0))
    exact = exact_logits(model, images.numpy())
    assert exact.dtype == np.float64 and len(exact) == len(images)
    single = model.logits(images)
    assert single.dtype == torch.float32 and 0 < np.abs(single.numpy() - exact).max() < 1e-4
    assert (exact != exact.astype(np.float32)).mean() > 0.9


def test_large_logits_are_exported_and_a_graph_of_other_weights_is_not(tmp_path: Path) -> None:
    def widened(network: Hybrid, by: float) -> None:
        for parameter in network.classifier[2].parameters():
            parameter.mul_(by)

    model = load_model(delivered(tmp_path / "m", PLAIN, ("Mass", "Hernia"), drawn(64)))
    files, line = [tmp_path / f"{row}.png" for row in range(8)], Line.none(2)
    for row, file in enumerate(files):
        cv2.imwrite(str(file), Phantom(8, seed=1, size=64).pixels(row))
    widened(model.models[0], 60)
    predictor = graph_of(model, line, tmp_path)
    found = parity(model, line, predictor, files)
    assert found.holds and not found.within and found.graph_off < 1e-3 < 100 < found.largest
    widened(model.models[0], 1 + 3e-6)
    other = parity(model, line, predictor, files)
    assert not other.holds and other.logits < 1e-3 and other.graph_off > 2 * other.model_off


def graph_of(model: Model, line: Line, home: Path) -> Predictor:
    """The model as a graph in `home`, on one thread."""
    (home / names.ONNX).write_bytes(to_onnx(model, line, {}))
    about = ExportManifest(model=model.manifest.model, name="m", sha256="", classes=model.classes, files={})
    return Predictor(home, about, model.preprocess, open_session(home / names.ONNX, 1))


@pytest.mark.parametrize("name", [HYBRID, "test_resnet_performer_ms"])
def test_graphs_say_what_models_do_of_real_radiographs(name: str, shared: Path, tmp_path: Path) -> None:
    of_radiographs(name, shared, tmp_path, 64)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [*HYBRIDS, *MORE])
def test_every_hybrid_says_the_same_as_a_graph(name: str, shared: Path, tmp_path: Path) -> None:
    ratio = slower(*of_radiographs(name, shared, tmp_path, 224))
    print(f"onnxruntime by eager torch {ratio:.2f}")
    assert ratio <= SLOWEST


def of_radiographs(name: str, shared: Path, tmp_path: Path, size: int) -> tuple[Model, Predictor, NDArray[np.uint8]]:
    """Holds logits to 1e-4 and probabilities to 1e-5 on 200 radiographs; the model, its graph, and a prepared image."""
    classes = tuple(f"finding {number}" for number in range(14))
    files = image_files(shared / "data" / "chestxray14" / "images_224", 200)
    some = np.stack([Preprocess(size)(read_image(file)) for file in files[:16]])
    model = load_model(delivered(tmp_path / "m", name, classes, torch.from_numpy(some)))
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    line = Line(draw.uniform(0.3, 1.5, 14), draw.normal(size=14))
    predictor = graph_of(model, line, tmp_path)
    found = parity(model, line, predictor, files)
    print(f"{name} {found!r}")
    assert found.images == 200 and BATCHES == (1, 2, 7, 32)
    assert found.within or (name in ROUNDED and found.rounding)
    assert predictor(some)[0].std(axis=0).min() > 1e-4
    return model, predictor, some[:1]


def slower(model: Model, predictor: Predictor, image: NDArray[np.uint8], rounds: int = 15) -> float:
    """Milliseconds of one image by onnxruntime, by eager torch's, on one thread each; medians of turns."""
    before, tensor = torch.get_num_threads(), torch.from_numpy(image)
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            cases = {"graph": lambda: predictor(image), "eager": lambda: model.logits(tensor)}
            found = latency.timed(cases, rounds, warm_up=3)
    finally:
        torch.set_num_threads(before)
    return found["graph"]["p50_ms"] / found["eager"]["p50_ms"]

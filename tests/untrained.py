"""Model folders for tests: hybrids that nobody trained, whose logits differ as a trained model's do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from conftest import PHANTOM
from test_model_folder import weights_of
from torch import Tensor

from xlite_search.config import RunConfig
from xlite_search.data.dataset import DataSpec
from xlite_search.data.sources.phantom import Phantom
from xlite_search.evaluation import calibration, thresholds
from xlite_search.evaluation.estimates import Estimate
from xlite_search.model_folder import ModelManifest, read_model, write_model
from xlite_search.models.hybrid import Hybrid, build_model

#: least spread of a layer's sums over images, by what they have in common, for logits to have a deviation of 1; where
#: features tell less, logits are as much narrower. An untrained EfficientNet-B0 has 0.05, a RepVGG-A0 0.0001
ENOUGH = 1e-2


def drawn(size: int) -> Tensor:
    """Phantoms, uint8 `[16, 1, size, size]`."""
    source = Phantom(16, seed=1, size=size)
    return torch.from_numpy(np.stack([source.pixels(row)[None] for row in range(16)]))


def awake(name: str, classes: int, images: Tensor, seed: int = 0) -> Hybrid:
    """A model that nobody trained, whose attention does something, and whose logits of these images have mean 0 and
    standard deviation 1, or less if its backbone hardly tells them apart.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = build_model(name, classes=classes).train()
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
        norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        for module in norms:
            module.momentum = 0.5
        for _ in range(5 if norms else 0):
            model(images)
        telling(model.eval(), images)
    return model


def telling(model: Hybrid, images: Tensor) -> None:
    """Has the classifier's layers look where their inputs of these images differ, as those of a trained model do.

    Weights drawn at random see of an untrained backbone's features what all images have in common, and little else.
    Made wider until logits have a standard deviation of 1 they make float32's rounding of that wider, too: five times
    as wide as here for an EfficientNet-B0, and more than in a trained model whose logits are as wide.
    """
    given: list[Tensor] = []
    hook = model.classifier.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    model(images)
    hook.remove()
    (inputs,) = given
    width = 1.0
    for place in (0, 2):
        layer = model.classifier.get_submodule(str(place))
        assert isinstance(layer, torch.nn.Linear)
        mean = inputs.mean(dim=0)
        weight = torch.randn(layer.out_features, len(images)) @ (inputs - mean)
        spread = (inputs @ weight.T).std(dim=0)
        told = float((spread / (weight.abs() @ mean.abs())).median())
        width = min(width, told / ENOUGH)
        weight *= ((width if place else 1.0) / spread)[:, None]
        layer.weight.copy_(weight)
        layer.bias.copy_(-weight @ mean)
        inputs = model.classifier[1](layer(inputs))


def delivered(
    home: Path, name: str, classes: Sequence[str], images: Tensor, *, seed: int = 0, weight: float | None = None
) -> Path:
    """A model folder; `images` are prepared."""
    size = images.shape[-1]
    config = RunConfig(model=name, data=DataSpec(name=PHANTOM)).model_dump(mode="json")
    about = ModelManifest(
        config=config,
        classes=tuple(classes),
        input={"size": size, "clahe": {"clip_limit": 2.0, "tiles": 8}, "channels": 1, "pixels": "uint8 gray"},
        pos_weight=(weight,) * len(classes) if weight else None,
        notice="Cite the phantom.",
    )
    write_model(home, weights_of(awake(name, len(classes), images, seed)), about)
    return home


def calibrated(home: Path) -> calibration.Calibration:
    """Leaves a line and a threshold for each finding but the last, which has no threshold."""
    about = read_model(home)
    on = calibration.FittedOn(data=PHANTOM, fingerprint="f", split="s", images=1, patients=1)
    lines = [calibration.Line(slope=0.5 + number / 10, offset=-number / 5) for number in range(len(about.classes))]
    findings = [
        calibration.OfFinding(finding=name, line=line, positives=1, positive_patients=1, calibrated=True)
        for name, line in zip(about.classes, lines, strict=True)
    ]
    found = calibration.Calibration(
        sha256=about.sha256,
        method="platt",
        on=on,
        folds=5,
        pooled=calibration.Line(),
        findings=tuple(findings),
        together=findings[0],
    )
    calibration.write_calibration(home, found)
    chosen = [threshold(name, number) for number, name in enumerate(about.classes[:-1])]
    last = thresholds.OfFinding(finding=about.classes[-1], positives=1, positive_patients=1, refused="too few")
    thresholds.write_thresholds(
        home,
        thresholds.Thresholds(sha256=about.sha256, calibration=found.hash, at_least=0.9, findings=(*chosen, last)),
    )
    return found


def threshold(name: str, number: int) -> thresholds.OfFinding:
    known = Estimate(value=0.9)
    chosen = thresholds.Threshold(
        probability=0.1 + number / 100, sensitivity=known, specificity=known, precision=known, flagged=0.5
    )
    return thresholds.OfFinding(finding=name, positives=1, positive_patients=1, sensitivity=chosen)

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from xlite_search.config import RunConfig
from xlite_search.data.dataset import open_data
from xlite_search.data.loaders import Loader, ordered_batches
from xlite_search.data.packed import PackedSet
from xlite_search.models.hybrid import build_model
from xlite_search.training.collapse import Collapse, decision_posterior, diagnose, diagnose_training
from xlite_search.training.loop import configure_process
from xlite_search.training.losses import LossFunction, bce
from xlite_search.training.optim import AdamW

Floats = NDArray[np.float64]

PREVALENCE = np.array([0.17, 0.12, 0.10, 0.05, 0.02, 0.013])
CLASSES = tuple(f"finding{number}" for number in range(len(PREVALENCE)))
POSITIVES, IMAGES = torch.tensor(1000 * PREVALENCE, dtype=torch.float32), 1000
HEALTHY = np.linspace(0.7, 0.4, 20)
NORMS = np.full(20, 0.3)


def focal(gamma: float, alpha: float) -> LossFunction:
    """Lin et al. 2017, as in their equation 5."""

    def loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        chance = torch.sigmoid(logits)
        positive = -alpha * (1 - chance) ** gamma * torch.log(chance)
        negative = -(1 - alpha) * chance**gamma * torch.log(1 - chance)
        return (targets * positive + (1 - targets) * negative).mean()

    return loss


def weighted(weight: Tensor) -> LossFunction:
    return lambda logits, targets, weights=None: bce(logits, targets, weights, pos_weight=weight)


def labels_of(images: int = 400) -> Floats:
    """The given prevalences, to the image."""
    order = np.arange(images)[:, None] * 7 % images
    return np.asarray(order < np.ceil(PREVALENCE * images), np.float64)


def logits_of(labels: Floats, separation: float = 1.2, seed: int = 0) -> Floats:
    """Those of a calibrated model: two normal distributions for each finding."""
    offset = np.log(PREVALENCE / (1 - PREVALENCE)) - separation**2 / 2
    noise = np.random.default_rng(seed).normal(size=labels.shape)
    return np.asarray(offset + separation**2 * labels + separation * noise)


def name_of(found: Collapse | None) -> str | None:
    return found.name if found else None


@pytest.mark.parametrize(("row", "column"), [(3, 0), (399, 5)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_single_logit_that_is_not_finite_is_named_with_its_image(row: int, column: int, value: float) -> None:
    labels = labels_of()
    logits = logits_of(labels)
    logits[row, column] = value
    found = diagnose(logits, labels, CLASSES)
    assert found is not None and found.name == "not_finite"
    assert f"1 of 400 validation images, first in row {row}" in found.sentence


def test_logits_that_are_all_nan_blame_the_learning_rate() -> None:
    found = diagnose(np.full((400, 6), np.nan), labels_of(), CLASSES)
    assert found is not None and found.name == "not_finite"
    assert "all validation images" in found.sentence and "optimizer.lr" in found.sentence


@given(st.floats(1e4, 1e30), st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_absurd_logits_have_diverged(scale: float, seed: int) -> None:
    labels = labels_of()
    assert name_of(diagnose(scale * logits_of(labels, seed=seed), labels, CLASSES)) == "diverged"


@pytest.mark.parametrize("level", [-1e-2, -2.5, 80.0])
def test_one_answer_for_every_image_is_constant_whatever_the_last_digit(level: float) -> None:
    labels = labels_of()
    row = np.float32(level) * np.linspace(1, 1.5, 6, dtype=np.float32)
    logits = np.tile(row, (400, 1))
    logits[::2] = np.nextafter(logits[::2], np.float32(0))
    assert name_of(diagnose(logits, labels, CLASSES)) == "constant_logits"


def test_a_single_constant_class_is_not_a_collapse() -> None:
    labels = labels_of()
    logits = logits_of(labels)
    logits[:, 1:] = -3
    assert diagnose(logits, labels, CLASSES) is None


def test_a_spread_of_a_thousandth_is_not_constant_but_one_of_a_millionth_is() -> None:
    labels, noise = labels_of(), np.random.default_rng(0).normal(size=(400, 6))
    assert diagnose(-3 + 3e-3 * noise, labels, CLASSES) is None
    assert name_of(diagnose(-3 + 3e-6 * noise, labels, CLASSES)) == "constant_logits"


@pytest.mark.parametrize("logits", [np.zeros((400, 6)), 0.04 + 3e-7 * np.random.default_rng(0).normal(size=(400, 6))])
def test_an_untrained_model_is_left_alone(logits: Floats) -> None:
    """A head of zeros; and an EfficientNet at its initialisation, whose logits hardly differ."""
    assert diagnose(logits, labels_of(), CLASSES, np.full(6, 0.5)) is None


def test_one_image_is_not_constant() -> None:
    assert diagnose(np.full((1, 6), -2.0), np.eye(1, 6), CLASSES) is None


@given(st.floats(0, 3), st.floats(-2, 7), st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_healthy_models_and_over_and_under_predicting_ones_are_left_alone(
    separation: float, shift: float, seed: int
) -> None:
    labels = labels_of()
    logits = logits_of(labels, max(separation, 0.05), seed) + shift
    asked = decision_posterior(weighted(torch.full((6,), float(np.exp(max(shift, 0))))), 6)
    assert diagnose(logits, labels, CLASSES, asked) is None


def test_a_bce_model_that_predicts_nothing_is_left_alone() -> None:
    """F1 of 0 is normal for rare findings; in a first epoch at a high rate so are chances far below the prevalence."""
    labels = labels_of()
    for shift in (-1.0, -5.0):
        logits = np.minimum(logits_of(labels) + shift, -0.1)
        assert diagnose(logits, labels, CLASSES, decision_posterior(bce, 6)) is None
        assert diagnose(logits, labels, CLASSES) is None


def test_all_negative_is_named_where_the_loss_is_why() -> None:
    labels = labels_of()
    logits = np.minimum(logits_of(labels), -0.1)
    found = diagnose(logits, labels, CLASSES, decision_posterior(focal(2, 0.01), 6))
    assert found is not None and found.name == "all_negative"
    assert "6 of 6 findings" in found.sentence and "99.0%" in found.sentence and "raise loss.alpha" in found.sentence
    assert "\n" not in str(found)


@pytest.mark.parametrize(("share", "name"), [(0.09, "all_negative"), (0.11, None)])
def test_all_negative_is_less_than_a_tenth_of_the_positives(share: float, name: str | None) -> None:
    labels = np.zeros((1000, 1))
    labels[:100] = 1
    logits = np.random.default_rng(0).uniform(-3, -1, (1000, 1))
    logits[: round(share * 100)] = 0.0
    assert name_of(diagnose(logits, labels, ("Mass",), np.array([0.99]))) == name


def test_only_findings_of_which_the_loss_asks_much_and_that_occur_count() -> None:
    labels = labels_of()
    logits = logits_of(labels)
    logits[:, 3:] = np.minimum(logits[:, 3:], -0.1)
    asked = np.array([0.5, 0.5, 0.5, 0.99, 0.99, 0.99])
    found = diagnose(logits, labels, CLASSES, asked)
    assert found is not None and "3 of 6 findings" in found.sentence
    labels[:, 4:] = 0
    found = diagnose(logits, labels, CLASSES, asked)
    assert found is not None and "1 of 6 findings" in found.sentence and "5.00% are positive" in found.sentence
    labels[:, 3:] = 0
    assert diagnose(logits, labels, CLASSES, asked) is None


@pytest.mark.parametrize("alpha", [0.01, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 5.0])
def test_focal_loss_says_yes_above_a_chance_of_1_minus_alpha(gamma: float, alpha: float) -> None:
    assert decision_posterior(focal(gamma, alpha), 3).tolist() == pytest.approx([1 - alpha] * 3, abs=1e-6)


def test_weighted_bce_says_yes_above_a_chance_of_1_in_1_plus_its_weight() -> None:
    assert decision_posterior(bce, 2).tolist() == [0.5, 0.5]
    asked = decision_posterior(weighted(torch.tensor([1.0, 4.0, 99.0])), 3)
    assert asked.tolist() == pytest.approx([1 / 2, 1 / 5, 1 / 100], abs=1e-6)


@given(st.floats(0, 4), st.floats(0.02, 0.98))
@settings(max_examples=20, deadline=None)
def test_at_that_chance_a_logit_of_0_is_the_loss_s_optimum(gamma: float, alpha: float) -> None:
    (asked,) = decision_posterior(focal(gamma, alpha), 1)
    around = torch.tensor([[-0.02], [0.0], [0.02]], dtype=torch.float64)

    def expected(logit: Tensor) -> float:
        yes, no = (focal(gamma, alpha)(logit[None], torch.full((1, 1), float(y))) for y in (1, 0))
        return float(asked * yes + (1 - asked) * no)

    below, at, above = map(expected, around)
    assert at < below and at < above


def test_healthy_training_is_left_alone_and_its_images_are_not_looked_at() -> None:
    def images() -> Iterator[Tensor]:
        raise AssertionError("looked at")
        yield

    assert diagnose_training(HEALTHY, NORMS, 4_000_000, images()) is None


@pytest.mark.parametrize(("pixel", "name"), [(float("nan"), "nan_pixels"), (float("inf"), "nan_pixels"), (0.5, None)])
def test_a_nan_loss_is_the_pixels_fault_if_they_are_nan(pixel: float, name: str | None) -> None:
    losses = HEALTHY.copy()
    losses[7:] = np.nan
    images = [torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)]
    images[1][1, 0, 3, 2] = pixel
    found = diagnose_training(losses, NORMS, 100, iter(images))
    assert found is not None and found.name == (name or "nan_loss")
    assert name or "nan from step 8 of 20" in found.sentence


def test_stored_images_are_never_the_fault() -> None:
    found = diagnose_training(np.array([np.inf]), NORMS, 100, [torch.zeros(2, 1, 4, 4, dtype=torch.uint8)])
    assert name_of(found) == "nan_loss"


@pytest.mark.parametrize(
    ("losses", "name"),
    [([0.7, 80.0, 300.0], "diverged"), ([0.7, 8.0, 30.0], None), ([1e-4, 0.5, 0.5], None), ([300.0, 200.0], None)],
)
def test_a_loss_that_explodes_has_diverged(losses: list[float], name: str | None) -> None:
    assert name_of(diagnose_training(np.array(losses), NORMS, 100)) == name


@pytest.mark.parametrize(
    ("norm", "loss", "name"),
    [
        (0.0, 0.5, "gradients_vanished"),
        (0.9e-6, 0.5, "gradients_vanished"),
        (1.1e-6, 0.5, None),
        (0.0, 1e-5, None),
        (np.inf, 0.5, None),
    ],
)
def test_gradients_that_adamw_cannot_see_have_vanished(norm: float, loss: float, name: str | None) -> None:
    """10,000 parameters: a norm of 1e-6 is 1e-8 each."""
    norms = np.array([0.3] * 15 + [norm] * 5)
    assert name_of(diagnose_training(np.full(20, loss), norms, 10_000)) == name


def epoch_of(config: RunConfig, loss: LossFunction) -> tuple[Collapse | None, Collapse | None]:
    """An epoch of plain steps, and what is said of its training and of its validation pass."""
    configure_process(config)
    data = open_data(config.data)
    model = build_model(config.model, classes=len(data.classes))
    optimizer, device = config.optimizer.build(model), torch.device("cpu")
    loader = Loader(data.train, config.batch_size, seed=config.seed, device=device, sampler=config.sampler)
    losses, norms = [], []
    for batch in loader.epoch(1):
        value = loss(model(batch.images), batch.labels)
        optimizer.zero_grad()
        torch.autograd.backward(value)
        norms.append(float(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])))
        losses.append(float(value.detach()))
        optimizer.step()
    loader.close()
    model.eval()
    with torch.inference_mode():
        batches = ordered_batches(data.val, config.batch_size, device)
        logits = torch.cat([model(batch.images) for batch in batches]).numpy()
    parameters = sum(p.numel() for p in model.parameters())
    trained = diagnose_training(np.array(losses), np.array(norms), parameters)
    asked = decision_posterior(loss, len(data.classes))
    return trained, diagnose(logits, data.val.labels, data.classes, asked)


@pytest.mark.parametrize(
    ("loss", "lr"),
    [(bce, 1e-4), (bce, 1e-2), (focal(2, 0.25), 3e-3), (weighted(torch.full((14,), 9.0)), 3e-3)],
    ids=["slow bce", "fast bce", "focal", "ratio"],
)
def test_an_epoch_on_phantoms_is_left_alone(loss: LossFunction, lr: float, tiny: RunConfig, phantom: PackedSet) -> None:
    assert epoch_of(tiny.with_settings({"optimizer.lr": lr}), loss) == (None, None)


@pytest.mark.parametrize("model", ["test_efficientnet_none", "test_resnet_none"])
def test_an_epoch_of_focal_loss_with_alpha_a_hundredth_is_all_negative(
    model: str, tiny: RunConfig, phantom: PackedSet
) -> None:
    trained, validated = epoch_of(tiny.with_settings({"model": model}), focal(2, 0.01))
    assert trained is None
    assert name_of(validated) == "all_negative"


@pytest.mark.parametrize("model", ["test_efficientnet_none", "test_resnet_none"])
def test_an_epoch_at_a_learning_rate_of_10_has_diverged(model: str, tiny: RunConfig, phantom: PackedSet) -> None:
    config = tiny.model_copy(update={"model": model, "optimizer": AdamW(lr=10)})
    trained, validated = epoch_of(config, bce)
    assert name_of(trained) == "diverged"
    assert name_of(validated) in {"diverged", "constant_logits"}

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from torch.optim import lr_scheduler

from xlite_search.errors import BadInput
from xlite_search.models.hybrid import build_model
from xlite_search.training.optim import AdamW, Constant, Cosine, Plateau, Recorded, WarmRestarts

Schedules = Constant | Cosine | Plateau | Recorded | WarmRestarts
State = tuple[dict[str, Any], dict[str, Any]]  # of optimizer and lr_scheduler


def one_weight(lr: float = 1.0) -> torch.optim.AdamW:
    return AdamW(lr=lr).build(nn.Linear(1, 1, bias=False))


def rates(schedule: Schedules, *, epochs: int, steps: int, lr: float = 1.0) -> list[float]:
    """The learning rate of every step."""
    optimizer = one_weight(lr)
    lr_scheduler = schedule.build(optimizer, epochs, steps)
    found = []
    for _ in range(epochs):
        for _ in range(steps):
            found.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            lr_scheduler.after_step()
        lr_scheduler.after_epoch(None)
    return found


def rates_by_epoch(schedule: Schedules, scores: list[float | None]) -> list[float]:
    """The learning rate after each epoch with such a score."""
    optimizer = one_weight()
    lr_scheduler = schedule.build(optimizer, len(scores), 1)
    found = []
    for score in scores:
        optimizer.step()
        lr_scheduler.after_step()
        lr_scheduler.after_epoch(score)
        found.append(float(optimizer.param_groups[0]["lr"]))
    return found


def test_constant_stays() -> None:
    assert rates(Constant(), epochs=3, steps=2, lr=0.25) == [0.25] * 6


def test_cosine_by_hand() -> None:
    expected = [1.0, 0.5 + 0.5 * math.cos(math.pi / 4), 0.5, 0.5 - 0.5 * math.cos(math.pi / 4)]
    assert rates(Cosine(), epochs=2, steps=2) == pytest.approx(expected, abs=1e-12)


def test_cosine_with_warm_up_by_hand() -> None:
    # 4 rising steps: 1/4 to 1; then a cosine over 8 steps from 1
    falling = [0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    found = rates(Cosine(warmup=1), epochs=3, steps=4, lr=2.0)
    assert found == pytest.approx([2 * x for x in [0.25, 0.5, 0.75, 1.0, *falling]], abs=1e-12)


def test_warm_up_may_end_within_an_epoch() -> None:
    # half of an epoch of 4 steps
    assert rates(Cosine(warmup=0.5), epochs=1, steps=4) == pytest.approx([0.5, 1.0, 1.0, 0.5], abs=1e-12)


@given(st.sampled_from([Cosine, WarmRestarts]), st.floats(0, 3), st.integers(1, 12), st.floats(0.1, 3), st.floats(1, 3))
@settings(deadline=None, max_examples=150)
def test_no_step_passes_the_learning_rate_and_a_warm_up_only_rises(
    kind: type[Cosine | WarmRestarts], warmup: float, steps: int, period: float, growth: float
) -> None:
    schedule = Cosine(warmup=warmup) if kind is Cosine else WarmRestarts(warmup=warmup, period=period, growth=growth)
    found = rates(schedule, epochs=3, steps=steps, lr=0.25)
    assert max(found) <= 0.25 and min(found) >= 0
    rising = found[: math.ceil(warmup * steps)]
    assert rising == sorted(rising) and all(rate > 0 for rate in rising)


@pytest.mark.parametrize("schedule", [Cosine(warmup=0.5), WarmRestarts(period=2, warmup=0.5)])
def test_a_warm_up_that_ends_within_a_step_is_at_its_end_there(schedule: Cosine | WarmRestarts) -> None:
    # half of an epoch of 5 steps: 2.5 steps, of which the third has risen to the learning rate
    assert rates(schedule, epochs=2, steps=5)[:3] == pytest.approx([0.4, 0.8, 1.0], abs=1e-12)
    assert rates(schedule, epochs=2, steps=1)[0] == 1.0


def test_cosine_ends_at_zero_and_stays_there() -> None:
    optimizer = one_weight()
    lr_scheduler = Cosine().build(optimizer, 2, 3)
    seen = []
    for _ in range(8):
        optimizer.step()
        lr_scheduler.after_step()
        seen.append(float(optimizer.param_groups[0]["lr"]))
    assert seen[4] > 0
    assert seen[5:] == [0.0, 0.0, 0.0]


def test_plateau_halves_after_its_patience() -> None:
    # better, then 2 epochs that are not (patience), the third halves; a new best starts again
    scores: list[float | None] = [0.5, 0.6, 0.6, 0.59, 0.6, 0.7, 0.1, 0.1, 0.1, 0.1]
    expected = [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert rates_by_epoch(Plateau(patience=2, factor=0.5), scores) == expected


def test_plateau_without_a_threshold_takes_any_improvement_however_small() -> None:
    scores: list[float | None] = [0.5 + 1e-6 * epoch for epoch in range(6)]
    assert rates_by_epoch(Plateau(patience=0, threshold=0), scores) == [1.0] * 6


@pytest.mark.parametrize("gain", [1e-6, 1e-5, 2e-5, 8.1e-5, 1e-3])
def test_plateau_is_torchs_own_with_its_threshold(gain: float) -> None:
    """At 0.8 a score has to be better by 8e-5, within the six epochs that it may take."""
    scores: list[float | None] = [0.8 + gain * epoch for epoch in range(20)]
    optimizer = one_weight()
    reference, expected = lr_scheduler.ReduceLROnPlateau(optimizer, "max", factor=0.5, patience=5), []
    for score in scores:
        reference.step(score or 0.0)
        expected.append(float(optimizer.param_groups[0]["lr"]))
    assert rates_by_epoch(Plateau(), scores) == expected
    assert (expected[-1] < 1) == (gain < 1e-4 * 0.8 / 6), "six epochs must add up to it"


def test_plateau_without_validation_stays() -> None:
    assert rates_by_epoch(Plateau(patience=0), [None] * 4) == [1.0] * 4


@pytest.mark.parametrize(("period", "growth"), [(1, 1), (2, 2), (1, 3)])
def test_warm_restarts_are_torchs_own(period: int, growth: int) -> None:
    optimizer = one_weight()
    reference = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=period * 4, T_mult=growth)
    expected = []
    for _ in range(7 * 4):
        expected.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        reference.step()
    found = rates(WarmRestarts(period=period, growth=growth), epochs=7, steps=4)
    assert found == pytest.approx(expected, abs=1e-12)


def test_warm_restarts_after_a_warm_up_by_hand() -> None:
    half = 0.5 * (1 + math.cos(math.pi / 4))
    expected = [0.5, 1.0, 1.0, half, 0.5, 1 - half, 1.0, half]
    assert rates(WarmRestarts(period=2, growth=1, warmup=1), epochs=4, steps=2) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("period", "growth", "warmup", "steps"),
    [("0.1", "1", "0", 1), ("0.2", "2", "0", 1), ("0.7", "1", "0.1", 10), ("0.3", "1.5", "0.07", 100)],
)
def test_restarts_are_where_the_settings_decimals_say(period: str, growth: str, warmup: str, steps: int) -> None:
    """In exact fractions: 1 - 0.1 - ... - 0.1 is a whole cosine's end, and the next one's start, not a rate of 0."""
    expected = []
    for step in range(8 * steps):
        since, length = step - Fraction(warmup) * steps, Fraction(period) * steps
        while since >= length:
            since, length = since - length, length * Fraction(growth)
        rising = min(1.0, float((step + 1) / (Fraction(warmup) * steps))) if since < 0 else 1.0
        expected.append(rising if since < 0 else 0.5 * (1 + math.cos(math.pi * float(since / length))))
    schedule = WarmRestarts(period=float(period), growth=float(growth), warmup=float(warmup))
    assert rates(schedule, epochs=8, steps=steps) == pytest.approx(expected, abs=1e-6)


def test_recorded_factors_are_followed_epoch_by_epoch() -> None:
    found = rates(Recorded(factors=(1.0, 0.5, 0.25)), epochs=4, steps=2, lr=0.1)
    assert found == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.025, 0.025])


def test_recorded_needs_a_factor() -> None:
    with pytest.raises(BadInput):
        Recorded(factors=())


@pytest.mark.parametrize(
    "schedule",
    [
        Constant(),
        Cosine(warmup=1),
        Plateau(patience=1),
        WarmRestarts(period=1.5, warmup=0.5),
        Recorded(factors=(1.0, 0.5)),
    ],
)
@pytest.mark.parametrize("cut", [1, 2, 5])
def test_a_restored_course_goes_on_as_if_uninterrupted(schedule: Schedules, cut: int) -> None:
    scores = [0.5, 0.4, 0.3, 0.6, 0.5, 0.5, 0.5]

    def epochs(first: int, last: int, state: State | None = None) -> tuple[list[float], State]:
        optimizer = one_weight()
        lr_scheduler = schedule.build(optimizer, len(scores), 3)
        if state is not None:
            optimizer.load_state_dict(state[0])
            lr_scheduler.restore(state[1])
        found = []
        for score in scores[first:last]:
            for _ in range(3):
                found.append(float(optimizer.param_groups[0]["lr"]))
                optimizer.step()
                lr_scheduler.after_step()
            lr_scheduler.after_epoch(score)
        return found, (optimizer.state_dict(), lr_scheduler.state())

    whole, _ = epochs(0, len(scores))
    head, state = epochs(0, cut)
    tail, _ = epochs(cut, len(scores), state)
    assert head + tail == whole


def test_vectors_are_not_decayed() -> None:
    model = build_model("test_convnext_mhsa", classes=14)
    optimizer = AdamW(lr=1e-3, weight_decay=0.05).build(model)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.05 if parameter.ndim > 1 else 0.0), name


def test_decay_alone_shrinks_a_matrix_and_leaves_its_bias() -> None:
    layer = nn.Linear(3, 2)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer = AdamW(lr=0.1, weight_decay=0.5).build(layer)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(layer.weight, weight * (1 - 0.1 * 0.5))
    assert torch.equal(layer.bias, bias)


@pytest.mark.parametrize(
    ("spec", "setting"),
    [
        (AdamW, {"lr": 0}),
        (AdamW, {"lr": float("inf")}),
        (AdamW, {"weight_decay": -1}),
        (Plateau, {"factor": 1.0}),
        (Plateau, {"patience": -1}),
        (Plateau, {"threshold": -1e-4}),
        (Cosine, {"warmup": -0.5}),
        (WarmRestarts, {"period": 0}),
        (WarmRestarts, {"growth": 0.5}),
    ],
)
def test_impossible_settings_are_refused(
    spec: type[AdamW | Plateau | Cosine | WarmRestarts], setting: dict[str, float]
) -> None:
    with pytest.raises(ValidationError):
        spec.model_validate(setting)

"""The patient bootstrap: every draw against scikit-learn, and what is lost where findings are rare."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, roc_auc_score

from xlite_search.errors import RunFailed
from xlite_search.results import bootstrap as module
from xlite_search.results.bootstrap import FIGURES, Figure, bootstrap
from xlite_search.training.metrics import ece, sigmoid, validation_metrics

NAMES = ("often", "seldom")


def drawn(
    seed: int, images: int = 60, prevalences: tuple[float, ...] = (0.4, 0.2)
) -> tuple[NDArray[np.float16], NDArray[np.bool_], NDArray[np.int64]]:
    """Two models' logits with many ties, and patients of one to four images."""
    random = np.random.default_rng(seed)
    truth = random.random((images, len(prevalences))) < prevalences
    truth[:2], truth[2:4] = True, False
    logits = (random.normal(size=(2, *truth.shape)) + truth - 0.5).round(1).astype(np.float16)
    groups = np.unique(random.integers(images // 2, size=images), return_inverse=True)[1]
    return logits, truth, groups


def weights_of(groups: NDArray[np.int64], draws: int, seed: int) -> NDArray[np.int64]:
    """How often each image was drawn, `[draw, image]`, by the rule that is documented: with replacement, by group."""
    many = groups.max() + 1
    places = np.random.default_rng(seed).integers(many, size=(draws, many))
    return np.stack([np.bincount(row, minlength=many)[groups] for row in places])


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_every_draw_is_scikit_learns(seed: int) -> None:
    logits, truth, groups = drawn(seed)
    found = bootstrap(logits, truth, groups, NAMES, draws=8, seed=seed, thresholds=0.45)
    weights = weights_of(groups, 8, seed)
    probabilities = sigmoid(logits)
    for model in range(2):
        for finding in range(2):
            there, scores, p = (
                truth[:, finding],
                logits[model, :, finding].astype(float),
                probabilities[model, :, finding],
            )
            for draw, weight in enumerate([np.ones(len(truth)), *weights]):
                got = {
                    each: (found.figures if not draw else found.draws)[each][
                        model, finding, *([draw - 1] if draw else [])
                    ]
                    for each in FIGURES
                }
                assert got["brier"] == pytest.approx(brier_score_loss(there, p, sample_weight=weight), abs=1e-12)
                again = np.repeat(np.arange(len(truth)), weight.astype(int))
                assert got["ece"] == pytest.approx(ece(p[again, None], there[again, None].astype(float))[0], abs=1e-12)
                if not 0 < weight[there].sum() < weight.sum():
                    assert np.isnan([got["auroc"], got["ap"], got["f1"]]).all()
                    continue
                assert got["auroc"] == pytest.approx(roc_auc_score(there, scores, sample_weight=weight), abs=1e-12)
                assert got["ap"] == pytest.approx(
                    average_precision_score(there, scores, sample_weight=weight), abs=1e-12
                )
                assert got["f1"] == pytest.approx(f1_score(there, p >= 0.45, sample_weight=weight), abs=1e-12)


def test_a_draw_by_hand() -> None:
    """Scores 3 (ill), 2, 2 (ill), 1 of four patients: AUROC 3.5 / 4, AP 1/2 + 1/3; both times 2 ties with 2."""
    logits = np.array([3.0, 2.0, 2.0, 1.0])[None, :, None]
    truth = np.array([True, False, True, False])[:, None]
    found = bootstrap(logits, truth, np.arange(4), ["f"], draws=1)
    assert found.figures["auroc"].tolist() == [[0.875]]
    assert found.figures["ap"] == pytest.approx(np.array([[1 / 2 + 1 / 3]]))
    assert found.figures["f1"] == pytest.approx(np.array([[2 / 3]]))


def test_without_drawing_figures_are_those_of_validation() -> None:
    logits, truth, groups = drawn(3)
    found = bootstrap(logits, truth, groups, NAMES, draws=2)
    for model in range(2):
        expected = validation_metrics(logits[model].astype(np.float32), truth.astype(np.float32), NAMES)
        for figure in FIGURES:
            assert found.figures[figure][model] == pytest.approx([expected[f"val/{figure}/{name}"] for name in NAMES])


def test_how_many_draws_are_counted_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, truth, groups = drawn(4)
    together = bootstrap(logits, truth, groups, NAMES, draws=20)
    monkeypatch.setattr(module, "WEIGHTS", 3 * (groups.max() + 1))
    monkeypatch.setattr(module, "SCORES", 4)
    apart = bootstrap(logits, truth, groups, NAMES, draws=20)
    for figure in FIGURES:
        assert apart.draws[figure] == pytest.approx(together.draws[figure], abs=1e-12, nan_ok=True)


def test_a_figure_alone_is_the_same_and_draws_come_from_the_seed() -> None:
    logits, truth, groups = drawn(5)
    every = bootstrap(logits, truth, groups, NAMES, draws=10)
    for figure in FIGURES:
        alone = bootstrap(logits, truth, groups, NAMES, draws=10, figures=(figure,))
        assert list(alone.draws) == [figure]
        assert np.array_equal(alone.draws[figure], every.draws[figure], equal_nan=True)
    other = bootstrap(logits, truth, groups, NAMES, draws=10, seed=1)
    assert not np.array_equal(other.draws["brier"], every.draws["brier"])


def test_models_are_drawn_together() -> None:
    """A model has no gap to itself; the gap's error is less than that of models drawn apart."""
    logits, truth, groups = drawn(6, images=400)
    near = np.stack([logits[0].astype(float), logits[0] + 0.05 * np.random.default_rng(1).normal(size=truth.shape)])
    found = bootstrap(near, truth, groups, NAMES, draws=300)
    nothing = found.macro("ap", 0, 0)
    assert (nothing.value, nothing.low, nothing.high, nothing.error) == (0, 0, 0, 0)
    gap, one = found.macro("ap", 0, 1), found.macro("ap", 0)
    assert gap.error < one.error / 2
    assert gap.value == pytest.approx(one.value - found.macro("ap", 1).value)
    assert one.value == pytest.approx(found.figures["ap"][0].mean())
    by_finding = found.by_finding("ap", 0, 1)
    assert np.mean([each.value for each in by_finding]) == pytest.approx(gap.value)


def test_intervals_by_hand() -> None:
    """Around the figure less its bias."""
    logits, truth, groups = drawn(7, images=400)
    found = bootstrap(logits, truth, groups, NAMES, draws=200)
    interval, draws = found.by_finding("f1", 1)[0], found.draws["f1"][1, 0]
    assert interval.value == found.figures["f1"][1, 0]
    assert interval.error == pytest.approx(draws.std(ddof=1))
    middle = 2 * interval.value - draws.mean()
    odds = math.log(middle / (1 - middle))
    reach = 1.959964 * interval.error / (middle * (1 - middle))
    ends = [1 / (1 + math.exp(-end)) for end in (odds - reach, odds + reach)]
    assert [interval.low, interval.high] == pytest.approx(ends, abs=1e-6)
    gap, of_gap = found.by_finding("f1", 1, 0)[0], found.draws["f1"][1, 0] - found.draws["f1"][0, 0]
    middle, reach = 2 * gap.value - of_gap.mean(), 1.959964 * gap.error
    assert [gap.low, gap.high] == pytest.approx([middle - reach, middle + reach], abs=1e-6)


def test_what_no_draw_changes_is_unknown() -> None:
    """A finding that is never said, and a perfect order, are not sure for being so in every draw."""
    truth = np.arange(40)[:, None] % 4 == 0
    found = bootstrap((truth - 9.0)[None], truth, np.arange(40), ["f"], draws=50)
    for figure, value in (("ap", 1.0), ("f1", 0.0)):
        interval = found.macro(figure, 0)  # type: ignore[arg-type]
        assert interval.value == value and np.isnan([interval.low, interval.high, interval.error]).all()
    assert np.isnan(found.macro("ece", 0).low), "it is above 0 by chance"


def test_intervals_have_the_truth() -> None:
    """Percentiles would have AP in 0.83 of such draws."""
    random, prevalences = np.random.default_rng(0), np.array([0.05, 0.1, 0.15, 0.25])

    def validated(patients: int) -> tuple[Any, Any, Any]:
        groups = np.repeat(np.arange(patients), 2)
        truth = random.random((len(groups), 4)) < prevalences
        common = random.normal(size=(patients, 4))[groups]
        return (random.normal(size=truth.shape) + 0.5 * common + 1.3 * truth - 1.8)[None], truth, groups

    kinds: tuple[Figure, ...] = ("ap", "f1", "brier")
    true = bootstrap(*validated(100_000), "abcd", draws=1, figures=kinds)
    had: dict[str, list[bool]] = {kind: [] for kind in kinds}
    for _ in range(120):
        found = bootstrap(*validated(300), "abcd", draws=200, figures=kinds)
        for kind in kinds:
            interval = found.macro(kind, 0)
            had[kind].append(interval.low <= true.figures[kind][0].mean() <= interval.high)
    assert min(np.mean(of) for of in had.values()) >= 0.87, {kind: np.mean(of) for kind, of in had.items()}


def test_a_finding_that_is_lost_too_often_is_left_out_and_said() -> None:
    """Two patients of fifty have it: (48/50)^50 = 13 % of draws have neither."""
    random = np.random.default_rng(8)
    truth = np.zeros((50, 3), dtype=bool)
    truth[::2, 0] = truth[:2, 1] = truth[:10, 2] = True
    found = bootstrap(random.normal(size=(1, 50, 3)), truth, np.arange(50), ["often", "twice", "ten"], draws=1000)
    assert found.lost["twice"] / 1000 == pytest.approx(0.13, abs=0.035)
    assert found.lost["often"] == found.lost["ten"] == 0
    assert found.left_out == ["twice"]
    assert found.kept("auroc").tolist() == [True, False, True]
    assert found.kept("brier").tolist() == [True, True, True], "a calibration error needs no positives"
    assert found.macro("auroc", 0).value == pytest.approx(found.figures["auroc"][0, [0, 2]].mean())
    said = found.as_json()
    assert (said["draws"], said["left_out"]) == (1000, ["twice"])
    assert said["lost"] == {"twice": found.lost["twice"]}
    assert said["models"][0]["auroc"]["twice"] == {"value": None, "low": None, "high": None, "error": None}
    assert said["models"][0]["brier"]["twice"]["low"] < said["models"][0]["brier"]["twice"]["high"]
    json.dumps(said, allow_nan=False)


def test_draws_that_lose_a_kept_finding_have_no_macro_mean() -> None:
    """Five patients of sixty: one draw in 185 has none; it is not taken for a mean over the other finding alone."""
    random = np.random.default_rng(9)
    truth = np.zeros((60, 2), dtype=bool)
    truth[::2, 0] = truth[:5, 1] = True
    found = bootstrap(random.normal(size=(1, 60, 2)), truth, np.arange(60), NAMES, draws=2000)
    lost = np.isnan(found.draws["auroc"][0, 1])
    assert 0 < lost.sum() == found.lost["seldom"] <= 100
    assert found.left_out == []
    means = found.draws["auroc"][0].mean(axis=0)[~lost]
    assert found.macro("auroc", 0).error == pytest.approx(means.std(ddof=1))


def test_a_finding_that_nobody_has_is_left_out() -> None:
    logits, truth, groups = drawn(10)
    truth[:, 1] = False
    found = bootstrap(logits, truth, groups, NAMES, draws=5)
    assert found.left_out == ["seldom"]
    assert found.macro("auroc", 0).value == found.figures["auroc"][0, 0]
    truth[:, 0] = True
    assert np.isnan(bootstrap(logits, truth, groups, NAMES, draws=5).macro("auroc", 0).value)


def test_thresholds_may_differ_by_finding_and_model() -> None:
    logits, truth, groups = drawn(11)
    cuts = np.array([[0.3, 0.5], [0.6, 0.7]])
    found = bootstrap(logits, truth, groups, NAMES, draws=2, figures=("f1",), thresholds=cuts)
    for model in range(2):
        said = sigmoid(logits[model]) >= cuts[model]
        assert found.figures["f1"][model] == pytest.approx(f1_score(truth, said, average=None))


def test_a_patients_images_are_drawn_together() -> None:
    """Every image twice under the same patient: draw for draw the same as once."""
    logits, truth, _ = drawn(12)
    once = bootstrap(logits, truth, np.arange(len(truth)), NAMES, draws=30)
    twice = bootstrap(
        np.repeat(logits, 2, axis=1), np.repeat(truth, 2, axis=0), np.repeat(np.arange(len(truth)), 2), NAMES, draws=30
    )
    for figure in FIGURES:
        assert twice.draws[figure] == pytest.approx(once.draws[figure], abs=1e-12, nan_ok=True)


def test_what_is_not_a_number_is_refused() -> None:
    logits, truth, groups = drawn(13)
    logits[1, 3, 0] = np.nan
    with pytest.raises(RunFailed, match="NaN"):
        bootstrap(logits, truth, groups, NAMES)

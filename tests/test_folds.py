"""Gaps over folds: the corrected resampled variance by hand and by simulation, and what is said of a study of folds."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from finished import finished_study
from test_cli import call

from xlite_search.config import RunConfig
from xlite_search.results import folds, seeds
from xlite_search.results.best import best, read_best, write_best
from xlite_search.results.compare import Comparison, compare, show
from xlite_search.results.plain import as_json
from xlite_search.results.report.build import report
from xlite_search.results.run_facts import study_pairs
from xlite_search.results.ties import ties

STRENGTHS = (1.0, 2.5)
POINTS = [{"optimizer.lr": lr, "data.split.fold": fold} for lr in (1e-3, 1e-2) for fold in (0, 1, 2)]


def two(one: list[float], other: list[float]) -> tuple[list[dict[int, int]], list[tuple[list[int], ...]], np.ndarray]:
    """Two settings in as many folds: places, the pair's sides, scores."""
    many = len(one)
    places = [dict(enumerate(range(many))), dict(enumerate(range(many, 2 * many)))]
    return places, [(list(range(many)), list(range(many, 2 * many)))], np.array([*one, *other])


def test_five_folds_by_hand() -> None:
    """Gaps 0.1 to 0.5, mean 0.3, variance 0.025; each fold a fifth: 0.025 (1/5 + 1/4); t of 4 degrees is 2.776."""
    places, sides, scores = two([0.5, 0.6, 0.7, 0.8, 0.9], [0.4] * 5)
    found = folds.of_gaps(places, sides, scores, 5)
    assert (found.variance.tolist(), found.sampling.tolist(), found.dof) == ([pytest.approx(0.01125)], [0.0], 4)
    contrasts = seeds.contrasts(sides, 10)
    tied = ties([(0, 1)], contrasts @ scores, contrasts, folds.no_patients(10), found, draws=200_000)
    behind = tied.standings[1]
    assert tied.best == 0 and behind.gap == pytest.approx(-0.3)
    reach = 2.776 * 0.01125**0.5
    assert [behind.low, behind.high] == pytest.approx([-0.3 - reach, -0.3 + reach], abs=0.003)


def test_three_of_five_folds_have_the_overlap_of_five() -> None:
    places, sides, scores = two([1.0, 2, 3], [0.0] * 3)
    assert folds.of_gaps(places, sides, scores, 5).variance == pytest.approx([1 * (1 / 3 + 1 / 4)])


def test_the_mean_of_a_setting_by_hand() -> None:
    """Of one setting: variance 0.025 (1/5 + 1/4), four degrees of freedom, on the scale of log-odds."""
    (found,) = folds.own([dict(enumerate(range(5)))], np.array([0.5, 0.6, 0.7, 0.8, 0.9]), 5)
    reach = 2.7764451 * 0.01125**0.5 / (0.7 * 0.3)
    ends = [1 / (1 + math.exp(-math.log(0.7 / 0.3) - side * reach)) for side in (-1, 1)]
    assert [found.value, found.low, found.high, found.error] == pytest.approx([0.7, *ends, 0.01125**0.5])


def test_settings_that_lack_a_fold_are_left_out_by_name(tiny: RunConfig) -> None:
    """Means over other folds are of other images. Two settings have all three folds, and one has two of them."""
    base = tiny.with_settings({"data.split": {"name": "folds", "folds": 3}})
    points = [*POINTS, *({"optimizer.lr": 0.1, "data.split.fold": fold} for fold in (0, 1))]
    finished_study("s", base, points, [1.0] * 3 + [2.5] * 3 + [9.0] * 2)
    claims = compare(["s"]).claims
    assert claims is not None and claims.folds == (0, 1, 2) and claims.apart == ("lr=0.1",)
    assert "without lr=0.1, for want of common folds" in claims.sentence()
    assert [arm.label for arm in claims.arms] == ["lr=0.01", "lr=0.001"]
    assert claims.winner.score == claims.arms[0].score
    gap = claims.arms[1].score - claims.arms[0].score
    assert claims.arms[1].standing.gap == pytest.approx(gap), "the difference of the means that are shown"


def test_settings_of_a_few_folds_are_compared_on_these(tiny: RunConfig) -> None:
    base = tiny.with_settings({"data.split": {"name": "folds", "folds": 3}})
    points = [point for point in POINTS if point["data.split.fold"] != 2]
    finished_study("s", base, points, [1.0] * 2 + [2.5] * 2)
    claims = compare(["s"]).claims
    assert claims is not None and claims.sentence().startswith("In folds 0, 1 of 3, ")


def test_two_settings_are_compared_on_what_they_have_in_common_rather_than_one_alone(tiny: RunConfig) -> None:
    """One has all four folds, two have the first two."""
    base = tiny.with_settings({"data.split": {"name": "folds", "folds": 4}})
    has = {1e-3: range(4), 1e-2: (0, 1), 1e-1: (0, 1)}
    points = [{"optimizer.lr": lr, "data.split.fold": fold} for lr, of in has.items() for fold in of]
    finished_study("s", base, points, [1.0] * 4 + [2.0] * 2 + [3.0] * 2)
    claims = compare(["s"]).claims
    assert claims is not None and (claims.folds, claims.apart, len(claims.arms)) == ((0, 1), (), 3)


def test_no_two_settings_with_two_folds_say_nothing_of_each_other(tiny: RunConfig) -> None:
    """Every setting has lost a fold, each another one."""
    base = tiny.with_settings({"data.split": {"name": "folds", "folds": 4}})
    points = [
        {"optimizer.lr": lr, "data.split.fold": fold} for lr, of in ((1e-3, (0, 1)), (1e-2, (2, 3))) for fold in of
    ]
    finished_study("s", base, points, [1.0] * 2 + [2.5] * 2)
    comparison = compare(["s"])
    assert comparison.claims is not None and len(comparison.claims.arms) == 1
    assert len(comparison.claims.apart) == 1 and report("s").said.sentence


def test_the_best_of_a_fold_that_is_not_the_first_is_trained_again(
    tiny: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tiny.with_settings({"data.split": {"name": "folds", "folds": 3}})
    finished_study("s", base, POINTS, [1.0] * 3 + [2.0, 2.5, 3.0])
    found = write_best("s", tmp_path / "best.yaml")
    fold = found["config"]["data"]["split"]["fold"]
    assert fold != 0, "the usual run is that of the middle"
    code, _, err = call(capsys, "train", str(tmp_path / "best.yaml"), "--set", "epochs=1", "--name", "m")
    assert code == 0, err


@pytest.mark.parametrize("settings", [2, 6])
def test_equal_settings_are_seldom_called_different(settings: int) -> None:
    """Errors of overlapping trainings, correlated by 1/k from fold to fold: uncorrected it would be far more."""
    random, of, studies = np.random.default_rng(0), 5, 300
    places = [{fold: number * of + fold for fold in range(of)} for number in range(settings)]
    pairs = list(itertools.combinations(range(settings), 2))
    sides = [tuple(list(places[each].values()) for each in pair) for pair in pairs]
    contrasts = seeds.contrasts(sides, settings * of)
    wrong, kept = 0, 0
    for _ in range(studies):
        common = random.normal(size=(settings, 1)) * math.sqrt(1 / of)
        own = random.normal(size=(settings, of)) * math.sqrt(1 - 1 / of)
        scores = (common + own + 3 * random.normal(size=of)).ravel()
        training = folds.of_gaps(places, sides, scores, of)
        law = folds.no_patients(len(scores))
        found = ties(pairs, contrasts @ scores, contrasts, law, training, margin=0, draws=2000)
        wrong += any(each.verdict in ("better", "worse") for each in found.standings)
        kept += len(found.set)
    assert wrong <= studies * 0.05 + 3 * math.sqrt(studies * 0.05 * 0.95)
    assert kept >= settings * studies * 0.92


@pytest.fixture
def crossed(tiny: RunConfig) -> Comparison:
    """Two learning rates in three folds; the larger tells more."""
    base = tiny.with_settings({"data.split": {"name": "folds", "folds": 3}})
    finished_study("s", base, POINTS, [STRENGTHS[0]] * 3 + [STRENGTHS[1]] * 3)
    return compare(["s"])


def test_settings_over_folds_are_claims_about_the_recipe(
    crossed: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    claims = crossed.claims
    assert claims is not None and claims.about == "recipe"
    assert (claims.folds, claims.of_folds, claims.images) == ((0, 1, 2), 3, 240)
    first, second = claims.arms
    assert (first.label, second.label, first.folds) == ("lr=0.01", "lr=0.001", [0, 1, 2])
    scores = np.array([[run.best_score(crossed.metric) for run in arm.runs] for arm in claims.arms])
    gaps = scores[0] - scores[1]
    assert [first.score, second.standing.gap] == pytest.approx([scores[0].mean(), -gaps.mean()])
    assert second.gaps == pytest.approx(-gaps)
    error = math.sqrt(gaps.var(ddof=1) * (1 / 3 + 1 / 2))
    assert second.standing.high - second.standing.gap == pytest.approx(4.303 * error, rel=0.03)
    assert set(claims.own) == {run.key for run in crossed.ranked}, "each run has an interval by its own images"
    assert claims.sentence().startswith("In 3 folds, 240 validation images of ")
    show(crossed)
    out = capsys.readouterr().out
    assert "over the folds, the recipe" in out and "of each fold" in out and " # " not in out.split("over the")[0]
    found = json.loads(json.dumps(as_json(crossed), allow_nan=False))["claims"]
    assert (found["folds"], found["arms"][0]["folds"]) == ([0, 1, 2], [0, 1, 2])


def test_runs_of_different_folds_are_no_pair(crossed: Comparison) -> None:
    pairs = study_pairs(crossed)
    for pair in pairs.pairs:
        one, other = ("fold=" + name.split("fold=")[1] for name in (pair.found.a, pair.found.b))
        assert pair.found.fair == (one == other), pair.sentence()


def test_the_best_over_folds_is_exported_and_reported(crossed: Comparison, tmp_path: Path) -> None:
    found = best("s")
    assert found["chosen"] | {"by": "mean over folds", "of": 2, "seeds": 1, "folds": 3} == found["chosen"]
    assert crossed.best.settings["optimizer.lr"] == 1e-2
    write_best("s", tmp_path / "best.yaml")
    assert read_best(tmp_path / "best.yaml")["chosen"]["folds"] == 3
    page = report("s")
    assert page.effects is not None and {each.factor for each in page.effects.effects} == {"optimizer.lr"}
    assert page.matrix is None, "a fold is no factor"
    assert page.gaps is not None and "fold" in page.gaps.one
    assert any("Nadeau" in paragraph for paragraph in page.methods)
    assert "3 folds" in page.said.sentence


def test_a_fold_each_says_nothing(tiny: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    base = tiny.with_settings({"data.split": {"name": "folds", "folds": 3}})
    finished_study("s", base, [POINTS[0], POINTS[4]], STRENGTHS)
    found = compare(["s"])
    assert found.claims is None and "no setting was run in two of them" in found.unclaimed
    code, _, err = call(capsys, "compare", "s", "--against", found.ranked[1].key)
    assert code == 2 and "validated on other images" in err

"""Subgroups: counts by hand, AUROC of the subset, gaps against a bootstrap of patients, all at once."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from xlite_search.data.sources import LabelTable
from xlite_search.evaluation.scored import Scored
from xlite_search.evaluation.subgroups import attributes, subgroups
from xlite_search.results.columns import show

CLASSES = ("Mass", "Edema", "Hernia")


def drawn(patients: int, seed: int = 0, gap: float = 0.0) -> tuple[Scored, LabelTable]:
    """Three images of each patient; Hernia is rare. In women a finding is told by `gap` more."""
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(patients), 3)
    images = len(groups)
    truth = random.random((images, 3)) < (0.3, 0.2, 0.004)
    female = (groups % 2 == 0)[:, None]
    common = random.normal(size=(patients, 3))[groups]
    logits = random.normal(size=truth.shape) + common + (1 + gap * female) * truth - 2
    names = tuple(f"{number}.png" for number in range(images))
    table = LabelTable(
        names=names,
        groups=tuple(map(str, groups)),
        labels=truth.astype(np.uint8),
        classes=CLASSES,
        sexes=tuple("F" if of else "M" for of in female[:, 0]),
        ages=tuple(str(20 + int(group) % 60) for group in groups),
        projections=tuple(("PA", "AP", "PA")[number % 3] for number in range(images)),
        follow_ups=tuple(str(number % 3) for number in range(images)),
    )
    rows = np.arange(images)
    return Scored(logits.astype(np.float32), truth, groups, rows, names, CLASSES, {}), table


def test_who_is_in_which_subgroup() -> None:
    scored, table = drawn(60)
    found = attributes(table, scored.rows)
    assert {name: list(of) for name, of in found.items()} == {
        "sex": ["F", "M"],
        "age": ["< 40", "40-60", "> 60"],
        "projection": ["PA", "AP"],
        "examination": ["first", "follow-up"],
    }
    assert [int(of.sum()) for of in found["age"].values()] == [60, 63, 57], "20 to 39, 40 to 60, 61 to 79"
    assert [int(of.sum()) for of in found["examination"].values()] == [60, 120]
    part = np.array([0, 3, 6])
    assert attributes(table, part).keys() == {"sex"}, "the others have one subgroup alone"


def test_figures_are_those_of_the_subset() -> None:
    scored, table = drawn(200)
    decisions = scored.logits > -1.5
    found = subgroups(scored, table, decisions)
    assert found.findings["sex"] == ("Mass", "Edema"), "few have a hernia"
    women = next(each for each in found.subgroups if each.name == "F")
    chosen = np.array([sex == "F" for sex in table.sexes])
    truth, said = scored.truth[chosen], decisions[chosen]
    areas = [roc_auc_score(truth[:, place], scored.logits[chosen][:, place]) for place in (0, 1)]
    assert women.auroc.value == pytest.approx(np.mean(areas))
    assert (women.images, women.patients) == (300, 100)
    assert women.ill == len({group for group, of in zip(scored.groups[chosen], truth, strict=True) if of.any()})
    assert women.sensitivity is not None and women.sensitivity.value == pytest.approx(said[truth].mean())
    assert women.false_positive_rate is not None
    assert women.false_positive_rate.value == pytest.approx(said[~truth].mean())
    ill = truth.any(axis=1)
    assert women.underdiagnosis is not None
    assert women.underdiagnosis.value == pytest.approx((~said[ill].any(axis=1)).mean())
    within = found.projected["Mass"]
    ap = np.array([view == "AP" for view in table.projections])
    assert within["AP"] == pytest.approx(roc_auc_score(scored.truth[ap, 0], scored.logits[ap, 0]))
    assert within["pooled"] == pytest.approx(roc_auc_score(scored.truth[:, 0], scored.logits[:, 0]))


def test_without_decisions_there_are_no_rates_and_everything_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    scored, table = drawn(60)
    found = subgroups(scored, table)
    assert {each.sensitivity for each in found.subgroups} == {None}
    told: dict[str, Any] = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert [gap["attribute"] for gap in told["gaps"]] == ["sex", "age", "age", "age", "projection", "examination"]
    show(found.tables(), width=80)
    out = capsys.readouterr().out
    assert "FPR" not in out and "projection: PA less AP" in out and max(map(len, out.splitlines())) <= 80


def test_a_gap_has_the_standard_error_of_the_patient_bootstrap() -> None:
    """Projections are of the same patients, which makes their gap more certain than two groups of patients would be."""
    scored, table = drawn(400, seed=3)
    found = {(gap.attribute, gap.one): gap for gap in subgroups(scored, table).gaps}
    random = np.random.default_rng(0)
    for attribute, one, column in (("sex", "F", table.sexes), ("projection", "PA", table.projections)):
        first = np.array([value == one for value in column])
        draws = []
        for _ in range(200):
            rows = (3 * random.integers(400, size=400)[:, None] + np.arange(3)).ravel()
            areas = [
                np.mean(
                    [roc_auc_score(scored.truth[rows[of], place], scored.logits[rows[of], place]) for place in (0, 1)]
                )
                for of in (first[rows], ~first[rows])
            ]
            draws.append(areas[0] - areas[1])
        gap = found[attribute, one]
        half = (gap.high - gap.low) / 2
        assert 2.3 < half / np.std(draws) < 3.2, "of six gaps at once"


def test_a_gap_that_is_there_is_found_and_none_is_not() -> None:
    told, none = 0, 0
    for seed in range(40):
        for gap, count in ((1.2, True), (0.0, False)):
            scored, table = drawn(300, seed=seed, gap=gap)
            verdicts = [each.verdict for each in subgroups(scored, table).gaps]
            told += count and verdicts[0] == "better"
            none += not count and any(verdict != "cannot tell" for verdict in verdicts)
    assert told >= 36 and none <= 6

"""Localisation: hand-computed figures, the guess that sees no image, and NIH's own boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlite_search.data.boxes import Box
from xlite_search.data.sources.box_list import read_boxes
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.data.sources.labels import read_labels
from xlite_search.evaluation.cases import evenly
from xlite_search.evaluation.finding_means import gaps, shares
from xlite_search.evaluation.finding_means import graded as means
from xlite_search.evaluation.localisation import (
    FIGURES,
    OVER_ALL,
    Case,
    Guess,
    constants,
    guess_of,
    judged,
    localisation,
    overlaps,
)


def case(*boxes: tuple[float, float, float, float], patient: str = "1", finding: str = "Mass", size: int = 100) -> Case:
    return Case(f"{patient}.png", patient, finding, tuple(Box(finding, *box) for box in boxes), size)


# One case


def test_figures_of_a_case_by_hand() -> None:
    # 10 x 10 and 20 x 10 share 5 x 10 = 50; union 100 + 200 - 50
    found = judged(case((0, 0, 10, 10)), Guess((7, 5), (5, 0, 20, 10)))
    assert (found["pointing"], found["iou"], found["iobb"]) == (1, 50 / 250, 50 / 200)
    assert [found[f"iou_{hit}"] for hit in (0.1, 0.25, 0.5)] == [1, 0, 0]
    assert [found[f"iobb_{hit}"] for hit in (0.1, 0.25, 0.5)] == [1, 1, 0]
    beside = judged(case((0, 0, 10, 10)), Guess((10, 5), (10, 0, 5, 5)))
    assert set(beside.values()) == {0.0}, "a box ends before its right border"


def test_of_several_boxes_the_best_counts() -> None:
    far, near = (80, 80, 10, 10), (0, 0, 10, 10)
    guess = Guess((5, 5), near)
    assert judged(case(far, near), guess) == judged(case(near, far), guess) == dict.fromkeys(FIGURES, 1.0)


def test_the_point_is_the_maximum_and_the_box_is_around_its_region() -> None:
    shown = np.zeros((10, 12), np.float32)
    shown[2:5, 3:7], shown[3, 5], shown[8, 1] = 0.5, 1.0, 0.9
    guess = guess_of(shown)
    assert guess == Guess((5.5, 3.5), (3, 2, 4, 3)), "another region as hot is not in the box"
    assert guess_of(shown, share=0.6) == Guess((5.5, 3.5), (5, 3, 1, 1))


def test_a_map_without_anything_above_0_is_a_miss() -> None:
    for shown in (np.zeros((8, 8)), np.full((8, 8), -1.0), np.full((8, 8), np.nan)):
        assert guess_of(shown) is None
    assert judged(case((0, 0, 100, 100)), None) == dict.fromkeys(FIGURES, 0.0)


def test_a_flat_border_is_pointed_at_where_it_begins() -> None:
    shown = np.zeros((9, 9))
    shown[:3, :3] = 1
    guess = guess_of(shown)
    assert guess is not None and guess.point == (2.5, 2.5)
    shown[6:, 6:] = 1
    two = guess_of(shown)
    assert two is not None and shown[int(two.point[1]), int(two.point[0])] == 1, "never between two maxima"


maps = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).random((16, 16)) ** 4)


@given(maps, st.floats(0.1, 1000))
@settings(deadline=None, max_examples=60)
def test_a_guess_is_of_the_order_of_the_pixels_and_turns_with_the_map(shown: np.ndarray, scale: float) -> None:
    guess, larger, mirrored = guess_of(shown), guess_of(shown * scale), guess_of(shown[:, ::-1])
    assert guess and larger and mirrored
    assert guess.point == larger.point
    x, y, width, height = guess.box
    assert x <= guess.point[0] <= x + width and y <= guess.point[1] <= y + height
    assert mirrored.point == (16 - guess.point[0], guess.point[1])
    assert mirrored.box == (16 - x - width, y, width, height)


sides = st.tuples(st.floats(0, 60), st.floats(0, 60), st.floats(1, 40), st.floats(1, 40))


@given(sides, sides, st.floats(-20, 20))
@settings(deadline=None)
def test_overlaps_are_symmetric_and_move_with_the_boxes(
    one: tuple[float, float, float, float], other: tuple[float, float, float, float], by: float
) -> None:
    a, b = np.array([one]), np.array([other])
    shared = overlaps(a, b)[0, 0]
    assert shared == overlaps(b, a)[0, 0] <= min(a[0, 2] * a[0, 3], b[0, 2] * b[0, 3]) + 1e-9
    moved = np.array([[by, by, 0, 0]])
    assert overlaps(a + moved, b + moved)[0, 0] == pytest.approx(shared, abs=1e-6)
    found = judged(case(one), Guess((0, 0), other))
    assert 0 <= found["iou"] <= found["iobb"] + 1e-9 <= 1 + 2e-9


# The guess that sees no image


def test_the_constant_is_the_best_that_any_guess_could_be_that_sees_no_image() -> None:
    left, right = (10, 10, 20, 20), (60, 60, 20, 20)
    cases = [case(left, patient=name) for name in "abc"] + [case(right, patient="d"), case(left, right, patient="e")]
    found = constants(cases)
    assert (
        len(set(found)) == 1
        and found[0].box == pytest.approx(left)
        and found[0].point == pytest.approx((20, 20), abs=0.6)
    )
    assert np.mean([judged(each, found[0])["pointing"] for each in cases]) == 4 / 5, "a case counts once"
    alone = constants([case(left, patient="a"), case(right, patient="b", finding="Nodule")])
    assert alone[0].box == pytest.approx(left) and alone[1].box == pytest.approx(right), "each finding has its own"


def test_the_constant_of_what_lies_in_one_of_two_places_has_half_of_it() -> None:
    """Fitted to the other patients' boxes it would be on the other side of each, as often as both are alike frequent:
    its figures would be 0, and any map better."""
    sides = [(10, 30, 20, 20), (70, 30, 20, 20)]
    row = localisation([case(sides[number % 2], patient=str(number)) for number in range(40)], [None] * 40)[0]
    assert row.constant["pointing"].value == 0.5 and row.constant["iou"].value == pytest.approx(0.5)


@given(st.lists(st.tuples(sides, st.booleans()), min_size=1, max_size=8), sides)
@settings(deadline=None, max_examples=40)
def test_no_constant_guess_points_better(drawn: list[tuple[tuple[float, ...], bool]], other: tuple[float, ...]) -> None:
    """But for points between those of its grid, one in a hundred along a side."""
    cases = [case(box, patient=str(number // 2)) for number, (box, _) in enumerate(drawn)]  # type: ignore[arg-type]
    best = np.mean([judged(each, guess)["pointing"] for each, guess in zip(cases, constants(cases), strict=True)])
    x, y = (int(each) + 0.5 for each in other[:2])
    assert best >= np.mean([judged(each, Guess((x, y), (0, 0, 1, 1)))["pointing"] for each in cases])


def test_the_constants_figures_on_nihs_boxes_are_those_that_were_measured(shared: Path) -> None:
    home = shared / "data" / "chestxray14"
    if not (home / "BBox_List_2017.csv.gz").is_file():
        pytest.skip(f"no box list in {home}")
    table = read_labels(home / "Data_Entry_2017_v2020.csv.gz")
    boxes = read_boxes(home / "BBox_List_2017.csv.gz", table.names, CHEST_FINDINGS)
    cases = [Case(table.names[row], table.groups[row], box.label, (box,), 1024) for row in boxes for box in boxes[row]]
    rows = localisation(cases, [None] * len(cases))
    over_all = rows[-1]
    assert (over_all.finding, over_all.cases, over_all.patients) == (OVER_ALL, 984, 726)
    assert over_all.constant["pointing"].value == pytest.approx(0.409, abs=0.001)
    assert over_all.constant["iou"].value == pytest.approx(0.207, abs=0.001)
    assert rows[1].finding == "Cardiomegaly" and rows[1].constant["iou"].value == pytest.approx(0.64, abs=0.005)


def test_chance_is_the_share_of_the_image_that_boxes_cover() -> None:
    assert case((0, 0, 50, 50)).chance == pytest.approx(0.25)
    assert case((0, 0, 50, 50), (25, 25, 50, 50)).chance == pytest.approx(0.25 + 0.25 - 0.0625)
    rng = np.random.default_rng(0)
    many = [case((20, 30, 40, 20), patient=str(number)) for number in range(2000)]
    hits = [judged(each, Guess(tuple(rng.random(2) * 100), (0, 0, 1, 1)))["pointing"] for each in many]
    assert np.mean(hits) == pytest.approx(many[0].chance, abs=0.02)


# Intervals


def one_kind(values: list[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.array(values), np.zeros(len(values), int), np.arange(len(values))


def test_shares_have_wilsons_interval_where_each_patient_has_one_case() -> None:
    from scipy.stats import t

    of = one_kind([1.0] * 30 + [0.0] * 70)
    found, over_all = shares(*of)
    assert found == over_all
    z, n, p = t.ppf(0.975, 99), 99, 0.3  # the variance of n - 1, as an unbiased one is
    middle, reach = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (found.low, found.high) == pytest.approx(
        ((middle - reach) / (1 + z**2 / n), (middle + reach) / (1 + z**2 / n))
    )
    none = shares(*one_kind([0.0] * 20))[0]
    assert (none.value, none.low) == (0, 0) and 0.1 < none.high < 0.25
    assert np.isnan(shares(*one_kind([1.0]))[0].low), "one patient tells nothing of the next"


def test_patients_with_many_cases_make_the_interval_wider_and_not_narrower() -> None:
    rng = np.random.default_rng(1)
    patients = np.repeat(np.arange(40), 5)
    hits = np.repeat((rng.random(40) < 0.4).astype(float), 5)
    kinds = np.zeros(200, int)
    single = shares(*one_kind(hits[::5].tolist()))[0]
    many = shares(hits, kinds, patients)[0]
    assert many.high - many.low == pytest.approx(single.high - single.low, rel=0.02)
    assert means(hits, kinds, patients)[0].error == pytest.approx(single.error)


@pytest.mark.parametrize("share", [0.03, 0.3])
def test_intervals_have_the_truth_about_as_often_as_they_say(share: float) -> None:
    rng, truth, runs = np.random.default_rng(2), 0.1, 600
    held = {"share": 0, "gap": 0}
    patients = np.repeat(np.arange(60), 2)
    for _ in range(runs):
        ill = rng.random(60) < 0.5  # patients' two cases go together
        chances = np.where(ill, share * 1.5, share * 0.5)[patients]
        ours = (rng.random(120) < chances).astype(float)
        theirs = (rng.random(120) < truth).astype(float)
        interval = shares(ours, np.zeros(120, int), patients)[0]
        gap = gaps(ours - theirs, np.zeros(120, int), patients)[0]
        held["share"] += interval.low <= share <= interval.high
        held["gap"] += gap.low <= share - truth <= gap.high
    assert min(held.values()) / runs > 0.92, held


def test_gaps_have_a_width_where_no_patient_differs_and_graded_ones_stay_in_range() -> None:
    gap = gaps(*one_kind([0.0] * 20))[0]
    assert gap.value == 0 and gap.low == pytest.approx(-gap.high) and 0.1 < gap.high < 0.3
    found = means(*one_kind([0.9, 1.0, 0.2]))[0]
    assert 0 <= found.low < found.value < found.high <= 1


def test_over_all_is_the_mean_of_the_findings_and_not_of_the_cases() -> None:
    small = [case((0, 0, 10, 10), patient=str(number), finding="Nodule") for number in range(3)]
    large = [case((0, 0, 90, 90), patient=str(number), finding="Mass") for number in range(9)]
    rows = localisation([*large, *small], [Guess((50, 50), (0, 0, 90, 90))] * 11 + [None])
    assert [row.finding for row in rows] == ["Mass", "Nodule", OVER_ALL]
    mass, nodule, both = rows
    assert (mass.maps["pointing"].value, nodule.maps["pointing"].value, both.maps["pointing"].value) == (1, 0, 0.5)
    assert (nodule.empty, both.empty, both.patients, both.cases) == (1, 1, 9, 12)
    assert both.gap["pointing"].value == pytest.approx(both.maps["pointing"].value - both.constant["pointing"].value)
    assert both.chance == pytest.approx((0.81 + 0.01) / 2, abs=0.01)


# What is shown


def test_cases_that_are_shown_lie_evenly_along_the_probabilities() -> None:
    findings = ["Mass"] * 9 + ["Edema"]
    probabilities = [number / 10 for number in range(10)]
    assert evenly(findings, probabilities, 4) == [9, 6, 2]
    assert evenly(["Mass"] * 9, probabilities[:9], 1) == [4], "one alone is the middle one"
    assert len(evenly(["Mass"] * 3 + ["Edema"] * 3, [0.5] * 6, 5)) == 5
    assert len(set(evenly(["a", "b"] * 20, [0.1] * 40, 13))) == 13

"""Localisation: hand-computed figures, the guess that sees no image, NIH's own boxes, and the verb end to end."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import call
from test_scored import folder

from xlite_search.config import RunConfig
from xlite_search.data.boxes import Box
from xlite_search.data.dataset import open_data
from xlite_search.data.sources.box_list import read_boxes
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.data.sources.labels import read_labels
from xlite_search.evaluation.cases import evenly
from xlite_search.evaluation.localisation import (
    FIGURES,
    OVER_ALL,
    Case,
    Guess,
    constants,
    gaps,
    guess_of,
    judged,
    localisation,
    overlaps,
    shares,
)
from xlite_search.evaluation.localisation import graded as means

__all__ = ["folder"]


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


def test_the_constant_is_fitted_to_the_other_patients() -> None:
    left, right = (10, 10, 20, 20), (60, 60, 20, 20)
    cases = [case(left, patient=name) for name in "abce"] + [case(right, patient="d"), case(right, patient="d")]
    found = constants(cases)
    assert found[0].box == pytest.approx(left) and found[0].point == pytest.approx((20, 20), abs=0.6)
    # for d the others' boxes alone count, although it has two
    assert found[4].box == pytest.approx(left) and judged(cases[4], found[4])["pointing"] == 0
    assert constants([case(right)]) == [Guess((50, 50), (0, 0, 100, 100))], "nobody else has it"
    alone = constants([case(left, patient="a"), case(right, patient="b", finding="Nodule")])
    assert alone[0].box == (0, 0, 100, 100), "another finding's boxes are no help"


def test_the_constants_figures_on_nihs_boxes_are_those_that_were_measured(shared: Path) -> None:
    home = shared / "data" / "chestxray14"
    if not (home / "BBox_List_2017.csv.gz").is_file():
        pytest.skip(f"no box list in {home}")
    table = read_labels(home / "Data_Entry_2017_v2020.csv.gz")
    boxes = read_boxes(home / "BBox_List_2017.csv.gz", table.names, CHEST_FINDINGS)
    cases = [Case(table.names[row], table.groups[row], box.label, (box,), 1024) for row in boxes for box in boxes[row]]
    median = localisation(cases, constants(cases, "median"))
    over_all = median[-1]
    assert (over_all.finding, over_all.cases, over_all.patients) == (OVER_ALL, 984, 726)
    assert over_all.maps["pointing"].value == pytest.approx(0.378, abs=0.002)
    assert over_all.maps["iou"].value == pytest.approx(0.148, abs=0.001)
    assert over_all.maps["iou_0.5"].value == pytest.approx(0.121, abs=0.002)
    assert median[1].finding == "Cardiomegaly" and median[1].maps["iou"].value == pytest.approx(0.64, abs=0.005)
    best = over_all.constant["iou"].value
    assert best == pytest.approx(0.194, abs=0.001), "what maps are held against is the harder one"


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


# The verb


def test_explain_leaves_overlays_a_sheet_and_every_figure(
    folder: Path, tiny: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "explain", "m", "--images", "5", "--cpu", "--findings", "Mass,Effusion,Cardiomegaly")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[-1] == "next: python -m xlite_search export m -o DIR"
    for word in ("pointing", "constant", "95 % of gap", "chance", OVER_ALL, "rank correlation", "Cardiomegaly"):
        assert word in out, word
    home = folder / "artifacts" / "explain"
    body = json.loads((home / "localisation.json").read_text(encoding="utf-8"))
    assert [row["finding"] for row in body["localisation"]] == ["Cardiomegaly", "Effusion", "Mass", OVER_ALL]
    assert set(body["localisation"][0]["gap"]) == set(FIGURES) and set(body["sanity"]) == {"head", "attention", "all"}
    assert (body["data"]["part"], body["method"], len(body["shown"])) == ("val", "gradcam", 5)
    data = open_data(tiny.data)
    rows = data.split.rows["val"].tolist()
    boxed = sum(any(b.label == "Mass" for b in data.packed.boxes(row)) for row in rows)
    assert body["localisation"][2]["cases"] == boxed > 0
    pictures = sorted(path.name for path in home.glob("*.png"))
    assert len(pictures) == 6 and "contact_sheet.png" in pictures
    sheet = cv2.imread(str(home / "contact_sheet.png"))
    assert sheet is not None and min(sheet.shape[:2]) > 200
    code, out, err = call(capsys, "explain", "m", "--images", "2", "--cpu", "--json", "--method", "hirescam")
    assert code == 0 and json.loads(out)["method"] == "hirescam", err
    assert len(list(home.glob("*.png"))) == 3, "pictures of the call before are gone"


def test_explain_compares_with_occlusion_if_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(
        capsys,
        "explain",
        "m",
        "--images",
        "2",
        "--cpu",
        "--json",
        "--occlusion",
        "--part",
        "test",
        "--findings",
        "Mass",
    )
    assert code == 0, err
    body = json.loads(out)
    assert {"rank_correlation", "pointing_of_maps", "pointing_of_occlusion"} <= set(body["occlusion"])
    assert any("are of the test part" in note for note in body["notes"])


def test_without_boxes_the_most_probable_positives_are_shown(
    folder: Path, tmp_path: Path, tiny: RunConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xlite_search.data.packed.PackedSet.boxes", lambda self, row: ())
    monkeypatch.setattr("xlite_search.evaluation.explain.boxes_of", lambda packed, part, asked: {})
    code, out, err = call(capsys, "explain", "m", "--images", "3", "--cpu", "--findings", "Mass")
    assert code == 0, err
    assert "no image of the val part has a box" in out and out.splitlines()[-1].startswith("next: ")
    body = json.loads((folder / "artifacts" / "explain" / "localisation.json").read_text(encoding="utf-8"))
    chances = [each["probability"] for each in body["shown"]]
    assert chances == sorted(chances, reverse=True) and body["localisation"] == []


def test_a_box_list_is_taken_in_place_of_the_prepared_boxes(
    folder: Path, tmp_path: Path, tiny: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    data = open_data(tiny.data)
    names = [data.packed.table.names[row] for row in data.split.rows["val"].tolist()]
    head = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
    path = tmp_path / "boxes.csv"
    path.write_text(head + "".join(f"{name},Infiltrate,10,20,30,20\n" for name in names[:4]), encoding="utf-8")
    code, out, err = call(capsys, "explain", "m", "--cpu", "--json", "--boxes", str(path))
    assert code == 0, err
    body = json.loads(out)
    assert [(row["finding"], row["cases"]) for row in body["localisation"]] == [("Infiltration", 4), (OVER_ALL, 4)]
    assert body["shown"][0]["boxes"] == [[5, 10, 15, 10]], "raw ones are of 64 px, and 32 px were prepared"
    path.write_text(head + f"{names[0]},Mass,10,20,60,20\n", encoding="utf-8")
    code, out, err = call(capsys, "explain", "m", "--cpu", "--boxes", str(path))
    assert code == 2 and "has 64 x 64 px, and the box of Mass reaches" in err.splitlines()[-1]
    train = data.packed.table.names[int(data.split.rows["train"][0])]
    path.write_text(head + f"{train},Mass,10,20,6,20\n", encoding="utf-8")
    code, out, err = call(capsys, "explain", "m", "--cpu", "--boxes", str(path))
    assert code == 2 and "none of the images that have a box in it is in the val part" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["n"], "no model 'n'"),
        (["m", "--findings", "Mas"], "--findings Mas: no finding of this model and data set; did you mean 'Mass'?"),
        (["m", "--part", "valid"], "--part valid: expected train, val, test"),
        (["m", "--method", "lime"], "--method lime: expected gradcam, hirescam"),
        (["m", "--images", "0"], "--images 0: expected"),
        (["m", "--on", "nowhere"], "data set 'nowhere' is not prepared"),
        (["m", "--boxes", "no.csv"], "no.csv: there is no such file"),
    ],
)
def test_bad_input_is_a_sentence(
    arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "explain", *arguments, "--cpu")
    assert code == 2 and said in err.splitlines()[-1] and "Traceback" not in err, err

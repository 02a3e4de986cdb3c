"""The drawn data set: the same picture every time, labels as asked, findings where their boxes are."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlite_search.data.boxes import Box
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.data.sources.phantom import PREVALENCE, Phantom, contact_sheet
from xlite_search.data.sources.phantom_findings import PAINTERS, draw
from xlite_search.errors import BadInput

SMALL = 96
DEFORMING = ("Cardiomegaly", "Emphysema", "Fibrosis", "Atelectasis")


def drawn_with_and_without(finding: str, row: int) -> tuple[np.ndarray, np.ndarray, list[Box]]:
    phantom = Phantom(images=40, seed=3, size=128)
    chest, pose = phantom.chest(row), phantom.pose(row)
    plain, no_boxes = draw(chest, pose, (), phantom.size)
    changed, boxes = draw(chest, pose, (finding,), phantom.size)
    assert no_boxes == []
    return plain.astype(int), changed.astype(int), boxes


@given(images=st.integers(1, 400), more=st.integers(0, 400), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=25, deadline=None)
def test_a_longer_data_set_begins_with_the_shorter_one(images: int, more: int, seed: int) -> None:
    short = Phantom(images=images, seed=seed, label_noise=0.1).table()
    long = Phantom(images=images + more, seed=seed, label_noise=0.1).table()
    assert long.names[:images] == short.names
    assert long.groups[:images] == short.groups
    assert long.projections[:images] == short.projections
    assert np.array_equal(long.labels[:images], short.labels)


def test_pixels_depend_on_seed_and_row_only() -> None:
    one, other = Phantom(images=12, size=SMALL), Phantom(images=90, size=SMALL)
    forwards = [one.pixels(row) for row in range(12)]
    backwards = [other.pixels(row) for row in reversed(range(12))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    copy = pickle.loads(pickle.dumps(one))
    assert np.array_equal(copy.pixels(7), forwards[7])


def test_another_seed_changes_everything() -> None:
    one, other = Phantom(images=200, seed=1, size=SMALL), Phantom(images=200, seed=2, size=SMALL)
    assert one.table().names != other.table().names
    assert not np.array_equal(one.table().labels, other.table().labels)
    assert not any(np.array_equal(one.pixels(row), other.pixels(row)) for row in range(4))


def test_every_row_is_another_picture() -> None:
    phantom = Phantom(images=30, size=SMALL)
    assert len({phantom.pixels(row).tobytes() for row in range(30)}) == 30


def test_pixels_are_gray_bytes_of_the_asked_size() -> None:
    picture = Phantom(images=1, size=130).pixels(0)
    assert picture.shape == (130, 130)
    assert picture.dtype == np.uint8
    assert picture.std() > 30


def test_the_same_chest_at_another_size() -> None:
    large, small = Phantom(images=8, size=256), Phantom(images=8, size=128)
    for row in range(8):
        halved = large.pixels(row).reshape(128, 2, 128, 2).mean(axis=(1, 3))
        assert np.corrcoef(halved.ravel(), small.pixels(row).ravel())[0, 1] > 0.98
        assert len(large.boxes(row)) == len(small.boxes(row))


def test_patients_are_contiguous_and_names_unique() -> None:
    table = Phantom(images=5000).table()
    assert len(set(table.names)) == len(table) == 5000
    assert all(name == f"{patient}_{name[9:12]}.png" for name, patient in zip(table.names, table.groups, strict=True))
    starts = [p for p, before in zip(table.groups, (None, *table.groups), strict=False) if p != before]
    assert len(starts) == len(set(starts))
    counts = np.unique(np.array(table.groups[:-5]), return_counts=True)[1]
    assert counts.max() == 5
    assert 1.9 < counts.mean() < 2.15


def test_default_prevalence() -> None:
    labels = Phantom(images=20000).truth()
    expected = [PREVALENCE[name] for name in CHEST_FINDINGS]
    assert np.allclose(labels.mean(axis=0), expected, atol=0.012)
    assert 0.33 < (labels.sum(axis=1) == 0).mean() < 0.45


def test_asked_prevalence() -> None:
    labels = Phantom(images=4000, prevalence={"Mass": 0.5, "Hernia": 0.0, "Edema": 1.0}).truth()
    share = dict(zip(CHEST_FINDINGS, labels.mean(axis=0), strict=True))
    assert abs(share["Mass"] - 0.5) < 0.04
    assert share["Hernia"] == 0.0
    assert share["Edema"] == 1.0
    assert np.allclose(Phantom(images=20000, prevalence=0.3).truth().mean(axis=0), 0.3, atol=0.02)


def test_findings_stay_with_a_patient() -> None:
    phantom = Phantom(images=20000)
    labels, patients = phantom.truth(), np.array(phantom.table().groups)
    follow_up = patients[1:] == patients[:-1]
    again = {name: labels[1:][follow_up & (labels[:-1, c] > 0), c].mean() for c, name in enumerate(CHEST_FINDINGS)}
    assert again["Hernia"] > 0.5
    assert all(again[name] > 1.5 * PREVALENCE[name] for name in CHEST_FINDINGS)


def test_label_noise_flips_labels_and_not_pictures() -> None:
    clean, noisy = Phantom(images=5000, size=SMALL), Phantom(images=5000, size=SMALL, label_noise=0.08)
    assert np.array_equal(clean.table().labels, clean.truth())
    assert np.array_equal(noisy.truth(), clean.truth())
    assert abs((noisy.table().labels != noisy.truth()).mean() - 0.08) < 0.005
    row = int(np.flatnonzero((noisy.table().labels != noisy.truth()).any(axis=1))[0])
    assert np.array_equal(noisy.pixels(row), clean.pixels(row))


def test_each_drawn_finding_has_a_box_inside_the_picture() -> None:
    phantom = Phantom(images=80, size=SMALL, prevalence=0.3)
    for row in range(80):
        boxes = phantom.boxes(row)
        assert {box.label for box in boxes} == set(phantom.findings(row))
        for box in boxes:
            assert box.x >= 0
            assert box.y >= 0
            assert box.width > 0
            assert box.height > 0
            assert box.x + box.width <= SMALL
            assert box.y + box.height <= SMALL


def test_every_finding_can_be_drawn() -> None:
    assert set(PAINTERS) == set(CHEST_FINDINGS)


@pytest.mark.parametrize("finding", CHEST_FINDINGS)
def test_a_finding_changes_the_picture_where_its_box_is(finding: str) -> None:
    for row in range(0, 40, 5):
        plain, changed, boxes = drawn_with_and_without(finding, row)
        inside = np.zeros(plain.shape, bool)
        for box in boxes:
            inside[box.y : box.y + box.height, box.x : box.x + box.width] = True
        difference = np.abs(changed - plain)
        assert difference[inside].mean() > 4
        if finding not in DEFORMING:
            assert difference[inside].mean() > 5 * difference[~inside].mean()


@pytest.mark.parametrize("finding", ["Effusion", "Mass", "Consolidation", "Edema", "Infiltration", "Pneumonia"])
def test_opacities_are_bright(finding: str) -> None:
    plain, changed, _ = drawn_with_and_without(finding, 4)
    assert (changed - plain).sum() > 0


@pytest.mark.parametrize("finding", ["Emphysema", "Pneumothorax"])
def test_air_is_dark(finding: str) -> None:
    plain, changed, boxes = drawn_with_and_without(finding, 4)
    box = boxes[0]
    upper = np.s_[box.y : box.y + box.height // 3, box.x : box.x + box.width]
    assert changed[upper].mean() < plain[upper].mean()


def test_cardiomegaly_is_wider_than_half_of_the_thorax() -> None:
    phantom = Phantom(images=60, size=256)
    for row in range(0, 60, 6):
        _, boxes = draw(phantom.chest(row), phantom.pose(row), ("Cardiomegaly",), 256)
        thorax = 2 * phantom.chest(row).half_width * phantom.pose(row).zoom * 256
        assert boxes[0].width / thorax > 0.53


def test_a_chronic_finding_keeps_its_place() -> None:
    phantom = Phantom(images=200)
    patients = phantom.table().groups
    row = next(i for i in range(199) if patients[i] == patients[i + 1])
    first, second = (draw(phantom.chest(i), phantom.pose(i), ("Mass",), 256)[1][0] for i in (row, row + 1))
    assert abs(first.x - second.x) < 40
    assert abs(first.y - second.y) < 40


def test_describe_is_json_and_names_every_setting() -> None:
    described = json.loads(json.dumps(Phantom(images=5, prevalence={"Mass": 0.2}, label_noise=0.1).describe()))
    assert described["drawing"] >= 1
    assert described["images"] == 5
    assert described["label_noise"] == 0.1
    assert described["prevalence"] == {**PREVALENCE, "Mass": 0.2}
    assert Phantom().notice == ""


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("images", 0),
        ("images", 1.5),
        ("seed", -1),
        ("size", 8),
        ("size", "256"),
        ("prevalence", 1.2),
        ("prevalence", {"Mas": 0.1}),
        ("prevalence", {"Mass": -0.1}),
        ("prevalence", "high"),
        ("label_noise", 2),
        ("label_noise", float("nan")),
    ],
)
def test_bad_settings_are_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(BadInput, match=setting):
        Phantom(**{setting: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("row", [-1, 3])
def test_a_row_outside_the_table_is_refused(row: int) -> None:
    with pytest.raises(BadInput, match="rows run from 0 to 2"):
        Phantom(images=3).pixels(row)


def test_contact_sheet_shows_normals_and_every_finding() -> None:
    sheet = contact_sheet(Phantom(images=60, size=SMALL))
    assert sheet.shape == (4 * SMALL, 4 * SMALL, 3)
    assert sheet.dtype == np.uint8

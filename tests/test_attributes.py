"""View, sex and age: read from any table, kept with the images, and what each alone tells of a finding."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from test_cli import call

from xlite_search.data import index
from xlite_search.data.sources import LabelTable
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.data.sources.labels import read_labels, write_labels
from xlite_search.data.sources.phantom import Phantom
from xlite_search.results.attributes import attributes, lines


def table_of(path: Path, header: str, *cells: str) -> LabelTable:
    rows = "".join(f"{number}.png,{number},{number % 2},{cell}\n" for number, cell in enumerate(cells))
    path.write_text(f"image_id,patient,Mass,{header}\n{rows}", encoding="utf-8")
    return read_labels(path, ["Mass"])


@pytest.mark.parametrize(
    ("cell", "age"),
    [
        *(("57", "57"), ("057Y", "57"), ("57.0", "57"), ("18M", "1.5"), ("000D", "0"), ("0", "0"), ("26W", "0.4983")),
        *(("", ""), ("nan", ""), ("414", ""), ("old", ""), ("-3", ""), ("120", "120")),
    ],
)
def test_ages_are_years_or_not_known(cell: str, age: str, tmp_path: Path) -> None:
    for header in ("Patient Age", "age"):
        assert table_of(tmp_path / "t.csv", header, cell, "40").ages == (age, "40")


@pytest.mark.parametrize(
    ("cell", "sex"),
    [("M", "M"), ("female", "F"), ("Male", "M"), ("f", "F"), ("", ""), ("NaN", ""), ("unknown", ""), ("O", "")],
)
def test_sexes_are_m_f_or_not_known(cell: str, sex: str, tmp_path: Path) -> None:
    for header in ("Patient Gender", "Patient Sex", "sex"):
        assert table_of(tmp_path / "t.csv", header, cell, "M").sexes == (sex, "M")


def test_a_table_without_them_has_none(tmp_path: Path) -> None:
    table = table_of(tmp_path / "t.csv", "Follow-up #", "0", "1")
    assert (table.projections, table.sexes, table.ages) == ((), (), ())
    assert attributes(table) == []


def test_chexperts_column_of_views_is_read(tmp_path: Path) -> None:
    assert table_of(tmp_path / "t.csv", "AP/PA", "ap", "").projections == ("AP", "")


def some(images: int = 400) -> LabelTable:
    draw = np.random.default_rng(5)
    views = tuple(draw.choice(["AP", "PA", ""], images).tolist())
    ages = tuple(str(age) if age else "" for age in draw.integers(0, 90, images).tolist())
    labels = (draw.random((images, 14)) < 0.2).astype(np.uint8)
    labels[:, 0] = [view == "AP" and chance < 0.7 for view, chance in zip(views, draw.random(images), strict=True)]
    labels[:, 1] = [bool(age) and int(age) < 30 for age in ages]
    names = tuple(f"{number}.png" for number in range(images))
    return LabelTable(names, names, labels, CHEST_FINDINGS, projections=views, sexes=("M",) * images, ages=ages)


def test_they_are_kept_with_the_images_and_written_with_the_lists(tmp_path: Path) -> None:
    table = some()
    again = index.table_of(index.read_columns(index.index_columns(table)), table.classes)
    assert (again.projections, again.sexes, again.ages) == (table.projections, table.sexes, table.ages)
    write_labels(tmp_path / "train.csv", table)
    again = read_labels(tmp_path / "train.csv")
    assert (again.projections, again.sexes, again.ages) == (table.projections, table.sexes, table.ages)
    rows = np.array([7, 3])
    assert table.part(rows).ages == (table.ages[7], table.ages[3])


def test_what_one_alone_tells_is_the_area_under_its_own_curve() -> None:
    table = some()
    view, age = attributes(table)  # one sex says nothing
    known = np.array([bool(cell) for cell in table.projections])
    truth = table.labels[known]
    of_view = np.array(table.projections)[known]
    assert view.unknown == (~known).sum()
    assert view.images == {value: (of_view == value).sum() for value in view.images}
    for column, finding in enumerate(table.classes):
        area = roc_auc_score(truth[:, column], of_view == "AP")
        assert view.auroc[finding] == pytest.approx(max(area, 1 - area))
        for value, share in view.prevalence[finding].items():
            assert share == pytest.approx(truth[of_view == value, column].mean())
    known = np.array([bool(cell) for cell in table.ages])
    years = np.array([cell for cell in table.ages if cell], float)
    for column, finding in enumerate(table.classes):
        area = roc_auc_score(table.labels[known, column], years)
        assert age.auroc[finding] == pytest.approx(max(area, 1 - area))
    assert age.auroc[table.classes[1]] == 1
    assert sum(age.images.values()) == known.sum()
    assert all(0.2 * known.sum() < count < 0.3 * known.sum() for count in age.images.values())


def test_what_tells_much_is_named_if_there_are_enough_images() -> None:
    table = some()
    view, age = attributes(table)
    assert view.warning.startswith("the projection alone tells (AUROC) Atelectasis (0.")
    assert "Cardiomegaly (1.00)" in age.warning
    labels = np.zeros_like(table.labels)
    labels[[row for row, view in enumerate(table.projections) if view == "AP"][:9], 0] = 1
    view, _ = attributes(replace(table, labels=labels))
    assert view.auroc["Atelectasis"] > 0.7
    assert view.warning == ""
    assert view.as_dict()["auroc"]["Hernia"] is None
    assert any(line.startswith("Hernia") and " - " in line for line in lines([view]))


def test_many_views_are_few_and_the_rest() -> None:
    table = some()
    views = tuple("ABCDEFGH"[number % 8] for number in range(len(table)))
    view, *_ = attributes(replace(table, projections=views, labels=table.labels))
    assert list(view.images) == ["A", "B", "C", "other"]
    assert view.images["other"] == 5 * len(table) / 8
    same = replace(table, ages=("50",) * len(table), projections=("PA",) * len(table))
    assert attributes(same) == []


def test_audit_shows_what_view_and_age_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labels(tmp_path / "table.csv", some())
    code, out, _ = call(capsys, "audit", "--labels", str(tmp_path / "table.csv"))
    assert code == 0
    assert "what projection and age alone tell of a finding" in out
    assert "warning: the projection alone tells (AUROC) Atelectasis" in out
    assert max(map(len, out.split("alone tell of")[1].splitlines()[1:17])) <= 80
    code, out, _ = call(capsys, "audit", "--labels", str(tmp_path / "table.csv"), "--json")
    about = json.loads(out)["attributes"]
    assert about["age"]["auroc"]["Cardiomegaly"] == 1
    assert set(about["projection"]["images"]) == {"AP", "PA"}


def test_the_prepared_set_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "prepare", "phantom", "--count", "60", "--size", "32")
    assert code == 0, err
    code, out, _ = call(capsys, "audit", "phantom", "--json", "--set", "data.split.ratios=[0.5,0.5,0]")
    views = Phantom(images=60).table().projections
    assert json.loads(out)["attributes"]["projection"]["images"] == {view: views.count(view) for view in {*views}}


def test_nihs_confounders_are_those_of_its_table(shared: Path) -> None:
    path = shared / "data" / "chestxray14" / "Data_Entry_2017_v2020.csv.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    view, sex, age = attributes(read_labels(path))
    assert (view.images, view.unknown) == ({"PA": 67310, "AP": 44810}, 0)
    assert sex.images == {"M": 63340, "F": 48780}
    assert (round(view.auroc["Edema"], 2), round(age.auroc["Hernia"], 2)) == (0.75, 0.77)
    assert view.prevalence["Edema"]["AP"] / view.prevalence["Edema"]["PA"] == pytest.approx(11.1, abs=0.1)

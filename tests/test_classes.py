from __future__ import annotations

from pathlib import Path

import pytest

from xlite_search.data.sources.labels import labels_in, read_labels, write_labels
from xlite_search.errors import BadInput

#: Two images of one lesion, as HAM10000 has them: one class of several in a column of words.
LESIONS = """lesion_id,image_id,dx,dx_type,age,sex
HAM_0000118,ISIC_0027419,bkl,histo,80,male
HAM_0000118,ISIC_0025030,bkl,histo,80,male
HAM_0002730,ISIC_0026769,nv,histo,75,female
HAM_0001466,ISIC_0031633,mel,consensus,60,male
"""
FILMS = """image_id,patient,Fracture,Mass,Devices,No Finding
a.png,p1,1,0,1,
b.png,p1,0,1,,
c.png,p2,0,0,-1,1
d.png,p3,1,1,0,
"""
LISTS = """ImageID,PatientID,Labels
a.png,p1,"['nodule', 'pleural effusion']"
b.png,p2,['normal']
c.png,p3,['nodule']
"""


def table(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_chosen_classes_are_read_in_their_order_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    found = read_labels(table(tmp_path, FILMS), ("Mass", "fracture"))
    assert found.classes == ("Mass", "fracture")
    assert found.labels.tolist() == [[0, 1], [1, 0], [0, 0], [1, 1]]
    assert found.groups == ("p1", "p1", "p2", "p3")
    assert [note.removeprefix(str(tmp_path / "table.csv")) for note in found.notes] == [": column 'Devices' left out"]


def test_chosen_classes_are_found_in_a_column_of_words(tmp_path: Path) -> None:
    found = read_labels(table(tmp_path, LESIONS), ("mel", "nv"), "lesion_id")
    assert found.labels.tolist() == [[0, 0], [0, 0], [0, 1], [1, 0]]
    assert found.groups == ("HAM_0000118", "HAM_0000118", "HAM_0002730", "HAM_0001466")
    told = " ".join(found.notes)
    assert "the labels are those in column 'dx'" in told
    assert "no class and are left out: 'bkl' (2)" in told


def test_words_may_be_written_as_a_list(tmp_path: Path) -> None:
    found = read_labels(table(tmp_path, LISTS), ("pleural effusion", "nodule"))
    assert found.labels.tolist() == [[1, 1], [0, 0], [0, 1]]


def test_a_list_without_header_has_the_chosen_classes(tmp_path: Path) -> None:
    found = read_labels(table(tmp_path, "00000001_000.png 0 1\n00000002_000.png 1 1\n"), ("Fracture", "Mass"))
    assert found.labels.tolist() == [[0, 1], [1, 1]]
    assert "00000001_000.png (line 1) has Mass" in found.notes[0]


def test_an_image_can_be_its_own_patient(tmp_path: Path) -> None:
    found = read_labels(table(tmp_path, FILMS), ("Mass",), "image_id")
    assert found.groups == ("a.png", "b.png", "c.png", "d.png")


def test_what_was_written_with_chosen_classes_is_read_back(tmp_path: Path) -> None:
    found = read_labels(table(tmp_path, FILMS), ("Mass", "Fracture"))
    write_labels(tmp_path / "train.csv", found)
    names, labels = labels_in(tmp_path / "train.csv", found.classes) or ((), found.labels[:0])
    assert names == found.names
    assert labels.tolist() == found.labels.tolist()


@pytest.mark.parametrize(
    ("text", "classes", "column", "says"),
    [
        (FILMS, ("Mas",), "", r"line 1: no column for Mas; did you mean 'Mass'\?"),
        (FILMS, ("Mass", "Edema"), "", r"line 1: no column for Edema; found 'image_id', 'patient'"),
        (FILMS, ("Devices",), "", r"line 3, column 'Devices': the cell is empty; expected 0 or 1"),
        (FILMS.replace("1,0,1,", "1,0,1,1"), ("Fracture",), "", r"line 2, column 'No Finding': 1 contradicts"),
        (FILMS, ("Mass",), "patiant", r"line 1: no column 'patiant'; did you mean 'patient'\?"),
        (LESIONS, ("mel",), "", r"line 2: no patient column, and 'ISIC_0027419' .* by --patient-column"),
        (LESIONS, ("mel", "bklx"), "lesion_id", r"line 1: column 'dx' never says 'bklx'; did you mean 'bkl'\?"),
        (LESIONS, ("mel", "melanoma"), "lesion_id", r"line 1: column 'dx' never says 'melanoma'"),
        (LESIONS, ("melx", "melanoma"), "lesion_id", r"line 1: no column for melx, melanoma; found 'lesion_id'"),
        (LESIONS.replace("dx,", "Finding Labels,"), ("mel", "bklx"), "lesion_id", r"never says 'bklx'; .* 'bkl'\?"),
        (FILMS, (), "", r"line 1: no column for Atelectasis, .*: --classes 'Fracture,Mass,Devices'"),
    ],
)
def test_a_choice_that_the_table_cannot_give_is_refused(
    text: str, classes: tuple[str, ...], column: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=says):
        read_labels(table(tmp_path, text), classes, column)


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (("Mass", "mass"), "classes 'Mass' and 'mass' are the same"),
        (("Mass", ""), "class '': expected a name of letters"),
        (("a|b",), "class 'a|b': expected a name"),
        (("a/b",), "class 'a/b': expected a name"),
        (("No finding",), "'No finding': an image is that if it is of no class"),
    ],
)
def test_a_class_that_cannot_be_called_so_is_refused(classes: tuple[str, ...], says: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        read_labels(table(tmp_path, FILMS), classes)
    assert says in str(caught.value)

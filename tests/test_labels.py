from __future__ import annotations

import csv
import gzip
import pickle
import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xlite_search.data.sources import LabelTable, Unreadable, folder, image_id
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.data.sources.folder import EMPTY_FILE, NO_FILE, Folder
from xlite_search.data.sources.labels import NIH_COUNTS, read_labels, read_names, write_labels
from xlite_search.errors import BadInput

HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,View Position"
ROWS = (
    "00000001_000.png,Cardiomegaly|Emphysema,0,1,PA",
    "00000001_001.png,No Finding,1,1,AP",
    "00000002_000.png,Pleural_Thickening,0,2,PA",
)
NIH = "\n".join([HEADER, *ROWS, ""])
NAMES = ("00000001_000.png", "00000001_001.png", "00000002_000.png")
FOUND = [{"Cardiomegaly", "Emphysema"}, set(), {"Pleural_Thickening"}]
HOT_HEADER = f"image_id,patient,view,{','.join(CHEST_FINDINGS)}"
HOT = "\n".join(
    [
        HOT_HEADER,
        "00000001_000.png,1,PA,0,1,0,0,0,0,0,0,0,0,1,0,0,0",
        "00000001_001.png,1,AP,0,0,0,0,0,0,0,0,0,0,0,0,0,0",
        "00000002_000.png,2,PA,0,0,0,0,0,0,0,0,0,0,0,0,1,0",
        "",
    ]
)
LIST = (
    "00000001_000.png 0 1 0 0 0 0 0 0 0 0 1 0 0 0\n"
    "00000001_001.png 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    "00000002_000.png 0 0 0 0 0 0 0 0 0 0 0 0 1 0\n"
)

Change = Callable[[str], str]


def swap(old: str, new: str) -> Change:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


def written(folder: Path, content: str | bytes, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def findings(table: LabelTable) -> list[set[str]]:
    return [{c for c, there in zip(table.classes, row, strict=True) if there} for row in table.labels]


def expect_the_three(table: LabelTable, views: tuple[str, ...] = ("PA", "AP", "PA")) -> None:
    assert (table.names, table.groups, table.projections) == (NAMES, ("1", "1", "2"), views)
    assert findings(table) == FOUND
    assert table.labels.dtype == np.uint8
    assert table.classes == CHEST_FINDINGS


def refusal(path: Path, read: Callable[[Path], object] = read_labels) -> str:
    """The sentence with which a file is refused, from the file's name on."""
    with pytest.raises(BadInput) as caught:
        read(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    assert sentence.isprintable()
    return sentence.removeprefix(str(path.parent)).lstrip("/\\")


def columns_of(text: str, order: list[int], separator: str = ",") -> str:
    return "".join(separator.join(line.split(",")[column] for column in order) + "\n" for line in text.splitlines())


def tables_2017() -> tuple[str, str]:
    """NIH's first edition and v2020, as their headers and ages differ."""
    old_header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    )
    new_header = old_header.replace("Gender", "Sex").removesuffix(",")
    old, new = [old_header], [new_header]
    for row in ROWS:
        name, words, follow_up, patient, view = row.split(",")
        old.append(f"{name},{words},{follow_up},{patient},058Y,M,{view},2682,2749,0.143,0.143,")
        new.append(
            f"{name},{words},{follow_up},{patient},57,M,{view},2682,2749,0.14300000000000002,0.14300000000000002"
        )
    return "\n".join(old), "\n".join(new)


@pytest.mark.parametrize("text", [NIH, HOT, *tables_2017()], ids=["nih", "multi-hot", "2017", "v2020"])
def test_each_form_is_the_same_table(text: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    expect_the_three(read_labels(path))
    assert read_names(path) == NAMES


@pytest.mark.parametrize("separator", [" ", "  ", "\t", ",", ", ", ";"])
def test_a_list_has_no_header_no_views_and_patients_in_its_names(separator: str, tmp_path: Path) -> None:
    for text in (LIST, "\n \n" + LIST):
        path = written(tmp_path, text.replace(" ", separator), "test_list.txt")
        expect_the_three(read_labels(path), views=())
        assert read_names(path) == NAMES


@pytest.mark.parametrize(
    "save",
    [
        lambda text: gzip.compress(text.encode()),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: gzip.compress(b"\xef\xbb\xbf" + text.encode()),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: text.rstrip().encode(),
        lambda text: re.sub(r"[^,\n]+", r'"\g<0>"', text).encode(),
        lambda text: re.sub(r"[^,\n]+", r' "\g<0>"', text).encode(),
        lambda text: text.replace("\n", "\n\n  \n").encode(),
        lambda text: ("\n" + text).encode(),
        lambda text: text.replace(",", " , ").encode(),
        lambda text: text.replace("\n", ",,\n").encode(),
        lambda text: (text + ",,,,\n").encode(),
        lambda text: text.replace(",", ";").encode(),
        lambda text: text.replace(",", "\t").encode(),
        lambda text: "".join(f"{number},{line}\n" for number, line in enumerate(text.splitlines())).encode()[1:],
    ],
    ids=[
        "gz",
        "byte order mark",
        "both",
        "windows",
        "old mac",
        "no last newline",
        "quoted",
        "quoted after spaces",
        "blank lines",
        "blank first line",
        "spaces around cells",
        "nameless empty columns at the end",
        "empty cells below the end",
        "semicolons",
        "tabs",
        "pandas' index",
    ],
)
@pytest.mark.parametrize("text", [NIH, HOT], ids=["nih", "multi-hot"])
def test_a_table_is_the_same_however_it_was_saved(text: str, save: Callable[[str], bytes], tmp_path: Path) -> None:
    path = written(tmp_path, save(text))
    expect_the_three(read_labels(path))
    assert read_names(path) == NAMES


@given(st.permutations(range(17)), st.sampled_from([",", ";", "\t"]))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_columns_count_by_name_in_any_order(tmp_path: Path, order: list[int], separator: str) -> None:
    expect_the_three(read_labels(written(tmp_path, columns_of(HOT, order, separator))))


@pytest.mark.parametrize(
    "change",
    [
        swap("Pleural_Thickening", "Pleural Thickening"),
        swap("Pleural_Thickening", "pleural_thickening"),
        swap("Cardiomegaly", "CARDIOMEGALY"),
        swap("image_id", "Image Index"),
        swap("image_id", "File_Name"),
        swap("image_id", "PATH"),
        swap("patient", "Patient ID"),
        swap("patient", "subject_id"),
        swap("view", "View Position"),
        swap("00000001_000.png", "data/images_001/images/00000001_000.png"),
        swap("00000001_000.png", "D:\\xray\\00000001_000.png"),
        swap(",1,PA", ",00000001,PA"),
        swap(",1,PA", ",1.0,PA"),
        swap(",PA", ",pa"),
        lambda text: text.replace(",1", ",1.0").replace(",0", ",0.0"),
        lambda text: text.replace(",1,0", ",True,0").replace(",0", ",False"),
        lambda text: text.replace(",1,0", ",1.000000000000000000e+00,0"),
        lambda text: text.replace("\n", ",comment\n", 1).replace("0\n", "0,0.37 mAs\n"),
    ],
)
def test_spellings_that_mean_the_same_are_the_same(change: Change, tmp_path: Path) -> None:
    expect_the_three(read_labels(written(tmp_path, change(HOT))))


@pytest.mark.parametrize("change", [swap("Pleural_Thickening", "pleural thickening"), swap("No Finding", "no_finding")])
def test_spellings_of_nih_labels_that_mean_the_same_are_the_same(change: Change, tmp_path: Path) -> None:
    expect_the_three(read_labels(written(tmp_path, change(NIH))))


def test_a_name_without_suffix_stays_so_and_still_tells_its_patient(tmp_path: Path) -> None:
    for text in (NIH.replace(".png", ""), LIST.replace(".png", "")):
        table = read_labels(written(tmp_path, text))
        assert table.names == tuple(map(image_id, NAMES))
        assert table.groups == ("1", "1", "2")


def test_patients_without_a_column_come_from_nih_names(tmp_path: Path) -> None:
    text = columns_of(HOT, [0, 2, *range(3, 17)])
    expect_the_three(read_labels(written(tmp_path, text)))
    table = read_labels(written(tmp_path, text.replace("00000002_", "00030805_")))
    assert table.groups == ("1", "1", "30805")


@pytest.mark.parametrize(("written_as", "patient"), [("0", "0"), ("000", "0"), ("0012.00", "12"), ("P-07", "P-07")])
def test_patient_ids_are_numbers_only_where_they_are(written_as: str, patient: str, tmp_path: Path) -> None:
    text = NIH.replace("00000002_000", "scan").replace(",2,", f",{written_as},")
    assert read_labels(written(tmp_path, text)).groups == ("1", "1", patient)


def test_the_clearest_name_column_counts(tmp_path: Path) -> None:
    lines = NIH.splitlines()
    text = "\n".join([f"path,{lines[0]}", *(f"elsewhere/{n}.png,{line}" for n, line in enumerate(lines[1:]))])
    expect_the_three(read_labels(written(tmp_path, text)))


def with_normal(*cells: object) -> str:
    return "".join(f"{line},{cell}\n" for line, cell in zip(HOT.splitlines(), ("No Finding", *cells), strict=True))


def both_forms(change: Change = lambda text: text) -> str:
    """NIH's columns and the 14 findings beside them, as many notebooks leave them."""
    hot = [line.split(",", 3)[3] for line in HOT.splitlines()]
    return change("".join(f"{line},{more}\n" for line, more in zip(NIH.splitlines(), hot, strict=True)))


def test_what_is_said_twice_and_agrees_is_accepted(tmp_path: Path) -> None:
    expect_the_three(read_labels(written(tmp_path, with_normal(0, "1.0", 0))))
    expect_the_three(read_labels(written(tmp_path, both_forms())))


MALFORMED_NIH: dict[str, tuple[Change | str | bytes, str]] = {
    "misspelt label column": (swap("Finding Labels", "Labels"), r", line 1: no column 'Finding Labels'.*'Image Index'"),
    "misspelt finding": (
        swap("Emphysema", "Emphysma"),
        r", line 2, column 'Finding Labels': 'Emphysma' .*'Emphysema'\?",
    ),
    "NIH's own other spelling": (
        swap("Emphysema", "Infiltrate"),
        r", line 2, .*'Infiltrate'.*did you mean 'Infiltration'",
    ),
    "unknown finding": (
        swap("No Finding", "Covid"),
        r", line 3, column 'Finding Labels': 'Covid' is not one of the 14",
    ),
    "no finding and a finding": (
        swap("No Finding", "No Finding|Mass"),
        r", line 3, column 'Finding Labels': .*or the o",
    ),
    "half a list of findings": (swap("Emphysema", ""), r", line 2, column 'Finding Labels': '' is not one of the 14"),
    "empty labels": (
        swap("No Finding", ""),
        r", line 3, column 'Finding Labels': the cell is empty; write 'No Finding'",
    ),
    "NaN labels": (swap("No Finding", "nan"), r", line 3, column 'Finding Labels': the cell is empty"),
    "empty name": (swap("00000001_001.png", ""), r", line 3, column 'Image Index': the image's name is empty"),
    "folder as name": (swap("00000001_001.png", "png/"), r", line 3, column 'Image Index': the image's name is empty"),
    "empty patient": (
        swap("1,1,AP", "1,,AP"),
        r", line 3, column 'Patient ID': the patient of '00000001_001.png' is emp",
    ),
    "NaN patient": (swap("1,1,AP", "1,NaN,AP"), r", line 3, column 'Patient ID': the patient of '00000001_001.png' is"),
    "another patient's": (
        swap("1,1,AP", "1,7,AP"),
        r", line 3, column 'Patient ID': patient 7, but '0000.* of patient 1$",
    ),
    "duplicate name": (lambda t: t + ROWS[0], r", line 5: image '00000001_000.png' is already in line 2"),
    "duplicate without suffix": (
        lambda t: t + ROWS[0].replace(".png", ""),
        r", line 5: image '00000001_000' .* line 2",
    ),
    "duplicate elsewhere": (
        lambda t: t + "copy/" + ROWS[0],
        r", line 5: image '00000001_000.png' is already in line 2",
    ),
    "too few fields": (
        lambda t: t + "00000009_000.png,Mass",
        r", line 5: 2 fields; expected 5 as in the header, line 1",
    ),
    "too many fields": (swap("1,1,AP", "1,1,AP,0"), r", line 3: 6 fields; expected 5 as in the header, line 1"),
    "a comma too many": (swap("|", ","), r", line 2: 6 fields; expected 5 as in the header"),
    "duplicate column": (swap("Follow-up #", "finding_labels"), r", line 1: columns 2 and 3 are both 'Finding Labels'"),
    "no name column": (
        swap("Image Index", "Index"),
        r", line 1: no column of image names; .*found 'Index', 'Finding L",
    ),
    "no header": (NIH.partition("\n")[2], r", line 1: a row, not a header; add the header line 'Image Index,"),
    "a quote that never closes": (
        swap("No Finding", '"No Finding'),
        r", line 3: not a CSV row .*quotation mark missing",
    ),
    "the same in a long file": (
        lambda t: t.replace("No Finding", '"No Finding') + "x" * 200_000,
        r", line 3: not a CSV row .*quotation mark missing",
    ),
    "blank lines count": (
        lambda t: t.replace("\n00000002", "\n\n \n\n00000002").replace("Pleural_", "P_"),
        r", line 7, column 'Finding Labels': 'P_Thickening'",
    ),
    "lines within a cell count": (
        lambda t: t.replace(",0,1,PA", ',"a\n\nb",1,PA').replace("Pleural_", "P_"),
        r", line 6, column 'Finding Labels': 'P_Thickening'",
    ),
    "all normal": (HEADER + "\n" + ROWS[1], r": none of its 1 rows has a finding"),
    "boxes": (
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00013118_008.png,Atelectasis,225,547,86,79",
        r", line 1: no column 'Finding Labels'.*found 'Image Index', 'Finding Label', 'Bbox \[x'",
    ),
    "empty file": ("", r" is empty; expected a label table"),
    "blank file": ("\n \n\t\n", r" is empty; expected a label table"),
    "header only": (HEADER + "\n", r" has a header and no rows"),
    "binary": (bytes(range(256)) * 4, r" is a binary file, not CSV"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", r" is a binary file, not CSV"),
    "a web page": ("\n<!DOCTYPE html><html><body>Sign in</body></html>", r" is a web page, not CSV: .*fetch it again"),
    "cut gz": (gzip.compress(NIH.encode())[:-20], r": the gzip file is cut short or damaged; fetch it again"),
    "damaged gz": (gzip.compress(NIH.encode())[:12] + b"\xff" * 40, r": the gzip file is cut short or damaged"),
    "gz that fails its checksum": (
        gzip.compress(NIH.encode())[:-8] + b"\0" * 8,
        r": the gzip file is cut short or damaged",
    ),
    "UTF-16": (NIH.encode("utf-16"), r" is text in UTF-16; expected .*CSV UTF-8"),
    "UTF-16 without mark": (NIH.encode("utf-16-le"), r" is a binary file, not CSV"),
    "Latin-1": (NIH.replace("No Finding", "Kein Befund für").encode("latin-1"), r", line 3: not text in UTF-8; save"),
    "xlsx": (b"PK\x03\x04\x14\x00\x06\x00", r" is an Excel workbook or a zip archive; expected .*CSV UTF-8"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", r" is an Excel workbook; expected .*CSV UTF-8"),
    "prose": ("Dear all, please find\nthe labels, attached.\n", r", line 1: no column of image names"),
}

MALFORMED_HOT: dict[str, tuple[Change | str, str]] = {
    "missing column": (
        lambda t: columns_of(t, [*range(16)]),
        r", line 1: no column for Hernia; expected all 14 findings",
    ),
    "several missing columns": (
        lambda t: columns_of(t, [*range(12)]),
        r", line 1: no column for Edema, Emphysema, Fibrosis, Pleural_Thickening, Hernia; expected all 14",
    ),
    "misspelt column": (swap("Hernia", "hernai"), r", line 1: column 'hernai' is not one of .*did you mean 'Hernia'\?"),
    "none of the columns": (
        lambda t: columns_of(t, [0, 1, 2]),
        r", line 1: no column 'Finding Labels', and none named",
    ),
    "duplicate finding": (swap("Hernia", "edema"), r", line 1: columns 13 and 17 are both 'Edema'; remove one"),
    "no patient": (
        lambda t: columns_of(t, [0, *range(2, 17)]).replace("00000001_001", "scan7"),
        r", line 3: no patient column, and 'scan7.png' does not .*add a column 'patient'",
    ),
    "NaN": (swap("PA,0,1", "PA,0,nan"), r", line 2, column 'Cardiomegaly': 'nan' is an empty cell; expected 0 or 1"),
    "empty cell": (swap("AP,0,0", "AP,0,"), r", line 3, column 'Cardiomegaly': the cell is empty; expected 0 or 1"),
    "uncertain": (swap("AP,0,0", "AP,0,-1.0"), r", line 3, column 'Cardiomegaly': '-1.0' \(uncertain.*expected 0 or 1"),
    "negative": (swap("AP,0,0", "AP,0,-2"), r", line 3, column 'Cardiomegaly': '-2' is no label; expected 0 or 1"),
    "a count": (swap("AP,0,0", "AP,0,2"), r", line 3, column 'Cardiomegaly': '2' is no label; expected 0 or 1"),
    "infinite": (swap("AP,0,0", "AP,0,inf"), r", line 3, column 'Cardiomegaly': 'inf' is no label; expected 0 or 1"),
    "a word": (swap("AP,0,0", "AP,0,yes"), r", line 3, column 'Cardiomegaly': 'yes' is no label; expected 0 or 1"),
    "a probability": (swap("AP,0,0", "AP,0.02,0"), r", line 3, column 'Atelectasis': '0.02' looks like a probability"),
    "all zero": (
        lambda t: t.replace(",1,0", ",0,0"),
        r": none of its 3 rows has a finding, all labels are 0; they were",
    ),
    "normal and a finding": (with_normal(1, 1, 0), r", line 2, column 'No Finding': 1 contradicts the findings"),
    "normal is 0 without a finding": (
        with_normal(0, 0, 0),
        r", line 3, column 'No Finding': 0 contradicts the findings",
    ),
    "normal is a word": (with_normal(0, "x", 0), r", line 3, column 'No Finding': 'x' is no label; expected 0 or 1"),
    "two forms that differ": (
        both_forms(swap("PA,0,1", "PA,0,0")),
        r", line 2, column 'Cardiomegaly': 0 contradicts column 'Finding Labels'; correct",
    ),
}

MALFORMED_HOT["a label that is none of the 14"] = (
    lambda text: "\n".join(f"{line},{'Covid' if n == 0 else n % 2}" for n, line in enumerate(text.splitlines())) + "\n",
    r", line 1: column 'Covid' has zeros and ones and is not one of the 14",
)
MALFORMED_LIST: dict[str, tuple[Change | str, str]] = {
    "names alone": ("\n".join(NAMES), r" is a list of names without labels; give the table"),
    "13 columns": (lambda t: t.replace(" 0\n", "\n"), r", line 1: 13 values behind the name; .*add a header line"),
    "15 columns": (lambda t: t.replace("\n", " 0\n"), r", line 1: 15 values behind the name; .*add a header line"),
    "a short row": (
        swap(" 0\n00000002", "\n00000002"),
        r", line 2: 14 fields; expected 15 as in the first row, line 1",
    ),
    "a word": (
        swap("_001.png 0 0", "_001.png 0 x"),
        r", line 2, field 3 \(Cardiomegaly\): 'x' is no label; expected 0",
    ),
    "not NIH's names": (lambda t: t.replace("00000001_001", "scan7"), r", line 2: no patient column, and 'scan7.png'"),
    "all zero": (lambda t: t.replace(" 1", " 0"), r": none of its 3 rows has a finding"),
    "duplicate name": (lambda t: t + t, r", line 4: image '00000001_000.png' is already in line 1"),
}

MALFORMED = [
    pytest.param(base, change, says, id=f"{form}: {kind}")
    for form, base, kinds in (
        ("nih", NIH, MALFORMED_NIH),
        ("multi-hot", HOT, MALFORMED_HOT),
        ("list", LIST, MALFORMED_LIST),
    )
    for kind, (change, says) in kinds.items()
]


@pytest.mark.parametrize(("base", "change", "says"), MALFORMED)
def test_a_malformed_table_is_refused_in_one_sentence(
    base: str, change: Change | str | bytes, says: str, tmp_path: Path
) -> None:
    path = written(tmp_path, change(base) if callable(change) else change)
    assert re.match(rf"labels\.csv{says}", refusal(path))


DAMAGE = st.tuples(
    st.integers(0, 300), st.integers(0, 6), st.binary(max_size=4) | st.sampled_from([b",", b'"', b"\n", b";"])
)


@given(text=st.sampled_from([NIH, HOT, LIST]), damage=st.lists(DAMAGE, min_size=1, max_size=4))
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_ends_in_a_traceback(tmp_path: Path, text: str, damage: list[tuple[int, int, bytes]]) -> None:
    content = text.encode()
    for place, length, instead in damage:
        content = content[:place] + instead + content[place + length :]
    path, sentences = written(tmp_path, content), []
    for read in (read_labels, read_names):
        try:
            read(path)
        except BadInput as refused:
            sentences.append(str(refused))
    assert all(sentence.startswith(str(path)) and sentence.isprintable() for sentence in sentences)


def test_a_path_that_is_no_readable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for read in (read_labels, read_names):
        assert refusal(tmp_path / "nowhere.csv", read) == (
            "nowhere.csv: there is no such file; give a label table or a name list"
        )
        assert re.search("is a folder; give the label table", refusal(tmp_path, read))

    def denied(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert refusal(tmp_path / "labels.csv") == "labels.csv cannot be read: Permission denied"


def test_a_cell_of_any_length_makes_a_short_sentence(tmp_path: Path) -> None:
    path = written(tmp_path, NIH.replace("Emphysema", "\t\x07Mass" * 9000))
    assert len(refusal(path)) < 200


def test_names_are_read_from_plain_lists(tmp_path: Path) -> None:
    plain = "\n".join(NAMES)
    for text in (plain, plain + "\n", f"image_id\n{plain}", plain.replace("\n", "\r\n\r\n"), f"\ufeff{plain}"):
        assert read_names(written(tmp_path, text, "list.txt")) == NAMES
    assert read_names(written(tmp_path, gzip.compress(plain.encode()), "list.txt.gz")) == NAMES
    assert read_names(written(tmp_path, "scan one\nscan two\n", "list.txt")) == ("scan one", "scan two")


def test_names_are_read_from_tables_that_lack_patients_labels_or_a_header(tmp_path: Path) -> None:
    for text in (
        columns_of(HOT.replace("000_", "X_"), [3, 0, 4]),
        NIH.partition("\n")[2],
        HOT.replace(",1,0", ",0,0"),
        LIST.replace(" 0\n", "\n"),
        columns_of(NIH, [4, 0]),
    ):
        found = read_names(written(tmp_path, text))
        assert found == tuple(name if "X_" not in text else name.replace("000_", "X_") for name in NAMES)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a.png\nb.png\n\nb.png\n", r"list\.txt, line 4: image 'b\.png' is already in line 2"),
        ("image\n\na.png\na\n", r"list\.txt, line 4: image 'a' is already in line 3"),
        ("image,sex\n,F\n", r"list\.txt, line 2, column 'image': the image's name is empty"),
        ("sex,age\nF,3\n", r"list\.txt, line 1: no column of image names; .*found 'sex', 'age'"),
        ("", r"list\.txt is empty"),
    ],
)
def test_a_bad_name_list_is_refused(text: str, says: str, tmp_path: Path) -> None:
    assert re.match(says, refusal(written(tmp_path, text, "list.txt"), read_names))


WORD = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)
NAME = st.tuples(WORD, st.sampled_from(["", ".png", ".PNG", ".dcm", " left.jpg", ',";\t.png'])).map("".join)


@st.composite
def label_tables(draw: st.DrawFn) -> LabelTable:
    """Tables as `read_labels` gives them: any characters, but names that files can have and ids in their short form."""
    usable = NAME.filter(
        lambda name: not set(name) & set("/\\") and name.casefold() not in ("nan", "na", "none", "null")
    )
    names = draw(st.lists(usable, min_size=1, max_size=12, unique_by=image_id))
    unknown = re.compile(
        r"[0-9.]+|nan?|none|null|<na>|unknown|anon(ymous|ymi[sz]ed)?|\?|--?|-1(\.0)?|tbd|missing", re.I
    )
    patient = st.integers(0, 99).map(str) | WORD.filter(
        lambda w: not unknown.fullmatch(w) and unicodedata.is_normalized("NFKC", w)
    )
    patients = [draw(patient) for _ in names]
    labels = draw(st.lists(st.integers(0, 2**14 - 1), min_size=len(names), max_size=len(names)))
    labels[draw(st.integers(0, len(names) - 1))] |= 1 << draw(st.integers(0, 13))
    views = draw(st.sampled_from([(), ("PA",) * len(names), ("",) * len(names), ("AP",) + ("",) * (len(names) - 1)]))
    bits = np.array([[number >> column & 1 for column in range(14)] for number in labels], np.uint8)
    return LabelTable(tuple(names), tuple(patients), bits, CHEST_FINDINGS, projections=views)


@given(label_tables())
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back(tmp_path: Path, table: LabelTable) -> None:
    path = tmp_path / "train.csv"
    write_labels(path, table)
    again = read_labels(path)
    assert (again.names, again.groups, again.projections) == (table.names, table.groups, table.projections)
    assert np.array_equal(again.labels, table.labels)
    assert read_names(path) == table.names


def test_what_is_written_is_plain_and_the_same_everywhere(tmp_path: Path) -> None:
    write_labels(tmp_path / "train.csv", read_labels(written(tmp_path, NIH)))
    assert (tmp_path / "train.csv").read_bytes() == HOT.encode()


def nih(shared: Path, name: str = "Data_Entry_2017_v2020.csv.gz") -> Path:
    path = shared / "data" / "chestxray14" / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


@pytest.fixture(scope="module")
def real(shared: Path) -> LabelTable:
    return read_labels(nih(shared))


def test_the_whole_real_table_is_read(real: LabelTable, shared: Path) -> None:
    with gzip.open(nih(shared), "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert real.names == tuple(row["Image Index"] for row in rows)
    assert real.groups == tuple(row["Patient ID"] for row in rows)
    assert real.projections == tuple(row["View Position"] for row in rows)
    for column, finding in enumerate(CHEST_FINDINGS):
        there = [finding in row["Finding Labels"].split("|") for row in rows]
        assert np.array_equal(real.labels[:, column], there)
    assert tuple(real.labels.sum(axis=0)) == NIH_COUNTS
    assert (len(real), len(set(real.groups)), int((~real.labels.any(axis=1)).sum())) == (112_120, 30_805, 60_361)


def test_the_official_lists_share_the_real_table(real: LabelTable, shared: Path) -> None:
    train_val, test = (read_names(nih(shared, f"{name}_list.txt.gz")) for name in ("train_val", "test"))
    assert (len(train_val), len(test)) == (86_524, 25_596)
    assert {*train_val, *test} == set(real.names)


def list_of(labels: NDArray[np.uint8]) -> str:
    """A list without header, of patients as NIH numbers them."""
    named = ((f"{n % 30_805 + 1:08d}_{n // 30_805:03d}.png", row) for n, row in enumerate(labels.tolist()))
    return "".join(f"{name} {' '.join(map(str, row))}\n" for name, row in named)


ALPHABETICAL = [CHEST_FINDINGS.index(finding) for finding in sorted(CHEST_FINDINGS)]


def subset(name: str, real: LabelTable, shared: Path) -> NDArray[np.uint8]:
    """Labels of some real images: a list's, a view's, a finding's, a folder's, or a thousand drawn with this seed."""
    if name == "official test":
        names = set(read_names(nih(shared, "test_list.txt.gz")))
    elif name.startswith("images"):
        names = set(read_names(nih(shared, f"Data_Entry_{name}.csv")))
    elif name in CHEST_FINDINGS:
        chosen = real.labels[:, CHEST_FINDINGS.index(name)].tolist()
        names = {n for n, there in zip(real.names, chosen, strict=True) if there}
    elif name == "successive":  # the thousand that is least like the whole
        names = set(real.names[93_520:94_520])
    elif name in real.projections:
        names = {n for n, view in zip(real.names, real.projections, strict=True) if view == name}
    else:
        names = set(np.random.default_rng(int(name)).choice(real.names, 1000, replace=False).tolist())
    return real.part(np.array([row for row, n in enumerate(real.names) if n in names])).labels


@pytest.mark.parametrize("name", ["official test", "AP", "images_224", "successive", "0", "1", *CHEST_FINDINGS[:-1]])
def test_a_list_of_real_images_in_the_right_order_is_read(
    name: str, real: LabelTable, shared: Path, tmp_path: Path
) -> None:
    labels = subset(name, real, shared)
    assert len(labels) >= 1000
    assert np.array_equal(read_labels(written(tmp_path, list_of(labels))).labels, labels)


REVERSED = [*range(13, -1, -1)]


@pytest.mark.parametrize(
    ("name", "order"),
    [
        *((name, ALPHABETICAL) for name in ("official test", "AP", "images_64", "0", "1")),
        *((name, REVERSED) for name in ("images_64", "0", "1")),
    ],
)
def test_a_list_with_its_columns_in_another_order_is_refused(
    name: str, order: list[int], real: LabelTable, shared: Path, tmp_path: Path
) -> None:
    labels = subset(name, real, shared)
    says = refusal(written(tmp_path, list_of(labels[:, order])))
    assert re.match(r"labels\.csv: the columns do not seem to be in NIH's order.*add a header line", says)
    header = " ".join(["image", *(CHEST_FINDINGS[column] for column in order)])
    again = read_labels(written(tmp_path, f"{header}\n{list_of(labels[:, order])}"))
    assert np.array_equal(again.labels, labels)


def test_a_short_list_is_not_judged_by_its_counts(real: LabelTable, tmp_path: Path) -> None:
    labels = real.labels[::-1][:, ALPHABETICAL]
    assert np.array_equal(read_labels(written(tmp_path, list_of(labels[:999]))).labels, labels[:999])
    with pytest.raises(BadInput, match="NIH's order"):
        read_labels(written(tmp_path, list_of(labels[:1000])))


def picture(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (48, 48), np.uint8)


def source_of(folder: Path, table: str = NIH, *, nested: bool = False) -> Folder:
    """The three images of ROWS, in one folder or as NIH's archives unpack, and their table."""
    for number, name in enumerate(NAMES):
        home = folder / "png" / f"images_{number % 2 + 1:03d}" / "images" if nested else folder / "png"
        home.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(home / name), picture(number))
    return Folder(folder / "png", written(folder, table))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("table", [NIH, HOT, LIST, NIH.replace(".png", "")], ids=["nih", "multi-hot", "list", "ids"])
def test_images_are_found_at_any_depth(table: str, nested: bool, tmp_path: Path) -> None:
    source = source_of(tmp_path, table, nested=nested)
    assert findings(source.table()) == FOUND
    assert source.lost() == {}
    assert all(np.array_equal(source.pixels(row).pixels, picture(row)) for row in range(3))


def test_images_follow_the_tables_order_not_the_folders(tmp_path: Path) -> None:
    source = source_of(tmp_path, "\n".join([HEADER, *ROWS[::-1]]))
    assert source.table().names == NAMES[::-1]
    assert all(np.array_equal(source.pixels(2 - row).pixels, picture(row)) for row in range(3))


def test_lost_images_are_reported_and_the_table_stays_whole(tmp_path: Path) -> None:
    source = source_of(tmp_path, NIH + "00000009_000.png,Mass,0,9,PA\n00000009_001,Mass,0,9,PA\n")
    (tmp_path / "png" / NAMES[1]).write_bytes(b"")
    assert len(source.table()) == 5
    assert source.lost() == {1: EMPTY_FILE, 3: NO_FILE, 4: NO_FILE}
    for row, reason in ((1, "empty"), (3, NO_FILE.reason)):
        with pytest.raises(Unreadable, match=reason):
            source.pixels(row)
    (tmp_path / "png" / NAMES[0]).unlink()
    assert source.lost()[0] == NO_FILE


@pytest.mark.parametrize("table", [NIH, NIH.replace(".png", "")], ids=["names", "ids"])
def test_a_name_in_two_folders_is_refused_if_the_table_has_it(table: str, tmp_path: Path) -> None:
    source = source_of(tmp_path, table, nested=True)
    one = next((tmp_path / "png").rglob(NAMES[0]))
    other = one.parents[2] / "again" / one.name
    other.parent.mkdir()
    other.write_bytes(one.read_bytes())
    with pytest.raises(BadInput, match=r"two files are image 00000001_000(\.png)?: ") as caught:
        source.lost()
    assert str(one) in str(caught.value) and str(other) in str(caught.value)
    written(tmp_path, table.replace(ROWS[0].split(",")[0].removesuffix(".png"), "00000001_007"))
    assert set(Folder(source.images, source.labels).lost()) == {0}


def test_an_id_that_two_files_have_is_refused_but_a_name_is_not(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    (tmp_path / "png" / "00000001_000.jpg").write_bytes(b"x")
    assert source.lost() == {}
    written(tmp_path, NIH.replace(".png", ""))
    with pytest.raises(
        BadInput, match=r"two files are image 00000001_000: .*00000001_000\.jpg and .*00000001_000\.png"
    ):
        Folder(source.images, source.labels).lost()


def test_a_converted_file_is_found_by_its_name(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    path = tmp_path / "png" / "00000002_000.png"
    path.rename(path.with_suffix(".jpg"))
    assert Folder(source.images, source.labels).lost() == {}


def test_a_copy_in_another_process_reads_neither_table_nor_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(tmp_path, nested=True)
    assert source.lost() == {}
    carried = pickle.dumps(source)

    def not_again(_: Path) -> None:
        raise AssertionError

    monkeypatch.setattr(folder, "read_labels", not_again)
    monkeypatch.setattr(folder, "find_files", not_again)
    again = pickle.loads(carried)
    assert again == source
    assert all(np.array_equal(again.pixels(row).pixels, picture(row)) for row in range(3))


def test_a_pickled_source_has_some_bytes_an_image(tmp_path: Path) -> None:
    def size(images: int) -> int:
        rows = "".join(f"{n:08d}_000.png,Mass,{n}\n" for n in range(images))
        labels = written(tmp_path, f"Image Index,Finding Labels,Patient ID\n{rows}")
        return len(pickle.dumps(Folder(home, labels)))

    home = tmp_path / "a folder with a name of some length" / "png"
    home.mkdir(parents=True)
    for number in range(100):
        (home / f"{number:08d}_000.png").touch()
    assert size(100) < size(1) + 99 * 25


def test_a_missing_folder_or_table_is_refused(tmp_path: Path) -> None:
    labels = written(tmp_path, NIH)
    with pytest.raises(BadInput, match=r"--images .*nowhere: there is no such folder"):
        Folder(tmp_path / "nowhere", labels)
    with pytest.raises(BadInput, match=r"--labels .*nowhere\.csv: there is no such file"):
        Folder(tmp_path, tmp_path / "nowhere.csv")


def test_the_manifest_says_what_a_source_is(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    assert source.describe() == {"source": "chestxray14"}
    assert "CVPR 2017" in source.notice
    assert replace(source, cite="").notice == ""


def test_real_images_belong_to_their_table(shared: Path) -> None:
    folder = nih(shared, "Data_Entry_images_64.csv").parent
    source = Folder(folder / "images_64", folder / "Data_Entry_images_64.csv")
    assert source.lost() == {}
    assert (len(source.table()), len(set(source.table().groups))) == (1000, 264)
    for row in (0, 499, 999):
        expected = cv2.imread(str(folder / "images_64" / source.table().names[row]), cv2.IMREAD_GRAYSCALE)
        assert expected is not None and np.array_equal(source.pixels(row).pixels, expected)

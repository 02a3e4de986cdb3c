"""Label tables of the field, odd or broken, as verbs meet them: read rightly, or refused in one sentence."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from test_cli import call

from xlite_search.data.sources import LabelTable
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.data.sources.labels import read_labels, read_names
from xlite_search.errors import BadInput

NAMES = ("00000001_000.png", "00000001_001.png", "00000002_000.png")
HOT = {"00000001_000.png": ("Mass", "Edema"), "00000001_001.png": (), "00000002_000.png": ("Hernia",)}
NIH_HEADER = "Image Index,Finding Labels,Patient ID,OriginalImage[Width,Height]"
NIH_ROWS = [f"{name},{'|'.join(found) or 'No Finding'},{int(name[:8])},9,9" for name, found in HOT.items()]
NIH = "\n".join([NIH_HEADER, *NIH_ROWS]) + "\n"
CELLS = [",".join(str(int(finding in found)) for finding in CHEST_FINDINGS) for found in HOT.values()]
HOT_HEADER = f"image_id,patient,{','.join(CHEST_FINDINGS)}"
HOT_ROWS = [f"{name},{int(name[:8])},{cells}" for name, cells in zip(NAMES, CELLS, strict=True)]
MULTI_HOT = "\n".join([HOT_HEADER, *HOT_ROWS]) + "\n"
LIST = "".join(f"{name} {cells.replace(',', ' ')}\n" for name, cells in zip(NAMES, CELLS, strict=True))
CHEXPERT_HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Cardiomegaly,Edema,Fracture"
CHEXPERT = f"""{CHEXPERT_HEADER}
CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,F,68,Frontal,AP,,1.0,0.0,0.0
CheXpert-v1.0-small/train/patient00001/study2/view1_frontal.jpg,F,68,Frontal,AP,1.0,0.0,0.0,0.0
CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg,M,87,Frontal,PA,,0.0,1.0,1.0
"""


def names(change: Callable[[str], str], text: str = MULTI_HOT) -> str:
    for name in NAMES:
        text = text.replace(name, change(name))
    return text


def other_names(text: str = MULTI_HOT) -> str:
    """Names that tell no patient: the column alone counts."""
    return names(lambda name: f"scan{name[7]}{name[11]}.png", text)


def column(text: str, header: str, *cells: str) -> str:
    return "".join(f"{line},{cell}\n" for line, cell in zip(text.splitlines(), (header, *cells), strict=True))


def tarball(text: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        about = tarfile.TarInfo("labels.csv")
        about.size = len(text)
        archive.addfile(about, io.BytesIO(text.encode()))
    return out.getvalue()


def excel_text(text: str) -> str:
    """Names and ids as Excel is told to leave them: ="00013", quoted as CSV wants it."""
    lines = [line.split(",") for line in text.splitlines()]
    return "\n".join(
        ",".join(f'"=""{cell}"""' if place < 2 and row else cell for place, cell in enumerate(line))
        for row, line in enumerate(lines)
    )


#: The same three images of two patients, with the same findings, however they are written.
SAME: dict[str, str | bytes] = {
    "Excel's separator line": "sep=;\n" + NIH.replace(",", ";"),
    "Excel's separator line, saved again": '"sep=;"\n' + NIH.replace(",", ";"),
    "Excel's separator line in a wide sheet": "SEP=;;;;;\r\n" + NIH.replace(",", ";").replace("\n", "\r\n"),
    "a separator line of tabs": "sep=\t\n" + MULTI_HOT.replace(",", "\t"),
    "a separator line behind a byte order mark": b"\xef\xbb\xbfsep=,\n" + NIH.encode(),
    "a comment": "# exported by PACS, 2026-11-27\n" + NIH,
    "comments and blank lines": "# one, two\n\n#\n# three;four\n\n" + MULTI_HOT,
    "a comment above a list": "# labels of CheXNet\n" + LIST,
    "the header as numpy.savetxt writes it": "# " + MULTI_HOT,
    "numpy's header with spaces": "# image_id " + " ".join(CHEST_FINDINGS) + "\n" + LIST,
    "text that Excel leaves alone": excel_text(MULTI_HOT),
    "text that Excel leaves alone, not quoted": re.sub(r"^(0\w+\.png)", r'="\1"', MULTI_HOT, flags=re.MULTILINE),
    "zero-width spaces": MULTI_HOT.replace(",1,", "\u200b,1\u200b,", 1),
    "a byte order mark in the middle": NIH.replace("\n", "\n\ufeff"),
    "no-break spaces": MULTI_HOT.replace(",", "\xa0,\xa0"),
    "numbered images beside their files": column(MULTI_HOT.replace("image_id", "file_name"), "image_id", "1", "2", "3"),
    "empty lists of Python": column(
        "\n".join(["image,patient", *(f"{name},{int(name[:8])}" for name in NAMES)]),
        "Finding Labels",
        "\"['Mass', 'Edema']\"",
        "[]",
        "['Hernia']",
    ),
    "full-width digits": MULTI_HOT.replace(",1,0,0", ",\uff11,0,0"),
    "names of columns in capitals": MULTI_HOT.replace(HOT_HEADER, HOT_HEADER.upper()),
    "findings without underscore": MULTI_HOT.replace("Pleural_Thickening", "PleuralThickening"),
    "fields quoted, and separated by semicolons": re.sub(r"[^,\n]+", r'"\g<0>"', MULTI_HOT).replace(",", ";"),
    "a further column of text": column(MULTI_HOT, "scanner", "Siemens", "GE", "1"),
    "an empty column with a name": column(MULTI_HOT, "remarks", "", "", ""),
    "URLs": names(lambda name: f"https://host/data/{name}"),
    "gzipped with a byte order mark and a separator line": gzip.compress(
        b"\xef\xbb\xbfsep=;\n" + NIH.replace(",", ";").encode()
    ),
}


@pytest.mark.parametrize("kind", SAME)
def test_an_odd_table_is_read_rightly(kind: str, tmp_path: Path) -> None:
    table = read(SAME[kind], tmp_path)
    assert table.names == NAMES
    assert table.groups == ("1", "1", "2")
    assert [tuple(c for c, there in zip(table.classes, row, strict=True) if there) for row in table.labels] == [
        *HOT.values()
    ]
    assert read_names(tmp_path / "labels.csv") == NAMES


#: What each is refused with, behind the file's name; `{labels}` stands for nothing.
REFUSED: dict[str, tuple[str | bytes, str]] = {
    "a title above the header": ("ChestX-ray labels\n" + NIH, r", line 2: 5 fields; .*header: remove what is above"),
    "tables that were joined": (NIH + NIH, r", line 5: the header of line 1 again, as in joined tables; remove"),
    "a separator that is not used": ("sep=;\n" + NIH, r", line 2: no column of image names; .*separated by commas"),
    "columns separated by bars": (MULTI_HOT.replace(",", "|"), r", line 1: no column of image names; .*by commas"),
    "columns separated by colons": (MULTI_HOT.replace(",", ":"), r", line 1: no column of image names; .*by commas"),
    "lines in quotation marks": (re.sub(r"(?m)^.+$", r'"\g<0>"', NIH), r", line 1: no column of image names; .*by com"),
    "semicolons below a header of commas": (
        NIH.replace("No Finding,", "No Finding;").replace(",1,9,9", ";1;9;9"),
        r", line 2: \d fields; expected 5 as in the header",
    ),
    "comments alone": ("# a\n# b\n", r" is empty; expected a label table"),
    "a separator line alone": ("sep=;\n", r" is empty; expected a label table"),
    "a comment below": (NIH + "# end of file\n", r", line 5: 1 fields; expected 5 as in the header"),
    "JSON": ('[{"Image Index": "00000001_000.png"}]', r" is JSON, not CSV; write the table as CSV"),
    "JSON by columns": ('{"Image Index": ["00000001_000.png"]}', r" is JSON, not CSV"),
    "bzip2": (bz2.compress(NIH.encode()), r" is packed with bzip2; expected a table in CSV"),
    "xz": (lzma.compress(NIH.encode()), r" is packed with xz; expected a table in CSV"),
    "zstandard": (b"\x28\xb5\x2f\xfd\x24\x09I\0", r" is packed with zstandard; expected"),
    "gzip in gzip": (gzip.compress(gzip.compress(NIH.encode())), r" is packed with gzip twice; expected"),
    "a tar archive in gzip": (tarball(NIH), r" is a binary file, not CSV"),
    "Parquet": (b"PAR1\x15\x04\x15", r" is a Parquet file; expected a table in CSV"),
    "HDF5": (b"\x89HDF\r\n\x1a\n\0", r" is an HDF5 file; expected a table in CSV"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3", r" is a PDF document; expected a table in CSV"),
    "RTF": (b"{\\rtf1\\ansi " + NIH.encode() + b"}", r" is an RTF document; expected a table in CSV"),
    "Windows' Greek": (MULTI_HOT.replace("patient", "ασθενής").encode("cp1253"), r", line 1: not text in UTF-8; save"),
    "dates for names, and no patient": (
        names(
            lambda name: f"2020{name[4:]}",
            "\n".join(
                [
                    f"image_id,{','.join(CHEST_FINDINGS)}",
                    *[f"{name},{cells}" for name, cells in zip(NAMES, CELLS, strict=True)],
                ]
            ),
        ),
        r", line 2: no patient column, and '20200001_000\.png' does not tell the patient as NIH's names do .*"
        r"--patient-column",
    ),
    "NIH's names with numbers that NIH does not have": (
        LIST.replace("00000002_000", "00030806_000"),
        r", line 3: no patient column, and '00030806_000\.png'",
    ),
    "NIH's name of nobody": (LIST.replace("00000002_000", "00000000_000"), r", line 3: no patient column, and '0000"),
    "ids in scientific notation": (
        other_names(MULTI_HOT.replace(",2,", ",1.23457E+11,")),
        r", line 4, column 'patient': '1\.23457E\+11' is a number in scientific notation, as Excel .* ids as text",
    ),
    "ids in scientific notation, with a comma": (
        other_names(MULTI_HOT.replace(",", ";").replace(";2;", ";1,23457E+11;")),
        r", line 4, column 'patient': '1,23457E\+11' is a number in scientific notation",
    ),
    "ids as pandas writes long numbers": (
        other_names(MULTI_HOT.replace(",2,", ",1.2345678901234568e+17,")),
        r", line 4, column 'patient': .*scientific",
    ),
    "names in scientific notation": (
        MULTI_HOT.replace("00000002_000.png", "1.2E+14"),
        r", line 4, column 'image_id': '1\.2E\+14' is a number in sc",
    ),
    "a spreadsheet's error for a name": (
        MULTI_HOT.replace("00000002_000.png", "#REF!"),
        r", line 4, column 'image_id': '#REF!' is a spreadsheet's err",
    ),
    "a spreadsheet's error for a patient": (
        other_names(MULTI_HOT.replace(",2,", ",#N/A,")),
        r", line 4, column 'patient': '#N/A' is a spreadsheet's error",
    ),
    "a spreadsheet's error for a label": (
        MULTI_HOT.replace(",1\n", ",#DIV/0!\n"),
        r", line 4, column 'Hernia': '#DIV/0!' is no label; expected 0 or 1",
    ),
    "an unknown patient": (
        other_names(MULTI_HOT.replace(",2,", ",unknown,")),
        r", line 4, column 'patient': the patient of 'scan20\.png' is 'unknown', which is no patient",
    ),
    "a patient of -1": (other_names(MULTI_HOT.replace(",2,", ",-1,")), r", line 4, column 'patient': .*'-1', which is"),
    "two columns of patients that differ": (
        other_names(column(MULTI_HOT, "Patient ID", "1", "2", "2")),
        r", line 1: columns 'Patient ID' and 'patient' put different images together; .*--patient-column",
    ),
    "a further label with blanks": (
        column(MULTI_HOT, "Fracture", "1", "", ""),
        r", line 1: column 'Fracture' has zeros and ones or gaps and is not one of the 14 findings; .*--classes",
    ),
    "a further label with uncertain cells": (
        column(MULTI_HOT, "Fracture", "1.0", "0.0", "-1.0"),
        r", line 1: column 'Fracture' has zeros and ones or gaps",
    ),
    "a further label of words of truth": (
        column(MULTI_HOT, "Fracture", "True", "False", "False"),
        r", line 1: column 'Fracture' has zeros and ones and",
    ),
    "a further label that is never there": (
        column(MULTI_HOT, "Fracture", "-1", "0", ""),
        r", line 1: column 'Fracture' has zeros and ones or gaps",
    ),
    "a finding twice, as pandas renames it": (
        column(MULTI_HOT, "Mass.1", "1", "0", "0"),
        r", line 1: column 'Mass\.1' has zeros and ones and is not one",
    ),
    "decimal commas": (
        MULTI_HOT.replace(",", ";").replace(";0\n", ";0,0\n"),
        r", line 2, column 'Hernia': '0,0' has a decimal comma; expected 0 or 1",
    ),
    "digits with underscores": (
        MULTI_HOT.replace(",1\n", ",0_1\n"),
        r", line 4, column 'Hernia': '0_1' is no label; expected 0 or 1",
    ),
    "a row of sums": (
        MULTI_HOT + "Total,,1,0,0,0,1,0,0,0,0,1,0,0,0,1\n",
        r", line 5, column 'patient': the patient of 'Total' is em",
    ),
    "findings separated by commas in a cell": (
        NIH.replace("Mass|Edema", '"Mass, Edema"'),
        r", line 2, .*; several are separated by '\|': Mass\|Edema",
    ),
    "CheXpert's table": (CHEXPERT, r", line 1: no column for Atelectasis, .*--classes 'Cardiomegaly,Edema,Fracture'"),
    "MIMIC-CXR's table, which has no images": (
        "subject_id,study_id,Atelectasis,Edema\n10000032,50414267,1.0,\n",
        r", line 1: no column of image names; .*found",
    ),
    "RSNA's table, where the patient is the image": (
        "patientId,x,y,width,height,Target\n0004cfab,,,,,0\n00436515,264,152,213,379,1\n",
        r", line 1: no column of image names; .*found 'patientId', 'x'",
    ),
    "VinDr's table, an image for each reader": (
        f"image_id,rad_id,{','.join(CHEST_FINDINGS)}\n"
        + "".join(f"50a418,R{reader},{CELLS[0]}\n" for reader in (1, 2)),
        r", line 3: image '50a418' is already in line 2; remove one of them",
    ),
    "images in columns": (
        f"finding,{','.join(NAMES)}\nMass,1,0,0\n",
        r", line 1: no column of image names; .*found 'finding', '0000",
    ),
    "two lines of header": (",labels,labels\nimage_id,Mass,Edema\na.png,1,0\n", r", line 1: no column of image names"),
    "a Markdown table": (
        "| image | Sex |\n|---|---|\n| a.png | 1 |\n",
        r", line 1: no column of image names; .*by com",
    ),
    "fixed widths": (
        "image_id          Mass Edema\n00000001_000.png  1    0\n",
        r", line 1: no column for .*expected all 14",
    ),
    "an SQL dump": (
        "".join(f"INSERT INTO labels VALUES ('{name}', 'Mass');\n" for name in NAMES),
        r", line 1: no column of image names",
    ),
    "a name over two lines": (
        NIH.replace("00000002_000.png", '"00000002\n_000.png"'),
        r", line 4, column 'Image Index': .* has a line break",
    ),
    "a cell of a megabyte": (
        NIH.replace("No Finding", '"' + "x" * 2**20),
        r", line 3: not a CSV row as it stands; is a quotation mark missing",
    ),
    "a quotation mark too many": (NIH.replace("No Finding", '"No" Finding'), r", line 3: not a CSV row as it stands"),
}


def read(content: str | bytes, folder: Path, classes: tuple[str, ...] = (), patient: str = "") -> LabelTable:
    path = folder / "labels.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_labels(path, classes, patient)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_broken_table_is_one_sentence_and_exit_2(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, says = REFUSED[kind]
    with pytest.raises(BadInput) as caught:
        read(content, tmp_path)
    path, sentence = str(tmp_path / "labels.csv"), str(caught.value)
    assert re.match(re.escape(path) + says, sentence), sentence
    assert sentence.isprintable() and len(sentence) - len(path) < 420
    (tmp_path / "png").mkdir()
    for verb in (
        ["audit", "--labels", path],
        ["split", "--labels", path, "-o", str(tmp_path / "lists")],
        ["prepare", "odd", "--images", str(tmp_path / "png"), "--labels", path],
    ):
        code, out, err = call(capsys, *verb)
        assert (code, out) == (2, ""), verb
        assert err.split() == ["error:", *sentence.split()], verb
    assert not (tmp_path / "lists").exists()


def test_there_are_enough_kinds() -> None:
    assert len(REFUSED) >= 30
    assert len(SAME) >= 20


def test_chexpert_is_read_for_some_of_its_classes(tmp_path: Path) -> None:
    """Its names are the same in all folders and its folders are its patients; what is left out is told."""
    table = read(CHEXPERT, tmp_path, ("Cardiomegaly", "Edema"))
    assert table.names == tuple(
        f"patient0000{patient}/study{study}/view1_frontal.jpg" for patient, study in ((1, 1), (1, 2), (2, 1))
    )
    assert table.groups == ("patient00001", "patient00001", "patient00002")
    assert table.labels.tolist() == [[1, 0], [0, 0], [0, 1]]
    assert [note.removeprefix(f"{tmp_path / 'labels.csv'}: ") for note in table.notes] == [
        "no patient column; the images' names are taken for CheXpert's or MIMIC-CXR's: "
        "'CheXpert-v1.0-small/train/patient00001/s...' is of patient patient00001",
        "columns 'Frontal/Lateral', 'Fracture' left out",
    ]
    assert table.projections == ("AP", "AP", "PA")
    for gap in ("", "-1.0"):
        with pytest.raises(BadInput, match=r"line 2, column 'Cardiomegaly': .*expected 0 or 1"):
            read(CHEXPERT.replace(",1.0,0.0,0.0", f",{gap},0.0,0.0", 1), tmp_path, ("Cardiomegaly",))


def test_dates_are_no_patients(tmp_path: Path) -> None:
    """With a column for the patient names may be dates, and nothing is read into them."""
    table = read(names(lambda name: f"20200101{name[8:]}".replace("_000", f"_{name[7]}00"), MULTI_HOT), tmp_path)
    assert table.names == ("20200101_100.png", "20200101_001.png", "20200101_200.png")
    assert table.groups == ("1", "1", "2")
    assert table.notes == ()


def test_a_patient_is_one_however_the_accents_are_written(tmp_path: Path) -> None:
    composed, apart = "M\u00fcller", "Mu\u0308ller"
    table = read(
        other_names(MULTI_HOT).replace("scan10.png,1", f"scan10.png,{composed}").replace("11.png,1", f"11.png,{apart}"),
        tmp_path,
    )
    assert table.groups == (composed, composed, "2")


def test_what_a_list_without_header_is_taken_for_is_read_aloud(tmp_path: Path) -> None:
    table = read(LIST, tmp_path)
    assert len(table.notes) == 2
    assert "has no header; its columns are taken for Atelectasis" in table.notes[0]
    assert "00000001_000.png (line 1) has Mass and Edema" in table.notes[0]
    assert table.notes[1].endswith(
        "no patient column; the images' names are taken for NIH's: '00000001_000.png' is of patient 1"
    )
    assert read(MULTI_HOT, tmp_path).notes == ()
    assert read(NIH, tmp_path).notes == ()

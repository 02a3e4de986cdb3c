"""The page of the service in a headless browser: what a person does with it, by mouse, keyboard and telephone."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser import PROGRAM, Browser, browser
from exported import CLASSES, drawn, gray, handmade
from test_serve import Running, running

from xlite_search import storage
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.deploy.domain import fit_domain
from xlite_search.deploy.folder import THRESHOLDS
from xlite_search.deploy.predict import Predictor

pytestmark = pytest.mark.skipif(not PROGRAM, reason="there is no Chromium")

SIZES = [(360, 780), (1400, 900)]
ACTIVE = "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
OVERFLOW = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
STATUS = "document.getElementById('status').textContent"
TRANSFORM = "document.getElementById('image').style.transform"
KEYS: dict[str, dict[str, Any]] = {
    "Tab": {"code": "Tab", "windowsVirtualKeyCode": 9},
    "Escape": {"code": "Escape", "windowsVirtualKeyCode": 27},
    "Enter": {"code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"},
    "ArrowLeft": {"code": "ArrowLeft", "windowsVirtualKeyCode": 37},
    "ArrowRight": {"code": "ArrowRight", "windowsVirtualKeyCode": 39},
    "+": {"text": "+"},
    "-": {"text": "-"},
    "0": {"text": "0"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade(tmp_path_factory.mktemp("exported"), thresholds={CLASSES[0]: 0.4})


@pytest.fixture(scope="module")
def here(folder: Path) -> Iterator[Running]:
    with running(folder) as found:
        yield found


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Browser]:
    with browser(tmp_path / "profile") as found:
        yield found


def opened(page: Browser, here: Running, width: int = 1400, height: int = 900, *, dark: bool = False) -> None:
    page.open(f"http://127.0.0.1:{here.port}/", width, height, dark=dark)
    page.until("document.getElementById('title').textContent !== 'Model'")


def press(page: Browser, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=key, **(KEYS[key] if kind == "keyDown" else {}))


def bars(count: int = len(CLASSES)) -> str:
    return f"document.querySelectorAll('li.finding').length === {count}"


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("dark", [False, True])
def test_a_dropped_radiograph_has_a_bar_for_each_finding(
    here: Running, page: Browser, tmp_path: Path, width: int, height: int, dark: bool
) -> None:
    opened(page, here, width, height, dark=dark)
    assert not page.value(OVERFLOW)
    page.drop("#drop", drawn(tmp_path / "a radiograph with a rather long name, taken standing.png"))
    page.until(bars())
    assert not page.value(OVERFLOW)
    assert page.value("document.querySelectorAll('.limit').length") == 1
    page.until("document.getElementById('image').complete")
    assert page.value("document.getElementById('image').naturalWidth") > 0
    ground = page.value("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 384) == dark
    assert page.trouble == []


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A calibrated model of the fourteen findings: Hernia has no threshold, and is not to be relied on."""
    folder = tmp_path_factory.mktemp("chest")
    rows = [{"finding": name, "positives": 500, "after": 0.1} for name in CHEST_FINDINGS]
    rows[CHEST_FINDINGS.index("Hernia")] |= {"positives": 3, "after": None}
    card = {"assessable_from": 50, "calibration": {"findings": rows}}
    storage.write_atomic(folder / "model_card.json", json.dumps(card).encode())
    limits = {name: 0.05 * (1 + number) for number, name in enumerate(CHEST_FINDINGS) if name != "Hernia"}
    chosen = {"sensitivity": {"sensitivity": {"value": 0.91, "low": 0.85, "high": 0.95}}}
    storage.write_manifest(folder / THRESHOLDS, {"findings": [{"finding": name, **chosen} for name in limits]})
    rules = dict.fromkeys(limits, "sensitivity")
    handmade(folder, classes=CHEST_FINDINGS, calibration="0" * 12, thresholds=limits, threshold_rules=rules)
    with running(folder) as found:
        yield found


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_fourteen_findings_have_fourteen_bars(
    chest: Running, page: Browser, tmp_path: Path, width: int, height: int
) -> None:
    file = drawn(tmp_path / "x.png")
    opened(page, chest, width, height)
    page.drop("#drop", file)
    page.until(bars(14))
    assert not page.value(OVERFLOW)
    assert page.value("document.querySelectorAll('.limit').length") == 13
    texts = page.value("[...document.querySelectorAll('li.finding')].map(each => each.textContent)")
    decided = 0
    for each in chest.post(file.read_bytes())[2]["findings"]:
        (text,) = (text for text in texts if text.startswith(each["finding"].replace("_", " ")))
        bare = each["finding"] == "Hernia"
        assert ("no threshold" in text, "cannot be judged" in text) == (bare, bare)
        assert ("sensitivity 0.91 (0.85 to 0.95)" in text) == (not bare)
        assert ("above threshold" in text, "below threshold" in text) == (
            each["decision"] is True,
            each["decision"] is False,
        )
        decided += bool(each["decision"])
    assert 0 < decided < 13
    assert page.trouble == []


def test_several_files_are_a_table_and_a_csv(here: Running, page: Browser, tmp_path: Path) -> None:
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path), eventsEnabled=True)
    files = [drawn(tmp_path / f"{row}.png", row) for row in range(3)]
    bad = tmp_path / '=bad, "cut".png'
    bad.write_bytes(files[0].read_bytes()[:99])
    opened(page, here)
    page.drop("#drop", *files, bad)
    page.until("document.querySelectorAll('#table tr').length === 5")
    said = page.value("document.getElementById('table').textContent")
    assert "a PNG file that is cut off" in said
    page.until("document.getElementById('status').textContent.includes('3 of 4 answered')")
    page.value("document.getElementById('csv').click()")
    path = tmp_path / "answers.csv"
    page.until_file(path)
    assert path.read_bytes().startswith(b"\xef\xbb\xbffile,")
    rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    assert len(rows) == 3 * len(CLASSES) + 1
    answer = here.post(files[0].read_bytes())[2]["findings"][0]
    assert float(rows[0]["logit"]) == answer["logit"] and rows[0]["file"] == "0.png"
    for each in rows[:-1]:
        assert each["cannot_be_judged"] == answer["cannot_be_judged"] != ""
        assert (each["model_sha256"], each["notice"]) == ("0" * 64, "Not for clinical use.")
    assert rows[-1]["file"] == '\'=bad, "cut".png' and "cut off" in rows[-1]["error"]
    page.value("document.querySelectorAll('#table button')[2].click()")
    assert page.value("document.getElementById('shownname').textContent") == "2.png"
    assert len(page.trouble) == 1 and "422" in page.trouble[0]


def test_a_file_that_is_no_use_is_told(here: Running, page: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "notes.txt"
    bad.write_text("hello")
    opened(page, here)
    page.drop("#drop", bad)
    page.until("document.querySelector('#flags .error') !== null")
    assert "notes.txt: the image cannot be used: not a PNG, JPEG or DICOM file" in page.value(
        "document.querySelector('#flags .error').textContent"
    )
    assert len(page.trouble) == 1 and "422" in page.trouble[0]


def test_a_map_appears_and_goes(here: Running, page: Browser, tmp_path: Path) -> None:
    opened(page, here)
    page.drop("#drop", drawn(tmp_path / "x.png"))
    page.until(bars())
    plain = page.value("document.getElementById('image').src")
    page.value("document.querySelector('li.finding button').click()")
    page.until("document.getElementById('mapnote').textContent !== ''")
    assert page.value("document.getElementById('image').src") != plain
    page.value("document.getElementById('plain').click()")
    assert page.value("document.getElementById('image').src") == plain
    assert page.trouble == []


def test_the_keyboard_is_enough(here: Running, page: Browser, tmp_path: Path) -> None:
    opened(page, here)
    page.call("Page.setInterceptFileChooserDialog", enabled=True)
    seen = []
    for _ in range(2):
        press(page, "Tab")
        seen.append(page.value(ACTIVE))
    assert seen == ["cardlink", "drop"]
    press(page, "Enter")
    chooser = page.event("Page.fileChooserOpened")
    page.call("DOM.setFileInputFiles", files=[str(drawn(tmp_path / "x.png"))], backendNodeId=chooser["backendNodeId"])
    page.until(bars())
    press(page, "Tab")
    assert page.value(ACTIVE) == "view"
    press(page, "+")
    zoomed = page.value(TRANSFORM)
    assert "scale(1.4)" in zoomed
    press(page, "ArrowRight")
    assert page.value(TRANSFORM) != zoomed
    press(page, "ArrowLeft")
    assert page.value(TRANSFORM) == zoomed
    press(page, "-")
    press(page, "+")
    press(page, "0")
    assert page.value(TRANSFORM) == "translate(0px, 0px) scale(1)"
    for expected in ("in", "out", "fit", "name"):
        press(page, "Tab")
        assert page.value(ACTIVE) == expected
    press(page, "Enter")
    page.until("document.getElementById('mapnote').textContent !== ''")
    assert page.trouble == []


def test_the_card_is_shown_or_said_to_be_missing(folder: Path, page: Browser, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    hidden = "document.getElementById('card').classList.contains('hidden')"
    with running(copy) as here:
        opened(page, here)
        page.value("document.getElementById('cardlink').click()")
        page.until(f"{STATUS}.includes('model_card.md')")
        body = "# Model card\n\n<script>alert(1)</script>\n---\nend"
        (copy / "model_card.md").write_text(f"---\nlicense: other\n---\n\n{body}")
        for close in ("Escape", "Enter"):
            page.value("document.getElementById('cardlink').click()")
            page.until(f"!{hidden}")
            assert page.value("document.getElementById('cardtext').textContent") == body
            assert page.value(STATUS) == ""
            assert page.value(ACTIVE) == "card"
            if close == "Enter":
                press(page, "Tab")
                assert page.value(ACTIVE) == "cardclose"
            press(page, close)
            assert page.value(hidden)
            assert page.value(ACTIVE) == "cardlink"
        page.call("Page.navigate", url="about:blank")
        page.open(f"http://127.0.0.1:{here.port}/#card", 360, 780)
        page.until(f"!{hidden}")
        assert page.value(ACTIVE) == "card"
        assert not page.value(OVERFLOW)


def typed(page: Browser, token: str) -> None:
    """Into the field for the token, as a person would."""
    page.value("document.getElementById('token').value = ''; document.getElementById('token').focus()")
    page.call("Input.insertText", text=token)
    press(page, "Enter")


def asking_for_a_token(page: Browser, here: Running) -> None:
    page.open(f"http://127.0.0.1:{here.port}/", 1400, 900)
    page.until("!document.getElementById('tokenbox').hidden")
    page.until(f"{STATUS}.includes('asks for a token')")


def test_a_token_is_asked_for_and_taken(folder: Path, page: Browser, tmp_path: Path) -> None:
    """The page has no data and opens without; what it asks needs the token. Files that came before it wait for it."""
    with running(folder, "secret") as here:
        asking_for_a_token(page, here)
        page.drop("#drop", drawn(tmp_path / "x.png"))
        page.until(f"{STATUS}.includes('1 file waits')")
        page.drop("#drop", drawn(tmp_path / "y.png", 1))
        page.until(f"{STATUS}.includes('2 files wait')")
        typed(page, "wrong")
        page.until(f"{STATUS}.includes('not the right token')")
        page.until(f"({ACTIVE}) === 'token'")
        typed(page, "secret")
        page.until("document.getElementById('title').textContent === 'm'")
        page.until(f"({ACTIVE}) === 'drop'")
        page.until(f"{STATUS} === '2 of 2 answered'")
        assert page.value("document.querySelectorAll('#table tr').length") == 3
        assert page.value("document.getElementById('tokenbox').hidden")
        page.drop("#drop", drawn(tmp_path / "z.png", 2))
        page.until(f"{STATUS} === 'z.png: answered'")


def test_a_token_of_any_letters_is_taken(folder: Path, page: Browser) -> None:
    with running(folder, "schlüssel 鍵") as here:
        asking_for_a_token(page, here)
        page.value("document.getElementById('token').value = 'bell\\x07'")
        page.value("document.getElementById('token').focus()")
        press(page, "Enter")
        page.until(f"{STATUS}.includes('letters that no header can carry')")
        typed(page, "schlüssel 鍵")
        page.until("document.getElementById('title').textContent === 'm'")


HELD = """
{ const real = fetch; let number = 0; window.release = null;
  window.fetch = async (...given) => {
    if (number++ === NUMBER) await new Promise(done => { window.release = done; });
    return real(...given);
  } }
"""


def held(page: Browser, number: int) -> None:
    """Holds one request of the page, counted from now, until `release()`."""
    page.value(HELD.replace("NUMBER", str(number)))


def test_each_drop_counts_its_own_files(here: Running, page: Browser, tmp_path: Path) -> None:
    bad = [tmp_path / f"bad{row}.png" for row in range(2)]
    for each in bad:
        each.write_text("hello")
    opened(page, here)
    held(page, 1)
    page.drop("#drop", drawn(tmp_path / "0.png"), drawn(tmp_path / "1.png", 1))
    page.until("release")
    page.drop("#drop", *bad)
    page.until(f"{STATUS} === '0 of 2 answered, 2 cannot be used'")
    page.value("release()")
    page.until(f"{STATUS} === '2 of 2 answered'")


def test_what_cannot_be_read_is_told(here: Running, page: Browser, tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    drawn(tmp_path / "series" / "a.png")
    files = [drawn(tmp_path / "0.png"), drawn(tmp_path / "gone.png", 1)]
    opened(page, here)
    held(page, 0)
    page.drop("#drop", *files, tmp_path / "series")
    page.until("release")
    files[1].unlink()
    page.value("release()")
    page.until(f"{STATUS} === '1 of 3 answered, 2 cannot be used'")
    texts = page.value("[...document.querySelectorAll('td.bad')].map(each => each.textContent)")
    assert texts == [
        "it cannot be read: was it moved, changed or deleted?",
        "this is a folder: drop the files that are in it",
    ]
    files[0].unlink()
    page.value("document.querySelector('li.finding button').click()")
    page.until(f"{STATUS}.includes('was it moved, changed or deleted?')")
    assert page.trouble == []


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_table_has_flags_and_doubts(
    chest: Running, page: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    paths = [drawn(tmp_path / f"{row}.png", row) for row in range(80)]
    of = Predictor.open(chest.service.folder)
    domain = fit_domain(np.array([of.prepared(path) for path in paths]), [str(row) for row in range(80)])
    monkeypatch.setattr(chest.service.engine, "domain", domain)
    negative = tmp_path / "negative.png"
    cv2.imwrite(str(negative), 255 - gray(paths[0]))
    opened(page, chest, width, height)
    page.drop("#drop", paths[1], negative)
    page.until(f"{STATUS} === '2 of 2 answered'")
    heads = page.value("[...document.querySelectorAll('#table th')].map(each => each.textContent)")
    assert heads[:2] == ["File", "Unusual"]
    assert [head for head in heads if head.startswith("†")] == ["† Hernia"]
    cells = "[...document.querySelectorAll('#table tr')].slice(1).map(row => [...row.children].map(TEXT))"
    texts = page.value(cells.replace("TEXT", "cell => cell.textContent"))
    assert [row[1] for row in texts] == ["no", "inverted"]
    for row in texts:
        assert [cell.startswith("† ") for cell in row] == [head == "† Hernia" for head in heads]
    signs = page.value(
        "[...document.querySelectorAll('#table [role=img]')].map(of => [of.ariaLabel, of.title, of.textContent])"
    )
    assert all(label == title for label, title, _ in signs)
    said = {text: label for label, _, text in signs}
    assert said["inverted"].startswith("inverted: its negative is like the training images")
    doubt = "calibrated on 3 positive images, and it takes 50 to assess that"
    assert said["†"] == f"cannot be judged: {doubt}"
    assert f"Hernia: {doubt}" in page.value("document.getElementById('legend').textContent")
    assert not page.value(OVERFLOW)
    assert page.trouble == []


def test_another_file_ends_the_wait_for_a_map(here: Running, page: Browser, tmp_path: Path) -> None:
    opened(page, here)
    page.drop("#drop", drawn(tmp_path / "0.png"), drawn(tmp_path / "1.png", 1))
    page.until(f"{STATUS} === '2 of 2 answered'")
    held(page, 0)
    page.value("document.querySelector('li.finding button').click()")
    page.until("release")
    assert page.value(STATUS).startswith("Computing the map of ")
    page.value("document.querySelectorAll('#table button')[1].click()")
    assert page.value(STATUS) == ""
    page.value("release()")
    page.value("document.querySelector('li.finding button').click()")
    page.until(f"{STATUS}.startsWith('Map of ')")
    page.value("document.querySelectorAll('#table button')[0].click()")
    assert page.value(STATUS) == ""
    assert page.value("document.getElementById('mapnote').textContent") == ""

"""The page of the service in a headless browser: what a person does with it, by mouse, keyboard and telephone."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import PROGRAM, Browser, browser
from exported import CLASSES, drawn, handmade
from test_serve import Running, running

from xlite_search import storage
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.deploy.folder import THRESHOLDS

pytestmark = pytest.mark.skipif(not PROGRAM, reason="there is no Chromium")

SIZES = [(360, 780), (1400, 900)]
ACTIVE = "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
OVERFLOW = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
TRANSFORM = "document.getElementById('image').style.transform"
KEYS: dict[str, dict[str, Any]] = {
    "Tab": {"code": "Tab", "windowsVirtualKeyCode": 9},
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
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 3 * len(CLASSES) + 1
    answer = here.post(files[0].read_bytes())[2]["findings"][0]
    assert float(rows[0]["logit"]) == answer["logit"] and rows[0]["file"] == "0.png"
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
    with running(copy) as here:
        opened(page, here)
        page.value("document.getElementById('cardlink').click()")
        page.until("document.getElementById('status').textContent.includes('model_card.md')")
        (copy / "model_card.md").write_text("# Model card\n\n<script>alert(1)</script>")
        page.value("document.getElementById('cardlink').click()")
        page.until("document.getElementById('cardtext').textContent.includes('alert(1)')")


def test_a_token_is_asked_for_and_taken(folder: Path, page: Browser, tmp_path: Path) -> None:
    """The page has no data and opens without; what it asks needs the token."""
    with running(folder, "secret") as here:
        page.open(f"http://127.0.0.1:{here.port}/", 1400, 900)
        page.until("!document.getElementById('tokenbox').hidden")
        page.until("document.getElementById('status').textContent.includes('asks for a token')")
        for token, known in (("wrong", False), ("secret", True)):
            page.value("document.getElementById('token').value = ''; document.getElementById('token').focus()")
            page.call("Input.insertText", text=token)
            press(page, "Enter")
            if known:
                page.until("document.getElementById('title').textContent === 'm'")
            else:
                page.until("document.getElementById('status').textContent.includes('not the right token')")
        page.drop("#drop", drawn(tmp_path / "x.png"))
        page.until(bars())
        assert page.value("document.getElementById('tokenbox').hidden")

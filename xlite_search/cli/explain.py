"""Verb on what a model looks at: explain."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from xlite_search import storage
from xlite_search.cli.options import AsIs, Cpu, Json
from xlite_search.cli.tracked import track
from xlite_search.errors import BadInput, did_you_mean
from xlite_search.evaluation.named import find_model

if TYPE_CHECKING:
    from xlite_search.evaluation.case_maps import Shown
    from xlite_search.evaluation.explained import Explained
    from xlite_search.reports.overlays import Overlay
    from xlite_search.results.columns import Table

KEY = (
    "each: the image, its map{occlusion}; green: true box; cyan: the map's maximum, and the box around what has at "
    "least half of it; figures: {probabilities}"
)
PROBABILITIES = {"calibrated": "calibrated probabilities", "not calibrated": "probabilities, not calibrated"}
#: what the columns mean
EXPLAINED = (
    "pointing: the map's maximum lies in a box of the finding; IoU: of that box and the one around what has at least "
    "half of the map's maximum",
    "constant: the point, and of the boxes the one, that are best for all boxes of the finding and see no image; "
    "chance: the share of the image that the boxes cover; intervals are by patient",
)


def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name in mlruns/models, or its folder.")],
    on: Annotated[str, typer.Option(help="A prepared data set.  [default: the model's own]")] = "",
    part: Annotated[str, typer.Option(help="val, test or train; of a data set from elsewhere also all.")] = "val",
    findings: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Which.  [default: all that model and data know]")
    ] = None,
    images: Annotated[int, typer.Option(help="How many maps are drawn; figures are of all images with boxes.")] = 24,
    method: Annotated[str, typer.Option(help="gradcam or hirescam.")] = "gradcam",
    boxes: Annotated[
        Path | None, typer.Option(help="A box list such as NIH's BBox_List_2017.csv.  [default: the data set's boxes]")
    ] = None,
    occlusion: Annotated[
        bool, typer.Option("--occlusion", help="Cover patches of the drawn images too: a check that knows no layer.")
    ] = False,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why a test part that another model was judged on is looked at again.")
    ] = "",
    as_is: AsIs = False,
    cpu: Cpu = False,
    json_: Json = False,
) -> None:
    """Maps of where a model's findings come from, and how well they agree with boxes."""

    from xlite_search import console, machine
    from xlite_search.cli.options import listed
    from xlite_search.evaluation.cases import Asked
    from xlite_search.evaluation.evaluate import expect_ready, look_at
    from xlite_search.evaluation.explain import expect_answerable, explained
    from xlite_search.evaluation.explained import FIGURES, SHEET
    from xlite_search.evaluation.maps import METHODS, Method
    from xlite_search.evaluation.scored import PARTS, PartName, data_of
    from xlite_search.model_folder import read_model
    from xlite_search.results.columns import show

    chosen_part = cast(
        PartName, _one_of(part, PARTS, "--part", "train, val, test, and of a data set from elsewhere all")
    )
    chosen_method = cast(Method, _one_of(method, METHODS, "--method"))
    machine.expect_gpu_support(cpu)
    folder = find_model(model)
    about = read_model(folder)
    data = data_of(about, on)
    asked = Asked(chosen_part, listed(findings), images, chosen_method, occlusion, boxes)
    expect_answerable(about, data, asked)
    if chosen_part in ("test", "all") or (on and on != about.config.get("data", {}).get("name")):
        expect_ready(folder, on or chosen_part, as_is=as_is)
        console.say(look_at(folder, data, chosen_part, reason).words())
    found = explained(folder, data, asked, machine.device(cpu=cpu), console.Counter)
    if gone := _replaced(folder / found.place / FIGURES, found):
        console.say(gone)
    home = _write(folder, found)
    track(folder, anew=found.place)
    if json_:
        print(json.dumps(found.as_json()))
        return
    show([table(found)] if found.rows else [found.title, *found.notes])
    print(f"{len(found.shown)} maps drawn: {home / SHEET}")
    print(f"every figure: {home / FIGURES}")
    print(f"next: python -m xlite_search export {model} -o DIR")


def _one_of(given: str, choices: Sequence[str], option: str, words: str = "") -> str:
    if given not in choices:
        raise BadInput(f"{option} {given}: expected {words or ', '.join(choices)}{did_you_mean(given, choices)}")
    return given


def _replaced(path: Path, found: Explained) -> str:
    """What is lost of earlier figures of the same data set, part and method; empty if nothing is."""
    try:
        before = set(json.loads(path.read_bytes())["findings"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""
    gone = sorted(before - set(found.about["findings"]))
    return f"these figures take the place of earlier ones, which had {', '.join(gone)} too" if gone else ""


def _write(folder: Path, found: Explained) -> Path:
    """Overlays, the sheet and the figures, in a folder that takes the place of an earlier one of the same data set,
    part and method; what fails leaves that one as it was."""
    home = folder / found.place
    fresh = folder / f".explain.{os.getpid()}.tmp"
    try:
        for name, content in _files(found):
            storage.write_atomic(fresh / name, content)
        home.parent.mkdir(parents=True, exist_ok=True)
        storage.replace_folder(fresh, home)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return home


def _files(found: Explained) -> Iterator[tuple[str, bytes]]:
    """Names and contents; overlays are numbered as they lie on the sheet."""
    from xlite_search.evaluation.explained import FIGURES, SHEET
    from xlite_search.reports.overlays import contact_sheet, overlay, png

    drawn = [_overlay(each) for each in found.shown]
    for number, (each, picture) in enumerate(zip(found.shown, drawn, strict=True), start=1):
        name = f"{number:02d}_{_plain(each.case.finding)}_{_plain(Path(each.case.image).stem)}.png"
        yield name, png(overlay(picture))
    occlusion = ", its occlusion map" if found.occlusion else ""
    key = KEY.format(occlusion=occlusion, probabilities=PROBABILITIES[found.about["probabilities"]])
    yield SHEET, png(contact_sheet(drawn, [found.title, key, *found.notes]))
    yield FIGURES, (json.dumps(found.as_json(), indent=1) + "\n").encode()


def _plain(name: str) -> str:
    """A name that every file system takes."""
    return re.sub(r"[^\w.-]+", "-", name)


def _overlay(of: Shown) -> Overlay:
    from xlite_search.reports.overlays import Overlay

    maps = [("map", of.map)] + ([("occlusion", of.occlusion)] if of.occlusion is not None else [])
    guess, empty = of.guess, "" if of.guess else ", empty map"
    whose = "not calibrated" if of.chance.calibrated is None else "calibrated"
    caption = [f"{of.case.finding.replace('_', ' ')}  {of.chance.shown:.2f}, {whose}{empty}", of.case.image]
    point, box = (guess.point, guess.box) if guess else (None, None)
    return Overlay(of.pixels, maps, [box[1:] for box in of.case.boxes], point, box, caption)


def table(found: Explained) -> Table:
    """Pointing and IoU of each finding beside those of a guess that sees no image."""
    from xlite_search.results.columns import Column, Table, ends, number

    rows = found.rows

    def interval(kind: str, figure: str, sign: str = "") -> list[str]:
        each = [getattr(row, kind)[figure] for row in rows]
        return [ends(one.low, one.high, sign) for one in each]

    def value(kind: str, figure: str, sign: str = "") -> list[str]:
        return [number(getattr(row, kind)[figure].value, sign) for row in rows]

    columns = [
        Column("finding", [row.finding for row in rows], text=True),
        Column("cases", [f"{row.cases:,}" for row in rows]),
        Column("patients", [f"{row.patients:,}" for row in rows], spare=2),
        Column("pointing", value("maps", "pointing")),
        Column("95 %", interval("maps", "pointing"), spare=3),
        Column("constant", value("constant", "pointing")),
        Column("gap", value("gap", "pointing", "+")),
        Column("95 % of gap", interval("gap", "pointing", "+")),
        Column("chance", [number(row.chance) for row in rows], spare=1),
        Column("IoU", value("maps", "iou"), spare=4),
        Column("constant's IoU", value("constant", "iou"), spare=4),
        Column("95 % of gap in IoU", interval("gap", "iou", "+"), spare=5),
        Column("IoU >= 0.25", value("maps", "iou_0.25"), spare=6),
        Column("IoBB >= 0.25", value("maps", "iobb_0.25"), spare=7),
        Column("empty maps", [str(row.empty) for row in rows], spare=1),
    ]
    return Table(found.title, columns, [*EXPLAINED, *found.notes])

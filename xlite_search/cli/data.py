"""Verbs on images and label tables: prepare, split, audit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlite_search.cli.options import (
    Classes,
    Json,
    PatientColumn,
    listed,
    settings_of,
    value_of,
)
from xlite_search.errors import BadInput

if TYPE_CHECKING:
    from xlite_search.data.sources import Source
    from xlite_search.data.splits import AnySplit


Images = Annotated[Path | None, typer.Option(help="The folder that holds the images, at any depth.")]
Labels = Annotated[
    Path | None, typer.Option(help="The label table: NIH's Data_Entry_2017*.csv, multi-hot columns, or a list.")
]
Learnt = Annotated[str | None, typer.Option(metavar="A,B,...", help="What is learnt.  [default: NIH's 14 findings]")]
Notice = Annotated[
    str | None, typer.Option(help="What the data's owner asks for, told with every model.  [default: NIH's for NIH's]")
]
Stretch = Annotated[
    float | None,
    typer.Option(
        metavar="PERCENT",
        help="More than 8 bits to 8: these darkest and brightest pixels do not count.  [default: 0.1]",
    ),
]
Boxes = Annotated[
    Path | None, typer.Option(help="Boxes around findings, in pixels of these images: NIH's BBox_List_2017.csv.")
]
Normal = Annotated[
    str | None, typer.Option(metavar="NAME", help="What an image of no class is called.  [default: No Finding]")
]
Channels = Annotated[int | None, typer.Option(metavar="1|3", help="3 keeps colour (RGB).  [default: 1, gray]")]
Incomplete = Annotated[
    bool, typer.Option("--incomplete", help="The label table may name images that are not there; counted and told.")
]
AcceptLosses = Annotated[
    bool, typer.Option("--accept-losses", help="Go on although up to 5 % of the images are missing or unreadable.")
]
LabelNoise = Annotated[
    float | None, typer.Option(help="Phantoms: share of the labels that are turned round.  [default: 0]")
]
OF_PHANTOMS = "phantoms, which are drawn: leave it out, or leave out --images"
OF_FOLDERS = "images in a folder: give --images and --labels too"


def prepare(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the prepared data set.")],
    images: Images = None,
    labels: Labels = None,
    size: Annotated[int, typer.Option(help="Height and width of the prepared images, in pixels.")] = 224,
    classes: Learnt = None,
    patient_column: PatientColumn = None,
    notice: Notice = None,
    stretch: Stretch = None,
    boxes: Boxes = None,
    normal: Normal = None,
    channels: Channels = None,
    no_clahe: Annotated[bool, typer.Option("--no-clahe", help="Resize only.")] = False,
    incomplete: Incomplete = False,
    accept_losses: AcceptLosses = False,
    count: Annotated[int | None, typer.Option(help="Phantoms: how many images to draw.  [default: 1500]")] = None,
    seed: Annotated[int | None, typer.Option(help="Phantoms: of the drawing.  [default: 0]")] = None,
    label_noise: LabelNoise = None,
) -> None:
    """Raw images to the packed data set NAME: CLAHE and resize, once. Without --images, phantoms are drawn."""
    from xlite_search import console
    from xlite_search.data.prepare import prepare as prepare_data
    from xlite_search.data.preprocess import STRETCH, Clahe, Preprocess
    from xlite_search.data.sources.folder import Folder
    from xlite_search.data.sources.phantom import Phantom

    source: Source
    if images is not None:
        if labels is None:
            raise BadInput("--labels is missing: give the table that has the labels of --images")
        _expect_none(OF_PHANTOMS, {"count": count, "seed": seed, "label_noise": label_noise})
        folder = Folder(images, labels, name, notice, listed(classes), patient_column or "", incomplete, channels or 1)
        source = replace(folder, box_list=boxes, normal=normal or folder.normal)
    elif labels is not None or not name.startswith("phantom"):
        raise BadInput(f"--images is missing: give the folder of data set '{name}' (only phantom* is drawn by code)")
    else:
        found: dict[str, object] = {
            "classes": classes,
            "patient_column": patient_column,
            "notice": notice,
            "stretch": stretch,
        }
        found |= {"incomplete": incomplete or None, "channels": channels, "boxes": boxes, "normal": normal}
        _expect_none(OF_FOLDERS, found)
        settings: dict[str, Any] = {"images": count, "seed": seed, "label_noise": label_noise}
        source = Phantom(**{name: value for name, value in settings.items() if value is not None})
    for note in (*source.table().notes, source.notice):
        if note:
            console.say(note)
    counter = console.Counter("prepared")
    preprocess = Preprocess(size, None if no_clahe else Clahe(), STRETCH if stretch is None else stretch)
    data = prepare_data(name, source, preprocess, counter, accept_losses=accept_losses, say=console.say)
    if data.incomplete:
        console.say(data.incomplete)
    print(f"{data.folder}: {len(data):,} images of {data.manifest['patients']:,} patients at {data.size} px")


def _expect_none(kind: str, options: Mapping[str, object]) -> None:
    """That no option is given which is for another `kind` of source."""
    for option, value in options.items():
        if value is not None:
            raise BadInput(f"--{option.replace('_', '-')} is for {kind}")


def split(
    labels: Annotated[Path, typer.Option(help="The label table; no image is looked at.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write to.")],
    ratios: Annotated[str | None, typer.Option(help="Shares of train, val and test.  [default: 70/15/15]")] = None,
    folds: Annotated[int | None, typer.Option(help="That many folds instead: fold_0, fold_1, ...")] = None,
    official: Annotated[
        Path | None, typer.Option(metavar="DIR", help="NIH's lists instead; validation is carved out of train_val.")
    ] = None,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="The official lists may name images that the table does not have.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Another one deals otherwise.")] = 0,
    classes: Classes = None,
    patient_column: PatientColumn = None,
    json_: Json = False,
) -> None:
    """Patient-wise, stratified lists from a label table alone: train.csv, val.csv, test.csv, patients, report."""
    from xlite_search.results.audit import show_split, write_splits

    specs = _split_specs(ratios, folds, official, incomplete, seed)
    found = write_splits(labels, output, specs, listed(classes), patient_column or "")
    if json_:
        print(json.dumps(found))
    else:
        for folder, about in found.items():
            print(folder)
            show_split(about)


def audit(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A prepared data set.")] = None,
    labels: Annotated[Path | None, typer.Option(help="A label table alone, instead of NAME.")] = None,
    sampler: Annotated[
        list[str] | None,
        typer.Option(metavar="SAMPLER", help="none, max_rarity, or '{name: mean_rarity, no_finding: unscaled}'."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the data: data.split=folds, data.fraction=0.2."),
    ] = None,
    figures: Annotated[Path | None, typer.Option(metavar="DIR", help="Draw the figures into this folder.")] = None,
    classes: Classes = None,
    patient_column: PatientColumn = None,
    json_: Json = False,
) -> None:
    """Integrity, splits, and what each sampler will really draw, in closed form; every byte of NAME is checked."""
    from xlite_search.results import audit as results

    if (name is None) == (labels is None):
        raise BadInput("audit wants one of the two: the NAME of a prepared data set, or --labels with a label table")
    samplers = results.samplers([value_of(item, "sampler", f"--sampler {item}") for item in sampler or []])
    if labels is not None:
        if set_:
            raise BadInput(f"--set {set_[0]}: a label table alone has no data settings; give a NAME")
        page = results.audit_labels(labels, samplers, listed(classes), patient_column or "")
    elif classes is not None or patient_column is not None:
        option = "--patient-column" if classes is None else "--classes"
        raise BadInput(f"{option} is for a label table: give --labels, not NAME")
    else:
        page = results.audit_data(results.data_spec(name or "", settings_of(set_)), samplers)
    if json_:
        print(json.dumps(page.as_dict()))
    else:
        results.show(page)
    if figures is not None:
        results.draw(page, figures)


def _split_specs(
    ratios: str | None, folds: int | None, official: Path | None, incomplete: bool, seed: int
) -> list[AnySplit]:
    """One split, or one per fold."""
    from xlite_search.data.lists import Official
    from xlite_search.data.splits import ByPatient, Folds
    from xlite_search.spec import parse

    if sum(given is not None for given in (ratios, folds, official)) > 1:
        raise BadInput("--ratios, --folds and --official are three ways to split: give one of them")
    if folds is not None:
        several = {"folds": folds, "seed": seed}
        return [parse(Folds, several | {"fold": fold}, "--folds: ") for fold in range(max(folds, 1))]
    if official is not None:
        return [Official(path=str(official), seed=seed, incomplete=incomplete)]
    try:
        shares = [float(share) for share in (ratios or "70/15/15").split("/")]
        whole = sum(shares)
        train, val, test = [share / whole for share in shares] if whole > 1.5 else shares
    except ValueError:
        raise BadInput(f"--ratios {ratios}: expected three numbers such as 70/15/15") from None
    return [parse(ByPatient, {"ratios": (train, val, test), "seed": seed}, f"--ratios {ratios}: ")]

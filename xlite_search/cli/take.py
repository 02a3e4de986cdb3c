"""Verb on a model of somebody else: take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xlite_search import places
from xlite_search.cli.options import Classes, listed
from xlite_search.cli.tracked import track
from xlite_search.errors import BadInput


def take(
    file: Annotated[Path, typer.Argument(metavar="FILE.pth", help="A state dict, or a checkpoint that has one.")],
    model: Annotated[str, typer.Option(metavar="HYBRID", help="Which hybrid it is of, such as resnet50_none.")],
    data: Annotated[str, typer.Option(metavar="NAME", help="A data set, prepared as its images were.")],
    name: Annotated[
        str, typer.Option(help="The model's name.  [default: the file's, without its ending]", show_default=False)
    ] = "",
    classes: Classes = None,
    keys: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="How its names begin, and how the hybrid's do.")
    ] = None,
    patients: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Patients that it was trained on, one a line, if known.")
    ] = None,
) -> None:
    """Makes a model of a colleague's checkpoint, to calibrate, judge, explain and export; runs no code in it."""
    from xlite_search.data.dataset import DataSpec
    from xlite_search.distill.pretrained import Checkpoint, take_in

    given = Checkpoint(
        path=str(file),
        model=model,
        keys=dict(map(_renaming, keys or [])),
        classes=listed(classes) or None,
        patients=str(patients) if patients else None,
    )
    folder = places.model_folder(name or file.stem)
    about = take_in(given, DataSpec(name=data), folder)
    track(folder)
    print(f"model: {folder}")
    print(f"{about.model}, {len(about.classes)} findings")
    if about.trained_on is None:
        print("whom it was trained on is not known: figures may be of patients that it has seen; --patients tells")
    print(f"next: python -m xlite_search calibrate {folder.name}")


def _renaming(given: str) -> tuple[str, str]:
    old, equals, new = given.partition("=")
    if not equals:
        raise BadInput(f"--keys {given}: expected OLD=NEW, such as module.= or cnn.=backbone.")
    return old, new

"""Verb on cards: what a model, or a data set, is, for whoever is handed it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from xlite_search import places
from xlite_search.cli.tracked import track
from xlite_search.errors import BadInput, did_you_mean
from xlite_search.evaluation.named import expect_no_file, find_model, known, models, teachers

#: within a model's folder
CARD = Path("artifacts") / "card"


def card(
    name: Annotated[str, typer.Argument(metavar="MODEL|NAME", help="A model, or a prepared data set.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="Where to write it.  [default: artifacts/card of the model's folder; the data set's folder]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """The card of a model, or of a data set: Markdown, and the JSON that every number in it is of."""
    model, data = _is_model(name), _is_data(name)
    if model and data:
        raise BadInput(
            f"'{name}' is a model and a data set too: give the model's folder, {find_model(name)}, or the data set's, "
            f"{places.data_root() / name}"
        )
    if not model and not data:
        expect_no_file(name)
        raise BadInput(_unknown(name))
    if model:
        _of_model(find_model(name), output)
    else:
        _of_data(Path(name).name, output)


def _is_model(name: str) -> bool:

    try:
        return bool(find_model(name))
    except BadInput:
        return False


def _is_data(name: str) -> bool:
    """A name, or the path of a folder in XLITE_DATA."""
    from xlite_search.data.packed import MANIFEST

    given = Path(name)
    if len(given.parts) > 1 and given.absolute().parent != places.data_root():
        return False
    return (places.data_root() / given.name / MANIFEST).is_file()


def _unknown(name: str) -> str:
    data = sorted(path.parent.name for path in places.data_root().glob("*/manifest.json"))
    near = did_you_mean(name, [*models(), *(path.parent.name for path in teachers()), *data])
    there = f"{known()}; data sets {', '.join(data) or 'none'}"
    return f"no model and no data set '{name}'{near or f'; {there}'}"


def _of_model(folder: Path, output: Path | None) -> None:
    from xlite_search.deploy.cards import MODEL_CARD, model_files

    home = output or folder / CARD
    _write(home, model_files(folder))
    if output is None:
        track(folder)
    print(f"card: {home / MODEL_CARD}")
    print(f"next: python -m xlite_search export {folder.name} -o DIR")


def _of_data(name: str, output: Path | None) -> None:
    from xlite_search import console
    from xlite_search.deploy.cards import CROISSANT, DATA_CARD, data_files

    home = output or places.data_folder(name)
    with console.Wait("every byte of the data set is read"):
        files = data_files(name)
    _write(home, files)
    print(f"card: {home / DATA_CARD}")
    print(f"for programs: {home / CROISSANT}")
    print(f"next: python -m xlite_search audit {name}")


def _write(home: Path, files: Mapping[str, bytes]) -> None:
    from xlite_search import storage

    if home.exists() and not home.is_dir():
        raise BadInput(f"-o {home} is a file; give a folder")
    for name, content in files.items():
        storage.write_atomic(home / name, content)

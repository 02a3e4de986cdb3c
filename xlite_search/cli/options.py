"""Command-line options that several verbs share, and values of `--set` parsed as settings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlite_search.errors import BadInput

if TYPE_CHECKING:
    from xlite_search.config import RunConfig

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a machine to read.")]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes", metavar="A,B,...", help="What the label table is read for.  [default: NIH's 14 findings]"
    ),
]
PatientColumn = Annotated[
    str | None,
    typer.Option("--patient-column", metavar="COLUMN", help="What a split must not cut.  [default: the patient's]"),
]
Demo = Annotated[bool, typer.Option("--demo", help="On phantoms, with small models: minutes on a CPU, no data needed.")]
Cpu = Annotated[bool, typer.Option("--cpu", help="Compute on the CPU even if there is a GPU.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Change a setting; a swept name takes the new values: 'kd.tau=[1,4]'."
    ),
]
DropNear = Annotated[
    bool,
    typer.Option(
        "--drop-near-duplicates",
        help="Leave out trials whose loss has the gradient of another's, by the teacher's logits of 256 images.",
    ),
]
Margin = Annotated[float | None, typer.Option("--margin", help="Gaps in AUROC up to this are a tie.  [default: 0.002]")]
StudyName = Annotated[
    str | None, typer.Option("--name", help="The study's name; default: the file's, with -demo if so.")
]
Space = Annotated[str, typer.Argument(metavar="SPACE", help="A study file, such as search_spaces/kd_grid.py.")]


def settings_of(given: list[str] | None, own: type[RunConfig] | None = None) -> dict[str, Any]:
    """What `--set` was given, each value read as its setting's type in `own`; without it, as RunConfig has it."""
    settings: dict[str, Any] = {}
    for item in given or []:
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise BadInput(f"--set {item}: expected NAME=VALUE, such as kd.tau=4 or 'kd.tau=[1,4]'")
        name = name.strip()
        if name in settings:
            raise BadInput(f"--set {item}: {name} is set twice; for several values give a list, '{name}=[A, B]'")
        settings[name] = value_of(value, name, f"--set {item}", own)
    return settings


def value_of(text: str, name: str, what: str, own: type[RunConfig] | None = None) -> Any:
    """A setting's value as the command line has it. A teacher's settings are a run's; the teacher itself is a folder,
    or several: text, as weights are."""
    from xlite_search import written
    from xlite_search.config import RunConfig

    like = "weights" if name == "teacher" else name.removeprefix("teacher.")
    return written.value(text, own or RunConfig, like, what)


def margin_of(given: float | None) -> float:
    """Gaps in AUROC up to which runs are tied. Raises BadInput if it is none."""
    from xlite_search.results.ties import MARGIN

    if given is not None and not (math.isfinite(given) and given >= 0):
        raise BadInput(f"--margin {given:g}: expected a gap in AUROC, such as {MARGIN:g}")
    return MARGIN if given is None else given


def listed(classes: str | None) -> tuple[str, ...]:
    return () if classes is None else tuple(name.strip() for name in classes.split(","))


AsIs = Annotated[
    bool, typer.Option("--as-is", help="Though it is not calibrated; to calibrate it then is another look.")
]

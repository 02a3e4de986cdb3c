"""Models by the name that a verb is given: a model's, a teacher's key, or a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xlite_search import places
from xlite_search.errors import BadInput, XliteError, did_you_mean


def find_model(name: str) -> Path:
    """The folder of a model. Raises BadInput if there is none: the sentence says what there is, or what to do."""
    expect_no_file(name)
    given = Path(name)
    named = [] if len(given.parts) > 1 else [places.runs_root() / home / name for home in ("models", "teachers")]
    for folder in (*named, given):
        if (folder / "model.json").is_file():
            return folder
    keys = [path.parent.name for path in teachers()]
    near = did_you_mean(name, [*models(), *keys])
    there = known() if models() or keys else "there is none yet: `train best.yaml` makes one"
    raise BadInput(f"no model '{name}' in {places.runs_root() / 'models'}{near or f'; {there}'}")


def expect_no_file(name: str) -> None:
    """Raises BadInput if the name is a file's: a checkpoint is taken in first."""
    if Path(name).is_file():
        raise BadInput(
            f"{name} is a file; `python -m xlite_search take {name} --model HYBRID --data DATASET` makes a model of a "
            f"state dict, and any other model is named by its folder"
        )


def models() -> list[str]:
    """Names of the models that are here."""
    return sorted(path.parent.name for path in (places.runs_root() / "models").glob("*/model.json"))


def teachers() -> list[Path]:
    """Manifests of the teachers that are here."""
    return sorted((places.runs_root() / "teachers").glob("*/model.json"))


def known() -> str:
    """`models are a, b; teachers 0123456789ab (convnext_tiny_mhsa)`."""
    told = ", ".join(_described())
    return f"models are {', '.join(models()) or 'none'}{f'; teachers {told}' if told else ''}"


def _described() -> Iterator[str]:
    """Teachers by their key, with their hybrid, for nobody knows a key by heart."""
    from xlite_search.model_folder import manifest_of

    for path in teachers():
        try:
            yield f"{path.parent.name} ({manifest_of(path.parent).model})"
        except XliteError:
            yield path.parent.name

"""Scored images: a delivered model's logits of a part of a data set, computed once and kept in the model's folder.

    scores/<key>.npz    float32 logits with the images' and the findings' names; read without pickle
    scores/<key>.json   of which weights, data, split and part, with a checksum of the logits'

The key is a hash of what the JSON says, so that a model that was trained anew, or data that were prepared anew, have no
old logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from xlite_search import storage
from xlite_search.data.dataset import Data, DataSpec, Part, open_data
from xlite_search.errors import BadInput, Damaged
from xlite_search.model_folder import ModelManifest, input_of, read_model
from xlite_search.spec import parse
from xlite_search.training.predictions import Predictions

if TYPE_CHECKING:
    import torch

PartName = Literal["train", "val", "test", "all"]
PARTS: tuple[PartName, ...] = get_args(PartName)
FOLDER = "scores"
#: images that go through the model at once
BATCH = 64


@dataclass(frozen=True)
class Scored:
    """Logits of images with what is true of them, in the order of the part's rows.

    logits  float32 `[image, class]`, as `Model.logits` gives them: log pos_weight undone, of an ensemble the mean
    truth   bool `[image, class]`
    groups  whose each image is (patient, lesion), numbered 0, 1, ..., `[image]`
    rows    of the packed set, `[image]`
    of      what these are logits of: `sha256` of the weights, `data` and `split` fingerprints, `part`
    """

    logits: NDArray[np.float32]
    truth: NDArray[np.bool_]
    groups: NDArray[np.int64]
    rows: NDArray[np.int64]
    images: tuple[str, ...]
    classes: tuple[str, ...]
    of: dict[str, str]

    @property
    def positives(self) -> dict[str, int]:
        """Images with each finding."""
        return dict(zip(self.classes, self.truth.sum(axis=0).tolist(), strict=True))


def data_of(about: ModelManifest, name: str = "") -> Data:
    """The data that a model was trained on, as its config has them; or the data set `name`, split as that one is where
    it is the same, else by its own default.

    Raises:
        BadInput: its manifest names none and none is given, or it is not prepared, or other images than the model's.
    """
    tree = about.config.get("data")
    if tree is None and not name:
        raise BadInput(
            f"'{about.model}' does not say which data it was trained on: name a prepared data set, --on NAME"
        )
    spec = parse(DataSpec, tree, "model.json: config.data.") if tree else DataSpec(name=name)
    if name and name != spec.name:
        spec = DataSpec(name=name)
    data = open_data(spec)
    _expect_its_images(about, data)
    return data


def _expect_its_images(about: ModelManifest, data: Data) -> None:
    for setting, ours in input_of(data).items():
        theirs = about.input.get(setting, ours)
        if theirs != ours:
            raise BadInput(
                f"data set '{data.packed.folder.name}' was prepared with {setting} = {ours}, and '{about.model}' was "
                f"trained on images with {setting} = {theirs}; prepare them as the model's were"
            )


def part_of(data: Data, part: PartName) -> Part:
    """The images of a part, or of all parts together. Raises BadInput if it has none."""
    parts = [rows for name, rows in data.split.rows.items() if part in (name, "all")]
    rows = np.sort(np.concatenate([*parts, np.empty(0, np.int64)])).astype(np.int64)
    if not len(rows):
        raise BadInput(
            f"data set '{data.packed.folder.name}': the {part} part is empty; give data.split.ratios a share for it"
        )
    return Part(data.packed, rows)


def scored(
    folder: Path, data: Data, part: PartName, device: torch.device, counter: Callable[[int, int], None] | None = None
) -> Scored:
    """A model's logits of a part: those that are kept beside it, or computed and kept now.

    `counter` is told how many images of how many are done.

    Raises:
        BadInput: the model knows none of the data's findings, or the part is empty.
        Damaged: what is kept is not what was written.
    """
    about, of_part = read_model(folder), part_of(data, part)
    of = {"sha256": about.sha256, "data": data.packed.fingerprint, "split": data.split.fingerprint, "part": part}
    kept = kept_logits(folder, of)
    if kept is None:
        kept = _computed(folder, of_part, device, counter)
        _keep(folder, of, kept)
    table = data.packed.table
    columns = [data.classes.index(name) for name in about.classes if name in data.classes]
    chosen = [place for place, name in enumerate(about.classes) if name in data.classes]
    if not columns:
        raise BadInput(
            f"'{about.model}' knows none of the findings of data set '{data.packed.folder.name}' "
            f"({', '.join(data.classes)}); its own are {', '.join(about.classes)}"
        )
    groups = np.unique([table.groups[row] for row in of_part.rows], return_inverse=True)[1].reshape(-1)
    return Scored(
        np.asarray(kept.logits[:, chosen], np.float32),
        of_part.labels[:, columns] > 0,
        groups,
        of_part.rows,
        kept.images,
        tuple(about.classes[place] for place in chosen),
        of,
    )


def key_of(of: dict[str, str]) -> str:
    """What logits are called in the folder: 12 hex digits."""
    return storage.digest(of)[:12]


def kept_logits(folder: Path, of: dict[str, str]) -> Predictions | None:
    """Kept logits, or None if there are none. Raises Damaged if they are not what was written."""
    path = folder / FOLDER / f"{key_of(of)}.npz"
    try:
        about: dict[str, Any] = storage.read_manifest(path.with_suffix(".json"))
    except FileNotFoundError:
        return None
    if not path.is_file() or storage.sha256_of(path) != about["logits"]:
        raise Damaged(f"{path} is missing or is not what was written; delete {path.with_suffix('.json')} to compute it")
    return Predictions.load(path)


def _keep(folder: Path, of: dict[str, str], found: Predictions) -> None:
    path = folder / FOLDER / f"{key_of(of)}.npz"
    storage.write_manifest(path.with_suffix(".json"), of | {"logits": storage.write_atomic(path, found.to_bytes())})


def _computed(
    folder: Path, part: Part, device: torch.device, counter: Callable[[int, int], None] | None
) -> Predictions:
    import torch

    from xlite_search.data.loaders import ordered_batches
    from xlite_search.model import load_model

    model, found = load_model(folder, device), []
    with torch.inference_mode():
        for batch in ordered_batches(part, BATCH, device):
            found.append(model.logits(batch.images).cpu().numpy())
            if counter:
                counter(min(len(found) * BATCH, len(part)), len(part))
    names = part.packed.table.names
    return Predictions(np.concatenate(found), tuple(names[row] for row in part.rows), model.classes)

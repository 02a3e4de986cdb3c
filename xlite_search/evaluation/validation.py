"""The images that a model is calibrated on: its validation part, its members' folds, or what its study's trial left.

The members of a cross-fit have each judged the fold that they have not seen: together all images of training and
validation. A model that was trained on train+val has no image left that it has not seen. The trial whose config it has
was trained on train alone, and its logits of the validation images are kept: another model's, but of the same recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xlite_search.data.dataset import Data, open_data
from xlite_search.data.splits import CrossFit
from xlite_search.errors import BadInput, XliteError
from xlite_search.evaluation.calibration import FOLD_PART as FOLDS
from xlite_search.evaluation.calibration import FittedOn
from xlite_search.evaluation.scored import Scored, data_of, scored
from xlite_search.model_folder import ModelManifest, manifest_of, read_model, seen_among
from xlite_search.training.predictions import Predictions

if TYPE_CHECKING:
    import torch

    from xlite_search.records import RunRecord


#: what a final training sets itself, and what changes chance or speed alone
FINAL, NUISANCE = ("stop_after", "early_stopping"), ("seed", "threads", "compile", "micro_batch")
RECORDED = "recorded"
#: letters of a setting that a sentence shows
SHOWN = 80
CROSSFIT = CrossFit.model_fields["name"].default


@dataclass(frozen=True)
class Validation:
    """A model's manifest, its scored validation images, and what is to be said of them."""

    about: ModelManifest
    scored: Scored
    on: FittedOn


def validation_of(
    folder: Path, name: str, device: torch.device, counter: Callable[[int, int], None] | None = None
) -> Validation:
    """Of a model folder; `name` is another data set than the one that it was trained on, or empty.

    Raises:
        BadInput: there is no validation image that the model has not seen, nor a trial's predictions of any.
    """
    about = read_model(folder)
    data = data_of(about, name)
    if not len(data.val):
        members = _fold_members(folder, about)
        return _of_folds(about, data, members, device, counter) if members else _of_trial(folder, about)
    _expect_unseen(about, data)
    found = scored(folder, data, "val", device, counter)
    return Validation(about, found, _on(data, found))


def _fold_members(folder: Path, about: ModelManifest) -> list[Path]:
    """The members of a cross-fit; none if it is something else."""
    members = [folder.parent / member for member in about.members]
    splits = [manifest_of(member).config.get("data", {}).get("split", {}) for member in members]
    whole = bool(splits) and {split.get("name") for split in splits} == {CROSSFIT}
    return members if whole and {split["fold"] for split in splits} == set(range(splits[0]["folds"])) else []


def _of_folds(
    about: ModelManifest,
    data: Data,
    members: list[Path],
    device: torch.device,
    counter: Callable[[int, int], None] | None,
) -> Validation:
    """Out-of-fold logits: of each image those of the one member that has not seen it, in the order of the rows."""
    parts, total, done = [], len(data.train), 0
    for member in members:
        own = read_model(member)
        fold = data_of(own)
        _expect_unseen(own, fold)
        parts.append(scored(member, fold, "val", device, _counting(counter, done, total)))
        done += len(parts[-1].rows)
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows)
    table = data.packed.table
    groups = np.unique([table.groups[row] for row in rows[order]], return_inverse=True)[1].reshape(-1)
    of = {"sha256": about.sha256, "data": data.packed.fingerprint, "split": data.split.fingerprint, "part": FOLDS}
    logits, truth = (np.concatenate([getattr(part, what) for part in parts])[order] for what in ("logits", "truth"))
    names = tuple(table.names[row] for row in rows[order])
    found = Scored(logits, truth, groups, rows[order], names, parts[0].classes, of)
    return Validation(about, found, _on(data, found).model_copy(update={"part": FOLDS}))


def _counting(counter: Callable[[int, int], None] | None, before: int, total: int) -> Callable[[int, int], None]:
    return lambda done, _: counter(before + done, total) if counter else None


def _on(data: Data, found: Scored, study: str = "", trial: str = "") -> FittedOn:
    return FittedOn(
        data=data.packed.folder.name,
        fingerprint=data.packed.fingerprint,
        split=data.split.fingerprint,
        images=len(found.rows),
        patients=len(np.unique(found.groups)),
        study=study,
        trial=trial,
    )


def _expect_unseen(about: ModelManifest, data: Data) -> None:
    """Raises BadInput if a validation patient is one that the model was trained on."""
    seen = seen_among(about.trained_on, data, data.val.rows.tolist())
    if seen:
        raise BadInput(
            f"'{about.model}' was trained on {len(seen)} of the patients of the validation part of data set "
            f"'{data.packed.folder.name}', such as {min(seen)}: it can be calibrated on patients that it has not seen"
        )


def _of_trial(folder: Path, about: ModelManifest) -> Validation:
    from xlite_search.results.compare import open_study
    from xlite_search.trainable import config_of

    source = manifest_of(folder.parent / about.members[0]) if about.members else about
    study, key = (str(source.provenance.get(what, "")) for what in ("study", "trial"))
    what = f"model '{folder.name}' was trained on train+val, so that no validation image is left to calibrate it on"
    if not study or not key:
        raise BadInput(f"{what}, and it does not say of which trial it is; name another data set, --on NAME")
    try:
        run = next((run for run in open_study(study).runs() if run.key == key), None)
        if run is None:
            raise BadInput(f"study '{study}' has no trial {key}")
        kept = Predictions.load(run.predictions_path())
        config = config_of(run)
        data = open_data(config.data)
        if other := _other_settings(source.config, run.config):
            raise BadInput(f"its own settings are others ({', '.join(other)}), so that they say nothing of it")
    except XliteError as why:
        raise BadInput(f"{what}, and its trial's predictions are not to be had: {why}") from None
    weight = config.loss.pos_weight(data.train.positives, len(data.train))
    shift = np.zeros(len(data.classes)) if weight is None else np.log(weight.numpy())
    found = _scored(run, about, data, kept, shift)
    return Validation(about, found, _on(data, found, study, key))


def _other_settings(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Settings that make this model another than its trial's, but for those by which a final training goes as far."""
    same = {*FINAL, *NUISANCE}
    if (ours.get("schedule") or {}).get("name") == RECORDED:
        same.add("schedule")
    return [
        f"{name} {ours.get(name)}, the trial's {theirs[name]}"[:SHOWN]
        for name in theirs
        if name not in same and _bare(ours.get(name)) != _bare(theirs[name])
    ]


def _bare(value: Any) -> Any:
    """The data of a final training are fitted on more."""
    return {k: each for k, each in value.items() if k != "fit"} if isinstance(value, dict) else value


def _scored(run: RunRecord, about: ModelManifest, data: Data, kept: Predictions, shift: np.ndarray) -> Scored:
    """A trial's kept logits as the model's would be: log pos_weight undone, in the order of the part's rows."""
    names = tuple(data.packed.table.names[row] for row in data.val.rows)
    if kept.images != names or kept.classes != data.classes or about.classes != data.classes:
        raise BadInput(
            f"the kept predictions of trial {run.key} are of other images or findings than data set "
            f"'{data.packed.folder.name}' has now; prepare it as it was, or name another, --on NAME"
        )
    groups = np.unique([data.packed.table.groups[row] for row in data.val.rows], return_inverse=True)[1].reshape(-1)
    of = {"trial": run.key, "data": data.packed.fingerprint, "split": data.split.fingerprint, "part": "val"}
    logits = np.asarray(kept.logits - shift, np.float32)
    return Scored(logits, data.val.labels > 0, groups, data.val.rows, names, data.classes, of)

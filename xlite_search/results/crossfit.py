"""Cross-fit of an exported config: a model for each fold, and their ensemble.

Each member is judged by the fold of training and validation images that it has not seen; these out-of-fold logits
calibrate the ensemble, and no image is lost to validation. The test part stays as it is.

A student's teacher is trained anew for each fold, on the student's training images: the study's has seen the fold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xlite_search import model_folder, places
from xlite_search.config import RunConfig, run_key
from xlite_search.console import say
from xlite_search.data.dataset import DataSpec, open_data
from xlite_search.data.splits import CrossFit
from xlite_search.distill.teacher import write_ensemble
from xlite_search.errors import BadInput
from xlite_search.model_folder import ModelManifest, read_model, shared_patients
from xlite_search.records import RunRecord
from xlite_search.results.best import read_best
from xlite_search.results.final import config_of_final, finished, maker_of, trained
from xlite_search.spec import parse
from xlite_search.trainable import config_class, maker, trainable_at
from xlite_search.training import balance


def train_folds(
    path: Path, *, folds: int, settings: dict[str, Any], name: str | None = None
) -> tuple[Path, list[RunRecord]]:
    """Trains the best config once for each of so many folds; leaves a model folder of each, and of their ensemble.

    Raises as `train_final`; BadInput if fewer than two folds are asked for, or a teacher cannot be trained anew.
    """
    if not 2 <= folds <= 100:
        raise BadInput(f"--folds {folds}: a cross-fit has two folds at least, and 100 at most")
    document = read_best(path)
    config = config_of_final(path, document, "train", settings)
    splits = [CrossFit(of=_base(config.data), folds=folds, fold=fold) for fold in range(folds)]
    data = [config.data.model_copy(update={"split": split}) for split in splits]
    if config.kd:
        for own in data:
            _expect_teachable(config.kd.teacher, own)
    base = name or f"{document['study']}-{run_key(config, maker_of(document))}-folds{folds}"
    records = []
    for number, own in enumerate(data, start=1):
        say(f"member {number} of {folds}: validated by fold {number} of training and validation images")
        kd = config.kd.model_copy(update={"teacher": fold_teacher(config.kd.teacher, own)}) if config.kd else None
        member = config.model_copy(update={"data": own, "kd": kd})
        records.append(trained(document, member, f"{base}-fold{number}"))
    folder = places.model_folder(base)
    fitted = config.data.model_copy(update={"split": _base(config.data), "fit": "train+val"})
    model_folder.write_ensemble(folder, [record.folder.name for record in records], fitted)
    return folder, records


def _base(data: DataSpec) -> Any:
    return data.split.of if isinstance(data.split, CrossFit) else data.split


def fold_teacher(key: str, data: DataSpec) -> str:
    """A teacher, or an ensemble of these, as it would be had it been trained on these data; returns its key.

    One from elsewhere of which it is not known whom it was trained on is the same for every fold.

    Raises:
        BadInput: it has seen patients that the student is judged by, and cannot be trained anew.
    """
    about = read_model(places.teacher_folder(key))
    if about.members:
        return write_ensemble([fold_teacher(member, data) for member in about.members])
    if not shared_patients(about.trained_on, open_data(data)):
        return key
    config, where = _own_config(key, about)
    config = config.model_copy(update={"data": data.model_copy(update={"fraction": config.data.fraction})})
    trainable = trainable_at(where)
    key = run_key(config, maker(trainable))
    folder = places.teacher_folder(key)
    if not model_folder.exists(folder):
        say(f"its teacher {config.model}, trained without that fold:")
        _train_teacher(folder, config, where)
    return key


def _expect_teachable(key: str, data: DataSpec) -> None:
    """Before anything is trained: as `fold_teacher` raises."""
    about = read_model(places.teacher_folder(key))
    for member in about.members:
        _expect_teachable(member, data)
    if not about.members and shared_patients(about.trained_on, open_data(data)):
        _own_config(key, about)


def _own_config(key: str, about: ModelManifest) -> tuple[RunConfig, str]:
    """The config that a teacher was trained by, and its trainable. Raises BadInput if it was not trained here."""
    where, _, _ = str(about.provenance.get("trained_by", "")).rpartition(" ")
    if about.run and where:
        config = parse(config_class(trainable_at(where)), about.config, f"teacher {key}: config.")
        if config.kd is None:
            return config, where
    raise BadInput(
        f"--folds: teacher {key} was trained on patients that a fold judges its student by, and cannot be trained anew "
        f"without them, for no study trained it; leave --folds out, or give the study a teacher to train"
    )


def _train_teacher(folder: Path, config: RunConfig, where: str) -> None:
    if (folder / "run.json").exists():
        record = RunRecord.load(folder)
    else:
        tree, settings = config.model_dump(mode="json"), {"model": config.model}
        label = f"teacher {config.model}"
        record = RunRecord(folder, folder.name, "teacher", label, settings, tree, batchwise=config.batchwise).save()
        balance.write_artifacts(folder, config.sampler, config.loss, open_data(config.data))
    finished(record, config, where, places.TEACHERS, config.monitor)

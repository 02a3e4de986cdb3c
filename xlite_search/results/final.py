"""Final training of an exported config: a model folder, or an ensemble over several seeds, with their MLflow runs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from xlite_search import model_folder, places, progress, provenance
from xlite_search.config import RunConfig, fingerprints, run_key
from xlite_search.console import EpochLine, say
from xlite_search.data.dataset import open_data
from xlite_search.errors import BadInput
from xlite_search.execution import drive, release_memory
from xlite_search.model_folder import expect_loadable, publish, read_model, shared_patients
from xlite_search.places import FINAL
from xlite_search.records import RunRecord
from xlite_search.results.best import read_best
from xlite_search.spec import parse
from xlite_search.storage import alone
from xlite_search.tracking.recorder import Recorder
from xlite_search.trainable import code_of, config_class, config_name, maker, trainable_at
from xlite_search.training import balance
from xlite_search.training.optim import Plateau, Recorded


def final_config(
    document: dict[str, Any], split: str, settings: dict[str, Any], where: str, own: type[RunConfig] = RunConfig
) -> RunConfig:
    """The config of the final training.

    On train+val nothing is left to choose an epoch by: it trains for as many epochs as the best epoch of the trial, on
    the learning rates of the trial (a plateau's decisions are taken from its record). Whoever sets `epochs` gets those.
    """
    config = parse(own, document["config"], f"{where}: config.")
    if split == "train+val":
        schedule = config.schedule
        if isinstance(schedule, Plateau):
            first = document["learning_rates"][0]
            if not math.isclose(first, config.optimizer.lr):
                raise BadInput(
                    f"{where}: config.optimizer.lr is {config.optimizer.lr:g}, and the trial began with {first:g}, at "
                    f"which the plateau's decisions were made; say --set optimizer.lr={config.optimizer.lr:g} instead"
                )
            schedule = Recorded(factors=tuple(rate / config.optimizer.lr for rate in document["learning_rates"]))
        until = None if "epochs" in settings else document["best_epoch"]
        changed = {"early_stopping": None, "stop_after": until, "schedule": schedule}
        config = config.model_copy(update=changed | {"data": config.data.model_copy(update={"fit": "train+val"})})
    return config.with_settings(settings).resolved()


def train_final(path: Path, *, split: str, settings: dict[str, Any], name: str | None = None) -> RunRecord:
    """Trains the best config again, or goes on with it, and leaves a model folder and an MLflow run.

    Raises:
        BadInput: the file, the data, the split, the weights or the teacher are not what the study had; or the trainable
            gives weights that are not the config's model's.
        RunFailed: the training failed.
    """
    document = read_best(path)
    config = config_of_final(path, document, split, settings)
    return trained(document, config, name or f"{document['study']}-{run_key(config, maker_of(document))}")


def config_of_final(path: Path, document: dict[str, Any], split: str, settings: dict[str, Any]) -> RunConfig:
    """The config of the final training of a `best.yaml`.

    Raises BadInput: the data, the split, the weights or the teacher are not what the study had, or the teacher knows
    the patients that other data would have it judged by.
    """
    if split not in ("train", "train+val"):
        raise BadInput(f"--split {split}: expected train or train+val")
    own = config_class(trainable_at(document["trainable"]))
    config = final_config(document, split, settings, str(path), own)
    _expect_the_same(document, config, settings, path)
    return config


def maker_of(document: dict[str, Any]) -> str:
    """Who made the study's runs, by today's code."""
    return maker(trainable_at(document["trainable"]))


def trained(document: dict[str, Any], config: RunConfig, name: str) -> RunRecord:
    """Trains a config of `config_of_final`, or goes on with it; leaves the model folder of that name."""
    trainable = trainable_at(document["trainable"])
    code = code_of(trainable).version
    if code != document["code"]["version"]:
        say("The code has changed since this config was found: expect another score than the study's")
    record = _record(places.model_folder(name), config, document, code)
    found = {k: document[k] for k in ("study", "trial", "label", "metric", "score", "best_epoch", "code")}
    return finished(record, config, document["trainable"], FINAL, document["metric"], found)


def finished(
    record: RunRecord, config: RunConfig, where: str, experiment: str, metric: str, found: dict[str, Any] | None = None
) -> RunRecord:
    """Trains a run to its end in this process, or goes on with it, and makes it a model folder.

    where       its trainable
    experiment  MLflow's, that it is recorded in
    metric      shown after every epoch
    found       what the manifest's provenance says beside what trained it
    """
    trainable, folder, line = trainable_at(where), record.folder, EpochLine(config.epochs)
    data = open_data(config.data)
    data.packed.verify()
    with alone(folder, f"the training in {folder}"), Recorder(experiment) as recorder, progress.listening(line):
        while not record.over:
            for after_epoch in drive(record, trainable, config):
                starved = after_epoch.status == "waiting"
                if len(after_epoch.epochs) == 1 and not starved:
                    expect_loadable(after_epoch, len(data.classes))  # it would be refused in the end
                line.end(f"  {after_epoch.cause}" if starved else _line(after_epoch, metric))
                recorder.sync(after_epoch)
            record = record.reload()
            if record.status != "waiting":
                break
            release_memory()
        recorder.sync(record)
        if not model_folder.exists(folder):
            made = provenance.of_training(maker(trainable))
            publish(folder, record, config.loss, data, (found or {}) | made)
            recorder.sync(record)  # a model now, with its files
    return record


def train_seeds(
    path: Path, *, split: str, settings: dict[str, Any], seeds: int, name: str | None = None
) -> tuple[Path, list[RunRecord]]:
    """Trains the best config with so many seeds, the trial's own and those behind it; leaves a model folder of each,
    and of the ensemble that gives the mean of their logits.

    Raises as `train_final`; BadInput if fewer than two seeds are asked for.
    """
    if seeds < 2:
        raise BadInput(f"--seeds {seeds}: an ensemble has two members at least; leave it out to train one model")
    document = read_best(path)
    config = config_of_final(path, document, split, settings)
    base = name or f"{document['study']}-{run_key(config, maker_of(document))}-of{seeds}"
    records = []
    for number, seed in enumerate(range(config.seed, config.seed + seeds), start=1):
        say(f"member {number} of {seeds}: seed {seed}")
        records.append(trained(document, config.model_copy(update={"seed": seed}), f"{base}-seed{seed}"))
    folder = places.model_folder(base)
    model_folder.write_ensemble(folder, [record.folder.name for record in records])
    return folder, records


def _record(folder: Path, config: RunConfig, document: dict[str, Any], code: str) -> RunRecord:
    """The training's record, begun or gone on with. Its key is its name: one MLflow run per model folder.

    Raises:
        BadInput: the folder holds the training of another config, or one by other code.
    """
    tree = config.model_dump(mode="json")
    if not (folder / "run.json").exists():
        label = f"{document['label']} in {document['study']}, on {config.data.fit}"
        settings = {"study": document["study"], "trial": document["trial"], "data.fit": config.data.fit, "code": code}
        balance.write_artifacts(folder, config.sampler, config.loss, open_data(config.data))
        record = RunRecord(folder, folder.name, "final", label, settings, tree, batchwise=config.batchwise)
        return replace(record, config_class=config_name(type(config))).save()
    record = RunRecord.load(folder)
    if record.config != tree:
        raise BadInput(f"{folder} holds another training ({record.label}); give this one a --name of its own")
    if record.settings.get("code") != code:
        raise BadInput(f"{folder} holds a training by other code than today's; give this one a --name of its own")
    if record.status == "failed":
        record = replace(record, status="running")
    return record


def _expect_the_same(document: dict[str, Any], config: RunConfig, settings: dict[str, Any], path: Path) -> None:
    """The data, split and weights that the score was reached with, unless --set asks for others."""
    if not any(name.startswith("data.") for name in settings):
        here = fingerprints(config)
        for what in ("data", "split"):
            if here[what] != document["data"]["fingerprint" if what == "data" else "split"]:
                raise BadInput(
                    f"{path}: the {what} of data set '{config.data.name}' is not the one that the study had; prepare "
                    f"it as it was, or say --set data.name=... to train on other data"
                )
    was = document["config"]["weights"]
    if was and config.weights and "weights" not in settings and config.weights.sha256 != was["sha256"]:
        raise BadInput(f"{path}: {config.weights.path} is not the weights file that the study had (another sha256)")
    if config.kd and read_model(places.teacher_folder(config.kd.teacher)).sha256 != document["teacher_sha256"]:
        raise BadInput(f"{path}: teacher {config.kd.teacher} was trained again; its students would differ")
    if config.kd and any(name.startswith("data.") for name in settings):
        seen = read_model(places.teacher_folder(config.kd.teacher)).trained_on
        if shared := shared_patients(seen, open_data(config.data)):
            raise BadInput(
                f"{path}: teacher {config.kd.teacher} was trained on {len(shared):,} of the patients that its student "
                f"would be judged by on these data ({', '.join(shared[:3])}, ...); keep the study's split"
            )


def _line(record: RunRecord, metric: str) -> str:
    last = record.epochs[-1]
    score = f", {metric} {last[metric]:.4f}" if metric in last else ""
    until = record.config["stop_after"] or record.config["epochs"]
    return (
        f"  epoch {len(record.epochs)} of {until}: loss {last['train/loss']:.4f}{score}, {last['time/epoch_s']:.1f} s"
    )

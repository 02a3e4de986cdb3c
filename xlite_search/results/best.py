"""Best config: exported from a study with its provenance, and trained as the final model.

`best.yaml` holds the whole resolved config, where it comes from, and what it must find to be itself: fingerprints of
data and split, the teacher's sha256. The final training refuses to start on anything else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, create_model

from xlite_search import model_folder, places, progress, provenance, storage, written
from xlite_search.config import RunConfig, fingerprints, run_key
from xlite_search.console import EpochLine, say
from xlite_search.data.dataset import open_data
from xlite_search.errors import BadInput
from xlite_search.execution import drive
from xlite_search.model_folder import expect_loadable, publish, read_model
from xlite_search.places import FINAL
from xlite_search.records import RunRecord
from xlite_search.results.compare import Comparison, compare, open_study
from xlite_search.results.paired import seed_of
from xlite_search.spec import Spec, parse
from xlite_search.storage import alone
from xlite_search.tracking.recorder import Recorder
from xlite_search.tracking.store import find_run
from xlite_search.trainable import code_of, config_class, config_name, maker, trainable_at
from xlite_search.training import balance
from xlite_search.training.optim import Plateau, Recorded

HEADER = """\
# The best run of study {study}: {label}
# Final training:  python -m xlite_search train {file}
# The same run again, to the last digit on the same CPU:  python -m xlite_search train {file} --split train
"""


class _Data(Spec):
    name: str
    fingerprint: str
    split: str


class _Code(Spec):
    version: str
    commit: str


class _Chosen(Spec):
    """How the config was chosen: by its score, or by the mean over seeds, or folds (0: of one split); of so many;
    unknown is null.

    unfinished runs that were not over, one of which may be better yet
    low, high  95 % interval of the mean, or of the score; `corrected` is what it is worth, had it not been chosen
    """

    by: Literal["score", "mean over seeds", "mean over folds"]
    of: int = Field(ge=1)
    seeds: int = Field(1, ge=1)
    folds: int = Field(0, ge=0)
    unfinished: int = Field(0, ge=0)
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    corrected: float | None = None


class _Best(Spec):
    """What `best.yaml` has to hold, and of which types."""

    study: str
    trial: str
    label: str
    trainable: str
    metric: str
    score: float
    best_epoch: int = Field(ge=1)
    epochs: int
    mlflow_run: str | None
    data: _Data
    teacher_sha256: str
    code: _Code
    learning_rates: tuple[float, ...]
    chosen: _Chosen | None = None
    config: RunConfig


def best(study_name: str) -> dict[str, Any]:
    """The best config and its provenance, as plain values.

    Raises:
        BadInput: there is no such study, or no run of it was trained to its end.
    """
    study, comparison = open_study(study_name), compare([study_name])
    run = comparison.best
    assert run.best is not None
    return {
        "study": study_name,
        "trial": run.key,
        "label": run.label,
        "trainable": study.trainable,
        "metric": comparison.metric,
        "score": run.best_score(comparison.metric),
        "best_epoch": run.best.epoch,
        "epochs": len(run.epochs),
        "mlflow_run": find_run(study_name, run.key),
        "data": {"name": run.config["data"]["name"], **_pinned(study.definition)},
        "teacher_sha256": study.teacher_sha256 if run.config["kd"] else "",
        "code": {"version": study.definition["code"], "commit": study.commit},
        "learning_rates": run.metric("train/lr"),
        "chosen": _chosen(comparison),
        "config": run.config,
    }


def _chosen(comparison: Comparison) -> dict[str, Any]:
    """What `_Chosen` says."""
    claims, unfinished = comparison.claims, sum(not run.over for run in comparison.others)
    if claims is None:
        return _Chosen(by="score", of=len(comparison.ranked), unfinished=unfinished).model_dump()
    best = comparison.best.key
    arm = next(arm for arm in claims.arms if best in [run.key for run in arm.runs])
    recipe = claims.about == "recipe"
    known = {"mean": arm.score, "sd": arm.spread, "low": arm.interval.low, "high": arm.interval.high}
    known |= {"corrected": claims.winner.corrected}
    finite = {name: value if math.isfinite(value) else None for name, value in known.items()}
    by: Literal["score", "mean over seeds", "mean over folds"] = "mean over seeds" if recipe else "score"
    by, seeds = ("mean over folds", len(set(map(seed_of, arm.runs)))) if claims.folds else (by, len(arm.runs))
    return _Chosen(by=by, of=claims.of, seeds=seeds, folds=claims.folds, unfinished=unfinished, **finite).model_dump()


def write_best(study_name: str, path: Path) -> dict[str, Any]:
    """Writes `best.yaml`; returns what is in it."""
    found = best(study_name)
    header = HEADER.format(study=study_name, label=found["label"], file=path.name)
    storage.write_atomic(path, (header + written.dumped(found)).encode())
    return found


def read_best(path: Path) -> dict[str, Any]:
    """Raises BadInput if it cannot be read or is not what `best` wrote."""
    try:
        text = path.read_text(encoding="utf-8")
        document = written.document(text, _Best)
    except OSError as error:
        raise BadInput(
            f"{path}: {error.strerror}; export one with `python -m xlite_search best STUDY -o {path}`"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        at = "" if line is None else f", line {line + 1}"
        raise BadInput(f"{path}{at}: not valid YAML") from None
    needed = [name for name, field in _Best.model_fields.items() if field.is_required()]
    missing = [name for name in needed if not isinstance(document, dict) or name not in document]
    if missing:
        raise BadInput(f"{path}: no '{missing[0]}' in it; export it with `python -m xlite_search best STUDY -o {path}`")
    own = config_in(document)
    spec = create_model("_Best", __base__=_Best, config=(own, ...))
    if own is not RunConfig:
        document = written.document(text, spec)  # its numbers and words are read by its own types
    return parse(spec, document, f"{path}: ").model_dump() | {"config": document["config"]}


def config_in(document: Mapping[str, Any]) -> type[RunConfig]:
    """The class of the config that `best.yaml` holds: what its trainable asks for. Raises as `trainable_at`."""
    return config_class(trainable_at(str(document["trainable"])))


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
    if split not in ("train", "train+val"):
        raise BadInput(f"--split {split}: expected train or train+val")
    trainable = trainable_at(document["trainable"])
    config = final_config(document, split, settings, str(path), config_class(trainable))
    _expect_the_same(document, config, settings, path)
    code = code_of(trainable).version
    if code != document["code"]["version"]:
        say("The code has changed since this config was found: expect another score than the study's")
    data = open_data(config.data)
    data.packed.verify()
    folder = places.model_folder(name or f"{document['study']}-{run_key(config, maker(trainable))}")
    record = _record(folder, config, document, code)
    line = EpochLine(config.epochs)
    with alone(folder, f"the training in {folder}"), Recorder(FINAL) as recorder, progress.listening(line):
        if not record.over:
            for after_epoch in drive(record, trainable, config):
                if len(after_epoch.epochs) == 1:
                    expect_loadable(after_epoch, len(data.classes))  # it would be refused in the end
                line.end(_line(after_epoch, document["metric"]))
                recorder.sync(after_epoch)
        record = record.reload()
        recorder.sync(record)
        if not model_folder.exists(folder):
            found = {k: document[k] for k in ("study", "trial", "label", "metric", "score", "best_epoch", "code")}
            publish(folder, record, config.loss, data, found | provenance.of_training(maker(trainable)))
            recorder.sync(record)  # a model now, with its files
    return record


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


def _pinned(definition: dict[str, Any]) -> dict[str, str]:
    return {"fingerprint": definition["data"], "split": definition["split"]}


def _line(record: RunRecord, metric: str) -> str:
    last = record.epochs[-1]
    score = f", {metric} {last[metric]:.4f}" if metric in last else ""
    until = record.config["stop_after"] or record.config["epochs"]
    return (
        f"  epoch {len(record.epochs)} of {until}: loss {last['train/loss']:.4f}{score}, {last['time/epoch_s']:.1f} s"
    )

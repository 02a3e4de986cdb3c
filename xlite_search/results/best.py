"""Best config: exported from a study with its provenance.

`best.yaml` holds the whole resolved config, where it comes from, and what it must find to be itself: fingerprints of
data and split, the teacher's sha256. The final training refuses to start on anything else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, create_model

from xlite_search import storage, written
from xlite_search.config import RunConfig, fingerprints
from xlite_search.errors import BadInput
from xlite_search.records import RunRecord
from xlite_search.results.compare import Comparison, compare, open_study
from xlite_search.results.paired import fold_of, seed_of
from xlite_search.spec import Spec, parse
from xlite_search.tracking.store import find_run
from xlite_search.trainable import config_class, config_of, trainable_at

HEADER = """\
# Of study {study}, {how}: {label}
# Final training, the same run to the last digit on the same CPU:  python -m xlite_search train {file}
# On the validation part too, which then can calibrate nothing:   python -m xlite_search train {file} --split train+val
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
        "data": {"name": run.config["data"]["name"], **_pinned(study.definition, run)},
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
    return _Chosen(
        by=by, of=claims.of, seeds=seeds, folds=len(claims.folds), unfinished=unfinished, **finite
    ).model_dump()


def write_best(study_name: str, path: Path) -> dict[str, Any]:
    """Writes `best.yaml`; returns what is in it."""
    found = best(study_name)
    chosen = found["chosen"]["by"]
    how = "the run that scored best" if chosen == "score" else f"the usual run of the setting with the best {chosen}"
    header = HEADER.format(study=study_name, how=how, label=found["label"], file=path.name)
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


def _pinned(definition: dict[str, Any], run: RunRecord) -> dict[str, str]:
    """Fingerprints of the data and the split: the study's; of a fold, which is a split of its own, the data's here."""
    here = definition if fold_of(run) is None else fingerprints(config_of(run))
    return {"fingerprint": here["data"], "split": here["split"]}

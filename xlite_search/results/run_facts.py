"""Our own runs as plain values for the guard: resolved configs, and what their records and artifacts tell of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xlite_search.errors import XliteError
from xlite_search.provenance import RESULT_LIBRARIES
from xlite_search.records import ARTIFACTS, RunRecord
from xlite_search.results.confounders import RunFacts
from xlite_search.results.pairs import Law, Pairs, pairs_of
from xlite_search.results.roles import FINISHED
from xlite_search.results.ties import MARGIN
from xlite_search.spec import flatten
from xlite_search.study_record import StudyRecord
from xlite_search.trainable import config_of

if TYPE_CHECKING:
    from xlite_search.results.compare import Comparison


def study_pairs(comparison: Comparison, factors: Sequence[str] = ()) -> Pairs:
    """The pairs of the runs that are ranked, with intervals of those that the comparison has claims about.

    Raises BadInput if no run has one of the factors.
    """
    margin = comparison.claims.margin if comparison.claims else MARGIN
    facts, law = of_comparison(comparison), law_of(comparison)
    return pairs_of(facts, comparison.metric, factors=factors, law=law, margin=margin)


def of_comparison(comparison: Comparison, most: int | None = None) -> list[RunFacts]:
    """The ranked runs of the studies that are compared, or the first of them, called as its tables call them."""
    ranked = comparison.ranked[:most]
    names = dict(zip((run.folder for run in ranked), comparison.labels(ranked), strict=True))
    found: dict[Path, RunFacts] = {}
    for home in dict.fromkeys(run.folder.parents[1] for run in ranked):  # a copied folder has its former name inside
        study = StudyRecord.load(home)
        runs = [run for run in ranked if run.folder.parents[1] == home]
        facts = facts_of(study, runs, [names[run.folder] for run in runs])
        found |= dict(zip((run.folder for run in runs), facts, strict=True))
    return [found[run.folder] for run in ranked]


def law_of(comparison: Comparison) -> Law | None:
    """The joint law of the AUROCs of the runs that the comparison has claims about, by the names of its tables."""
    claims = comparison.claims
    if claims is None or claims.law is None:
        return None
    number = dict(zip(claims.own, range(len(claims.law.covariance)), strict=False))
    named = zip(comparison.labels(comparison.ranked), comparison.ranked, strict=True)
    place = {name: number[run.key] for name, run in named if run.key in number}
    return Law(place, np.array([claims.own[key].value for key in number]), claims.law)


def facts_of(study: StudyRecord, runs: Sequence[RunRecord], names: Sequence[str] = ()) -> list[RunFacts]:
    """Runs of a study with the scores of their best epochs, `[run]`; `names` are what to call them, else their labels.

    The best of those that were trained to their end was chosen from all of these.
    """
    swept = tuple(dict.fromkeys(name for run in runs for name in run.settings))
    ended = [run for run in runs if run.status == FINISHED]
    best = max(ended, key=lambda run: run.best_score(study.metric), default=None)
    found = []
    for run, name in zip(runs, names or [run.label for run in runs], strict=True):
        provenance = _provenance(study, run) | {"chosen_from": len(ended) if run is best else 1}
        scores = run.epochs[run.best.epoch - 1] if run.best else {}
        settings = _settings(run, provenance)
        if (images := provenance.pop("images", 0)) and settings.get("batch_size"):
            provenance["steps"] = len(run.epochs) * max(1, images // int(settings["batch_size"]))
        found.append(RunFacts(name, settings, provenance, scores, swept=swept, command=study.command))
    return found


def _settings(run: RunRecord, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved config, and of it what took effect: images at once as they were, fp32 on a CPU."""
    try:
        config = config_of(run).model_dump(mode="json")
    except XliteError:  # of a version with other settings
        config = run.config
    settings = flatten(config)
    at_once, batch = run.micro_batch or settings.get("micro_batch"), settings.get("batch_size")
    settings["micro_batch"] = at_once if at_once and batch and at_once < batch else None
    return settings | ({"precision": "fp32"} if provenance.get("device") == "cpu" else {})


def _provenance(study: StudyRecord, run: RunRecord) -> dict[str, Any]:
    known: dict[str, Any] = {
        "study": study.name,
        "status": run.status,
        "epochs_done": len(run.epochs),
        "fingerprint.data": study.definition.get("data"),
        "fingerprint.split": study.definition.get("split"),
        "code": _code(study, run),
    }
    if run.config.get("kd"):
        known["teacher.sha256"] = study.teacher_sha256
    known |= dict(_environment(run))
    return {name: value for name, value in known.items() if value not in (None, "")}


def _code(study: StudyRecord, run: RunRecord) -> str:
    """Who made a run: the trainable and the code that the study began with, and the versions of the code that were
    accepted before it was over."""
    made_by = study.maker or str(study.definition.get("code", ""))
    later = [accepted for accepted in study.accepted if not run.ended or run.ended > float(accepted["time"])]
    codes = dict.fromkeys(str(accepted["code"]) for accepted in later if accepted.get("code"))
    return "; ".join([made_by, *(code for code in codes if code not in made_by.split())])


def _environment(run: RunRecord) -> Iterator[tuple[str, Any]]:
    """What `environment.json` tells, with the number of training images; nothing where there is none. Of a run that
    went on elsewhere both machines are told."""
    try:
        about = json.loads((run.folder / ARTIFACTS / "environment.json").read_bytes())
        machines, images = [start["machine"] for start in about["starts"]], int(about["run"]["images"]["train"])
    except (OSError, ValueError, KeyError, TypeError):
        return

    def told(name: str) -> str:
        return ", ".join(dict.fromkeys(str(machine.get(name, "unknown")) for machine in machines))

    yield "images", images
    yield "device", ", ".join(dict.fromkeys("cpu" if m.get("gpu") == "none" else "gpu" for m in machines))
    yield "gpu", told("gpu")
    yield "cpu", told("cpu_capability")
    for name in RESULT_LIBRARIES:
        yield f"library.{name}", told(name)

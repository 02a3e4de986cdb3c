"""Facts of a model card, as JSON: what lies in a model's folder, its data, its study and the ledger of looks.

Nothing is computed here but counts and sums. What is missing is a sentence under `missing` that names the verb which
makes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xlite_search.data.stratify import balance
from xlite_search.deploy.card_commands import is_crossfit, reproduce
from xlite_search.deploy.card_cost import cost
from xlite_search.deploy.card_limits import limits
from xlite_search.deploy.card_reached import calibration, evaluations, localisation, looks
from xlite_search.deploy.delivered import Delivered, verb
from xlite_search.deploy.weights import reads_with
from xlite_search.evaluation.reliability import ASSESSABLE
from xlite_search.evaluation.subgroups import attributes
from xlite_search.evaluation.thresholds import Thresholds, needed
from xlite_search.model_folder import read_model
from xlite_search.records import ARTIFACTS
from xlite_search.results.inference import CONFIDENCE
from xlite_search.training.metrics import SUPPORT

HEADINGS = "Mitchell et al. 2019, Model Cards; Garbin and Marques 2022, cards of ChestX-ray8 and CheXNet"
#: that loads a model folder; an exported one has what `reads_with` says
OWN_LIBRARY = "xlite_search"
FIGURES = {name: Path(ARTIFACTS) / "calibration" / name for name in ("reliability.svg", "net_benefit.svg")}


def facts(of: Delivered) -> dict[str, Any]:
    """All that the card says; numbers are as their source has them."""
    found: dict[str, Any] = {
        "format": 1,
        "headings": HEADINGS,
        "confidence": CONFIDENCE,
        "support": SUPPORT,
        "assessable_from": ASSESSABLE,
        "model": _model(of),
        "answers": _answers(of),
        "data": _data_facts(of),
        "search": _search(of),
        "evaluations": evaluations(of),
        "looks": looks(of),
        "calibration": calibration(of),
        "localisation": localisation(of),
        "cost": cost(of),
    }
    found |= {"reproduce": reproduce(of, found), "missing": of.missing}
    return found | {"limits": list(limits(found))}


def _model(of: Delivered) -> dict[str, Any]:
    about, config = of.about, of.first.config
    kd, weights = config.get("kd") or {}, config.get("weights")
    trained = {
        name: config.get(name) for name in ("loss", "sampler", "augment", "epochs", "batch_size") if name in config
    }
    return {
        "name": of.folder.name,
        "hybrid": about.model,
        "library": reads_with(about.model, len(about.members) or 1) if of.exported else OWN_LIBRARY,
        "members": list(about.members),
        "findings": list(about.classes),
        "finding_count": len(about.classes),
        "parameters": about.parameters,
        "sha256": about.sha256,
        "best_epoch": of.first.best_epoch,
        "seeds": [read_model(folder).config.get("seed") for folder in of.folders],
        "pos_weight": about.pos_weight is not None or of.first.pos_weight is not None,
        "from_elsewhere": not of.first.run,
        "teacher": {name: kd.get(name) for name in ("teacher", "tau", "alpha")} if kd else None,
        "started_from": {"sha256": weights.get("sha256")} if isinstance(weights, Mapping) else None,
        "training": trained,
        "monitor": config.get("monitor", ""),
    }


def _answers(of: Delivered) -> dict[str, Any]:
    name, found = of.folder.name, of.thresholds
    if of.calibration is None:
        told = "It is not calibrated: its probabilities are the sigmoid of its logits."
        of.missing["calibration"] = f"{told} {verb(f'calibrate {name}')} calibrates it."
    if found is None:
        of.missing["thresholds"] = (
            f"It has no thresholds and decides nothing. {verb(f'calibrate {name}')} chooses them."
        )
    return {
        "preprocess": dict(of.about.input),
        "rule": found.decides if found else "",
        "at_least": found.at_least if found else None,
        "patients_needed": needed(found.at_least) if found else None,
        "thresholds": list(_thresholds(found)) if found else [],
        "thresholds_hash": of.judged["thresholds"],
    }


def _thresholds(found: Thresholds) -> Iterator[dict[str, Any]]:
    """What each finding is decided by, with the rule of it; `refused` says why there is none, or not the usual one."""
    for row, rule in zip(found.findings, found.deciding()[1], strict=True):
        plain = row.model_dump(mode="json", exclude={"net_benefit"})
        about = {name: plain[name] for name in ("finding", "positives", "positive_patients", "refused")}
        yield about | {"by": rule, "threshold": plain[rule] if rule else None}


def _data_facts(of: Delivered) -> dict[str, Any]:
    about = of.about
    config, seen = about.config.get("data") or {}, about.trained_on
    source = seen.source if seen else of.data.packed.manifest["source"] if of.data else None
    found: dict[str, Any] = {
        "name": about.data.name if about.data else config.get("name", ""),
        "fingerprint": about.data.fingerprint if about.data else "",
        "split_fingerprint": about.data.split if about.data else "",
        "source": source.get("source", "") if isinstance(source, Mapping) else "",
        "patients_trained_on": len(seen.patients) if seen else None,
        "fit": config.get("fit", ""),
        "folds": len(about.members) if is_crossfit(of) else None,
        "fraction": config.get("fraction"),
        "split": config.get("split"),
        "notice": about.notice,
    }
    if of.data is None:
        of.missing["data"] = (
            f"How many images each part has is not told, for its data are not here ({of.why}). "
            f"{verb('prepare NAME --images DIR --labels CSV')} makes them."
        )
        return found
    table, rows = of.data.packed.table, {name: each for name, each in of.data.split.rows.items() if len(each)}
    known = attributes(table, of.data.train.rows) if of.first.run else {}
    return found | {
        "parts": balance(table, rows)["parts"],
        "fitted_images": len(of.data.train),
        "fitted_positives": dict(
            zip(of.data.classes, of.data.train.labels.sum(axis=0).astype(int).tolist(), strict=True)
        ),
        "fitted_attributes": {
            name: {key: int(each.sum()) for key, each in members.items()} for name, members in known.items()
        },
        "incomplete": of.data.packed.incomplete,
        "images": len(of.data.packed),
    }


def _search(of: Delivered) -> dict[str, Any] | None:
    made = of.first.provenance
    if not made.get("study"):
        of.missing["search"] = (
            "It is not the choice of a study that is known here: how many others were tried is not known."
        )
        return None
    found = {name: made.get(name) for name in ("study", "trial", "label", "metric", "score", "best_epoch")}
    best, why = of.best
    if best is None:
        again = verb(f"best {found['study']}")
        of.missing["search"] = (
            f"Of how many trials it was chosen is not told: {why}. {again} tells, where the study is."
        )
    return found | {"chosen": dict(best["chosen"]) if best else None}

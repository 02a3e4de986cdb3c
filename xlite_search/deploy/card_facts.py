"""Facts of a model card, as JSON: what lies in a model's folder, its data, its study and the ledger of looks.

Nothing is computed here but counts and sums. What is missing is a sentence under `missing` that names the verb which
makes it; what belongs to another state of the model (it was calibrated anew, say) counts as missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xlite_search import __version__
from xlite_search.data.dataset import Data
from xlite_search.data.stratify import balance
from xlite_search.deploy.card_limits import limits
from xlite_search.deploy.folder import ONNX, WEIGHTS, ExportManifest
from xlite_search.errors import Damaged, XliteError
from xlite_search.evaluation.calibration import Calibration, read_calibration
from xlite_search.evaluation.explained import in_order, kept
from xlite_search.evaluation.looks import Look, looks
from xlite_search.evaluation.reliability import ASSESSABLE
from xlite_search.evaluation.scored import data_of
from xlite_search.evaluation.subgroups import attributes
from xlite_search.evaluation.thresholds import Thresholds, needed, read_thresholds
from xlite_search.model_folder import ModelManifest, read_model
from xlite_search.records import ARTIFACTS, RunRecord
from xlite_search.results.inference import CONFIDENCE
from xlite_search.spec import parse
from xlite_search.training.metrics import SUPPORT

HEADINGS = "Mitchell et al. 2019, Model Cards; Garbin and Marques 2022, cards of ChestX-ray8 and CheXNet"
EVALUATIONS = Path(ARTIFACTS) / "evaluation"
#: what a file has to have to be read
EVALUATED = {"on", "look", "images", "patients", "macro", "findings", "unjudged", "moved", "success", "notes"} | {
    *("subgroups", "gaps", "within_projections"),
}
EXPLAINED = {"model", "data", "method", "localisation", "notes"}
FIGURES = {name: Path(ARTIFACTS) / "calibration" / name for name in ("reliability.svg", "net_benefit.svg")}


@dataclass(frozen=True)
class Delivered:
    """A model folder with what is read of it once; `data` is None where its data are not here, `why` says so.

    about     of an ensemble its own; `first` is then its first member's, else the same
    exported  and `home` are what `export` is writing, if it is
    """

    folder: Path
    about: ModelManifest
    first: ModelManifest
    calibration: Calibration | None
    thresholds: Thresholds | None
    data: Data | None
    why: str = ""
    exported: ExportManifest | None = None
    home: Path | None = None
    missing: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, exported: ExportManifest | None = None, home: Path | None = None) -> Delivered:
        """Raises BadInput or Damaged as the readers of a model folder's files do."""
        about = read_model(folder)
        first = read_model(folder.parent / about.members[0]) if about.members else about
        data, why = _data(about)
        found = read_calibration(folder), read_thresholds(folder)
        return cls(folder, about, first, *found, data, why, exported, home)

    @property
    def judged(self) -> dict[str, str]:
        """The hashes that `evaluate` writes with its figures."""
        hashes = {"calibration": self.calibration, "thresholds": self.thresholds}
        return {"sha256": self.about.sha256} | {name: each.hash if each else "" for name, each in hashes.items()}

    @property
    def folders(self) -> list[Path]:
        """Of the trainings: its own, or its members'."""
        return [self.folder.parent / name for name in self.about.members] or [self.folder]


def verb(rest: str) -> str:
    """A command as a sentence has it."""
    return f"`python -m xlite_search {rest}`"


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
        "evaluations": _evaluations(of),
        "looks": _looks(of),
        "calibration": _calibration(of),
        "localisation": _localisation(of),
        "cost": _cost(of),
        "reproduce": _reproduce(of),
    }
    found |= {"missing": of.missing}
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


def _data(about: ModelManifest) -> tuple[Data | None, str]:
    """The model's data as it was trained on them, or why there are none."""
    try:
        data = data_of(about)
    except (XliteError, OSError) as error:
        return None, str(error)
    same = about.data is None or (data.packed.fingerprint, data.split.fingerprint) == (
        about.data.fingerprint,
        about.data.split,
    )
    return (
        (data, "")
        if same
        else (None, "the data set of this name is not the one that it was trained on, or is split otherwise")
    )


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
    known = attributes(table, of.data.train.rows)
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
    chosen, why = _chosen(str(made["study"]), str(made.get("trial")))
    if chosen is None:
        again = verb(f"best {found['study']}")
        of.missing["search"] = (
            f"Of how many trials it was chosen is not told: {why}. {again} tells, where the study is."
        )
    return found | {"chosen": chosen}


def _chosen(study: str, trial: str) -> tuple[dict[str, Any] | None, str]:
    """Of how many a trial was chosen, and what its score is worth; or why that is not known."""
    from xlite_search.results.best import best

    try:
        found = best(study)
    except (XliteError, OSError) as error:
        return None, str(error)
    if found["trial"] != trial:
        return None, f"the best of study '{study}' is another trial by now, {found['label']}"
    return dict(found["chosen"]), ""


def _evaluations(of: Delivered) -> list[dict[str, Any]]:
    """What `evaluate` wrote of the model as it is now: the test part, data sets from elsewhere, validation."""
    there = {path.stem: _read(path) for path in sorted((of.folder / EVALUATIONS).glob("*.json"))}
    old = [name for name, each in there.items() if each.get("delivered") != of.judged or EVALUATED - each.keys()]
    order = sorted(there.keys() - set(old), key=lambda name: (name != "test", name == "val", name))
    if old:
        again = verb(f"evaluate {of.folder.name} --on {sorted(old)[0]} --reason TEXT")
        of.missing["old"] = (
            f"Figures on {', '.join(sorted(old))} are of other weights, another calibration, other thresholds or "
            f"another version of this program, and are left out. {again} makes new ones."
        )
    if "test" not in order:
        told = f"Not judged on a test part{' as it is now' if 'test' in old else ''}."
        of.missing["test"] = f"{told} {verb(f'evaluate {of.folder.name} --on test')} does that, once."
    return [_evaluation(of, there[name]) for name in order]


def _evaluation(of: Delivered, found: dict[str, Any]) -> dict[str, Any]:
    """With its look in words. A file may lack the figures by finding: in early ones others have their name."""
    if not isinstance(found["findings"], list):
        again = verb(f"evaluate {of.folder.name} --on {found['on']}")
        told = f"Figures by finding are not in its files. {again} writes them, and is no new look."
        of.missing.setdefault("findings", told)
        found = found | {"findings": []}
    return found | {"looked": _looked(found["look"])}


def _looks(of: Delivered) -> list[dict[str, Any]]:
    """All looks at the test part of its data, other models' too; `this` is of the model as it is now."""
    if of.about.data:
        prints = of.about.data.fingerprint, of.about.data.split
    elif of.data:
        prints = of.data.packed.fingerprint, of.data.split.fingerprint
    else:
        return []
    taken = looks({"data": prints[0], "split": prints[1], "part": "test"})
    about = [each.model_dump(mode="json", include={"number", "model", "date", "reason"}) for each in taken]
    return [one | {"this": each.judged.model_dump() == of.judged} for one, each in zip(about, taken, strict=True)]


def _looked(look: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A look in words, and how many there were at these images by now, where the ledger is."""
    if not look:
        return None
    taken = parse(Look, look, "artifacts/evaluation: ")
    return {"words": taken.words(), "so_far": len(looks(taken.of)) or None}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        raise Damaged(f"{path} is not what was written; remove it and make it again")
    return found


def _calibration(of: Delivered) -> dict[str, Any] | None:
    found = of.calibration
    if found is None:
        return None
    few = [each.finding for each in found.findings if not each.assessable]
    return found.model_dump(mode="json") | {"hash": found.hash, "not_assessable": few}


def _localisation(of: Delivered) -> dict[str, Any] | None:
    """Figures of maps with boxes, those of its own validation part first; `others` says of what there are more."""
    there = [_read(path) for path in kept(of.folder)]
    ours = [each for each in there if each.keys() >= EXPLAINED and each["model"]["sha256"] == of.about.sha256]
    if not ours:
        told = "Where its findings lie was not looked at."
        if there:
            told = "Figures of its maps are of other weights or another version of this program, and are left out."
        of.missing["localisation"] = f"{told} {verb(f'explain {of.folder.name}')} compares its maps with boxes."
        return None
    first, *rest = in_order(ours, (of.about.config.get("data") or {}).get("name", ""))
    others = [{"data": each["data"]["name"], "part": each["data"]["part"], "method": each["method"]} for each in rest]
    return {name: value for name, value in first.items() if name != "shown"} | {"others": others}


def _cost(of: Delivered) -> dict[str, Any]:
    files = {name: _bytes(folder / WEIGHTS for folder in of.folders) for name in (WEIGHTS,)}
    if of.home:
        files |= {path.name: path.stat().st_size for path in (of.home / WEIGHTS, of.home / ONNX)}
    found: dict[str, Any] = {"files": files, "training": _training(of.folders)}
    if of.exported is None:
        of.missing["latency"] = (
            f"Time for an image is not measured here. {verb(f'export {of.folder.name} -o DIR')} measures it."
        )
        return found
    return found | {"latency": of.exported.latency, "parity": of.exported.parity, "int8": of.exported.int8}


def _bytes(paths: Iterator[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def _training(folders: Sequence[Path]) -> dict[str, Any] | None:
    """Epochs, seconds and watt-hours of all trainings; None where their records are not here."""
    if not all((folder / "run.json").is_file() for folder in folders):
        return None
    epochs = [each for folder in folders for each in RunRecord.load(folder).epochs]
    energy = [each["energy/gpu_wh"] for each in epochs if "energy/gpu_wh" in each]
    seconds = sum(each.get("time/epoch_s", 0.0) for each in epochs)
    return {
        "epochs": len(epochs),
        "seconds": seconds,
        "gpu_wh": sum(energy) if len(energy) == len(epochs) > 0 else None,
    }


def _reproduce(of: Delivered) -> dict[str, Any]:
    made, name = of.first.provenance, of.folder.name
    data = of.about.config.get("data") or {}
    on, judged_on = ("", "test") if data else (" --on NAME", "NAME")
    commands = [f"calibrate {name}{on}", f"evaluate {name} --on {judged_on}", f"explain {name}{on}"]
    commands += [f"export {name} -o DIR", "predict DIR --selftest"]
    if made.get("study"):
        seeds = f" --seeds {len(of.about.members)}" if of.about.members else ""
        trained = f"train best.yaml --split {data.get('fit', 'train')}{seeds} --name {name}"
        commands = [f"best {made['study']} -o best.yaml", trained, *commands]
    return {
        "commands": commands,
        "commit": made.get("commit", ""),
        "trained_by": made.get("trained_by", ""),
        "libraries": made.get("libraries", {}),
        "exported_with": of.exported.versions if of.exported else {},
        "version": __version__,
    }

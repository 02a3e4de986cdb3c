"""What a delivered model reaches, as facts of its card: evaluations, looks at the test part, calibration, maps.

What belongs to another state of the model (it was calibrated anew, say) counts as missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlite_search.deploy.delivered import Delivered, read_json, verb
from xlite_search.evaluation.calibration_notes import not_better
from xlite_search.evaluation.explained import in_order, kept
from xlite_search.evaluation.looks import Look, looks_of, models_in
from xlite_search.records import ARTIFACTS
from xlite_search.spec import parse

EVALUATIONS = Path(ARTIFACTS) / "evaluation"
#: what a file has to have to be read
EVALUATED = {"on", "look", "images", "patients", "macro", "findings", "unjudged", "moved", "success", "notes"} | {
    *("subgroups", "gaps", "within_projections"),
}
EXPLAINED = {"model", "data", "method", "localisation", "notes"}


def evaluations(of: Delivered) -> list[dict[str, Any]]:
    """What `evaluate` wrote of the model as it is now: the test part, data sets from elsewhere, validation."""
    there = {path.stem: read_json(path) for path in sorted((of.folder / EVALUATIONS).glob("*.json"))}
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
    over = {name: len(each) for name, each in found.get("subgroup_findings", {}).items()}
    subgroups = [each | {"findings": over.get(each["attribute"])} for each in found["subgroups"]]
    return found | {"looked": _looked(found["look"]), "subgroups": subgroups}


def looks(of: Delivered) -> list[dict[str, Any]]:
    """All looks at the test part of its data, other models' too; `this` is of the model as it is now."""
    if of.about.data:
        prints = of.about.data.fingerprint, of.about.data.split
    elif of.data:
        prints = of.data.packed.fingerprint, of.data.split.fingerprint
    else:
        return []
    taken = looks_of({"data": prints[0], "split": prints[1], "part": "test"})
    about = [each.model_dump(mode="json", include={"number", "model", "date", "reason"}) for each in taken]
    return [one | {"this": each.judged.model_dump() == of.judged} for one, each in zip(about, taken, strict=True)]


def _looked(look: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A look in words, and how many there were at these images by now, where the ledger is."""
    if not look:
        return None
    taken = parse(Look, look, "artifacts/evaluation: ")
    return {"words": taken.words(), "so_far": models_in(looks_of(taken.of)) or None}


def calibration(of: Delivered) -> dict[str, Any] | None:
    found = of.calibration
    if found is None:
        return None
    few = [each.finding for each in found.findings if not each.assessable]
    told = {"hash": found.hash, "kind": found.on.kind, "not_assessable": few, "not_better": not_better(found)}
    return found.model_dump(mode="json") | told


def localisation(of: Delivered) -> dict[str, Any] | None:
    """Figures of maps with boxes, those of its own validation part first; `others` says of what there are more."""
    there = [read_json(path) for path in kept(of.folder)]
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

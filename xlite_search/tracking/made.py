"""Records of models that are no training of their own, and have no run.json: an ensemble's is made of its members'; a
checkpoint's that was taken in, of what its manifest says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xlite_search.model_folder import MANIFEST, ModelManifest
from xlite_search.records import RunRecord
from xlite_search.spec import flatten
from xlite_search.training.recipe import Recipe

#: setting that names the members
MEMBERS = "members"
Tree = Mapping[str, Any]


def of_ensemble(folder: Path, about: ModelManifest, members: Sequence[RunRecord]) -> RunRecord:
    """The ensemble in `folder` as a run: settings that its members share, and of the others the value of each."""
    trees = [member.config for member in members]
    labels = " and ".join(dict.fromkeys(member.label for member in members))
    shared = _shared([member.settings for member in members])
    return RunRecord(
        folder,
        key=_key(folder, about),
        kind="ensemble",
        label=f"ensemble of {len(members)}: {labels}",
        settings={MEMBERS: ", ".join(about.members)} | shared | _differing(trees),
        config={"monitor": members[0].config["monitor"]} | _shared(trees),
        facts=_facts(about, members),
        status="finished",
        started=min(member.started for member in members),
        ended=max(member.ended for member in members),
        config_class=members[0].config_class,
    )


def of_checkpoint(folder: Path, about: ModelManifest) -> RunRecord:
    """A checkpoint from elsewhere as a run without epochs, which begins and ends when it was taken in."""
    when = (folder / MANIFEST).stat().st_mtime
    made: dict[str, Any] = {
        name: about.provenance[name] for name in ("file", "file_sha256") if name in about.provenance
    }
    return RunRecord(
        folder,
        key=_key(folder, about),
        kind="taken",
        label=f"{about.model} from {about.provenance['file']}",
        settings=made,
        config={"monitor": Recipe().monitor} | about.config,
        facts={"model/parameters": float(about.parameters)},
        status="finished",
        started=when,
        ended=when,
    )


def _key(folder: Path, about: ModelManifest) -> str:
    """With the hash of the weights: others under the same name are another run."""
    return f"{folder.name}-{about.sha256[:12]}"


def _facts(about: ModelManifest, members: Sequence[RunRecord]) -> dict[str, float]:
    """Its size, and the mean of its members' scores, where they have one; what it reaches itself `evaluate` tells."""
    monitor = str(members[0].config["monitor"])
    mean = math.fsum(member.best_score(monitor) for member in members) / len(members)
    score = {f"members/{monitor.removeprefix('val/')}": mean} if math.isfinite(mean) else {}
    return score | {"model/parameters": float(about.parameters)}


def _shared(trees: Sequence[Tree]) -> dict[str, Any]:
    """What all trees have alike, as deep as they go."""
    found: dict[str, Any] = {}
    for name in trees[0]:
        values = [tree.get(name) for tree in trees]
        nested = [value for value in values if isinstance(value, Mapping)]
        if len(nested) == len(values):
            found[name] = _shared(nested)
        elif all(value == values[0] for value in values):
            found[name] = values[0]
    return found


def _differing(trees: Iterable[Tree]) -> dict[str, str]:
    """`{"seed": "42, 43"}`: by dotted name what the trees do not have alike."""
    flat = [flatten(tree) for tree in trees]
    names = dict.fromkeys(name for each in flat for name in each)
    values = {name: [each.get(name) for each in flat] for name in names}
    return {name: ", ".join(map(str, each)) for name, each in values.items() if any(one != each[0] for one in each)}

"""Commands that make a delivered model again, as it is, as facts of its card.

A verb whose result is not there is left out, and an option that is the verb's default.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from xlite_search import __version__
from xlite_search.deploy.delivered import Delivered
from xlite_search.deploy.folder import PT2
from xlite_search.errors import XliteError
from xlite_search.evaluation.thresholds import SENSITIVITY


def reproduce(of: Delivered, reached: Mapping[str, Any]) -> dict[str, Any]:
    """The commands, and by which code they gave this model; `reached` are the card's evaluations and localisation.

    `settings_known` is false where it cannot be told what `train --set` changed.
    """
    made, settings = of.first.provenance, _settings(of) if of.first.provenance.get("study") else []
    return {
        "commands": [*_taken(of), *_trained(of, settings or []), *_delivered(of, reached)],
        "settings_known": settings is not None,
        "commit": made.get("commit", ""),
        "trained_by": made.get("trained_by", ""),
        "libraries": made.get("libraries", {}),
        "exported_with": of.exported.versions if of.exported else {},
        "version": __version__,
    }


def _taken(of: Delivered) -> Iterator[str]:
    """Of a checkpoint from elsewhere. Its patients are named by a file, which is not kept."""
    made, data = of.about.provenance, of.about.config.get("data") or {}
    if not made.get("file") or not data:
        return
    keys = "".join(f" --keys {_shown(f'{old}={new}')}" for old, new in made.get("keys", {}).items())
    seen = "FILE" if of.about.trained_on else None
    told = {"--classes": (",".join(made.get("classes") or ()), ""), "--patients": (seen, None)}
    command = f"take {_shown(made['file'])} --model {made['model']} --data {data['name']}{keys}{_options(told)}"
    yield f"{command} --name {of.folder.name}"


def _trained(of: Delivered, settings: list[str]) -> Iterator[str]:
    study = of.first.provenance.get("study")
    if not study:
        return
    yield f"best {study} -o best.yaml"
    data, members = of.first.config.get("data") or {}, len(of.about.members) or None
    options = {"--split": (data.get("fit"), "train"), "--folds" if is_crossfit(of) else "--seeds": (members, None)}
    yield f"train best.yaml{_options(options)}{''.join(settings)} --name {of.folder.name}"


def _delivered(of: Delivered, reached: Mapping[str, Any]) -> Iterator[str]:
    name, own = of.folder.name, (of.about.config.get("data") or {}).get("name", "")
    if found := of.calibration:
        options: dict[str, tuple[object, object]] = {"--on": (found.on.data, own), "--method": (found.method, "platt")}
        if cuts := of.thresholds:
            options |= {"--sensitivity": (cuts.at_least, SENSITIVITY), "--rule": (cuts.decides, "sensitivity")}
        yield f"calibrate {name}{_options(options)}"
    as_is = "" if of.calibration and of.thresholds else " --as-is"
    for each in reached["evaluations"]:
        yield f"evaluate {name} --on {each['on']}{as_is}"
    for data, part, method in _maps(reached["localisation"]):
        where = {"--on": (data, own), "--part": (part, "val"), "--method": (method, "gradcam")}
        yield f"explain {name}{_options(where)}"
    eight = " --int8" if of.exported and of.exported.int8 else ""
    program = " --pt2" if of.home and (of.home / PT2).is_file() else ""
    yield f"export {name} -o DIR{eight}{program}"
    yield "predict DIR --selftest"


def _maps(found: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """Data set, part and method of all figures of maps that there are."""
    if not found:
        return []
    others = [(each["data"], each["part"], each["method"]) for each in found.get("others", ())]
    return [(found["data"]["name"], found["data"]["part"], found["method"]), *others]


def _options(given: Mapping[str, tuple[object, object]]) -> str:
    """Options that are not their defaults, each with a space before it."""
    return "".join(f" {name} {_shown(value)}" for name, (value, usual) in given.items() if value not in (None, usual))


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else shlex.quote(str(value))


def is_crossfit(of: Delivered) -> bool:
    """Whether its members were each trained without a fold of training and validation images."""
    split = (of.first.config.get("data") or {}).get("split")
    return isinstance(split, Mapping) and split.get("name") == "crossfit"


def _settings(of: Delivered) -> list[str] | None:
    """What `train` was given by `--set`, as it is written; None where the trial is not here to compare with, or these
    settings would make another config of it."""
    document, _ = of.best
    if document is None:
        return None
    try:
        return _changed(document, _single(of, document["config"]))
    except (XliteError, OSError):
        return None


def _single(of: Delivered, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Its config as `train` had it: without the split, and the fold's teacher, that `--folds` gives its members."""
    config = of.first.config
    if not is_crossfit(of):
        return config
    return config | {"data": config["data"] | {"split": config["data"]["split"]["of"]}, "kd": chosen.get("kd")}


def _changed(document: dict[str, Any], config: dict[str, Any]) -> list[str] | None:
    from xlite_search import written
    from xlite_search.results.best import config_in
    from xlite_search.results.final import final_config

    own, fit = config_in(document), config["data"]["fit"]

    def tree(settings: dict[str, Any]) -> dict[str, Any]:
        return dict(final_config(document, fit, settings, "best.yaml", own).model_dump(mode="json"))

    given = dict(_different(tree({}), config))
    if tree({name: written.value(text, own, name, "--set") for name, text in given.items()}) != config:
        return None
    return [f" --set {shlex.quote(f'{name}={text}')}" for name, text in given.items()]


def _different(usual: Mapping[str, Any], config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names of settings that differ, with their values as `--set` reads them; another choice is a whole one."""
    for name, value in config.items():
        was = usual.get(name)
        if isinstance(value, Mapping) and "sha256" in value:  # a file: the hash is taken anew
            value, was = value["path"], (was or {}).get("path")
        if isinstance(value, Mapping) and isinstance(was, Mapping) and value.get("name") == was.get("name"):
            yield from _different(was, value, f"{prefix}{name}.")
        elif value != was:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)

"""Verbs on models: models, best, train."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from xlite_search.cli.options import (
    Cpu,
    Json,
    Settings,
    settings_of,
)
from xlite_search.cli.tracked import track


def models(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Default: the lab's. Such as resnet10t_cbam_ms.")
    ] = None,
    size: Annotated[int, typer.Option(help="Height and width of the images, in pixels.")] = 224,
    json_: Json = False,
) -> None:
    """Parameters, MACs and CPU latency of every hybrid, and what Performer costs at that size."""
    from xlite_search import console
    from xlite_search.models import cost
    from xlite_search.models.hybrid import HYBRIDS

    table = cost.cost_table(names or HYBRIDS, size, console.Counter("measured"))
    print(json.dumps(cost.as_json(table)) if json_ else cost.render(table))


def best(
    study: Annotated[str, typer.Argument(metavar="STUDY")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write it.")] = Path("best.yaml"),
) -> None:
    """Exports the best config with its provenance."""
    from xlite_search.results.best import write_best
    from xlite_search.results.outputs import expect_writable

    expect_writable(output)
    found = write_best(study, output)
    print(f"{output}: {found['label']}, {found['metric']} {found['score']:.4f} at epoch {found['best_epoch']}")
    if unfinished := found["chosen"]["unfinished"]:
        runs = "run" if unfinished == 1 else "runs"
        print(f"{unfinished:,} {runs} of study '{study}' not over: a better one may come yet", file=sys.stderr)
    print(f"next: python -m xlite_search train {output}")


def _changed(ours: Mapping[str, Any], trials: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Which settings are not the trial's any more: `epochs 2, the trial's 8`; empty if all are."""
    from xlite_search.spec import flatten

    here, there = flatten(ours), flatten(trials)
    names = [name for name in (here | there) if any(name == each or name.startswith(f"{each}.") for each in settings)]
    other = [name for name in names if here.get(name) != there.get(name)]
    theirs = {name: f"the trial's {there[name]}" if name in there else "which the trial has not" for name in other}
    return "; ".join(f"{name} {here.get(name, 'left out')}, {theirs[name]}" for name in other)


def train(
    config: Annotated[Path, typer.Argument(metavar="BEST.YAML", help="What `best` exported.")],
    split: Annotated[
        str, typer.Option(help="What to fit on: train, which leaves validation to calibrate on, or train+val.")
    ] = "train",
    seeds: Annotated[
        int | None, typer.Option(help="Train an ensemble of so many seeds: the mean of their logits.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            help="Train so many members, each without a fold of training and validation images, that calibrate it."
        ),
    ] = None,
    set_: Settings = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name; default: the study's, with the config's hash.")
    ] = None,
    cpu: Cpu = False,
) -> None:
    """Final training of an exported config; leaves a model folder and an MLflow run, or an ensemble of several."""
    from xlite_search import machine
    from xlite_search.errors import BadInput
    from xlite_search.results.best import config_in, read_best
    from xlite_search.results.crossfit import train_folds
    from xlite_search.results.final import train_final, train_seeds

    machine.expect_gpu_support(cpu)
    settings_of(set_)  # what is wrong with them is told before anything of the file is
    document = read_best(config)
    settings, metric = settings_of(set_, config_in(document)), document["metric"]
    if folds is not None and (seeds is not None or split != "train"):
        other = "--seeds" if seeds is not None else f"--split {split}"
        raise BadInput(f"--folds trains an ensemble on training and validation images itself; leave {other} out")
    if seeds is not None or folds is not None:
        if folds is not None:
            ensemble, members = train_folds(config, folds=folds, settings=settings, name=name)
        else:
            ensemble, members = train_seeds(config, split=split, settings=settings, seeds=seeds or 0, name=name)
        for member in members:
            print(f"member: {member.folder}, {metric} {member.best_score(metric):.4f}")
        track(ensemble)
        print(f"model: {ensemble}")
        print(f"next: python -m xlite_search calibrate {ensemble.name}")
        return
    record = train_final(config, split=split, settings=settings, name=name)
    print(f"model: {record.folder}")
    if record.config["data"]["fit"] == "train":
        print(f"{metric}: {record.best_score(metric)!r} at epoch {record.best.epoch if record.best else 0}")
        print(f"the study's trial: {document['score']!r} at epoch {document['best_epoch']}")
        if record.best_score(metric) != document["score"]:
            why = _changed(record.config, document["config"], settings)
            print(f"another score than the trial's: {why or 'other code, versions or processor?'}", file=sys.stderr)
    print(f"next: python -m xlite_search calibrate {record.folder.name}")

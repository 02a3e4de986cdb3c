"""Verbs that judge a delivered model: calibrate, evaluate."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from xlite_search import places
from xlite_search.cli.options import AsIs, Cpu, Json
from xlite_search.cli.tracked import track
from xlite_search.errors import BadInput, did_you_mean
from xlite_search.evaluation.named import find_model


def calibrate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name in mlruns/models, or its folder.")],
    on: Annotated[
        str, typer.Option(metavar="NAME", help="A prepared data set.  [default: the model's own]", show_default=False)
    ] = "",
    sensitivity: Annotated[float, typer.Option(help="What a threshold shall keep, with 95 % confidence.")] = 0.9,
    method: Annotated[str, typer.Option(help="platt (a line for each finding) or temperature (one slope).")] = "platt",
    rule: Annotated[
        str, typer.Option(help="What the model decides by: sensitivity (else the best F1), youden or f1.")
    ] = "sensitivity",
    cpu: Cpu = False,
    json_: Json = False,
) -> None:
    """Probabilities and thresholds for a model, fitted on its validation part and judged by patient."""
    from xlite_search import console, machine
    from xlite_search.evaluation.calibrated import FIGURES, FILES, calibrated
    from xlite_search.evaluation.calibration import METHODS
    from xlite_search.evaluation.thresholds import expect_sensitivity, rule_of
    from xlite_search.results.columns import show

    chosen = next((each for each in METHODS if each == method), None)
    if chosen is None:
        raise BadInput(f"--method {method}: expected {' or '.join(METHODS)}{did_you_mean(method, METHODS)}")
    expect_sensitivity(sensitivity)
    decides, folder = rule_of(rule), find_model(model)
    machine.expect_gpu_support(cpu)
    counter = console.Counter("images scored")
    found = calibrated(
        folder,
        machine.device(cpu=cpu),
        on=on,
        sensitivity=sensitivity,
        decides=decides,
        method=chosen,
        counter=counter,
    )
    found.write()
    track(folder, FILES)
    if json_:
        print(json.dumps(found.as_json()))
        return
    show(found.tables())
    print(f"written: {', '.join(FILES)} and figures in {folder / FIGURES}")
    print(f"next: python -m xlite_search evaluate {model} --on test")


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name in mlruns/models, or its folder.")],
    on: Annotated[str, typer.Option(metavar="PART", help="test, val, or a data set prepared from elsewhere.")] = "test",
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why a part that another model was judged on is looked at again.")
    ] = "",
    baseline: Annotated[
        str, typer.Option(metavar="MODEL", help="Whose size the model's is told beside.  [default: the teacher]")
    ] = "",
    as_is: AsIs = False,
    cpu: Cpu = False,
    json_: Json = False,
) -> None:
    """The model judged as it is delivered; the test part is looked at once, and every look is on record."""
    from xlite_search import console, machine, storage
    from xlite_search.evaluation import evaluate as judging
    from xlite_search.evaluation.unseen import images_for
    from xlite_search.evaluation.verified import EVALUATIONS
    from xlite_search.model_folder import read_model
    from xlite_search.provenance import environment
    from xlite_search.results.columns import show

    folder = find_model(model)
    machine.expect_gpu_support(cpu)
    counter = console.Counter("images scored")
    images_for(read_model(folder), on)  # a part that is misspelt is told before anything else
    judging.expect_ready(folder, on, as_is=as_is)
    found = judging.evaluate(folder, on, machine.device(cpu=cpu), reason=reason, baseline=baseline, counter=counter)
    path = folder / EVALUATIONS / f"{places.plain_name(on, '--on')}.json"
    told = found.as_json() | {"processor": environment()["cpu"]}
    told |= {"checksum": storage.digest(told)}
    storage.write_atomic(path, (json.dumps(told, indent=1) + "\n").encode())
    track(folder)
    if json_:
        print(json.dumps(told))
        return
    show(found.tables())
    print(f"every figure: {path}")
    print(f"next: python -m xlite_search explain {model}")

"""Verbs on studies: plan, run, status, clean, verify, compare, report."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from xlite_search import places
from xlite_search.cli.demo import demo_named, draw_phantoms
from xlite_search.cli.options import (
    Cpu,
    Demo,
    DropNear,
    Json,
    Margin,
    Settings,
    Space,
    StudyName,
    listed,
    margin_of,
    settings_of,
)
from xlite_search.cli.others import Asked, Csv, Experiment, Factor, Metric, Mlflow, Patients, compare_others
from xlite_search.errors import BadInput

if TYPE_CHECKING:
    from xlite_search.search.plan import Plan
    from xlite_search.search.study import Study

STORAGE = 3
#: trials that `run` names as left out
SHOWN = 8


def plan(
    space: Space,
    demo: Demo = False,
    set_: Settings = None,
    name: StudyName = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Time steps of every model; find near-duplicates."),
    ] = False,
    drop_near_duplicates: DropNear = False,
    json_: Json = False,
) -> None:
    """Trials, factors, what they cannot tell apart, and what the study will take; trains nothing."""
    from xlite_search.machine import this_machine
    from xlite_search.search import near_duplicates
    from xlite_search.search.forecast import forecast
    from xlite_search.search.plan import make_plan
    from xlite_search.search.teaching import logit_counts

    study, called = _study(space, demo, set_, name)
    with demo_named(demo):
        found = make_plan(study, called)
    found, near = near_duplicates.planned(found, measure=measure, drop=drop_near_duplicates)
    expected = forecast(found, this_machine(), measure=measure)
    if json_:
        trials = [{"trial": t.key, "label": t.label, "settings": t.settings} for t in found.trials]
        print(
            json.dumps(
                {
                    "study": called,
                    "factors": found.factors(),
                    "teacher": found.teacher,
                    "trials": trials,
                    "forecast": asdict(expected),
                    "warnings": found.warnings(),
                    "same_run": study.idle_settings(),
                    "near_duplicates": near.as_json() | {"left_out": found.left_out()},
                }
            )
        )
        expected.expect_room()
        return
    print(f"{called}: {found.trials_in_words()}, {found.epochs_in_words()}; {found.scheduler_in_words()}")
    if duplicates := len(study.points()) - len(study.configs()) if study.grids else 0:
        print(f"  {duplicates} more points are the same run as one of these, and are not trained twice")
    for line in (*study.idle_settings(), *found.left_out(), *near.words()):
        print(f"  {line}")
    if found.teaching:
        print(f"teacher {found.teacher}, {found.teaching.models()}")
    for line in logit_counts(found.trials):
        print(f"  {line}")
    for factor, values in found.factors().items():
        print(f"  {factor}: {', '.join(map(str, values))}")
    for warning in found.warnings():
        print(f"warning: {warning}")
    for trial in found.trials:
        print(f"  {trial.key}  {trial.label}")
    for line in expected.words():
        print(f"forecast: {line}")
    expected.expect_room()


def run(
    space: Space,
    demo: Demo = False,
    set_: Settings = None,
    name: StudyName = None,
    drop_near_duplicates: DropNear = False,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Go on with a study that changed since it began; recorded.")
    ] = False,
    cpu: Cpu = False,
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="A Ray cluster's, whose machines share the folders of runs and data."),
    ] = None,
) -> None:
    """The main job: trains the teacher, then the trials; the same command again goes on where it stopped."""
    from xlite_search import console, machine
    from xlite_search.results import compare as results
    from xlite_search.results.tables import closing_lines
    from xlite_search.search.plan import make_plan

    machine.expect_gpu_support(cpu)
    if address:
        machine.expect_cluster(address)
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"  # before Ray is imported, which reads it then
    study, called = _study(space, demo, set_, name)
    given = [word for setting in set_ or [] for word in ("--set", setting)]
    with demo_named(demo):
        found = make_plan(study, called, ("run", space, *(["--demo"] if demo else []), *given))
    if drop_near_duplicates:
        found = _without_near_duplicates(found, address)
    if found.is_complete():
        console.say(f"Study '{called}' is complete: nothing is left to train.")
    else:
        from xlite_search.search.runner import run as run_plan

        console.say(f"Study '{called}': {found.trials_in_words()}; {found.scheduler_in_words()}")
        if study.teacher:
            console.say(
                "loss = alpha * tau^2 * KL(teacher || student at tau) + (1 - alpha) * hard; alpha weighs the teacher"
            )
        run_plan(found, accept_changes=accept_changes, summary=results.summary, address=address)
    comparison = results.compare([called])
    results.show(comparison, classes=False)
    for line in closing_lines(comparison):
        console.say(line)
    raise typer.Exit(0 if comparison.is_done else 1)


def _without_near_duplicates(found: Plan, address: str | None) -> Plan:
    """The plan without them, once there is a teacher to tell them by; says which they are."""
    from xlite_search import console
    from xlite_search.search import near_duplicates

    if not near_duplicates.is_decided(found):
        from xlite_search.search.runner import train_teacher

        train_teacher(found, address=address)
    found, not_compared = near_duplicates.without_near_duplicates(found)
    left = found.left_out()
    more = [f"and so are {len(left) - SHOWN:,} more, which `plan` names"] if len(left) > SHOWN else []
    for line in (*left[:SHOWN], *more, *not_compared):
        console.say(line)
    return found


def status(
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="Default: all studies, a line each.")] = None,
    json_: Json = False,
) -> None:
    """Where a study stands: who runs it, which trials are where and why, what it takes of the disk."""
    from xlite_search.results import status as results

    found = [results.standing(name) for name in ([study] if study else places.studies())]
    if json_:
        print(json.dumps([each.as_json() for each in found]))
    elif study:
        results.show(found[0])
    else:
        for each in found:
            print(each.line())
        if not found:
            print(
                f"no study in {places.runs_root()} yet; begin one: python -m xlite_search run SPACE (add --demo to try)"
            )


def clean(study: Annotated[str, typer.Argument(metavar="STUDY")]) -> None:
    """Gives disk back: checkpoints that nobody will go on with. Best weights of what is ranked stay."""
    from xlite_search import disk
    from xlite_search.results.compare import open_study
    from xlite_search.storage import alone

    found = open_study(study)
    with alone(found.folder, f"study '{study}'", shown=True):
        before = disk.checkpoint_bytes(found.runs())
        disk.free(found.runs())
        left = disk.checkpoint_bytes(found.runs())
    print(f"{study}: {(before - left) / 1e6:,.1f} MB given back, {left / 1e6:,.1f} MB of checkpoints are left")


def verify(study: Annotated[str, typer.Argument(metavar="STUDY|MODEL")], json_: Json = False) -> None:
    """Nothing lost? A study's manifests, checkpoints, decisions, teacher and MLflow, one against the other; or a
    model's weights, calibration, thresholds, kept logits, figures and looks."""
    if study not in places.studies() and (places.runs_root() / "models" / study / "model.json").is_file():
        _verify_model(study, json_=json_)
    from xlite_search.results.compare import open_study
    from xlite_search.search.verify import verify as verify_study

    found = open_study(study)
    broken = verify_study(found)
    if json_:
        print(json.dumps({"study": study, "broken": broken}))
    else:
        print("\n".join(broken) if broken else f"{study}: {len(found.trials)} trials, and nothing is lost")
    raise typer.Exit(STORAGE if broken else 0)


def _verify_model(name: str, *, json_: bool) -> NoReturn:
    from xlite_search.evaluation.named import find_model
    from xlite_search.evaluation.verified import verify_model
    from xlite_search.tracking.models import differences

    folder = find_model(name)
    broken = verify_model(folder)
    broken += [] if broken else differences(folder)
    if json_:
        print(json.dumps({"model": name, "broken": broken}))
    else:
        print("\n".join(broken) if broken else f"{name}: its files and the ledger of looks agree")
    raise typer.Exit(STORAGE if broken else 0)


def compare(
    studies: Annotated[list[str] | None, typer.Argument(metavar="[STUDY...]")] = None,
    margin: Margin = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="The best run against this one by finding: its key, its label, or STUDY/RUN."),
    ] = None,
    factor: Factor = None,
    csv: Csv = None,
    mlflow: Mlflow = None,
    experiment: Experiment = None,
    patients: Patients = None,
    metric: Metric = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write what is shown: .md, .tex; or a row for each run: .csv, .parquet."),
    ] = None,
    json_: Json = False,
) -> None:
    """What may be said of one or more studies: intervals, what is tied with the best, AUROC by finding; or of other
    people's runs: what differs, and what may be said of it."""
    from xlite_search.results import columns, outputs
    from xlite_search.results import compare as results
    from xlite_search.results.against import against_named
    from xlite_search.results.pairs import tables
    from xlite_search.results.plain import as_json
    from xlite_search.results.run_facts import study_pairs

    if output and json_:
        raise BadInput("-o and --json: one at a time; --json prints to stdout")
    if output:
        outputs.expect_table_file(output)
    within, others = margin_of(margin), csv or mlflow or experiment
    if studies and others:
        raise BadInput("compare studies or other people's runs: leave out STUDY, or --csv and --mlflow")
    if others:
        asked = Asked(factor or (), metric, against, patients, within)
        compare_others(csv, mlflow, experiment, asked, output, json_=json_)
        return
    if not studies:
        raise BadInput("name a study to compare, or other people's runs: --csv FILE, or --mlflow URI --experiment NAME")
    if patients or metric:
        raise BadInput("--patients and --metric are for other people's runs, with --csv or --mlflow")
    comparison = results.compare(studies, within)
    gaps = against_named(comparison, against, within) if against else None
    pairs = study_pairs(comparison, factor or ()) if factor or json_ else None
    if output:
        outputs.write(comparison, [*([gaps.table()] if gaps else ()), *(tables(pairs) if pairs else ())], gaps, output)
        return
    if json_:
        found = {"pairs": pairs.as_json() if pairs else [], **({"against": gaps.as_json()} if gaps else {})}
        print(json.dumps(as_json(comparison) | found))
    else:
        results.show(comparison, gaps)
        columns.show(tables(pairs) if pairs else ())


def report(
    study: Annotated[str, typer.Argument(metavar="STUDY")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write the page.  [default: report.html]")
    ] = None,
    against: Annotated[
        str,
        typer.Option(metavar="RUN", help="Compare the best run with this one.  [default: without a teacher, or next]"),
    ] = "",
    factors: Annotated[
        str, typer.Option(metavar="A,B", help="Settings of the heat map.  [default: those with most values]")
    ] = "",
    margin: Margin = None,
    json_: Json = False,
) -> None:
    """The study as one HTML page that opens offline and prints: what may be concluded, figures, methods."""
    from xlite_search.results.outputs import expect_writable
    from xlite_search.results.report.build import report as build
    from xlite_search.results.report.build import write

    path = output or (None if json_ else Path("report.html"))
    if path:
        expect_writable(path)
    found = build(study, margin=margin_of(margin), against=against, factors=listed(factors or None))
    if path:
        size = write(found, path)
    if json_:
        print(json.dumps(found.as_json()))
    else:
        print(f"{path}: {found.said.sentence} ({size / 1e3:,.0f} kB)")


def _study(space: str, demo: bool, set_: list[str] | None, name: str | None) -> tuple[Study, str]:
    """The study as the command line asks for it, and its name. Draws the demo's phantoms if they are not there."""
    from xlite_search.search.study_file import load_study

    settings, called = settings_of(set_), name or Path(space).stem + ("-demo" if demo else "")
    places.study_folder(called)
    study = load_study(space)
    settings = settings_of(set_, type(study.base))
    if settings and not demo and name is None:
        raise BadInput("a study changed by --set wants a name of its own: add --name NAME")
    if demo:
        study = study.as_demo()
    study = study.with_settings(settings) if settings else study
    if demo:
        draw_phantoms(study.base.data.name)
    return study, called

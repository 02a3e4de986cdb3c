"""The command line: one verb, one function. Data go to stdout, progress to stderr.

Exit codes: 0 done, 1 some trials failed, 2 bad input, 3 storage, 4 the engine died, 130 Ctrl+C, 143 terminated.
"""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlite_search import __version__, places
from xlite_search.errors import BadInput, EngineDied, Interrupted, XliteError

if TYPE_CHECKING:
    from xlite_search.data.sources import Source
    from xlite_search.data.splits import AnySplit
    from xlite_search.search.plan import Plan
    from xlite_search.search.study import Study

INTERRUPTED, STORAGE = 130, 3
app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a machine to read.")]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes", metavar="A,B,...", help="What the label table is read for.  [default: NIH's 14 findings]"
    ),
]
PatientColumn = Annotated[
    str | None,
    typer.Option("--patient-column", metavar="COLUMN", help="What a split must not cut.  [default: the patient's]"),
]
Demo = Annotated[bool, typer.Option("--demo", help="On phantoms, with small models: minutes on a CPU, no data needed.")]
Cpu = Annotated[bool, typer.Option("--cpu", help="Compute on the CPU even if there is a GPU.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Change a setting; a swept name takes the new values: 'kd.tau=[1,4]'."
    ),
]
StudyName = Annotated[
    str | None, typer.Option("--name", help="The study's name; default: the file's, with -demo if so.")
]
Space = Annotated[str, typer.Argument(metavar="SPACE", help="A study file, such as search_spaces/kd_grid.py.")]


def _version(asked: bool) -> None:
    if asked:
        from xlite_search.provenance import PACKAGE, git_commit

        commit = git_commit()
        print(f"xlite_search {__version__}{f', commit {commit}' if commit else ''}, in {PACKAGE}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", help="Which version, and where it lies.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Search and distil light chest X-ray classifiers.

    The main job: python -m xlite_search run search_spaces/kd_grid.py  (add --demo to try it without data).
    """


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the prepared data set.")],
    images: Annotated[Path | None, typer.Option(help="The folder that holds the images, at any depth.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="The label table: NIH's Data_Entry_2017*.csv, multi-hot columns, or a list.")
    ] = None,
    size: Annotated[int, typer.Option(help="Height and width of the prepared images, in pixels.")] = 224,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="What is learnt.  [default: NIH's 14 findings]")
    ] = None,
    patient_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="What a split must not cut.  [default: the patient's]")
    ] = None,
    notice: Annotated[
        str | None,
        typer.Option(help="What the data's owner asks for, told with every model.  [default: NIH's for NIH's]"),
    ] = None,
    stretch: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT",
            help="More than 8 bits to 8: these darkest and brightest pixels do not count.  [default: 0.1]",
        ),
    ] = None,
    no_clahe: Annotated[bool, typer.Option("--no-clahe", help="Resize only.")] = False,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="The label table may name images that are not there; counted and told.")
    ] = False,
    accept_losses: Annotated[
        bool, typer.Option("--accept-losses", help="Go on although up to 5 % of the images are missing or unreadable.")
    ] = False,
    count: Annotated[int | None, typer.Option(help="Phantoms: how many images to draw.  [default: 1500]")] = None,
    seed: Annotated[int | None, typer.Option(help="Phantoms: of the drawing.  [default: 0]")] = None,
    label_noise: Annotated[
        float | None, typer.Option(help="Phantoms: share of the labels that are turned round.  [default: 0]")
    ] = None,
) -> None:
    """Raw images to the packed data set NAME: CLAHE and resize, once. Without --images, phantoms are drawn."""
    from xlite_search import console
    from xlite_search.data.prepare import prepare as prepare_data
    from xlite_search.data.sources.folder import TAIL, Folder
    from xlite_search.data.sources.phantom import Phantom

    source: Source
    if images is not None:
        if labels is None:
            raise BadInput("--labels is missing: give the table that has the labels of --images")
        tail = TAIL if stretch is None else stretch
        for option, number in {"--count": count, "--seed": seed, "--label-noise": label_noise}.items():
            if number is not None:
                raise BadInput(f"{option} is for phantoms, which are drawn: leave it out, or leave out --images")
        source = Folder(images, labels, name, notice, _listed(classes), patient_column or "", incomplete, tail)
    elif labels is not None or not name.startswith("phantom"):
        raise BadInput(f"--images is missing: give the folder of data set '{name}' (only phantom* is drawn by code)")
    else:
        of_folders = {"--classes": classes, "--patient-column": patient_column, "--notice": notice}
        of_folders |= {"--incomplete": "yes" if incomplete else None, "--stretch": None if stretch is None else "yes"}
        for option, given in of_folders.items():
            if given is not None:
                raise BadInput(f"{option} is for images in a folder: give --images and --labels too")
        source = Phantom(
            images=Phantom.images if count is None else count,
            seed=Phantom.seed if seed is None else seed,
            label_noise=Phantom.label_noise if label_noise is None else label_noise,
        )
    for note in source.table().notes:
        console.say(note)
    if source.notice:
        console.say(source.notice)
    counter = console.Counter("prepared")
    data = prepare_data(name, source, size, counter, clahe=not no_clahe, accept_losses=accept_losses, say=console.say)
    if data.incomplete:
        console.say(data.incomplete)
    print(f"{data.folder}: {len(data):,} images of {data.manifest['patients']:,} patients at {data.size} px")


@app.command()
def split(
    labels: Annotated[Path, typer.Option(help="The label table; no image is looked at.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write to.")],
    ratios: Annotated[str | None, typer.Option(help="Shares of train, val and test.  [default: 70/15/15]")] = None,
    folds: Annotated[int | None, typer.Option(help="That many folds instead: fold_0, fold_1, ...")] = None,
    official: Annotated[
        Path | None, typer.Option(metavar="DIR", help="NIH's lists instead; validation is carved out of train_val.")
    ] = None,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="The official lists may name images that the table does not have.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Another one deals otherwise.")] = 0,
    classes: Classes = None,
    patient_column: PatientColumn = None,
    json_: Json = False,
) -> None:
    """Patient-wise, stratified lists from a label table alone: train.csv, val.csv, test.csv, patients, report."""
    from xlite_search.results.audit import show_split, write_splits

    specs = _split_specs(ratios, folds, official, incomplete, seed)
    found = write_splits(labels, output, specs, _listed(classes), patient_column or "")
    if json_:
        print(json.dumps(found))
    else:
        for folder, about in found.items():
            print(folder)
            show_split(about)


@app.command()
def audit(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A prepared data set.")] = None,
    labels: Annotated[Path | None, typer.Option(help="A label table alone, instead of NAME.")] = None,
    sampler: Annotated[
        list[str] | None,
        typer.Option(metavar="SAMPLER", help="none, max_rarity, or '{name: mean_rarity, no_finding: unscaled}'."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the data: data.split=folds, data.fraction=0.2."),
    ] = None,
    figures: Annotated[Path | None, typer.Option(metavar="DIR", help="Draw the figures into this folder.")] = None,
    classes: Classes = None,
    patient_column: PatientColumn = None,
    json_: Json = False,
) -> None:
    """Integrity, splits, and what each sampler will really draw, in closed form; every byte of NAME is checked."""
    from xlite_search.results import audit as results

    if (name is None) == (labels is None):
        raise BadInput("audit wants one of the two: the NAME of a prepared data set, or --labels with a label table")
    samplers = results.samplers([_value(item, "sampler", f"--sampler {item}") for item in sampler or []])
    if labels is not None:
        if set_:
            raise BadInput(f"--set {set_[0]}: a label table alone has no data settings; give a NAME")
        page = results.audit_labels(labels, samplers, _listed(classes), patient_column or "")
    elif classes is not None or patient_column is not None:
        option = "--patient-column" if classes is None else "--classes"
        raise BadInput(f"{option} is for a label table: give --labels, not NAME")
    else:
        page = results.audit_data(results.data_spec(name or "", _settings(set_)), samplers)
    if json_:
        print(json.dumps(page.as_dict()))
    else:
        results.show(page)
    if figures is not None:
        results.draw(page, figures)


@app.command()
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


@app.command()
def plan(
    space: Space,
    demo: Demo = False,
    set_: Settings = None,
    name: StudyName = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time two steps of the largest and the smallest model.")
    ] = False,
    json_: Json = False,
) -> None:
    """Trials, factors, what they cannot tell apart, and what the study will take; trains nothing."""
    from xlite_search.machine import this_machine
    from xlite_search.search.forecast import forecast
    from xlite_search.search.plan import make_plan
    from xlite_search.search.teaching import asking

    study, called = _study(space, demo, set_, name)
    found = make_plan(study, called)
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
                }
            )
        )
        expected.expect_room()
        return
    print(f"{called}: {_trials(found)}, {_epochs(found)}; {_scheduler(study)}")
    if duplicates := len(study.points()) - len(found.trials) if study.grids else 0:
        print(f"  {duplicates} more points are the same run as one of these, and are not trained twice")
    if found.teaching:
        print(f"teacher {found.teacher}, {found.teaching.models()}")
    for line in asking(found.trials):
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


@app.command()
def run(
    space: Space,
    demo: Demo = False,
    set_: Settings = None,
    name: StudyName = None,
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
    from xlite_search.search.plan import make_plan

    machine.expect_gpu_support(cpu)
    if address:
        machine.expect_cluster(address)
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"  # before Ray is imported, which reads it then
    study, called = _study(space, demo, set_, name)
    found = make_plan(study, called)
    if _is_complete(found):
        console.say(f"Study '{called}' is complete: nothing is left to train.")
    else:
        from xlite_search.results import compare as results
        from xlite_search.search.runner import run as run_plan

        console.say(f"Study '{called}': {_trials(found)}; {_scheduler(study)}")
        if study.teacher:
            console.say(
                "loss = alpha * tau^2 * KL(teacher || student at tau) + (1 - alpha) * hard; alpha weighs the teacher"
            )
        run_plan(found, accept_changes=accept_changes, summary=results.summary, address=address)
    raise typer.Exit(_closing_words(called))


@app.command()
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


@app.command()
def clean(study: Annotated[str, typer.Argument(metavar="STUDY")]) -> None:
    """Gives disk back: checkpoints that nobody will go on with. Best weights of what is ranked stay."""
    from xlite_search import disk
    from xlite_search.results.compare import open_study
    from xlite_search.storage import alone

    found = open_study(study)
    with alone(found.folder, f"study '{study}'", shown=True):
        before = disk.taken(found.runs())
        disk.free(found.runs())
        left = disk.taken(found.runs())
    print(f"{study}: {(before - left) / 1e6:,.1f} MB given back, {left / 1e6:,.1f} MB of checkpoints are left")


@app.command()
def verify(study: Annotated[str, typer.Argument(metavar="STUDY")], json_: Json = False) -> None:
    """Nothing lost? Manifests, checkpoints, decisions, the teacher and MLflow, one against the other."""
    from xlite_search.results.compare import open_study
    from xlite_search.search.verify import verify as verify_study

    found = open_study(study)
    broken = verify_study(found)
    if json_:
        print(json.dumps({"study": study, "broken": broken}))
    else:
        print("\n".join(broken) if broken else f"{study}: {len(found.trials)} trials, and nothing is lost")
    raise typer.Exit(STORAGE if broken else 0)


@app.command()
def compare(studies: Annotated[list[str], typer.Argument(metavar="STUDY...")], json_: Json = False) -> None:
    """The ranked table of one or more studies, and AUROC by finding with the number of positives."""
    from xlite_search.results import compare as results

    comparison = results.compare(studies)
    if json_:
        print(json.dumps(results.as_json(comparison)))
    else:
        results.show(comparison)


@app.command()
def best(
    study: Annotated[str, typer.Argument(metavar="STUDY")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write it.")] = Path("best.yaml"),
) -> None:
    """Exports the best config with its provenance."""
    from xlite_search.results.best import write_best

    found = write_best(study, output)
    print(f"{output}: {found['label']}, {found['metric']} {found['score']:.4f} at epoch {found['best_epoch']}")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="BEST.YAML", help="What `best` exported.")],
    split: Annotated[str, typer.Option(help="What to fit on: train, or train+val.")] = "train+val",
    set_: Settings = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name; default: the study's, with the config's hash.")
    ] = None,
    cpu: Cpu = False,
) -> None:
    """Final training of an exported config; leaves a model folder and an MLflow run."""
    from xlite_search import machine
    from xlite_search.results.best import read_best, train_final

    machine.expect_gpu_support(cpu)
    record = train_final(config, split=split, settings=_settings(set_), name=name)
    document = read_best(config)
    metric = document["metric"]
    print(f"model: {record.folder}")
    if record.config["data"]["fit"] == "train":
        print(f"{metric}: {record.best_score(metric)!r} at epoch {record.best.epoch if record.best else 0}")
        print(f"the study's trial: {document['score']!r} at epoch {document['best_epoch']}")
        if record.best_score(metric) != document["score"]:
            print("another score than the trial's: other code, settings, versions or processor?", file=sys.stderr)


@app.command()
def ui(port: Annotated[int, typer.Option(help="On loopback.", min=1, max=65535)] = 5000) -> None:
    """MLflow's pages on all studies; ends with Ctrl+C."""
    from xlite_search import pages

    try:
        served = pages.start(port)
        print(served.address(), flush=True)
        if newest := served.newest():
            print(f"{newest[0]}, the best first: {newest[1]}", flush=True)
        served.serve()
    except EngineDied as why:
        print(f"error: {why}", file=sys.stderr)
        raise typer.Exit(why.exit_code) from None


@app.command()
def doctor(json_: Json = False) -> None:
    """This machine: versions, GPU, OpenCV installed twice, disk."""
    from xlite_search.machine import examine

    findings = examine()
    if json_:
        print(json.dumps([{"what": f.what, "found": f.found, "advice": f.advice} for f in findings]))
    else:
        for finding in findings:
            print(f"{'  ' if not finding.advice else '! '}{finding.what:24} {finding.found}")
            if finding.advice:
                print(f"  {'':24} -> {finding.advice}")
    raise typer.Exit(2 if any(f.advice for f in findings) else 0)


def _study(space: str, demo: bool, set_: list[str] | None, name: str | None) -> tuple[Study, str]:
    """The study as the command line asks for it, and its name. Draws the demo's phantoms if they are not there."""
    from xlite_search.search.study import load_study

    settings, called = _settings(set_), name or Path(space).stem + ("-demo" if demo else "")
    places.study_folder(called)
    study = load_study(space)
    if settings and not demo and name is None:
        raise BadInput("a study changed by --set wants a name of its own: add --name NAME")
    if demo:
        study = study.as_demo()
    study = study.with_settings(settings) if settings else study
    if demo:
        _draw_phantoms(study.base.data.name)
    return study, called


def _draw_phantoms(name: str) -> None:
    from xlite_search import console
    from xlite_search.data.prepare import prepare as prepare_data
    from xlite_search.data.sources.phantom import Phantom
    from xlite_search.search.study import DEMO_DATA, DEMO_IMAGES, DEMO_SIZE

    if name == DEMO_DATA and not (places.data_folder(name) / "manifest.json").exists():
        counter = console.Counter("phantoms drawn")
        prepare_data(name, Phantom(images=DEMO_IMAGES), DEMO_SIZE, counter, say=console.say)


def _settings(given: list[str] | None) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for item in given or []:
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise BadInput(f"--set {item}: expected NAME=VALUE, such as kd.tau=4 or 'kd.tau=[1,4]'")
        name = name.strip()
        if name in settings:
            raise BadInput(f"--set {item}: {name} is set twice; for several values give a list, '{name}=[A, B]'")
        settings[name] = _value(value, name, f"--set {item}")
    return settings


def _value(text: str, name: str, what: str) -> Any:
    """A setting's value as the command line has it. A teacher's settings are a run's; the teacher itself is a folder,
    or several: text, as weights are."""
    from xlite_search import written
    from xlite_search.config import RunConfig

    like = "weights" if name == "teacher" else name.removeprefix("teacher.")
    return written.value(text, RunConfig, like, what)


def _listed(classes: str | None) -> tuple[str, ...]:
    return () if classes is None else tuple(name.strip() for name in classes.split(","))


def _split_specs(
    ratios: str | None, folds: int | None, official: Path | None, incomplete: bool, seed: int
) -> list[AnySplit]:
    """One split, or one per fold."""
    from xlite_search.data.lists import Official
    from xlite_search.data.splits import ByPatient, Folds
    from xlite_search.spec import parse

    if sum(given is not None for given in (ratios, folds, official)) > 1:
        raise BadInput("--ratios, --folds and --official are three ways to split: give one of them")
    if folds is not None:
        several = {"folds": folds, "seed": seed}
        return [parse(Folds, several | {"fold": fold}, "--folds: ") for fold in range(max(folds, 1))]
    if official is not None:
        return [Official(path=str(official), seed=seed, incomplete=incomplete)]
    try:
        shares = [float(share) for share in (ratios or "70/15/15").split("/")]
        whole = sum(shares)
        train, val, test = [share / whole for share in shares] if whole > 1.5 else shares
    except ValueError:
        raise BadInput(f"--ratios {ratios}: expected three numbers such as 70/15/15") from None
    return [parse(ByPatient, {"ratios": (train, val, test), "seed": seed}, f"--ratios {ratios}: ")]


def _scheduler(study: Study) -> str:
    if study.scheduler is None:
        return "every one is trained to its end"
    rungs = ", ".join(map(str, study.scheduler.rungs(study.base.epochs)))
    how = "stops the weak on arrival" if study.scheduler.asynchronous else "keeps the best of all"
    return f"ASHA {how} at epochs {rungs}" if rungs else "too few epochs for ASHA to stop any"


def _epochs(plan: Plan) -> str:
    """As many as the trials have; of a search whose trials are not all known, as many as its base has."""
    asked = {trial.config.epochs for trial in plan.trials}
    if len(asked) > 1:
        return f"{min(asked)} to {max(asked)} epochs each"
    return f"{max(asked, default=plan.study.base.epochs)} epochs each at most"


def _trials(plan: Plan) -> str:
    if not plan.study.suggester:
        return f"{len(plan.trials)} trial{'s' if len(plan.trials) != 1 else ''}"
    return f"{plan.in_all} trials, suggested {plan.study.search.batch} at a time"


def _is_complete(plan: Plan) -> bool:
    """Everything trained and mirrored, and the study is still the one that it was."""
    from xlite_search import tracking
    from xlite_search.records import StudyRecord
    from xlite_search.search.plan import changes

    if not (plan.folder / "study.json").exists():
        return False
    study = StudyRecord.load(plan.folder)
    there = all((study.trial_folder(key) / "run.json").exists() for key in study.trials) and tracking.knows(plan.name)
    same = not changes(study, plan) and study.trials == tuple(trial.key for trial in plan.trials)
    return there and study.tracked and same and all(r.over for r in study.runs())


def _closing_words(name: str) -> int:
    """The table, the best config, where things are. The exit code: 1 if a trial failed or is not over."""
    from xlite_search import console
    from xlite_search.results import compare as results

    comparison = results.compare([name])
    results.show(comparison, classes=False)
    failed = [run for run in comparison.others if run.status == "failed"]
    if failed and not comparison.ranked:
        console.say(f"\nNo trial was trained to its end: {len(failed)} failed, the first because {failed[0].cause}")
    elif not comparison.ranked:
        console.say(f"\nNo trial has a value of {comparison.metric}: there is nothing to rank")
    if comparison.ranked:
        winner = comparison.ranked[0]
        settings = " ".join(f"{name}={value}" for name, value in winner.settings.items())
        console.say(f"\nBest config: {settings}  ({comparison.metric} {winner.best_score(comparison.metric):.4f})")
        console.say(f"Export it:   python -m xlite_search best {name} -o best.yaml")
        console.say(f"By finding:  python -m xlite_search compare {name}")
    console.say(f"Files:       {places.study_folder(name)}")
    console.say("MLflow:      python -m xlite_search ui")
    runs = (*comparison.ranked, *comparison.others)
    return 0 if comparison.ranked and all(run.status in ("finished", "stopped") for run in runs) else 1


def _write_any_name() -> None:
    """What the output's encoding does not have is escaped: a name of another alphabet ends no verb after its work."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    _write_any_name()
    places.give_home()
    if Path("trainables").is_dir():  # the installed command does not have the working folder on its path
        sys.path.insert(0, os.getcwd())
    try:
        app()
    except (Interrupted, EngineDied) as why:
        from xlite_search.search.engine import end_process

        end_process(why)
    except XliteError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        from xlite_search.storage import FULL

        if error.strerror is None or (error.filename is None and error.errno not in FULL):
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror}", file=sys.stderr)
        sys.exit(STORAGE if error.errno in FULL else BadInput.exit_code)
    except SystemExit as ended:  # typer's way of handing Ctrl+C on
        if ended.code == INTERRUPTED:
            print("interrupted: the same command goes on where it stopped", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()

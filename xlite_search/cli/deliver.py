"""Verbs on a model that is handed over: export, predict."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlite_search.cli.options import Cpu, Json
from xlite_search.cli.tracked import track
from xlite_search.errors import BadInput, Damaged
from xlite_search.evaluation.named import find_model

if TYPE_CHECKING:
    from xlite_search.deploy.predict import Predictor


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, or its folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where to write it.")],
    int8: Annotated[
        bool, typer.Option("--int8", help="In 8 bits too, if that loses next to nothing on the validation part.")
    ] = False,
    pt2: Annotated[bool, typer.Option("--pt2", help="A program of torch.export too; loading it runs pickle.")] = False,
    register: Annotated[
        str, typer.Option(metavar="NAME", help="In MLflow's model registry too, as NAME with alias champion.")
    ] = "",
    cpu: Cpu = False,
) -> None:
    """Writes a folder that answers without PyTorch: ONNX, weights, preprocessing, known answers, card, hashes."""
    from xlite_search import console, machine

    folder = find_model(model)
    machine.expect_gpu_support(cpu)
    from xlite_search.deploy.cards import MODEL_CARD, writer
    from xlite_search.deploy.domain import domain_of, files_of
    from xlite_search.deploy.export import export as exported
    from xlite_search.deploy.folder import MANIFEST

    if pt2:
        print("model.pt2: loading it runs pickle, which runs any code; load your own alone", file=sys.stderr)
    with console.Wait("the graph is being written and compared with the model"):
        domain = domain_of(folder)
        more = [writer(folder), lambda *_: files_of(domain)]
        found = exported(folder, output, int8=int8, pt2=pt2, device=machine.device(cpu=cpu), writers=more)
    about = found.manifest
    print(f"{output}: {about.model}, {len(about.classes)} findings")
    print(f"graph and model: {found.parity}")
    if found.int8:
        print(f"int8 is {found.int8}")
    others = [name for name, rule in about.threshold_rules.items() if rule != about.threshold_rule]
    if others:
        print(f"decided by the best F1, for want of a threshold by {about.threshold_rule}: {', '.join(others)}")
    lacking = [name for name in about.classes if name not in about.thresholds]
    if about.threshold_rule and lacking:
        print(f"not decided, without a threshold: {', '.join(lacking)}")
    if not about.calibration:
        print(f"its probabilities are not calibrated; `python -m xlite_search calibrate {model}`, then export again")
    if domain is None:
        print("images that are unlike its training images will not be flagged: these are not here, or too few")
    print(f"card: {output / MODEL_CARD}")
    track(folder, [str((output / MANIFEST).absolute())])
    if register:
        _register(register, folder, output)
    print(f"next: python -m xlite_search predict {output} FILES...")


def _register(name: str, folder: Path, output: Path) -> None:
    """Has MLflow's registry hold the exported folder; its trouble is a line on stderr."""
    from xlite_search import console
    from xlite_search.deploy.folder import manifest_of
    from xlite_search.tracking.registry import CHAMPION, register

    with console.Wait("MLflow's registry is being written"):
        version, trouble = register(name, output, folder, manifest_of(output).model_dump(mode="json"))
    if trouble:
        console.say(trouble)
    else:
        print(f"registered: version {version} of '{name}', alias {CHAMPION}")


def predict(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `export` wrote.")],
    files: Annotated[list[Path] | None, typer.Argument(metavar="[FILES]...", help="PNG, JPEG or DICOM.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV: a line for each file and finding.")] = False,
    json_: Json = False,
    selftest: Annotated[bool, typer.Option("--selftest", help="Ask the folder's known answers again.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="With the 8-bit model.")] = False,
    watch: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Answer each file that comes into FOLDER, once; with --into.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where --watch keeps answers.csv, a line for each file.")
    ] = None,
) -> None:
    """Asks an exported model about image files; needs no PyTorch.

    A file that cannot be used is named with its reason, the others are answered, and the exit code is 2.
    """
    from xlite_search.deploy.answers import as_csv, as_json, as_table, sentence
    from xlite_search.deploy.predict import Predictor

    if csv and json_:
        raise BadInput("--csv and --json: choose one")
    if (watch is None) != (into is None):
        raise BadInput("--watch FOLDER and --into FOLDER go together: what comes into one is answered in the other")
    if watch and (files or csv or json_):
        raise BadInput("--watch answers what comes into its folder, in a table: no FILES, no --csv, no --json")
    if not files and not selftest and not watch:
        raise BadInput(f"no files: `python -m xlite_search predict {folder} FILES...`, or --selftest")
    predictor = Predictor.open(folder, int8=int8)
    if selftest:
        print(_known_answers(folder, predictor, int8=int8), file=sys.stderr if files else sys.stdout)
    if watch and into:
        from xlite_search.cli.watch import watch as watched

        watched(watch, predictor, into, int8=int8)
    quantised = " --int8" if int8 else ""
    following = f"next: python -m xlite_search predict {folder} {'FILES...' if selftest else '--selftest'}{quantised}"
    if selftest and files:
        following = f"next: python -m xlite_search serve {folder}"
    if not files:
        print(following)
        return
    answers = list(predictor.of_files(files))
    good = [answer for answer in answers if not answer.error]
    if json_:
        print(as_json(predictor, answers))
    elif good:
        print((as_csv if csv else as_table)(predictor, good))
    bad = [answer for answer in answers if answer.error]
    for answer in bad:
        print(f"error: {sentence(answer)}", file=sys.stderr)
    if bad:
        raise typer.Exit(BadInput.exit_code)
    if not (csv or json_):
        print(following)


def _known_answers(folder: Path, predictor: Predictor, *, int8: bool) -> str:
    """By how much the answers here differ from the folder's known ones. Raises Damaged if by too much."""
    from xlite_search.deploy.predict import ANSWERS_LIMIT, self_test

    found = self_test(predictor, int8=int8)
    said = (
        f"{found.images} known answers: logits differ by {found.logits:.1e} at most (limit {ANSWERS_LIMIT:g}), "
        f"probabilities by {found.probabilities:.1e}"
    )
    if not found.passed:
        raise Damaged(f"{folder}: {said}; this machine computes another model: compare the versions in export.json")
    return said

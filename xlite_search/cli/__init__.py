"""Command line: one verb, one function. Data go to stdout, progress to stderr.

Exit codes: 0 done, 1 some trials failed, 2 bad input, 3 storage, 4 the engine died, 130 Ctrl+C, 141 nobody reads on,
143 terminated.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from xlite_search import __version__, interrupts, places
from xlite_search.cli import cards, data, deliver, explain, judge, machine, model, serve, study, take
from xlite_search.errors import GOES_ON, BadInput, EngineDied, Interrupted, XliteError

INTERRUPTED, STORAGE, UNREAD = 130, 3, 141
#: verbs that go on where they were interrupted
RESUMED = ("run", "train", "prepare")
#: Imports and plans make objects that stay: looking through them every 700 is a large part of a plan's time.
COLLECT_EVERY = 50_000
VERBS = (
    data.prepare,
    data.split,
    data.audit,
    model.models,
    study.plan,
    study.run,
    study.status,
    study.clean,
    study.verify,
    study.compare,
    study.report,
    model.best,
    model.train,
    take.take,
    judge.calibrate,
    judge.evaluate,
    deliver.export,
    deliver.predict,
    serve.serve,
    cards.card,
    explain.explain,
    machine.ui,
    machine.doctor,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
for verb in VERBS:
    app.command()(verb)


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


def _write_any_name() -> None:
    """What the output's encoding does not have is escaped: a name of another alphabet ends no verb after its work."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _resumed(words: Sequence[str]) -> bool:
    """Whether a command goes on where it was interrupted."""
    return bool(words) and (words[0] in RESUMED or (words[0] == "predict" and "--watch" in words))


def _unread(ended: OSError | SystemExit) -> bool:
    """Whether whoever read our output has gone, as `head` does; typer and rich make it an exit with code 1."""
    error = ended.__context__ if isinstance(ended, SystemExit) and ended.code == 1 else ended
    if not isinstance(error, OSError):
        return False
    return error.errno == errno.EPIPE or (os.name == "nt" and error.errno == errno.EINVAL and error.filename is None)


def _drop_output() -> None:
    """What is still to be written goes nowhere: Python would complain at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def main() -> None:
    try:
        _main()
    except (OSError, SystemExit) as ended:
        if not _unread(ended):
            raise
        _drop_output()
        sys.exit(UNREAD)


def _main() -> None:
    gc.set_threshold(COLLECT_EVERY, 20, 100)
    _write_any_name()
    places.give_home()
    if Path("trainables").is_dir():  # the installed command does not have the working folder on its path
        sys.path.insert(0, os.getcwd())
    try:
        with interrupts.remembered():
            try:
                app()
            finally:
                if sys.stdout:
                    sys.stdout.flush()  # what is wrong with the output is told while it can be
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
            print(GOES_ON if _resumed(sys.argv[1:]) else "interrupted; run the command again", file=sys.stderr)
        raise

"""Verbs on this machine: ui, doctor."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from xlite_search.cli.options import (
    Json,
)
from xlite_search.errors import EngineDied


def ui(port: Annotated[int, typer.Option(help="On loopback.", min=1, max=65535)] = 5000) -> None:
    """MLflow's pages on all studies; ends with Ctrl+C."""
    from xlite_search.tracking import pages

    try:
        served = pages.start(port)
        print(served.address(), flush=True)
        if newest := served.newest():
            print(f"{newest[0]}, the best first: {newest[1]}", flush=True)
        served.serve()
    except EngineDied as why:
        print(f"error: {why}", file=sys.stderr)
        raise typer.Exit(why.exit_code) from None


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

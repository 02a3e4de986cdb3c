"""`compare` on other people's runs: where they are, and what is printed of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from xlite_search.errors import BadInput

Csv = Annotated[
    Path | None,
    typer.Option("--csv", metavar="FILE", help="Other people's runs: a row each, with run, metric.* and settings."),
]
Mlflow = Annotated[
    str | None,
    typer.Option("--mlflow", metavar="URI", help="Other people's runs in MLflow: a server, a database or a folder."),
]
Experiment = Annotated[str | None, typer.Option("--experiment", metavar="NAME", help="The experiment of --mlflow.")]
Patients = Annotated[
    Path | None,
    typer.Option("--patients", metavar="FILE", help="A table of images and patients: intervals of their predictions."),
]
Factor = Annotated[
    list[str] | None,
    typer.Option("--factor", metavar="NAME", help="The setting that is asked about; what else differs confounds it."),
]
Metric = Annotated[
    str | None, typer.Option("--metric", metavar="NAME", help="The score that other people's runs are compared by.")
]


class Asked(NamedTuple):
    """What is asked about runs: factors, the score, a run to compare with, a table of patients, gaps that are a tie."""

    factors: Sequence[str]
    metric: str | None
    against: str | None
    patients: Path | None
    margin: float


def compare_others(
    csv: Path | None,
    mlflow: str | None,
    experiment: str | None,
    asked: Asked,
    output: Path | None = None,
    *,
    json_: bool = False,
) -> None:
    """Prints, or writes, what there is to say of the runs of a table, of an MLflow experiment, or of both together."""
    from xlite_search.results import columns
    from xlite_search.results.foreign import mlflow_runs, read_runs
    from xlite_search.results.others import others_of, write

    if (mlflow is None) != (experiment is None):
        raise BadInput("--mlflow URI and --experiment NAME go together: give both")
    runs = read_runs(csv) if csv else []
    if mlflow is not None and experiment is not None:
        taken = {run.name for run in runs}
        logged = mlflow_runs(mlflow, experiment)
        runs += [replace(run, name=f"{experiment}: {run.name}") if run.name in taken else run for run in logged]
    found = others_of(" and ".join(str(each) for each in (csv, experiment) if each), runs, **asked._asdict())
    if output:
        write(found, output)
    elif json_:
        print(json.dumps(found.as_json()))
    else:
        columns.show(found.tables())

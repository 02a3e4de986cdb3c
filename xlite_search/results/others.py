"""Comparison of other people's runs: their scores, the pairs that the guard lets compare, intervals by patient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xlite_search.errors import BadInput
from xlite_search.results.columns import ABSENT, Column, Table, ends, number
from xlite_search.results.confounders import RunFacts
from xlite_search.results.foreign import score_of
from xlite_search.results.inference import joint
from xlite_search.results.intervals import Interval, own
from xlite_search.results.outputs import SHOWN
from xlite_search.results.pairs import Law, Pairs, pairs_of
from xlite_search.results.pairs import tables as pair_tables
from xlite_search.results.prediction_files import Judged, judged
from xlite_search.results.ties import MARGIN
from xlite_search.storage import write_atomic

#: what two figures of one AUROC may differ by, since one was rounded
ROUNDED = 0.001


@dataclass(frozen=True)
class Others:
    """Runs of a table or of an MLflow experiment, as `compare` shows them.

    source  where they are from
    areas   of those whose predictions are there, by the run's name
    """

    source: str
    pairs: Pairs
    judged: Judged
    areas: dict[str, Interval]

    def tables(self) -> Iterator[Table | str]:
        """The scores, then the pairs, then what a reader has to know."""
        runs, metric = self.pairs.runs, self.pairs.metric
        columns = [Column("run", [run.name for run in runs], text=True)]
        if metric:
            columns.append(Column(metric, [number(run.scores.get(metric)) for run in runs]))
        notes = list(self.judged.notes)
        if self.areas:
            found = [self.areas.get(run.name) for run in runs]
            columns.append(Column("AUROC", [number(each.value if each else None) for each in found]))
            columns.append(Column("95 % interval", [ends(each.low, each.high) if each else ABSENT for each in found]))
            notes.insert(0, self._judged_words())
        yield Table(f"{self.source}: {len(runs)} runs", columns, notes)
        yield from pair_tables(self.pairs)

    def _judged_words(self) -> str:
        many = len(self.judged.findings)
        return (
            f"AUROC: of the predictions, the mean of {many} finding{'s' if many > 1 else ''} on {self.judged.images:,} "
            f"images of {self.judged.patients:,} patients; intervals by patient, of these weights and not their recipe"
        )

    def as_json(self) -> dict[str, Any]:
        runs = [
            {"run": run.name, "scores": dict(run.scores), "settings": dict(run.settings)}
            | {"provenance": dict(run.provenance)}
            | self._area(run)
            for run in self.pairs.runs
        ]
        about = {"findings": list(self.judged.findings), "images": self.judged.images, "patients": self.judged.patients}
        return {
            "source": self.source,
            "metric": self.pairs.metric,
            "runs": runs,
            **(about if self.areas else {}),
            "notes": [*self.judged.notes, *self.pairs.notes],
            "pairs": self.pairs.as_json(),
        }

    def _area(self, run: RunFacts) -> dict[str, Any]:
        found = self.areas.get(run.name)
        if found is None:
            return {}
        about = found.as_json()
        return {"auroc": about.pop("value")} | about


def others_of(
    source: str,
    runs: Sequence[RunFacts],
    *,
    metric: str | None = None,
    factors: Sequence[str] = (),
    against: str | None = None,
    patients: Path | None = None,
    margin: float = MARGIN,
) -> Others:
    """The comparison of runs that somebody else may have trained; `patients` is a table of images and patients.

    Raises:
        BadInput: there is no run, none has the score or the factor that is asked for, or a file has another form.
    """
    if not runs:
        raise BadInput(f"{source}: there is no run with a score")
    found = judged(runs, patients)
    score = score_of(runs, metric)
    law = _law(found)
    intervals = own(law.areas, law.patients) if law else []
    areas = dict(zip(found.influences, intervals, strict=True))
    found = replace(found, notes=(*found.notes, *_contradictions(runs, score, areas)))
    return Others(source, pairs_of(runs, score, factors=factors, against=against, law=law, margin=margin), found, areas)


def write(found: Others, output: Path) -> None:
    """Writes what is shown of them as the file's name ends, `.md` or `.tex`. Raises BadInput for any other."""
    if output.suffix not in SHOWN:
        raise BadInput(f"-o {output}: other people's runs are written as {' or '.join(SHOWN)}")
    write_atomic(output, SHOWN[output.suffix](found.tables()).encode())


def _contradictions(runs: Sequence[RunFacts], score: str, areas: Mapping[str, Interval]) -> Iterator[str]:
    """Runs whose score is no AUROC of their predictions, if it is called one of all findings."""
    if "auc" not in score.lower() and "auroc" not in score.lower():
        return
    for run in runs:
        told, found = run.scores.get(score), areas.get(run.name)
        if told is not None and found is not None and abs(told - found.value) > ROUNDED:
            yield f"{run.name}: its {score} is {told:.4f}, its predictions have {found.value:.4f}: of other images?"


def _law(found: Judged) -> Law | None:
    """Of the mean AUROCs of the predictions over the findings."""
    if not found.influences:
        return None
    influences = list(found.influences.values())
    place = {name: number for number, name in enumerate(found.influences)}
    return Law(place, np.array([each.score.mean() for each in influences]), joint(influences))

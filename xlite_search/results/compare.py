"""Comparison of studies: ranking, pairs over seeds, findings, cost.

Only runs that were trained to their end are ranked. A run that was stopped at a rung has had fewer epochs than its
peers: it is listed with the rung and the score it had there, never ranked against them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from xlite_search import places
from xlite_search.data.dataset import open_data
from xlite_search.data.packed import PackedSet
from xlite_search.data.splits import AnySplit
from xlite_search.errors import BadInput, XliteError, did_you_mean
from xlite_search.labels import told_apart
from xlite_search.records import ARTIFACTS, TABLE, RunRecord
from xlite_search.results import columns
from xlite_search.results.against import Against
from xlite_search.results.between import between
from xlite_search.results.claimed import claims_of, own_intervals
from xlite_search.results.claims import MOST, Claims
from xlite_search.results.confounders import RunFacts
from xlite_search.results.effects import Effects, study_effects
from xlite_search.results.formats import markdown
from xlite_search.results.front import figure, front
from xlite_search.results.guarded import Guarded, guarded, looked_at
from xlite_search.results.importance import Importances, importances_of
from xlite_search.results.influence import Figure
from xlite_search.results.paired import Judge, figure_of, fold_of
from xlite_search.results.plain import as_json, energy_wh
from xlite_search.results.reached import Reached, reached
from xlite_search.results.run_facts import of_comparison
from xlite_search.results.tables import tables
from xlite_search.results.teachers import Distillation, TeacherCost, cost_of, distillation
from xlite_search.results.ties import MARGIN
from xlite_search.study_record import StudyRecord, homes
from xlite_search.trainable import config_of

CHANCE_AUROC = 0.5


def open_study(name: str) -> StudyRecord:
    """Raises BadInput if there is no such study here, with a suggestion."""
    try:
        return StudyRecord.load(places.study_folder(name))
    except FileNotFoundError:
        known = places.studies()
        there = f"known are {', '.join(known)}" if known else "there is none yet"
        where = places.runs_root() / "studies"
        raise BadInput(f"no study '{name}' in {where}{did_you_mean(name, known) or f'; {there}'}") from None


@dataclass(frozen=True)
class Comparison:
    """Runs of one or more studies that share a metric.

    minimize further objectives that all the studies have, lower is better
    ranked   trained to their end, best first
    others   stopped, failed or not over yet, in the study's order
    support  validation images, and how many of them have each finding; empty if no run has begun
    teaching what the teacher's logits cost; None without one
    distillation  teacher, and students with and without one; None where nobody had a teacher
    claims   intervals, what is tied with the best, what may be said; None where nothing can be, `unclaimed` says why
    confounded  which runs may not be compared with the best, and why; they have no part in the claims
    facts    what belongs under every table: that the data set is a part of its label table
    left_out  why points of the studies' spaces were not trained, a sentence each (`StudyRecord.left_out`)
    ranges   of a search, what it suggests from (`StudyRecord.distributions`); empty of grids and of several studies
    """

    names: tuple[str, ...]
    metric: str
    minimize: tuple[str, ...]
    ranked: list[RunRecord]
    others: list[RunRecord]
    images: int
    support: dict[str, int]
    teaching: TeacherCost | None
    distillation: Distillation | None = None
    claims: Claims | None = None
    unclaimed: str = ""
    confounded: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    ranges: Mapping[str, str] = field(default_factory=dict)

    def labels(self, runs: Sequence[RunRecord]) -> list[str]:
        """What to call these runs, `[run]`: equal labels of several studies say which they are of."""
        everyone = [*self.ranked, *self.others]
        names = told_apart([run.label for run in everyone], homes(everyone))
        called = {run.folder: name for run, name in zip(everyone, names, strict=True)}
        return [called[run.folder] for run in runs]

    @property
    def energy_wh(self) -> float:
        """What the GPUs drew for all runs, in Wh; 0 where nobody knows."""
        return sum(energy_wh(run) for run in (*self.ranked, *self.others))

    @property
    def unread(self) -> int:
        """Epochs whose energy is not known."""
        epochs = [epoch for run in (*self.ranked, *self.others) for epoch in run.epochs]
        return sum("energy/gpu_wh" not in epoch for epoch in epochs)

    @property
    def figure(self) -> Figure:
        """What is told of single findings: that which the metric is the mean of."""
        return figure_of(self.metric)

    @property
    def best(self) -> RunRecord:
        """The run that scored best; of settings with several seeds the best one's most usual run, not its luckiest.

        Raises BadInput if no run was trained to its end.
        """
        if not self.ranked:
            raise BadInput(f"study '{self.names[0]}' has no run that was trained to its end; `run` it first")
        if self.claims and self.claims.about == "recipe":
            return self.claims.usual
        return self.ranked[0]

    @property
    def is_done(self) -> bool:
        """Something is ranked, and every run was trained to its end or stopped by the scheduler."""
        return bool(self.ranked) and all(run.status in ("finished", "stopped") for run in (*self.ranked, *self.others))

    def objectives(self) -> NDArray[np.float64]:
        """What the ranked runs reached, `[run, objective]`: the metric and what is to be low."""
        names = (self.metric, *self.minimize)
        return np.array([[run.objective(name) for name in names] for run in self.ranked]).reshape(-1, len(names))

    def effects(self) -> Effects | None:
        """Main effects of a grid's factors; None of several studies, of which each has its own."""
        everyone = [*self.ranked, *self.others]
        return study_effects(everyone, self.metric) if len(self.names) == 1 else None

    def importances(self) -> Importances | None:
        """What decides whether a run of a search is a good one; None of several studies, and of grids."""
        if not self.ranges:
            return None
        return importances_of(self.ranges, self.metric, [*self.ranked, *self.others])

    def reached(self) -> Reached | None:
        """AP, F1, Brier score and calibration error of the best run; None where predictions or data are not there."""
        if not self.ranked:
            return None
        try:
            judge = Judge(open_data(config_of(self.best).data))
            name = self.labels([self.best])[0]
            return reached(self.best, name, judge, self.figure) if judge.findings.any() else None
        except XliteError:
            return None

    def on_front(self) -> list[bool]:
        """Which of the ranked runs no other is better than; none if there is a single objective."""
        if not self.minimize or not self.ranked:
            return [False] * len(self.ranked)
        return [bool(kept) for kept in front(self.objectives(), self._up)]

    def front_figure(self) -> bytes | None:
        """PNG of the front, or None if there is none."""
        if not any(self.on_front()):
            return None
        return figure(self.labels(self.ranked), self.objectives(), (self.metric, *self.minimize), self._up)

    @property
    def _up(self) -> list[bool]:
        return [True, *(False for _ in self.minimize)]

    def chance(self) -> dict[str, float]:
        """What scores that know nothing reach: AUROC 0.5 by definition, average precision prevalence."""
        present = [count for count in self.support.values() if count]
        found = {"val/ap_macro": float(np.mean(present)) / self.images if present else math.nan}
        for name in ("val/auroc_macro", "val/auroc_supported", self.metric):
            kind, _, finding = name.removeprefix("val/").partition("/")
            if kind.startswith("auroc"):
                found[name] = CHANCE_AUROC
            elif kind == "ap" and self.support.get(finding):
                found[name] = self.support[finding] / self.images
        return found


def compare(names: list[str], margin: float = MARGIN) -> Comparison:
    """Studies by their names; gaps in AUROC within `margin` are a tie.

    Raises:
        BadInput: a study is not there, or they were ranked by different metrics, or validated on other images.
    """
    studies = [open_study(name) for name in dict.fromkeys(names)]
    metrics = {study.metric for study in studies}
    if len(metrics) > 1:
        raise BadInput(
            f"the studies have different metrics ({', '.join(sorted(metrics))}) and cannot be ranked together"
        )
    if len({(study.definition["data"], study.definition["split"]) for study in studies}) > 1:
        raise BadInput(f"studies {', '.join(names)} were validated on other images, and cannot be ranked together")
    metric = studies[0].metric
    runs = [run for study in studies for run in study.runs()]
    ranked = [run for run in runs if run.status == "finished" and math.isfinite(run.best_score(metric))]
    ranked.sort(key=lambda run: run.best_score(metric), reverse=True)
    first = {run.folder for run in ranked}
    others = [run for run in runs if run.folder not in first]
    teaching = cost_of(studies, runs)
    shared = tuple(name for name in studies[0].minimize if all(name in study.minimize for study in studies))
    images, support = _support(runs)
    called = tuple(study.name for study in studies)
    facts = _facts(runs)
    found = Comparison(called, metric, shared, ranked, others, images, support, teaching, facts=facts)
    left_out = tuple(sentence for study in studies for sentence in study.left_out())
    found = replace(found, distillation=distillation(studies, ranked, metric), left_out=left_out)
    looked = of_comparison(found, looked_at(len(ranked)))
    guard, apart = _guarded(looked, ranked), _apart(looked, ranked, studies)
    claims, unclaimed = _claims(found, studies, margin, guard.fair)
    ranges = studies[0].distributions if len(studies) == 1 else {}
    return replace(found, claims=claims, unclaimed=unclaimed, confounded=(*apart, *guard.reasons), ranges=ranges)


def _apart(looked: Sequence[RunFacts], ranked: Sequence[RunRecord], studies: Sequence[StudyRecord]) -> list[str]:
    """What lies between several studies, a sentence; nothing where they are one question."""
    known = list(zip((run.folder.parents[1] for run in ranked), looked, strict=False))  # the first runs are looked at
    said = between([[facts for home, facts in known if home == study.folder] for study in studies]).sentence()
    return [said] if said else []


def _guarded(looked: Sequence[RunFacts], ranked: Sequence[RunRecord]) -> Guarded:
    """Which runs may be compared with the best one of their fold, and why the others may not."""
    fair, told = [False] * len(ranked), list[tuple[str, ...]]()
    for fold in dict.fromkeys(fold_of(run) for run in ranked):
        places = [place for place, run in enumerate(ranked) if fold_of(run) == fold]
        found = guarded([looked[place] for place in places if place < len(looked)], len(places))
        for place, kept in zip(places, found.fair, strict=False):
            fair[place] = kept
        told += [found.reasons] if found.reasons else []
    more = [f"so it is in {len(told) - 1} more folds: --json says why"] if len(told) > 1 else []
    return Guarded(tuple(fair), (*(told[0] if told else ()), *more))


def _claims(
    found: Comparison, studies: list[StudyRecord], margin: float, fair: Sequence[bool]
) -> tuple[Claims | None, str]:
    """What may be claimed of the runs that may be compared, or why nothing may; and the others' own intervals."""
    makers = {study.folder: study.maker or str(study.definition.get("code", "")) for study in studies}
    ranked = [run for run, kept in zip(found.ranked, fair, strict=True) if kept]
    apart = [run for run, kept in zip(found.ranked[:MOST], fair, strict=False) if not kept]
    opened: dict[tuple[str, AnySplit], Judge] = {}

    def judge(run: RunRecord) -> Judge:
        data = config_of(run).data
        of = data.name, data.split
        opened[of] = opened.get(of) or Judge(open_data(data), found.metric)
        return opened[of]

    def maker(run: RunRecord) -> str:
        return makers[run.folder.parents[1]]

    try:
        claims = claims_of(ranked, found.labels(ranked), found.metric, judge, maker, margin)
    except XliteError as error:
        return None, str(error)
    return replace(claims, own=claims.own | own_intervals(apart, judge)), ""


def _facts(runs: list[RunRecord]) -> tuple[str, ...]:
    """That the data set lacks images of its label table, if it is here."""
    try:
        said = PackedSet.open(runs[0].config["data"]["name"]).incomplete
    except (OSError, XliteError, IndexError):
        return ()
    return (said,) if said else ()


def summary(study: str) -> dict[str, bytes]:
    """The files that say how a study went, by name, for its folder and its MLflow run."""
    comparison = compare([study])
    files = {"comparison.json": json.dumps(as_json(comparison), indent=1).encode()}
    files[TABLE] = markdown(tables(comparison, classes=False)).encode()
    picture = comparison.front_figure()
    files |= {"front.png": picture} if picture else {}
    from xlite_search.results.report.build import drawn  # which imports what draws

    return files | drawn(study, comparison)


def show(
    comparison: Comparison, gaps: Against | None = None, *, classes: bool = True, width: int | None = None
) -> None:
    """Prints the tables to stdout, as wide as the terminal is; nothing is left out where it is none."""
    found = [*tables(comparison, classes=classes and not gaps), *([gaps.table()] if gaps else ())]
    columns.show(found, width)


def _support(runs: list[RunRecord]) -> tuple[int, dict[str, int]]:
    """Validation images, and the positives of each finding, as the first run that began wrote them down; of a study
    over folds, of all of them."""
    of_fold: dict[int | None, tuple[int, dict[str, int]]] = {}
    for run in runs:
        if fold_of(run) in of_fold:
            continue
        try:
            said = json.loads((run.folder / ARTIFACTS / "environment.json").read_bytes())["run"]
            support = {name: int(n["val"]) for name, n in said["findings"].items()}
            of_fold[fold_of(run)] = int(said["images"]["val"]), support
        except (OSError, ValueError, KeyError, TypeError):
            continue
    names = dict.fromkeys(name for _, support in of_fold.values() for name in support)
    total = {name: sum(support.get(name, 0) for _, support in of_fold.values()) for name in names}
    return sum(images for images, _ in of_fold.values()), total

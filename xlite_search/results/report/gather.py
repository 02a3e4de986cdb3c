"""What a study's records tell for its report: runs, samplers, confounders, cost, environment."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace

from xlite_search.factors import aliases
from xlite_search.records import ARTIFACTS, RunRecord
from xlite_search.results.compare import Comparison
from xlite_search.results.effects import aliased_survivors
from xlite_search.results.report.content import Cost, Report, Run, Sampler
from xlite_search.results.report.said import Said
from xlite_search.results.tables import SUPPORTED, WHY, by_rung
from xlite_search.study_record import StudyRecord

#: of `data.audit.Audit`, what a sampler keeps by the same names
AUDITED = ("apply", "images", "cv", "no_finding", "effective_size", "distinct", "heaviest")
#: versions and the machine, in this order; what else is known comes behind
MACHINE = ("platform", "cpu", "cores", "cpu_capability", "gpu", "driver", "cuda", "cudnn", "python")


def of_records(study: StudyRecord, comparison: Comparison, said: Said) -> Report:
    """What the records alone tell; the rest is empty."""
    everyone, runs = [*comparison.ranked, *comparison.others], runs_of(comparison)
    return Report(
        study=study.name,
        question=study.question.strip(),
        metric=comparison.metric,
        chance=comparison.chance().get(comparison.metric, math.nan),
        images=comparison.images,
        trained_on=_trained_on(everyone),
        positives=comparison.support,
        counts=counts_of(runs),
        said=said,
        runs=runs,
        best=comparison.labels([comparison.best])[0] if comparison.ranked else "",
        distillation=comparison.distillation,
        rungs=by_rung(comparison) if any(run.status == "stopped" for run in comparison.others) else None,
        facts=comparison.facts,
        objectives=comparison.minimize,
        front=comparison.front_figure() or b"",
        samplers=samplers_of(everyone),
        confounders=confounders_of(comparison),
        cost=cost_of(comparison),
        environment=environment_of(study),
        changed_on_the_way=tuple(str(change) for note in study.accepted for change in note.get("changes", ())),
    )


def _trained_on(runs: Sequence[RunRecord]) -> int:
    """Training images, as the first run that began wrote them down; 0 if none has."""
    for run in runs:
        try:
            said = json.loads((run.folder / ARTIFACTS / "environment.json").read_bytes())["run"]
            return int(said["images"]["train"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return 0


def runs_of(comparison: Comparison) -> tuple[Run, ...]:
    """The ranked ones, best first, then the others as the study has them."""
    everyone = [*comparison.ranked, *comparison.others]
    fronts = [*comparison.on_front(), *(False for _ in comparison.others)]
    rows = zip(everyone, comparison.labels(everyone), fronts, strict=True)
    return tuple(
        _run(run, label, rank if rank <= len(comparison.ranked) else 0, kept, comparison)
        for rank, (run, label, kept) in enumerate(rows, start=1)
    )


def _run(run: RunRecord, label: str, rank: int, on_front: bool, comparison: Comparison) -> Run:
    at_best = run.epochs[run.best.epoch - 1] if run.best else {}
    own = comparison.claims.own.get(run.key) if comparison.claims else None
    drawn = [epoch["energy/gpu_wh"] for epoch in run.epochs if "energy/gpu_wh" in epoch]
    return Run(
        rank=rank,
        key=run.key,
        label=label,
        settings=run.settings,
        status=run.status,
        why="" if rank else run.cause or WHY.get(run.status, ""),
        epochs=len(run.epochs),
        asked=run.length,
        best_epoch=run.best.epoch if run.best else 0,
        score=at_best.get(comparison.metric, math.nan),
        low=own.low if own else math.nan,
        high=own.high if own else math.nan,
        supported=at_best.get(SUPPORTED, math.nan),
        final=run.epochs[-1].get(comparison.metric, math.nan) if run.epochs else math.nan,
        ap=at_best.get("val/ap_macro", math.nan),
        f1=at_best.get("val/f1_macro", math.nan),
        parameters=at_best.get("model/parameters", math.nan),
        seconds=run.seconds,
        gpu_wh=sum(drawn) if drawn else math.nan,
        micro_batch=run.micro_batch or 0,
        curve=tuple(run.metric(comparison.metric)),
        objectives={name: run.objective(name) for name in comparison.minimize},
        on_front=on_front,
    )


def counts_of(runs: Sequence[Run]) -> dict[str, int]:
    """How many runs there are, were trained to the end and ranked, stopped, failed, and are not over."""
    over = {"stopped": "stopped", "failed": "failed"}
    found = {"runs": len(runs), "ranked": 0, "stopped": 0, "failed": 0, "without_score": 0, "unfinished": 0}
    for run in runs:
        if run.rank:
            found["ranked"] += 1
        else:
            found[over.get(run.status, "without_score" if run.status == "finished" else "unfinished")] += 1
    return found


def samplers_of(runs: Sequence[RunRecord]) -> tuple[Sampler, ...]:
    """What each combination of sampler and loss does, as the runs wrote it down when they began."""
    found = [one for run in runs if (one := _sampler(run))]
    different = {json.dumps(asdict(one)): one for one in found}
    return tuple(replace(one, runs=found.count(one)) for one in different.values())


def _sampler(run: RunRecord) -> Sampler | None:
    """None where a run has not written it down."""
    try:
        about = json.loads((run.folder / ARTIFACTS / "balance.json").read_bytes())
        classes = sorted(about["classes"], key=about["positives"].__getitem__)
        normal, images = about["normal"], about["images"]
        return Sampler(
            sampler=about["sampler"],
            loss=about["loss"]["name"],
            runs=1,
            of_images={name: about["positives"][name] / images for name in classes}
            | {normal: about["normals"] / images},
            of_draws={name: about["prevalence"][name] for name in classes} | {normal: about["no_finding"]},
            warnings=tuple(about["warnings"]),
            **{name: about[name] for name in AUDITED},
        )
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None


def confounders_of(comparison: Comparison) -> tuple[str, ...]:
    """Why a gap between these runs may not be its factor's doing, a sentence each."""
    runs = [*comparison.ranked, *comparison.others]
    return (*comparison.confounded, *aliases([run.settings for run in runs]), *aliased_survivors(runs))


def cost_of(comparison: Comparison) -> Cost:
    runs = [*comparison.ranked, *comparison.others]
    energy = comparison.energy_wh
    return Cost(
        seconds=sum(run.seconds for run in runs),
        epochs=sum(len(run.epochs) for run in runs),
        asked=sum(run.length for run in runs),
        gpu_wh=energy or math.nan,
        unread=comparison.unread if energy else 0,
        teacher=comparison.teaching.words() if comparison.teaching else "",
    )


def environment_of(study: StudyRecord) -> dict[str, str]:
    """Machine and versions that the study began with, and the code's commit."""
    about = {name: study.environment[name] for name in MACHINE if name in study.environment} | study.environment
    about = {name: value for name, value in about.items() if value not in ("none", "")}
    return about | ({"commit": study.commit} if study.commit else {})

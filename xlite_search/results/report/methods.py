"""Methods paragraphs of a report: search budget, seeds, stops, data and statistics, as a paper would have them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xlite_search.console import duration
from xlite_search.labels import texts
from xlite_search.records import RunRecord
from xlite_search.results.importance import CAVEAT
from xlite_search.results.inference import CONFIDENCE, DRAWS
from xlite_search.results.report.content import Report, in_words
from xlite_search.spec import flatten
from xlite_search.study_record import StudyRecord

REFERENCES = (
    "DeLong ER, DeLong DM, Clarke-Pearson DL (1988). Comparing the areas under two or more correlated receiver "
    "operating characteristic curves. Biometrics 44.",
    "Obuchowski NA (1997). Nonparametric analysis of clustered ROC curve data. Biometrics 53.",
    "Newcombe RG (2006). Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2. "
    "Statistics in Medicine 25.",
    "Hsu JC (1984). Constrained simultaneous confidence intervals for multiple comparisons with the best. Annals of "
    "Statistics 12.",
    "Westfall PH, Young SS (1993). Resampling-based multiple testing. Wiley.",
    "Holm S (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics 6.",
    "Bouthillier X et al. (2021). Accounting for variance in machine learning benchmarks. MLSys 3.",
    "Nadeau C, Bengio Y (2003). Inference for the generalization error. Machine Learning 52.",
    "Tsamardinos I, Greasidou E, Borboudakis G (2018). Bootstrapping the out-of-sample predictions for efficient and "
    "accurate cross-validation. Machine Learning 107.",
    "Watanabe S, Bansal A, Hutter F (2023). PED-ANOVA: efficiently quantifying hyperparameter importance in arbitrary "
    "subspaces. IJCAI.",
)
#: settings that a paper names, and how
TOLD = {
    "batch_size": "batch size {}",
    "optimizer.name": "optimizer {}",
    "optimizer.lr": "learning rate {}",
    "optimizer.weight_decay": "weight decay {}",
    "schedule.name": "schedule {}",
    "loss.name": "loss {}",
    "sampler.name": "sampler {}",
    "augment.name": "augmentation {}",
    "mixup": "mixup {}",
    "precision": "precision {}",
    "early_stopping": "early stopping after {} epochs without a better score",
}


def methods(
    study: StudyRecord, runs: Sequence[RunRecord], report: Report, levels: Mapping[str, list[Any]]
) -> tuple[str, ...]:
    """Paragraphs; none of a study without runs."""
    if not runs:
        return ()
    return tuple(
        " ".join(sentences)
        for sentences in (
            list(_search(study, runs, report, levels)),
            list(_data(runs, report)),
            [*_statistics(report), *_importances(report)],
            list(_software(study, report)),
        )
        if sentences
    )


def _search(
    study: StudyRecord, runs: Sequence[RunRecord], report: Report, levels: Mapping[str, list[Any]]
) -> Iterator[str]:
    config = flatten(runs[0].config)
    factors = "; ".join(f"{name}: {_values(values)}" for name, values in levels.items())
    how = " that a sampler of Optuna suggested" if "search" in study.definition else ""
    yield f"Configurations{how}: {len(runs):,}" + (f", which differ in {factors}." if factors else ".")
    told = [
        text.format(texts([config[name]])[0]) for name, text in TOLD.items() if _is_told(config.get(name), name, levels)
    ]
    epochs = sorted({run.length for run in runs})
    upto = f"{epochs[0]:,}" if len(epochs) == 1 else f"{epochs[0]:,} to {epochs[-1]:,}"
    yield f"Each had up to {upto} epochs" + (f" ({', '.join(told)})" if told else "") + f", by {study.trainable}."
    seeds = sorted({int(run.config.get("seed", 0)) for run in runs})
    yield f"Random seeds: {', '.join(map(str, seeds[:10]))}{', ...' if len(seeds) > 10 else ''}."
    yield from _distillation(study, runs, levels)
    yield from _stops(study, report)


def _distillation(study: StudyRecord, runs: Sequence[RunRecord], levels: Mapping[str, list[Any]]) -> Iterator[str]:
    taught = [run.config["kd"] for run in runs if run.config.get("kd")]
    if not taught:
        return
    yield f"Students learnt from a frozen teacher ({_teacher(study)}), which saw the same views."
    if "kd.form" not in levels and taught[0].get("form", "kl") == "kl":
        yield (
            "Loss: alpha * tau^2 * KL(teacher || student at tau) + (1 - alpha) * hard loss; alpha weighs the teacher."
        )


def _teacher(study: StudyRecord) -> str:
    """The teacher's model and key."""
    about = study.definition.get("teacher")
    model = about.get("model", "") if isinstance(about, Mapping) else ""
    return " ".join(part for part in (model, study.teacher) if part) or "not named in the record"


def _is_told(value: Any, name: str, levels: Mapping[str, list[Any]]) -> bool:
    return value not in (None, 0, 0.0, "none") and name not in levels and name.removesuffix(".name") not in levels


def _values(values: Sequence[Any]) -> str:
    shown = texts(values)
    if len(shown) > 8:
        return f"{len(shown):,} values, {shown[0]} to {shown[-1]}" if _numeric(values) else f"{len(shown):,} values"
    return ", ".join(shown)


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _stops(study: StudyRecord, report: Report) -> Iterator[str]:
    rule = study.definition.get("scheduler")
    if isinstance(rule, Mapping) and rule.get("name") == "pareto":
        yield (
            f"From {rule.get('after'):.0%} of the epochs on, runs were stopped that another one of equal or lower cost "
            f"led by more than they could be expected to catch up (confidence {rule.get('confidence'):g}, from the "
            f"spread of the gains of all runs that came as far; slack {rule.get('slack'):g})."
        )
    elif isinstance(rule, Mapping):
        kind = "asynchronously" if rule.get("asynchronous") else "by whole cohorts"
        yield (
            f"Successive halving (ASHA, {kind}) stopped the weaker runs at rungs that begin at epoch "
            f"{rule.get('grace')} and grow by a factor of {rule.get('reduction'):g}."
        )
    else:
        yield "No run was stopped for its score."
    yield f"{in_words(report.counts)}; {report.cost.epochs:,} of {report.cost.asked:,} epochs were trained."


def _data(runs: Sequence[RunRecord], report: Report) -> Iterator[str]:
    data = runs[0].config.get("data", {})
    split = data.get("split", {})
    if not report.images:
        return
    patients = f" of {report.said.patients:,} patients" if report.said.patients else ""
    parts = f"{report.trained_on:,} images to train on and {report.images:,} validation images{patients}"
    if report.said.folds:
        parts = (
            f"{report.images:,} images{patients} in {report.said.folds} folds, each validated by a run of the others"
        )
    yield (
        f"Data set {data.get('name')}: {parts}; the split ({split.get('name')}{_ratios(split)}) never divides a "
        f"patient."
    )
    yield from (f"{fact[0].upper()}{fact[1:]}." for fact in report.facts)
    has_test = split.get("test", 1) and split.get("ratios", [1])[-1]
    unseen = "; the test part was not looked at" if has_test else ""
    yield f"A run's score is {report.metric} at its best epoch{unseen}."


def _ratios(split: Mapping[str, Any]) -> str:
    ratios = split.get("ratios")
    return f" {'/'.join(f'{100 * share:g}' for share in ratios)} %" if ratios else ""


def _statistics(report: Report) -> Iterator[str]:
    said, level = report.said, f"{100 * CONFIDENCE:g} %"
    if not said.claims:
        return
    yield (
        f"Intervals are {level}; their unit is the patient, whose images are taken together (influence values; DeLong "
        f"et al. 1988; Obuchowski 1997); that of an AUROC is at least a score interval (Newcombe 2006)."
    )
    if said.folds:
        yield (
            f"Claims are about settings over {said.folds} folds: the variance over folds, pooled over all settings, is "
            f"corrected for the images that the trainings share (Nadeau and Bengio 2003)."
        )
    elif said.about == "recipe":
        yield (
            "Claims are about settings over their seeds: the variance of training is pooled over all settings with "
            "several seeds and added to that of the patients (Bouthillier et al. 2021)."
        )
    else:
        yield "Claims are about these trained weights: the variance of training is not in their intervals."
    if len(said.claims) > 1:
        yield (
            f"What may be the best is what multiple comparisons with the best (Hsu 1984) do not leave out at {level}, "
            f"simultaneous over all, by {DRAWS:,} draws of the joint normal law of the errors; gaps up to "
            f"{said.margin:g} are taken for a tie."
        )
    if report.gaps:
        yield (
            "Gaps by finding are corrected for all findings at once by the step-down maximum (Westfall and Young "
            "1993), and by Holm (1979) beside it."
        )
    if said.chosen_from > 1 and math.isfinite(said.corrected):
        yield (
            f"The best score is corrected for its choice from {said.chosen_from:,} by bootstrap bias correction "
            f"(Tsamardinos et al. 2018)."
        )


def _importances(report: Report) -> Iterator[str]:
    found = report.importances
    if found:
        yield (
            f"The importance of a suggested setting is its share in what tells the best {found.best} of {found.runs} "
            f"runs from all of them (PED-ANOVA; Watanabe et al. 2023): {CAVEAT}."
        )


def _software(study: StudyRecord, report: Report) -> Iterator[str]:
    here = report.environment
    names = ("python", "torch", "timm", "albumentations", "ray", "optuna", "mlflow")
    versions = ", ".join(f"{name} {here[name]}" for name in names if name in here)
    where = here.get("gpu") or here.get("cpu", "")
    if versions:
        commit = f", commit {study.commit}" if study.commit else ""
        yield f"Software: {versions}{commit}."
    energy = f" and {report.cost.gpu_wh / 1000:.3g} kWh of the GPUs" if report.cost.gpu_wh == report.cost.gpu_wh else ""
    yield f"All epochs together took {duration(report.cost.seconds)}{f' on {where}' if where else ''}{energy}."

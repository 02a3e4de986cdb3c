"""Roles of settings in a comparison: what can be a factor, what is chance (nuisance), what follows from what.

Every setting of RunConfig has a role here, by its dotted name, a choice by its short one (`loss` for `loss.name`); a
test fails where one is missing. So has what is known of a run beside its settings, its provenance:

    epochs_done        epochs that were trained
    steps              optimizer steps that were done
    status             finished, stopped at a rung, failed, ...
    fingerprint.data, fingerprint.split  of the prepared images and of who is where
    code               who made it: the trainable and the version of its code, changes that were accepted on the way
    teacher.sha256     of the teacher's weights
    device             cpu or gpu
    library.<name>     version of a library that can change a result
    chosen_from        trials that this one is the best of; 1 if it was not chosen
    study              the study that it is of
    commit             of the code, where nothing better is known: another one may have changed nothing
    gpu, cpu           which card, which processor
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from xlite_search.factors import FOLD
from xlite_search.provenance import RESULT_LIBRARIES
from xlite_search.spec import specs_in

#: factor: changes what is learnt, or how it is judged: what a claim is about, or a confounder of it
#: nuisance: acts as chance does; its effect is what the spread over seeds measures
#: place: changes nothing by itself: what lies there is compared by its hash
#: doubt: may stand for a change, and may not
Role = Literal["factor", "nuisance", "place", "doubt"]


def _as(role: Role, names: str) -> dict[str, Role]:
    return dict.fromkeys(names.split(), role)


_AUGMENT = "flip rotate shift zoom brightness contrast gamma distort elastic grid optical views"

#: the role of every setting of RunConfig. Threads and compile change last digits, as another seed does
SETTINGS: Mapping[str, Role] = {
    **_as(
        "factor", "model epochs stop_after early_stopping monitor batch_size micro_batch mixup clip_norm ema precision"
    ),
    **_as("factor", "sampler sampler.apply sampler.no_finding sampler.no_finding.share sampler.no_finding.weight"),
    **_as("factor", "augment"),
    **_as("factor", " ".join(f"augment.{name}" for name in _AUGMENT.split())),
    **_as("factor", "loss loss.smoothing loss.clip loss.gamma loss.alpha loss.share loss.gamma_pos loss.gamma_neg"),
    **_as("factor", "loss.weighting loss.weighting.beta"),
    **_as("factor", "optimizer optimizer.lr optimizer.weight_decay"),
    **_as("factor", "schedule schedule.patience schedule.factor schedule.threshold schedule.warmup schedule.period"),
    **_as("factor", "schedule.growth schedule.factors"),
    **_as("factor", "weights weights.sha256"),
    **_as("factor", "data data.name data.fit data.fraction data.split data.split.ratios data.split.seed"),
    **_as("factor", "data.split.folds data.split.fold data.split.test data.split.val data.split.sha256"),
    **_as("factor", "data.split.of data.split.of.ratios data.split.of.seed data.split.of.folds data.split.of.fold"),
    **_as("factor", "data.split.of.test data.split.of.val data.split.of.sha256"),
    **_as("factor", "kd kd.tau kd.alpha kd.form kd.intra kd.hint kd.platt kd.teacher"),
    **_as("nuisance", "seed threads compile"),
    **_as("place", "weights.path data.split.path data.split.incomplete data.split.of.path data.split.of.incomplete"),
}
#: the role of what is known of a run beside its settings
PROVENANCE: Mapping[str, Role] = {
    **_as(
        "factor", "epochs_done steps status fingerprint.data fingerprint.split code teacher.sha256 device chosen_from"
    ),
    **_as("factor", " ".join(f"library.{name}" for name in RESULT_LIBRARIES)),
    **_as("nuisance", "gpu cpu"),
    **_as("place", "study"),
    **_as("doubt", "commit"),
}
#: how other people call, by the last part of the name, what is chance or a place
ELSEWHERE: Mapping[str, Role] = {
    **_as("nuisance", "seed random_seed random_state rng_seed manual_seed"),
    **_as("nuisance", "workers num_workers n_workers pin_memory prefetch_factor persistent_workers"),
    **_as("place", "output_dir out_dir log_dir logdir save_dir checkpoint_dir experiment_name run_name run_id"),
}
#: swept for chance as a seed is, but runs that differ in one were judged by other images
REPLICATES = (FOLD,)
#: what can but follow from other settings, or from what is below them: a difference in it is no other difference
FOLLOWS: Mapping[str, tuple[str, ...]] = {
    "epochs_done": ("epochs", "stop_after", "early_stopping"),
    "steps": ("epochs", "stop_after", "early_stopping", "epochs_done", "batch_size", "data", "fingerprint"),
    "fingerprint.data": ("data.name",),
    "fingerprint.split": ("data.name", "data.split", "fingerprint.data"),
    "teacher.sha256": ("kd", "kd.teacher"),
}
#: a run's end that is its own: who ended so has had what its settings gave it
FINISHED = "finished"


def role_of(name: str) -> Role:
    """Of a setting or of a fact of provenance. What nobody knows here can change a result: a factor."""
    known = SETTINGS.get(name) or PROVENANCE.get(name)
    return known or ELSEWHERE.get(name.rpartition(".")[2].lower(), "factor")


def short_name(name: str) -> str:
    """`loss` for `loss.name`, as spaces and `--set` have it; any other name as it is."""
    above = name.removesuffix(".name")
    return name if name in SETTINGS or above not in SETTINGS else above


def is_below(name: str, above: str) -> bool:
    """`kd.tau` is below `kd`, and a name is below itself."""
    return name == above or name.startswith(f"{above}.")


def backbone_of(model: Any) -> str:
    """The backbone in a model's name, `efficientnet_b0` of `efficientnet_b0_mhsa_ms`: whose weights a file has."""
    return str(model).removesuffix("_ms").rpartition("_")[0]


def usual_value(name: str, values: Mapping[str, Any]) -> Any:
    """The default of a setting where a run has made its choices (`values`, by short names); None if it has none: the
    rotation of `augment` is another one for `light` and for `strong`."""
    from xlite_search.config import RunConfig  # other people's runs, most of which have no choices, do without it

    spec: type[Any] | None = RunConfig
    *above, last = name.split(".")
    for depth, part in enumerate(above, start=1):
        field = spec.model_fields.get(part) if spec else None
        spec = _chosen(field.annotation, values.get(".".join(above[:depth]))) if field else None
    field = spec.model_fields.get(last) if spec else None
    if field is None or field.is_required():
        return None
    usual = field.get_default(call_default_factory=True)
    return getattr(usual, "name", usual)


def _chosen(annotation: object, choice: Any) -> type[Any] | None:
    """The spec of a choice by its name, or the only one that there is."""
    specs = list(specs_in(annotation))
    if len(specs) == 1:
        return specs[0]
    return next((each for each in specs if each.model_fields["name"].default == choice), None)

"""Near-duplicate arms: trials that differ in their loss alone, and whose losses train the same student.

Measured before any trial is trained, from the teacher's logits of 256 training images (`distill/gradients.py`). A trial
is compared with those that share all its settings but those of `loss` and `kd`; each setting of these is differentiated
once, however many trials have it.

NEAR says what counts as one point. Scaled as well as can be, two gradients with a cosine of 0.98 differ by a fifth of
their length (sqrt(1 - 0.98^2) = 0.199). Under sigmoid distillation tau 4 and 8 have 0.985 to 0.998 and tau 1 and 4 have
0.64 to 0.97, so that it lies between what is known to be one point and what is not.

Nearness is not transitive: of a chain the first stays, and whoever is near to one that stays is left out. So no trial
is left out for one that is left out itself.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xlite_search import model_folder, places
from xlite_search.config import RunConfig
from xlite_search.data.dataset import Data, DataSpec
from xlite_search.data.loaders import ordered_batches
from xlite_search.distill.gradients import LossOfLogits, directions, least_cosines, stages
from xlite_search.distill.logit_store import INFERENCE_BATCH, rounded
from xlite_search.distill.teacher import load_teacher, write_ensemble
from xlite_search.errors import BadInput
from xlite_search.machine import device
from xlite_search.search.plan import Plan
from xlite_search.search.same_run import is_known
from xlite_search.search.study import Trial
from xlite_search.study_record import NEAR_DUPLICATES, StudyRecord
from xlite_search.trainable import named

IMAGES, NEAR = 256, 0.98
Table: TypeAlias = NDArray[np.float64]

#: of `plan` and `run`
OPTION = "--drop-near-duplicates"


class Pair(NamedTuple):
    """A trial, the one that stands for it, and the least cosine of their losses' gradients."""

    trial: Trial
    kept: Trial
    cosine: float

    def difference(self) -> str:
        """`kd.tau=8 is one point with kd.tau=4`."""
        one, other = _differing(self.trial, self.kept), _differing(self.kept, self.trial)
        return f"{one} is one point with {other}"

    def sentence(self) -> str:
        """Why it need not be trained."""
        return f"{self.difference()}: the cosine of their losses' gradients is {self.cosine:.3f} or more"


@dataclass(frozen=True)
class NearDuplicates:
    """What was found among some trials; and in a sentence each, what was not compared and why."""

    pairs: tuple[Pair, ...] = ()
    not_compared: tuple[str, ...] = ()

    def words(self) -> Iterator[str]:
        """A sentence for each difference, however many trials have it."""
        found: dict[str, list[Pair]] = {}
        for pair in self.pairs:
            found.setdefault(pair.difference(), []).append(pair)
        for pairs in found.values():
            worst = min(pairs, key=lambda pair: pair.cosine)
            yield worst.sentence() + (f", in {len(pairs)} pairs of trials" if len(pairs) > 1 else "")
        if self.pairs:
            yield f"{OPTION} leaves {len(self.pairs)} of these trials out"
        yield from self.not_compared

    def as_json(self) -> dict[str, Any]:
        pairs = [{"trial": p.trial.key, "same_as": p.kept.key, "cosine": p.cosine} for p in self.pairs]
        return {"threshold": NEAR, "pairs": pairs, "not_compared": list(self.not_compared)}


def awaits_teacher(plan: Plan) -> str:
    """Why nothing can be measured yet; empty if the teacher is there, or none is wanted."""
    members = plan.teaching.members if plan.teaching and plan.uses_teacher else {}
    for key, config in members.items():
        if config and not model_folder.exists(places.teacher_folder(key)):
            return (
                f"near-duplicates are not measured: the teacher, {config.model}, is not trained yet; `run` trains it "
                f"first, and with {OPTION} measures then and leaves them out"
            )
    return ""


def near_duplicates(plan: Plan, staying: Collection[str] = ()) -> NearDuplicates:
    """Of a plan's trials, those that another stands for; never one of `staying`, by key.

    Where something cannot be compared it says why.
    """
    why = _never(plan) or awaits_teacher(plan)
    if why:
        return NearDuplicates(not_compared=(why,))
    order = sorted(plan.trials, key=lambda trial: trial.key not in staying)
    reasons = {trial.key: _incomparable(trial.config) for trial in order}
    groups: dict[str, list[Trial]] = {}
    for trial in order:
        if not reasons[trial.key]:
            groups.setdefault(trial.config.model_dump_json(exclude={"loss", "kd"}), []).append(trial)
    several = [group for group in groups.values() if len(group) > 1]
    cosines = _Cosines(plan, [trial.config for group in several for trial in group])
    pairs = [pair for group in several for pair in _represented(group, cosines.of(group), staying)]
    place = {trial.key: number for number, trial in enumerate(plan.trials)}
    said = list(dict.fromkeys(filter(None, reasons.values())))
    said += [] if several or said else ["near-duplicates: no two trials differ in their loss alone"]
    return NearDuplicates(tuple(sorted(pairs, key=lambda pair: place[pair.trial.key])), tuple(said))


def planned(plan: Plan, *, measure: bool, drop: bool) -> tuple[Plan, NearDuplicates]:
    """What `plan` shows: the plan, without them if they are to be dropped; and what was measured, or why it was not."""
    if drop and is_decided(plan):
        plan, not_compared = without_near_duplicates(plan)
        return plan, NearDuplicates(not_compared=not_compared)
    return plan, near_duplicates(plan) if measure or drop else NearDuplicates()


def without_near_duplicates(plan: Plan) -> tuple[Plan, tuple[str, ...]]:
    """The plan without trials that another stands for; which, and why, is part of its definition. And in a sentence
    each, what was not compared.

    A study that has begun keeps to what was decided then: it is measured again only if there are trials that it did not
    know, and whatever it has begun stays.

    Raises:
        BadInput: they cannot be told from each other, or the study has begun with all of them.
    """
    why = _never(plan)
    if why:
        raise BadInput(f"{OPTION}: {why}")
    found, known = NearDuplicates(), _decided_before(plan)
    if known is None:
        found = near_duplicates(plan, _begun(plan).get("trials", {}))
        known = {pair.trial.key: _recorded(pair) for pair in found.pairs}
    trials = [trial for trial in plan.trials if trial.key not in known]
    kept = {key: about for key, about in plan.definition["trials"].items() if key not in known}
    definition = plan.definition | {"trials": kept, NEAR_DUPLICATES: known}
    return replace(plan, trials=trials, definition=definition), found.not_compared


def is_decided(plan: Plan) -> bool:
    """Whether it is known, or can be measured now, which trials are left out. Raises as `without_near_duplicates`."""
    return bool(_never(plan)) or _decided_before(plan) is not None or not awaits_teacher(plan)


def _begun(plan: Plan) -> dict[str, Any]:
    """The definition that the study began with; nothing if it has not begun."""
    return StudyRecord.load(plan.folder).definition if (plan.folder / "study.json").exists() else {}


def _decided_before(plan: Plan) -> dict[str, Any] | None:
    """What was left out when the study began, by key; None if it has not begun, or did not know one of these trials."""
    begun = _begun(plan)
    if begun and NEAR_DUPLICATES not in begun:
        raise BadInput(
            f"{OPTION}: study '{plan.name}' has begun with all its trials; go on without the option, or give this one "
            f"a --name of its own"
        )
    known: dict[str, Any] = begun.get(NEAR_DUPLICATES, {})
    knows_all = all(trial.key in known or trial.key in begun["trials"] for trial in plan.trials) if begun else False
    return known if knows_all else None


def _recorded(pair: Pair) -> dict[str, Any]:
    return {"label": pair.trial.label, "same_as": pair.kept.key, "cosine": pair.cosine, "why": pair.sentence()}


def _never(plan: Plan) -> str:
    """Why near-duplicates of this study will never be told; empty if they can."""
    if plan.study.suggester:
        return "near-duplicates are not compared: the trials of a search are not known before it suggests them"
    if not is_known(plan.study.trainable):
        return (
            f"near-duplicates are not compared: what {named(plan.study.trainable)} makes of its loss is not known here"
        )
    if not plan.uses_teacher or plan.teaching is None:
        return "near-duplicates are not compared: that takes a teacher's logits, and no trial has a teacher"
    return ""


def _incomparable(config: RunConfig) -> str:
    """Why a trial's loss is not compared; empty if it is."""
    if config.kd and config.kd.hint:
        return "near-duplicates: trials with kd.hint are not compared, for it is no function of the student's logits"
    if config.kd and config.kd.platt:
        return "near-duplicates: trials with kd.platt are not compared: what it makes of the teacher is not known yet"
    return ""


def _represented(group: Sequence[Trial], cosines: Table, staying: Collection[str]) -> Iterator[Pair]:
    """Of trials that differ in their loss alone, in order, those that are near to one before them that stays."""
    kept: list[int] = []
    for number, trial in enumerate(group):
        nearest = max(kept, key=lambda other: float(cosines[number, other]), default=number)
        if nearest != number and cosines[number, nearest] >= NEAR and trial.key not in staying:
            yield Pair(trial, group[nearest], float(cosines[number, nearest]))
        else:
            kept.append(number)


class _Cosines:
    """Of all losses that some configs have, each differentiated once for the data that it is of."""

    def __init__(self, plan: Plan, configs: Sequence[RunConfig]) -> None:
        if configs and not model_folder.exists(places.teacher_folder(plan.teacher)):
            write_ensemble(list(plan.teaching.members) if plan.teaching else [])
        arms: dict[DataSpec, dict[str, RunConfig]] = {}
        for config in configs:
            arms.setdefault(config.data, {})[_loss_settings(config)] = config
        self.place = {spec: {name: number for number, name in enumerate(of)} for spec, of in arms.items()}
        self.tables = {
            spec: _measured(list(of.values()), plan.data(next(iter(of.values()))), plan.teacher)
            for spec, of in arms.items()
        }

    def of(self, group: Sequence[Trial]) -> Table:
        """Of each two trials, which have the same data, `[trial, trial]`."""
        spec = group[0].config.data
        places = [self.place[spec][_loss_settings(trial.config)] for trial in group]
        return self.tables[spec][np.ix_(places, places)]


def _loss_settings(config: RunConfig) -> str:
    batch = {"batch_size"} if config.batchwise else set[str]()
    return config.model_dump_json(include={"loss", "kd", *batch})


def _measured(configs: Sequence[RunConfig], data: Data, teacher: str) -> Table:
    """Least cosine of each two losses, on training images as they were prepared: without the views, MixUp and weights
    of the sampler that such trials share. The images are spread evenly over the training part."""
    part = data.train
    positions = np.unique(np.linspace(0, len(part) - 1, IMAGES).round().astype(np.int64))
    logits = _teacher_logits(teacher, data, positions)
    labels = torch.from_numpy(part.labels[positions])
    passed = stages(logits, part.positives, len(part))
    found = least_cosines([directions(_loss(config, data, logits, labels), passed) for config in configs])
    return np.asarray(found.numpy(), np.float64)


def _teacher_logits(key: str, data: Data, positions: NDArray[np.int64]) -> Tensor:
    """As a run's cache has them, `[image, class]`."""
    teacher = load_teacher(key, data.classes, device())
    batches = ordered_batches(data.train, INFERENCE_BATCH, device(), positions=positions)
    return torch.cat([rounded(teacher(batch.images)).float().cpu() for batch in batches])


def _loss(config: RunConfig, data: Data, teacher: Tensor, labels: Tensor) -> LossOfLogits:
    """A run's loss as a function of its logits; in its own batches, where these are compared image by image."""
    images = len(data.train)
    hard, weight = config.loss.build(data.train.positives, images), config.loss.pos_weight(data.train.positives, images)
    shifted = teacher if weight is None else teacher + torch.log(weight)
    batches = math.ceil(len(labels) / config.batch_size) if config.batchwise else 1

    def total(student: Tensor) -> Tensor:
        pieces = zip(*(each.tensor_split(batches) for each in (student, shifted, labels)), strict=True)
        losses = [(hard(s, y) if config.kd is None else config.kd(s, t, hard(s, y))) for s, t, y in pieces]
        return torch.stack(losses).sum()

    return total


def _differing(one: Trial, other: Trial) -> str:
    """The swept settings of one that the other has not, or not so."""
    mine = {name: value for name, value in one.settings.items() if (name, value) not in other.settings.items()}
    said = (f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in mine.items())
    return " ".join(said) or f"'{one.label}'"

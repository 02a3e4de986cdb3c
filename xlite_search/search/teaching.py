"""Teacher of a study before anything is trained: members, keys, and whether it may judge its students."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from xlite_search import model_folder, places, provenance
from xlite_search.config import RunConfig, run_key
from xlite_search.data.dataset import Data, open_data
from xlite_search.distill.pretrained import Pretrained, import_teacher
from xlite_search.distill.teacher import ensemble_key
from xlite_search.distill.teacher_logits import online_reason
from xlite_search.errors import BadInput
from xlite_search.model_folder import ModelManifest, input_of, read_model, shared_patients
from xlite_search.search.given_teacher import Member
from xlite_search.search.study import Study, Trial
from xlite_search.trainable import maker, trainable_at

SHOWN = 3
#: what trains a teacher
TRAINABLE = "trainables.baseline:baseline"


@dataclass(frozen=True)
class Teaching:
    """A study's teacher.

    key      of the teacher, or of the ensemble of its members
    members  by key: the config of one that is trained here if it is missing, None for a finished one
    """

    key: str
    members: dict[str, RunConfig | None]

    @property
    def trained(self) -> bool:
        """Whether one of them is trained here."""
        return any(self.members.values())

    def models(self) -> str:
        """`trained first: convnext_tiny_mhsa`, or `trained already: ...` of one that is there."""
        return ", ".join(self._described(key, config) for key, config in self.members.items())

    def _described(self, key: str, config: RunConfig | None) -> str:
        if config is None:
            return "a given model"
        there = model_folder.exists(places.teacher_folder(key))
        return f"trained {'already' if there else 'first'}: {config.model}"

    def definition(self) -> Any:
        """What of it must not change while a study goes on."""
        said = [config.identity() if config else f"given model {key}" for key, config in self.members.items()]
        return said[0] if len(said) == 1 else {str(number): each for number, each in enumerate(said, start=1)}


def teaching_of(study: Study, trained_by: str = "") -> Teaching | None:
    """The study's teacher; finished ones are taken in under a key of their own.

    `trained_by` is what the keys of those that are trained here hold, `trainable.maker`: as it is now, if it is empty.

    Raises:
        BadInput: a teacher is not there, does not fit, or knows the patients that its students are judged by.
    """
    if study.teacher is None:
        return None
    given: Sequence[Member] = study.teacher if isinstance(study.teacher, list) else [cast(Member, study.teacher)]
    data = open_data(study.base.data)
    members: dict[str, RunConfig | None] = {}
    for one in given:
        if isinstance(one, RunConfig):
            config, trained_by = one.resolved(), trained_by or maker(trainable_at(TRAINABLE))
            members[run_key(config, trained_by)] = config
        else:
            key = import_teacher(one, data) if isinstance(one, Pretrained) else _imported(one, data)
            if not study.accept_overlap:
                _expect_honest(key, one, data)
            members[key] = None
    keys = sorted(members)
    return Teaching(keys[0] if len(keys) == 1 else ensemble_key(keys), {key: members[key] for key in keys})


def warnings(study: Study, teaching: Teaching, trials: list[Trial]) -> Iterator[str]:
    """What is wrong or doubtful about the teacher, a sentence each."""
    data = open_data(study.base.data)
    for key, config in teaching.members.items():
        if model_folder.exists(places.teacher_folder(key)):
            about = read_model(places.teacher_folder(key))
            yield from (f"teacher {key} was trained {otherwise}" for otherwise in _made_otherwise(about))
        if config is None:
            if about.trained_on is None:
                yield f"teacher {key}: whom it was trained on is not known; its students' scores may be too high"
            elif shared := shared_patients(about.trained_on, data):
                yield f"teacher {key} was trained on {len(shared):,} patients that its students are judged by: accepted"
    online: dict[str, int] = {}
    for trial in trials:
        kd = trial.config.kd
        if kd and (because := online_reason(trial.config, kd)):
            online[because] = online.get(because, 0) + 1
    for because, count in online.items():
        yield f"in {count} trials the teacher runs online, on every image of every epoch: {because}"


def _made_otherwise(about: ModelManifest) -> Iterator[str]:
    """How what made a teacher differs from what is here; one whose manifest does not say was made elsewhere."""
    made = about.provenance
    here = provenance.libraries()
    for name, version in made.get("libraries", {}).items():
        if here.get(name, version) != version:
            yield f"with {name} {version}, and here is {here[name]}: its logits may be others than were validated"
    trained_by = made.get("trained_by", "")
    where, _, _ = trained_by.rpartition(" ")
    try:
        ours = maker(trainable_at(where)) if where else trained_by
    except BadInput:  # the trainable of another project
        return
    if ours != trained_by:
        yield f"by other code of {where} than is here: its logits may be others than were validated"


def logit_counts(trials: list[Trial]) -> Iterator[str]:
    """How many teacher logits are computed, and how many would be without a cache, a line for each way to augment."""
    stored: dict[str, list[Trial]] = {}
    for trial in trials:
        config = trial.config
        if config.kd and not online_reason(config, config.kd):
            of = config.augment.model_dump_json(exclude={"views"}) if config.augment else ""
            stored.setdefault(f"{config.data.fraction}{of}", []).append(trial)
    for some in stored.values():
        images = len(open_data(some[0].config.data).train)
        classes = len(open_data(some[0].config.data).classes)
        views = max(views_of(trial.config) for trial in some)
        online = sum(images * trial.config.epochs for trial in some)
        yield (
            f"teacher logits of {images * views:,} views are computed once ({images:,} images, {views} "
            f"view{'s' * (views > 1)} each, {images * views * classes * 2 / 1e6:.2g} MB); online it would be {online:,}"
        )


def views_of(config: RunConfig) -> int:
    """How many views of each image a run with cached teacher logits meets, at most."""
    if config.augment is None:
        return 1
    return min(config.augment.views or config.epochs, config.epochs if config.sampler.draws_once else 10**9)


def _imported(given: str, data: Data) -> str:
    """A finished model's folder, copied among the teachers; all that its manifest says makes its key."""
    folder = Path(given).absolute()
    if folder.is_file():
        raise BadInput(
            f"teacher = {given} is a file; a trained model is named by its folder, and a state dict is given as "
            f"Pretrained(path=..., model=...)"
        )
    about = read_model(folder)
    if about.members:
        names = ", ".join(str(folder.parent / member) for member in about.members)
        raise BadInput(f"teacher = {given} is an ensemble; name its members instead: {names}")
    _expect_fitting(about, given, data)
    key = model_folder.key_of(folder)
    home = places.teacher_folder(key)
    if not model_folder.exists(home):
        model_folder.copy_model(folder, home)
    return key


def _expect_fitting(about: ModelManifest, given: str, data: Data) -> None:
    if about.classes != data.classes:
        raise BadInput(f"teacher = {given}: it knows other findings than this data set, or in another order")
    for name, ours in input_of(data).items():
        if name in about.input and about.input[name] != ours:
            theirs = about.input[name]
            raise BadInput(f"teacher = {given}: its images had {name} = {theirs}, this data set's have {ours}")


def _expect_honest(key: str, given: str | Pretrained, data: Data) -> None:
    """A teacher that was trained on a student's validation or test images would leak their labels."""
    shared = shared_patients(read_model(places.teacher_folder(key)).trained_on, data)
    if shared:
        name = given if isinstance(given, str) else given.path
        raise BadInput(
            f"teacher = {name}: it was trained on {len(shared):,} of the patients that its students are judged by "
            f"({', '.join(shared[:SHOWN])}, ...); train one on this split with `train best.yaml --split train`, or let "
            f"the study say accept_overlap=True, and do not trust its scores"
        )

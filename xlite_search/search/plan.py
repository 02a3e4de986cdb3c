"""Plan of a study: its trials, teacher, warnings, and what has changed since it began."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from xlite_search import factors, places, storage
from xlite_search.closure import Code
from xlite_search.config import RunConfig, fingerprints
from xlite_search.data import integrity
from xlite_search.data.audit import Audit, audit_of
from xlite_search.data.dataset import Data, DataSpec, open_data
from xlite_search.data.packed import PackedSet
from xlite_search.errors import BadInput
from xlite_search.models.hybrid import expect_channels, expect_size, expect_weights, timm_name
from xlite_search.records import RunRecord
from xlite_search.search import teaching
from xlite_search.search.study import Study, Trial
from xlite_search.search.suggest import Tried
from xlite_search.search.teaching import Teaching
from xlite_search.spec import flatten
from xlite_search.study_record import NEAR_DUPLICATES, StudyRecord, left_out
from xlite_search.tracking.store import knows
from xlite_search.trainable import code_of, maker, named, project_root, source_file, trainable_at
from xlite_search.training import balance
from xlite_search.training.losses import Loss


class Balance(NamedTuple):
    """What some trials' sampler draws, the loss that it meets, and which trials these are."""

    audit: Audit
    loss: Loss
    trials: list[Trial]


@dataclass(frozen=True)
class Plan:
    """A study with everything resolved: files found, keys taken, data fingerprinted. Nothing has been trained.

    maker, teacher_maker  what the keys of its runs and of its teacher hold: the code that the study began with
    files                 the hash of every file of its code as it is now
    exhausted  a search's last round came back short: its space has no more
    command    the words of the command line that asks for it, `run SPACE ...`, less its name; empty in a program
    """

    study: Study
    name: str
    trials: list[Trial]
    teaching: Teaching | None
    definition: dict[str, Any]
    maker: str = ""
    teacher_maker: str = ""
    files: dict[str, str] = field(default_factory=dict)
    exhausted: bool = False
    command: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return places.study_folder(self.name)

    @property
    def teacher(self) -> str:
        """The teacher's key; empty without one."""
        return self.teaching.key if self.teaching else ""

    @property
    def uses_teacher(self) -> bool:
        """Whether a trial has a teacher, or may in a later round."""
        return self.study.suggester is not None or any(trial.config.kd for trial in self.trials)

    @property
    def in_all(self) -> int:
        """Trials that this study has when it is done; a search may exhaust its space before."""
        more = self.study.suggester and not self.exhausted
        return max(len(self.trials), self.study.samples) if more else len(self.trials)

    @property
    def root(self) -> Path:
        """The project's folder, where its trainables are."""
        return project_root(source_file(self.study.trainable))

    @cached_property
    def _opened(self) -> dict[DataSpec, Data]:
        return {}

    def data(self, config: RunConfig) -> Data:
        """What a run is trained on: opened once for a plan, however many of its runs ask."""
        if config.data not in self._opened:
            self._opened[config.data] = open_data(config.data)
        return self._opened[config.data]

    @cached_property
    def balances(self) -> list[Balance]:
        """What each combination of sampler, loss and data that the trials have will draw and weigh."""
        found: dict[str, Balance] = {}
        for trial in self.trials:
            config = trial.config
            parts = config.sampler.model_dump(), config.loss.model_dump(), config.data.model_dump()
            key = storage.digest(parts)
            if key not in found:
                data = self.data(config)
                drawn = audit_of(config.sampler, data.train.labels, data.classes, normal=data.packed.normal)
                found[key] = Balance(drawn, config.loss, [])
            found[key].trials.append(trial)
        return list(found.values())

    def warnings(self) -> list[str]:
        """Problems of the study that can be known before it runs, a sentence each."""
        found = []
        for drawn in self.balances:
            about = f"sampler {drawn.audit.sampler}, loss {drawn.loss.name}"
            found += [f"{about}: {warning}" for warning in balance.warnings(drawn.audit, drawn.loss)]
        data = self.data(self.trials[0].config)
        found += [data.packed.incomplete] if data.packed.incomplete else []
        found += data.missed_shares
        twins = integrity.duplicates_across(data.packed.table, data.split.rows)
        if twins:
            some = "; ".join(" = ".join(group) for group in twins[:3])
            found.append(f"{len(twins):,} images are in two splits, pixel for pixel: {some}; `audit` names them")
        found += factors.aliases([trial.settings for trial in self.trials])
        if self.teaching and not self.uses_teacher:
            found.append("no trial uses the teacher: kd is null or kd.alpha 0 in all; it is not trained")
        return found + list(teaching.warnings(self.study, self.teaching, self.trials) if self.teaching else ())

    def factors(self) -> dict[str, list[Any]]:
        """The values that each swept setting takes, those with more than one; the ranges of a search, in words."""
        if self.study.suggester:
            return {name: [words] for name, words in self.study.ranges.items()}
        values: dict[str, list[Any]] = {}
        for trial in self.trials:
            for name, value in trial.settings.items():
                if value not in values.setdefault(name, []):
                    values[name].append(value)
        return {name: found for name, found in values.items() if len(found) > 1}

    def trials_in_words(self) -> str:
        if self.study.suggester:
            return f"{self.in_all} trials, suggested {self.study.search.batch} at a time"
        return f"{len(self.trials)} trial{'s' if len(self.trials) != 1 else ''}"

    def epochs_in_words(self) -> str:
        """As many as the trials have; of a search whose trials are not all known, as many as its base has."""
        wanted = {trial.config.epochs for trial in self.trials}
        if len(wanted) > 1:
            return f"{min(wanted)} to {max(wanted)} epochs each"
        return f"{max(wanted, default=self.study.base.epochs)} epochs each at most"

    def scheduler_in_words(self) -> str:
        scheduler = self.study.scheduler
        return scheduler.words(self.study.base.epochs) if scheduler else "every one is trained to its end"

    def left_out(self) -> list[str]:
        """Why trials of its space are not among its own, a sentence each (`near_duplicates.py`)."""
        return left_out(self.definition)

    def is_complete(self) -> bool:
        """Everything trained and in MLflow, and the study is still the one that it was."""
        if not (self.folder / "study.json").exists():
            return False
        study = StudyRecord.load(self.folder)
        there = all((study.trial_folder(key) / "run.json").exists() for key in study.trials) and knows(self.name)
        same = not changes(study, self) and study.trials == tuple(trial.key for trial in self.trials)
        return there and study.tracked and same and all(run.over for run in study.runs())


def make_plan(study: Study, name: str, command: tuple[str, ...] = ()) -> Plan:
    """Raises BadInput if anything that the study names is not there: data, weights, a teacher's folder."""
    begun = _begun(name)
    _expect_local_inputs(study)
    code = code_of(study.trainable)
    made_by = begun.maker if begun else maker(study.trainable)
    taught = teaching.teaching_of(study, begun.teacher_maker if begun else "")
    trainer = trainable_at(teaching.TRAINABLE) if taught and taught.trained else None
    trained_by = (begun and begun.teacher_maker) or (maker(trainer) if trainer else "")
    key = taught.key if taught else ""
    if study.suggester:
        trials, exhausted = _searched(study, begun, key, made_by)
    else:
        trials, exhausted = study.trials(key, made_by=made_by), False
    teachers = [config for config in taught.members.values() if config] if taught else []
    configs = [trial.config for trial in trials] + teachers
    for model, weights in dict.fromkeys((config.model, config.weights) for config in configs):
        if weights:
            expect_weights(model, weights)
    _expect_fitting_data(configs)
    trainers = code_of(trainer) if trainer else None
    files = code.files | (trainers.files if trainers else {})
    definition = _definition(study, trials, taught, code, trainers)
    return Plan(study, name, trials, taught, definition, made_by, trained_by, files, exhausted, command)


def _begun(name: str) -> StudyRecord | None:
    """The study's record, if it began.

    Raises:
        BadInput: it was begun by a version of this program whose keys were others.
    """
    home = places.study_folder(name)
    if not (home / "study.json").exists():
        return None
    begun = StudyRecord.load(home)
    if not begun.maker:
        raise BadInput(
            f"study '{name}' in {home} was begun by an earlier version of xlite_search, which knew its runs by other "
            f"keys: `compare` and `best` still read it, but it cannot be gone on with. Give this a --name of its own"
        )
    return begun


def _searched(study: Study, record: StudyRecord | None, teacher: str, made_by: str) -> tuple[list[Trial], bool]:
    """The trials that a search has on record and, if all of them are over, its next round; and whether it is the last
    because it came back short.

    They are made again from their settings: those that another definition began have other keys, and are waiting.
    """
    begun = record.runs() if record else []
    exhausted = record is not None and record.exhausted and record.definition["search"] == study.definition()["search"]
    trials = study.trials(teacher, [run.settings for run in begun], made_by=made_by)
    known = {run.key: run for run in begun if run.over}
    if exhausted or not all(trial.key in known for trial in trials):
        return trials, exhausted
    tried = [_tried(known[trial.key], study) for trial in trials]
    points = study.proposals(tried)
    fresh = study.trials(teacher, points, made_by=made_by, beside=[run.settings for run in begun])
    fresh = [trial for trial in fresh if trial.key not in known]
    return trials + fresh, len(fresh) < study.wanted(len(tried))


def _tried(run: RunRecord, study: Study) -> Tried:
    """What a search learns from a run that is over."""
    values = (run.best_score(study.metric), *(run.objective(name) for name in study.minimize))
    curve = {epoch: score for epoch, score in enumerate(run.metric(study.metric), start=1) if math.isfinite(score)}
    outcome: Literal["finished", "stopped", "failed"]
    outcome = "stopped" if run.status == "stopped" else "finished" if run.status == "finished" else "failed"
    return Tried(run.settings, values, curve, outcome)


def changes(begun: StudyRecord, plan: Plan) -> list[str]:
    """What differs between a study's definition when it began and now, a phrase each; of its code, in which files."""
    old, new = dict(begun.definition), dict(plan.definition)
    dropped, trials = old.pop(NEAR_DUPLICATES, {}), new.pop("trials")
    new.pop(NEAR_DUPLICATES, None)
    wanted = [f"'{about['label']}'" for key, about in dropped.items() if key in trials]
    found = [f"--drop-near-duplicates left out {', '.join(wanted)}, and is not given now"] if wanted else []
    found += _trial_changes(old.pop("trials"), {key: about for key, about in trials.items() if key not in dropped})
    for name, what in (("code", "the code"), ("teacher_code", "the code that trains the teacher")):
        was, now = old.pop(name, None), new.pop(name, None)
        if was and now and was != now:
            where = ", ".join(Code(str(was), begun.files).differences(plan.files)) or "files that it knows no more"
            found.append(f"{what} was {was}, is {now}: other in {where}")
    found += _differences(flatten(old), flatten(new))
    return list(dict.fromkeys(found))


def _trial_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Of trials by key. Which of the old ones a new one was is guessed by its label, for the phrase alone."""
    gone = {key: about for key, about in old.items() if key not in new}
    for key, about in new.items():
        if key in old:
            continue
        twin = next((other for other, was in gone.items() if was["label"] == about["label"]), None)
        if twin is None:
            yield f"trial '{about['label']}' is new"
        else:
            yield from _differences(flatten(gone.pop(twin)["config"]), flatten(about["config"]))
    for about in gone.values():
        yield f"trial '{about['label']}' is gone"


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name, "not set"), new.get(name, "not set")
        if was != now:
            yield f"{name} was {was}, is {now}"


def _definition(
    study: Study, trials: list[Trial], taught: Teaching | None, code: Code, trainers: Code | None
) -> dict[str, Any]:
    """All that makes the study this study; never its text. The trials, by key; those of a search follow from it."""
    known = [] if study.suggester else trials
    return {
        "metric": study.metric,
        "scheduler": study.scheduler.model_dump() if study.scheduler else "none",
        "trainable": named(study.trainable),
        "trials": {trial.key: {"label": trial.label, "config": trial.config.identity()} for trial in known},
        "teacher": taught.definition() if taught else "none",
        "code": code.version,
        **({"teacher_code": trainers.version} if trainers else {}),
        **fingerprints(trials[0].config),
        **study.definition(),
    }


def _expect_fitting_data(configs: list[RunConfig]) -> None:
    """What each asks of its data, they can give: a metric to rank by, above all."""
    asked = {"loss", "monitor", "data", "batch_size", "micro_batch"}
    for config in {config.model_dump_json(include=asked): config for config in configs}.values():
        config.expect_fitting(open_data(config.data))


def _expect_local_inputs(study: Study) -> None:
    """What can be missed without asking the network comes first: it is the likelier mistake, and quicker to say.

    That is the data, models that take no images of their size, and files of weights that are not there or not theirs.
    """
    members = study.teacher if isinstance(study.teacher, list) else [study.teacher]
    own = [("weights", config) for _, config in study.configs()] or [("weights", study.base)]
    asked = own + [("teacher.weights", member) for member in members if isinstance(member, RunConfig)]
    for setting, config in asked:
        if config.weights:
            config.weights.local_file(timm_name(config.model), setting)
    packed = {name: PackedSet.open(name) for name in dict.fromkeys(config.data.name for _, config in asked)}
    for name, data_set in packed.items():
        expect_channels(data_set.channels, name)
    for setting, model, weights, data in dict.fromkeys((s, c.model, c.weights, c.data.name) for s, c in asked):
        expect_size(model, packed[data].size)
        if weights:
            expect_weights(model, weights, setting)

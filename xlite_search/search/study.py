"""A study: a question, the settings that are swept to answer it, and all else held equal.

A space maps dotted names to `grid_search([...])` (every value), to one of Ray's samplers such as `tune.choice([...])`
(drawn `samples` times), or to a single value. It holds scalars only. The study expands it itself, removes duplicates
and hands Ray a plain list, so that a trial has one identity whoever schedules it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from xlite_search.config import RunConfig, run_key
from xlite_search.errors import BadInput, did_you_mean
from xlite_search.search.asha import ASHA
from xlite_search.spec import setting_names
from xlite_search.trainable import Trainable, load_file

#: what every `--demo` runs on
DEMO_DATA, DEMO_IMAGES, DEMO_SIZE = "phantom-demo", 1500, 64
TEACHER = "teacher"


def grid_search(values: Sequence[object]) -> dict[str, list[object]]:
    """Every value, in this order: the same mapping that `ray.tune.grid_search` gives, without importing Ray."""
    return {"grid_search": list(values)}


@dataclass(frozen=True)
class Trial:
    """One point of a study's space."""

    key: str
    label: str
    settings: dict[str, Any]
    config: RunConfig


@dataclass(frozen=True)
class Study:
    """See the module's docstring.

    question   what the study asks; the file's docstring
    trainable  what one run does: a generator of EpochResults
    base       what all trials share
    space      what is swept
    metric     chooses a run's best epoch and ranks the trials; higher is better
    scheduler  None trains every trial to its end: an ablation; ASHA(...) stops weak ones: a search
    teacher    a run to train first and distil from, or the folder of a trained model
    samples    how often a space with samplers is drawn
    demo       settings of `--demo`, as `--set` gives them

    Raises BadInput if a name or a value of the space is not one of RunConfig's.
    """

    question: str
    trainable: Trainable
    base: RunConfig
    space: Mapping[str, Any]
    metric: str = "val/auroc_macro"
    scheduler: ASHA | None = None
    teacher: RunConfig | str | None = None
    samples: int = 1
    demo: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", self.base.with_settings({"monitor": self.metric}))
        if isinstance(self.teacher, RunConfig):
            if self.teacher.kd is not None:
                raise BadInput("teacher.kd: a teacher learns from labels alone; leave it out")
            # A teacher that saw other data, or another split, would leak or mislead.
            shared = self.teacher.model_copy(update={"data": self.base.data, "monitor": self.metric})
            object.__setattr__(self, "teacher", shared)
        for name, values in self.space.items():
            if name.startswith("data.") and name != "data.fraction":
                raise BadInput(f"{name} cannot be swept: trials on other images do not compare; make a study of each")
            if not hasattr(values, "sample") and not _all_values(values):
                raise BadInput(f"{name}: the list of values is empty")
            for value in _all_values(values):
                self.base.with_settings({name: value})

    def points(self) -> list[dict[str, Any]]:
        """The swept settings of every trial, in order, duplicates included."""
        random = np.random.RandomState(self.base.seed)
        drawn = []
        for _ in range(self.samples if any(hasattr(v, "sample") for v in self.space.values()) else 1):
            axes = [[(name, value) for value in _draw(values, random)] for name, values in self.space.items()]
            drawn += [dict(point) for point in itertools.product(*axes)]
        return drawn

    def configs(self) -> list[tuple[dict[str, Any], RunConfig]]:
        """Settings and config of every trial, without duplicates: alpha 0 is one run, not one per tau."""
        found: dict[str, tuple[dict[str, Any], RunConfig]] = {}
        for settings in self.points():
            config = self.base.with_settings(settings).canonical()
            found.setdefault(config.model_dump_json(), (settings, config))
        return list(found.values())

    def trials(self, teacher: str) -> list[Trial]:
        """Every trial, resolved. `teacher` is the key of the study's teacher, empty if it has none.

        Raises:
            BadInput: the data are not prepared, a file is missing, or kd is set and there is no teacher.
        """
        resolved = [(settings, config.resolved(teacher)) for settings, config in self.configs()]
        labels = _labels([settings for settings, _ in resolved])
        return [Trial(run_key(c), label, s, c) for label, (s, c) in zip(labels, resolved, strict=True)]

    def with_settings(self, settings: Mapping[str, Any]) -> Study:
        """The study as `--set` changes it. A swept name takes the new values; a list makes a name a grid.

        `teacher.<name>` sets the teacher's own; `teacher` alone names the folder of a trained model. What is set of
        `data` goes for the teacher too.
        """
        teacher, own = dict[str, Any](), dict[str, Any]()
        for name, value in settings.items():
            if name.startswith(f"{TEACHER}."):
                teacher[name.removeprefix(f"{TEACHER}.")] = value
            elif name != TEACHER:
                own[name] = value
        known = set(setting_names(RunConfig)) | {TEACHER}
        unknown = next((name for name in own if name not in known), None)
        if unknown:
            raise BadInput(f"unknown setting '{unknown}'{did_you_mean(unknown, known)}")
        changed: RunConfig | str | None = settings.get(TEACHER, self.teacher)
        if teacher:
            changed = _changed_teacher(changed, teacher)
        grids = {name: grid_search(v) for name, v in own.items() if isinstance(v, list) and not _is_tuple(name)}
        fixed = {name: v for name, v in own.items() if name not in grids}
        replaced = tuple(f"{name}." for name in fixed)
        kept = {n: values for n, values in self.space.items() if n not in fixed and not n.startswith(replaced)}
        return replace(self, base=self.base.with_settings(fixed), space=kept | grids, teacher=changed)

    def as_demo(self) -> Study:
        """On phantoms, with the study's own small settings."""
        return self.with_settings({"data.name": DEMO_DATA} | dict(self.demo))


def load_study(where: str) -> Study:
    """The `study` of a file such as `search_spaces/kd_grid.py`.

    The file's project (the folder above) goes on the import path, for its trainables.

    Raises:
        BadInput: there is no such file, it cannot be run, it has no `study`, or its space is wrong.
    """
    path = Path(where).absolute()
    if path.suffix != ".py" or not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.py")]) if path.parent.is_dir() else ""
        raise BadInput(f"{where}: there is no such study file; expected one like search_spaces/kd_grid.py{near}")
    study = getattr(load_file(path, where), "study", None)
    if not isinstance(study, Study):
        raise BadInput(f"{where}: has no `study = Study(...)`; see search_spaces/kd_grid.py for how a study looks")
    return study


def _changed_teacher(teacher: RunConfig | str | None, settings: Mapping[str, Any]) -> RunConfig:
    if not isinstance(teacher, RunConfig):
        there = f"the teacher is the finished model in {teacher}" if teacher else "this study has no teacher"
        raise BadInput(f"teacher.{next(iter(settings))} cannot be set: {there}")
    try:
        return teacher.with_settings(settings)
    except BadInput as error:
        raise BadInput(f"teacher: {error}") from None


def _all_values(values: Any) -> list[Any]:
    """What can be checked before anything is drawn."""
    if isinstance(values, Mapping) and set(values) == {"grid_search"}:
        return list(values["grid_search"])
    return list(getattr(values, "categories", [])) if hasattr(values, "sample") else [values]


def _draw(values: Any, random: np.random.RandomState) -> list[Any]:
    return [values.sample(random_state=random)] if hasattr(values, "sample") else _all_values(values)


def _is_tuple(name: str) -> bool:
    """A setting whose single value is a list already."""
    return name in ("data.split.ratios", "schedule.factors")


def _labels(points: list[dict[str, Any]]) -> list[str]:
    """`efficientnet_b0_mhsa tau=4 alpha=0.7`: what differs, the model first, names cut where they are clear."""
    names = list(dict.fromkeys(name for point in points for name in point))
    short = [name.rpartition(".")[2] for name in names]
    shown = {n: s if short.count(s) == 1 else n for n, s in zip(names, short, strict=True)}
    labels = []
    for point in points:
        parts = [str(point["model"])] if "model" in point else []
        parts += [f"{shown[n]}={_plain(v)}" for n, v in point.items() if n != "model"]
        labels.append(" ".join(parts) or "base")
    return labels


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

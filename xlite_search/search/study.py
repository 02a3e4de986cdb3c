"""Study: a question, the settings that are swept to answer it, and all else held equal.

`space.py` says how settings are swept. The study expands a grid itself, removes duplicates and hands Ray a plain list,
so that a trial has one identity whoever schedules it; a search is asked for a round of trials at a time.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from xlite_search.config import RunConfig, fingerprints, resolve, run_key
from xlite_search.data.splits import AnySplit
from xlite_search.errors import BadInput, did_you_mean
from xlite_search.factors import FOLD
from xlite_search.models.hybrid import timm_name
from xlite_search.search import space as spaces
from xlite_search.search import suggest
from xlite_search.search.asha import ASHA
from xlite_search.search.given_teacher import Teacher, changed_teacher, with_data
from xlite_search.search.pareto import ParetoStop
from xlite_search.search.same_run import as_trained, is_known, why_one_run
from xlite_search.search.scheduling import Scheduler, expect_fitting
from xlite_search.search.space import Grid, Narrowed, Space, grid_search
from xlite_search.search.suggest import TPE, Direction, Tried
from xlite_search.spec import flatten, kind_of, setting_names, takes_list, unknown
from xlite_search.storage import digest, sha256_of
from xlite_search.trainable import TEACHER, Trainable, expect_config, expect_trainable, maker
from xlite_search.training.recipe import is_metric, no_metric

__all__ = ["TPE", "Study", "Trial", "grid_search"]

#: what every `--demo` runs on
DEMO_DATA, DEMO_IMAGES, DEMO_SIZE = "phantom-demo", 1500, 64
#: what a study may ask to be low beside its metric; known of a model before it is trained
LATENCY, PARAMETERS, MACS = "model/latency_ms", "model/parameters", "model/macs"
#: fields that a study cannot do without, the first ones
NEEDED = 4
#: what its fields are, and in words
KINDS: tuple[tuple[str, Any, str], ...] = (
    ("question", str, "text: begin the file with a docstring, and say question=__doc__"),
    ("base", RunConfig, "RunConfig(...)"),
    ("metric", str, "a metric's name such as 'val/auroc_macro'"),
    ("minimize", tuple | list, "a tuple of names, such as ('model/parameters',)"),
    ("scheduler", ASHA | ParetoStop | None, "ASHA(...), ParetoStop(...) or None"),
    ("accept_overlap", bool, "True or False"),
    ("samples", int, "a whole number"),
    ("search", TPE, "TPE(...)"),
    ("demo", Mapping, "a mapping of settings"),
    ("demo_samples", int | None, "a whole number or None"),
)


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
    base       what all trials share: a RunConfig, or the subclass that the trainable asks for, with settings of its own
    space      what is swept: a grid, a list of grids, or a function of an Optuna trial
    metric     chooses a run's best epoch and ranks the trials; higher is better
    minimize   further objectives, lower is better: model/latency_ms, model/parameters, model/macs
    scheduler  None trains every trial to its end: an ablation; ASHA(...) stops weak ones: a search; ParetoStop(...)
               those that are dominated in `metric` and `minimize`
    teacher    a run to train first and distil from, the folder of a trained model, a `.pth` file as `Pretrained`, or a
               list of these, an ensemble
    accept_overlap  a finished teacher may have been trained on patients that its students are judged by
    samples    how often a grid with samplers is drawn; how many trials a function is asked for
    search     the suggester of a function
    demo       settings of `--demo`, as `--set` gives them, and its samples

    Raises BadInput if a name or a value of the space is not one of the base's.
    """

    question: str
    trainable: Trainable
    base: RunConfig
    space: Space
    metric: str = "val/auroc_macro"
    minimize: tuple[str, ...] = ()
    scheduler: Scheduler | None = None
    teacher: Teacher = None
    accept_overlap: bool = False
    samples: int = 1
    search: TPE = field(default_factory=TPE)
    demo: Mapping[str, Any] = field(default_factory=dict)
    demo_samples: int | None = None

    if not TYPE_CHECKING:

        def __new__(cls, *values: object, **named: object) -> Study:
            """Refuses a field that is missing or that there is not, before Python does in its own words."""
            names = [each.name for each in fields(cls)]
            for name in named:
                if name not in names:
                    raise BadInput(f"Study: it has no '{name}'{did_you_mean(name, names) or '; see its docstring'}")
            if len(values) > len(names):
                raise BadInput(f"Study: it has {len(names)} fields, and {len(values)} values are given")
            missing = [name for name in names[len(values) : NEEDED] if name not in named]
            if missing:
                raise BadInput(f"Study: {missing[0]} is missing; a study has a question, trainable, base and space")
            return super().__new__(cls)

    def __post_init__(self) -> None:
        self._expect_kinds()
        object.__setattr__(self, "minimize", tuple(self.minimize))
        object.__setattr__(self, "space", spaces.plain_space(self.space))
        if not is_metric(self.metric):
            raise BadInput(f"metric = '{self.metric}': {no_metric(self.metric)}")
        object.__setattr__(self, "base", self.base.with_settings({"monitor": self.metric}))
        object.__setattr__(self, "teacher", with_data(self.teacher, self.base.data, self.metric))
        known = (LATENCY, PARAMETERS, MACS)
        unknown = next((name for name in self.minimize if name not in known), None)
        if unknown:
            raise BadInput(f"minimize: '{unknown}' is not one of {', '.join(known)}{did_you_mean(unknown, known)}")
        if self.suggester:
            suggest.code_of(spaces.written(self.suggester))
            suggest.probe(self.suggester, self._expect_point)
        else:
            for grid in self.grids:
                for point in spaces.probes(grid):
                    self._expect_point(point)
        swept = {name for names in (*self.grids, self.ranges) for name in names}
        expect_fitting(self.scheduler, self.minimize, swept)
        self._expect_folds()

    def _expect_kinds(self) -> None:
        expect_trainable(self.trainable)
        for name, kind, words in KINDS:
            value = getattr(self, name)
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise BadInput(f"{name}: expected {words}; it is {kind_of(value)}")
        expect_config(self.trainable, self.base)
        if not self.question.strip():
            raise BadInput("question: it is empty; begin the file with a docstring that says what the study asks")
        for name in ("samples", "demo_samples"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise BadInput(f"{name} = {number}: input should be greater than or equal to 1")
        if not all(isinstance(name, str) for name in self.minimize):
            raise BadInput(f"minimize: expected names, such as ({PARAMETERS!r},)")

    def _expect_folds(self) -> None:
        """Runs of several folds are judged by other images each, some of which a common teacher was trained on."""
        if not any(FOLD in names for names in (*self.grids, self.ranges)):
            return
        if self.suggester:
            raise BadInput(f"{FOLD}: a search cannot suggest it; sweep it in a grid, with grid_search([0, 1, ...])")
        if self.teacher is not None:
            raise BadInput(
                f"{FOLD} is swept, and students would be judged by patients that the teacher was trained on; leave the "
                f"teacher out, or make a study of each fold"
            )
        if self.scheduler:
            raise BadInput(f"{FOLD} is swept, and a scheduler would stop runs by scores on other images; leave it out")

    def _expect_point(self, settings: Mapping[str, Any]) -> None:
        for name in settings:
            if name == "monitor":
                raise BadInput("monitor cannot be swept: it is what the study ranks by; say it as the study's metric")
            if name.startswith("data.") and name not in ("data.fraction", FOLD):
                raise BadInput(f"{name} cannot be swept: trials on other images do not compare; make a study of each")
        try:
            self.base.with_settings(settings)
        except BadInput as error:
            listed = next((name for name, value in settings.items() if isinstance(value, list)), None)
            hint = listed and not takes_list(type(self.base), listed) and str(error).startswith(f"{listed} = [")
            raise BadInput(
                f"{error}; to sweep the values of a list, write grid_search([...])" if hint else error
            ) from None

    @property
    def suggester(self) -> suggest.Suggester | None:
        """The space, if it is a function: a search. Its trials are not known before they are asked for."""
        return self.space if callable(self.space) else None

    @property
    def grids(self) -> list[Grid]:
        return [] if callable(self.space) else spaces.grids(self.space)

    @cached_property
    def ranges(self) -> dict[str, str]:
        """What a function suggests, in words: `{"optimizer.lr": "1e-05 .. 0.01, log"}`."""
        return suggest.described(self.suggester) if self.suggester else {}

    @cached_property
    def longest(self) -> int:
        """The most epochs that a suggested trial can have: a space may suggest them."""
        lengths = [self.base.epochs]
        if self.suggester and "epochs" in self.ranges:
            suggest.probe(self.suggester, lambda point: lengths.append(self.base.with_settings(point).epochs))
        return max(lengths)

    def points(self) -> list[dict[str, Any]]:
        """The swept settings of every trial of the grids, in order, duplicates included."""
        random = np.random.RandomState(self.base.seed)
        return [point for grid in self.grids for point in spaces.points(grid, self.samples, random)]

    def configs(self) -> list[tuple[dict[str, Any], RunConfig]]:
        """Settings and config of every trial of the grids, without duplicates: alpha 0 is one run, not one per tau."""
        return list(self._configs)

    @cached_property
    def _canonical(self) -> list[tuple[dict[str, Any], RunConfig]]:
        return [(point, self.base.with_settings(point).canonical()) for point in self.points()]

    @cached_property
    def _configs(self) -> list[tuple[dict[str, Any], RunConfig]]:
        found: dict[Hashable, tuple[dict[str, Any], RunConfig]] = {}
        for point, config in self._canonical:
            idle = [name for name in point if config.kd is None and name.startswith("kd.") and name != "kd.alpha"]
            settings = spaces.stored(flatten(config.model_dump(mode="json")), spaces.without(point, idle, ()))
            found.setdefault(self._as_trained(config).model_dump_json(), (settings, config))
        return list(found.values())

    def _as_trained(self, config: RunConfig) -> RunConfig:
        return as_trained(config)[0] if is_known(self.trainable) else config

    def idle_settings(self) -> list[str]:
        """Why points of the grids that differ are one run, a phrase each."""
        return why_one_run(config for _, config in self._canonical) if is_known(self.trainable) else []

    def proposals(self, tried: Sequence[Tried]) -> list[dict[str, Any]]:
        """The next round of a search, or nothing if it is done: its samples are reached or its space is exhausted."""
        if not self.suggester:
            return []
        down: list[Direction] = ["minimize" for _ in self.minimize]
        return suggest.suggest(
            self.suggester,
            tried,
            self.wanted(len(tried)),
            tpe=self.search,
            directions=("maximize", *down),
            seed=self.base.seed,
            identity=self._identity,
        )

    def _identity(self, settings: Mapping[str, Any]) -> str:
        """Two settings are one run if their configs are equal, and files of weights if their contents are."""
        config = self._as_trained(self.base.with_settings(settings).canonical())
        tree = config.model_dump(mode="json")
        file = config.weights.local_file(timm_name(config.model)) if config.weights else None
        if file is not None:
            tree["weights"] = sha256_of(file)
        return digest(tree)

    def wanted(self, tried: int) -> int:
        """Trials of the next round of a search."""
        return min(self.search.batch, max(self.samples - tried, 0))

    def trials(
        self,
        teacher: str,
        points: Sequence[dict[str, Any]] | None = None,
        *,
        made_by: str = "",
        beside: Sequence[dict[str, Any]] = (),
    ) -> list[Trial]:
        """These points, resolved; without points, every trial of the grids. Of those that are one run the first stays.

        `teacher` is the key of the study's teacher, empty if it has none; `made_by` is what the keys hold of their
        making, if it is not the trainable as it is now: a study goes on under the keys that it began with. Labels tell
        the points from those `beside` them, too.

        Raises:
            BadInput: the data are not prepared, a file is missing, or kd is set and there is no teacher.
        """
        given = self.configs() if points is None else [(p, self.base.with_settings(p).canonical()) for p in points]
        configs = resolve([config for _, config in given], teacher)
        points = [*beside, *(settings for settings, _ in given)]
        labels = spaces.labels(points, list(self.ranges), self.base.model)[len(beside) :]
        by = made_by or maker(self.trainable)
        found: dict[str, Trial] = {}
        reads: dict[tuple[str, AnySplit], dict[str, str]] = {}
        for label, (settings, _), config in zip(labels, given, configs, strict=True):
            of = config.data.name, config.data.split
            reads[of] = reads.get(of) or fingerprints(config)
            key = run_key(config, by, reads[of])
            found.setdefault(key, Trial(key, label, settings, config))
        return list(found.values())

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
        known = set(setting_names(type(self.base))) | {TEACHER}
        stranger = next((name for name in own if name not in known), None)
        if stranger:
            raise BadInput(unknown(type(self.base), stranger, TEACHER))
        changed: Teacher = settings.get(TEACHER, self.teacher)
        if teacher:
            changed = changed_teacher(changed, teacher)
        several = {n: v for n, v in own.items() if isinstance(v, list) and not takes_list(type(self.base), n)}
        base = self.base.with_settings({name: v for name, v in own.items() if name not in several})
        space = self._narrowed(base, {name: value for name, value in own.items() if name not in several}, several)
        return replace(self, base=base, space=space, teacher=changed, metric=base.monitor)

    def _narrowed(self, base: RunConfig, fixed: Mapping[str, Any], several: Mapping[str, list[Any]]) -> Space:
        """The space without `fixed`, whose values are in `base` now, and with other values of `several`.

        A choice that is fixed by its name alone leaves the settings below it to the space.
        """
        closed = tuple(name for name, value in fixed.items() if not isinstance(value, str))
        if callable(self.space):
            if not fixed and not several:
                return self.space
            new = next((name for name in several if name not in self.ranges), None)
            if new:
                raise BadInput(f"{new} = {several[new]}: this search does not suggest it; give it one value")
            return Narrowed(self.space, base.model_dump(), tuple(fixed), closed, several)
        axes = {name: grid_search(values) for name, values in several.items()}
        grids = [{**grid, **axes} for grid in spaces.still_open(self.grids, flatten(base.model_dump()), fixed, closed)]
        return grids[0] if len(grids) == 1 else grids

    def as_demo(self) -> Study:
        """On phantoms, with the study's own small settings."""
        small = self.with_settings({"data.name": DEMO_DATA} | dict(self.demo))
        return replace(small, samples=self.demo_samples or self.samples)

    def definition(self) -> dict[str, Any]:
        """What makes this study what it is beside its trials: further objectives; a search's base, ranges and code."""
        down = {"minimize": list(self.minimize)} if self.minimize else {}
        if not self.suggester:
            return down
        code = suggest.code_of(spaces.written(self.suggester))
        about = {"ranges": self.ranges, "code": code, **self.search.model_dump()}
        return down | {"search": about, "base": self.base.resolved("a teacher").identity()}

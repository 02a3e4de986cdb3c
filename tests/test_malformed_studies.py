"""Study files as people get them wrong: each is refused before anything runs, by one sentence and exit code 2."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from xlite_search.cli import main
from xlite_search.config import RunConfig
from xlite_search.records import RunRecord
from xlite_search.search.plan import make_plan
from xlite_search.search.runner import begin
from xlite_search.search.study_file import load_study

HEAD = '''"""A question?"""
import enum, functools, math, pathlib
import numpy as np
from ray import tune
from trainables.baseline import baseline
from xlite_search.config import RunConfig
from xlite_search.search.asha import ASHA
from xlite_search.search.pareto import ParetoStop
from xlite_search.search.study import TPE, Study, grid_search
from xlite_search.training.losses import BCE, Focal
from xlite_search.training.optim import AdamW

base = RunConfig.model_validate_json({base!r})
rates = {{"optimizer.lr": grid_search([1e-3, 3e-3])}}
'''


def study(**fields: str) -> str:
    """A study of which some fields are written otherwise."""
    usual = {"question": "__doc__", "trainable": "baseline", "base": "base", "space": "rates"}
    return f"study = Study({', '.join(f'{name}={text}' for name, text in (usual | fields).items() if text)})"


def sweeping(values: str, name: str = "optimizer.lr") -> str:
    return study(space=f"{{{name!r}: {values}}}", samples="2")


def suggesting(*lines: str, samples: str = "2") -> str:
    body = "\n".join(f"    {line}" for line in lines)
    return f"def space(trial):\n{body}\n{study(space='space', samples=samples)}"


def trained_by(before: str, trainable: str) -> str:
    return f"{before}\n{study(trainable=trainable)}"


FLOAT = "trial.suggest_float('optimizer.lr', 1e-4, 1e-2)"

#: what is wrong with it -> the file's end, and what the sentence says
MALFORMED: dict[str, tuple[str, str]] = {
    # what runs it
    "partial": (
        trained_by("def mine(c, r=None, *, b):\n    yield", "functools.partial(mine, b=1)"),
        "a functools.partial",
    ),
    "callable": (trained_by("class Mine:\n    def __call__(self, c, r=None):\n        yield", "Mine()"), "a Mine"),
    "class": (trained_by("class Mine:\n    pass", "Mine"), "the class Mine"),
    "lambda": (study(trainable="lambda config, resume=None: baseline(config, resume)"), "a lambda"),
    "named lambda": (trained_by("mine = lambda c, r=None: baseline(c, r)", "mine"), "a lambda"),
    "closure": (
        trained_by("def make():\n    def run(c, r=None):\n        yield\n    return run", "make()"),
        "a function inside another",
    ),
    "method": (trained_by("class Mine:\n    def run(self, c, r=None):\n        yield", "Mine().run"), "a method"),
    "static method": (
        trained_by("class Mine:\n    @staticmethod\n    def run(c, r=None):\n        yield", "Mine.run"),
        "inside a class",
    ),
    "redefined": (
        trained_by("def mine(c, r=None):\n    yield\nfirst = mine\ndef mine(c, r=None):\n    yield 1", "first"),
        "no longer what search_spaces.night.mine is",
    ),
    "async": (trained_by("async def mine(c, r=None):\n    yield", "mine"), "mine is async"),
    "no arguments": (trained_by("def mine():\n    yield", "mine"), "mine() is called with a config"),
    "one argument": (trained_by("def mine(config):\n    yield", "mine"), "let it take (config, resume=None)"),
    "a name": (study(trainable="'trainables.baseline:baseline'"), "a str"),
    "nothing": (study(trainable="None"), "trainable: it is None"),
    "a generator": (study(trainable="baseline(base)"), "a generator"),
    "print": (study(trainable="print"), "a builtin_function_or_method"),
    # the fields
    "no question": (study(question="None"), "question: expected text"),
    "blank question": (study(question="' '"), "question: it is empty"),
    "base is a dict": (study(base="{'epochs': 3}"), "base: expected RunConfig(...); it is a dict"),
    "base is the class": (study(base="RunConfig"), "base: expected RunConfig(...); it is the class RunConfig"),
    "scheduler is the class": (study(scheduler="ASHA"), "scheduler: expected ASHA(...), ParetoStop(...) or None"),
    "scheduler is a name": (study(scheduler="'asha'"), "scheduler: expected ASHA(...)"),
    "search is a name": (study(search="'tpe'"), "search: expected TPE(...)"),
    "metric is a list": (study(metric="['val/auroc_macro']"), "metric: expected a metric's name"),
    "metric is unknown": (study(metric="'auroc'"), "metric = 'auroc': expected one of val/auroc_macro, "),
    "metric is misspelt": (study(metric="'val/auroc_suported'"), "; did you mean 'val/auroc_supported'?"),
    "metric is of no finding": (study(metric="'val/auroc/'"), "metric = 'val/auroc/': expected one of "),
    "minimize is text": (study(minimize="'model/macs'"), "minimize: expected a tuple of names"),
    "minimize holds a number": (study(minimize="(1,)"), "minimize: expected names"),
    "minimize is unknown": (study(minimize="('model/mac',)"), "did you mean 'model/macs'?"),
    "minimize and a scheduler": (study(minimize="('model/macs',)", scheduler="ASHA()"), "leave one of the two out"),
    "ParetoStop and no cost": (study(scheduler="ParetoStop()"), "this study has one objective; say the cost, such as"),
    "ParetoStop and epochs": (
        study(scheduler="ParetoStop()", minimize="('model/macs',)", space="{'epochs': grid_search([2, 3])}"),
        "epochs is swept, and ParetoStop compares runs of one length",
    ),
    "ParetoStop(cost=1)": (study(scheduler="ParetoStop(cost=1)"), "ParetoStop: unknown setting 'cost'"),
    "ParetoStop(after=1)": (
        study(scheduler="ParetoStop(after=1)"),
        "ParetoStop: after = 1: input should be less than 1",
    ),
    "samples 0": (suggesting(FLOAT, samples="0"), "samples = 0: input should be greater than or equal to 1"),
    "samples -1": (study(samples="-1"), "samples = -1"),
    "samples 1.5": (study(samples="1.5"), "samples: expected a whole number"),
    "samples True": (study(samples="True"), "samples: expected a whole number; it is a bool"),
    "demo_samples 0": (study(demo_samples="0"), "demo_samples = 0"),
    "demo is a list": (study(demo="['epochs']"), "demo: expected a mapping"),
    "accept_overlap is text": (study(accept_overlap="'yes'"), "accept_overlap: expected True or False"),
    "misspelt field": (study(scedule="ASHA()"), "Study: it has no 'scedule'; did you mean 'scheduler'?"),
    "no space": (study(space=""), "Study: space is missing"),
    "too many values": ("study = Study(*range(20))", "Study: it has 13 fields, and 20 values are given"),
    "teacher is a number": (study(teacher="3"), "teacher = 3: expected a RunConfig"),
    "teacher is empty": (study(teacher="[]"), "the list of an ensemble's members is empty"),
    "no study": ("studies = 1", "has no `study = Study(...)`"),
    "study is a list": (f"{study()}\nstudy = [study]", "has no `study = Study(...)`"),
    # specs
    "ASHA(reduction=1)": (study(scheduler="ASHA(reduction=1)"), "ASHA: reduction = 1: input should be greater than 1"),
    "ASHA(grace=True)": (study(scheduler="ASHA(grace=True)"), "ASHA: grace = 'true': input should be a whole number"),
    "ASHA(eta=3)": (study(scheduler="ASHA(eta=3)"), "ASHA: unknown setting 'eta'"),
    "ASHA(3)": (study(scheduler="ASHA(3)"), "ASHA: settings are given by name"),
    "TPE(batch=0)": (study(search="TPE(batch=0)"), "TPE: batch = 0"),
    "RunConfig(epoch=3)": (study(base="RunConfig(epoch=3)"), "unknown setting 'epoch'; did you mean 'epochs'?"),
    "RunConfig(epochs='many')": (
        study(base="RunConfig(epochs='many')"),
        "epochs = 'many': input should be a whole number",
    ),
    "a wrong union": (study(base="RunConfig(loss=AdamW())"), "loss"),
    "a union's wrong name": (study(base="RunConfig(loss='focall')"), "loss = 'focall' is not known; expected one of"),
    "a union without a name": (study(base="RunConfig(loss={'gamma': 2})"), "no name; set loss itself too"),
    "a union that is a number": (
        study(base="RunConfig(schedule=5)"),
        "schedule = 5: expected one of constant, plateau",
    ),
    "a split that is a list": (study(base="RunConfig(data={'name': 'a', 'split': [1]})"), "data.split"),
    "ratios of two": (
        study(base="RunConfig(data={'split': {'name': 'patient', 'ratios': [0.5, 0.5]}})"),
        "data.split.ratios: it has too few values",
    ),
    # grids
    "an empty list of grids": (study(space="[]"), "space: the list of grids is empty"),
    "a space that is text": (study(space="'optimizer.lr'"), "space: it is a str"),
    "a space that is a number": (study(space="3"), "space: it is an int"),
    "no space at all": (study(space="None"), "space: it is None"),
    "a list of names": (study(space="['optimizer.lr']"), "space: a str is in the list of grids"),
    "a list with None": (study(space="[rates, None]"), "space: None is in the list of grids"),
    "a name that is a number": (study(space="{3: grid_search([1])}"), "3 is no setting's name"),
    "an unknown name": (sweeping("grid_search([1])", "kd.tua"), "unknown setting 'kd.tua'; did you mean 'kd.tau'?"),
    "a bare list": (sweeping("[1e-3, 3e-3]"), "to sweep the values of a list, write grid_search([...])"),
    "an empty grid_search": (sweeping("grid_search([])"), "optimizer.lr: the list of values is empty"),
    "an empty generator": (sweeping("grid_search(x for x in ())"), "optimizer.lr: the list of values is empty"),
    "Ray's empty grid_search": (sweeping("tune.grid_search([])"), "optimizer.lr: the list of values is empty"),
    "a set": (sweeping("grid_search({1e-3, 3e-3})"), "a set, which has no order"),
    "a mapping": (sweeping("grid_search({'a': 1e-3})"), "grid_search was given a dict"),
    "a number": (sweeping("grid_search(1e-3)"), "grid_search was given a float"),
    "text": (sweeping("grid_search('bce')", "loss"), "grid_search was given a str"),
    "lists of lists": (sweeping("grid_search([[1e-3], [3e-3]])"), "optimizer.lr = [0.001]: input should be a number"),
    "NaN": (sweeping("grid_search([math.nan])"), "optimizer.lr = nan: input should be a finite number"),
    "infinity": (sweeping("grid_search([np.float32('inf')])"), "optimizer.lr = inf: input should be a finite number"),
    "True": (sweeping("grid_search([True])"), "optimizer.lr = 'true': input should be a number"),
    "a YAML-ish number": (
        sweeping("grid_search(['1:30'])", "batch_size"),
        "batch_size = '1:30': input should be a whole",
    ),
    "an object": (sweeping("grid_search([object()])"), "optimizer.lr: an object is no value of a setting"),
    "a function": (sweeping("grid_search([print])"), "optimizer.lr: a builtin_function_or_method is no value"),
    "a complex number": (sweeping("grid_search([np.complex64(1)])"), "optimizer.lr: a complex is no value"),
    "a date": (sweeping("grid_search([np.datetime64('2024-01-01')])"), "optimizer.lr: a date is no value"),
    "bytes": (sweeping("grid_search([b'bce'])", "loss"), "loss: a bytes is no value"),
    "out of range": (sweeping("grid_search([-1.0])"), "optimizer.lr = -1.0: input should be greater than 0"),
    "the metric": (sweeping("grid_search(['val/ap_macro'])", "monitor"), "monitor cannot be swept"),
    "other data": (sweeping("grid_search(['a', 'b'])", "data.name"), "data.name cannot be swept"),
    "twice": (
        study(space="{'optimizer.lr': 1e-3, 'optimizer': {'lr': grid_search([1e-3])}}"),
        "optimizer.lr: it is in the space twice",
    ),
    "an unknown name below": (study(space="{'optimizer': {'rl': grid_search([1])}}"), "unknown setting 'optimizer.rl'"),
    "an empty tune.choice": (sweeping("tune.choice([])"), "optimizer.lr: the list of values is empty"),
    "a tune.choice of objects": (sweeping("tune.choice([object()])"), "optimizer.lr: an object is no value"),
    "tune.sample_from": (sweeping("tune.sample_from(lambda spec: 1e-3)"), "tune.sample_from has no values of its own"),
    "a tune.uniform that is negative": (sweeping("tune.uniform(-2, -1)"), "input should be greater than 0"),
    "a misspelt grid_search": (sweeping("{'grid_serch': [1e-3]}"), "optimizer.lr = {'grid_serch': [0.001]}"),
    # functions of a trial
    "a lambda as space": (study(space="lambda t: None"), "written with def"),
    "a partial as space": (
        f"def s(t, a):\n    pass\n{study(space='functools.partial(s, a=1)')}",
        "written with def",
    ),
    "a class as space": (f"class S:\n    pass\n{study(space='S')}", "written with def"),
    "it suggests nothing": (suggesting("pass"), "space: it suggested nothing"),
    "it returns": (suggesting("return {'optimizer.lr': 1}"), "space: it returned a dict"),
    "it yields": (suggesting(f"yield {FLOAT}"), "space: it returned a generator"),
    "it raises": (suggesting("raise KeyError('a\\nb')"), "space: KeyError: 'a"),
    "no trial": (f"def space():\n    pass\n{study(space='space')}", "space: TypeError"),
    "a choice of mappings": (suggesting("trial.suggest_categorical('loss', [{'name': 'bce'}])"), "is no plain value"),
    "a choice of numpy's": (suggesting("trial.suggest_categorical('batch_size', [np.int64(8)])"), "is no plain value"),
    "no choices": (suggesting("trial.suggest_categorical('loss', [])"), "was given no choices"),
    "low above high": (
        suggesting("trial.suggest_float('optimizer.lr', 1e-2, 1e-4)"),
        "a range ends below where it begins",
    ),
    "choices that depend": (
        suggesting(
            "few = trial.suggest_categorical('loss', ['bce', 'focal']) == 'bce'",
            "trial.suggest_categorical('batch_size', [8] if few else [16])",
        ),
        "suggested from different choices",
    ),
    "a step that does not fit": (suggesting("trial.suggest_float('optimizer.lr', 0.1, 1, step=0.4)"), "its step"),
    "dice of its own": (
        suggesting("import random", "trial.suggest_float('optimizer.lr', 1e-4, 1e-3 + random.random())"),
        "with the same values it suggests otherwise",
    ),
    "an unknown suggestion": (suggesting("trial.suggest_float('kd.tua', 1, 2)"), "unknown setting 'kd.tua'"),
    # the file
    "a syntax error": ("study = Study(", "line 15: "),
    "an exception": ("1 / 0", "line 15: ZeroDivisionError: division by zero"),
    "an exception of lines": ("raise ValueError('a\\n\\nb\\tc')", "ValueError: a b c"),
    "a missing import": ("import nowhere", "No module named 'nowhere'"),
    "it ends the program": ("raise SystemExit(0)", "it ends the program"),
    "a null byte": ("x = '\0'", "null byte"),
    "recursion": ("def f():\n    f()\nf()", "RecursionError"),
}


@pytest.fixture
def written(tmp_path: Path, tiny: RunConfig) -> Callable[[str], Path]:
    def write(end: str) -> Path:
        path = tmp_path / "night.py"
        path.write_text(HEAD.format(base=tiny.model_dump_json()) + end + "\n")
        return path

    return write


@pytest.mark.parametrize("what", MALFORMED)
def test_it_is_refused_in_one_sentence(
    what: str,
    written: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    runs: Path,
) -> None:
    end, says = MALFORMED[what]
    monkeypatch.setattr(sys, "argv", ["xlite_search", "plan", str(written(end))])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2, said.err
    assert said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and len(said.err) < 700, said.err
    assert says in said.err
    for foreign in ("Traceback", "pydantic", "validation error", "Input should", "errors."):
        assert foreign not in said.err
    assert not list(runs.glob("studies/*/study.json"))


def test_there_are_many() -> None:
    assert len(MALFORMED) >= 60


SOUND = {
    "numpy's whole numbers": (
        "{'batch_size': grid_search(np.array([8, 16]))}",
        [{"batch_size": 8}, {"batch_size": 16}],
    ),
    "numpy's range and truth": (
        "{'seed': grid_search(np.arange(2)), 'compile': grid_search([np.bool_(False)])}",
        [{"seed": 0, "compile": False}, {"seed": 1, "compile": False}],
    ),
    "numpy's short floats": ("{'optimizer.lr': grid_search(np.array([0.5], np.float32))}", [{"optimizer.lr": 0.5}]),
    "numpy's steps": (
        "{'optimizer.lr': grid_search(np.linspace(0.25, 0.5, 2))}",
        [{"optimizer.lr": 0.25}, {"optimizer.lr": 0.5}],
    ),
    "a generator": ("{'seed': grid_search(n for n in range(2))}", [{"seed": 0}, {"seed": 1}]),
    "a tuple": ("{'seed': grid_search((1, 2))}", [{"seed": 1}, {"seed": 2}]),
    "text that is a number": ("{'seed': grid_search(['1', 1.0, 2])}", [{"seed": 1}, {"seed": 2}]),
    "Ray's nested mappings": (
        "{'optimizer': {'lr': tune.grid_search([0.25, 0.5])}, 'seed': 3}",
        [{"optimizer.lr": 0.25, "seed": 3}, {"optimizer.lr": 0.5, "seed": 3}],
    ),
    "specs": (
        "{'loss': grid_search([BCE(), 'focal'])}",
        [{"loss": {"name": "bce", "smoothing": 0.0}}, {"loss": "focal"}],
    ),
    "a space of one run": ("{}", [{}]),
    "numpy's choices, drawn": ("{'seed': tune.choice(np.array([4, 4]))}", [{"seed": 4}]),
}


@pytest.mark.parametrize("what", SOUND)
def test_what_is_validated_is_what_is_stored(what: str, written: Callable[[str], Path]) -> None:
    space, expected = SOUND[what]
    record = begin(make_plan(load_study(str(written(study(space=space)))), "night"))
    stored = [RunRecord.load(record.trial_folder(key)).settings for key in record.trials]
    assert stored == expected
    assert [[type(v) for v in one.values()] for one in stored] == [[type(v) for v in one.values()] for one in expected]


def test_suggestions_are_stored_as_they_were_validated(written: Callable[[str], Path]) -> None:
    lines = (
        "trial.suggest_categorical('optimizer.weight_decay', [np.float64(0.5)])",
        "trial.suggest_int('seed', np.int64(1), np.int64(3))",
        "trial.suggest_float('optimizer.lr', np.float32(1e-3), np.float32(1e-2))",
    )
    plan = make_plan(load_study(str(written(suggesting(*lines)))), "night")
    record = begin(plan)
    for trial in plan.trials:
        stored = RunRecord.load(record.trial_folder(trial.key)).settings
        assert [type(value) for value in stored.values()] == [float, int, float]
        assert json.loads(json.dumps(trial.settings)) == stored
        assert all(type(value) in (float, int) for value in trial.settings.values())

"""Trainables by name, `module:function`: found again in any process, with their code version and config class."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from xlite_search.closure import Code
from xlite_search.closure import code_of as closure_of
from xlite_search.config import RECORDED, RunConfig
from xlite_search.errors import BadInput, XliteError
from xlite_search.records import RunRecord
from xlite_search.spec import kind_of, parse
from xlite_search.training.result import EpochResult

#: what one run does: a generator of epochs, from a checkpoint if one is given. It is called with a RunConfig, or with
#: the subclass that its first argument is annotated with (`config_class`)
Trainable = Callable[[Any, Path | None], Iterator[EpochResult]]

SPACES = "search_spaces"
#: how `--set` calls a study's teacher
TEACHER = "teacher"
#: letters that a sentence shows of what Python said of a study's file
SAID = 300


def reference(trainable: Trainable | type[RunConfig]) -> str:
    """`module:name`, or `/path/file.py:name` if a study file defines it itself."""
    named: Any = trainable
    home = str(source_file(named)) if named.__module__.startswith(f"{SPACES}.") else named.__module__
    return f"{home}:{named.__qualname__}"


def expect_trainable(given: object) -> None:
    """Raises BadInput if this is not a function that a worker finds again by its name, and can call."""
    what = _not_plain(given)
    if what:
        raise BadInput(
            f"trainable: it is {what}, which a worker cannot find by its name; write a function at the top of a module "
            f"or of the study's file, `def mine(config, resume=None)`, that yields EpochResults"
        )
    assert isinstance(given, types.FunctionType)
    if inspect.iscoroutinefunction(given) or inspect.isasyncgenfunction(given):
        raise BadInput(f"trainable: {given.__name__} is async; write it with a plain def and yield")
    try:
        inspect.signature(given).bind(None, None)
    except TypeError:
        raise BadInput(
            f"trainable: {given.__name__}{inspect.signature(given)} is called with a config and the checkpoint to go "
            f"on from; let it take (config, resume=None)"
        ) from None


def _not_plain(given: object) -> str:
    """What this is, if not a function at the top of a module; else nothing."""
    if isinstance(given, functools.partial):
        return "a functools.partial"
    if isinstance(given, types.MethodType):
        return "a method"
    if not isinstance(given, types.FunctionType):
        return kind_of(given)
    if given.__name__ == "<lambda>":
        return "a lambda"
    if "." in given.__qualname__:
        return "a function inside another or inside a class"
    there = getattr(sys.modules.get(given.__module__), given.__name__, None)
    return "" if there is given else f"no longer what {given.__module__}.{given.__name__} is"


def code_of(trainable: Trainable) -> Code:
    """The code that a trainable runs: of its file what it reaches, and all that this imports inside the project."""
    function: Any = trainable
    file = source_file(trainable)
    try:
        return closure_of(file, function.__name__, function.__module__, project_root(file))
    except SyntaxError as error:
        raise BadInput(f"{error.filename}, line {error.lineno}: {error.msg}") from None


def maker(trainable: Trainable) -> str:
    """Who makes a run, as its key holds it: the trainable by name, and its code's version."""
    return f"{named(trainable)} {code_of(trainable).version}"


def named(trainable: Trainable) -> str:
    """The trainable's `reference`, without where the study file that defines it lies."""
    home, _, name = reference(trainable).rpartition(":")
    return f"{Path(home).name if home.endswith('.py') else home}:{name}"


def trainable_at(where: str) -> Trainable:
    """The trainable of a `reference`.

    Raises:
        BadInput: it is not there any more.
    """
    home, _, name = where.rpartition(":")
    try:
        module = load_file(Path(home), home) if home.endswith(".py") else importlib.import_module(home)
        trainable: Trainable = getattr(module, name)
    except (ImportError, AttributeError, FileNotFoundError):
        raise BadInput(
            f"trainable '{where}' is not there: start from the project's folder, where trainables/ is"
        ) from None
    return trainable


def config_class(trainable: Trainable) -> type[RunConfig]:
    """The config that a trainable asks for: the type of its first argument, RunConfig or a subclass with settings of
    its own; RunConfig where the annotation says nothing of the kind."""
    first = next(iter(inspect.signature(trainable).parameters.values()), None)
    said = types.SimpleNamespace(__annotations__={"config": first.annotation if first else Any})
    try:
        found = get_type_hints(said, getattr(inspect.unwrap(trainable), "__globals__", {}))["config"]
    except (NameError, AttributeError, TypeError):  # a name that only a type checker knows
        return RunConfig
    return found if isinstance(found, type) and issubclass(found, RunConfig) else RunConfig


def expect_config(trainable: Trainable, base: RunConfig) -> None:
    """That a worker, which knows a trainable's name and plain values, makes this very config of them again.

    Raises:
        BadInput: it does not.
    """
    own, asked, name = type(base), config_class(trainable), getattr(trainable, "__name__", "the trainable")
    if own is not asked:
        raise BadInput(
            f"base: it is {kind_of(base)}, and {name} asks for a {asked.__name__}; write base={asked.__name__}(...), "
            f"or annotate the first argument, def {name}(config: {own.__name__}, resume=None)"
        )
    if own is RunConfig:
        return
    if getattr(sys.modules.get(own.__module__), own.__qualname__, None) is not own:
        raise BadInput(f"base: a worker cannot find {own.__qualname__}; define the class at the top of a module")
    if TEACHER in own.model_fields:
        raise BadInput(f"base: {own.__name__} has a setting '{TEACHER}', which --set takes for the study's; rename it")
    try:
        same = own.model_validate_json(base.model_dump_json()) == base
    except ValueError:
        same = False
    if not same:
        raise BadInput(
            f"base: {own.__name__} is another one once it was JSON; let its settings be specs or plain values"
        )


def config_name(own: type[RunConfig]) -> str:
    """How a record names the class of its config: its `reference`, empty for RunConfig itself."""
    return "" if own is RunConfig else reference(own)


def config_named(where: str) -> type[RunConfig]:
    """The class of a `config_name`.

    Raises:
        BadInput: it is not there any more.
    """
    if not where:
        return RunConfig
    home, _, name = where.rpartition(":")
    loaded = sys.modules.get(f"{SPACES}.{Path(home).stem}") if home.endswith(".py") else None
    try:
        if loaded is None or loaded.__file__ != home:
            loaded = load_file(Path(home), home) if home.endswith(".py") else importlib.import_module(home)
        found = getattr(loaded, name)
    except (ImportError, AttributeError, FileNotFoundError):
        found = None
    if not (isinstance(found, type) and issubclass(found, RunConfig)):
        raise BadInput(f"config class '{where}' is not there: start from the project's folder, where trainables/ is")
    return found


def config_of(record: RunRecord) -> RunConfig:
    """A run's config. Raises BadInput if it is none, or if its class is not there any more."""
    return parse(config_named(record.config_class), record.config, f"{record.label}: ", RECORDED)


def source_file(trainable: Trainable | type[RunConfig]) -> Path:
    return Path(str(sys.modules[trainable.__module__].__file__)).absolute()


def project_root(path: Path) -> Path:
    """The folder that holds `trainables/`: above this file, or else the working folder."""
    return next((p for p in path.absolute().parents if (p / "trainables").is_dir()), Path.cwd())


def load_file(path: Path, where: str) -> ModuleType:
    """Runs a study file as module `search_spaces.<name>`, its project on the import path.

    Raises:
        BadInput: it cannot be run; the sentence begins with `where` and names the line.
    """
    root = str(project_root(path))
    if root not in sys.path:
        sys.path.insert(0, root)
    name = f"{SPACES}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        at = f", line {error.lineno}" if error.lineno else ""
        raise BadInput(f"{where}{at}: {error.msg}") from None
    except SystemExit:
        raise BadInput(f"{where}{_line_of(path)}: it ends the program; a study's file only says what to run") from None
    except Exception as error:
        said = " ".join(str(error).split())
        what = said if isinstance(error, XliteError) else f"{type(error).__name__}: {said[:SAID]}".rstrip(": ")
        raise BadInput(f"{where}{_line_of(path)}: {what}") from None
    return module


def _line_of(path: Path) -> str:
    """Where in this file the exception that is being handled came from, `, line 12`."""
    error = sys.exception()
    trace = traceback.extract_tb(error.__traceback__ if error else None)
    lines = [frame.lineno for frame in trace if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""

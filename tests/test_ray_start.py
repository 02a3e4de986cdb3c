"""How Ray is started: in a folder that takes its sockets, with a token of our own, whatever the environment says."""

from __future__ import annotations

import errno
import functools
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import ray
from ray.air.execution._internal import RayActorManager
from ray.tune.utils.object_cache import _ObjectCache

from xlite_search import interrupts
from xlite_search.errors import BadInput, EngineDied, Interrupted, XliteError
from xlite_search.machine import Machine
from xlite_search.search import engine as engines
from xlite_search.search import ray_files, ray_patches
from xlite_search.search.engine import _start, engine
from xlite_search.search.ray_files import CACHE, ray_folder, remove_orphans

posix = pytest.mark.skipif(os.name == "nt", reason="Windows' Ray has no sockets in folders")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Says which folder is the one for temporary files."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)

    def is_(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        return folder

    return is_


@pytest.fixture
def short() -> Any:
    """An empty folder with a short name."""
    with tempfile.TemporaryDirectory(prefix="x", dir=None if os.name == "nt" else "/tmp") as folder:
        yield Path(folder)


def test_a_folder_is_made_where_temporary_files_go_and_is_removed(short: Path, temporary: Any) -> None:
    temporary(short)
    with ray_folder() as folder:
        assert folder.parent == short
        assert folder.name.startswith(f"{CACHE}{os.getpid()}-")
        (folder / "session").mkdir()
    assert list(short.iterdir()) == []


@posix
@pytest.mark.parametrize("name", ["x" * 90, "für-mich", "сюда"])
def test_a_folder_that_cannot_hold_sockets_is_passed_over(name: str, short: Path, temporary: Any) -> None:
    tried = temporary(short / name)
    with ray_folder() as folder:
        assert tried not in folder.parents
        assert str(folder).isascii() and len(str(folder / ray_files.LONGEST)) < 108
    assert list(tried.iterdir()) == []


@posix
def test_what_somebody_names_for_ray_comes_first(short: Path, temporary: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary(short / "general")
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    with ray_folder() as folder:
        assert folder.parent == short


def test_where_no_folder_will_do_it_is_said_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_files, "_takes_sockets", lambda folder: False)
    with pytest.raises(BadInput, match="name one in RAY_TMPDIR"), ray_folder():
        pass


def test_folders_of_drivers_that_are_dead_are_removed_and_no_others(short: Path, temporary: Any) -> None:
    temporary(short)
    for name in (f"{CACHE}999999999-a", f"{CACHE}{os.getppid()}-b", f"{CACHE}notes-c", "else"):
        (short / name).mkdir()
    remove_orphans()
    assert {path.name for path in short.iterdir()} == {f"{CACHE}{os.getppid()}-b", f"{CACHE}notes-c", "else"}


class Init:
    """`ray.init`, which writes down what it was asked for, or raises."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: dict[str, Any] = {}
        self.error = error

    def __call__(self, **asked: Any) -> None:
        self.asked = asked
        if self.error:
            raise self.error


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without a Ray, and with an environment that is given back."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "XLITE_ENGINE"):
        monkeypatch.setenv(name, "")
    for name in ("AuthenticationTokenLoader", "Config"):  # else they would tell the Ray of other tests
        monkeypatch.setattr(ray_patches, name, Mock())
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return monkeypatch


def test_a_ray_of_our_own_whoever_runs_one(quiet: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quiet.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    init = Init()
    quiet.setattr(ray, "init", init)
    _start(Machine(cpus=3), None, tmp_path)
    assert (init.asked["address"], init.asked["num_cpus"], init.asked["_temp_dir"]) == ("local", 3, str(tmp_path))
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64, "nothing is kept in a home, which not everybody has"


def test_ray_that_somebody_imported_before_obeys_our_settings(tmp_path: Path) -> None:
    script = """
import os
import ray
from ray.air.execution._internal import RayActorManager
from ray.tune.utils.object_cache import _ObjectCache
from ray._private.services import get_node_ip_address
from ray._raylet import AuthenticationMode, AuthenticationTokenLoader, get_authentication_mode
loader = AuthenticationTokenLoader.instance()
assert not loader.has_token(ignore_auth_mode=True) and get_authentication_mode() == AuthenticationMode.DISABLED
from xlite_search.search import ray_patches
ray_patches.read_settings_again()
ray_patches.authenticate(own=True)
assert get_node_ip_address() in ("127.0.0.1", "::1")
assert get_authentication_mode() == AuthenticationMode.TOKEN
assert loader.get_raw_token() == os.environ["RAY_AUTH_TOKEN"] != ""
"""
    theirs = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    homeless = theirs | {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=homeless, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_a_token_that_somebody_gives_is_the_token(name: str, quiet: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quiet.setenv(name, "theirs")
    quiet.setattr(ray, "init", Init())
    _start(Machine(cpus=1), None, tmp_path)
    assert {os.environ["RAY_AUTH_TOKEN"], os.environ["RAY_AUTH_TOKEN_PATH"]} == {"theirs", ""}


def test_a_cluster_is_joined_as_it_is(quiet: pytest.MonkeyPatch, tmp_path: Path) -> None:
    init = Init()
    quiet.setattr(ray, "init", init)
    _start(Machine(cpus=3), "10.0.0.1:6379", tmp_path)
    assert init.asked["address"] == "10.0.0.1:6379"
    assert "num_cpus" not in init.asked and "_temp_dir" not in init.asked
    assert os.environ["RAY_AUTH_TOKEN"] == ""


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (
            Exception("Timed out.\nMore."),
            EngineDied,
            r"start: Timed out\. Nothing is lost; .* the same command goes on$",
        ),
        (ValueError("no"), EngineDied, r"start \(ValueError: no\)\. Nothing is lost, but it will not start until"),
        (OSError(errno.ENOSPC, "No space left on device"), EngineDied, r"No space left on device; make room"),
        (ray.exceptions.AuthenticationError("who?"), BadInput, "RAY_AUTH_TOKEN_PATH"),
    ],
    ids=["busy", "for good", "full", "token"],
)
def test_ray_that_does_not_start_is_told_in_a_sentence(
    error: Exception, kind: type[XliteError], sentence: str, quiet: pytest.MonkeyPatch
) -> None:
    quiet.setattr(ray, "init", Init(error))
    with pytest.raises(kind, match=sentence), engine(Machine(cpus=1)):
        pass
    assert EngineDied.exit_code == 4


@pytest.mark.parametrize("name", ray_patches.NAMES)
def test_ray_still_has_what_is_private_and_used(name: str) -> None:
    module, _, attribute = name.partition(":")
    found = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
    assert found is not None, name


def test_a_worker_that_starved_is_a_worker_that_is_lost() -> None:
    """Within; outside, Ray is as it was, and its search falls."""
    task, starved = Mock(), ray.exceptions.OutOfMemoryError("low on memory")
    with ray_patches.workers_may_starve():
        RayActorManager._actor_task_failed(Mock(), task, starved)
    ((_, told),) = [call.args for call in task._on_error.call_args_list]
    assert isinstance(told, ray.exceptions.RayActorError) and "low on memory" in str(told)
    with pytest.raises(RuntimeError, match="unexpected exception"):
        RayActorManager._actor_task_failed(Mock(), task, starved)


def test_workers_without_a_trial_stay_as_many_as_are_asked_for() -> None:
    """Within; outside, Ray keeps one. At the end none stays."""

    def kept() -> list[bool]:
        return [cache.cache_object("CPU", worker) for worker in ("first", "second", "third")]

    with ray_patches.workers_wait(2):
        cache = _ObjectCache(may_keep_one=True)
        assert kept() == [True, True, False]
        assert list(cache.flush_cached_objects()) == []
        assert cache.pop_cached_object("CPU") == "first"
        assert list(cache.flush_cached_objects(force_all=True)) == ["second"] and cache.num_cached_objects == 0
    cache = _ObjectCache(may_keep_one=True)
    assert kept() == [True, False, False]


def test_a_ctrl_c_that_python_lost_before_anybody_listened_ends_the_search(quiet: pytest.MonkeyPatch) -> None:
    """As it is while modules are imported: an exception in a weak reference's callback is printed and forgotten."""
    ended = list[str]()
    quiet.setattr(ray, "init", Init())
    quiet.setattr(engines, "end_children", lambda: ended.append("Ray's processes"))
    quiet.setattr(sys, "unraisablehook", lambda unraisable: ended.append(unraisable.exc_type.__name__))
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interrupts.remembered():
            gone = type("Gone", (), {})()
            reference = weakref.ref(gone, lambda _: signal.raise_signal(signal.SIGINT))
            del gone
            assert (reference(), ended) == (None, ["KeyboardInterrupt"])
            with pytest.raises(Interrupted), engine(Machine(cpus=1)):
                raise AssertionError("it begins")
        assert ended == ["KeyboardInterrupt", "Ray's processes"]
        assert not interrupts.lost() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)

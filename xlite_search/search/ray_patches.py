"""Private parts of Ray that are used all the same: an upgrade can break them, and breaks them here.

`NAMES` lists all of it, for a test that fails by the name which is gone.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.air.execution._internal import RayActorManager
from ray.tune.utils.object_cache import _ObjectCache

from xlite_search import places

#: `module:attribute`
NAMES = (
    "ray._private.ray_constants:ENABLE_RAY_CLUSTER",
    "ray._private.ray_constants:ENABLE_RAY_CLUSTERS_ENV_VAR",
    "ray._private.ray_constants:IS_WINDOWS_OR_OSX",
    "ray._private.ray_constants:env_bool",
    "ray._raylet:AuthenticationTokenLoader.instance",
    "ray._raylet:AuthenticationTokenLoader.reset_cache",
    "ray._raylet:Config.initialize",
    "ray.air.execution._internal:RayActorManager._actor_task_failed",
    "ray.tune.utils.object_cache:_ObjectCache.cache_object",
    "ray.tune.utils.object_cache:_ObjectCache.flush_cached_objects",
)


def authenticate(*, own: bool) -> None:
    """A token for this process and all below it, unless somebody gives one; `own`: for a Ray that is started here.
    Ray would keep it in the home, which not everybody has."""
    if own and not (places.variable("RAY_AUTH_TOKEN") or places.variable("RAY_AUTH_TOKEN_PATH")):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    AuthenticationTokenLoader.instance().reset_cache()


def read_settings_again() -> None:
    """Ray reads them when it is imported, which somebody may have done before ours were made, as in a study file whose
    imports are sorted: it would listen to other machines, and ask nobody for a token."""
    Config.initialize("")
    ray_constants.ENABLE_RAY_CLUSTER = ray_constants.env_bool(
        ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, not ray_constants.IS_WINDOWS_OR_OSX
    )


@contextmanager
def workers_may_starve() -> Iterator[None]:
    """Ray ends a worker when the host's memory runs out, by an error of its own kind that Tune does not expect: the
    whole search would fall. Here Tune is told that the worker is lost, with the same words."""
    failed = RayActorManager._actor_task_failed

    def actor_task_failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, ray.exceptions.OutOfMemoryError):
            exception = ray.exceptions.RayActorError(error_msg=str(exception))
        failed(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = actor_task_failed
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = failed


@contextmanager
def workers_wait(count: int) -> Iterator[None]:
    """Of workers without a trial Tune keeps one and ends the others: at a rung, where all but the last of a cohort have
    nothing to do, each of them would be started anew, which takes seconds. Here `count` of them stay."""
    cache, flush = _ObjectCache.cache_object, _ObjectCache.flush_cached_objects

    def cache_object(self: Any, key: Any, worker: Any) -> bool:
        if self._num_cached_objects >= count:
            return bool(cache(self, key, worker))
        self._cached_objects[key].append(worker)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self: Any, force_all: bool = False) -> Generator[Any]:
        if force_all or self._num_cached_objects > count:
            yield from flush(self, force_all)

    _ObjectCache.cache_object, _ObjectCache.flush_cached_objects = cache_object, flush_cached_objects
    try:
        yield
    finally:
        _ObjectCache.cache_object, _ObjectCache.flush_cached_objects = cache, flush

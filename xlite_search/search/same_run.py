"""Same run by other settings: points of a space whose differing settings training never meets.

Told by what the training loop does, without measuring, and true to the last bit. It holds for `baseline` and `distill`;
a trainable of one's own may do otherwise with a setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from xlite_search.config import RunConfig
from xlite_search.trainable import Trainable, named
from xlite_search.training.optim import Constant, Plateau, Recorded, WarmRestarts

#: trainables whose losses and settings this package knows
OURS = ("trainables.baseline:baseline", "trainables.distill:distill")
#: their learning rate at a step is the same however many epochs are to come
SHORT_SIGHTED = (Constant, Plateau, Recorded, WarmRestarts)


class Idle(NamedTuple):
    """Settings that would change nothing had they these values instead, and why."""

    settings: dict[str, Any]
    why: str


def as_trained(config: RunConfig) -> tuple[RunConfig, tuple[str, ...]]:
    """The config with its idle settings at one value: equal for two that are one run. And a sentence for each."""
    said = []
    for rule in (_stop_after, _epochs, _early_stopping, _views, _tau):
        for idle in rule(config):
            said.append(idle.why)
            config = _changed(config, idle.settings)
    return config, tuple(said)


def why_one_run(configs: Iterable[RunConfig]) -> list[str]:
    """What makes some of these, which differ, the same run, a phrase each."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for config in configs:
        run, why = as_trained(config)
        found.setdefault(run.model_dump_json(), {})[config.model_dump_json()] = why
    return list(
        dict.fromkeys(why for alike in found.values() if len(alike) > 1 for one in alike.values() for why in one)
    )


def is_known(trainable: Trainable) -> bool:
    """Whether this package knows what the trainable does with its settings."""
    return named(trainable) in OURS


def length(config: RunConfig) -> int:
    """Epochs that it trains at most."""
    return min(config.stop_after or config.epochs, config.epochs)


def _stop_after(config: RunConfig) -> Iterator[Idle]:
    if config.stop_after and config.stop_after >= config.epochs:
        yield Idle({"stop_after": None}, f"stop_after {config.stop_after} is beyond the {config.epochs} epochs")


def _epochs(config: RunConfig) -> Iterator[Idle]:
    if config.stop_after and config.stop_after < config.epochs and isinstance(config.schedule, SHORT_SIGHTED):
        yield Idle(
            {"epochs": config.stop_after, "stop_after": None},
            f"epochs {config.epochs} are beyond stop_after {config.stop_after}, and a {config.schedule.name} schedule "
            f"does not look ahead",
        )


def _early_stopping(config: RunConfig) -> Iterator[Idle]:
    """The first epoch may be the best, and the last ends a run anyway."""
    if config.early_stopping and config.early_stopping >= length(config) - 1:
        yield Idle(
            {"early_stopping": None}, f"early_stopping {config.early_stopping} cannot act in {length(config)} epochs"
        )


def _views(config: RunConfig) -> Iterator[Idle]:
    views = config.augment.views if config.augment else None
    if views and views >= length(config) and config.sampler.draws_once:
        yield Idle({"augment.views": None}, f"augment.views {views} is not less than the {length(config)} epochs")


def _tau(config: RunConfig) -> Iterator[Idle]:
    if config.kd and config.kd.form == "mse" and not config.kd.intra and config.kd.tau != type(config.kd)().tau:
        yield Idle({"kd.tau": type(config.kd)().tau}, f"kd.form mse does not use kd.tau {config.kd.tau:g}")


def _changed(config: RunConfig, settings: dict[str, Any]) -> RunConfig:
    """Without validation, which may not know together what each is alone."""
    changes: dict[str, Any] = {}
    for name, value in settings.items():
        part, _, below = name.partition(".")
        changes[part] = getattr(config, part).model_copy(update={below: value}) if below else value
    return config.model_copy(update=changes)

"""The teacher that a study is given: a config to train, the folder of a model, a `.pth` file, or several of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from xlite_search.config import RunConfig
from xlite_search.data.dataset import DataSpec
from xlite_search.distill.pretrained import Pretrained
from xlite_search.errors import BadInput
from xlite_search.spec import kind_of

#: one that is trained here, the folder of a finished model, a `.pth` file; or several
Member: TypeAlias = RunConfig | str | Pretrained
Teacher: TypeAlias = Member | Sequence[Member] | None


def with_data(teacher: Teacher, ours: DataSpec, metric: str) -> Teacher:
    """A teacher that is trained here sees the study's data and split: on others it would leak or mislead."""
    if isinstance(teacher, list | tuple):
        if not teacher:
            raise BadInput("teacher: the list of an ensemble's members is empty")
        return [with_data(_expect_member(member), ours, metric) for member in teacher]  # type: ignore[misc]
    _expect_member(teacher)
    if isinstance(teacher, Path):
        return str(teacher)
    if not isinstance(teacher, RunConfig):
        return teacher
    if type(teacher) is not RunConfig:
        raise BadInput(
            f"teacher: it is {kind_of(teacher)}, and a teacher is trained by trainables.baseline, which does not "
            f"know its settings; write RunConfig(...)"
        )
    if teacher.kd is not None:
        raise BadInput("teacher.kd: a teacher learns from labels alone; leave it out")
    data = ours.model_copy(update={"fraction": teacher.data.fraction})
    return teacher.model_copy(update={"data": data, "monitor": metric})


def _expect_member(teacher: Teacher) -> Teacher:
    if teacher is not None and not isinstance(teacher, RunConfig | str | Path | Pretrained):
        kinds = "a RunConfig, the folder of a trained model, a Pretrained, or a list of these"
        raise BadInput(f"teacher = {teacher}: expected {kinds}")
    return teacher


def changed_teacher(teacher: Teacher, settings: Mapping[str, Any]) -> RunConfig:
    if not isinstance(teacher, RunConfig):
        kind = "an ensemble" if isinstance(teacher, list | tuple) else f"the finished model in {teacher}"
        there = f"the teacher is {kind}" if teacher else "this study has no teacher"
        raise BadInput(f"teacher.{next(iter(settings))} cannot be set: {there}")
    try:
        return teacher.with_settings(settings)
    except BadInput as error:
        raise BadInput(f"teacher: {error}") from None

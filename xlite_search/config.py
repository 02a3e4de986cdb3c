"""RunConfig: everything that can change a run's result, composed of the parts' own specs.

Defaults live here and in the specs, nowhere else. One dotted name for a setting everywhere: in a space, in `--set`, as
MLflow parameter, as column, in `best.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, ValidationInfo, field_validator

from xlite_search import storage
from xlite_search.data.dataset import Data, DataSpec
from xlite_search.data.packed import PackedSet
from xlite_search.data.split_files import split_of
from xlite_search.data.splits import AnySplit, resolved
from xlite_search.data.splits import identity as split_identity
from xlite_search.data.views import fingerprint as views_fingerprint
from xlite_search.distill.losses import KD
from xlite_search.errors import BadInput
from xlite_search.models.weights import Weights
from xlite_search.training.losses import LossFunction
from xlite_search.training.recipe import Recipe

if TYPE_CHECKING:
    from xlite_search.models.hybrid import Hybrid

#: pydantic's context of a config that a record holds: its model was looked up when it was written, and is not again
RECORDED = "recorded"


def _path(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class RunConfig(Recipe):
    """One run: a model, where its weights start, the data, the recipe, and a teacher or none."""

    model: str = "efficientnet_b0_mhsa"
    weights: Annotated[Weights | None, BeforeValidator(_path)] = None
    data: DataSpec = DataSpec()
    kd: KD | None = None

    @field_validator("model")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        """In full. timm, which knows the backbones, takes seconds to import."""
        if info.context == RECORDED:
            return name
        from xlite_search.models.hybrid import full_name

        try:
            return full_name(name)
        except BadInput as error:
            raise ValueError(str(error)) from None

    @property
    def batchwise(self) -> tuple[str, ...]:
        """As the recipe's, and of what the teacher adds."""
        return super().batchwise + tuple(f"kd.{name}" for name in (self.kd.batchwise if self.kd else ()))

    def build(self, data: Data) -> tuple[Hybrid, LossFunction]:
        """The model with the weights that it starts from, and the hard loss with the training part's class weights.

        Raises:
            BadInput: the weights cannot be had, or are not the model's.
        """
        from xlite_search.models.hybrid import build_model

        model = build_model(self.model, classes=len(data.classes), weights=self.weights)
        return model, self.loss.build(data.train.positives, len(data.train))

    def canonical(self) -> RunConfig:
        """alpha = 0 gives the teacher no say: it is the same run at every tau, and as if there were no teacher."""
        return self.model_copy(update={"kd": None}) if self.kd and not self.kd.alpha else self

    def resolved(self, teacher: str = "") -> RunConfig:
        """With its files found and their sha256 taken, its split's lists too, and its teacher's key filled in.

        Raises:
            BadInput: a file is missing, or a teacher is asked for and there is none.
        """
        return resolve([self], teacher)[0]

    def _with(self, weights: Weights | None, split: AnySplit, teacher: str) -> RunConfig:
        kd = self.canonical().kd
        kd = kd.model_copy(update={"teacher": teacher or kd.teacher}) if kd else None
        if kd and not kd.teacher:
            raise BadInput("kd is set and there is no teacher: give the study a `teacher`, or set kd to null")
        data = self.data.model_copy(update={"split": split})
        return self.model_copy(update={"weights": weights, "kd": kd, "data": data})

    def identity(self) -> dict[str, Any]:
        """What makes this run this run, as JSON: all but the places of files, and what its views are drawn by."""
        tree = self.model_dump(mode="json")
        tree["data"]["split"] = split_identity(self.data.split)
        if tree["weights"]:
            del tree["weights"]["path"]
        if self.augment:
            tree["augment"]["drawn_by"] = views_fingerprint(self.augment)
        return tree


def resolve(configs: Sequence[RunConfig], teacher: str = "") -> list[RunConfig]:
    """Each as `RunConfig.resolved`; a file that several name is looked for and hashed once."""
    from xlite_search.models.hybrid import timm_name

    weights: dict[tuple[Weights, str], Weights] = {}
    splits: dict[AnySplit, AnySplit] = {}
    found = []
    for config in configs:
        own, split = None, config.data.split
        if config.weights:
            named = config.weights, timm_name(config.model)
            own = weights[named] = weights.get(named) or config.weights.resolved(named[1])
        splits[split] = splits.get(split) or resolved(split)
        found.append(config._with(own, splits[split], teacher))
    return found


def fingerprints(config: RunConfig) -> dict[str, str]:
    """Of the data set and the split that a config names. Raises BadInput if the data set is not prepared."""
    packed = PackedSet.open(config.data.name)
    return {"data": packed.fingerprint, "split": split_of(packed, config.data.split).fingerprint}


def run_key(config: RunConfig, maker: str = "", reads: Mapping[str, str] | None = None) -> str:
    """Hash of a resolved config, the fingerprints of all it reads, and who makes it of them; 12 hex digits.

    `maker` names the trainable and its code (`trainable.maker`); without it this is the hash of the config alone.
    `reads` are the `fingerprints` of its data, for who has them already.
    """
    reads = fingerprints(config) if reads is None else dict(reads)
    return storage.digest([config.identity(), reads, *([maker] if maker else [])])[:12]

"""Train, validation and test splits: by patient, stratified over all findings.

Five ways, each a small spec: `ByPatient` (shares), `Folds` (one of k), `Official` (NIH's lists, validation carved out),
`Lists` (anybody's), and `CrossFit` (one of k folds of what another split trains and validates on). A label table is all
that they need: no image is looked at. `split_files` writes them once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, field_validator, model_validator

from xlite_search.data import integrity
from xlite_search.data.lists import SPLITS, TEST, TRAIN, VAL, FromFiles, Lists, Official, rows_by_split
from xlite_search.data.sources import LabelTable
from xlite_search.data.stratify import SMALLEST_SHARE, linked, stratify
from xlite_search.spec import Spec, named

AnyFold = TypeVar("AnyFold", "Folds", "CrossFit")


class ByPatient(Spec):
    """Stratified split by patient into train, validation and test of these shares."""

    name: Literal["patient"] = "patient"
    ratios: tuple[float, float, float] = (0.70, 0.15, 0.15)
    seed: int = 0

    @field_validator("ratios")
    @classmethod
    def _shares(cls, ratios: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(ratios) < 0 or ratios[0] == 0 or abs(sum(ratios) - 1) > 1e-6:
            raise ValueError("expected three shares that sum to 1, the first above 0, such as [0.70, 0.15, 0.15]")
        if any(0 < share < SMALLEST_SHARE for share in ratios):
            raise ValueError("a share is 0 or at least one in a million")
        return ratios

    def deal(self, table: LabelTable) -> NDArray[np.int64]:
        """Split number of every image, `[image]`."""
        return stratify(table.labels, linked(table), self.ratios, self.seed)

    @property
    def parts(self) -> tuple[str, ...]:
        """The splits that are to have images."""
        return tuple(name for name, share in zip(SPLITS, self.ratios, strict=True) if share)

    @property
    def shares(self) -> dict[str, float]:
        """The share of the images that each split is to have."""
        return dict(zip(SPLITS, self.ratios, strict=True))


class Folds(Spec):
    """Fold `fold` of `folds` validates and the others train; a share `test` is put aside, the same for every fold."""

    name: Literal["folds"] = "folds"
    folds: int = Field(5, ge=2, le=100)
    fold: int = Field(0, ge=0)
    test: float = Field(0.0, ge=0, lt=1)
    seed: int = 0

    @field_validator("test")
    @classmethod
    def _enough(cls, test: float) -> float:
        if 0 < test < SMALLEST_SHARE or test > 1 - SMALLEST_SHARE:
            raise ValueError("a share is 0 or at least one in a million, and leaves as much")
        return test

    @model_validator(mode="after")
    def _one_of_them(self) -> Folds:
        return _expect_fold(self)

    def deal(self, table: LabelTable) -> NDArray[np.int64]:
        """Split number of every image, `[image]`."""
        shares = [*[(1 - self.test) / self.folds] * self.folds, self.test]
        part = stratify(table.labels, linked(table), shares, self.seed)
        return np.asarray(np.select([part == self.folds, part == self.fold], [TEST, VAL], TRAIN), np.int64)

    @property
    def parts(self) -> tuple[str, ...]:
        """The splits that are to have images."""
        return SPLITS if self.test else SPLITS[:2]

    @property
    def shares(self) -> dict[str, float]:
        """The share of the images that each split is to have."""
        val = (1 - self.test) / self.folds
        return {"train": 1 - self.test - val, "val": val, "test": self.test}


def _expect_fold(spec: AnyFold) -> AnyFold:
    if spec.fold >= spec.folds:
        raise ValueError(f"fold {spec.fold}: folds count from 0, the last of {spec.folds} is {spec.folds - 1}")
    return spec


#: a split that is made of a table, or of lists
OneSplit = Annotated[
    Annotated[ByPatient | Folds | Official | Lists, Field(discriminator="name")], BeforeValidator(named)
]


class CrossFit(Spec):
    """Cross-fitting within another split: fold `fold` of the `folds` of its training and validation images validates,
    the others train. Its test part stays as it is."""

    name: Literal["crossfit"] = "crossfit"
    of: OneSplit = ByPatient()
    folds: int = Field(5, ge=2, le=100)
    fold: int = Field(0, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _one_of_them(self) -> CrossFit:
        return _expect_fold(self)

    def resolved(self) -> CrossFit:
        """With the hash of what the lists of its split say, if it has any."""
        return self.model_copy(update={"of": resolved(self.of)})

    def deal(self, table: LabelTable, set_aside: Iterable[str] = ()) -> NDArray[np.int64]:
        """Split number of every image, `[image]`, -1 for none."""
        codes = deal(table, self.of, set_aside)
        rows = np.flatnonzero((codes == TRAIN) | (codes == VAL))
        groups = linked(table)
        shares = [1 / self.folds] * self.folds
        part = stratify(table.labels[rows], [groups[row] for row in rows.tolist()], shares, self.seed)
        codes[rows] = np.where(part == self.fold, VAL, TRAIN)
        return codes

    @property
    def parts(self) -> tuple[str, ...]:
        """The splits that are to have images."""
        return SPLITS if "test" in self.of.parts else SPLITS[:2]

    @property
    def shares(self) -> dict[str, float]:
        """The share of the images that each split is to have; empty where lists say who is where."""
        if not self.of.shares:
            return {}
        fitted = self.of.shares["train"] + self.of.shares["val"]
        return {**self.of.shares, "train": fitted * (1 - 1 / self.folds), "val": fitted / self.folds}


AnySplit = Annotated[
    Annotated[ByPatient | Folds | Official | Lists | CrossFit, Field(discriminator="name")], BeforeValidator(named)
]


def resolved(spec: AnySplit) -> AnySplit:
    """With the hash of what its lists say, if it has any."""
    return spec.resolved() if isinstance(spec, FromFiles | CrossFit) else spec


def identity(spec: AnySplit) -> dict[str, Any]:
    """What decides who is where, as JSON: all that a spec says but where its lists lie."""
    tree = spec.model_dump(mode="json", exclude={"path"})
    if isinstance(spec, CrossFit):
        tree["of"] = identity(spec.of)
    return tree


def deal(table: LabelTable, spec: AnySplit, set_aside: Iterable[str] = ()) -> NDArray[np.int64]:
    """Split number of every image, `[image]`, -1 for none. The same for the same table and spec, on every machine.

    Raises:
        BadInput: lists do not fit the table, or have a patient in two splits.
    """
    codes = spec.deal(table, set_aside) if isinstance(spec, FromFiles | CrossFit) else spec.deal(table)
    integrity.expect_no_leak(table.groups, rows_by_split(codes))
    return codes

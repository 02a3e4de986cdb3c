"""Attributes as predictors: what projection, sex and age alone tell of each finding, which a model may learn instead.

In ChestX-ray14 AP is the projection of those who cannot stand, and they are the more ill.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlite_search.data.sources import LabelTable
from xlite_search.training.metrics import auroc

#: From here on an attribute is named: as good as a fair classifier.
TELLS = 0.70
#: Images with a finding, or without it, below which its AUROC is luck.
ENOUGH = 10
#: Values of an attribute that are shown; rarer ones are taken together.
VALUES, OTHER = 4, "other"
QUARTERS = 4
NAMED = 3


@dataclass(frozen=True)
class Attribute:
    """Something that the label table says of images, and how findings go with it.

    images      how many have each value, or an age in each quarter ("below 35", ..., "59 and above")
    unknown     images of which it is not known; they count nowhere here
    prevalence  share of the images with each value that show each finding, and of those that show none, `[finding]`
    support     of these images, how many show each finding, or do not: the fewer
    auroc       of telling each finding by this alone: of a value by the prevalence among those who have it, of age by
                age itself, in the direction that does better; nan where all or none have the finding
    """

    name: str
    images: dict[str, int]
    unknown: int
    prevalence: dict[str, dict[str, float]]
    support: dict[str, int]
    auroc: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has no nan."""
        areas = {name: None if math.isnan(area) else area for name, area in self.auroc.items()}
        return {"images": self.images, "unknown": self.unknown, "prevalence": self.prevalence, "auroc": areas}

    @property
    def warning(self) -> str:
        """Which findings it tells, of those with enough images to say so; empty if none."""
        enough = {name: area for name, area in self.auroc.items() if self.support[name] >= ENOUGH}
        found = sorted(((area, name) for name, area in enough.items() if area >= TELLS), reverse=True)
        if not found:
            return ""
        some = ", ".join(f"{name} ({area:.2f})" for area, name in found[:NAMED])
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        return f"the {self.name} alone tells (AUROC) {some}{more}: a model may learn that instead"


def attributes(table: LabelTable) -> list[Attribute]:
    """Those of projection, sex and age that the table has, with two values at least."""
    columns = {"projection": table.projections, "sex": table.sexes, "age": table.ages}
    found = [_attribute(name, column, table) for name, column in columns.items() if any(column)]
    return [one for one in found if len(one.images) > 1]


def lines(found: Sequence[Attribute]) -> Iterator[str]:
    """The same as a table of text: a row a finding; of age the youngest and the oldest quarter."""
    shown = [(one, list(one.images) if one.name != "age" else [*one.images][:: len(one.images) - 1]) for one in found]
    widths = {one.name: max(6, len(one.name) + 2) for one in found}
    heads = (f"{one.name:>{widths[one.name]}}{''.join(f'{value:>9}' for value in values)}" for one, values in shown)
    yield f"{'':20}" + "".join(heads)
    counts = (
        f"{'':{widths[one.name]}}{''.join(f'{one.images[value]:>9,}' for value in values)}" for one, values in shown
    )
    yield f"{'images':20}" + "".join(counts)
    for finding in found[0].auroc:
        cells = f"{finding:20}"
        for one, values in shown:
            area = one.auroc[finding]
            cells += f"{'-' if math.isnan(area) else f'{area:.2f}':>{widths[one.name]}}"
            cells += "".join(f"{100 * one.prevalence[finding][value]:>7.2f} %" for value in values)
        yield cells


def _attribute(name: str, column: Sequence[str], table: LabelTable) -> Attribute:
    known = np.array([bool(cell) for cell in column])
    labels = np.concatenate([table.labels, ~table.labels.any(axis=1, keepdims=True)], axis=1)[known]
    cells = [cell for cell in column if cell]
    values, codes = _quarters(cells) if name == "age" else _commonest(cells)
    shares = np.stack([labels[codes == code].mean(axis=0) for code in range(len(values))])
    scores = np.array(cells, np.float64)[:, None] if name == "age" else shares[codes]
    there = labels.sum(axis=0)
    areas = auroc(np.broadcast_to(scores, labels.shape), labels.astype(np.float64))
    findings = (*table.classes, table.normal)
    return Attribute(
        name,
        {value: int((codes == code).sum()) for code, value in enumerate(values)},
        int((~known).sum()),
        {finding: dict(zip(values, of, strict=True)) for finding, of in zip(findings, shares.T.tolist(), strict=True)},
        dict(zip(findings, np.minimum(there, len(labels) - there).tolist(), strict=True)),
        {finding: max(area, 1 - area) for finding, area in zip(findings, areas.tolist(), strict=True)},
    )


def _commonest(cells: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Values, the commonest first, and which one each cell has."""
    counts = sorted(Counter(cells).items(), key=lambda item: (-item[1], item[0]))
    values = [value for value, _ in counts]
    if len(values) > VALUES:
        values = [*values[: VALUES - 1], OTHER]
    code = {value: number for number, value in enumerate(values)}
    return values, np.array([code.get(cell, len(values) - 1) for cell in cells])


def _quarters(cells: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Quarters of the images by age, named by their bounds, and which one each is in; fewer where ages repeat."""
    ages = np.array(cells, np.float64)
    bounds = np.unique(np.quantile(ages, np.arange(1, QUARTERS) / QUARTERS, method="higher"))
    bounds = bounds[bounds > ages.min()]
    if not len(bounds):
        return ["all"], np.zeros(len(ages), np.int64)
    between = [f"{low:g} to {high:g}" for low, high in pairwise(bounds)]
    names = [f"below {bounds[0]:g}", *between, f"from {bounds[-1]:g}"]
    return names, np.searchsorted(bounds, ages, side="right").astype(np.int64)

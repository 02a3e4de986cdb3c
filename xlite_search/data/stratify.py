"""Multi-label stratification of groups: a patient's images stay together, every finding is dealt by its share.

Greedy, after Sechidis et al. 2011 ("On the stratification of multi-label data"), with a group of images as the unit:
groups are dealt one by one, those with the rarest findings first, each to the part that its findings and its images
bring closest to their share. All sums are whole numbers and the order comes from a hash of the group's name, so the
result is the same on every machine and with every version of every library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlite_search.data.sources import NO_FINDING, LabelTable

SCALE = 10**12


def stratify(
    labels: NDArray[np.uint8], groups: Sequence[str], shares: Sequence[float], seed: int = 0
) -> NDArray[np.int64]:
    """Number of the part that each image goes to, `[image]`.

    labels  multi-hot, `[image, class]`; an image without a finding counts as one of a further class
    groups  group of each image, `[image]`; a group goes to one part as a whole
    shares  of the images, one per part; they sum to 1, and a part with a share of 0 stays empty
    """
    parts = [(number, Fraction(share).limit_denominator(10**6)) for number, share in enumerate(shares) if share > 0]
    common = lcm(*(share.numerator for _, share in parts))
    per_image = [common * share.denominator // share.numerator for _, share in parts]

    names, group_of = np.unique(np.array(groups, dtype=np.str_), return_inverse=True)
    normal = ~labels.any(axis=1, keepdims=True)
    columns = np.concatenate([labels, normal, np.ones((len(labels), 1))], axis=1).astype(np.int64)
    counts = np.zeros((len(names), columns.shape[1]), np.int64)
    np.add.at(counts, group_of, columns)
    present = counts.sum(axis=0)
    weight = [SCALE // max(1, int(n)) for n in present]
    owed = [[common * int(n) for n in present] for _ in parts]

    part_of_group = np.zeros(len(names), np.int64)
    for group in _rarest_first(names, counts, present, seed):
        brings = [(column, int(counts[group, column])) for column in np.flatnonzero(counts[group])]
        gains = [sum(n * weight[column] * debt[column] for column, n in brings) for debt in owed]
        choice = gains.index(max(gains))
        part_of_group[group] = parts[choice][0]
        for column, n in brings:
            owed[choice][column] -= n * per_image[choice]
    return part_of_group[group_of]


def balance(table: LabelTable, parts: Mapping[str, NDArray[np.int64]]) -> dict[str, Any]:
    """How even a split is, as JSON: images, patients and prevalence of every label, No Finding too, in the whole and in
    each part, and the largest deviation from the whole in percentage points; `none` is what is in no part."""
    patients = np.array(table.patients)
    columns = np.concatenate([table.labels, ~table.labels.any(axis=1, keepdims=True)], axis=1)
    labels = (*table.classes, NO_FINDING)

    def about(rows: NDArray[np.int64]) -> dict[str, Any]:
        shares = columns[rows].mean(axis=0) if len(rows) else np.zeros(len(labels))
        return {
            "images": len(rows),
            "patients": len(set(patients[rows].tolist())),
            "prevalence": dict(zip(labels, shares.tolist(), strict=True)),
        }

    whole, found = about(np.arange(len(table))), {name: about(rows) for name, rows in parts.items()}
    nowhere = np.setdiff1d(np.arange(len(table)), np.concatenate(list(parts.values())))
    if len(nowhere):
        found["none"] = about(nowhere)
    for part in found.values():
        off = {label: 100 * abs(part["prevalence"][label] - whole["prevalence"][label]) for label in labels}
        worst = max(labels, key=off.__getitem__)
        part["largest_deviation"] = {"label": worst, "points": off[worst] if part["images"] else 0.0}
    return {"whole": whole, "parts": found}


def linked(table: LabelTable) -> list[str]:
    """The group of each image, `[image]`: its patient; patients who share an image, pixel for pixel, are one group."""
    head = {patient: patient for patient in table.patients}

    def find(patient: str) -> str:
        while head[patient] != patient:
            patient = head[patient]
        return patient

    first: dict[str, str] = {}
    for digest, patient in zip(table.digests, table.patients, strict=bool(table.digests)):
        one, other = sorted((find(first.setdefault(digest, patient)), find(patient)))
        head[other] = one
    return [find(patient) for patient in table.patients]


def _rarest_first(
    names: NDArray[np.str_], counts: NDArray[np.int64], present: NDArray[np.int64], seed: int
) -> list[int]:
    """Groups by their rarest finding, then by the number of their images, then as their hash with the seed has it."""
    rarity = np.where(counts > 0, present, np.iinfo(np.int64).max).min(axis=1).tolist()
    images = counts[:, -1].tolist()
    lot = [hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest() for name in names.tolist()]
    return sorted(range(len(names)), key=lambda g: (rarity[g], -images[g], lot[g]))

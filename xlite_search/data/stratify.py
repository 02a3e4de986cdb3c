"""Multi-label stratification of groups: a patient's images stay together, every finding is dealt by its share.

Greedy, after Sechidis et al. 2011 ("On the stratification of multi-label data"), with a group of images as the unit:
groups are dealt one by one, the heavy and those with the rarest findings first, each to the part where it brings
findings and images closest to their shares; a local exchange follows. All sums are whole numbers and the order comes
from a hash of the group's name, so the result is the same on every machine and with every version of every library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import combinations, cycle, islice
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlite_search.data.sources import LabelTable

SCALE = 10**8
#: Shares are rounded to fractions of at most this denominator: the smallest that can be asked for is its inverse.
FINEST = 10**6
SMALLEST_SHARE = 1 / FINEST
#: A group is heavy if so many like it are more than the smallest part.
HEAVY = 10
#: Kinds of groups of either part that an exchange tries; 128 reach what 256 reach on the NIH table.
TRIED = 128
#: From here on numbers may not fit into 64 bits.
MOST = 2**63


def stratify(
    labels: NDArray[np.uint8], groups: Sequence[str], shares: Sequence[float], seed: int = 0
) -> NDArray[np.int64]:
    """Number of the part that each image goes to, `[image]`.

    labels  multi-hot, `[image, class]`; an image without a finding counts as one of a further class
    groups  group of each image, `[image]`; a group goes to one part as a whole
    shares  of the images, one per part; they sum to 1, and a part of no share, or one below `SMALLEST_SHARE`,
            stays empty
    """
    rounded = [(number, Fraction(share).limit_denominator(FINEST)) for number, share in enumerate(shares)]
    parts = [(number, share) for number, share in rounded if share > 0]
    names, group_of = np.unique(np.array(groups, dtype=np.str_), return_inverse=True)
    normal = ~labels.any(axis=1, keepdims=True)
    columns = np.concatenate([labels, normal, np.ones((len(labels), 1))], axis=1).astype(np.int64)
    counts = np.zeros((len(names), columns.shape[1]), np.int64)
    np.add.at(counts, group_of, columns)
    order = _heavy_then_rarest_first(names, counts, min(share for _, share in parts), seed)
    deal = _Deal(counts[order], [share for _, share in parts])
    deal.greedily()
    deal.exchange()
    part_of_group = np.empty(len(names), np.int64)
    part_of_group[order] = np.array([number for number, _ in parts])[deal.part]
    return part_of_group[group_of]


class _Deal:
    """Groups in the order of their dealing, `counts` `[group, column]`, and the `part` of each, `[group]`.

    What is minimised is `sum (filled - share * present)^2 / (share * present)` over parts and columns (every finding,
    No Finding, the images): Pearson's chi-square of the table of parts by columns. A part's debt of a column is
    `common * present - each * filled`, a whole number, where `each = common / share`.
    """

    def __init__(self, counts: NDArray[np.int64], shares: Sequence[Fraction]) -> None:
        common = lcm(*(share.numerator for share in shares))
        present = [int(n) for n in counts.sum(axis=0)]
        each = [common * share.denominator // share.numerator for share in shares]
        largest = 16 * SCALE * len(present) * max(each) * max(present)
        whole: type = np.int64 if largest < MOST else object  # the same numbers; Python's own are slower
        self.counts, self.part = counts, np.zeros(len(counts), np.int64)
        self.each: NDArray[Any] = np.array(each, whole)
        self.weight: NDArray[Any] = np.array([SCALE // max(1, n) for n in present], whole)
        self.debt: NDArray[Any] = np.array([[common * n for n in present] for _ in shares], whole)

    def greedily(self) -> None:
        """Each group in its turn to the part where it lowers the sum most, or raises it least."""
        weight, each, debt = self.weight.tolist(), self.each.tolist(), self.debt.tolist()
        rows, columns = np.nonzero(self.counts)
        brought = zip(columns.tolist(), self.counts[rows, columns].tolist(), strict=True)
        for group, width in enumerate(np.bincount(rows, minlength=len(self.counts)).tolist()):
            brings = [(column, n, n * weight[column]) for column, n in islice(brought, width)]
            gains = [
                sum(much * (2 * owed[column] - n * one) for column, n, much in brings)
                for owed, one in zip(debt, each, strict=True)
            ]
            choice = gains.index(max(gains))
            self.part[group] = choice
            for column, n, _ in brings:
                debt[choice][column] -= n * each[choice]
        self.debt = np.array(debt, self.debt.dtype)

    def exchange(self) -> None:
        """Moves a group to another part, or swaps two, while that lowers the sum."""
        kinds, kind_of = _kinds(self.counts)
        members: list[list[list[int]]] = [[[] for _ in kinds] for _ in self.each]
        for group, (kind, part) in enumerate(zip(kind_of.tolist(), self.part.tolist(), strict=True)):
            members[part][kind].append(group)
        there = np.array([list(map(len, of_part)) for of_part in members])
        brings = kinds.astype(self.debt.dtype)
        pairs = list(combinations(range(len(self.each)), 2))
        quiet = 0
        for one, other in cycle(pairs):
            quiet = 0 if self._exchanged(one, other, brings, there, members) else quiet + 1
            if quiet == len(pairs):
                break
        for part, of_part in enumerate(members):
            self.part[np.array([group for groups in of_part for group in groups], np.int64)] = part

    def _exchanged(
        self,
        one: int,
        other: int,
        brings: NDArray[Any],
        there: NDArray[np.int64],
        members: list[list[list[int]]],
    ) -> bool:
        """The best exchange between two parts, made if it lowers the sum.

        Groups that bring the same `[kind, column]` are of one kind; of either part the `TRIED` kinds that would gain
        most alone are tried against each other, and against nothing.
        """
        here = np.flatnonzero(there[one] + there[other])
        owed, both = 2 * (self.debt[other] - self.debt[one]), self.each[one] + self.each[other]
        toward = (brings[here] * self.weight) @ owed
        against = both * (brings[here] * brings[here] * self.weight).sum(axis=1)
        leave, leaves = _best(here, toward - against, there[one])
        come, comes = _best(here, -toward - against, there[other])
        together = 2 * both * ((brings[leave] * self.weight) @ brings[come].T)
        gains = np.pad(leaves[:, None] + comes + together, ((1, 0), (1, 0)))
        gains[1:, 0], gains[0, 1:] = leaves, comes
        row, column = divmod(int(gains.argmax()), gains.shape[1])
        if gains[row, column] <= 0:
            return False
        for place, found, source, target in ((row, leave, one, other), (column, come, other, one)):
            if not place:
                continue
            kind = found[place - 1]
            members[target][kind].append(members[source][kind].pop())
            there[source, kind] -= 1
            there[target, kind] += 1
            self.debt[source] += brings[kind] * self.each[source]
            self.debt[target] -= brings[kind] * self.each[target]
        return True


def balance(table: LabelTable, parts: Mapping[str, NDArray[np.int64]]) -> dict[str, Any]:
    """How even a split is, as JSON: images, patients and prevalence of every label, no class too, in the whole and in
    each part, and the largest deviation from the whole in percentage points; `none` is what is in no part."""
    patients = np.array(table.groups)
    columns = np.concatenate([table.labels, ~table.labels.any(axis=1, keepdims=True)], axis=1)
    labels = (*table.classes, table.normal)

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
    head = {patient: patient for patient in table.groups}

    def find(patient: str) -> str:
        while head[patient] != patient:
            patient = head[patient]
        return patient

    first: dict[str, str] = {}
    for digest, patient in zip(table.digests, table.groups, strict=bool(table.digests)):
        one, other = sorted((find(first.setdefault(digest, patient)), find(patient)))
        head[other] = one
    return [find(patient) for patient in table.groups]


def _kinds(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The different rows in the order of their first place, and which of them each row is."""
    _, first, of = np.unique(counts, axis=0, return_index=True, return_inverse=True)
    rank = np.argsort(first, kind="stable")
    number = np.empty(len(rank), np.int64)
    number[rank] = np.arange(len(rank))
    return counts[first[rank]], number[of]


def _best(
    kinds: NDArray[np.int64], gains: NDArray[Any], there: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Those of these kinds that are there, the largest gain first, and the gain of each; `TRIED` at most."""
    places = np.flatnonzero(there[kinds])
    places = places[np.argsort(-gains[places], kind="stable")[:TRIED]]
    return kinds[places], gains[places]


def _heavy_then_rarest_first(
    names: NDArray[np.str_], counts: NDArray[np.int64], smallest: Fraction, seed: int
) -> list[int]:
    """Groups of more than a tenth of the smallest part, which the others have to make up for; then those with the
    rarest finding, then those with the most images, then as their hash with the seed has it."""
    present = counts.sum(axis=0)
    rarity = np.where(counts > 0, present, np.iinfo(np.int64).max).min(axis=1).tolist()
    images = counts[:, -1].tolist()
    heavy = [HEAVY * n * smallest.denominator > smallest.numerator * int(present[-1]) for n in images]
    lot = [hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest() for name in names.tolist()]
    return sorted(range(len(names)), key=lambda g: (-images[g] if heavy[g] else 0, rarity[g], -images[g], lot[g]))

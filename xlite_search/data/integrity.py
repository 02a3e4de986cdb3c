"""Integrity checks of a data set: missing images, leaks between splits, duplicates, implausible labels.

Everything here is pure: names, rows and counts go in; sentences, groups and counts come out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlite_search.data.packed import PackedSet
from xlite_search.data.sources import LabelTable, Loss, image_id
from xlite_search.errors import BadInput

#: Of 1,000 images, one may be set aside; of 100, five may be lost if somebody says so.
SET_ASIDE_PER_1000, ACCEPTED_PER_100 = 1, 5
FEW_NAMES = 3
#: A split that is off by more than this part of its share is told.
MISSED_PER_SHARE = 4

Rows = Mapping[str, NDArray[np.int64]]


def tolerable(expected: int, lost: int, *, accepted: bool) -> bool:
    """Whether a set may lack so many: up to 0.1 %, or up to 5 % where losses are accepted."""
    few = lost * 1000 <= SET_ASIDE_PER_1000 * expected
    return few or (accepted and lost * 100 <= ACCEPTED_PER_100 * expected)


def refusal(expected: int, lost: Sequence[tuple[str, Loss]], listing: Path) -> str:
    """Why a set that lacks these images (name, loss) is not made, and what to do; `listing` has all of them."""
    acceptable = tolerable(expected, len(lost), accepted=True)
    bound = f"{SET_ASIDE_PER_1000 / 10:g}" if acceptable else f"{ACCEPTED_PER_100:g}"
    causes = {loss.cause for _, loss in lost}
    advice = ["fetch them again"] if "damaged" in causes else ["fetch them"] if "absent" in causes else []
    if "absent" in causes:
        advice.append("prepare what is there with --incomplete")
    if acceptable:
        advice.append("go on without them with --accept-losses")
    if "unfit" in causes or not acceptable:
        whole = " that are whole and of no use here" if "unfit" in causes and len(causes) > 1 else ""
        advice.append(f"take {'those' if whole else 'them'}{whole} out of the label table")
    *first, last = advice
    return (
        f"{len(lost):,} of {expected:,} images cannot be used, which is more than {bound} %: {some(lost)}; {listing} "
        f"lists them: {', '.join([*first, f'or {last}']) if first else last}"
    )


def some(lost: Sequence[tuple[str, Loss]]) -> str:
    """The first few names with their reasons."""
    named = ", ".join(f"{name} ({loss.reason})" for name, loss in lost[:FEW_NAMES])
    return f"{named}, ..." if len(lost) > FEW_NAMES else named


def expect_listed(path: str | Path, missing: Mapping[str, Sequence[str]], lists: Mapping[str, Sequence[str]]) -> None:
    """That name lists (by split) fit a data set; `missing` are those names that it does not have.

    Raises:
        BadInput: more than 0.1 % of a list.
    """
    for split, names in missing.items():
        if not tolerable(len(lists[split]), len(names), accepted=False):
            raise BadInput(
                f"{path}: {len(names):,} of the {len(lists[split]):,} images in the list {split} are not in the data "
                f"set: {', '.join(names[:FEW_NAMES])}{', ...' if len(names) > FEW_NAMES else ''}; give the lists of "
                "this data set, or, if it is a part of theirs, data.split.incomplete=true (`split --incomplete`)"
            )


def expect_covered(path: str | Path, unlisted: Sequence[str], images: int) -> None:
    """Raises BadInput if more than 0.1 % of a data set's images are in no list of a split that is for all of them."""
    if not tolerable(images, len(unlisted), accepted=False):
        raise BadInput(
            f"{path}: {len(unlisted):,} of {images:,} images are in no list: {', '.join(unlisted[:FEW_NAMES])}"
            f"{', ...' if len(unlisted) > FEW_NAMES else ''}; is a list cut short? Fetch it again"
        )


def expect_same_labels(path: Path, names: Sequence[str], labels: NDArray[np.uint8], table: LabelTable) -> None:
    """That a list's own labels `[image, class]` are about those of the data set. A few may differ: NIH corrected some.

    Raises:
        BadInput: they are its columns in another order, or more than 5 % of the images that both have differ.
    """
    row_of = {image_id(name): row for row, name in enumerate(table.names)}
    pairs = [(number, row_of[image_id(name)]) for number, name in enumerate(names) if image_id(name) in row_of]
    if not pairs:
        return
    said, known = labels[[number for number, _ in pairs]], table.labels[[row for _, row in pairs]]
    differ = (said != known).any(axis=1)
    if differ.sum() * 100 <= ACCEPTED_PER_100 * len(differ):
        return
    twins = [np.flatnonzero((known == column[:, None]).all(axis=0)) for column in said.T]
    moved = [c for c, twin in enumerate(twins) if len(twin) and c not in twin]
    if moved and all(map(len, twins)):
        first, holds = table.classes[moved[0]], table.classes[twins[moved[0]][0]]
        raise BadInput(f"{path}: its columns are in the wrong order: {first} holds what the data set has as {holds}")
    raise BadInput(
        f"{path}: the labels of {int(differ.sum()):,} of {len(differ):,} images are not those of the data set, the "
        f"first of {names[pairs[int(differ.argmax())][0]]}; take lists made from its labels, or lists of names alone"
    )


def duplicates(digests: Sequence[str], names: Sequence[str]) -> list[tuple[str, ...]]:
    """Groups of images whose prepared pixels are the same, in the table's order; those that are unique are left out."""
    groups: dict[str, list[str]] = {}
    for digest, name in zip(digests, names, strict=True):
        groups.setdefault(digest, []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def duplicates_across(table: LabelTable, rows: Rows) -> list[tuple[str, ...]]:
    """Those groups of duplicates whose images are in more than one split."""
    home = {table.names[row]: split for split, found in rows.items() for row in found.tolist()}
    groups = duplicates(table.digests, table.names) if table.digests else []
    return [group for group in groups if len({home[name] for name in group if name in home}) > 1]


def leaks(patients: Sequence[str], rows: Rows) -> dict[str, tuple[str, ...]]:
    """Patients with images in more than one split, and which these are."""
    homes: dict[str, set[str]] = {}
    for split, found in rows.items():
        for row in found.tolist():
            homes.setdefault(patients[row], set()).add(split)
    return {
        patient: tuple(split for split in rows if split in found) for patient, found in homes.items() if len(found) > 1
    }


def expect_no_leak(patients: Sequence[str], rows: Rows) -> None:
    """Raises BadInput, which names patients, if one is in two splits."""
    found = leaks(patients, rows)
    if found:
        named = ", ".join(f"{p} ({' and '.join(splits)})" for p, splits in list(found.items())[:FEW_NAMES])
        raise BadInput(
            f"{len(found):,} patients have images in more than one split: patient {named}"
            f"{', ...' if len(found) > FEW_NAMES else ''}; give each patient one split only"
        )


def label_warnings(table: LabelTable) -> list[str]:
    """Sentences on labels from which nothing can be learned: all zero, or the same in every image."""
    positives = table.labels.sum(axis=0)
    if len(table) and not positives.any():
        return [f"none of {len(table):,} images has any finding: are the labels in the columns that were read?"]
    named = dict(zip(table.classes, positives.tolist(), strict=True))
    return [f"no image has {name}: its AUROC is undefined" for name, count in named.items() if count == 0] + [
        f"all {count:,} images have {name}: its AUROC is undefined"
        for name, count in named.items()
        if count and count == len(table)
    ]


def missed_shares(groups: Sequence[str], rows: Rows, shares: Mapping[str, float]) -> list[str]:
    """Sentences on splits that are far from the share that was asked for, since groups are not cut.

    groups  group of each image, `[image]` (`stratify.linked`)
    shares  of the images in the splits that are named; the others have no share to miss

    Far is more than a quarter of the share, or more than the largest group has.
    """
    total = sum(len(rows[split]) for split in shares)
    group, largest = max(Counter(groups).items(), key=lambda item: (item[1], item[0]), default=("", 0))
    missed = []
    for split, share in shares.items():
        off = abs(len(rows[split]) - share * total)
        if off > largest or MISSED_PER_SHARE * off > share * total:
            missed.append(
                f"the {split} split has {len(rows[split]):,} of {total:,} images where {share * total:,.0f} were asked "
                f"for: a patient's images stay together, and patient {group} has {largest:,}"
            )
    return missed


def expect_parts(table: LabelTable, rows: Rows, parts: Sequence[str], where: str) -> None:
    """Raises BadInput if a split that is to have images has none; `where` says of which data."""
    empty = [split for split in parts if not len(rows[split])]
    if not empty:
        return
    patients = set(table.groups)
    if len(patients) == 1:
        raise BadInput(
            f"{where}: all {len(table):,} images are of one patient, {table.groups[0]}, and a patient's images stay "
            f"together, so {empty[0]} would be empty; is that column the patient's?"
        )
    raise BadInput(
        f"{where}: too few patients ({len(patients):,}) for this split: {empty[0]} would be empty; prepare more, or "
        "ask for fewer parts"
    )


def homes_of_lost(packed: PackedSet, rows: Rows) -> list[str]:
    """The split that each lost image would be in: its patient's; `none` if the patient has none."""
    home = {packed.table.groups[row]: split for split, found in rows.items() for row in found.tolist()}
    return [home.get(patient, "none") for _, _, patient in packed.manifest["set_aside"]]


def expect_few_lost(rows: Rows, lost: Mapping[str, int]) -> None:
    """Raises BadInput if a split lacks more than 5 % of its images, however few are lost in all."""
    for split, found in rows.items():
        expected = len(found) + lost.get(split, 0)
        if expected and not tolerable(expected, expected - len(found), accepted=True):
            raise BadInput(
                f"the {split} split lacks {expected - len(found):,} of {expected:,} images, more than "
                f"{ACCEPTED_PER_100} %: fetch them and prepare the data set again"
            )


def report(packed: PackedSet, rows: Rows) -> dict[str, Any]:
    """JSON values: images expected, found and lost, in all and per split; what was set aside; duplicates; warnings.

    A lost image is counted where its patient is. `none` counts what is in no split.
    """
    table, lost_in = packed.table, homes_of_lost(packed, rows)
    found_in = {split: len(found) for split, found in rows.items()}
    found_in["none"] = len(table) - sum(found_in.values())
    return {
        **_counts(len(table), len(lost_in)),
        "splits": {
            split: _counts(found, lost_in.count(split))
            for split, found in found_in.items()
            if split != "none" or found or "none" in lost_in
        },
        "set_aside": dict(packed.set_aside),
        "raw_sizes": packed.manifest["raw_sizes"],
        "duplicates": duplicates(table.digests, table.names),
        "duplicates_across_splits": duplicates_across(table, rows),
        "warnings": label_warnings(table) + [w for split in _lacking(table, rows) for w in split],
    }


def _lacking(table: LabelTable, rows: Rows) -> Iterable[list[str]]:
    """Per split: classes that the whole set has, and this split has not."""
    there = table.labels.any(axis=0)
    for split, found in rows.items():
        lacking = there & ~table.labels[found].any(axis=0) & bool(len(found))
        yield [f"no image of {split} has {table.classes[c]}" for c in np.flatnonzero(lacking)]


def _counts(found: int, lost: int) -> dict[str, int]:
    return {"expected": found + lost, "found": found, "lost": lost}

"""Facts of a data card, as JSON: what a prepared data set holds, how it was made, what is known to be wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from xlite_search import __version__
from xlite_search.data import integrity, packed
from xlite_search.data.dataset import Data, DataSpec, open_data
from xlite_search.data.packed import PackedSet
from xlite_search.data.sources import LabelTable
from xlite_search.data.stratify import balance
from xlite_search.deploy.card_limits import DRAWN, LABEL_NOISE, NIH, OVERLAP, PHANTOM, selection, sentence
from xlite_search.evaluation.subgroups import attributes
from xlite_search.results.attributes import attributes as telling
from xlite_search.storage import sha256_of

HEADINGS = "Gebru et al. 2021, Datasheets for Datasets; Garbin and Marques 2022, datasheet of ChestX-ray8"
#: raw sizes that are named; the others are counted
SIZES = 5


def facts(name: str) -> dict[str, Any]:
    """All that the card says. Every byte of the data set is read.

    Raises:
        BadInput: it is not prepared, or cannot be split.
        Damaged: it is not what was prepared.
    """
    found = PackedSet.open(name)
    found.verify()
    data = open_data(DataSpec(name=name))
    table, manifest = found.table, found.manifest
    rows = {part: each for part, each in data.split.rows.items() if len(each)}
    return {
        "format": 1,
        "headings": HEADINGS,
        "name": name,
        "source": manifest["source"],
        "notice": found.manifest["notice"],
        "fingerprint": found.fingerprint,
        "images": len(found),
        "patients": len(set(table.groups)),
        "most_images_of_a_patient": max(Counter(table.groups).values()),
        "classes": list(found.classes),
        "normal": found.normal,
        "findings": list(_findings(table)),
        "attributes": _attributes(table),
        "ages": _ages(table),
        "boxes": sum(map(len, table.boxes.values())),
        "preprocess": found.preprocess.describe() | {"opencv": manifest.get("opencv", "")},
        "raw_sizes": _sizes(manifest["raw_sizes"]),
        "split": _split(data, rows),
        "set_aside": dict(Counter(found.set_aside.values())),
        "expected": manifest["expected"],
        "duplicates": _duplicates(table, rows),
        "known_problems": list(_problems(data)),
        "files": _files(found),
        "version": __version__,
    }


def _findings(table: LabelTable) -> Iterator[dict[str, Any]]:
    """Images, patients and prevalence of each finding, and of those without any; the commonest first."""
    groups, none = np.array(table.groups), ~table.labels.any(axis=1)
    columns = [*zip(table.classes, table.labels.T > 0, strict=True), (table.normal, none)]
    for name, chosen in sorted(columns, key=lambda each: -int(each[1].sum())):
        images = int(chosen.sum())
        patients = len(set(groups[chosen].tolist()))
        yield {"finding": name, "images": images, "patients": patients, "prevalence": images / len(table)}


def _attributes(table: LabelTable) -> dict[str, dict[str, int]]:
    """Images by projection, sex, age and examination, as far as the table has them, those of unknown value too."""
    found = {
        name: {key: int(chosen.sum()) for key, chosen in members.items()}
        for name, members in attributes(table, np.arange(len(table))).items()
    }
    return {name: of | {"not known": len(table) - sum(of.values())} for name, of in found.items()}


def _ages(table: LabelTable) -> dict[str, float] | None:
    """Youngest, quartiles and oldest, in years."""
    ages = [float(text) for text in table.ages if text]
    if not ages:
        return None
    low, q1, median, q3, high = np.quantile(ages, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return {"youngest": low, "lower_quartile": q1, "median": median, "upper_quartile": q3, "oldest": high}


def _sizes(raw: Mapping[str, int]) -> dict[str, int]:
    """The commonest raw sizes, and how many images have another."""
    common = sorted(raw.items(), key=lambda item: -item[1])
    other = sum(count for _, count in common[SIZES:])
    return dict(common[:SIZES]) | ({"other": other} if other else {})


def _split(data: Data, rows: Mapping[str, Any]) -> dict[str, Any]:
    spec = DataSpec(name=data.packed.folder.name).split
    return {
        "spec": spec.model_dump(mode="json"),
        "fingerprint": data.split.fingerprint,
        **balance(data.packed.table, rows),
    }


def _duplicates(table: LabelTable, rows: Mapping[str, Any]) -> dict[str, int]:
    return {
        "groups": len(integrity.duplicates(table.digests, table.names)),
        "across_splits": len(integrity.duplicates_across(table, rows)),
    }


def _problems(data: Data) -> Iterator[str]:
    """What is known to be wrong, a sentence each."""
    of, table, rows = data.packed, data.packed.table, data.split.rows
    source = of.manifest["source"].get("source", "")
    if source == PHANTOM:
        yield DRAWN
    if source == NIH:
        yield LABEL_NOISE
        yield OVERLAP
        yield from selection(len(of))
    if of.incomplete:
        yield sentence(of.incomplete)
    if across := integrity.duplicates_across(table, rows):
        yield f"Images with the same pixels are in several splits, {len(across)} groups of them."
    yield from map(sentence, integrity.report(of, rows)["warnings"])
    yield from map(sentence, data.missed_shares)
    yield from (sentence(each.warning) for each in telling(table) if each.warning)
    yield from map(sentence, of.manifest.get("notes", ()))
    yield from _unknown(table)


def _unknown(table: LabelTable) -> Iterator[str]:
    columns = {"sex": table.sexes, "age": table.ages, "projection": table.projections, "examination": table.follow_ups}
    bare = [name for name, column in columns.items() if not any(column)]
    if bare:
        yield f"The label table does not have {_listed(bare)}: subgroups by that cannot be compared."


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _files(found: PackedSet) -> list[dict[str, Any]]:
    """Name, sha256 and bytes of the packed files; `verify` has held the first three against the manifest."""
    known = {packed.PIXELS: "pixels_sha256", packed.INDEX: "index_sha256", packed.COLUMNS: "columns_sha256"}
    paths = {name: found.folder / name for name in (*known, packed.MANIFEST)}
    return [
        {
            "name": name,
            "sha256": found.manifest[known[name]] if name in known else sha256_of(path),
            "bytes": path.stat().st_size,
        }
        for name, path in paths.items()
    ]

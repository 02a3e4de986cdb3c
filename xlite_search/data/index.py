"""The index of a packed set: a row for each image, as text for people and as columns that load in milliseconds."""

from __future__ import annotations

import csv
import io

import numpy as np

from xlite_search.data.sources import LabelTable


def index_text(table: LabelTable) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["name", "patient", "view", "sex", "age", "findings", "digest"])
    nothing = ("",) * len(table)
    about = [column or nothing for column in (table.projections, table.sexes, table.ages)]
    findings = ["|".join(table.classes[c] for c in np.flatnonzero(row)) for row in table.labels]
    columns = (table.names, table.groups, *about, findings, table.digests or nothing)
    writer.writerows(zip(*columns, strict=True))
    return out.getvalue()


def read_index(text: str, classes: tuple[str, ...]) -> LabelTable:
    rows = list(csv.DictReader(io.StringIO(text)))
    number_of = {name: number for number, name in enumerate(classes)}
    labels = np.zeros((len(rows), len(classes)), np.uint8)
    for number, row in enumerate(rows):
        for finding in filter(None, row["findings"].split("|")):
            labels[number, number_of[finding]] = 1

    def column(name: str) -> tuple[str, ...]:
        values = tuple(row[name] for row in rows)
        return values if any(values) else ()

    return LabelTable(
        names=tuple(row["name"] for row in rows),
        groups=tuple(row["patient"] for row in rows),
        labels=labels,
        classes=classes,
        projections=column("view"),
        sexes=column("sex"),
        ages=column("age"),
        digests=column("digest"),
    )

"""Who is in train, validation and test: by patient, multi-label stratified, written once.

Greedy multi-label stratification (after Sechidis et al. 2011, "On the stratification of multi-label data") with a
patient as the unit: patients are dealt, those with the rarest findings first, each to the split that its findings and
images bring closest to its share.
"""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from xlite_search import records
from xlite_search.data.packed import PackedSet
from xlite_search.data.sources import LabelTable
from xlite_search.errors import Damaged
from xlite_search.spec import Spec

SPLITS = ("train", "val", "test")


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
        return ratios


@dataclass(frozen=True)
class Split:
    """Rows of the packed set by split name, ascending, and a fingerprint of who is where."""

    rows: dict[str, NDArray[np.int64]]
    fingerprint: str


def split_of(data: PackedSet, spec: ByPatient) -> Split:
    """The split of a data set: read if it was written before, else made and written.

    Raises:
        Damaged: the written split is not one of this data set.
    """
    key = records.digest([data.fingerprint, spec.model_dump()])[:12]
    path = data.folder / "splits" / f"patient-{key}.csv"
    about = path.with_suffix(".json")
    if not (path.is_file() and about.is_file()):
        text = _text(data.table, deal(data.table, spec))
        sha256 = records.write_atomic(path, text.encode())
        records.write_manifest(about, {"spec": spec.model_dump(mode="json"), "sha256": sha256})
    raw, sha256 = path.read_bytes(), records.read_manifest(about)["sha256"]
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise Damaged(f"{path} was changed since it was written: remove it, and it is made again")
    named = [row["split"] for row in csv.DictReader(io.StringIO(raw.decode()))]
    codes = np.array([SPLITS.index(name) for name in named])
    return Split({name: np.flatnonzero(codes == number) for number, name in enumerate(SPLITS)}, sha256[:16])


def deal(table: LabelTable, spec: ByPatient) -> NDArray[np.int64]:
    """Split number of every image, `[image]`. The same for the same table and spec, on every machine."""
    patients, patient_of = np.unique(np.array(table.patients), return_inverse=True)
    columns = np.concatenate([table.labels, ~table.labels.any(axis=1, keepdims=True), np.ones((len(table), 1))], axis=1)
    counts = np.zeros((len(patients), columns.shape[1]))
    np.add.at(counts, patient_of, columns)
    present = counts.sum(axis=0)
    weight = np.divide(1.0, present, out=np.zeros_like(present), where=present > 0)
    rarest = np.where(counts > 0, weight, 0.0).max(axis=1)
    shuffled = np.random.default_rng(spec.seed).permutation(len(patients))
    order = shuffled[np.lexsort((-counts[shuffled, -1], -rarest[shuffled]))]

    shares = np.array(spec.ratios)
    target = shares[:, None] * present
    given = np.zeros_like(target)
    split_of_patient = np.zeros(len(patients), np.int64)
    possible = np.flatnonzero(shares > 0)
    for patient in order:
        missing = (target - given)[possible]
        gain = (missing * counts[patient] * weight) / shares[possible, None]
        choice = possible[np.argmax(gain.sum(axis=1))]
        split_of_patient[patient] = choice
        given[choice] += counts[patient]
    return split_of_patient[patient_of]


def _text(table: LabelTable, codes: NDArray[np.int64]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["name", "patient", "split"])
    for name, patient, code in zip(table.names, table.patients, codes, strict=True):
        writer.writerow([name, patient, SPLITS[code]])
    return out.getvalue()

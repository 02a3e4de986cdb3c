"""Audit of a data set before training: integrity, splits, attributes, and what each sampler draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from xlite_search import places, storage
from xlite_search.console import say
from xlite_search.data import integrity
from xlite_search.data.audit import Audit, audit_of
from xlite_search.data.dataset import Data, DataSpec, open_data
from xlite_search.data.lists import rows_by_split, write_lists
from xlite_search.data.packed import PackedSet
from xlite_search.data.samplers import MaxRarity, MeanRarity, OfLargest, Sampler, Shuffled, Unscaled
from xlite_search.data.sources import LabelTable
from xlite_search.data.sources.labels import read_labels
from xlite_search.data.splits import AnySplit, Folds, deal, identity
from xlite_search.data.stratify import balance, linked
from xlite_search.data.views import Light, Medium, Strong, contact_sheet
from xlite_search.errors import BadInput, XliteError
from xlite_search.results.attributes import Attribute, attributes, lines
from xlite_search.spec import Spec, parse
from xlite_search.training.balance import figure, table
from xlite_search.training.losses import BCE, WeightedBCE

#: no re-sampling, both rules, and the two readings of the log's second rule
SAMPLERS: tuple[Sampler, ...] = (
    Shuffled(),
    MaxRarity(),
    MeanRarity(),
    MeanRarity(no_finding=OfLargest()),
    MeanRarity(no_finding=Unscaled()),
)
LOSSES = (BCE(), WeightedBCE())
AUGMENTS = (Light(), Medium(), Strong())
SHEET_IMAGES, FEW = 6, 5


@dataclass(frozen=True)
class Page:
    """An audit. `about` is JSON; `drawn_from` the images that samplers draw from; `data` is None for a table alone;
    `attributes` is what the table says beside findings."""

    about: dict[str, Any]
    drawn_from: LabelTable
    samplers: tuple[Sampler, ...]
    data: Data | None = None
    attributes: Sequence[Attribute] = ()

    @property
    def audits(self) -> list[Audit]:
        of = self.drawn_from
        return [audit_of(one, of.labels, of.classes, normal=of.normal) for one in self.samplers]

    def as_dict(self) -> dict[str, Any]:
        attributes = {one.name: one.as_dict() for one in self.attributes}
        return self.about | {"attributes": attributes, "samplers": [one.as_dict() for one in self.audits]}


class _Options(Spec):
    """What the command line asks for, under the names that a study has for it."""

    sampler: Sampler = Shuffled()
    data: DataSpec = DataSpec()


def samplers(given: Sequence[object]) -> tuple[Sampler, ...]:
    """Samplers from their names or mappings; those worth comparing if none is given. Raises BadInput."""
    return tuple(parse(_Options, {"sampler": one}).sampler for one in given) or SAMPLERS


def data_spec(name: str, settings: Mapping[str, Any]) -> DataSpec:
    """The data set of this name, with settings such as `data.split`. Raises BadInput."""
    places.data_folder(name)
    other = next((setting for setting in settings if not setting.startswith("data.")), None)
    if other:
        raise BadInput(f"--set {other}: an audit takes settings of the data, data.split and its like; see --sampler")
    return _Options().with_settings({"data.name": name, **settings}).data


def audit_labels(
    path: Path, samplers: tuple[Sampler, ...], classes: Sequence[str] = (), patient_column: str = ""
) -> Page:
    """A label table alone: what is in it, and what samplers would draw from all of it. Raises BadInput."""
    found = _with_notes_shown(read_labels(path, classes, patient_column))
    about = {"labels": str(path), **_contents(found), "notes": list(found.notes)}
    about |= {"warnings": integrity.label_warnings(found)}
    return Page(about, found, samplers, attributes=attributes(found))


def audit_data(spec: DataSpec, samplers: tuple[Sampler, ...]) -> Page:
    """A prepared data set: every byte checked, what was set aside, duplicates, its split, samplers on its train part.

    Raises:
        BadInput: it is not prepared, or its split cannot be made.
        Damaged: it is not what was prepared.
    """
    packed = PackedSet.open(spec.name)
    packed.verify()
    data = open_data(spec)
    rows = {name: found for name, found in data.split.rows.items() if len(found)}
    split = {"spec": spec.split.model_dump(mode="json"), "fingerprint": data.split.fingerprint}
    about = {
        "data": spec.name,
        "fingerprint": packed.fingerprint,
        "size": packed.size,
        "incomplete": packed.incomplete,
        **_contents(packed.table),
        "integrity": integrity.report(packed, data.split.rows),
        "split": split | balance(packed.table, rows) | {"warnings": data.missed_shares},
        "fitted_on": {"fit": spec.fit, "fraction": spec.fraction, "images": len(data.train)},
    }
    return Page(about, packed.table.part(data.train.rows), samplers, data, attributes(packed.table))


def write_splits(
    labels: Path, output: Path, specs: Sequence[AnySplit], classes: Sequence[str] = (), patient_column: str = ""
) -> dict[str, dict[str, Any]]:
    """Lists for each split of a label table, in `output`, or in a folder per fold; what was written, by folder.

    Raises:
        BadInput: the table or the lists cannot be read, a split would be empty, or a folder holds other files.
    """
    found = _with_notes_shown(read_labels(labels, classes, patient_column))
    dealt = [(spec, deal(found, spec)) for spec in specs]
    for spec, codes in dealt:
        integrity.expect_parts(found, rows_by_split(codes), spec.parts, str(labels))
    written = {}
    for spec, codes in dealt:
        folder = output / f"fold_{spec.fold}" if isinstance(spec, Folds) else output
        about = {"labels_sha256": storage.sha256_of(labels), **identity(spec)}
        missed = integrity.missed_shares(linked(found), rows_by_split(codes), spec.shares)
        written[str(folder)] = write_lists(folder, found, codes, about) | {"warnings": missed}
    return written


def _with_notes_shown(found: LabelTable) -> LabelTable:
    """The table, once it is said what was guessed when it was read."""
    for note in found.notes:
        say(note)
    return found


def draw(page: Page, folder: Path) -> None:
    """Figures: each sampler with a plain and a weighted loss; prepared images with three views of each beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (sampler, drawn) in enumerate(zip(page.samplers, page.audits, strict=True), start=1):
        for loss in LOSSES:
            try:
                found = figure(drawn, loss)
            except BadInput as error:  # a finding in every image has no such weight
                say(f"no figure of {sampler.name} with {loss.name}: {error}")
                continue
            storage.write_atomic(folder / f"balance-{number}-{sampler.name}-{loss.name}.png", found)
    if page.data is None:
        return
    train = page.data.train
    rows = train.rows[np.linspace(0, len(train) - 1, min(SHEET_IMAGES, len(train))).astype(int)]
    images = [np.array(train.packed.pixels[row]) for row in rows]
    names = [train.packed.table.names[row] for row in rows]
    for augment in AUGMENTS:
        storage.write_atomic(folder / f"views-{augment.name}.png", _png(contact_sheet(images, names, augment)))


def _png(image: NDArray[np.uint8]) -> bytes:
    made, png = cv2.imencode(".png", image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not made:
        raise XliteError(f"OpenCV {cv2.__version__} cannot write a PNG of {image.shape[1]} x {image.shape[0]} px")
    return png.tobytes()


def show(page: Page) -> None:
    """The page, on stdout."""
    about = page.about
    print(f"{about.get('data') or about['labels']}: {about['images']:,} images of {about['patients']:,} patients")
    if about.get("incomplete"):
        print(about["incomplete"])
    for warning in about.get("warnings", []):
        print(f"warning: {warning}")
    if "integrity" in about:
        _show_integrity(about["integrity"])
        print(f"\nsplit {about['split']['spec']['name']}, fingerprint {about['split']['fingerprint']}")
        show_split(about["split"])
        fitted = about["fitted_on"]
        print(f"\nsamplers, on the {fitted['images']:,} images of {fitted['fit']}")
    else:
        print("\nsamplers, on all of its images")
    print(table(page.audits))
    if page.attributes:
        _show_attributes(page.attributes)


def show_split(about: Mapping[str, Any]) -> None:
    """Sizes and the prevalence of every label, by split, in percent."""
    parts = {"whole": about["whole"], **about["parts"]}
    print(f"{'':20}" + "".join(f"{name:>12}" for name in parts))
    for what in ("images", "patients"):
        print(f"{what:20}" + "".join(f"{part[what]:>12,}" for part in parts.values()))
    for label in about["whole"]["prevalence"]:
        print(f"{label:20}" + "".join(f"{100 * part['prevalence'][label]:>10.3f} %" for part in parts.values()))
    for name, part in about["parts"].items():
        worst = part["largest_deviation"]
        print(f"{name}: at most {worst['points']:.3f} percentage points off the whole ({worst['label']})")
    for warning in about["warnings"]:
        print(f"warning: {warning}")


def _show_attributes(found: Sequence[Attribute]) -> None:
    *names, last = [one.name for one in found]
    words = f"{', '.join(names)} and {last}" if names else last
    tell = f"{words} alone {'tell' if names else 'tells'}"
    print(f"\nwhat {tell} of a finding: AUROC (0.50 is nothing), and prevalence by value")
    for line in lines(found):
        print(line)
    for one in found:
        if one.unknown:
            print(f"{one.name}: not known of {one.unknown:,} images, which do not count here")
        if one.warning:
            print(f"warning: {one.warning}")


def _show_integrity(about: Mapping[str, Any]) -> None:
    print(f"\n{'':20}{'expected':>12}{'found':>12}{'lost':>12}")
    for name, part in {"whole": about, **about["splits"]}.items():
        print(f"{name:20}" + "".join(f"{part[what]:>12,}" for what in ("expected", "found", "lost")))
    print(f"raw sizes: {', '.join(f'{count:,} of {size}' for size, count in about['raw_sizes'].items())}")
    lost = [f"{name} ({reason})" for name, reason in about["set_aside"].items()]
    if lost:
        print(f"set aside: {', '.join(lost[:FEW])}{f', ... {len(lost):,} in all' if len(lost) > FEW else ''}")
    print(f"images with the same pixels: {_groups(about['duplicates']) or 'none'}")
    if about["duplicates_across_splits"]:
        print(f"warning: the same pixels are in several splits: {_groups(about['duplicates_across_splits'])}")
    for warning in about["warnings"]:
        print(f"warning: {warning}")


def _groups(groups: Sequence[Sequence[str]]) -> str:
    named = "; ".join(" = ".join(group) for group in groups[:FEW])
    return f"{named}; ... {len(groups):,} groups in all" if len(groups) > FEW else named


def _contents(found: LabelTable) -> dict[str, Any]:
    normal = int((~found.labels.any(axis=1)).sum())
    counts = dict(zip(found.classes, found.labels.sum(axis=0).tolist(), strict=True)) | {found.normal: normal}
    return {"images": len(found), "patients": len(set(found.groups)), "counts": counts}

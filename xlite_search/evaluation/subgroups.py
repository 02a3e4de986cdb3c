"""Subgroups of patients and images: what a model reaches in each, and the gaps between them, for all at once.

By sex, age (below 40, 40 to 60, above 60), projection, and first or follow-up examination, as far as the label table
has them. AUROC is the mean over the findings with at least ten images of either kind in every subgroup of that
attribute, so that the subgroups have the same findings. Underdiagnosis is the share of images with a finding in which
the model decides for none: the false-positive rate of "no finding" (Seyyed-Kalantari et al. 2021).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlite_search.data.sources import LabelTable
from xlite_search.evaluation.scored import Scored
from xlite_search.results.columns import Column, Table, ends, number
from xlite_search.results.inference import Patients, half_widths, joint
from xlite_search.results.influence import Array, Influence, influence
from xlite_search.results.intervals import Interval, own, share
from xlite_search.results.ties import Verdict, verdict
from xlite_search.training.metrics import SUPPORT

Chosen = NDArray[np.bool_]
#: gaps in AUROC between subgroups that matter to nobody
MARGIN = 0.0
AGES = (40, 60)


#: a verdict on a gap, one subgroup less another
SAID = {"better": "the first higher", "worse": "the first lower"}


@dataclass(frozen=True)
class Subgroup:
    """What a model reaches in a subgroup; NaN is what cannot be known.

    ill              patients with a finding
    auroc            mean over the findings that all subgroups of the attribute have enough of
    sensitivity, false_positive_rate, underdiagnosis  at the shipped thresholds; None without any
    """

    attribute: str
    name: str
    images: int
    patients: int
    ill: int
    auroc: Interval
    sensitivity: Interval | None = None
    false_positive_rate: Interval | None = None
    underdiagnosis: Interval | None = None

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        for name, value in found.items():
            if isinstance(value, dict):
                found[name] = getattr(self, name).as_json()
        return found


@dataclass(frozen=True)
class Gap:
    """By how much the AUROC of one subgroup is above another's; the ends hold for all gaps at once."""

    attribute: str
    one: str
    other: str
    gap: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        return verdict(self.low, self.high, MARGIN)

    def as_json(self) -> dict[str, Any]:
        plain = {name: None if value != value else value for name, value in asdict(self).items()}
        return plain | {"verdict": self.verdict}


@dataclass(frozen=True)
class Subgroups:
    """All of them.

    findings    of each attribute, those that its AUROCs are means of
    projected   AUROC of each finding in all images, and within each projection; empty without projections
    """

    subgroups: tuple[Subgroup, ...]
    gaps: tuple[Gap, ...]
    findings: Mapping[str, tuple[str, ...]]
    projected: Mapping[str, Mapping[str, float]]

    def as_json(self) -> dict[str, Any]:
        known = {
            finding: {where: None if area != area else area for where, area in of.items()}
            for finding, of in self.projected.items()
        }
        return {
            "subgroups": [each.as_json() for each in self.subgroups],
            "gaps": [each.as_json() for each in self.gaps],
            "subgroup_findings": {attribute: list(names) for attribute, names in self.findings.items()},
            "within_projections": known,
        }

    def tables(self) -> Iterator[Table]:
        """Of the subgroups, of their gaps, and of AUROC within projections."""
        if not self.subgroups:
            return
        some = self.subgroups
        columns = [
            Column("", [f"{each.attribute} {each.name}" for each in some], text=True),
            Column("images", [f"{each.images:,}" for each in some]),
            Column("patients", [f"{each.patients:,}" for each in some], spare=2),
            Column("ill", [f"{each.ill:,}" for each in some], spare=1),
            Column("AUROC", [number(each.auroc.value) for each in some]),
            Column("95 %", [ends(each.auroc.low, each.auroc.high) for each in some]),
        ]
        for head, name in (("sens.", "sensitivity"), ("FPR", "false_positive_rate"), ("missed", "underdiagnosis")):
            found = [getattr(each, name) for each in some]
            if any(found):
                columns.append(Column(head, [number(each.value if each else None) for each in found]))
                cells = [ends(each.low, each.high) if each else "" for each in found]
                columns.append(Column(f"95 % {head}", cells, spare=3))
        missed = any(each.underdiagnosis for each in some)
        told = "; missed: images with a finding for which none is decided" if missed else ""
        notes = [f"ill: patients with a finding{told}"]
        notes += [
            f"{attribute}: {f'mean AUROC of {len(names)} findings' if names else 'too few images of any finding'}"
            for attribute, names in self.findings.items()
        ]
        yield Table("subgroups", columns, notes)
        if self.gaps:
            yield self._gaps()
        if self.projected:
            yield self._projected()

    def _gaps(self) -> Table:
        gaps = self.gaps
        columns = [
            Column("", [f"{gap.attribute}: {gap.one} less {gap.other}" for gap in gaps], text=True),
            Column("gap in AUROC", [number(gap.gap, "+") for gap in gaps]),
            Column("95 %, all at once", [ends(gap.low, gap.high, "+") for gap in gaps]),
            Column("", [SAID.get(gap.verdict, gap.verdict) for gap in gaps]),
        ]
        return Table("gaps between subgroups", columns)

    def _projected(self) -> Table:
        names = list(self.projected)
        where = list(next(iter(self.projected.values())))
        columns = [Column("finding", names, text=True)]
        columns += [Column(each, [number(self.projected[name][each]) for name in names]) for each in where]
        note = "a model that tells projections apart gains in the pooled AUROC what it has not within them"
        return Table("AUROC within projections, beside the pooled one", columns, [note])


def subgroups(scored: Scored, table: LabelTable, decisions: Chosen | None = None) -> Subgroups:
    """Of scored images; `table` is the packed set's, `decisions` the model's, `[image, class]`, as the scores are."""
    found, law, findings, areas = list[Subgroup](), list[Influence](), dict[str, tuple[str, ...]](), list[float]()
    for attribute, members in attributes(table, scored.rows).items():
        columns = _enough(scored, members)
        findings[attribute] = tuple(name for name, kept in zip(scored.classes, columns, strict=True) if kept)
        for name, chosen in members.items():
            one = _influence(scored, chosen, columns)
            area = own(np.array([one.score.mean()]), joint([one]))[0] if columns.any() else _unknown()
            found.append(_subgroup(scored, attribute, name, chosen, area, decisions))
            law.append(one)
            areas.append(area.value)
    return Subgroups(tuple(found), tuple(_gaps(found, law, np.array(areas))), findings, _within(scored, table))


def attributes(table: LabelTable, rows: NDArray[np.int64]) -> dict[str, dict[str, Chosen]]:
    """Which of these images are in which subgroup, by attribute; attributes that the table does not have are absent."""
    found: dict[str, dict[str, Chosen]] = {}

    def of(column: tuple[str, ...]) -> NDArray[np.str_]:
        return np.array([column[row] for row in rows.tolist()], np.str_)

    if table.sexes:
        found["sex"] = {"F": of(table.sexes) == "F", "M": of(table.sexes) == "M"}
    if table.ages:
        age = np.array([float(text) if text else math.nan for text in of(table.ages)])
        young, old = AGES
        found["age"] = {
            f"< {young}": age < young,
            f"{young}-{old}": (age >= young) & (age <= old),
            f"> {old}": age > old,
        }
    if table.projections:
        found["projection"] = {"PA": of(table.projections) == "PA", "AP": of(table.projections) == "AP"}
    if table.follow_ups:
        number_of = of(table.follow_ups)
        found["examination"] = {"first": number_of == "0", "follow-up": (number_of != "0") & (number_of != "")}
    there = {name: {key: chosen for key, chosen in of.items() if chosen.any()} for name, of in found.items()}
    return {name: members for name, members in there.items() if len(members) > 1}


def _enough(scored: Scored, members: Mapping[str, Chosen]) -> Chosen:
    """Findings with enough images of either kind in each of these subgroups, `[class]`."""
    counts = [
        np.minimum(*(np.asarray(kind[of].sum(axis=0)) for kind in (scored.truth, ~scored.truth)))
        for of in members.values()
    ]
    return np.asarray(np.min(counts, axis=0) >= SUPPORT)


def _influence(scored: Scored, chosen: Chosen, columns: Chosen) -> Influence:
    """Of a subgroup, its values over all groups of the part: a group without an image in it moves nothing."""
    logits, truth = scored.logits[chosen][:, columns], scored.truth[chosen][:, columns]
    groups, many = scored.groups[chosen], int(scored.groups.max()) + 1
    if not columns.any():
        return Influence(np.zeros(0), np.zeros((0, 2, many)), np.zeros((0, 2)))
    found = influence(logits, truth, groups)
    missing = many - found.values.shape[-1]
    return Influence(found.score, np.pad(found.values, ((0, 0), (0, 0), (0, missing))), found.dof)


def _subgroup(
    scored: Scored, attribute: str, name: str, chosen: Chosen, area: Interval, decisions: Chosen | None
) -> Subgroup:
    truth, groups = scored.truth[chosen], scored.groups[chosen]
    ill = truth.any(axis=1)
    counts = int(chosen.sum()), len(np.unique(groups)), len(np.unique(groups[ill]))
    if decisions is None:
        return Subgroup(attribute, name, *counts, area)
    said = decisions[chosen]
    whose = np.broadcast_to(groups[:, None], truth.shape)
    rates = (
        share(said[truth], whose[truth]),
        share(said[~truth], whose[~truth]),
        share(np.asarray(~said[ill].any(axis=1)), groups[ill]),
    )
    return Subgroup(attribute, name, *counts, area, *rates)


def _gaps(found: list[Subgroup], law: list[Influence], areas: Array) -> Iterator[Gap]:
    """Of every two subgroups of an attribute, by the joint law of all subgroups' AUROCs."""
    pairs = [
        (a, b)
        for a, b in itertools.combinations(range(len(found)), 2)
        if found[a].attribute == found[b].attribute and np.isfinite(areas[[a, b]]).all()
    ]
    if not pairs:
        return
    runs = np.eye(len(found))
    contrasts = np.array([runs[a] - runs[b] for a, b in pairs])
    known = np.isfinite(areas)
    halves = half_widths(contrasts[:, known], _joint([one for one, kept in zip(law, known, strict=True) if kept]))
    for (a, b), half in zip(pairs, halves, strict=True):
        gap, reach = float(areas[a] - areas[b]), float(half) if math.isfinite(half) else math.nan
        yield Gap(found[a].attribute, found[a].name, found[b].name, gap, gap - reach, gap + reach)


def _joint(law: list[Influence]) -> Patients:
    """As `inference.joint`, of subgroups that have other images, findings and degrees of freedom each."""
    moved = np.array([one.values.sum(axis=(0, 1)) / len(one.score) for one in law])
    parts, dof = list[Array](), list[Array]()
    for place, one in enumerate(law):
        own_part = np.zeros((one.dof.size, len(law), len(law)))
        own_part[:, place, place] = ((one.values / len(one.score)) ** 2).sum(axis=2).reshape(-1)
        parts.append(own_part)
        dof.append(one.dof.reshape(-1))
    return Patients(moved @ moved.T, np.concatenate(parts), np.concatenate(dof))


def _within(scored: Scored, table: LabelTable) -> dict[str, dict[str, float]]:
    members = attributes(table, scored.rows).get("projection")
    if not members:
        return {}
    whole = np.ones(len(scored.rows), bool)
    columns = np.ones(len(scored.classes), bool)
    areas = {name: _influence(scored, chosen, columns).score for name, chosen in ({"pooled": whole} | members).items()}
    return {
        finding: {where: float(area[place]) for where, area in areas.items()}
        for place, finding in enumerate(scored.classes)
    }


def _unknown() -> Interval:
    return Interval(math.nan, math.nan, math.nan, math.nan)

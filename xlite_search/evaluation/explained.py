"""What `explain` found: figures of maps beside boxes, the cases that are drawn, and where all of it is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xlite_search.evaluation.case_maps import Shown
from xlite_search.evaluation.correlations import Correlation
from xlite_search.evaluation.localisation import Guess, Row
from xlite_search.evaluation.maps import METHODS
from xlite_search.evaluation.scored import PartName
from xlite_search.records import ARTIFACTS

HOME, FIGURES, SHEET = Path(ARTIFACTS) / "explain", "localisation.json", "contact_sheet.png"
#: parts, those first that are read first
ORDER: tuple[PartName, ...] = ("val", "test", "train", "all")


def place_of(data: str, part: str, method: str) -> Path:
    """The folder, within a model's, of what was found on a part of a data set by a method."""
    return HOME / data / part / method


def kept(folder: Path) -> list[Path]:
    """The figures that lie in a model's folder, one file for each data set, part and method."""
    return sorted((folder / HOME).glob(f"*/*/*/{FIGURES}"))


def part_of_findings(about: Mapping[str, Any]) -> str:
    """`3 of 14 findings`, where some were not asked for; empty else. Files of earlier versions do not say."""
    left_out = about.get("left_out", ())
    return f"{len(about['findings'])} of {len(about['findings']) + len(left_out)} findings" if left_out else ""


def in_order(found: Sequence[Mapping[str, Any]], own: str) -> list[Mapping[str, Any]]:
    """Figures of several data sets, parts and methods, those that say most first: with boxes, of the model's own data
    set, of validation, by Grad-CAM."""

    def rank(of: Mapping[str, Any]) -> tuple[bool, bool, int, int]:
        on = of["data"]
        return not of["localisation"], on["name"] != own, ORDER.index(on["part"]), METHODS.index(of["method"])

    return sorted(found, key=rank)


@dataclass(frozen=True)
class Explained:
    """All that was found.

    about      model, data, method, findings and those left out, cells of the maps, and whose the probabilities are
    alike      rank correlation of the maps with those of weights drawn anew, by depth
    occlusion  that with the occlusion maps, and both maps' pointing on the cases shown, if asked for
    constant   the guess that sees no image, by image and finding
    """

    about: dict[str, Any]
    rows: list[Row]
    shown: list[Shown]
    alike: Mapping[str, Correlation]
    occlusion: Correlation | None
    notes: list[str]
    constant: Mapping[tuple[str, str], Guess] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What these are maps of."""
        of, data = self.about["model"], self.about["data"]
        images = f"{self.about['images_with_boxes']:,} images with boxes" if self.rows else "no boxes"
        part = "all parts" if data["part"] == "all" else f"{data['part']} part"
        some = f", {some}" if (some := part_of_findings(self.about)) else ""
        return f"{self.about['method']} of {of['name']} on {data['name']}, {part}{some}: {images}"

    @property
    def place(self) -> Path:
        """Where it is kept, within the model's folder."""
        return place_of(self.about["data"]["name"], self.about["data"]["part"], self.about["method"])

    def as_json(self) -> dict[str, Any]:
        """Every number that is printed or drawn."""
        return self.about | {
            "localisation": [_row_json(row) for row in self.rows],
            "sanity": dict(self.alike),
            "occlusion": self.occlusion,
            "shown": [each.as_json(self.constant.get((each.case.image, each.case.finding))) for each in self.shown],
            "notes": self.notes,
        }


def _row_json(row: Row) -> dict[str, Any]:
    kinds = ("maps", "constant", "gap")
    plain = {name: value for name, value in asdict(row).items() if name not in kinds}
    return plain | {kind: {name: each.as_json() for name, each in getattr(row, kind).items()} for kind in kinds}

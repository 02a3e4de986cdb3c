"""What a reader of maps has to know, a sentence each: whether they beat a guess, and what speaks against them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from xlite_search.data.dataset import Data
from xlite_search.evaluation.calibration import Calibration
from xlite_search.evaluation.cases import words_of
from xlite_search.evaluation.cells import Grid
from xlite_search.evaluation.correlations import Correlation
from xlite_search.evaluation.localisation import OVER_ALL, Row
from xlite_search.evaluation.sanity import ALIKE
from xlite_search.evaluation.scored import PartName, part_of
from xlite_search.model_folder import ModelManifest, seen_among

#: how a rank correlation is read
SCALE = "1 is the same, 0 unrelated, below 0 high where the other is low"


def verdict(rows: Sequence[Row], part: PartName) -> str:
    """Whether the maps' maxima are in the boxes more often than a guess that sees no image."""
    if not rows:
        return (
            f"no image of {words_of(part)} has a box: there are maps and no figures of where they are right; "
            f"give --boxes FILE, or another --part"
        )
    over_all = rows[-1]
    ours, theirs, gap = (each["pointing"] for each in (over_all.maps, over_all.constant, over_all.gap))
    figures = (
        f"pointing {ours.value:.2f}, that of a guess that sees no image {theirs.value:.2f}, by chance "
        f"{over_all.chance:.2f}"
    )
    if gap.low > 0:
        return f"{figures}: the maps know more of the place than that guess"
    worse = "know less of the place than that guess" if gap.high < 0 else "are not shown to know more than that guess"
    return f"{figures}: the maps {worse}; do not show them as the place of a finding"


def of_cells(grids: Sequence[Grid], rows: Sequence[Row], size: int) -> Iterator[str]:
    """How coarse the maps are, and which findings' boxes are smaller than a cell."""
    told = " and ".join(grid.words for grid in grids)
    yield f"maps have {told}{', by member,' if len(grids) > 1 else ''} on images of {size} px"
    finest = grids[0]
    small = [
        row for row in rows if row.finding != OVER_ALL and row.median_box[0] * row.median_box[1] < finest.pixels**2
    ]
    if small:
        boxes = ", ".join(f"{row.finding} ({row.median_box[0]:.0f} x {row.median_box[1]:.0f} px)" for row in small)
        yield f"a map of {finest.words} cannot point at what is smaller than a cell, as the median box is of {boxes}"


def of_findings(findings: Sequence[str], left_out: Sequence[str]) -> Iterator[str]:
    """Whether some were not asked for."""
    if left_out:
        many = len(findings) + len(left_out)
        yield f"{len(findings)} of {many} findings, those that were asked for: no figure here is of the others"


def of_images(about: ModelManifest, data: Data, part: PartName) -> Iterator[str]:
    """Of the images: whether the model has seen them, and whether they are seen for good."""
    if about.trained_on is None:
        yield "whom the model was trained on is not known: it may have seen these patients"
    if seen_among(about.trained_on, data, part_of(data, part).rows.tolist()):
        yield f"the model was fitted on patients of {words_of(part)}: its maps look better there"
    if part == "test":
        yield (
            "these maps and figures are of the test part: it has been seen, and whoever changes the model after this "
            "no longer has a test that nobody looked at"
        )


def of_probabilities(calibration: Calibration | None) -> Iterator[str]:
    """Of the probabilities, where there is more to say than that they are calibrated."""
    if calibration is not None and calibration.caveat:
        yield f"this calibration is {calibration.caveat}"


def of_other_weights(alike: Mapping[str, Correlation]) -> Iterator[str]:
    """How far the maps are those of this model's weights."""
    told = ", ".join(f"{depth} {_correlated(each)}" for depth, each in alike.items())
    yield f"rank correlation with the maps of weights drawn anew, 95 % intervals over draws; {SCALE}: {told}"
    head = alike["head"]["rank_correlation"]
    if head is not None and head > ALIKE:
        yield (
            f"a head with weights drawn anew gives nearly the same maps (rank correlation {head:.2f}): they show the "
            f"images and hardly what this model learned"
        )


def of_occlusion(found: Correlation | None) -> Iterator[str]:
    """How far occlusion says the same."""
    if found is None:
        return
    told = (
        f"occlusion, which knows no layer: rank correlation with these maps {_correlated(found)}, "
        f"intervals by patient; {SCALE}"
    )
    if found["boxed"]:
        ours, theirs = (_said(found[name]) for name in ("pointing_of_maps", "pointing_of_occlusion"))
        told += f"; on the {found['boxed']} cases drawn its pointing is {theirs}, and theirs {ours}"
    yield told


def _correlated(found: Correlation) -> str:
    """`0.12 (-0.05 to 0.29, 118 pairs)`."""
    many = f"{found['pairs']:,} pair{'' if found['pairs'] == 1 else 's'}"
    ends = "" if found["low"] is None else f"{_said(found['low'])} to {_said(found['high'])}, "
    return f"{_said(found['rank_correlation'])} ({ends}{many})"


def _said(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"

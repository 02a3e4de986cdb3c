"""What a reader of maps has to know, a sentence each: whether they beat a guess, and what speaks against them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from xlite_search.data.dataset import Data
from xlite_search.evaluation.calibration import Calibration
from xlite_search.evaluation.case_maps import Correlation
from xlite_search.evaluation.cases import words_of
from xlite_search.evaluation.localisation import Row
from xlite_search.evaluation.sanity import ALIKE
from xlite_search.evaluation.scored import PartName, part_of
from xlite_search.model_folder import ModelManifest, seen_among


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
    told = ", ".join(f"{depth} {_said(each['rank_correlation'])}" for depth, each in alike.items())
    yield f"rank correlation with the maps of weights drawn anew, 1 the same and 0 unrelated: {told}"
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
    told = f"occlusion, which knows no layer: rank correlation with these maps {_said(found['rank_correlation'])}"
    if found["boxed"]:
        ours, theirs = (_said(found[name]) for name in ("pointing_of_maps", "pointing_of_occlusion"))
        told += f"; on the {found['boxed']} cases drawn its pointing is {theirs}, and theirs {ours}"
    yield told


def _said(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"

"""Images that a delivered model may be judged on: there, its own kind, none that it was trained or calibrated on."""

from __future__ import annotations

import numpy as np

from xlite_search import places
from xlite_search.data.dataset import Data
from xlite_search.errors import BadInput, did_you_mean
from xlite_search.evaluation.calibration import Calibration
from xlite_search.evaluation.scored import PartName, data_of, part_of
from xlite_search.model_folder import ModelManifest, seen_among

TEST, VAL = "test", "val"


def expect_judgeable(
    about: ModelManifest, data: Data, part: PartName, on: str, calibration: Calibration | None
) -> None:
    """Before a look is taken.

    Raises BadInput: the model was trained on these patients or images, or calibrated on them, or there is nothing to
    judge.
    """
    _expect_strangers(about, data, part, on)
    if on not in (TEST, VAL):
        _expect_other_images(about, data, part, on, calibration)
    _expect_judged(about, data, part, on)


def images_for(about: ModelManifest, on: str) -> tuple[Data, PartName]:
    """The data and the part that `on` names. Raises BadInput if the model was trained on all of them."""
    if on == TEST:
        return data_of(about), "test"
    if on == VAL:
        return data_of(about), "val"
    ours = about.config.get("data", {}).get("name")
    if on == ours:
        raise BadInput(f"--on {on}: the model was trained on it; say --on test, or --on val")
    if (near := did_you_mean(on, (TEST, VAL))) and not places.data_folder(on).exists():
        raise BadInput(f"--on {on}: expected test, val or a prepared data set{near}")
    return data_of(about, on), "all"


def _expect_strangers(about: ModelManifest, data: Data, part: PartName, on: str) -> None:
    seen = seen_among(about.trained_on, data, part_of(data, part).rows.tolist())
    if seen:
        some = f"{', '.join(seen[:3])}{', ...' if len(seen) > 3 else ''}"
        raise BadInput(
            f"--on {on}: the model was trained on {len(seen):,} of these patients ({some}), and would be judged by "
            f"what it knows; judge it on others"
        )


def _expect_other_images(
    about: ModelManifest, data: Data, part: PartName, on: str, calibration: Calibration | None
) -> None:
    """Of a data set from elsewhere: that it has no image, pixel for pixel, that the model was trained on, as far as its
    own data set is here, and that the model was not calibrated on it."""
    if calibration is not None and calibration.on.fingerprint == data.packed.fingerprint:
        raise BadInput(
            f"--on {on}: the model's calibration and thresholds were fitted on images of this data set, and would be "
            f"judged by these; calibrate it on its own"
        )
    ours = own_data(about)
    if ours is None:
        return
    seen = {ours.packed.table.digests[row] for row in ours.train.rows} if ours.packed.table.digests else set()
    known = data.packed.table.digests
    same = sum(known[row] in seen for row in part_of(data, part).rows) if known else 0
    if same:
        raise BadInput(
            f"--on {on}: {same:,} of its images are, pixel for pixel, ones that the model was trained on; judge it on "
            f"others"
        )


def own_data(about: ModelManifest) -> Data | None:
    """What the model was trained on; None where that is not here."""
    try:
        return data_of(about)
    except (BadInput, OSError):
        return None


def _expect_judged(about: ModelManifest, data: Data, part: PartName, on: str) -> None:
    """Before a look is taken: that there is something to judge."""
    if not set(about.classes) & set(data.classes):
        raise BadInput(
            f"data set '{data.packed.folder.name}' has none of the model's findings ({', '.join(about.classes)}); its "
            f"own are {', '.join(data.classes)}"
        )
    of_part = part_of(data, part)
    groups = np.array([data.packed.table.groups[row] for row in of_part.rows])
    truth = of_part.labels[:, [place for place, name in enumerate(data.classes) if name in about.classes]] > 0
    if not any(len(set(groups[has])) > 1 and len(set(groups[~has])) > 1 for has in truth.T):
        raise BadInput(f"--on {on}: no finding has two patients with it and two without: there is nothing to judge")

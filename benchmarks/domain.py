"""Which images an exported model's domain flags: real radiographs by mistake, and what is none of its own.

    python benchmarks/domain.py

The domain is fitted as `export` fits it, on half of the patients of 1,000 real radiographs of NIH ChestX-ray14 (224 px
files of the shared data: XLITE_SHARED; without it the benchmark says so and ends), and that for ten halves drawn at
random. Images of the other half, and those of another 1,000 files (64 px) whose patients the first half does not have,
are held out: a flag on one is a false alarm. The held-out images as negatives, turned by a quarter and upside down,
noise, and 2,000 photographs of skin lesions (HAM10000) as gray images should be flagged; mirrored ones are not looked
for. Two DICOM files have the same pixels, and one says that they are a negative (MONOCHROME1), which they are not: that
one should be flagged. Each figure is the mean share of images that is flagged, `_low` and `_high` the least and the
largest of the ten.
"""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import recording
from numpy.typing import NDArray
from recording import ROOT, Limit

from xlite_search import limits
from xlite_search.data.preprocess import Preprocess
from xlite_search.data.sources.images import read_image
from xlite_search.deploy.domain import Domain, fit_domain

SIZE, SPLITS, NOISE = 224, 10, 200
NIH, SKIN, DICOM = "data/chestxray14", "data/ham10000/images_128", "data/dicom"
#: of a quick run: every so many image, and splits
EVERY, QUICK_SPLITS = 5, 2
LIMITS = {
    "held_out_flagged": Limit(most=0.02),
    "small_files_flagged": Limit(most=0.02),
    "inverted_flagged": Limit(least=0.95),
    "turned_flagged": Limit(least=0.8),
    "upside_down_flagged": Limit(least=0.8),
    "noise_flagged": Limit(least=0.99),
    "photographs_flagged": Limit(least=0.8),
    "dicom_monochrome1_flagged": Limit(least=1),
    "dicom_monochrome2_flagged": Limit(most=0),
}

Images = NDArray[np.uint8]
CHANGES: dict[str, Callable[[Images], Images]] = {
    "held_out": lambda image: image,
    "inverted": lambda image: 255 - image,
    "turned": lambda image: np.rot90(image),
    "upside_down": lambda image: image[::-1],
    "mirrored": lambda image: image[:, ::-1],
}


class Radiographs(NamedTuple):
    """Prepared images, uint8 `[image, 1, size, size]`, and whose they are, `[image]`."""

    images: Images
    patients: NDArray[np.str_]


def radiographs(folder: Path, size: int, every: int) -> dict[str, Radiographs]:
    """The files of so many pixels, by their table, as they are and changed in each way."""
    with open(folder / f"Data_Entry_images_{size}.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[::every]
    raw = [gray(folder / f"images_{size}" / row["Image Index"]) for row in rows]
    patients = np.array([row["Patient ID"] for row in rows])
    return {name: Radiographs(prepared(map(change, raw)), patients) for name, change in CHANGES.items()}


def gray(path: Path) -> Images:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.uint8)


def prepared(raw: Iterable[Images]) -> Images:
    preprocess = Preprocess(SIZE)
    with ThreadPoolExecutor(limits.cores()) as pool:
        return np.array(list(pool.map(lambda each: preprocess(np.ascontiguousarray(each)), raw)))


def others(shared: Path, every: int) -> dict[str, Images]:
    """Prepared images of what is no radiograph, and of the DICOM files."""
    noise = np.random.default_rng(0).integers(0, 256, (NOISE // every, SIZE, SIZE), np.uint8)
    found = {
        "noise": prepared(noise),
        "photographs": prepared(gray(path) for path in sorted((shared / SKIN).iterdir())[::every]),
    }
    for path in sorted((shared / DICOM).glob("chest_*.dcm")):
        found[f"dicom_{path.stem.removeprefix('chest_')}"] = Preprocess(SIZE)(read_image(path, 1))[None]
    return found


def flagged(domain: Domain, images: Images) -> list[str]:
    """The first flag of each prepared image, empty if there is none."""
    return [next((flag.name for flag in domain.flags(image)), "") for image in images]


def share(found: list[str]) -> float:
    return sum(map(bool, found)) / len(found)


def measure(quick: bool) -> Mapping[str, float]:
    shared, every = Path(os.environ.get("XLITE_SHARED") or ROOT.parent / "shared"), EVERY if quick else 1
    for folder in (NIH, SKIN, DICOM):
        if not (shared / folder).is_dir():
            raise recording.Skipped(f"{shared / folder} is not there; name the shared data's folder by XLITE_SHARED")
    large, small = radiographs(shared / NIH, 224, every), radiographs(shared / NIH, 64, every)["held_out"]
    foreign, shares = others(shared, every), defaultdict[str, list[float]](list)
    splits = QUICK_SPLITS if quick else SPLITS
    for seed in range(splits):
        names = np.random.default_rng(seed).permutation(np.unique(large["held_out"].patients))
        fitted, known = names[: len(names) // 2], large["held_out"]
        of = np.isin(known.patients, fitted)
        domain = fit_domain(known.images[of], known.patients[of].tolist())
        assert domain is not None, "half of 200 images is enough"
        for name, changed in large.items():
            found = flagged(domain, changed.images[~of])
            shares[f"{name}_flagged"].append(share(found))
            if name == "inverted":
                shares["inverted_named"].append(found.count("inverted") / len(found))
        strangers = small.images[~np.isin(small.patients, fitted)]
        shares["small_files_flagged"].append(share(flagged(domain, strangers)))
        for name, images in foreign.items():
            shares[f"{name}_flagged"].append(share(flagged(domain, images)))
    figures = {name: float(np.mean(found)) for name, found in shares.items()}
    ends = {f"{name}_low": min(found) for name, found in shares.items()}
    ends |= {f"{name}_high": max(found) for name, found in shares.items()}
    counts = {"images": len(large["held_out"].patients), "patients": len(np.unique(large["held_out"].patients))}
    counts |= {"small_images": len(small.patients), "splits": splits}
    return figures | ends | counts | {f"{name}_images": len(foreign[name]) for name in ("noise", "photographs")}


if __name__ == "__main__":
    recording.run("domain", __doc__, measure, LIMITS)

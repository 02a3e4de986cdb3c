"""Drawing of the 14 findings on a phantom chest radiograph, and of the whole picture.

A finding changes the chest's shape before anything is drawn (`deform`), or it is painted onto the
layers of the picture (`PAINTERS`), or both. Conventions are those of `phantom_drawing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from xlite_search.data.boxes import Box
from xlite_search.data.sources.phantom_drawing import (
    F32,
    SIDES,
    Canvas,
    Chest,
    Pose,
    airway,
    curve,
    devices,
    expose,
    mediastinum,
    ribs,
    shoulder_girdle,
    smooth,
    soften,
    spine,
    stomach,
    stream,
    torso,
    tree,
    vessels,
)

#: Version of the pictures: raised whenever the same settings draw other pixels.
DRAWING = 1

#: Findings that stay with a patient: they look the same, at the same place, on every follow-up.
CHRONIC = ("Cardiomegaly", "Mass", "Nodule", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia")


@dataclass
class Plate:
    """The layers of one picture while it is drawn.

    `opacity` is the share of the lung's air that something else has taken; `extra` is attenuation
    added (or removed) wherever it lies, in units of one chest's thickness of water.
    """

    canvas: Canvas
    chest: Chest
    lungs: dict[int, F32]
    opacity: F32
    extra: F32
    vessels: F32

    @property
    def lung(self) -> F32:
        return self.lungs[-1] + self.lungs[1]

    def replace_air(self, share: F32) -> None:
        self.opacity = 1 - (1 - self.opacity) * (1 - np.clip(share, 0, 1))


Painter = Callable[[Plate, Generator], Iterable[F32]]


def _side(rng: Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def paint_atelectasis(plate: Plate, rng: Generator) -> Iterable[F32]:
    """Plate-like bands above a raised dome (`deform` raised it, on the side of the same stream)."""
    canvas, chest, side = plate.canvas, plate.chest, _side(rng)
    tilt, fraction = rng.uniform(-0.07, 0.03), 0.86
    bands = canvas.empty()
    for _ in range(rng.integers(1, 4)):
        inner = np.array(chest.site(side, rng.uniform(0.1, 0.35), fraction + rng.uniform(-0.02, 0.02)))
        outer = np.array(chest.site(side, rng.uniform(0.65, 0.98), fraction + tilt + rng.uniform(-0.03, 0.03)))
        path = curve([inner, (inner + outer) / 2 + (0, rng.uniform(-0.015, 0.015)), outer])
        stroke = [(path, rng.uniform(0.012, 0.024), 1.0)]
        bands = np.maximum(bands, rng.uniform(0.6, 1.0) * canvas.stroke(stroke, rng.uniform(0.004, 0.007)))
        fraction -= rng.uniform(0.09, 0.16)
    crowding = canvas.blob(*chest.site(side, 0.45, 0.97), 0.15, 0.075, 0.9)
    plate.replace_air(0.85 * bands + 0.4 * crowding)
    return [np.maximum(bands, crowding) * plate.lungs[side]]


def paint_cardiomegaly(plate: Plate, rng: Generator) -> Iterable[F32]:
    """The heart: `deform` has widened it to more than 0.55 of the thorax."""
    return [plate.canvas.fill(plate.chest.heart())]


def paint_effusion(plate: Plate, rng: Generator) -> Iterable[F32]:
    """Fluid that climbs the chest wall: its surface is a meniscus, highest at the ribs."""
    canvas, chest = plate.canvas, plate.chest
    sides = SIDES if rng.random() < 0.3 else (_side(rng),)
    for side in sides:
        depth = rng.uniform(0.025, 0.2)
        lateral = np.clip(side * canvas.x / chest.half_width, 0, 1)
        surface = chest.dome(side) + 0.3 * chest.recess - depth * (0.35 + 0.9 * lateral**4)
        fluid = smooth((canvas.y - surface) / 0.02)
        plate.replace_air(0.97 * fluid * (side * canvas.x > 0))
        yield fluid * plate.lungs[side]


def paint_infiltration(plate: Plate, rng: Generator) -> Iterable[F32]:
    """Faint patches without a border, often on both sides."""
    canvas = plate.canvas
    sides = SIDES if rng.random() < 0.5 else (_side(rng),)
    cloud = canvas.texture(rng, 14)
    for side in sides:
        x, y = plate.chest.site(side, rng.uniform(0.3, 0.7), rng.uniform(0.4, 0.85))
        haze = canvas.blob(x, y, rng.uniform(0.1, 0.14), rng.uniform(0.12, 0.17), 1.0, 0.22 * cloud)
        plate.replace_air(rng.uniform(0.36, 0.5) * haze)
        yield haze * plate.lungs[side]


def paint_mass(plate: Plate, rng: Generator) -> Iterable[F32]:
    """A round opacity of more than 3 cm with slightly lobed borders."""
    canvas, side = plate.canvas, _side(rng)
    x, y = plate.chest.site(side, rng.uniform(0.3, 0.75), rng.uniform(0.2, 0.8))
    radius = rng.uniform(0.048, 0.08)
    lump = canvas.blob(x, y, radius, radius * rng.uniform(0.85, 1.15), 0.5, 0.06 * canvas.texture(rng, 15))
    plate.replace_air(rng.uniform(0.7, 0.92) * lump)
    return [lump]


def paint_nodule(plate: Plate, rng: Generator) -> Iterable[F32]:
    """One to three small round opacities."""
    canvas = plate.canvas
    for _ in range(rng.integers(1, 4)):
        side = _side(rng)
        x, y = plate.chest.site(side, rng.uniform(0.35, 0.85), rng.uniform(0.18, 0.85))
        radius = rng.uniform(0.019, 0.03)
        knot = canvas.blob(x, y, radius, radius, 0.6)
        plate.replace_air(rng.uniform(0.75, 0.98) * knot)
        yield knot


def _lobe(plate: Plate, rng: Generator, wobble: F32) -> tuple[int, F32]:
    """About a lobe of one lung, cut straight along a fissure."""
    canvas, side, upper = plate.canvas, _side(rng), rng.random() < 0.4
    x, y = plate.chest.site(side, rng.uniform(0.4, 0.65), rng.uniform(0.15, 0.3) if upper else rng.uniform(0.66, 0.82))
    fissure = plate.chest.height(0.46 if upper else 0.52, side) + 0.12 * side * (canvas.x - x)
    away = (fissure - canvas.y) if upper else (canvas.y - fissure)
    extent = canvas.blob(x, y, rng.uniform(0.12, 0.155), rng.uniform(0.14, 0.18), 0.7, wobble)
    return side, extent * smooth(away / 0.012) * (side * canvas.x > 0)


def _bronchogram(plate: Plate, rng: Generator, side: int) -> F32:
    """Air-filled bronchi, seen as dark branches where the lung around them is not."""
    hilum = plate.chest.site(side, 0.12, 0.5)
    return plate.canvas.stroke(tree(rng, hilum, side, np.linspace(-1.4, 1.3, 6), (0.01, 0.008, 0.006)), 0.003)


def paint_pneumonia(plate: Plate, rng: Generator) -> Iterable[F32]:
    """A lobe in patches, with a few bronchi seen in it."""
    cloud = plate.canvas.texture(rng, 12)
    side, lobe = _lobe(plate, rng, 0.2 * cloud)
    patchy = np.clip(0.6 + 0.17 * plate.canvas.texture(rng, 30) + 0.12 * cloud, 0.1, 1)
    plate.replace_air(0.85 * lobe * patchy * (1 - 0.45 * _bronchogram(plate, rng, side)))
    return [lobe * plate.lungs[side]]


def paint_consolidation(plate: Plate, rng: Generator) -> Iterable[F32]:
    """A lobe that is white throughout, but for its bronchi."""
    side, lobe = _lobe(plate, rng, 0.08 * plate.canvas.texture(rng, 10))
    plate.replace_air(0.95 * smooth(lobe * 1.4 - 0.55) * (1 - 0.35 * _bronchogram(plate, rng, side)))
    return [lobe * plate.lungs[side]]


def paint_pneumothorax(plate: Plate, rng: Generator) -> Iterable[F32]:
    """The lung has shrunk to its hilum: air without vessels around it, and a thin pleural line."""
    canvas, chest, side = plate.canvas, plate.chest, _side(rng)
    hilum = np.array(chest.site(side, 0.0, 0.72))
    share = rng.uniform(0.62, 0.86)
    shrunken = hilum + (chest.lung(side) - hilum) * share
    inside = canvas.fill(shrunken, blur=0.002)
    lateral = smooth((side * canvas.x / chest.half_width - 0.27) / 0.2)
    pleural = plate.lungs[side] * lateral * smooth((chest.height(0.86, side) - canvas.y) / 0.12)
    free = pleural * (1 - inside)
    plate.vessels = plate.vessels * (1 - free)
    plate.opacity = plate.opacity * (1 - free)
    plate.extra -= 0.12 * free
    plate.replace_air(0.8 * (0.95 - share) * inside)
    plate.replace_air(0.45 * canvas.stroke([(shrunken, 0.006, 1.0)]) * pleural)
    return [free]


def paint_edema(plate: Plate, rng: Generator) -> Iterable[F32]:
    """Bat wings around both hila, septal lines at the ribs, vessels widened upwards."""
    canvas, chest = plate.canvas, plate.chest
    fluffy, strength = 0.14 * canvas.texture(rng, 18), rng.uniform(0.28, 0.65)
    haze, septa = canvas.empty(), []
    for side in SIDES:
        x, y = chest.site(side, 0.25, 0.52)
        haze += canvas.blob(x, y, rng.uniform(0.13, 0.16), rng.uniform(0.17, 0.21), 1.1, fluffy)
        for fraction in np.arange(0.7, 0.95, 0.035):
            septa.append([chest.site(side, 0.88, fraction), chest.site(side, 1.0, fraction)])
    plate.vessels = plate.vessels * (1.2 + 0.6 * (canvas.y < chest.height(0.5)))
    plate.replace_air(strength * haze)
    plate.replace_air(0.25 * canvas.stroke([(np.array(septa), 0.005, 1.0)]))
    return [haze * plate.lung]


def paint_emphysema(plate: Plate, rng: Generator) -> Iterable[F32]:
    """Both lungs: `deform` has blown them up, flattened their domes and thinned their vessels."""
    return [plate.lung]


def paint_fibrosis(plate: Plate, rng: Generator) -> Iterable[F32]:
    """A net of lines, densest at the bases and at the ribs; the lungs have shrunk (`deform`)."""
    canvas, chest = plate.canvas, plate.chest
    net = np.exp(-((canvas.texture(rng, 34) / 0.35) ** 2)) + np.exp(-((canvas.texture(rng, 48) / 0.3) ** 2))
    low = smooth((canvas.y - chest.height(0.62)) / 0.3)
    outer = smooth((np.abs(canvas.x) / chest.half_width - 0.62) / 0.5)
    where = np.clip(0.75 * low + 0.6 * outer * (0.35 + low), 0, 1) * plate.lung
    plate.replace_air(where * (0.14 + rng.uniform(0.22, 0.4) * net))
    return [where]


def paint_pleural_thickening(plate: Plate, rng: Generator) -> Iterable[F32]:
    """A rind along the ribs, or a cap over the apex."""
    canvas, chest, side = plate.canvas, plate.chest, _side(rng)
    wall = chest.wall(side)
    cap = rng.random() < 0.35
    start, stop = (0.03, 0.42) if cap else (rng.uniform(0.35, 0.5), rng.uniform(0.85, 1.0))
    part = wall[int(start * len(wall)) : int(stop * len(wall))]
    width = rng.uniform(0.055, 0.085) * (1.25 if cap else 1.0)
    rind = canvas.stroke([(part, width, 1.0)], 0.004)
    plate.replace_air(0.95 * rind * np.clip(0.95 + 0.15 * canvas.texture(rng, 20), 0, 1))
    rind = rind * plate.lungs[side]
    plate.extra += rng.uniform(0.04, 0.12) * rind
    return [rind]


def paint_hernia(plate: Plate, rng: Generator) -> Iterable[F32]:
    """Stomach behind the heart: a round shadow, mostly with gas above a flat fluid level."""
    canvas, chest = plate.canvas, plate.chest
    x, radius = rng.uniform(-0.01, 0.06), rng.uniform(0.055, 0.085)
    y, level = chest.height(1.0, 1) - 0.55 * radius, rng.uniform(-0.35, 0.3) * radius
    sac = canvas.blob(x, y, radius * 1.1, radius, 0.18)
    gas = canvas.blob(x, y, radius * 0.98, radius * 0.88, 0.25) * smooth((y + level - canvas.y) / 0.008)
    plate.replace_air(0.9 * sac)
    plate.extra += 0.13 * sac - (rng.uniform(0.3, 0.55) if rng.random() < 0.8 else 0.1) * gas
    return [sac]


#: In the order of painting: air in the pleural space clears what lies there. What is small enough to
#: vanish in it altogether comes later, because a label without a picture would be a wrong label.
PAINTERS: dict[str, Painter] = {
    "Cardiomegaly": paint_cardiomegaly,
    "Emphysema": paint_emphysema,
    "Edema": paint_edema,
    "Fibrosis": paint_fibrosis,
    "Infiltration": paint_infiltration,
    "Pneumonia": paint_pneumonia,
    "Consolidation": paint_consolidation,
    "Atelectasis": paint_atelectasis,
    "Pneumothorax": paint_pneumothorax,
    "Mass": paint_mass,
    "Nodule": paint_nodule,
    "Effusion": paint_effusion,
    "Pleural_Thickening": paint_pleural_thickening,
    "Hernia": paint_hernia,
}


def finding_stream(finding: str, chest: Chest, pose: Pose) -> Generator:
    """The random numbers of one finding: the patient's own if it is chronic, else the image's."""
    return stream(chest.seed, finding, chest.patient if finding in CHRONIC else pose.image)


def deform(chest: Chest, pose: Pose, findings: Sequence[str]) -> Chest:
    """The chest of this exposure: breath, projection, and findings that change its shape."""
    right, left = (dome + pose.breath for dome in chest.domes)
    ratio, width, recess = chest.heart_ratio, chest.half_width, chest.recess
    if pose.view == "AP":
        ratio, chest = ratio * 1.09, replace(chest, aorta=chest.aorta * 1.1)
    if "Fibrosis" in findings:
        right, left, width = right - 0.025, left - 0.025, width * 0.98
    if "Emphysema" in findings:
        grade = finding_stream("Emphysema", chest, pose).uniform(0.4, 1.0)
        right, left, recess, width = right + 0.05 * grade, left + 0.05 * grade, recess * (1 - 0.7 * grade), width * 1.03
        ratio, slope = ratio * (1 - 0.22 * grade), chest.rib_slope * (1 - 0.25 * grade)
        chest = replace(chest, air=1 + 0.15 * grade, perfusion=1 - 0.4 * grade, rib_slope=slope)
    if "Cardiomegaly" in findings:
        ratio = finding_stream("Cardiomegaly", chest, pose).uniform(0.555, 0.67)
    if "Atelectasis" in findings:
        side = _side(finding_stream("Atelectasis", chest, pose))
        right, left = (right, left - 0.065) if side > 0 else (right - 0.065, left)
        chest = replace(chest, shift=0.012 * side)
    return replace(chest, domes=(right, left), heart_ratio=ratio, half_width=width, recess=recess)


def draw(chest: Chest, pose: Pose, findings: Sequence[str], size: int) -> tuple[NDArray[np.uint8], list[Box]]:
    """The radiograph of one chest with these findings, and a box around each thing drawn for them."""
    canvas, chest = Canvas(pose, size), deform(chest, pose, findings)
    lungs = {side: canvas.fill(chest.lung(side), blur=0.0035) for side in SIDES}
    plate = Plate(canvas, chest, lungs, mediastinum(canvas, chest), canvas.empty(), vessels(canvas, chest))
    boxes = []
    for finding, painter in PAINTERS.items():
        if finding in findings:
            masks = list(painter(plate, finding_stream(finding, chest, pose)))
            boxes += [box for mask in masks if (box := bounding_box(finding, mask))]
    lung = plate.lung
    aerated = lung * (1 - plate.opacity)
    depth = 0.6 + 0.4 * soften(lung, 0.05 * size)
    attenuation = torso(canvas, chest) + spine(canvas, chest) + plate.extra + devices(canvas, chest, pose)
    attenuation += ribs(canvas, chest) * (0.35 + 0.65 * aerated) + shoulder_girdle(canvas, chest, pose.view)
    attenuation += aerated * (0.33 * plate.vessels - 0.67 * chest.air * depth)
    attenuation -= 0.16 * airway(canvas, chest) + 0.3 * stomach(canvas, chest, pose)
    return expose(attenuation, chest, pose), boxes


def bounding_box(finding: str, mask: F32) -> Box | None:
    """The box around the part of a mask above a third of its peak; none if it lies off the picture."""
    peak = float(mask.max())
    if peak <= 0:
        return None
    x, y, width, height = cv2.boundingRect((mask > peak / 3).astype(np.uint8))
    return Box(finding, x, y, width, height)

"""Drawing of a phantom chest radiograph: brushes, anatomy, projection and film.

Conventions. Lengths are fractions of the picture's side, so one chest can be drawn at any size. The
chest frame has x = 0 on the spine, x > 0 towards the patient's left (the right of the picture),
and y = 0 at the top. `side` is -1 for the patient's right lung and +1 for the left one. Tissue is
summed as attenuation along the ray, and one film curve at the end turns the sum into gray.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import ArrayLike, NDArray

from xlite_search.data.sources.chest import CHEST_FINDINGS

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Names of the independent random streams; a name's position is part of the stream's key.
STREAMS = ("followups", "illness", "chronic", "acute", "view", "flips", "chest", "pose", "vessels", "devices", "grain")

SIDES = (-1, 1)


def stream(seed: int, name: str, number: int = 0) -> Generator:
    """The random numbers of (seed, name, number), the same in every process and order."""
    index = (STREAMS + CHEST_FINDINGS).index(name)
    return Generator(Philox(key=np.array([seed, (index << 48) | number], dtype=np.uint64)))


@dataclass(frozen=True)
class Chest:
    """A patient's build; a finding or a breath may change it for one exposure.

    half_width    from the spine to the inner side of the ribs
    apex, domes   y of the lungs' tops, and of the right and the left diaphragm
    recess        how far the costophrenic angles reach below the domes
    heart_ratio   the heart's width over the thorax's
    aorta, habitus, breasts, bone, rib_slope, air, perfusion   factors around 1; 0 breasts = not visible
    shift         how far the mediastinum has moved towards the patient's left
    """

    seed: int
    patient: int
    half_width: float
    apex: float
    domes: tuple[float, float]
    recess: float
    heart_ratio: float
    aorta: float
    habitus: float
    breasts: float
    bone: float
    rib_slope: float
    air: float = 1.0
    perfusion: float = 1.0
    shift: float = 0.0

    @classmethod
    def of(cls, seed: int, patient: int) -> Chest:
        rng = stream(seed, "chest", patient)
        dome = rng.normal(0.735, 0.022)
        return cls(
            seed=seed,
            patient=patient,
            half_width=rng.normal(0.36, 0.016),
            apex=rng.normal(0.095, 0.01),
            domes=(dome, dome + rng.normal(0.022, 0.008)),
            recess=rng.uniform(0.09, 0.125),
            heart_ratio=rng.normal(0.455, 0.03),
            aorta=rng.uniform(0.8, 1.35),
            habitus=rng.normal(1.0, 0.09),
            breasts=rng.uniform(0.5, 1.1) if rng.random() < 0.45 else 0.0,
            bone=rng.uniform(0.75, 1.2),
            rib_slope=rng.uniform(0.8, 1.2),
        )

    def dome(self, side: int) -> float:
        return self.domes[side > 0]

    def height(self, fraction: float, side: int = -1) -> float:
        """y at a fraction of the way from the lung's apex to its dome."""
        return self.apex + fraction * (self.dome(side) - self.apex)

    def site(self, side: int, lateral: float, fraction: float) -> tuple[float, float]:
        """A point of a lung: `lateral` runs from the mediastinum (0) to the ribs (1)."""
        reach = np.interp(fraction, (0.0, 0.15, 0.3, 0.5, 0.8), (0.5, 0.78, 0.88, 0.95, 0.98))
        return side * self.half_width * (0.17 + lateral * (float(reach) - 0.17)), self.height(fraction, side)

    def wall(self, side: int) -> F64:
        """The lung's costal border, from the apex's medial foot to the costophrenic angle."""
        u = np.array([0.20, 0.35, 0.55, 0.73, 0.86, 0.945, 0.99, 1.0, 0.99])
        v = np.array([0.05, 0.0, 0.025, 0.12, 0.28, 0.48, 0.70, 0.88, 1.0])
        floor = self.dome(side) + self.recess
        return curve(np.stack([side * self.half_width * u, self.apex + v * (floor - self.apex)], 1))

    def lung(self, side: int) -> F64:
        floor, dome, width = self.recess, self.dome(side), side * self.half_width
        base = [(0.99, 1.0), (0.94, 0.68), (0.85, 0.37), (0.7, 0.11), (0.52, 0.0), (0.34, 0.06), (0.13, 0.35)]
        hilar = [(0.13, 0.97), (0.13, 0.75), (0.15, 0.5), (0.15, 0.35), (0.13, 0.22), (0.15, 0.12), (0.20, 0.05)]
        below = curve([(width * u, dome + floor * v) for u, v in base])
        medial = curve([(width * u + self.shift, self.height(v, side)) for u, v in hilar])
        return np.concatenate([self.wall(side), below, medial])

    def heart(self) -> F64:
        width = 2 * self.half_width * self.heart_ratio
        right = [(-0.12, -0.2), (-0.2, 0.15), (-0.285, 0.45), (-0.3, 0.7), (-0.24, 0.95), (0.0, 1.08), (0.3, 1.12)]
        left = [(0.56, 1.06), (0.69, 0.86), (0.67, 0.62), (0.53, 0.36), (0.36, 0.12), (0.25, -0.05), (0.14, -0.25)]
        top, bottom = self.height(0.5), self.height(1.0, 1)
        return curve([(self.shift + width * u, top + v * (bottom - top)) for u, v in [*right, *left, right[0]]])


@dataclass(frozen=True)
class Pose:
    """How one exposure was taken: position, breath, film, and what lies on the patient.

    turn          rotation in radians; `offset` and `collimation` are lengths, `zoom` a factor
    breath        how far the diaphragm is lower than after an ordinary breath
    exposure      attenuation at which the film is half black, above the usual; `contrast` is its slope there
    blur, noise   focal spot (a length), and quantum noise of a 256-pixel picture (attenuation)
    stomach       size of the gas bubble, 0 if there is none
    """

    image: int
    view: str
    turn: float
    offset: tuple[float, float]
    zoom: float
    breath: float
    exposure: float
    contrast: float
    blur: float
    noise: float
    stomach: float
    leads: bool
    tube: bool
    collimation: float

    @classmethod
    def of(cls, seed: int, image: int, view: str) -> Pose:
        rng = stream(seed, "pose", image)
        bedside = view == "AP"
        return cls(
            image=image,
            view=view,
            turn=math.radians(rng.normal(0.0, 3.0 if bedside else 1.6)),
            offset=(rng.normal(0.0, 0.016), rng.normal(0.0, 0.014)),
            zoom=rng.normal(1.03 if bedside else 0.99, 0.035),
            breath=rng.normal(-0.045 if bedside else 0.0, 0.014),
            exposure=rng.normal(0.0, 0.06),
            contrast=rng.normal(3.6 if bedside else 4.0, 0.3),
            blur=rng.uniform(0.001, 0.0026),
            noise=rng.uniform(0.012, 0.03),
            stomach=rng.uniform(0.5, 1.1) if rng.random() < 0.55 else 0.0,
            leads=bool(rng.random() < (0.5 if bedside else 0.04)),
            tube=bool(rng.random() < (0.35 if bedside else 0.03)),
            collimation=rng.uniform(0.01, 0.045) if rng.random() < 0.2 else 0.0,
        )


def curve(points: ArrayLike, steps: int = 10) -> F64:
    """Catmull-Rom splines through points, `[..., point, 2]`."""
    q = np.asarray(points, dtype=np.float64)
    p = np.concatenate([2 * q[..., :1, :] - q[..., 1:2, :], q, 2 * q[..., -1:, :] - q[..., -2:-1, :]], axis=-2)
    a, b, c, d = (p[..., k : p.shape[-2] - 3 + k, None, :] for k in range(4))
    t = np.arange(steps)[:, None] / steps
    path = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return np.concatenate([path.reshape(*q.shape[:-2], -1, 2), q[..., -1:, :]], axis=-2)


def ellipse(x: float, y: float, rx: float, ry: float) -> F64:
    angle = np.linspace(0, 2 * np.pi, 40)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1)


def soften(layer: F32, pixels: float) -> F32:
    """Gaussian blur; a wide one is done on a smaller picture, which looks the same."""
    if pixels < 5 or min(layer.shape) < 64:
        return np.asarray(cv2.GaussianBlur(layer, (0, 0), max(pixels, 0.3)), np.float32)
    small = cv2.resize(layer, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), pixels / 4)
    return np.asarray(cv2.resize(small, layer.shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


#: Lines to draw: their points, `[..., point, 2]`, their width, and their strength from 0 to 1.
Stroke = tuple[F64, float, float]


class Canvas:
    """The picture's pixel grid, and brushes that take coordinates of the chest frame."""

    def __init__(self, pose: Pose, size: int) -> None:
        self.size, self.zoom = size, size * pose.zoom
        cos, sin = math.cos(pose.turn), math.sin(pose.turn)
        self.linear = self.zoom * np.array([[cos, -sin], [sin, cos]])
        self.origin = size * (0.5 + np.array(pose.offset)) - self.linear @ np.array([0.0, 0.5])
        column = np.arange(size, dtype=np.float32) + np.float32(0.5 - self.origin[0])
        row = np.arange(size, dtype=np.float32)[:, None] + np.float32(0.5 - self.origin[1])
        inverse = np.linalg.inv(self.linear).astype(np.float32)
        self.x: F32 = inverse[0, 0] * column + inverse[0, 1] * row
        self.y: F32 = inverse[1, 0] * column + inverse[1, 1] * row

    def empty(self) -> F32:
        return np.zeros((self.size, self.size), np.float32)

    def pixels(self, points: F64, scale: int) -> NDArray[np.int32]:
        """Points in sixteenths of a pixel of a picture `scale` times as large."""
        placed = (points @ self.linear.T + self.origin - 0.5) * (16 * scale) + 0.5
        return np.asarray(placed, np.int32)

    def fill(self, *shapes: F64, blur: float = 0.003) -> F32:
        layer = np.zeros((self.size, self.size), np.uint8)
        for shape in shapes:
            cv2.fillPoly(layer, [self.pixels(shape, 1)], (255,), cv2.LINE_AA, 4)
        return soften(np.multiply(layer, np.float32(1 / 255)), blur * self.size)

    def stroke(self, strokes: Iterable[Stroke], blur: float = 0.0015) -> F32:
        """Lines, later ones over earlier ones; thinner than half a pixel, they fade instead."""
        layer = np.zeros((2 * self.size, 2 * self.size), np.uint8)
        for paths, width, strength in strokes:
            wanted = 2 * self.size * width
            level = 255 * strength * min(1.0, wanted)
            lines = self.pixels(paths, 2).reshape(-1, paths.shape[-2], 2)
            cv2.polylines(layer, list(lines), False, (level,), max(1, round(wanted)), cv2.LINE_8, 4)
        half = cv2.resize(layer, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return soften(np.multiply(half, np.float32(1 / 255)), blur * self.size)

    def blob(self, x: float, y: float, rx: float, ry: float, edge: float, wobble: F32 | None = None) -> F32:
        """1 inside an ellipse, 0 outside, over a rim of `edge` radii, its radius disturbed by `wobble`."""
        layer = self.empty()
        reach = max(rx, ry) * (1 + edge / 2 + (0.6 if wobble is not None else 0)) * self.zoom
        column, row = self.linear @ np.array([x, y]) + self.origin
        near = tuple(slice(max(0, int(at - reach)), max(0, int(at + reach) + 2)) for at in (row, column))
        radius = np.sqrt(((self.x[near] - x) / rx) ** 2 + ((self.y[near] - y) / ry) ** 2)
        if wobble is not None:
            radius += wobble[near]
        layer[near] = smooth((1 - radius) / edge)
        return layer

    def texture(self, rng: Generator, cells: int) -> F32:
        """Noise of unit variance, its grains 1 / `cells` of the picture across."""
        coarse = rng.standard_normal((cells, cells), dtype=np.float32)
        fine = cv2.resize(coarse, (self.size, self.size), interpolation=cv2.INTER_CUBIC)
        return np.asarray(fine, np.float32) * np.float32(1.4)


def smooth(value: NDArray[Any]) -> F32:
    """Smooth step from 0 (value <= -0.5) to 1 (value >= 0.5)."""
    t = np.clip(value + np.float32(0.5), 0, 1, dtype=np.float32)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def tree(
    rng: Generator, root: tuple[float, float], side: int, trunks: ArrayLike, widths: Sequence[float]
) -> list[Stroke]:
    """Branches that fan out of a hilum along the `trunks` angles (0 = lateral, positive = down).

    Every branch forks into two thinner and fainter ones, once for each of `widths` after the first.
    """
    angle = np.asarray(trunks) + rng.normal(0, 0.1, np.shape(trunks))
    tip = np.repeat(np.array([root]), len(angle), 0)
    strokes: list[Stroke] = []
    for level, width in enumerate(widths):
        length = (0.095, 0.085, 0.072, 0.06, 0.05)[level] * rng.uniform(0.65, 1.3, (len(angle), 1))
        bend = angle + rng.normal(0, 0.22, len(angle))
        half = tip + 0.5 * length * np.stack([side * np.cos(angle), np.sin(angle)], 1)
        end = half + 0.5 * length * np.stack([side * np.cos(bend), np.sin(bend)], 1)
        strokes.append((np.stack([tip, half, end], 1), width, (1.0, 0.8, 0.6, 0.45, 0.35)[level]))
        spread = rng.uniform(0.08, 0.45, (2, len(angle)))
        angle, tip = np.concatenate([bend - spread[0], bend + spread[1]]), np.concatenate([end, end])
    return strokes[::-1]


def vessels(canvas: Canvas, chest: Chest) -> F32:
    """Arteries and veins, thicker and brighter near the hila, on the haze of those too small to see."""
    rng = stream(chest.seed, "vessels", chest.patient)
    strokes: list[Stroke] = []
    for side in SIDES:
        root = (side * 0.065 + chest.shift, chest.height(0.47 if side < 0 else 0.44))
        angles = np.array([-1.5, -1.0, -0.5, 0.05, 0.5, 0.85, 1.15, 1.4]) + rng.normal(0, 0.06)
        strokes += tree(rng, root, side, angles, [w * chest.perfusion**0.5 for w in (0.016, 0.011, 0.0075, 0.0055)])
    strokes.sort(key=lambda stroke: stroke[2])
    lines = canvas.stroke(strokes, 0.0022)
    fade = np.exp(-np.maximum(np.abs(canvas.x) - 0.06, 0) * 6.5)
    haze = 0.05 * canvas.texture(rng, 40) + 0.06 * canvas.texture(rng, 7)
    return np.asarray(chest.perfusion * (lines * (0.22 + 0.78 * fade) + haze), np.float32)


def ribs(canvas: Canvas, chest: Chest) -> F32:
    """Posterior arcs with bright cortex, and the fainter anterior ends that cross them."""
    back = np.array([(0.09, 0.006), (0.2, -0.012), (0.4, -0.02), (0.64, 0.0), (0.86, 0.048), (1.01, 0.12)])
    front = np.array([(1.01, 0.0), (0.93, 0.06), (0.75, 0.115), (0.52, 0.15)])
    pitch = (chest.domes[0] - chest.apex + 0.08) / 9.0
    number = np.arange(11)
    reach = chest.half_width * np.interp(number, (0, 1, 2, 3, 5), (0.60, 0.77, 0.88, 0.94, 1.0))
    frame = np.stack([np.outer(SIDES, reach), np.full((2, 11), chest.rib_slope)], 2)[:, :, None]
    place = np.stack([np.zeros(11), chest.apex + pitch * number], 1)[:, None]
    posterior = curve(back * frame + place, 5)
    anterior = curve(front * frame + place + (0, 0.12 * chest.rib_slope), 5)[:, 1:7]
    width = 0.3 * pitch
    rear = canvas.stroke([(posterior, width, 1.0), (posterior, width * 0.5, 0.66)], 0.0028)
    fore = canvas.stroke([(anterior, width * 1.2, 0.9), (anterior, width * 0.7, 0.7)], 0.0035)
    medial = smooth((np.abs(canvas.x) - 0.05) / 0.08)
    return np.asarray(chest.bone * (0.17 * rear + 0.1 * fore) * (0.25 + 0.75 * medial), np.float32)


def shoulder_girdle(canvas: Canvas, chest: Chest, view: str) -> F32:
    """Clavicles and shoulder blades; a bedside film shows the ones higher, the others over the lungs."""
    raised, inward = (0.045, 0.1) if view == "AP" else (0.0, 0.015)
    mirror = np.array(SIDES)[:, None, None] * (1, 0) + (0, 1)
    clavicle = np.array([(0.03, 0.08), (0.09, 0.06), (0.18, 0.03), (0.28, 0.022), (0.36, 0.012), (0.45, -0.02)])
    blade = np.array([(0.42, 0.0), (0.36, 0.06), (0.35, 0.16), (0.375, 0.27), (0.4, 0.3), (0.44, 0.2), (0.5, 0.06)])
    blade -= inward * np.array([(0.3, 0), (0.7, 0), (1, 0), (1, 0), (1, 0), (0.6, 0), (0, 0)])
    bars = curve(mirror * clavicle + (0, chest.apex - raised))
    blades = curve(mirror * blade + (0, chest.apex))
    collar = canvas.stroke([(bars, 0.027, 1.0), (bars, 0.014, 0.7)], 0.0025)
    flat = canvas.fill(*blades, blur=0.007)
    rim = canvas.stroke([(blades[:, 10:40], 0.008, 1.0)], 0.003)
    return np.asarray(chest.bone * (0.19 * collar + 0.07 * flat + 0.05 * rim), np.float32)


def spine(canvas: Canvas, chest: Chest) -> F32:
    """Vertebral bodies with darker discs between them, and the spinous processes in the middle."""
    column = smooth((0.04 - np.abs(canvas.x)) / 0.022)
    body = smooth(0.35 + np.cos(canvas.y * np.float32(2 * np.pi / 0.062)))
    process = smooth((0.007 - np.abs(canvas.x)) / 0.012)
    return np.asarray(chest.bone * column * (0.07 + 0.06 * body + 0.04 * process), np.float32)


def torso(canvas: Canvas, chest: Chest) -> F32:
    """Soft tissue around and under the lungs: thickest at the spine and in the abdomen."""
    wide = chest.half_width + 0.07 * chest.habitus**2
    arm = [(0.1, -0.3), (0.11, -0.05), (0.17, 0.0), (0.33, 0.025), (0.6, 0.09), (0.75, 0.3), (0.6, 0.45)]
    flank = [(wide + 0.055, 0.36), (wide + 0.015, 0.43), (wide, 0.55), (wide, 0.8), (wide + 0.03, 1.2)]
    right = curve(np.array(arm + flank) * (-1, 1) + (0, chest.apex - 0.095), 6)
    skin = canvas.fill(np.concatenate([right, right[::-1] * (-1, 1)]), blur=0.005)
    depth = skin * (0.32 + 0.68 * soften(skin, 0.09 * canvas.size))
    abdomen = smooth((canvas.y - np.float32(min(chest.domes) + 0.05)) / 0.25)
    neck = smooth((0.1 - canvas.y) / 0.25)
    tissue = depth * (0.93 + 0.12 * abdomen - 0.2 * neck)
    for side in SIDES:
        tissue += 0.06 * canvas.blob(side * 0.3, chest.height(0.35), 0.19, 0.2, 0.5)
        if chest.breasts:
            radius, middle = 0.17 * chest.breasts, chest.height(0.78)
            fading = smooth((canvas.y - middle) / (1.8 * radius)) * smooth((side * canvas.x - 0.16) / 0.2)
            tissue += 0.16 * chest.breasts * fading * canvas.blob(side * 0.24, middle, radius, radius, 0.3)
    return np.asarray(chest.habitus * tissue, np.float32)


def airway(canvas: Canvas, chest: Chest) -> F32:
    """Trachea and main bronchi: 1 where there is air."""
    carina, middle = chest.height(0.36), chest.shift - 0.006
    pipe = np.array([(0.0, -0.2), (middle, 0.5 * carina), (middle, carina)])
    fork = np.array([(0.0, -0.005), (0.028, 0.03), (0.065, 0.055)])
    bronchi = curve(fork * (np.array(SIDES)[:, None, None] * (1, 0) + (0, 1)) + (middle, carina))
    return canvas.stroke([(bronchi, 0.018, 0.6), (pipe, 0.034, 1.0)], 0.005)


def devices(canvas: Canvas, chest: Chest, pose: Pose) -> F32:
    """Leads and tubes: they lie on the sick, but here they say nothing about the findings."""
    rng = stream(chest.seed, "devices", pose.image)
    strokes: list[Stroke] = []
    for side in SIDES if pose.leads else ():
        x, y = side * rng.uniform(0.16, 0.3), rng.uniform(0.22, 0.62)
        wire = np.array([(0, 0), (0.03, 0.02), (0.07, 0.12), (0.13, 0.3), (0.12, 0.8)]) * (side, 1) + (x, y)
        strokes += [(curve(wire), 0.0045, 0.5), (ellipse(x, y, 0.009, 0.009), 0.006, 0.6)]
    if pose.tube:
        x = rng.uniform(-0.012, 0.004)
        strokes.append((np.array([(x, -0.1), (x, chest.height(0.28))]), 0.009, 0.4))
        line = [(-0.16, -0.05), (-0.12, 0.1), (-0.055, chest.height(0.22)), (-0.05, chest.height(0.5))]
        strokes.append((curve(line), 0.005, 0.5))
    return canvas.stroke(strokes, 0.001) if strokes else canvas.empty()


def stomach(canvas: Canvas, chest: Chest, pose: Pose) -> F32:
    """The gas bubble under the left dome: 1 where there is gas."""
    if not pose.stomach:
        return canvas.empty()
    height = 0.042 * pose.stomach
    return canvas.blob(0.16, chest.dome(1) + 0.025 + height, 0.07 * pose.stomach, height, 0.6)


def mediastinum(canvas: Canvas, chest: Chest) -> F32:
    """The share of the lungs' depth that heart, aorta, great vessels and hila take in their middle."""
    heart = canvas.fill(chest.heart(), blur=0.005)
    knob, shift = chest.height(0.29), chest.shift
    arch = ellipse(shift + 0.03 + 0.015 * chest.aorta, knob, 0.04 * chest.aorta, 0.044 * chest.aorta)
    top, below = chest.apex - 0.05, chest.height(0.56)
    great = [(-0.07, top), (0.05, top), (0.06, knob), (0.085, chest.height(0.45)), (0.09, below), (-0.08, below)]
    trunk = canvas.fill(curve([(shift + x, y) for x, y in (*great, (-0.065, knob))]), blur=0.005)
    arch_shadow = canvas.fill(arch, blur=0.004)
    descending = curve([(shift + 0.055, knob), (shift + 0.065, chest.height(0.5)), (0.05, chest.height(1.0))])
    aorta = canvas.stroke([(descending, 0.045, 1.0)], 0.005)
    free = (1 - 0.92 * heart) * (1 - 0.75 * trunk) * (1 - 0.85 * arch_shadow) * (1 - 0.35 * aorta)
    for side in SIDES:
        free *= 1 - 0.45 * canvas.blob(
            side * 0.085 + shift, chest.height(0.485 if side < 0 else 0.45), 0.035, 0.065, 1.2
        )
    return np.asarray(1 - free, np.float32)


def expose(attenuation: F32, chest: Chest, pose: Pose) -> NDArray[np.uint8]:
    """Blur, quantum noise, film curve, collimator.

    Fewer quanta pass where it is dense, and fewer reach a smaller pixel: both have more noise.
    """
    rng, size = stream(chest.seed, "grain", pose.image), len(attenuation)
    density = soften(attenuation, pose.blur * size)
    quanta = rng.standard_normal(density.shape, dtype=np.float32)
    density += pose.noise * (size / 256) * np.exp(0.7 * density) * soften(quanta, 0.6)
    gray = 255 / (1 + np.exp(-pose.contrast * (density - np.float32(0.6 + pose.exposure))))
    if pose.collimation:
        edge = max(1, round(pose.collimation * size))
        gray[:, :edge] *= 0.1
        gray[-edge:, :] *= 0.1
    return np.asarray(gray, np.uint8)

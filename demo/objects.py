"""Road users built from upright cuboids, with parts that tell the front from the rear.

Object frame: x forward, y left, z up, origin on the ground below the center of the box. All lengths in meters.
A box alone looks the same from both ends, and a detector trained on boxes never learns a heading. So every class has
a geometric asymmetry (cabin behind the hood, cab in front of the load, backpack) and, on vehicles, a bright
plate and red lamps at the rear that show in intensity and in the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from demo.draws import Draws

CLASSES = ("car", "truck", "bus", "bicycle", "pedestrian")

# Parts keep this distance to the sides and the top of the annotated box: three standard deviations of the lidar's range
# noise, so that noisy returns stay inside the box, as they do in hand-made labels that are drawn with some slack.
BOX_MARGIN = 0.06

# l, w, h: least and greatest [m].
SIZE_RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "car": ((4.0, 4.9), (1.70, 1.95), (1.40, 1.75)),
    "truck": ((6.0, 9.5), (2.2, 2.5), (2.6, 3.6)),
    "bus": ((9.5, 12.0), (2.45, 2.6), (2.9, 3.3)),
    "bicycle": ((1.60, 1.85), (0.60, 0.75), (1.60, 1.85)),
    "pedestrian": ((0.70, 0.90), (0.60, 0.75), (1.50, 1.85)),
}

Color = tuple[int, int, int]

RED_LAMP: Color = (210, 20, 25)
WHITE_LAMP: Color = (250, 245, 220)
PLATE: Color = (235, 240, 235)
GLASS: Color = (40, 50, 60)
TIRE: Color = (30, 30, 32)
SKIN_AND_HAIR: Color = (150, 110, 90)


@dataclass(frozen=True)
class Part:
    """One upright cuboid of an object, in the object frame."""

    x: tuple[float, float]  # from rear to front [m]
    y: tuple[float, float]  # from right to left [m]
    z: tuple[float, float]  # from bottom to top [m]
    reflectivity: float  # 0..255, intensity of a perpendicular hit at zero distance
    color: Color


@dataclass(frozen=True)
class Solids:
    """Many upright cuboids, one row each, in one frame.

    centers (n, 3) float64 [m]; sizes (n, 3) float64 [m] along the cuboid's own axes; yaws (n,) float64 [rad], ccw from
    +x; reflectivity (n,) float64 0..255; colors (n, 3) uint8 RGB; owners (n,) int64, row of the object, -1 = clutter.
    """

    centers: NDArray[np.float64]
    sizes: NDArray[np.float64]
    yaws: NDArray[np.float64]
    reflectivity: NDArray[np.float64]
    colors: NDArray[np.uint8]
    owners: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.yaws)

    def select(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> Solids:
        """Return the rows that a mask or an index names."""
        return Solids(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def concatenate(groups: list[Solids]) -> Solids:
    """Join groups of solids of one frame, in order."""
    return Solids(**{f.name: np.concatenate([getattr(group, f.name) for group in groups]) for f in fields(Solids)})


def solids_of(parts: list[Part], owner: int) -> Solids:
    """Put the parts of one object into rows, in the object frame."""
    bounds = np.array([(p.x, p.y, p.z) for p in parts], dtype=np.float64).reshape(-1, 3, 2)
    return Solids(
        centers=(bounds[:, :, 0] + bounds[:, :, 1]) / 2,
        sizes=bounds[:, :, 1] - bounds[:, :, 0],
        yaws=np.zeros(len(parts)),
        reflectivity=np.array([p.reflectivity for p in parts], dtype=np.float64),
        colors=np.array([p.color for p in parts], dtype=np.uint8).reshape(-1, 3),
        owners=np.full(len(parts), owner, dtype=np.int64),
    )


def draw_size(kind: str, rng: Draws) -> NDArray[np.float64]:
    """Draw l, w, h of one object of a class, (3,) [m]."""
    return np.array([rng.uniform(low, high) for low, high in SIZE_RANGES[kind]])


def build_parts(kind: str, size: NDArray[np.float64], rng: Draws) -> list[Part]:
    """Build one object of class `kind` inside its box of `size` (l, w, h)."""
    length, width, height = (float(v) for v in size - np.array([2, 2, 1]) * BOX_MARGIN)
    return _BUILDERS[kind](length, width, height, rng)


def _centered(middle: float, extent: float) -> tuple[float, float]:
    return middle - extent / 2, middle + extent / 2


def _paint(rng: Draws) -> tuple[float, Color]:
    """Draw a coat of paint: reflectivity and color, dark coats reflecting less."""
    tone = rng.uniform(0.15, 1.0)
    tint = rng.uniforms(0.75, 1.0, (3,))
    color = (int(235 * tone * tint[0]), int(235 * tone * tint[1]), int(235 * tone * tint[2]))
    return 25.0 + 95.0 * float(tone), color


def _rear_and_front_marks(length: float, width: float, lamp_z: tuple[float, float]) -> list[Part]:
    """Lamps and number plate as thin plates just outside the bodywork (within the box margin)."""
    thin = BOX_MARGIN / 3
    rear, front = (-length / 2 - thin, -length / 2), (length / 2, length / 2 + thin)
    plate_z = (lamp_z[0] - 0.16, lamp_z[0])
    return [
        Part(rear, _centered(0.0, 0.94 * width), lamp_z, 150.0, RED_LAMP),
        Part(rear, _centered(0.0, 0.5), plate_z, 255.0, PLATE),
        Part(front, _centered(0.0, 0.9 * width), lamp_z, 60.0, WHITE_LAMP),
    ]


def _car(length: float, width: float, height: float, rng: Draws) -> list[Part]:
    reflectivity, color = _paint(rng)
    waist = 0.56 * height
    cabin_front = rng.uniform(0.10, 0.20) * length
    cabin_rear = -rng.uniform(0.44, 0.49) * length
    body = Part(_centered(0.0, length), _centered(0.0, width), (0.2, waist), reflectivity, color)
    cabin = Part((cabin_rear, cabin_front), _centered(0.0, 0.86 * width), (waist, height), 30.0, GLASS)
    roof = Part(
        (cabin_rear + 0.2, cabin_front - 0.3), _centered(0.0, 0.8 * width), (height, height + 0.02), 50.0, color
    )
    return [body, cabin, roof, *_rear_and_front_marks(length, width, (0.42 * height, 0.52 * height))]


def _truck(length: float, width: float, height: float, rng: Draws) -> list[Part]:
    reflectivity, color = _paint(rng)
    load_reflectivity, load_color = _paint(rng)
    half = length / 2
    cab_rear = half - rng.uniform(1.7, 2.1)
    cab_top = 0.72 * height
    return [
        Part((cab_rear, half), _centered(0.0, 0.95 * width), (0.35, cab_top), reflectivity, color),
        Part((half - 0.1, half + 0.01), _centered(0.0, 0.8 * width), (0.42 * height, 0.68 * height), 20.0, GLASS),
        Part((-half, cab_rear - 0.35), _centered(0.0, width), (1.0, height), load_reflectivity, load_color),
        Part((-half + 0.3, cab_rear), _centered(0.0, 0.7 * width), (0.3, 1.0), 25.0, TIRE),
        *_rear_and_front_marks(length, width, (0.95, 1.15)),
    ]


def _bus(length: float, width: float, height: float, rng: Draws) -> list[Part]:
    reflectivity, color = _paint(rng)
    half = length / 2
    roof = height - 0.28
    nose = half - 0.55
    return [
        Part((-half, nose), _centered(0.0, width), (0.3, roof), reflectivity, color),
        Part((nose, half), _centered(0.0, width), (0.3, 1.15), reflectivity, color),
        Part((nose, nose + 0.05), _centered(0.0, 0.9 * width), (1.15, roof - 0.3), 15.0, GLASS),
        Part((-half + 0.4, -half + 0.35 * length), _centered(0.0, 0.7 * width), (roof, height), 60.0, (200, 200, 205)),
        *_rear_and_front_marks(length, width, (0.75, 1.0)),
    ]


def _bicycle(length: float, width: float, height: float, rng: Draws) -> list[Part]:
    reflectivity, color = _paint(rng)
    half = length / 2
    return [
        Part((-half, half), _centered(0.0, 0.10), (0.05, 0.72), 45.0, TIRE),
        Part((0.26 * length, 0.26 * length + 0.1), _centered(0.0, width), (0.72, 1.05), 60.0, (90, 90, 95)),
        Part((-0.30 * length, 0.0), _centered(0.0, 0.40), (0.5, 1.15), reflectivity, color),
        Part((-0.16 * length, 0.12 * length), _centered(0.0, 0.42), (1.15, height), reflectivity, color),
        Part((-half - 0.02, -half), _centered(0.0, 0.14), (0.45, 0.6), 220.0, RED_LAMP),
    ]


def _pedestrian(length: float, width: float, height: float, rng: Draws) -> list[Part]:
    reflectivity, color = _paint(rng)
    hip = 0.47 * height
    half = length / 2
    return [
        Part(_centered(0.02, 0.55 * length), _centered(0.0, 0.5 * width), (0.0, hip), 40.0, (45, 50, 80)),
        Part((-0.12, half), _centered(0.0, 0.95 * width), (hip, 0.85 * height), reflectivity, color),
        Part((-0.05, 0.15), _centered(0.0, 0.22), (0.85 * height, height), 50.0, SKIN_AND_HAIR),
        Part((-half, -0.12), _centered(0.0, 0.5 * width), (0.56 * height, 0.84 * height), 190.0, (230, 150, 30)),
    ]


_BUILDERS: dict[str, Callable[[float, float, float, Draws], list[Part]]] = {
    "car": _car,
    "truck": _truck,
    "bus": _bus,
    "bicycle": _bicycle,
    "pedestrian": _pedestrian,
}

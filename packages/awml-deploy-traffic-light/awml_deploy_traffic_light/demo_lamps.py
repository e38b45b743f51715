"""Traffic lights, painted: the housings, lamps, arrows and figures that a class name says are lit.

A class names what is lit, lamp by lamp: ``red``, ``left,red``, ``crosswalk_green``; ``unknown`` is a light whose lamps
are off, or that is turned away.
"""

from __future__ import annotations

import cv2
import numpy as np

from shared.arrays import Float32, Float64, UInt8

CAR_CLASSES = (
    "green", "left,red", "left,red,straight", "red", "red,right", "red,straight", "unknown", "yellow", "red,up_left",
    "red,right,straight", "red,up_right",
)  # fmt: skip
PEDESTRIAN_CLASSES = ("crosswalk_red", "crosswalk_green", "crosswalk_unknown")

# Lamps from left to right where the light is horizontal, blue, green, red.
_COLORS = {"green": (160, 220, 40), "yellow": (30, 190, 250), "red": (40, 40, 250)}
_DIRECTIONS = {"right": 0.0, "up_right": 45.0, "straight": 90.0, "up_left": 135.0, "left": 180.0}
# A lamp, painted; lights are scaled down from it, which smooths their edges.
_CELL = 48
_RADIUS = 18
_AWAY = 0.3  # share of the unknown lights that are turned away


def painted_light(label: str, rng: np.random.Generator) -> UInt8:
    """A light and nothing around it: (h, w, 3) uint8, blue, green, red; a lamp is 48 pixels wide."""
    housing = rng.uniform(15, 75) * np.array([1.0, 1.0, 1.0]) + rng.uniform(-6, 6, 3)
    if label.endswith("unknown") and rng.random() < _AWAY:
        rows, columns = (1, 3) if label == "unknown" else (2, 1)
        light = np.tile(np.asarray(housing, np.float32), (rows * _CELL, columns * _CELL, 1))
        return _as_bytes(light)
    if label.startswith("crosswalk"):
        return _pedestrian_light(label.removeprefix("crosswalk_"), housing, rng)
    return _car_light(set(label.split(",")), housing, rng)


def _car_light(lit: set[str], housing: Float64, rng: np.random.Generator) -> UInt8:
    """Three lamps in a row; below them, or beside them, arrows where there are any, lit or not."""
    arrows = sorted(lit & set(_DIRECTIONS))
    lamps = [_disc(_COLORS[color], color in lit, housing, rng) for color in _COLORS]
    is_vertical = rng.random() < 0.4
    if not arrows and rng.random() < 0.5:
        return _as_bytes(np.concatenate(lamps[::-1] if is_vertical else lamps, axis=0 if is_vertical else 1))
    # Where each arrow is in its row; diagonal ones take the place of the one straight ahead.
    places = {"left": 0, "up_left": 1, "straight": 1, "up_right": 1, "right": 2}
    row = [_disc((0, 0, 0), False, housing, rng) for _ in range(3)]
    for name in arrows:
        row[places[name]] = _arrow(_DIRECTIONS[name], housing, rng)
    if is_vertical:
        sides = (np.concatenate(lamps[::-1], axis=0), np.concatenate(row, axis=0))
        return _as_bytes(np.concatenate(sides, axis=1))
    return _as_bytes(np.concatenate((np.concatenate(lamps, axis=1), np.concatenate(row, axis=1)), axis=0))


def _pedestrian_light(color: str, housing: Float64, rng: np.random.Generator) -> UInt8:
    """A standing figure above a walking one."""
    figures = [_figure("red", color == "red", housing, rng), _figure("green", color == "green", housing, rng)]
    return _as_bytes(np.concatenate(figures, axis=0))


def _disc(color: tuple[int, int, int], is_lit: bool, housing: Float64, rng: np.random.Generator) -> Float32:
    mask = np.zeros((_CELL, _CELL), np.float32)
    cv2.circle(mask, (_CELL // 2, _CELL // 2), _RADIUS, 1.0, -1, cv2.LINE_AA)
    return _lamp(mask, color, is_lit, housing, rng)


def _arrow(degrees: float, housing: Float64, rng: np.random.Generator) -> Float32:
    """A green arrow on black, its direction counter-clockwise from the right."""
    shape = np.array([[-15, -4], [2, -4], [2, -13], [16, 0], [2, 13], [2, 4], [-15, 4]], np.float64)
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [-np.sin(angle), -np.cos(angle)]])
    mask = np.zeros((_CELL, _CELL), np.float32)
    cv2.fillPoly(mask, [np.rint(shape @ turn.T + _CELL / 2).astype(np.int32)], 1.0, cv2.LINE_AA)
    return _lamp(mask, _COLORS["green"], True, housing * 0.4, rng)


def _figure(color: str, is_lit: bool, housing: Float64, rng: np.random.Generator) -> Float32:
    """A person: red stands, green walks."""
    mask = np.zeros((_CELL, _CELL), np.float32)
    cv2.circle(mask, (24, 10), 5, 1.0, -1, cv2.LINE_AA)
    feet = ((20, 44), (28, 44)) if color == "red" else ((13, 43), (35, 43))
    cv2.rectangle(mask, (20, 16), (28, 30), 1.0, -1)
    for hip, foot in zip(((22, 28), (26, 28)), feet, strict=True):
        cv2.line(mask, hip, foot, 1.0, 5, cv2.LINE_AA)
    return _lamp(mask, _COLORS[color], is_lit, housing, rng)


def _lamp(
    mask: Float32, color: tuple[int, int, int], is_lit: bool, housing: Float64, rng: np.random.Generator
) -> Float32:
    """(48, 48, 3) a lamp in its housing: shining over its edge where it is lit, dark glass where it is not."""
    cell = np.tile(np.asarray(housing, np.float32), (_CELL, _CELL, 1))
    shade = np.asarray(color, np.float32) if is_lit else housing * 0.5 + 0.08 * np.asarray(color, np.float32)
    if is_lit:
        shade = shade * rng.uniform(0.75, 1.0) + rng.uniform(0, 40)
        glow = cv2.GaussianBlur(mask, (0, 0), 6)[..., None] * rng.uniform(0.1, 0.6)
        cell = cell + glow * shade
    return np.asarray(cell * (1 - mask[..., None]) + mask[..., None] * shade, np.float32)


def _as_bytes(light: Float32) -> UInt8:
    return np.clip(light, 0, 255).astype(np.uint8)

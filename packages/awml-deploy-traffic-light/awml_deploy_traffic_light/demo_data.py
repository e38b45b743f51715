"""The demo's data: camera images with the lights of cars and pedestrians, labeled in the form that AWML's tools write.

``images/<frame>.png`` and ``info/tlr_infos_<split>.json``. Seed, split and number of a frame decide what it shows.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from awml_deploy_traffic_light.demo_lamps import CAR_CLASSES, PEDESTRIAN_CLASSES, painted_light
from shared.arrays import UInt8

CLASSES = (*CAR_CLASSES, *PEDESTRIAN_CLASSES)
WIDTH, HEIGHT = 640, 360
# Lights stand in the cells of a grid, so that none covers another: two rows of cars' and one of pedestrians'.
_CELL_WIDTH, _CELL_HEIGHT = 160, 120
_CAR_LIGHTS, _PEDESTRIAN_LIGHTS = 8, 4
# Heights of a lamp [px], blur of the camera [px], its noise [0-255], and how far a detector's box is off, of the light.
_LAMP = (9.0, 26.0)
_BLUR = (0.2, 1.4)
_NOISE = (1.0, 9.0)
_BOX_ERROR = 0.07

Box = tuple[float, float, float, float]


def write(folder: Path, split: str, frames: int, seed: int) -> None:
    """Write a data set.

    Args:
        folder: an empty one.
        split: other splits show other lights.
        frames: images, of 8 lights of cars and 4 of pedestrians each.
        seed: decides all of them.
    """
    (folder / "images").mkdir()
    (folder / "info").mkdir()
    entries: list[dict[str, Any]] = []
    for number in range(frames):
        image, boxes, labels = frame(seed, split, number)
        path = f"images/{number:05d}.png"
        cv2.imwrite(str(folder / path), image)
        instances = [
            {"bbox": list(box), "bbox_label": label, "mask": [], "extra_anns": [], "ignore_flag": 0}
            for box, label in zip(boxes, labels, strict=True)
        ]
        entries.append({"img_id": number, "img_path": path, "width": WIDTH, "height": HEIGHT, "instances": instances})
    info = {
        "metainfo": {"dataset_type": "tlr", "task_name": "detection_task", "classes": list(CLASSES)},
        "data_list": entries,
    }
    (folder / "info" / f"tlr_infos_{split}.json").write_text(json.dumps(info) + "\n", encoding="utf-8")


def frame(seed: int, split: str, number: int) -> tuple[UInt8, list[Box], list[int]]:
    """An image with lights: (360, 640, 3) uint8 pixels, blue, green, red; boxes [px]; labels, of `CLASSES`."""
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), number])
    image = _street(rng)
    boxes, labels = [], []
    first = rng.integers(len(CAR_CLASSES))
    for place in range(_CAR_LIGHTS + _PEDESTRIAN_LIGHTS):
        if place < _CAR_LIGHTS:
            label = int((first + place) % len(CAR_CLASSES))  # all classes alike often
        else:
            label = len(CAR_CLASSES) + int(rng.integers(len(PEDESTRIAN_CLASSES)))
        left, top = place % 4 * _CELL_WIDTH, place // 4 * _CELL_HEIGHT
        boxes.append(_put(painted_light(CLASSES[label], rng), image, left, top, rng))
        labels.append(label)
    blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(*_BLUR))
    gain = rng.uniform(0.5, 1.25) * rng.uniform(0.92, 1.08, 3)
    noisy = blurred * gain + rng.normal(0, rng.uniform(*_NOISE), image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), boxes, labels


def _street(rng: np.random.Generator) -> UInt8:
    """Sky, and blocks of any color before it."""
    sky, ground = rng.uniform(60, 240, 3), rng.uniform(20, 120, 3)
    share = np.linspace(0, 1, HEIGHT)[:, None, None]
    column = (sky * (1 - share) + ground * share).astype(np.uint8)
    image = np.tile(column, (1, WIDTH, 1))
    for _ in range(14):
        left, top = int(rng.integers(WIDTH)), int(rng.integers(HEIGHT))
        corner = left + int(rng.integers(20, 200)), top + int(rng.integers(20, 160))
        cv2.rectangle(image, (left, top), corner, rng.uniform(10, 220, 3).tolist(), -1)
    return image


def _put(light: UInt8, image: UInt8, left: int, top: int, rng: np.random.Generator) -> Box:
    """Scale a light, put it somewhere in its cell; returns the box that a detector would give."""
    scale = rng.uniform(*_LAMP) / 48
    scale = min(scale, 0.8 * _CELL_WIDTH / light.shape[1], 0.8 * _CELL_HEIGHT / light.shape[0])
    width, height = max(4, round(light.shape[1] * scale)), max(4, round(light.shape[0] * scale))
    small = cv2.resize(light, (width, height), interpolation=cv2.INTER_AREA)
    x = left + int(rng.integers(4, _CELL_WIDTH - width - 4))
    y = top + int(rng.integers(4, _CELL_HEIGHT - height - 4))
    image[y : y + height, x : x + width] = small
    off = rng.uniform(-_BOX_ERROR, _BOX_ERROR, 4) * [width, height, width, height]
    box = np.array([x, y, x + width, y + height]) + off
    edges = np.clip(box, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT]).round(2)
    return float(edges[0]), float(edges[1]), float(edges[2]), float(edges[3])

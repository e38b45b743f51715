"""2D boxes as COCO's annotations and results.

Ground truth: ``{"images": [{id}], "categories": [{id, name}], "annotations": [{image_id, category_id, bbox, area,
iscrowd}]}``; predictions: ``[{image_id, category_id, bbox, score}]``. A box is left, top, width, height in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluator.metrics import detection2d
from evaluator.score import Results, needed_truth, refuse_options_of_boxes
from shared.arrays import Float64, Int64
from shared.data.types import ImageLabels
from shared.errors import InputError, UsageError
from shared.json_reader import DATA_BYTES, read_json
from shared.metrics import voc
from shared.table import Table
from shared.tasks.detection2d import Boxes2D


def score(results: Results) -> tuple[dict[str, Any], list[Table]]:
    """See `evaluator.score.Score`."""
    refuse_options_of_boxes(results)
    truth_file, predictions_file = needed_truth(results), results.predictions
    content = read_json(truth_file, most_bytes=DATA_BYTES, allow_nan=True)
    if not isinstance(content, Mapping) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise InputError(
            "is not a COCO annotation file", where=str(truth_file), hint="it has images, annotations and categories"
        )
    images = [_integer(image, "id", f"{truth_file}: images[{row}]") for row, image in enumerate(content["images"])]
    if not images:
        raise InputError("lists no images", where=str(truth_file), hint="was it made for another split?")
    names = _categories(content["categories"], truth_file)
    classes = _classes(results.classes, names)
    boxes = read_json(predictions_file, most_bytes=DATA_BYTES, allow_nan=True)
    if not isinstance(boxes, list):
        raise InputError(
            "is not a COCO results file", where=str(predictions_file), hint="it is a list of boxes with scores"
        )
    truths = _truths(content["annotations"], images, names, classes, f"{truth_file}: annotations")
    predictions = _predictions(boxes, images, names, classes, str(predictions_file))
    truth = detection2d.Truth(
        images=truths,
        positions=list(range(len(images))),
        tokens=[str(image) for image in images],
        scenes=[str(image) for image in images],
        num_samples=len(images),
    )
    matched = detection2d.Matched(truth, classes, predictions, voc.match(predictions, truths, len(classes)))
    result = detection2d.evaluate(matched)
    return result, detection2d.tables(result)


def _integer(row: Any, key: str, where: str) -> int:
    value = row.get(key) if isinstance(row, Mapping) else None
    if not isinstance(value, int):
        raise InputError(f"{key} is {value!r}, not a whole number", where=where)
    return value


def _categories(rows: Sequence[Any], path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for index, row in enumerate(rows):
        where = f"{path}: categories[{index}]"
        number = _integer(row, "id", where)
        if number in names or not isinstance(row.get("name"), str):
            raise InputError("has no name, or an id that repeats", where=where)
        names[number] = row["name"]
    if not names:
        raise InputError("lists no categories", where=str(path))
    return names


def _classes(classes: Sequence[str], names: Mapping[int, str]) -> list[str]:
    """The classes that are asked for, in their order; all categories where none is."""
    known = [names[number] for number in sorted(names)]
    unknown = [name for name in classes if name not in known]
    if unknown:
        raise UsageError(
            f"there is no category '{unknown[0]}'", where="--classes", hint=f"there are: {', '.join(known)}"
        )
    if len(set(classes)) != len(classes):
        raise UsageError(f"class names repeat: {', '.join(classes)}", where="--classes")
    return list(classes) or known


def _rows(
    rows: Sequence[Any], images: Sequence[int], names: Mapping[int, str], classes: Sequence[str], where: str
) -> tuple[list[Mapping[str, Any]], Int64, Int64, Float64]:
    """Boxes of the wanted classes: the rows, (N,) position of their image, (N,) label, and (N, 4) corners."""
    place = {image: position for position, image in enumerate(images)}
    label = {number: classes.index(name) for number, name in names.items() if name in classes}
    kept, frames, labels, boxes = [], [], [], []
    for index, row in enumerate(rows):
        here = f"{where}[{index}]"
        image, category = _integer(row, "image_id", here), _integer(row, "category_id", here)
        if image not in place:
            raise InputError(f"image {image} is not among those of the ground truth", where=here)
        if category not in names:
            raise InputError(f"category {category} is not among those of the ground truth", where=here)
        box = row.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, (int, float)) for value in box):
            raise InputError(f"bbox is {box!r}, not left, top, width, height", where=here)
        if not all(math.isfinite(value) for value in box):
            raise InputError("a box is NaN or infinite", where=here)
        if min(box[2:]) <= 0:
            raise InputError(f"a box of {box[2]:g} x {box[3]:g} pixels has no size", where=here, hint="leave it out")
        if category in label:
            kept.append(row)
            frames.append(place[image])
            labels.append(label[category])
            boxes.append((box[0], box[1], box[0] + box[2], box[1] + box[3]))
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    return kept, np.array(frames, np.int64), np.array(labels, np.int64), corners


def _numbers(rows: Sequence[Mapping[str, Any]], key: str, default: Sequence[float] | None, where: str) -> Float64:
    values = [row.get(key, None if default is None else default[index]) for index, row in enumerate(rows)]
    for value in values:
        if not isinstance(value, (int, float)) or not np.isfinite(value):
            raise InputError(f"a box has the {key} {value!r}, which is not a finite number", where=where)
    return np.array(values, np.float64)


def _truths(
    rows: Sequence[Any], images: Sequence[int], names: Mapping[int, str], classes: Sequence[str], where: str
) -> list[ImageLabels]:
    kept, frames, labels, corners = _rows(rows, images, names, classes, where)
    own_areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    areas = _numbers(kept, "area", own_areas.tolist(), where)
    crowds = _numbers(kept, "iscrowd", [0.0] * len(kept), where).astype(np.bool_)
    return [
        ImageLabels(Boxes2D.build(corners[own], labels[own]), crowds[own], areas[own])
        for own in _by_frame(frames, len(images))
    ]


def _predictions(
    rows: Sequence[Any], images: Sequence[int], names: Mapping[int, str], classes: Sequence[str], where: str
) -> list[Boxes2D]:
    kept, frames, labels, corners = _rows(rows, images, names, classes, where)
    scores = _numbers(kept, "score", None, where)
    return [Boxes2D.build(corners[own], labels[own], scores[own]) for own in _by_frame(frames, len(images))]


def _by_frame(frames: Int64, count: int) -> list[Int64]:
    """Rows of each frame, in their order."""
    order = np.argsort(frames, kind="stable")
    return np.split(order, np.searchsorted(frames[order], np.arange(1, count)))

"""Reads boxes from elsewhere, in the form of a nuScenes submission.

``{"results": {sample_token: [box, ...]}}``, a box being::

    translation         x, y, z of the center [m]
    size                width, length, height [m]
    rotation            quaternion w, x, y, z
    velocity            vx, vy [m/s]; left out or NaN: unknown
    detection_name      class
    detection_score     confidence (predictions)
    attribute_name      optional
    num_pts             lidar points inside (ground truth); left out or -1: unknown, at least one is assumed
    ego_translation     center relative to the vehicle, when translation is in another frame

Without ``ego_translation`` boxes are in the ego frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.arrays import Float64
from shared.errors import InputError
from shared.json_reader import DATA_BYTES, read_json
from shared.metrics.box_table import NO_ATTRIBUTE, BoxTable, check_table

#: nuscenes-devkit refuses more predictions of one sample.
MOST_PREDICTIONS = 500


@dataclass(frozen=True)
class Submission:
    """Boxes of a file.

    Attributes:
        boxes: the boxes, in the order of the file; frame i is ``tokens[i]``.
        distances: (N,) distance of the centers from the vehicle in the ground plane [m].
        in_ego_frame: whether the boxes are in the ego frame.
        tokens: the samples.
    """

    boxes: BoxTable
    distances: Float64
    in_ego_frame: bool
    tokens: list[str]


def read_submission(
    path: Path, classes: Sequence[str], tokens: Sequence[str] | None, attributes: dict[str, int], *, truth: bool
) -> Submission:
    """Read a file.

    Args:
        path: the file.
        classes: class list. Ground truth of other classes is left out; predictions of other classes are an error.
        tokens: samples that the file must hold, exactly; None: whatever it holds.
        attributes: attribute name to code; new names are added.
        truth: whether it is ground truth.

    Raises:
        InputError: missing, not JSON, of another form, of other samples, or with boxes that make no sense.
    """
    where = str(path)
    results = _results(path)
    names = list(results) if tokens is None else list(tokens)
    if set(results) != set(names):
        odd = sorted(set(results) ^ set(names))
        raise InputError(
            f"its samples are not those of the other file: {len(odd)} differ, for example {odd[0]}",
            where=where,
            hint="both files must list the same samples, including those without boxes",
        )
    frame_of = {token: frame for frame, token in enumerate(names)}
    rows: list[tuple[int, Mapping[str, Any]]] = []
    for token, boxes in results.items():
        if not isinstance(boxes, list):
            raise InputError(f"sample {token} is not a list of boxes", where=where)
        if not truth and len(boxes) > MOST_PREDICTIONS:
            raise InputError(
                f"sample {token} has {len(boxes)} predictions, at most {MOST_PREDICTIONS} are allowed", where=where
            )
        rows += [(frame_of[token], box) for box in boxes]
    unknown = sorted({_class_of(box, where) for _, box in rows} - set(classes))
    if unknown and not truth:
        raise InputError(
            f"predicts classes that were not given: {', '.join(unknown)}", where=where, hint="add them to --classes"
        )
    rows = [(frame, box) for frame, box in rows if box["detection_name"] in classes]
    try:
        table, ego = _table(rows, classes, attributes, truth)
    except KeyError as error:
        raise InputError(f"a box lacks {error}", where=where) from error
    except (TypeError, ValueError) as error:
        raise InputError(f"a box is malformed ({error})", where=where) from error
    check_table(table, classes, where)
    return Submission(table, np.hypot(ego[:, 0], ego[:, 1]), np.array_equal(ego, table.centers), names)


def _results(path: Path) -> Mapping[str, Any]:
    content = read_json(path, most_bytes=DATA_BYTES, allow_nan=True)
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict) or not results:
        raise InputError(
            "has no samples under 'results'",
            where=str(path),
            hint='the form is {"results": {sample_token: [{translation, size, rotation, ...}]}}',
        )
    return results


def _class_of(box: Any, where: str) -> str:
    if not isinstance(box, dict) or "detection_name" not in box:
        raise InputError("a box lacks 'detection_name'", where=where)
    return str(box["detection_name"])


def _table(
    rows: Sequence[tuple[int, Mapping[str, Any]]], classes: Sequence[str], attributes: dict[str, int], truth: bool
) -> tuple[BoxTable, Float64]:
    """The boxes as columns, and (N, 3) their centers relative to the vehicle."""
    label_of = {name: label for label, name in enumerate(classes)}

    def column(values: list[Any], width: int) -> Float64:
        array = np.array(values, np.float64).reshape(len(rows), -1) if values else np.zeros((0, width))
        if array.shape[1] != width:
            raise ValueError(f"expected {width} numbers, got {array.shape[1]}")
        return array

    centers = column([box["translation"] for _, box in rows], 3)
    sizes = column([box["size"] for _, box in rows], 3)
    rotations = column([box["rotation"] for _, box in rows], 4)
    velocities = column([(box.get("velocity") or [np.nan, np.nan])[:2] for _, box in rows], 2)
    points = np.array([int(box.get("num_pts", -1)) for _, box in rows], np.int64)
    scores = [1.0 if truth else float(box["detection_score"]) for _, box in rows]
    ego = column([box.get("ego_translation", box["translation"]) for _, box in rows], 3)
    table = BoxTable(
        frames=np.array([frame for frame, _ in rows], np.int64),
        labels=np.array([label_of[box["detection_name"]] for _, box in rows], np.int64),
        centers=centers,
        sizes=sizes[:, [1, 0, 2]],
        yaws=_yaws(rotations),
        velocities=velocities,
        scores=np.array(scores, np.float64),
        num_points=np.where(points < 0, 1, points),
        attributes=np.array([_attribute(box, attributes) for _, box in rows], np.int64),
    )
    return table, ego


def _yaws(quaternions: Float64) -> Float64:
    """(N,) heading of the rotated x axis in the ground plane [rad], of quaternions (N, 4) w, x, y, z of any length."""
    norms = np.sqrt((quaternions**2).sum(axis=1))
    if (norms == 0).any():
        raise ValueError("a rotation is 0, 0, 0, 0")
    w, x, y, z = (quaternions / norms[:, None]).T
    return np.asarray(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))


def _attribute(box: Mapping[str, Any], codes: dict[str, int]) -> int:
    name = box.get("attribute_name") or ""
    return codes.setdefault(name, len(codes)) if name else NO_ATTRIBUTE

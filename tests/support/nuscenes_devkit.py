"""nuscenes-devkit's own detection metric on our tables: the reference that ours must equal.

Only its arithmetic (``eval/detection/algo.py`` and what it calls) is used; the package's ``__init__`` and its drawing
helpers want OpenCV and shapely, which are not installed for this.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from typing import Any

import numpy as np
import pytest

from shared.metrics.box_table import BoxTable

#: The devkit's names of the errors.
DEVKIT_ERRORS = {"ATE": "trans_err", "ASE": "scale_err", "AOE": "orient_err", "AVE": "vel_err", "AAE": "attr_err"}


def load_devkit() -> tuple[Any, Any, Any]:
    """Modules ``algo``, ``common.data_classes`` and ``common.utils`` of the devkit; skips the test without it."""
    spec = importlib.machinery.PathFinder.find_spec("nuscenes")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("nuscenes-devkit is not installed (make setup installs it)")
    if "nuscenes" not in sys.modules:
        package = types.ModuleType("nuscenes")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["nuscenes"] = package
        drawing = types.ModuleType("nuscenes.utils.data_classes")
        drawing.Box = None  # type: ignore[attr-defined]
        sys.modules["nuscenes.utils.data_classes"] = drawing
    return (
        importlib.import_module("nuscenes.eval.detection.algo"),
        importlib.import_module("nuscenes.eval.common.data_classes"),
        importlib.import_module("nuscenes.eval.common.utils"),
    )


def devkit_boxes(table: BoxTable, classes: list[str], frames: int) -> Any:
    """The table as the devkit's ``EvalBoxes`` of ``DetectionBox``-like objects."""
    _, data_classes, _ = load_devkit()
    boxes = data_classes.EvalBoxes()
    for frame in range(frames):
        boxes.add_boxes(str(frame), [])
    for row in range(len(table)):
        yaw = float(table.yaws[row])
        box = types.SimpleNamespace(
            sample_token=str(int(table.frames[row])),
            detection_name=classes[int(table.labels[row])],
            detection_score=float(table.scores[row]),
            translation=tuple(float(value) for value in table.centers[row]),
            size=tuple(float(value) for value in table.sizes[row]),
            rotation=(np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)),
            velocity=tuple(float(value) for value in table.velocities[row]),
            attribute_name="" if table.attributes[row] < 0 else f"attribute.{int(table.attributes[row])}",
        )
        boxes.add_boxes(box.sample_token, [box])
    return boxes


def devkit_score(predictions: BoxTable, truths: BoxTable, classes: list[str], frames: int) -> dict[str, Any]:
    """AP per class and distance and errors per class by the devkit, for boxes that are filtered already."""
    algo, _, utils = load_devkit()
    predicted, actual = devkit_boxes(predictions, classes, frames), devkit_boxes(truths, classes, frames)
    result: dict[str, Any] = {}
    for name in classes:
        curves = {
            distance: algo.accumulate(actual, predicted, name, utils.center_distance, distance)
            for distance in (0.5, 1.0, 2.0, 4.0)
        }
        result[name] = {
            "AP": {distance: algo.calc_ap(curve, 0.1, 0.1) for distance, curve in curves.items()},
            "errors": {ours: algo.calc_tp(curves[2.0], 0.1, theirs) for ours, theirs in DEVKIT_ERRORS.items()},
        }
    return result

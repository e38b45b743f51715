"""FRNet, from points to classes: the steps in NumPy around one component.

points -> interpolate -> group -> frnet -> classify
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.backends import Session
from runtime.models.frnet.group import Frustums, group, padded_index, pixel_map
from runtime.models.frnet.interpolate import interpolate
from runtime.models.frnet.parameters import FEATURES, FRNetParameters
from runtime.models.frnet.project import have_direction, in_sensor_frame
from runtime.pipeline import ArraysByName, Packing, Step, dataclass_of_arrays, predictions_of
from shared.arrays import Arrays, Bool, Float32
from shared.errors import InferenceError
from shared.metrics.confusion import UNLABELED
from shared.spec import ModelSpec
from shared.tasks.segmentation3d import PointClasses

# torch.export takes an axis of length 1 for a constant, so that its programs want at least two of each.
_MIN_ROWS = 2


@dataclass(frozen=True)
class Interpolated:
    """A frame after `interpolate`.

    Attributes:
        points: (V + I, 4) float32 in the sensor's frame: those that have a direction, then those in the gaps.
        usable: (N,) bool, which of the frame's points the first V are.
    """

    points: Float32
    usable: Bool


@dataclass(frozen=True)
class Request:
    """What the component is given, and what `classify` must know.

    Attributes:
        inputs: by name.
        usable: see `Interpolated`.
        counters: rows and frustums, and points that found no slot.
    """

    inputs: Arrays
    usable: Bool
    counters: dict[str, int]


@dataclass(frozen=True)
class Answer:
    """The component's answer.

    Attributes:
        probabilities: (V + I, C) float32.
        usable: see `Interpolated`.
    """

    probabilities: Float32
    usable: Bool


def steps(spec: ModelSpec, parameters: FRNetParameters, session: Session) -> list[Step]:
    """The steps of a request."""
    (component,) = spec.components
    output = component.outputs[0]

    def answered(request: Request) -> Answer:
        """No call for a frame without a usable point."""
        rows = request.counters["num_points"]
        if not rows:
            return Answer(np.zeros((0, int(output.shape[-1])), np.float32), request.usable)
        outputs = session.run(component.name, request.inputs)
        return Answer(outputs[output.name][:rows].astype(np.float32, copy=False), request.usable)

    return [
        Step("interpolate", lambda points: interpolated(points, parameters), dataclass_of_arrays(Interpolated)),
        Step("group", lambda frame: requested(frame, parameters), _packed_request(), lambda request: request.counters),
        Step(
            component.name,
            answered,
            Packing(
                lambda answer: {output.name: answer.probabilities, "usable": answer.usable},
                lambda arrays: Answer(arrays[output.name], arrays["usable"]),
            ),
            outputs=lambda answer: {output.name: answer.probabilities},
        ),
        Step("classify", lambda answer: classified(answer, parameters.ignored_class), predictions_of(spec)),
    ]


def checked(points: Float32) -> Float32:
    """The points.

    Raises:
        InferenceError: another number of features.
    """
    if points.ndim != 2 or points.shape[1] != FEATURES:
        raise InferenceError(f"points have the shape {points.shape}, the model takes (N, {FEATURES})")
    return points


def interpolated(points: Float32, parameters: FRNetParameters) -> Interpolated:
    """The frame's points in the sensor's frame, gaps filled."""
    moved = in_sensor_frame(checked(points), parameters.sensor)
    usable = have_direction(moved)
    sensor, image = parameters.sensor, parameters.interpolation
    return Interpolated(interpolate(moved[usable], sensor, image, parameters.gaps), usable)


def requested(frame: Interpolated, parameters: FRNetParameters) -> Request:
    """The inputs of the component, in the form that it was exported with."""
    frustums = group(frame.points, parameters.sensor, parameters.frustums)
    count = len(frustums.voxel_coors)
    counters = {"num_points": len(frame.points), "num_frustums": count, "points_over": 0}
    if parameters.form == "scatter":
        return Request(_scatter_inputs(frustums), frame.usable, counters)
    index, counters["points_over"] = padded_index(frustums.inverse_map, count, parameters.points_per_frustum)
    inputs: Arrays = {
        "points": _with_rows(frustums.points),
        "coors": _with_rows(frustums.coors[:, 1:].astype(np.int32)),
        "inverse_map": _with_rows(frustums.inverse_map.astype(np.int32)),
        "frustum_points": _with_rows(index),
        "pixel_frustums": pixel_map(frustums.voxel_coors, parameters.frustums, parameters.strides),
    }
    return Request(inputs, frame.usable, counters)


def _scatter_inputs(frustums: Frustums) -> Arrays:
    """AWML's and Autoware's inputs. A frame of one frustum is given twice, as two that are alike in all."""
    twice = len(frustums.voxel_coors) == 1
    rows = [frustums, frustums] if twice else [frustums]
    return {
        "points": np.concatenate([each.points for each in rows]),
        "coors": np.concatenate([each.coors for each in rows]),
        "voxel_coors": np.concatenate([each.voxel_coors for each in rows]),
        "inverse_map": np.concatenate([each.inverse_map + number for number, each in enumerate(rows)]),
    }


def _with_rows(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """At least `_MIN_ROWS` rows; those that are missing are zero, and no pixel shows them."""
    missing = max(0, _MIN_ROWS - len(array))
    return np.pad(array, ((0, missing), *[(0, 0)] * (array.ndim - 1))) if missing else array


def classified(answer: Answer, ignored_class: int | None) -> PointClasses:
    """The likeliest class of each of the frame's points; none for those that the network was not asked about."""
    found = PointClasses.of_probabilities(answer.probabilities[: int(answer.usable.sum())])
    count = len(answer.usable)
    labels, scores, margins = np.full(count, UNLABELED), np.zeros(count, np.float32), np.zeros(count, np.float32)
    labels[answer.usable] = np.where(found.labels == ignored_class, UNLABELED, found.labels)
    scores[answer.usable], margins[answer.usable] = found.scores, found.margins
    return PointClasses.build(labels, scores, margins)


_COUNTERS = "counters"
_COUNTED = ("num_points", "num_frustums", "points_over")


def _packed_request() -> Packing:
    def pack(request: Request) -> Arrays:
        counters = np.array([request.counters[name] for name in _COUNTED], np.int64)
        return {**request.inputs, "usable": request.usable, _COUNTERS: counters}

    def unpack(arrays: ArraysByName) -> Request:
        inputs = {name: array for name, array in arrays.items() if name not in ("usable", _COUNTERS)}
        counters = dict(zip(_COUNTED, arrays[_COUNTERS].tolist(), strict=True))
        return Request(inputs, arrays["usable"], counters)

    return Packing(pack, unpack)

"""CenterPoint with pillars, from points to boxes: the steps in NumPy around two components.

points -> voxelize -> decorate -> pts_voxel_encoder -> scatter -> pts_backbone_neck_head -> decode -> circle_nms

`runtime.models.centerpoint.device` has the same steps as CUDA kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backends import Session
from runtime.buffers import RowBuffer
from runtime.lidar.circle_nms import circle_nms
from runtime.lidar.frames import checked
from runtime.lidar.voxelize import Voxels, cell_table, voxelize
from runtime.models.centerpoint.decode import count_nan, decode
from runtime.models.centerpoint.decorate import decorate
from runtime.models.centerpoint.parameters import ENCODER, HEAD, CenterPointParameters, CircleNms, Task
from runtime.models.centerpoint.scatter import Canvas
from runtime.pipeline import ArraysByName, Packing, Step, component_step, one_array, predictions_of
from shared.arrays import Float32
from shared.spec import ModelSpec
from shared.tasks.detection3d import Boxes3D

# torch.export takes an axis of length 1 for a constant, so that its programs want at least two pillars. A row more is
# an empty pillar, which does not touch the others.
_MIN_ENCODER_ROWS = 2

_VOXEL_ARRAYS = ("points", "voxel_of_point", "num_points", "coordinates")
_SLOTS = "slots"
_COORDINATES = "coordinates"


@dataclass(frozen=True)
class Pillars:
    """V pillars between steps.

    Attributes:
        values: (>= V, max_points, F) decorated points, or (V, 1, C) features; rows from V on are zero.
        coordinates: (V, 3) int32, cell along z, y, x.
    """

    values: Float32
    coordinates: npt.NDArray[np.int32]


def steps(spec: ModelSpec, parameters: CenterPointParameters, session: Session) -> list[Step]:
    """The steps of a request, with buffers that are allocated here, once."""
    nx, ny, _ = parameters.grid_size
    encoder, head = spec.component(ENCODER), spec.component(HEAD)
    features, pillar_features = encoder.inputs[0].name, encoder.outputs[0].name
    table = cell_table(parameters)
    rows = RowBuffer(parameters.max_voxels * parameters.max_points_per_voxel, parameters.decoration.num_features)
    canvas = Canvas(parameters.encoder_channels, ny=ny, nx=nx)

    def decorated(voxels: Voxels) -> Pillars:
        """Voxels of another implementation may be more, or fuller, than this model's own could be."""
        grid, buffer = parameters, rows
        slots, count = _slots(voxels.num_points, parameters), max(parameters.max_voxels, len(voxels))
        if (slots, count) != (grid.max_points_per_voxel, grid.max_voxels):
            grid = parameters.model_copy(update={"max_points_per_voxel": slots, "max_voxels": count})
            buffer = RowBuffer(count * slots, parameters.decoration.num_features)
        return Pillars(decorate(voxels, parameters.decoration, grid, buffer), voxels.coordinates)

    def encoded(pillars: Pillars) -> Pillars:
        """(V, 1, C) features of the pillars; no call for a frame without any."""
        count = len(pillars.coordinates)
        if count == 0:
            return Pillars(np.zeros((0, 1, parameters.encoder_channels), np.float32), pillars.coordinates)
        wanted = max(count, min(_MIN_ENCODER_ROWS, parameters.max_voxels))
        outputs = session.run(ENCODER, {features: _with_rows(pillars.values, wanted)})
        return Pillars(outputs[pillar_features][:count], pillars.coordinates)

    return [
        Step(
            "voxelize",
            lambda points: voxelize(checked(points, parameters.decoration.raw_features), parameters, table),
            _voxels(parameters),
            count=lambda voxels: voxels.counters,
        ),
        Step("decorate", decorated, _pillars(features)),
        Step(ENCODER, encoded, _pillars(pillar_features)),
        Step(
            "scatter",
            lambda pillars: canvas.scatter(pillars.values, pillars.coordinates),
            one_array(head.inputs[0].name),
        ),
        component_step(head, session, count=lambda outputs: {"heatmap_nan": _heatmap_nan(outputs, parameters)}),
        Step(
            "decode",
            lambda outputs: [
                decode(task_outputs(outputs, task), parameters, parameters.factor(task)) for task in parameters.tasks
            ],
            _boxes_of_tasks(len(parameters.tasks)),
        ),
        Step(
            "circle_nms",
            lambda boxes: suppressed(boxes, parameters.tasks, parameters.nms),
            predictions_of(spec),
            count=lambda boxes: {"boxes": len(boxes)},
        ),
    ]


def task_outputs(outputs: ArraysByName, task: Task) -> dict[str, Float32]:
    """The outputs of one task under the names that `decode` knows, as float32."""
    return {role: outputs[name].astype(np.float32, copy=False) for role, name in task.outputs.items()}


def suppressed(boxes_of_tasks: list[Boxes3D], tasks: list[Task], nms: CircleNms) -> Boxes3D:
    """Circle NMS task by task; labels become global, in the order of the tasks."""
    kept = []
    first_label = 0
    for boxes, task, radius in zip(boxes_of_tasks, tasks, nms.radius, strict=True):
        keep = circle_nms(boxes.centers[:, :2], boxes.scores, radius, nms.post_max_size)
        kept.append((boxes.select(keep), first_label))
        first_label += len(task.classes)
    return Boxes3D.build(
        centers=np.concatenate([boxes.centers for boxes, _ in kept]),
        sizes=np.concatenate([boxes.sizes for boxes, _ in kept]),
        yaws=np.concatenate([boxes.yaws for boxes, _ in kept]),
        velocities=np.concatenate([boxes.velocities for boxes, _ in kept]),
        labels=np.concatenate([boxes.labels + first for boxes, first in kept]),
        scores=np.concatenate([boxes.scores for boxes, _ in kept]),
    )


def _heatmap_nan(outputs: ArraysByName, parameters: CenterPointParameters) -> int:
    return sum(count_nan(task_outputs(outputs, task)["heatmap"]) for task in parameters.tasks)


def _with_rows(values: Float32, count: int) -> Float32:
    """The first ``count`` rows; those that are missing, as in what was kept of a frame, are zero."""
    missing = count - len(values)
    if missing <= 0:
        return values[:count]
    return np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])


def _slots(num_points: npt.NDArray[np.int32], parameters: CenterPointParameters) -> int:
    """Points that a voxel has room for in the dense tensor."""
    return max(parameters.max_points_per_voxel, int(num_points.max(initial=0)))


def _voxels(parameters: CenterPointParameters) -> Packing:
    def pack(voxels: Voxels) -> dict[str, npt.NDArray[Any]]:
        slots = voxels.rows - voxels.voxel_of_point * _slots(voxels.num_points, parameters)
        return {**{name: getattr(voxels, name) for name in _VOXEL_ARRAYS}, _SLOTS: slots}

    def unpack(arrays: Mapping[str, npt.NDArray[Any]]) -> Voxels:
        rows = arrays["voxel_of_point"] * _slots(arrays["num_points"], parameters) + arrays[_SLOTS]
        # What became of the other points is known to whoever made the voxels.
        return Voxels(**{name: arrays[name] for name in _VOXEL_ARRAYS}, rows=rows, counters={})

    return Packing(pack, unpack)


def _pillars(name: str) -> Packing:
    return Packing(
        lambda pillars: {name: pillars.values[: len(pillars.coordinates)], _COORDINATES: pillars.coordinates},
        lambda arrays: Pillars(arrays[name], arrays[_COORDINATES]),
    )


def _boxes_of_tasks(count: int) -> Packing:
    def unpack(arrays: ArraysByName) -> list[Boxes3D]:
        return [
            Boxes3D.from_arrays({name: arrays[f"{task}.{name}"] for name in Boxes3D.columns()}) for task in range(count)
        ]

    return Packing(_pack_tasks, unpack)


def _pack_tasks(tasks: list[Boxes3D]) -> dict[str, npt.NDArray[Any]]:
    return {f"{number}.{name}": values for number, boxes in enumerate(tasks) for name, values in boxes.arrays().items()}

"""CenterPoint step by step: read, voxelize, decorate, encoder, scatter, backbone with head, decode, circle_nms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backends import Session
from runtime.buffers import Float32, RowBuffer
from runtime.models.centerpoint.decode import decode
from runtime.models.centerpoint.decorate import decorate
from runtime.models.centerpoint.parameters import read_parameters
from runtime.models.centerpoint.pipeline import ENCODER, HEAD, CenterPoint
from runtime.models.centerpoint.voxelize import Voxels, voxelize
from runtime.steps import Arrays, Step
from shared.data.types import Sample
from shared.spec import ModelSpec
from shared.tasks.detection3d import Boxes3D

_VOXEL_ARRAYS = ("points", "voxel_of_point", "num_points", "coordinates")
_SLOTS = "slots"
_COORDINATES = "coordinates"
# The encoder's programs want two rows, see `runtime.models.centerpoint.pipeline`.
_MIN_ROWS = 2


@dataclass(frozen=True)
class Pillars:
    """V pillars between steps.

    Attributes:
        values: (>= V, max_points, F) decorated points, or (V, 1, C) features; rows from V on are zero.
        coordinates: (V, 3) int32, cell along z, y, x.
    """

    values: Float32
    coordinates: npt.NDArray[np.int32]


def steps(spec: ModelSpec, session: Session) -> list[Step]:
    """The steps of a CenterPoint model, see `runtime.steps.steps_of`."""
    return _StagedCenterPoint(spec, read_parameters(spec), session).steps()


class _StagedCenterPoint(CenterPoint):
    """The pipeline's buffers and settings, one step at a time."""

    def steps(self) -> list[Step]:
        """The steps, in order."""
        return [
            Step("read", self._read_points, lambda points: {"points": points}, lambda arrays: arrays["points"]),
            Step("voxelize", self._voxelize, self._pack_voxels, self._unpack_voxels),
            Step("decorate", self._decorate, self._packer(self._encoder_input), self._unpack_decorated),
            Step(ENCODER, self._encode_pillars, self._packer(self._encoder_output), self._unpack_encoded),
            Step(
                "scatter",
                lambda pillars: self._canvas.scatter(pillars.values, pillars.coordinates),
                lambda canvas: {self._head_input: canvas},
                lambda arrays: arrays[self._head_input],
            ),
            Step(HEAD, lambda canvas: self._session.run(HEAD, {self._head_input: canvas}), dict, dict),
            Step("decode", self._decode_tasks, _pack_tasks, self._unpack_tasks),
            Step("circle_nms", self._suppress, pack_boxes, unpack_boxes),
        ]

    def _read_points(self, sample: Sample) -> Float32:
        return self.checked(self.read(sample).data)

    def _voxelize(self, points: Float32) -> Voxels:
        return voxelize(points, self._grid, self._table)

    def _decorate(self, voxels: Voxels) -> Pillars:
        """Voxels of another implementation may be more, or fuller, than this model's own could be."""
        slots, count = self._slots(voxels.num_points), max(self._grid.max_voxels, len(voxels))
        grid, buffer = self._grid, self._features
        if (slots, count) != (grid.max_points, grid.max_voxels):
            grid = replace(grid, max_points=slots, max_voxels=count)
            buffer = RowBuffer(count * slots, self._decoration.num_features)
        return Pillars(decorate(voxels, self._decoration, grid, buffer), voxels.coordinates)

    def _slots(self, num_points: npt.NDArray[np.int32]) -> int:
        """Points that a voxel has room for in the dense tensor."""
        return max(self._grid.max_points, int(num_points.max(initial=0)))

    def _pack_voxels(self, voxels: Voxels) -> dict[str, npt.NDArray[Any]]:
        slots = voxels.rows - voxels.voxel_of_point * self._slots(voxels.num_points)
        return {**{name: getattr(voxels, name) for name in _VOXEL_ARRAYS}, _SLOTS: slots}

    def _unpack_voxels(self, arrays: Arrays) -> Voxels:
        rows = arrays["voxel_of_point"] * self._slots(arrays["num_points"]) + arrays[_SLOTS]
        # What became of the other points is known to whoever made the voxels.
        return Voxels(**{name: arrays[name] for name in _VOXEL_ARRAYS}, rows=rows, counters={})

    def _encode_pillars(self, pillars: Pillars) -> Pillars:
        return Pillars(self._encode(pillars.values, len(pillars.coordinates)), pillars.coordinates)

    def _decode_tasks(self, outputs: Mapping[str, npt.NDArray[Any]]) -> list[Boxes3D]:
        by_task = [
            {role: outputs[name].astype(np.float32, copy=False) for role, name in task.outputs.items()}
            for task in self._parameters.tasks
        ]
        return [decode(task, self._decoding) for task in by_task]

    def _packer(self, name: str) -> Any:
        def pack(pillars: Pillars) -> dict[str, npt.NDArray[Any]]:
            return {name: pillars.values[: len(pillars.coordinates)], _COORDINATES: pillars.coordinates}

        return pack

    def _unpack_decorated(self, arrays: Arrays) -> Pillars:
        values = arrays[self._encoder_input]
        missing = min(_MIN_ROWS, self._grid.max_voxels) - len(values)
        if missing > 0:
            values = np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])
        return Pillars(values, arrays[_COORDINATES])

    def _unpack_encoded(self, arrays: Arrays) -> Pillars:
        return Pillars(arrays[self._encoder_output], arrays[_COORDINATES])

    def _unpack_tasks(self, arrays: Arrays) -> list[Boxes3D]:
        return [
            unpack_boxes({name: arrays[f"{task}.{name}"] for name in Boxes3D.columns()})
            for task in range(len(self._parameters.tasks))
        ]


def pack_boxes(boxes: Boxes3D) -> dict[str, npt.NDArray[Any]]:
    """Boxes as arrays by column."""
    return {name: getattr(boxes, name) for name in Boxes3D.columns()}


def unpack_boxes(arrays: Arrays) -> Boxes3D:
    """Boxes from arrays by column."""
    return Boxes3D(**{name: arrays[name] for name in Boxes3D.columns()})


def _pack_tasks(tasks: list[Boxes3D]) -> dict[str, npt.NDArray[Any]]:
    return {
        f"{number}.{name}": values for number, boxes in enumerate(tasks) for name, values in pack_boxes(boxes).items()
    }

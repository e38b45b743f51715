"""TransFusion-L from points to boxes, in NumPy around one component.

points -> voxelize -> pack -> transfusion -> decode -> circle_nms

`device` has the same steps as CUDA kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from awml_deploy_transfusion.names import BOXES, COMPONENT, COORS, NUM_POINTS, ROTATIONS, SCORES, VOXELS
from awml_deploy_transfusion.runtime_model.decode import decode, suppressed
from awml_deploy_transfusion.runtime_model.device import TransFusionOnDevice, unsupported
from awml_deploy_transfusion.runtime_model.parameters import TransFusionParameters, read_parameters
from runtime.backends import Session
from runtime.buffers import RowBuffer
from runtime.cuda.session import DeviceSession, kernels_serve
from runtime.lidar.frames import checked, lost_points, reader
from runtime.lidar.voxelize import Voxels, cell_table, voxelize
from runtime.pipeline import (
    BY_NAME,
    ArraysByName,
    Counters,
    HostPipeline,
    Interface,
    Packing,
    Pipeline,
    Step,
    dataclass_of_arrays,
    one_array,
    predictions_of,
)
from shared.arrays import Float32
from shared.spec import ModelSpec

# torch.export takes an axis of length 1 for a constant, so that its programs want at least two voxels.
_LEAST_VOXELS = 2


@dataclass(frozen=True)
class Packed:
    """The inputs of the network.

    Attributes:
        voxels: (N, M, C) float32, unused slots zero.
        num_points: (N,) int32.
        coors: (N, 4) int32: zero, and the cell along z, y, x.
    """

    voxels: Float32
    num_points: npt.NDArray[np.int32]
    coors: npt.NDArray[np.int32]


def build(spec: ModelSpec, session: Session) -> Pipeline:
    """The pipeline of a TransFusion, see `runtime.pipeline.build_pipeline`."""
    parameters = read_parameters(spec)
    interface = _interface(parameters)
    if isinstance(session, DeviceSession) and kernels_serve(unsupported(spec)):
        return TransFusionOnDevice(interface, spec, parameters, session)
    return HostPipeline(interface, _steps(spec, parameters, session))


def _interface(parameters: TransFusionParameters) -> Interface:
    def alerts(counters: Counters) -> list[str]:
        """Losses that change results."""
        lines = lost_points(counters, parameters)
        if counters["queries_nan"]:
            lines.append(f"{counters['queries_nan']} queries are NaN: look for an overflow with the verifier")
        return lines

    return Interface(reader(parameters), one_array("points"), alerts=alerts)


def _steps(spec: ModelSpec, parameters: TransFusionParameters, session: Session) -> list[Step]:
    """The steps of a request, with buffers that are allocated here, once."""
    table, columns = cell_table(parameters), len(parameters.points.use_dim)
    rows = RowBuffer(parameters.max_voxels * parameters.max_points_per_voxel, columns)

    def inferred(packed: Packed) -> ArraysByName:
        return session.run(COMPONENT, {VOXELS: packed.voxels, NUM_POINTS: packed.num_points, COORS: packed.coors})

    return [
        Step(
            "voxelize",
            lambda points: voxelize(checked(points, columns), parameters, table),
            _VOXELS,
            count=lambda voxels: voxels.counters,
        ),
        Step("pack", lambda voxels: _packed(voxels, parameters, rows), dataclass_of_arrays(Packed)),
        Step(COMPONENT, inferred, BY_NAME, count=lambda outputs: {"queries_nan": _count_nan(outputs)}, outputs=dict),
        Step("decode", lambda outputs: decode(outputs, parameters), predictions_of(spec)),
        Step(
            "circle_nms",
            lambda boxes: suppressed(boxes, parameters),
            predictions_of(spec),
            count=lambda boxes: {"boxes": len(boxes)},
        ),
    ]


def _packed(voxels: Voxels, parameters: TransFusionParameters, buffer: RowBuffer) -> Packed:
    """Voxels laid out as the network takes them; a view of ``buffer``.

    There are as many as it needs at least: one that stands alone comes twice, and a frame without any has empty ones.
    """
    buffer.write(voxels.rows, voxels.points)
    dense = buffer.array.reshape(parameters.max_voxels, parameters.max_points_per_voxel, -1)[: len(voxels)]
    coors = np.concatenate([np.zeros((len(voxels), 1), np.int32), voxels.coordinates], axis=1)
    missing = _LEAST_VOXELS - len(voxels)
    if missing <= 0:
        return Packed(dense, voxels.num_points, coors)
    if len(voxels):
        return Packed(*(np.repeat(array, 1 + missing, axis=0) for array in (dense, voxels.num_points, coors)))
    empty = np.zeros((missing, *dense.shape[1:]), np.float32)
    return Packed(empty, np.zeros(missing, np.int32), np.zeros((missing, 4), np.int32))


def _count_nan(outputs: ArraysByName) -> int:
    """Queries that are lost to a numeric failure."""
    values = np.concatenate([outputs[name][0] for name in (SCORES, BOXES, ROTATIONS)])
    return int(np.isnan(values).any(axis=0).sum())


_VOXEL_ARRAYS = ("points", "voxel_of_point", "rows", "num_points", "coordinates")


def _pack_voxels(voxels: Voxels) -> dict[str, npt.NDArray[Any]]:
    return {name: getattr(voxels, name) for name in _VOXEL_ARRAYS}


# What became of the other points is known to whoever made the voxels.
_VOXELS = Packing(_pack_voxels, lambda arrays: Voxels(**{name: arrays[name] for name in _VOXEL_ARRAYS}, counters={}))

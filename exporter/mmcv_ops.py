"""mmcv's compiled operators, or what this tool needs of them when only mmcv-lite is installed.

mmdet3d imports ``mmcv._ext`` (compiled C++ and CUDA) when it is imported itself, although exporting and running a
pillar model needs exactly one operator of it, hard voxelization, and a YOLOX exactly one other, suppression of boxes.
With mmcv-lite this module puts a stand-in in its place: these two in NumPy with the semantics of mmcv's sequential CPU
operators, and for every other operator a function that says which one was called and how to install it.

Call `provide_mmcv_ops` before the first import of mmdet or mmdet3d.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from shared.errors import EnvironmentLacks

COMPILED = "mmcv compiled ops"
STAND_IN = "NumPy voxelization of awml-deploy (mmcv-lite)"

_EXTENSION = "mmcv._ext"


def provide_mmcv_ops() -> str:
    """Make ``mmcv._ext`` importable.

    Returns:
        What voxelization in the framework runs on: `COMPILED` or `STAND_IN`.

    Raises:
        EnvironmentLacks: mmcv is not installed, or its compiled operators don't load.
    """
    present = sys.modules.get(_EXTENSION)
    if present is not None:
        return STAND_IN if isinstance(present, _StandIn) else COMPILED
    try:
        mmcv = importlib.import_module("mmcv")
    except ImportError as error:
        raise EnvironmentLacks(f"mmcv can't be imported ({error})", hint="install it with: make setup") from error
    if importlib.util.find_spec(_EXTENSION) is not None:
        try:
            importlib.import_module(_EXTENSION)
        except ImportError as error:
            raise EnvironmentLacks(
                f"mmcv's compiled operators don't load ({error})",
                hint="they were built for another torch; rebuild them with: make setup-full",
            ) from error
        return COMPILED
    stand_in = _StandIn(_EXTENSION)
    # mmengine's Runner looks for compiled operators by the module's spec; without a loader in it there are none.
    stand_in.__spec__ = ModuleSpec(_EXTENSION, None)
    sys.modules[_EXTENSION] = stand_in
    vars(mmcv)["_ext"] = stand_in
    return STAND_IN


class _StandIn(ModuleType):
    """Stands for ``mmcv._ext``: two operators work, every other one says what it would need."""

    def __getattr__(self, operator: str) -> Any:
        if operator.startswith("__"):
            raise AttributeError(operator)
        if operator == "hard_voxelize_forward":
            return _hard_voxelize_forward
        if operator == "nms":
            return _nms

        def missing(*_arguments: Any, **_options: Any) -> NoReturn:
            raise EnvironmentLacks(
                f"the operator '{operator}' of mmcv is needed, and this environment has mmcv-lite, without operators",
                hint="install the compiled ones with: make setup-full",
            )

        return missing


def _hard_voxelize_forward(
    points: Any,
    voxel_size: Any,
    coors_range: Any,
    voxels: Any,
    coors: Any,
    num_points_per_voxel: Any,
    voxel_num: Any,
    *,
    max_points: int,
    max_voxels: int,
    NDim: int,  # noqa: N803, ARG001  the operator's own signature
    deterministic: bool,  # noqa: ARG001
) -> None:
    """mmcv's operator ``hard_voxelize_forward``: fills the tensors that it is given.

    ``NDim`` and ``deterministic`` are part of its signature; the CPU operator is always three-dimensional here and
    always deterministic.
    """
    found, cells, counts = hard_voxelize(
        points.cpu().numpy(), voxel_size.numpy(), coors_range.numpy(), max_points=max_points, max_voxels=max_voxels
    )
    count = len(found)
    voxels[:count] = voxels.new_tensor(found)
    coors[:count] = coors.new_tensor(cells)
    num_points_per_voxel[:count] = num_points_per_voxel.new_tensor(counts)
    voxel_num.fill_(count)


def _nms(boxes: Any, scores: Any, *, iou_threshold: float, offset: int) -> Any:
    """mmcv's operator ``nms``: positions of the boxes (N, 4) that are kept, by falling score, as an int64 tensor."""
    kept = greedy_nms(
        boxes.detach().cpu().numpy(), scores.detach().cpu().numpy(), iou_threshold=iou_threshold, offset=offset
    )
    return boxes.new_tensor(kept).long()


def greedy_nms(
    boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], *, iou_threshold: float, offset: int
) -> npt.NDArray[np.int64]:
    """Keep the best box, drop what overlaps it by more than the threshold, and so on, as mmcv's CPU operator does.

    Args:
        boxes: (N, 4) float32, left, top, right, bottom.
        scores: (N,) float32; of equal ones the first comes first.
        iou_threshold: boxes whose intersection over union is greater are dropped.
        offset: added to widths and heights: 1 where boxes are given by their first and last pixels.

    Returns:
        (K,) positions of the boxes that are kept, by falling score.
    """
    left, top, right, bottom = boxes.T
    extra = np.float32(offset)
    areas = (right - left + extra) * (bottom - top + extra)
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        width = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest]) + extra
        height = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest]) + extra
        shared_area = np.maximum(width, np.float32(0)) * np.maximum(height, np.float32(0))
        overlap = shared_area / (areas[best] + areas[rest] - shared_area)
        order = rest[~(overlap > np.float32(iou_threshold))]
    return np.array(kept, np.int64)


def hard_voxelize(
    points: npt.NDArray[np.float32],
    voxel_size: npt.NDArray[np.float32],
    point_range: npt.NDArray[np.float32],
    *,
    max_points: int,
    max_voxels: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Group points into voxels as mmcv's sequential CPU operator does.

    Points are visited in order. A voxel comes into being with its first point, unless there are ``max_voxels``
    already, and keeps the first ``max_points`` of its points. Points outside the range, and NaN, are left out.

    Args:
        points: (N, F) float32, columns 0-2 are x, y, z in meters.
        voxel_size: (3,) float32, meters.
        point_range: (6,) float32, x, y, z minimum then maximum in meters; the maximum is outside.
        max_points: points kept per voxel.
        max_voxels: voxels kept.

    Returns:
        voxels (V, max_points, F) float32, unused rows zero; cells (V, 3) int32 as z, y, x; number of points (V,)
        int32. Voxels stand in the order of their first points.
    """
    voxel_size = np.asarray(voxel_size, np.float32)
    point_range = np.asarray(point_range, np.float32)
    # C's round: halves away from zero.
    grid = np.floor((point_range[3:] - point_range[:3]) / voxel_size + np.float32(0.5)).astype(np.int64)

    # float32 throughout: the operator divides floats, and a point on a cell's edge falls where that division puts it.
    position = np.floor((points[:, :3] - point_range[:3]) / voxel_size)
    inside = np.flatnonzero(((position >= 0) & (position < grid.astype(np.float32))).all(axis=1))
    x, y, z = position[inside].astype(np.int64).T
    flat = (z * grid[1] + y) * grid[0] + x

    _, first, group = np.unique(flat, return_index=True, return_inverse=True)
    by_appearance = np.argsort(first, kind="stable")
    rank = np.empty_like(by_appearance)
    rank[by_appearance] = np.arange(len(by_appearance))
    voxel = rank[group.reshape(-1)]

    # Slot of a point in its voxel: how many points of the same voxel came before it.
    by_voxel = np.argsort(voxel, kind="stable")
    totals = np.bincount(voxel, minlength=len(first))
    starts = np.concatenate(([0], np.cumsum(totals)[:-1])) if len(totals) else totals
    slot = np.empty_like(voxel)
    slot[by_voxel] = np.arange(len(voxel)) - np.repeat(starts, totals)

    count = min(len(first), max_voxels)
    kept = (voxel < count) & (slot < max_points)
    voxels = np.zeros((count, max_points, points.shape[1]), np.float32)
    voxels[voxel[kept], slot[kept]] = points[inside[kept]]
    first_points = first[by_appearance[:count]]
    cells = np.stack([z[first_points], y[first_points], x[first_points]], axis=1).astype(np.int32)
    return voxels, cells, np.minimum(totals[:count], max_points).astype(np.int32)

"""Test pipelines of mmdet3d that load points, read as what the runtime's loader takes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from exporter.training_config import TrainingConfig
from exporter.training_only import short_name
from shared.data import PointLoading
from shared.errors import ConfigError

_log = logging.getLogger("exporter")

_LOADING_STEPS = ("LoadPointsFromFile", "LoadPointsFromMultiSweeps", "PointsRangeFilter")
# Steps of a test pipeline that leave the points as they are (or, in test-time augmentation, are set to do nothing).
_PASSIVE_STEPS = frozenset(
    {"Pack3DDetInputs", "LoadAnnotations3D", "MultiScaleFlipAug3D", "GlobalRotScaleTrans", "RandomFlip3D"}
)


def point_loading(config: TrainingConfig) -> PointLoading:
    """How the training config's test pipeline loads points.

    Raises:
        ConfigError: it has no such pipeline, or a step that this tool does not know.
    """
    where = str(config.path)
    steps = {short_name(step["type"]): step for step in config.pipeline if isinstance(step.get("type"), str)}
    if "PointOffset" in steps and not _moves(steps["PointOffset"]):
        del steps["PointOffset"]
    unknown = sorted(set(steps) - _PASSIVE_STEPS - set(_LOADING_STEPS))
    if unknown:
        raise ConfigError(
            f"the test pipeline has the steps {', '.join(unknown)}, which the runtime does not know",
            where=where,
            hint="deploy with a config whose test pipeline does without them",
        )
    load, merge, limits = (steps.get(name) for name in _LOADING_STEPS)
    if load is None:
        raise ConfigError(
            "has no test pipeline with LoadPointsFromFile, so how points are loaded is unknown",
            where=where,
            hint="define test_dataloader.dataset.pipeline or test_pipeline",
        )
    if merge is not None and not merge.get("test_mode", False):
        _log.info("the test pipeline draws sweeps at random (no test_mode); here the most recent ones are taken")
    load_dim, columns = int(load.get("load_dim", 6)), _columns(load.get("use_dim", [0, 1, 2]))
    changed = [name for name in ("shift_height", "use_color", "norm_elongation") if load.get(name)]
    if changed:
        raise ConfigError(f"LoadPointsFromFile has {changed[0]}, which the runtime does not know", where=where)
    if merge is not None:
        if columns != tuple(range(load_dim)) or int(merge.get("load_dim", 5)) != load_dim:
            raise ConfigError(
                f"LoadPointsFromMultiSweeps takes points of {merge.get('load_dim', 5)} columns, "
                f"LoadPointsFromFile gives {len(columns)} of {load_dim}",
                where=where,
                hint="give both the same load_dim, and LoadPointsFromFile use_dim equal to it",
            )
        columns = _columns(merge.get("use_dim", [0, 1, 2, 4]))
    try:
        return PointLoading(
            load_dim=load_dim,
            use_dim=columns,
            merge_sweeps=merge is not None,
            sweeps_num=int(merge.get("sweeps_num", 10)) if merge is not None else 0,
            remove_close=bool(merge.get("remove_close", False)) if merge is not None else False,
            pad_empty_sweeps=bool(merge.get("pad_empty_sweeps", False)) if merge is not None else False,
            range_filter=_box_range(limits["point_cloud_range"]) if limits is not None else None,
            norm_intensity=bool(load.get("norm_intensity", False)),
        )
    except ValueError as error:
        raise ConfigError(f"the test pipeline can't be deployed: {error}", where=where) from error


def point_parameters(loading: PointLoading) -> dict[str, Any]:
    """How points are loaded, as JSON."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(loading).items()}


def voxel_parameters(model: Any, config: TrainingConfig, columns: int) -> dict[str, Any]:
    """The points of a model of voxels and their grid, as `runtime.lidar.grid.VoxelizedPoints` has them.

    Args:
        model: with mmdet3d's ``data_preprocessor``.
        config: its training config.
        columns: of a point, that the voxel encoder takes.

    Raises:
        ConfigError: the config does not say how points are loaded, or loads other columns.
    """
    voxels, loading = model.data_preprocessor.voxel_layer, point_loading(config)
    if len(loading.use_dim) != columns:
        raise ConfigError(
            f"the test pipeline loads {len(loading.use_dim)} columns {list(loading.use_dim)}, the voxel encoder takes "
            f"{columns} (in_channels)",
            where=str(config.path),
        )
    point_range = [float(value) for value in voxels.point_cloud_range]
    voxel_size = [float(value) for value in voxels.voxel_size]
    # As mmdet3d rounds it: in float32.
    low, high = np.asarray(point_range, np.float32).reshape(2, 3)
    return {
        "point_cloud_range": point_range,
        "voxel_size": voxel_size,
        "grid_size": [int(cells) for cells in np.round((high - low) / np.asarray(voxel_size, np.float32))],
        "max_points_per_voxel": int(voxels.max_num_points),
        # mmdet3d keeps two limits: the first is for training.
        "max_voxels": int(voxels.max_voxels[1]),
        "points": point_parameters(loading),
    }


def _moves(offset: Mapping[str, Any]) -> bool:
    """Whether AWML's PointOffset, which corrects the mounting of one lidar, changes anything."""
    return any([*offset.get("offset", ()), *offset.get("rotation", ())])


def _columns(use_dim: int | Sequence[int]) -> tuple[int, ...]:
    """mmdet3d's ``use_dim``: columns, or how many of the first."""
    return tuple(range(use_dim)) if isinstance(use_dim, int) else tuple(int(column) for column in use_dim)


def _box_range(values: Sequence[float]) -> tuple[float, float, float, float, float, float]:
    x0, y0, z0, x1, y1, z1 = (float(value) for value in values)
    return x0, y0, z0, x1, y1, z1

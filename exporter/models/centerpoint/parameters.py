"""What the runtime needs to know of a CenterPoint: ranges, voxels, decoration, decoding and suppression."""

from __future__ import annotations

from typing import Any

import numpy as np

from exporter.lidar.points import voxel_parameters
from exporter.models.centerpoint.options import Options
from exporter.models.centerpoint.outputs import answers_on_y_axis, output_names
from exporter.training_config import TrainingConfig
from shared.errors import ConfigError


def out_size_factors(model: Any) -> list[int]:
    """Voxels per output cell of every task, along either axis.

    Raises:
        ConfigError: one is less than 1, or there are not as many as tasks.
    """
    where = "pts_bbox_head.bbox_coder.out_size_factor"
    given, tasks = model.pts_bbox_head.bbox_coder.out_size_factor, len(model.pts_bbox_head.task_heads)
    factors = [int(factor) for factor in given] if isinstance(given, (list, tuple)) else [int(given)] * tasks
    if len(factors) != tasks:
        raise ConfigError(f"has {len(factors)} values for {tasks} tasks", where=where)
    if min(factors) < 1:
        raise ConfigError(f"is {min(factors)}; should be at least 1", where=where)
    return factors


def parameters(model: Any, config: TrainingConfig, options: Options) -> dict[str, Any]:
    """Ranges, voxels, decoration, decoding and suppression, as the model has them.

    Raises:
        ConfigError: parts of the training config contradict one another, or it does not say how points are loaded.
    """
    where, head, coder = str(config.path), model.pts_bbox_head, model.pts_bbox_head.bbox_coder
    decoration = _decoration(model.pts_voxel_encoder, config)
    voxels = voxel_parameters(model, config, decoration["raw_features"])
    _check_consistency(model, voxels["point_cloud_range"], voxels["voxel_size"], voxels["grid_size"], where)
    test, factors = head.test_cfg, out_size_factors(model)
    radius = [float(value) for value in test["min_radius"]]
    if len(radius) != len(head.task_heads):
        raise ConfigError(
            f"test_cfg.pts.min_radius has {len(radius)} values for {len(head.task_heads)} tasks", where=where
        )
    return {
        **voxels,
        "decoration": decoration,
        "encoder_channels": int(model.pts_middle_encoder.in_channels),
        "out_size_factor": factors[0],
        "norm_bbox": bool(head.norm_bbox),
        "rot_y_axis_reference": answers_on_y_axis(model, options),
        "bbox_coder": {
            "max_num": int(coder.max_num),
            # A threshold of 0 is none, as in mmdet3d.
            "score_threshold": float(coder.score_threshold) if coder.score_threshold else None,
            "post_center_range": [float(value) for value in coder.post_center_range],
        },
        "nms": {
            "type": "circle",
            "radius": radius,
            "pre_max_size": None,
            "post_max_size": int(test["post_max_size"]),
        },
        "tasks": [
            {
                "classes": list(names),
                "outputs": dict(outputs),
                **({} if factor == factors[0] else {"out_size_factor": factor}),
            }
            for names, outputs, factor in zip(head.class_names, output_names(model), factors, strict=True)
        ],
    }


def _check_consistency(
    model: Any, point_range: list[float], voxel_size: list[float], grid: list[int], where: str
) -> None:
    """A training config has the same quantity in several places; they must agree, or nothing downstream is right.

    Raises:
        ConfigError: they don't.
    """
    encoder, scatter, coder = model.pts_voxel_encoder, model.pts_middle_encoder, model.pts_bbox_head.bbox_coder
    pairs: dict[str, tuple[list[float], list[float]]] = {
        "the voxel encoder's point_cloud_range": ([float(v) for v in encoder.point_cloud_range], point_range),
        "the voxel encoder's voxel_size": ([float(encoder.vx), float(encoder.vy)], voxel_size[:2]),
        "the box coder's pc_range": ([float(v) for v in coder.pc_range[:2]], point_range[:2]),
        "the box coder's voxel_size": ([float(v) for v in coder.voxel_size[:2]], voxel_size[:2]),
        "the scatter's output_shape (y, x)": ([scatter.ny, scatter.nx], [grid[1], grid[0]]),
    }
    for what, (actual, expected) in pairs.items():
        if not np.allclose(actual, expected, rtol=0, atol=1e-6):
            raise ConfigError(f"{what} is {actual}, the data preprocessor's voxel layer says {expected}", where=where)
    if grid[2] != 1:
        raise ConfigError(f"the grid has {grid[2]} cells along z; pillars have one", where=where)


def _decoration(encoder: Any, config: TrainingConfig) -> dict[str, Any]:
    section = config.model["pts_voxel_encoder"]
    raw = int(section.get("in_channels", 4))
    cluster = bool(section.get("with_cluster_center", True))
    distance = bool(section.get("with_distance", False))
    # The layers' own width says how many offsets to the center there are: 3, 2 (AWML's Backward type) or none.
    offsets = encoder.pfn_layers[0].linear.in_features - raw - 3 * cluster - distance
    centers = {3: "xyz", 2: "xy", 0: "none"}
    if offsets not in centers:
        raise ConfigError(
            f"the voxel encoder {section['type']} has {offsets} features beside the known ones", where=str(config.path)
        )
    return {
        "raw_features": raw,
        "cluster_center": cluster,
        "voxel_center": centers[offsets],
        "distance": distance,
        "legacy": bool(encoder.legacy),
    }

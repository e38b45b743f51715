"""What the runtime must know: how points are loaded and voxelized, and how boxes are decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from awml_deploy_transfusion.groups import MOST_KEPT, SUPPRESSED
from exporter.lidar.points import voxel_parameters
from exporter.training_config import TrainingConfig
from shared.errors import ConfigError


def decoration(model: Any, config: TrainingConfig) -> dict[str, bool]:
    """What the pillar encoder adds to a point, which it does itself here: part of the network, not of the runtime."""
    section = config.model["pts_voxel_encoder"]
    return {
        "cluster_center": bool(section.get("with_cluster_center", True)),
        "voxel_center": bool(section.get("with_voxel_center", True)),
        "distance": bool(section.get("with_distance", False)),
        "legacy": bool(model.pts_voxel_encoder.legacy),
    }


def parameters(model: Any, config: TrainingConfig) -> dict[str, Any]:
    """Ranges, voxels, decoding and suppression, as the model has them.

    Raises:
        ConfigError: parts of the training config contradict one another, or it does not say how points are loaded.
    """
    coder, test = model.pts_bbox_head.bbox_coder, model.pts_bbox_head.test_cfg
    voxels = voxel_parameters(model, config, int(config.model["pts_voxel_encoder"].get("in_channels", 4)))
    _check(model, voxels["point_cloud_range"], voxels["voxel_size"], voxels["grid_size"], str(config.path))
    groups = SUPPRESSED[test["dataset"]] if test["nms_type"] == "circle" else {}
    return {
        **voxels,
        "out_size_factor": int(coder.out_size_factor),
        "post_center_range": [float(value) for value in coder.post_center_range],
        # A threshold of 0 is none, as in AWML.
        "score_threshold": float(coder.score_threshold) if coder.score_threshold else None,
        "circle_nms": [{"label": label, "radius": radius, "most": MOST_KEPT} for label, radius in groups.items()],
    }


def _check(model: Any, point_range: list[float], voxel_size: list[float], grid: list[int], where: str) -> None:
    """A training config has the same quantity in several places; they must agree, or nothing downstream is right."""
    encoder, scatter, head = model.pts_voxel_encoder, model.pts_middle_encoder, model.pts_bbox_head
    coder = head.bbox_coder
    pairs: dict[str, tuple[Sequence[float], Sequence[float]]] = {
        "the voxel encoder's point_cloud_range": ([float(v) for v in encoder.point_cloud_range], point_range),
        "the voxel encoder's voxel_size": ([encoder.vx, encoder.vy, encoder.vz], voxel_size),
        "the box coder's pc_range": ([float(v) for v in coder.pc_range[:2]], point_range[:2]),
        "the box coder's voxel_size": ([float(v) for v in coder.voxel_size[:2]], voxel_size[:2]),
        "the scatter's output_shape (y, x)": ([scatter.ny, scatter.nx], [grid[1], grid[0]]),
        "test_cfg.pts.grid_size (x, y)": ([int(v) for v in head.test_cfg["grid_size"][:2]], grid[:2]),
        "test_cfg.pts.out_size_factor": ([head.test_cfg["out_size_factor"]], [coder.out_size_factor]),
    }
    for what, (actual, expected) in pairs.items():
        if not np.allclose(actual, expected, rtol=0, atol=1e-6):
            raise ConfigError(f"{what} is {actual}, elsewhere the config says {expected}", where=where)
    if grid[2] != 1:
        raise ConfigError(f"the grid has {grid[2]} cells along z; pillars have one", where=where)

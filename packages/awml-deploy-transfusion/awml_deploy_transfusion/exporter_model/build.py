"""The TransFusion of a training config."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from awml_deploy_transfusion.groups import SUPPRESSED
from exporter.training_config import TrainingConfig, build_model, classes_of_head
from shared.errors import ConfigError

_TYPES = {
    "pts_voxel_encoder": "PillarFeatureNet",
    "pts_middle_encoder": "PointPillarsScatter",
    "pts_bbox_head": "TransFusionHead",
}


def build(config: TrainingConfig) -> Any:
    """The network with random weights.

    Raises:
        ConfigError: not a TransFusion on pillars, or a variant that can't be deployed.
    """
    _check(config)
    # Targets are training's business, and AWML's own head would build what it needs for them.
    return build_model(replace(config, model={**config.model, "train_cfg": None}))


def class_names(config: TrainingConfig) -> list[str]:
    """Class names in label order.

    Raises:
        ConfigError: the config and the data set name others than the head has.
    """
    return classes_of_head(config, int(config.model["pts_bbox_head"].get("num_classes", 4)))


def _check(config: TrainingConfig) -> None:
    section, where = config.model, str(config.path)
    if section.get("type") != "TransFusion":
        raise ConfigError(f"model is a {section.get('type')}, not a TransFusion", where=where, hint="check model.type")
    for name, known in _TYPES.items():
        actual = (section.get(name) or {}).get("type")
        if actual != known:
            raise ConfigError(f"{name} is {actual}; a TransFusion on pillars has {known}", where=where)
    if section.get("img_backbone"):
        raise ConfigError("has a camera branch; TransFusion on points alone can be deployed", where=where)
    preprocessor, head = section.get("data_preprocessor") or {}, section["pts_bbox_head"]
    if not preprocessor.get("voxel") or preprocessor.get("voxel_type", "hard") != "hard":
        raise ConfigError("data_preprocessor does not voxelize points, or not into voxels of a fixed size", where=where)
    if section["pts_voxel_encoder"].get("mode", "max") != "max":
        raise ConfigError("pts_voxel_encoder averages over points; only mode='max' can be deployed", where=where)
    kernel = head.get("nms_kernel_size", 1)
    if kernel < 3 or kernel % 2 == 0:
        raise ConfigError(f"pts_bbox_head.nms_kernel_size is {kernel}; it must be odd, and at least 3", where=where)
    if not (head.get("loss_cls") or {}).get("use_sigmoid"):
        raise ConfigError("pts_bbox_head scores 'none of the classes' too (loss_cls.use_sigmoid)", where=where)
    if not (head.get("bbox_coder") or {}).get("post_center_range"):
        raise ConfigError("the box coder has no post_center_range", where=where)
    missing = sorted({"center", "height", "dim", "rot"} - set(head.get("common_heads") or {}))
    if missing:
        raise ConfigError(f"pts_bbox_head.common_heads lacks {', '.join(missing)}", where=where)
    test = (section.get("test_cfg") or {}).get("pts") or {}
    width, height = (test.get("grid_size") or (0, 1))[:2]
    if width != height:
        raise ConfigError(
            f"test_cfg.pts.grid_size is {width} x {height}; AWML's head mixes up rows and columns unless it is square",
            where=where,
        )
    nms = test.get("nms_type")
    if nms is not None and (nms != "circle" or test.get("dataset") not in SUPPRESSED):
        raise ConfigError(
            f"test_cfg.pts has nms_type '{nms}' for the data set {test.get('dataset')}",
            where=where,
            hint=f"known: none, or circle for {', '.join(SUPPRESSED)}",
        )

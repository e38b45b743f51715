"""The CenterPoint of a training config."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from exporter.models.centerpoint.options import Options
from exporter.training_config import TrainingConfig, build_model, registry_of, unknown_type
from shared.errors import ConfigError

# Types whose layers and decoding this module knows; AWML's deployment writes those with ONNX into the configs it dumps.
_TYPES = {
    "pts_voxel_encoder": (
        "PillarFeatureNet", "CustomPillarFeatureNet", "BackwardPillarFeatureNet", "PillarFeatureNetONNX",
        "BackwardPillarFeatureNetONNX",
    ),
    "pts_middle_encoder": ("PointPillarsScatter",),
    "pts_bbox_head": ("CenterHead", "MultiHeadCenterHead", "CenterHeadONNX"),
}  # fmt: skip


def build(config: TrainingConfig, options: Options) -> Any:
    """The CenterPoint of a training config, with random weights.

    Raises:
        ConfigError: not a CenterPoint on pillars, or a variant that can't be deployed.
    """
    _check_variant(config)
    model = build_model(replace(config, model={**config.model, "type": "CenterPoint"}))
    head = model.pts_bbox_head
    if options.nms_type is not None:
        head.test_cfg["nms_type"] = options.nms_type
    if head.test_cfg.get("nms_type") != "circle":
        radius = head.test_cfg.get("min_radius")
        radii = (
            f"to use it, with the config's own min_radius {radius}, add"
            if radius is not None
            else "to use it, add min_radius, one for each task, to test_cfg.pts, and"
        )
        raise ConfigError(
            f"test_cfg.pts.nms_type is '{head.test_cfg.get('nms_type')}'; the runtime has circle suppression",
            where=str(config.path),
            hint=f"{radii} --set model.options.nms_type=circle",
        )
    return model


def classes(model: Any) -> list[str]:
    """Class names of all tasks, in label order."""
    return [name for names in model.pts_bbox_head.class_names for name in names]


def _check_variant(config: TrainingConfig) -> None:
    """A training config's model section, before it is built.

    Raises:
        ConfigError: not a CenterPoint on pillars, or a variant that can't be deployed.
    """
    section, where = config.model, str(config.path)
    if section.get("type") not in ("CenterPoint", "CenterPointONNX"):
        raise ConfigError(f"model is a {section.get('type')}, not a CenterPoint", where=where, hint="check model.type")
    parts = {name: section.get(name) or {} for name in (*_TYPES, "data_preprocessor")}
    for name, known in _TYPES.items():
        actual = parts[name].get("type")
        if actual not in known:
            if actual is not None and registry_of("mmdet3d").get(actual) is None:
                raise unknown_type(config, actual)
            raise ConfigError(
                f"{name} is {actual}; only a CenterPoint on pillars can be deployed",
                where=where,
                hint=f"known for {name}: {', '.join(known)}",
            )
    preprocessor, encoder, head = parts["data_preprocessor"], parts["pts_voxel_encoder"], parts["pts_bbox_head"]
    if not preprocessor.get("voxel") or preprocessor.get("voxel_type", "hard") != "hard":
        raise ConfigError("data_preprocessor does not voxelize points, or not into voxels of a fixed size", where=where)
    if encoder.get("mode", "max") != "max":
        raise ConfigError("pts_voxel_encoder averages over points; only mode='max' can be deployed", where=where)
    if head.get("separate_head", {}).get("type") == "DCNSeparateHead":
        raise ConfigError(
            "the head has deformable convolutions, which are not exported here",
            where=where,
            hint="train it with SeparateHead; ONNX has them from opset 19 on (DeformConv), PyTorch's exporters don't",
        )
    if not (section.get("test_cfg") or {}).get("pts"):
        raise ConfigError("has no test_cfg.pts, so how boxes are suppressed is unknown", where=where)
    if not head.get("bbox_coder", {}).get("post_center_range"):
        raise ConfigError("the box coder has no post_center_range, which mmdet3d needs", where=where)

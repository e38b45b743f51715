"""What the parameter files of Autoware's nodes hold, by release of autoware_universe, as JSON schemas.

Written from facts: keys, types and ranges were read in the schemas, parameter files and sources of autoware_universe
0.52 and 0.53 and of autoware_launch (docs/autoware.md says which). ROS tells integers from floats, and JSON schema's
``number`` does not, so `problems` adds that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema

TEXT, BOOL = {"type": "string"}, {"type": "boolean"}
INTEGER, FLOAT = {"type": "integer"}, {"type": "number"}
UNIT = {"type": "number", "minimum": 0.0, "maximum": 1.0}
POSITIVE = {"type": "integer", "minimum": 1}


def _array(items: dict[str, Any], count: int | None = None) -> dict[str, Any]:
    exact = {} if count is None else {"minItems": count, "maxItems": count}
    return {"type": "array", "items": items, "minItems": 1, **exact}


def _exactly(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_MODEL_PARAMETERS = {
    "class_names": {**_array(TEXT), "uniqueItems": True},
    "has_twist": BOOL,
    "point_feature_size": INTEGER,
    "has_variance": BOOL,
    "max_voxel_size": INTEGER,
    "point_cloud_range": _array(FLOAT, 6),
    "voxel_size": _array(FLOAT, 3),
    "downsample_factor": POSITIVE,
    "encoder_in_feature_size": INTEGER,
    "detection_score_thresholds": _exactly(
        {
            "distance_bin_upper_limits": _array(FLOAT),
            "min_confidence_scores": {"type": "object", "additionalProperties": _array(FLOAT)},
        }
    ),
}
_NETWORK_FILES = {
    "encoder_onnx_path": TEXT,
    "encoder_engine_path": TEXT,
    "head_onnx_path": TEXT,
    "head_engine_path": TEXT,
    "trt_precision": {"enum": ["fp32", "fp16"]},
}
_REMAPPER = _exactly(
    {
        "allow_remapping_by_area_matrix": _array({"type": "integer", "minimum": 0, "maximum": 1}, 64),
        "min_area_matrix": _array({"type": "number", "minimum": 0.0}, 64),
        "max_area_matrix": _array({"type": "number", "minimum": 0.0}, 64),
    }
)
_YOLOX = _exactly(
    {
        "score_threshold": UNIT,
        "nms_threshold": UNIT,
        "precision": TEXT,
        "calibration_algorithm": TEXT,
        "dla_core_id": INTEGER,
        "quantize_first_layer": BOOL,
        "quantize_last_layer": BOOL,
        "profile_per_layer": BOOL,
        "clip_value": FLOAT,
        "gpu_id": INTEGER,
        "calibration_image_list_path": TEXT,
        "is_roi_overlap_segmentation": BOOL,
        "overlap_roi_score_threshold": FLOAT,
        "is_publish_color_mask": BOOL,
    }
)
_CALIBRATION = _exactly(
    {"max_depth": FLOAT, "dilation_size": INTEGER, "height": _array(INTEGER, 3), "width": _array(INTEGER, 3)}
)

# By release: file name of a CenterPoint called "centerpoint", a YOLOX or a calibration classifier, to its schema.
SCHEMAS = {
    "0.53": {
        "ml_package.param.yaml": _exactly(
            {
                "version": {"type": "string", "pattern": r"^v?[0-9]+\.[0-9]+$"},
                **_NETWORK_FILES,
                "class_remapper_param_path": TEXT,
                "model_params": _exactly({**_MODEL_PARAMETERS, "yaw_norm_thresholds": _array(UNIT)}),
            }
        ),
        "detection_class_remapper.param.yaml": _REMAPPER,
        "yolox_s_plus_opt.param.yaml": _YOLOX,
        "ml_package_calibration_status_classifier.param.yaml": _CALIBRATION,
    },
    "0.52": {
        "centerpoint_ml_package.param.yaml": _exactly({"model_params": _exactly(_MODEL_PARAMETERS)}),
        "centerpoint.param.yaml": _exactly(
            {
                **_NETWORK_FILES,
                "cloud_capacity": POSITIVE,
                "post_process_params": _exactly(
                    {
                        "circle_nms_dist_threshold": {"type": "number", "minimum": 0.0},
                        "iou_nms_search_distance_2d": {"type": "number", "minimum": 0.0},
                        "iou_nms_threshold": UNIT,
                        "yaw_norm_thresholds": _array(UNIT),
                    }
                ),
                "densification_params": _exactly(
                    {"world_frame_id": TEXT, "num_past_frames": {"type": "integer", "minimum": 0}}
                ),
            }
        ),
        "detection_class_remapper.param.yaml": _REMAPPER,
        "yolox_s_plus_opt.param.yaml": _YOLOX,
        "ml_package_calibration_status_classifier.param.yaml": _CALIBRATION,
    },
}  # fmt: skip


def problems(content: Any, schema: dict[str, Any]) -> list[str]:
    """What a ROS node would not take of a parameter file's content, a line each."""
    wrapped = _exactly({"/**": _exactly({"ros__parameters": schema})})
    errors = jsonschema.Draft7Validator(wrapped).iter_errors(content)
    found = [f"{error.json_path}: {error.message}" for error in errors]
    return found or list(_integers_for_floats(content, wrapped, "$"))


def _integers_for_floats(value: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
    if schema.get("type") == "number" and type(value) is int:
        yield f"{path}: {value} is an integer to ROS, the node declares a float"
    elif isinstance(value, dict):
        for key, item in value.items():
            below = schema.get("properties", {}).get(key) or schema.get("additionalProperties") or {}
            yield from _integers_for_floats(item, below, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _integers_for_floats(item, schema.get("items", {}), f"{path}[{index}]")

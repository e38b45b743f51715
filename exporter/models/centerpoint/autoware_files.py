"""The parameter files of autoware_lidar_centerpoint, as its schemas have them (docs/autoware.md)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from exporter.autoware import Precision

Unit = Annotated[float, Field(ge=0, le=1)]
Six = Annotated[list[float], Field(min_length=6, max_length=6)]


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ScoreThresholds(_Exact):
    """Least score per class and distance bin."""

    distance_bin_upper_limits: list[float]
    min_confidence_scores: dict[str, list[Unit]]


class ModelParameters(_Exact):
    """``model_params`` of the node's schema, 0.52."""

    class_names: list[str]
    has_twist: bool
    point_feature_size: int
    has_variance: bool
    max_voxel_size: int
    point_cloud_range: Six
    voxel_size: Annotated[list[float], Field(min_length=3, max_length=3)]
    downsample_factor: int = Field(ge=1)
    encoder_in_feature_size: int
    detection_score_thresholds: ScoreThresholds


class ModelParametersWithYaw(ModelParameters):
    """``model_params`` since 0.53."""

    yaw_norm_thresholds: list[Unit]


class NetworkFiles(_Exact):
    """The files of the two networks, and what they are built in."""

    encoder_onnx_path: str
    encoder_engine_path: str
    head_onnx_path: str
    head_engine_path: str
    trt_precision: Precision


class MlPackage(NetworkFiles):
    """``ml_package.param.yaml`` since 0.53, with paths relative to it."""

    version: str = Field(pattern=r"^v?[0-9]+\.[0-9]+$")
    class_remapper_param_path: str
    model_params: ModelParametersWithYaw


class PostProcessing(_Exact):
    """``post_process_params`` of 0.52: the node's own defaults, and the thresholds of the model's classes."""

    circle_nms_dist_threshold: float = 0.5
    iou_nms_search_distance_2d: float = 10.0
    iou_nms_threshold: float = 0.1
    yaw_norm_thresholds: list[Unit]


class Densification(_Exact):
    """``densification_params`` of 0.52."""

    world_frame_id: str = "map"
    num_past_frames: int = Field(ge=0)


class NodeParameters(NetworkFiles):
    """``<model_name>.param.yaml`` of 0.52, in which launch files replace ``$(var …)``."""

    cloud_capacity: int = 2_000_000
    post_process_params: PostProcessing
    densification_params: Densification

"""The bundle of autoware_lidar_transfusion."""

from __future__ import annotations

from typing import Any

import pytest
from awml_deploy_transfusion.exporter_model.autoware import bundle
from awml_deploy_transfusion.names import COMPONENT, INPUTS, OUTPUTS, VOXELS_AXIS

from exporter.autoware import Bundle, BundleOptions
from exporter.autoware.refusals import NodeRefuses
from shared.errors import ManifestError, UsageError
from shared.spec import AxisSizes, ComponentSpec, ModelSpec, TensorSpec

CLASSES = ["car", "truck", "bus", "bicycle", "pedestrian"]


def spec(classes: list[str] = CLASSES, slots: int = 20, **changes: Any) -> ModelSpec:
    """AWML's 90 m model."""
    inputs: list[list[int | str]] = [[VOXELS_AXIS, slots, 5], [VOXELS_AXIS], [VOXELS_AXIS, 4]]
    outputs: list[list[int | str]] = [[1, len(classes), 500], [1, 8, 500], [1, 2, 500]]
    network = ComponentSpec(
        name=COMPONENT,
        inputs=[
            TensorSpec(name=name, dtype=dtype, shape=shape)
            for name, dtype, shape in zip(INPUTS, ("float32", "int32", "int32"), inputs, strict=True)
        ],
        outputs=[
            TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in zip(OUTPUTS, outputs, strict=True)
        ],
        onnx="onnx/transfusion.onnx",
        axes={VOXELS_AXIS: AxisSizes(min=1, opt=30000, max=60000, counter="voxels")},
    )
    parameters = {
        "point_cloud_range": [-92.16, -92.16, -3, 92.16, 92.16, 7],
        "voxel_size": [0.24, 0.24, 10],
        "points": {"sweeps_num": 1},
        "out_size_factor": 4,
        **changes,
    }
    return ModelSpec(
        model="transfusion", task="detection3d", classes=classes, components=[network], parameters=parameters
    )


def made(model: ModelSpec, **options: Any) -> Bundle:
    return bundle(model, {"tensorrt": {"precision_policy": "fp16"}}, BundleOptions(**options))


def test_the_bundle_has_what_the_node_declares() -> None:
    files = made(spec(), score_thresholds={"": (0.2,)}).parameters
    assert files["transfusion_ml_package.param.yaml"] == {
        "class_names": ["CAR", "TRUCK", "BUS", "BICYCLE", "PEDESTRIAN"],
        "voxels_num": [5000, 30000, 60000],
        "point_cloud_range": [-92.16, -92.16, -3.0, 92.16, 92.16, 7.0],
        "voxel_size": [0.24, 0.24, 10.0],
        "num_proposals": 500,
    }
    node = files["transfusion.param.yaml"]
    assert set(node) == {
        "trt_precision", "cloud_capacity", "onnx_path", "engine_path", "densification_num_past_frames",
        "densification_world_frame_id", "circle_nms_dist_threshold", "iou_nms_search_distance_2d", "iou_nms_threshold",
        "yaw_norm_thresholds", "score_threshold",
    }  # fmt: skip
    assert (node["trt_precision"], node["score_threshold"], node["densification_num_past_frames"]) == ("fp16", 0.2, 1)
    assert node["yaw_norm_thresholds"] == [0.3, 0.3, 0.3, 0.3, 0.0]
    assert {len(cells) for cells in files["detection_class_remapper.param.yaml"].values()} == {64}
    # ROS tells whole numbers from others.
    assert all(type(value) is float for value in files["transfusion_ml_package.param.yaml"]["point_cloud_range"])


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (spec(slots=32), "voxels are"),
        (spec(classes=CLASSES[:4]), "4 classes"),
        (spec(classes=[*CLASSES[:4], "robot"]), "ROBOT"),
        (spec(out_size_factor=2), "out_size_factor is 2"),
        (spec(points={"sweeps_num": 1, "norm_intensity": True}), "intensities"),
    ],
)
def test_what_the_node_would_misread_is_refused(model: ModelSpec, said: str) -> None:
    with pytest.raises(NodeRefuses, match=said):
        made(model)


def test_options_without_a_value_at_the_node_are_refused() -> None:
    with pytest.raises(UsageError, match="one threshold"):
        made(spec(), score_thresholds={"CAR": (0.3,)})
    with pytest.raises(UsageError, match="strongly-typed"):
        made(spec(), precision="strongly-typed")


def test_a_spec_that_lacks_a_parameter_is_named() -> None:
    whole = spec()
    rest = {name: value for name, value in whole.parameters.items() if name != "voxel_size"}
    with pytest.raises(ManifestError, match="voxel_size"):
        made(whole.model_copy(update={"parameters": rest}))

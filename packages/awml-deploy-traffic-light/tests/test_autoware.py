"""The bundle of autoware_traffic_light_classifier."""

from __future__ import annotations

from typing import Any

import pytest
from awml_deploy_traffic_light.demo_lamps import CAR_CLASSES, PEDESTRIAN_CLASSES
from awml_deploy_traffic_light.exporter_model.autoware import bundle
from awml_deploy_traffic_light.names import COMPONENT, INPUT, OUTPUT

from exporter.autoware import Bundle, BundleOptions
from exporter.autoware.refusals import NodeRefuses
from shared.errors import UsageError
from shared.spec import ComponentSpec, ModelSpec, TensorSpec

FIT = {"step": "resize", "width": 224, "height": 224, "keep_ratio": True, "library": "pillow"}
IMAGE = {"color": "rgb", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375],
         "steps": [FIT, {"step": "pad", "fill": 0}]}  # fmt: skip


def spec(classes: tuple[str, ...] = CAR_CLASSES, batch: int | str = 6, **image: Any) -> ModelSpec:
    """AWML's."""
    network = ComponentSpec(
        name=COMPONENT,
        inputs=[TensorSpec(name=INPUT, dtype="float32", shape=[batch, 3, 224, 224])],
        outputs=[TensorSpec(name=OUTPUT, dtype="float32", shape=[batch, len(classes)])],
        onnx="onnx/classifier.onnx",
    )
    return ModelSpec(
        model="traffic_light", task="classification", classes=list(classes), components=[network],
        parameters={"image": {**IMAGE, **image}},
    )  # fmt: skip


def made(model: ModelSpec, **options: Any) -> Bundle:
    return bundle(model, {"tensorrt": {"precision_policy": "fp16"}}, BundleOptions(**options))


def test_lights_of_cars_get_the_files_that_autoware_loads() -> None:
    result = made(spec())
    assert list(result.onnx) == ["traffic_light_classifier_mobilenetv2_batch_6.onnx"]
    assert result.texts == {"lamp_labels.txt": "".join(f"{name}\n" for name in CAR_CLASSES)}
    assert result.parameters == {
        "car_traffic_light_classifier.param.yaml": {
            "approximate_sync": False,
            "precision": "fp16",
            "mean": [123.675, 116.28, 103.53],
            "std": [58.395, 57.12, 57.375],
            "over_exposure_threshold": 0.85,
            "under_exposure_threshold": -0.83,
            "traffic_light_type": 0,
            "score_threshold": 0.2,
            "nms_threshold": 0.2,
            "max_batch_size": 64,
        }
    }


def test_lights_of_pedestrians_get_labels_that_the_node_reads() -> None:
    result = made(spec(PEDESTRIAN_CLASSES, batch=1))
    assert list(result.onnx) == ["ped_traffic_light_classifier_mobilenetv2_batch_1.onnx"]
    assert result.texts == {"lamp_labels_ped.txt": "red\ngreen\nunknown\n"}
    (parameters,) = result.parameters.values()
    assert parameters["traffic_light_type"] == 1


def test_a_model_that_is_evaluated_as_the_node_scales_has_no_note_of_it() -> None:
    assert any("scales images otherwise" in note for note in made(spec()).notes)
    as_the_node = [{**FIT, "cut_off": True}, {"step": "pad", "width": 224, "height": 224}]
    assert not any("scales images otherwise" in note for note in made(spec(steps=as_the_node)).notes)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (spec(batch="batch_size"), "any number of images"),
        (spec(color="bgr"), "red, green, blue"),
        (spec(steps=[{"step": "resize", "width": 224, "height": 224}]), "fitted in"),
        (spec(steps=[FIT, {"step": "pad", "fill": 114}]), "fitted in"),
        (spec(("red", "purple-left", "left,blinking")), "purple-left, left,blinking"),
        (spec((*CAR_CLASSES, *PEDESTRIAN_CLASSES)), "cars and pedestrians"),
    ],
)
def test_what_the_node_would_misread_is_refused(model: ModelSpec, said: str) -> None:
    with pytest.raises(NodeRefuses, match=said):
        made(model)


def test_options_without_a_value_at_the_node_are_refused() -> None:
    with pytest.raises(UsageError, match="threshold"):
        made(spec(), score_thresholds={"": (0.3,)})
    with pytest.raises(UsageError, match="strongly-typed"):
        made(spec(), precision="strongly-typed")

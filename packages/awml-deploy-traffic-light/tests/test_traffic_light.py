"""The classifier against mmcv, and by what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import awml_deploy_traffic_light
import numpy as np
import onnx
import pytest
import torch
from awml_deploy_traffic_light.demo_data import CLASSES, frame
from awml_deploy_traffic_light.demo_lamps import CAR_CLASSES
from awml_deploy_traffic_light.exporter_model import adapter
from awml_deploy_traffic_light.exporter_model.network import ImageClassifier, Probabilities, divisible
from awml_deploy_traffic_light.names import COMPONENT, INPUT, OUTPUT
from awml_deploy_traffic_light.runtime_model.image import ImageInput
from awml_deploy_traffic_light.runtime_model.pipeline import alerts, decided, read_parameters
from awml_deploy_traffic_light.runtime_model.prepare import prepare

from exporter.inspection import inspect
from exporter.quantize.ptq import quantize_ptq
from exporter.training_config import TrainingConfig
from shared.config import load_config
from shared.errors import ConfigError, InferenceError, ManifestError
from shared.qdq_lint import float_sums, lint, quantized_nodes
from shared.spec import ComponentSpec, ModelSpec, TensorSpec
from shared.tasks.classification import softmax

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
FITTED = (
    {"type": "LoadImageFromFile"},
    {"type": "CropROI", "offset": 0.1},
    {"type": "Resize", "scale": 48, "backend": "pillow", "keep_ratio": True},
    {"type": "Pad", "pad_to_square": True},
    {"type": "PackInputs"},
)
PIPELINES = {
    "AWML's": FITTED,
    "ImageNet's": (
        {"type": "ResizeEdge", "scale": 56, "edge": "short"},
        {"type": "CenterCrop", "crop_size": 48},
    ),
    "pillow and bicubic": (
        {
            "type": "mmpretrain.ResizeEdge",
            "scale": 61,
            "edge": "short",
            "backend": "pillow",
            "interpolation": "bicubic",
        },
        {"type": "CenterCrop", "crop_size": (48, 48)},
    ),
    "fixed": ({"type": "Resize", "scale": (48, 48)},),
    "padded": (
        {"type": "Resize", "scale": (40, 48), "keep_ratio": True, "interpolation": "area"},
        {"type": "Pad", "size": (48, 48), "pad_val": {"img": 114}},
    ),
}


def training_config(pipeline: Any = FITTED, preprocessor: Any = None, **model: Any) -> TrainingConfig:
    section = {
        "type": "ImageClassifier",
        "backbone": {"type": "MobileNetV2", "widen_factor": 0.1},
        "neck": {"type": "GlobalAveragePooling"},
        "head": {"type": "LinearClsHead", "in_channels": 1280, "num_classes": 3, "loss": {"type": "CrossEntropyLoss"}},
        "data_preprocessor": {"mean": MEAN, "std": STD, "to_rgb": True} if preprocessor is None else preprocessor,
        **model,
    }
    return TrainingConfig(Path("config.py"), section, tuple(pipeline), classes=("red", "green", "unknown"))


def built(config: TrainingConfig, **options: Any) -> Any:
    torch.manual_seed(0)
    return adapter.build(config, adapter.read_options(options))


# -- the network ------------------------------------------------------------------------------------------------------


def test_the_full_width_has_the_weights_of_the_paper_under_the_names_of_mmpretrain() -> None:
    state = ImageClassifier(1.0, 11).state_dict()
    # 2,223,872 of the backbone (torchvision's and mmpretrain's), and the head.
    assert sum(value.numel() for name, value in state.items() if "running" not in name and "tracked" not in name) == (
        2_223_872 + 1280 * 11 + 11
    )
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert shapes["backbone.conv1.conv.weight"] == (32, 3, 3, 3)
    assert shapes["backbone.layer1.0.conv.0.conv.weight"] == (32, 1, 3, 3)  # no expansion in the first block
    assert shapes["backbone.layer2.0.conv.1.bn.running_mean"] == (96,)
    assert shapes["backbone.layer7.0.conv.2.conv.weight"] == (320, 960, 1, 1)
    assert shapes["backbone.conv2.bn.weight"] == (1280,)
    assert shapes["head.fc.weight"] == (11, 1280)


@pytest.mark.parametrize(("channels", "rounded"), [(3.2, 8), (9.6, 16), (32, 32), (44.8, 48), (41, 40)])
def test_channels_are_rounded_to_eight_and_by_no_more_than_a_tenth(channels: float, rounded: int) -> None:
    assert divisible(channels) == rounded


def test_sums_in_int8_have_int8_on_every_side(tmp_path: Path) -> None:
    """TensorRT 8.6 has no INT8 kernel for others."""
    model, images = built(training_config()), [torch.rand(2, 3, 48, 48)]
    left_out = load_config(Path("traffic_light_int8")).quantization.sensitive_layers
    quantize_ptq(model, images, 1, "max", skip_names=left_out)
    torch.onnx.export(Probabilities(model), (images[0],), str(tmp_path / "int8.onnx"), opset_version=17, dynamo=False)
    graph = onnx.load(str(tmp_path / "int8.onnx"))
    assert (len(quantized_nodes(graph)[0]), lint(graph), float_sums(graph)) == (53, [], [])


def test_an_image_is_a_thirty_second_in_the_last_layer() -> None:
    assert ImageClassifier(0.1, 3).eval().backbone(torch.zeros(1, 3, 96, 64)).shape == (1, 1280, 3, 2)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (training_config(type="ImageClassifier2"), "not an ImageClassifier"),
        (training_config(backbone={"type": "ResNet", "depth": 18}), "backbone is ResNet"),
        (training_config(backbone={"type": "MobileNetV2", "act_cfg": {"type": "ReLU"}}), "backbone.act_cfg"),
        (training_config(head={"type": "LinearClsHead", "in_channels": 640, "num_classes": 3}), "in_channels is 640"),
        (training_config(head={"type": "LinearClsHead", "in_channels": 1280, "num_classes": 4}), "names 3 classes"),
        (training_config([{"type": "Resize", "scale": 48, "keep_ratio": True}]), "leaves the size"),
        (training_config([{"type": "RandomErasing"}]), "RandomErasing"),
        (training_config([{"type": "Pad", "size_divisor": 32}]), "size_divisor"),
    ],
)
def test_what_cannot_be_deployed_is_refused(config: TrainingConfig, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        built(config)


# -- the image --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("preprocessor", [None, {}])
def test_the_input_is_that_of_mmcv_bit_for_bit(name: str, preprocessor: Any) -> None:
    model = built(training_config(PIPELINES[name], preprocessor))
    settings = ImageInput.model_validate(model.deploy.image)
    rng = np.random.default_rng(0)
    for height, width in ((19, 33), (90, 31), (48, 48), (7, 2), (131, 277)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        out = np.zeros((3, settings.height, settings.width), np.float32)
        prepare(image, settings, out)
        wanted = adapter.normalized(model, image)[0].numpy()
        assert np.array_equal(out, wanted)


def test_the_node_fits_images_in_as_it_does() -> None:
    model = built(training_config(), resize="autoware")
    settings = ImageInput.model_validate(model.deploy.image)
    rng = np.random.default_rng(0)
    for height, width in ((19, 33), (90, 31), (131, 277)):
        image = rng.integers(1, 256, (height, width, 3), dtype=np.uint8)
        out = np.zeros((3, 48, 48), np.float32)
        prepare(image, settings, out)
        assert np.array_equal(out, adapter.normalized(model, image)[0].numpy())
        seen = (out * np.array(STD)[:, None, None] + np.array(MEAN)[:, None, None] > 0.5).any(axis=0)
        scale = 48 / max(height, width)
        assert (seen.any(axis=1).sum(), seen.any(axis=0).sum()) == (int(height * scale), int(width * scale))


def test_an_image_of_another_size_after_the_steps_is_named() -> None:
    model = built(training_config([{"type": "CenterCrop", "crop_size": 48}]))
    with pytest.raises(InferenceError, match="20 x 30 is 20 x 30"):
        out = np.zeros((3, 48, 48), np.float32)
        prepare(np.zeros((30, 20, 3), np.uint8), ImageInput.model_validate(model.deploy.image), out)


# -- the answer -------------------------------------------------------------------------------------------------------


def test_scores_are_the_logarithms_of_the_probabilities() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3, 0.0]], np.float32)
    answer = decided(probabilities)
    assert softmax(answer.logits) == pytest.approx(probabilities, abs=1e-7)
    assert answer.labels.tolist() == [1]
    assert np.isfinite(answer.logits).all()


def test_equal_probabilities_are_of_the_first_class() -> None:
    assert decided(np.array([[0.1, 0.45, 0.45]], np.float32)).labels.tolist() == [1]


def test_nan_is_told() -> None:
    assert alerts({"probability_nan": 0}) == []
    assert "3 probabilities" in alerts({"probability_nan": 3})[0]


def spec(batch: int | str = 6, **image: Any) -> ModelSpec:
    settings = {"width": 48, "height": 48, "steps": [], "color": "rgb", "mean": MEAN, "std": STD, **image}
    network = ComponentSpec(
        name=COMPONENT,
        inputs=[TensorSpec(name=INPUT, dtype="float32", shape=[batch, 3, 48, 48])],
        outputs=[TensorSpec(name=OUTPUT, dtype="float32", shape=[batch, 3])],
        onnx="onnx/classifier.onnx",
    )
    return ModelSpec(
        model="traffic_light", task="classification", classes=["red", "green", "unknown"], components=[network],
        parameters={"image": settings},
    )  # fmt: skip


@pytest.mark.parametrize(("image", "said"), [({"width": 50}, "48 x 50"), ({"std": [0, 1, 1]}, "std")])
def test_a_spec_that_contradicts_itself_is_refused(image: Any, said: str) -> None:
    assert read_parameters(spec()).image.width == 48
    with pytest.raises(ManifestError, match=said):
        read_parameters(spec(**image))


# -- AWML's deploy configs, and the demo's data -----------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 4, 6])
def test_a_deploy_config_of_mmdeploy_is_read(batch: int, tmp_path: Path) -> None:
    path = tmp_path / "projects" / "MobileNetv2" / "configs" / "deploy" / f"car_batch_{batch}.py"
    path.parent.mkdir(parents=True)
    shape = f"[{batch}, 3, 224, 224]"
    path.write_text(
        'codebase_config = dict(type="mmpretrain", task="Classification", model_type="end2end")\n'
        'onnx_config = dict(type="onnx", export_params=True, opset_version=11, save_file="lights.onnx",\n'
        '    input_shape=[224, 224], input_names=["input"], output_names=["output"])\n'
        'backend_config = dict(type="tensorrt", common_config=dict(max_workspace_size=1 << 30), model_inputs=[dict(\n'
        f"    input_shapes=dict(input=dict(min_shape={shape}, opt_shape={shape}, max_shape={shape})))])\n"
    )
    config = load_config(path)
    assert (config.task_type, config.model.type) == ("classification", "traffic_light")
    assert adapter.read_options(config.model.options).batch_size == batch
    assert config.components[COMPONENT].onnx_file == "lights.onnx"


def test_seed_split_and_number_decide_what_a_frame_shows() -> None:
    image, boxes, labels = frame(7, "eval", 3)
    again, other = frame(7, "eval", 3), frame(7, "train", 3)
    assert np.array_equal(image, again[0]) and (boxes, labels) == (again[1], again[2])
    assert not np.array_equal(image, other[0])
    assert {label for number in range(10) for label in frame(7, "eval", number)[2]} == set(range(len(CLASSES)))


def test_inspect_tells_it_from_the_classifier_of_calibrations_by_its_backbone() -> None:
    said = inspect(Path(awml_deploy_traffic_light.__file__).parent / "configs" / "traffic_light_demo.py")
    assert (said.spec.model, said.spec.classes, said.refusal) == ("traffic_light", list(CAR_CLASSES), None)
    assert said.spec.components[0].axes["batch_size"].max == 6

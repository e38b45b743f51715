"""YOLOX exported and run by our pipeline gives what mmdet's own test pipeline gives, in every form of the output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.errors import ConfigError, InputError
from tests.support import image_export
from tests.support import tiny_yolox as tiny
from tests.support.image_export import component_of, sample_of, samples

pytestmark = pytest.mark.exporter

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

FORMS: dict[str, dict[str, Any]] = {
    "raw": {},
    "decoded": {"output": "decoded"},
    "detections": {"output": "detections", "nms": {"convention": "mmdet", "max_boxes": 60}},
    "megvii": {"nms": {"convention": "megvii"}},
    "autoware": {"nms": {"convention": "autoware", "score_threshold": 0.2}},
    "agnostic": {"nms": {"convention": "mmdet", "class_agnostic": True, "score_threshold": 0.05}},
    "agnostic detections": {
        "output": "detections",
        "nms": {"convention": "mmdet", "class_agnostic": True, "max_boxes": 40},
    },
    "batch of 6": {"batch_size": 6},
    "dynamic": {"batch_size": "dynamic"},
    "dynamic detections": {"batch_size": "dynamic", "output": "detections"},
    "dynamic decoded": {"batch_size": "dynamic", "output": "decoded"},
}


def exported(
    folder: Path, options: dict[str, Any], text: str = tiny.TRAINING_CONFIG, seed: int | None = 0
) -> tuple[Any, Any, Any, Path]:
    """Model, pipeline on the ONNX file, adapter, and the file; the export's own check has passed."""
    from exporter.models.yolox import adapter as yolox

    built = tiny.built(folder, options, text, seed)
    pipeline, path = image_export.exported(folder, "yolox", yolox, built)
    return built[0], pipeline, yolox, path


def same_boxes(ours: Any, theirs: Any) -> None:
    """The same boxes, in an order that differs at most where scores are equal but for rounding."""
    assert len(ours) == len(theirs) > 0
    np.testing.assert_allclose(np.sort(ours.scores), np.sort(theirs.scores), atol=1e-5)
    distances = np.abs(ours.corners[:, None] - theirs.corners[None]).max(axis=2)
    distances += 1e6 * (ours.labels[:, None] != theirs.labels[None])
    # Of boxes at one place (whole pixels) the scores tell which is which.
    distances += 1e2 * np.abs(ours.scores[:, None] - theirs.scores[None])
    partners = distances.argmin(axis=1)
    assert sorted(partners) == list(range(len(theirs)))
    assert distances.min(axis=1).max() < 2e-3


@pytest.mark.parametrize("form", FORMS)
def test_boxes_are_those_of_mmdets_own_pipeline(form: str, tmp_path: Path) -> None:
    model, pipeline, adapter, _ = exported(tmp_path, FORMS[form])
    for sample in samples(tmp_path):
        raw, boxes, _ = adapter.answer(model, adapter.load_input(sample, {}))
        answer = pipeline.infer(pipeline.read(sample).data)
        same_boxes(answer.predictions, boxes)
        ours = pipeline.comparable(answer.outputs)
        assert ours.keys() == raw.keys()
        for name, values in raw.items():
            np.testing.assert_allclose(ours[name], values, atol=1e-3, rtol=1e-4)


def test_the_layout_is_autowares(tmp_path: Path) -> None:
    from exporter.models.yolox.framework import load_input

    model, pipeline, _, path = exported(tmp_path, {})
    graph = onnx.load(str(path)).graph
    assert [value.name for value in graph.input] == ["images"]
    assert [value.name for value in graph.output] == ["output"]
    shape = [axis.dim_value for axis in graph.output[0].type.tensor_type.shape.dim]
    assert shape == [1, tiny.ROWS, 5 + len(tiny.CLASSES)]
    answer = pipeline.infer(pipeline.read(samples(tmp_path)[0]).data)
    rows = answer.outputs["output"][0]
    images = load_input(samples(tmp_path)[0], {}).normalized(model)
    with torch.no_grad():
        scores, boxes, objectness = model.bbox_head(model.neck(model.backbone(images)))
    # The row of stride 16, line 2, column 4: after all cells of stride 8.
    row = rows[12 * 12 + 2 * 6 + 4]
    np.testing.assert_allclose(row[:4], boxes[1][0, :, 2, 4].numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(row[4], objectness[1][0, 0, 2, 4].sigmoid().item(), atol=1e-5)
    np.testing.assert_allclose(row[5:], scores[1][0, :, 2, 4].sigmoid().numpy(), atol=1e-5)


def test_full_size_has_18900_rows(tmp_path: Path) -> None:
    from exporter.models.yolox import adapter as yolox

    text = tiny.TRAINING_CONFIG.replace("(96, 96)", "(960, 960)")
    component = component_of(tmp_path, yolox, tiny.built(tmp_path, {"batch_size": 6}, text))
    assert component.inputs[0].shape == [6, 3, 960, 960]
    assert component.outputs[0].shape == [6, 18900, 5 + len(tiny.CLASSES)]


AWML_CLASSES = ["unknown", "car", "truck", "bus", "trailer", "motorcycle", "pedestrian", "bicycle"]


def test_awmls_own_config_at_full_size(tmp_path: Path) -> None:
    from exporter.models.yolox import adapter as yolox
    from exporter.training_config import random_weights, read_training_config

    training = read_training_config(Path(__file__).parents[1] / "data" / "awml_configs" / "yolox_opt_elan.py")
    with pytest.raises(ConfigError, match="names 0 classes, the head has 8"):
        yolox.build(training, yolox.read_options({}))
    options = yolox.read_options({"classes": AWML_CLASSES})
    model = yolox.build(training, options)
    random_weights(model, seed=0)
    parameters = yolox.parameters(model, training, options)
    assert (parameters["image"]["height"], parameters["image"]["fill"], parameters["score_threshold"]) == (
        960,
        114,
        0.01,
    )
    component = component_of(tmp_path, yolox, (model, training, options))
    assert component.outputs[0].shape == [1, 18900, 13]
    with torch.no_grad():
        rows = component.module(*component.trace_inputs())
    assert rows.shape == (1, 18900, 13)
    assert ((rows[..., 4:] >= 0) & (rows[..., 4:] <= 1)).all()


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(str(path)).graph.node}


def test_relu6_stays_a_clip_unless_asked(tmp_path: Path) -> None:
    for folder in ("kept", "replaced"):
        (tmp_path / folder).mkdir()
    _, _, _, path = exported(tmp_path / "kept", {})
    assert "Clip" in operators(path)
    assert "Relu" not in operators(path)
    model, pipeline, adapter, path = exported(tmp_path / "replaced", {"relu6_to_relu": True})
    assert "Relu" in operators(path)
    assert "Clip" not in operators(path)
    # The reference is the model as it was trained: where activations exceed 6 the difference shows.
    sample = samples(tmp_path / "replaced")[0]
    raw, _, _ = adapter.answer(model, adapter.load_input(sample, {}))
    answer = pipeline.infer(pipeline.read(sample).data)
    assert np.abs(pipeline.comparable(answer.outputs)["output"] - raw["output"]).max() > 1e-2


def test_suppression_is_onnx_own_operator(tmp_path: Path) -> None:
    _, _, _, path = exported(tmp_path, FORMS["detections"])
    assert "NonMaxSuppression" in operators(path)
    outputs = onnx.load(str(path)).graph.output
    assert [value.name for value in outputs] == [
        "num_detections", "detection_boxes", "detection_scores", "detection_classes",
    ]  # fmt: skip


PLUGIN = {"output": "detections", "nms": {"operator": "EfficientNMS_TRT", "max_boxes": 60}}


@pytest.mark.parametrize("batch_size", [1, "dynamic"])
def test_tensorrts_plugin_is_fed_what_makes_mmdets_boxes(batch_size: Any, tmp_path: Path) -> None:
    """The plugin runs in TensorRT alone: here its part is done by hand, with the attributes that the node has."""
    from runtime.models.yolox.nms import suppress_by_class

    model, _, adapter, path = exported(tmp_path, {**PLUGIN, "batch_size": batch_size})
    whole = onnx.load(str(path))
    plugin = whole.graph.node[-1]
    assert plugin.op_type == "EfficientNMS_TRT"
    assert [value.name for value in whole.graph.output] == list(plugin.output)
    settings = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in plugin.attribute}
    assert settings == {
        "background_class": -1, "box_coding": 0, "class_agnostic": 0, "iou_threshold": pytest.approx(0.65),
        "max_output_boxes": 60, "plugin_version": b"1", "score_activation": 0, "score_threshold": pytest.approx(0.01),
    }  # fmt: skip
    before = path.with_name("before.onnx")
    del whole.graph.node[-1], whole.graph.output[:]
    for name in plugin.input:
        whole.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    onnx.save(whole, str(before))
    session = ort.InferenceSession(str(before), providers=["CPUExecutionProvider"])
    sample = samples(tmp_path)[0]
    images = adapter.load_input(sample, {}).normalized(model)
    corners, scores = (values[0] for values in session.run(None, {"images": images.numpy()}))
    rows, labels = np.nonzero(scores > settings["score_threshold"])
    passed = scores[rows, labels]
    kept = suppress_by_class(corners[rows], passed, labels, settings["iou_threshold"])[: settings["max_output_boxes"]]
    expected = adapter.answer(model, adapter.load_input(sample, {}))[1]
    np.testing.assert_allclose(np.sort(passed[kept]), np.sort(expected.scores), atol=1e-5)


def test_the_plugin_is_for_suppression_in_the_graph() -> None:
    from exporter.models.yolox import adapter as yolox

    with pytest.raises(ConfigError, match="set output to detections"):
        yolox.read_options({"nms": {"operator": "EfficientNMS_TRT"}})


def test_a_file_without_the_plugin_that_was_asked_for_is_refused(tmp_path: Path) -> None:
    """As the dynamo exporter writes it: that one does not know how to."""
    from exporter.artifacts.checks import check_onnx
    from exporter.models.yolox import adapter as yolox
    from shared.errors import ExportError

    _, _, _, path = exported(tmp_path, FORMS["detections"])
    component = component_of(tmp_path, yolox, tiny.built(tmp_path, PLUGIN))
    with pytest.raises(ExportError, match="does not end in the plugin"):
        check_onnx(path, component, 17)


def mmdets_own() -> str:
    """A training config of mmdet's own parts, as small."""
    text = tiny.TRAINING_CONFIG
    start, end = text.index("    backbone="), text.index("    test_cfg=")
    return text[:start] + (
        '    backbone=dict(type="CSPDarknet", deepen_factor=0.33, widen_factor=0.125),\n'
        '    neck=dict(type="YOLOXPAFPN", in_channels=[32, 64, 128], out_channels=16, num_csp_blocks=1),\n'
        '    bbox_head=dict(type="YOLOXHead", num_classes=3, in_channels=16, feat_channels=16),\n'
    ) + text[end:]  # fmt: skip


def test_mmdets_own_yolox_tiny(tmp_path: Path) -> None:
    model, pipeline, adapter, _ = exported(tmp_path, {}, mmdets_own(), seed=None)
    sample = samples(tmp_path)[0]
    _, boxes, _ = adapter.answer(model, adapter.load_input(sample, {}))
    same_boxes(pipeline.infer(pipeline.read(sample).data).predictions, boxes)


def test_a_cut_at_random_around_a_label_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """AWML's traffic light detectors test on such cuts; ours, and mmdet's pipeline here, take the image whole."""
    annotations = 'dict(type="LoadAnnotations", with_bbox=True)'
    text = tiny.TRAINING_CONFIG.replace(
        annotations, f'{annotations}, dict(type="RandomCropWithROI", crop_size=(1.0, 6.0))'
    )
    with caplog.at_level("INFO", "exporter"):
        model, pipeline, adapter, _ = exported(tmp_path, {}, text)
    assert "test_pipeline.RandomCropWithROI" in caplog.text
    sample = samples(tmp_path)[0]
    _, boxes, _ = adapter.answer(model, adapter.load_input(sample, {}))
    same_boxes(pipeline.infer(pipeline.read(sample).data).predictions, boxes)


@pytest.mark.parametrize(
    ("options", "text", "seed"),
    [(FORMS["detections"], tiny.TRAINING_CONFIG, 0), ({}, mmdets_own(), None)],
    ids=["suppressed in the graph", "mmdet's own, which turns off CUDA's autocast"],
)
def test_a_program_computes_as_the_onnx_file_does(
    options: dict[str, Any], text: str, seed: int | None, tmp_path: Path
) -> None:
    from exporter.artifacts.programs import export_program
    from exporter.models.yolox import adapter as yolox

    component = component_of(tmp_path, yolox, tiny.built(tmp_path, options, text, seed))
    agreement = export_program(component, tmp_path / "yolox.pt2")
    assert agreement[0].largest_relative < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("pad_to_square=True", "pad_to_square=False"), "make no square"),
        (("scale=(96, 96)", "scale=(96, 64)"), "make no square"),
        (("scale=(96, 96)", "scale=(100, 100)"), "no multiple of 32"),
        (('dict(type="LoadAnnotations", with_bbox=True)', 'dict(type="RandomFlip", prob=0.5)'), "RandomFlip"),
        (('dict(type="LoadImageFromFile")', 'dict(type="LoadImageFromFile", color_type="grayscale")'), "color"),
        (("pad_val=dict(img=(114.0, 114.0, 114.0))", "pad_val=dict(img=(1.0, 2.0, 3.0))"), "no gray"),
        (('type="YOLOX"', 'type="FasterRCNN"'), "not a YOLOX"),
        (('type="YOLOX"', 'type="YOLOXMultiTask"'), "model is a YOLOXMultiTask, "),
        (('nms=dict(type="nms"', 'nms=dict(type="soft_nms"'), "soft_nms"),
        (("num_classes=3", "num_classes=4"), "names 3 classes, the head has 4"),
    ],
)
def test_configs_that_cant_be_deployed(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    from exporter.models.yolox import adapter as yolox

    text = tiny.TRAINING_CONFIG.replace(*change)
    assert text != tiny.TRAINING_CONFIG
    with pytest.raises(ConfigError, match=message):
        model, training, options = tiny.built(tmp_path, {}, text)
        yolox.parameters(model, training, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size should be at least 1"),
        ({"output": "boxes"}, "model.options.output"),
        ({"nms": {"convention": "yolov5"}}, "model.options.nms.convention"),
        ({"nms": {"convention": "megvii"}, "output": "detections"}, "takes boxes for a pixel larger"),
        ({"nms": {"iou_threshold": 1.5}}, "model.options.nms.iou_threshold"),
        ({"relu6": True}, "model.options.relu6"),
    ],
)
def test_options_that_are_wrong(options: dict[str, Any], message: str) -> None:
    from exporter.models.yolox import adapter as yolox

    with pytest.raises(ConfigError, match=message):
        yolox.read_options(options)


def test_an_image_that_cant_be_read_is_one_line(tmp_path: Path) -> None:
    from exporter.models.yolox import adapter as yolox

    model, _, _ = tiny.built(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    for name in ("broken.png", "missing.png"):
        with pytest.raises(InputError, match=name):
            yolox.answer(model, yolox.load_input(sample_of(tmp_path / name), {}))

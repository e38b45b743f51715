"""YOLOX with a mask head exported and run by our pipeline gives what AWML's steps give, in PyTorch's own arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.errors import ConfigError
from tests.integration.test_yolox_export import same_boxes
from tests.support import image_export
from tests.support import tiny_yolox as tiny
from tests.support import tiny_yolox_seg as seg
from tests.support.image_export import samples

pytestmark = pytest.mark.exporter

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def exported(folder: Path, options: dict[str, Any], text: str = seg.TRAINING_CONFIG) -> tuple[Any, Any, Any, Path]:
    """Model, pipeline on the ONNX file, adapter, and the file; the export's own check has passed."""
    from exporter.models.yolox_seg import adapter

    built = seg.built(folder, options, text)
    pipeline, path = image_export.exported(folder, "yolox_seg", adapter, built)
    return built[0], pipeline, adapter, path


@pytest.mark.parametrize(
    ("options", "stretched"), [({}, False), ({"mask": "autoware"}, False), ({"batch_size": "dynamic"}, True)]
)
def test_boxes_and_mask_are_the_framework_s(options: dict[str, Any], stretched: bool, tmp_path: Path) -> None:
    text = seg.TRAINING_CONFIG
    if stretched:  # as AWML's configs with a mask have it
        text = text.replace("keep_ratio=True", "keep_ratio=False").replace(
            "with_bbox=True", "with_bbox=True, with_seg=True"
        )
    model, pipeline, adapter, _ = exported(tmp_path, options, text)
    for sample in samples(tmp_path):
        raw, answers, _ = adapter.answer(model, adapter.load_input(sample, {}))
        answer = pipeline.infer(pipeline.read(sample).data)
        same_boxes(answer.predictions.parts["detection2d"], answers.parts["detection2d"])
        ours, theirs = answer.predictions.parts["segmentation2d"], answers.parts["segmentation2d"]
        assert len(np.unique(theirs.labels)) > 1
        sure = theirs.margins > 1
        assert sure.mean() > 0.95
        np.testing.assert_array_equal(ours.labels[sure], theirs.labels[sure])
        assert np.abs(ours.margins.astype(int) - theirs.margins).max() <= 1
        compared = pipeline.comparable(answer.outputs)
        assert compared.keys() == raw.keys()
        for name, values in raw.items():
            np.testing.assert_allclose(compared[name], values, atol=1e-4, rtol=1e-3)


def test_a_mask_as_autoware_s_node_reads_it_needs_images_that_keep_their_shape(tmp_path: Path) -> None:
    from exporter.models.yolox_seg import adapter

    model, training, options = seg.built(
        tmp_path, {"mask": "autoware"}, seg.TRAINING_CONFIG.replace("keep_ratio=True", "keep_ratio=False")
    )
    with pytest.raises(ConfigError, match="stretched to a square") as caught:
        adapter.parameters(model, training, options)
    assert "model.options.mask" in str(caught.value.hint)


def test_the_graph_is_one_that_autoware_s_node_reads(tmp_path: Path) -> None:
    _, pipeline, _, path = exported(tmp_path, {})
    graph = onnx.load(str(path)).graph
    assert [value.name for value in graph.input] == ["images"]
    assert [value.name for value in graph.output] == ["output", "mask"]
    shape = [axis.dim_value for axis in graph.output[1].type.tensor_type.shape.dim]
    assert shape == [1, len(seg.MASK_CLASSES), tiny.SIZE, tiny.SIZE]
    mask = pipeline.infer(pipeline.read(samples(tmp_path)[0]).data).outputs["mask"][0]
    assert mask.min() >= 0
    np.testing.assert_allclose(mask.sum(axis=0), 1, atol=1e-5)


def test_weights_have_awml_s_names_and_the_detector_loads_without_the_mask(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from exporter.checkpoints import load_weights

    model, _, _ = seg.built(tmp_path, {})
    own = {name.removeprefix("mask_head.") for name in model.state_dict() if name.startswith("mask_head.")}
    convs = {
        f"conv{number}.{part}" for number in (1, 2, 3, 4) for part in ("conv.weight", "bn.weight", "bn.running_var")
    }
    assert {*convs, "out_conv.weight", "out_conv.bias"} <= own
    assert model.mask_head.conv1.conv.weight.shape[:2] == (48, 48)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "both.pth")
    detector, _, _ = tiny.built(tmp_path)
    with caplog.at_level("INFO"):
        load_weights(detector, tmp_path / "both.pth")
    assert "the weights of its mask_head are left out" in caplog.text
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in detector.state_dict().items())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mask_classes": ["road"]}, "names 1 classes, the head has 4 of masks"),
        ({"mask_classes": []}, "names 3 classes, the head has 4"),
        ({"output": "detections"}, "output of a model with a mask is raw"),
        ({"mask": "mmseg"}, "mask"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        seg.built(tmp_path, options)


def test_a_detector_s_config_is_no_model_with_a_mask(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model is a YOLOX, not a YOLOXMultiTask"):
        seg.built(tmp_path, {}, tiny.TRAINING_CONFIG)

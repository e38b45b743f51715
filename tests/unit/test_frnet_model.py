"""FRNet of AWML's configs: built, loaded strictly, exported in two forms, and equal to the framework's steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.errors import ConfigError, ExportError, InputError
from shared.workspace import Workspace
from tests.support import tiny_frnet as tiny
from tests.support.exporting import CONFIGS

pytestmark = pytest.mark.exporter

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module", name="config")
def _config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_config(tmp_path_factory.mktemp("frnet"))


def test_awmls_config_has_awmls_weights_and_no_auxiliary_heads(tmp_path: Path) -> None:
    from exporter.checkpoints import load_weights
    from exporter.models.frnet import adapter

    model, training, options = tiny.built(CONFIGS / "frnet_ot128.py")
    assert sum(weight.numel() for weight in model.parameters()) == 10_019_057 + 65 * 10  # 27 classes, not 17
    names = model.state_dict()
    for name in (
        "voxel_encoder.pre_norm.weight", "voxel_encoder.ffe_layers.3.bias", "voxel_encoder.compression_layers.0.weight",
        "backbone.stem.7.running_mean", "backbone.layer2.0.downsample.1.bias", "backbone.layer3.5.bn2.weight",
        "backbone.attention_layers.3.4.weight", "backbone.fuse_layer1.conv.weight",
        "backbone.point_fuse_layer2.0.weight",
        "decode_head.mlps.3.0.weight", "decode_head.cls_seg.bias",
    ):  # fmt: skip
        assert name in names
    parameters = adapter.parameters(model, training, options)
    assert parameters["interpolation"] == {"height": 128, "width": 4096}
    assert parameters["frustums"] == {"height": 128, "width": 1024}
    assert (parameters["sensor"]["fov_up"], parameters["sensor"]["fov_down"]) == (15.0, -25.0)
    assert (len(adapter.classes(model)), parameters["ignored_class"]) == (26, 26)

    state = {**names, "auxiliary_head.0.cls_seg.weight": torch.ones(27, 128, 1, 1)}
    torch.save({"state_dict": state}, tmp_path / "trained.pth")
    load_weights(model, tmp_path / "trained.pth")


def test_both_forms_are_the_network(config: Path, tmp_path: Path) -> None:
    """At every size that is checked, in ONNX Runtime and as a program; here every point has a slot."""
    from exporter.artifacts.checks import check_onnx
    from exporter.artifacts.onnx_export import export_onnx
    from exporter.artifacts.programs import export_program
    from exporter.models.frnet import adapter

    sample = torch.from_numpy(tiny.points(1200))
    operators, answers = {}, []
    for form, opset in (("padded", 17), ("scatter", 18)):
        model, _, options = tiny.built(config, form=form, points_per_frustum=64)
        (component,) = adapter.components(model, sample, options)
        assert [tensor.name for tensor in component.outputs] == ["pred_probs"]
        path = tmp_path / f"{form}.onnx"
        export_onnx(component, path, exporter="torchscript", opset_version=opset)
        assert len(check_onnx(path, component, opset)) == len(export_program(component, tmp_path / f"{form}.pt2")) == 3
        operators[form] = _reducing(path)
        answers.append(adapter.answer(model, sample)[0]["pred_probs"])
        with torch.no_grad():
            np.testing.assert_allclose(component.module(*component.inputs_of({})), answers[0], atol=1e-5)
    assert operators == {"padded": set(), "scatter": {"ScatterElements add", "ScatterElements max"}}
    np.testing.assert_array_equal(*answers)


def test_the_file_in_fp16_is_checked_on_a_trace_alone(config: Path, tmp_path: Path) -> None:
    """Of random numbers for its indices, the network makes nothing."""
    from exporter.artifacts.onnx_export import export_onnx
    from exporter.autoware.typed_onnx import write_typed_onnx
    from exporter.models.frnet import adapter

    model, _, options = tiny.built(config, form="scatter")
    (component,) = adapter.components(model, torch.from_numpy(tiny.points(1200)), options)
    export_onnx(component, tmp_path / "it.onnx", exporter="torchscript", opset_version=18)
    workspace, spec = Workspace.create(tmp_path / "work"), component.spec("onnx/it.onnx", None)
    stage = workspace.stage("export", tool="exporter")
    with stage:
        stage.config({})
    with pytest.raises(InputError, match=r"'coors' says where values belong.*runtime trace"):
        write_typed_onnx(tmp_path / "it.onnx", tmp_path / "typed.onnx", workspace, spec)


def _reducing(path: Path) -> set[str]:
    import onnx

    return {
        f"{node.op_type} {onnx.helper.get_attribute_value(attribute).decode()}"
        for node in onnx.load(str(path)).graph.node
        for attribute in node.attribute
        if attribute.name == "reduction"
    } | {node.op_type for node in onnx.load(str(path)).graph.node if node.op_type in ("If", "ScatterND")}


@pytest.mark.parametrize(("form", "gaps"), [("padded", "awml"), ("scatter", "awml"), ("scatter", "autoware")])
def test_the_runtimes_steps_give_what_the_frameworks_do(config: Path, form: str, gaps: str) -> None:
    model, training, options = tiny.built(config, form=form, gaps=gaps, points_per_frustum=4)
    for cloud in (tiny.points(4000), tiny.points(4000, seed=1), tiny.points(1), tiny.points(0)):
        _assert_same_inputs(model, training, options, cloud)


def test_they_do_on_real_frames(config: Path, real_data: Path) -> None:
    """nuScenes, KITTI, Argoverse 2."""
    from shared.data import DataSettings, open_dataset, read_points

    dataset = open_dataset(DataSettings(format="real"), root=real_data, task="detection3d")
    for gaps in ("awml", "autoware"):
        model, training, options = tiny.built(config, gaps=gaps)
        for index in range(0, len(dataset), max(1, len(dataset) // 4)):
            cloud = read_points(dataset.sample(index).lidar)[:, :4]
            _assert_same_inputs(model, training, options, cloud)


def _assert_same_inputs(model: Any, training: Any, options: Any, cloud: np.ndarray) -> None:
    from exporter.models.frnet import adapter
    from exporter.models.frnet.components import padded
    from exporter.models.frnet.framework import grouped, prepared
    from runtime.models.frnet.parameters import FRNetParameters
    from runtime.models.frnet.steps import interpolated, requested

    parameters = FRNetParameters.model_validate(adapter.parameters(model, training, options))
    points, usable = prepared(model, cloud)
    frame = interpolated(cloud, parameters)
    np.testing.assert_array_equal(frame.usable, usable)
    np.testing.assert_array_equal(frame.points, points)
    if not len(points):
        return
    inputs = grouped(model, points)
    request = requested(frame, parameters)
    count, frustums = request.counters["num_points"], request.counters["num_frustums"]
    if options.form == "padded":
        names = ("points", "coors", "inverse_map", "frustum_points", "pixel_frustums")
        inputs = dict(zip(names, padded(inputs, model, options.points_per_frustum), strict=True))
    rows = {"voxel_coors": frustums, "frustum_points": frustums, "pixel_frustums": None}
    for name, expected in inputs.items():
        given = request.inputs[name][: rows.get(name, count)]
        assert given.dtype == expected.numpy().dtype
        np.testing.assert_array_equal(given, expected)


def test_samples_of_no_use_to_trace_with(config: Path) -> None:
    from exporter.models.frnet import adapter

    model, _, options = tiny.built(config)
    for count in (0, 1):
        with pytest.raises(ExportError, match="too few to trace with"):
            adapter.components(model, torch.from_numpy(tiny.points(count)), options)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('type="FRNet"', 'type="FRNetX"', "not an FRNet"),
        ('type="FRHead"', 'type="MinkUNetHead"', "decode_head is MinkUNetHead"),
        ("ignore_index=ignored, dropout", "ignore_index=2, dropout", "only the last can be ignored"),
        (
            "num_classes=ignored + 1, ignore_index=ignored, dropout",
            "num_classes=ignored, ignore_index=ignored - 1, dropout",
            r"names 8 classes, the head has 7 that are not ignored",
        ),
        ("output_shape=(16, 32)", "output_shape=(16, 64)", "backbone.output_shape"),
        ("H=16, W=32, **seen", "H=16, W=32, fov_up=3.0, fov_down=-26.0", "RangeInterpolation has fov_up"),
        ("stem_channels=8", "stem_channels=8, strides=(1, 2, 4, 4)", "strides, 32 in all, don't divide"),
        ('dict(type="RangeInterpolation", H=16, W=128, **seen),', "", "no test pipeline with RangeInterpolation"),
        ("depth=18", "depth=50", "depth 50 is not available"),
        (
            'dict(type="PointSegClassMapping"),',
            'dict(type="PointsRangeFilter", point_cloud_range=[-9, -9, -9, 9, 9, 9]),',
            "each point of a file gets a class",
        ),
    ],
)
def test_variants_that_cant_be_deployed_are_refused(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in tiny.TRAINING_CONFIG
    config = tiny.write_config(tmp_path, tiny.TRAINING_CONFIG.replace(before, after))
    with pytest.raises(ConfigError, match=message):
        tiny.built(config)

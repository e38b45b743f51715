"""CenterPoint with AWML's other backbones, and with a head whose tasks differ: weights, ONNX files, boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.errors import ConfigError
from tests.support.exporting import CONFIGS, SMALL, built, points

pytestmark = pytest.mark.exporter

ort = pytest.importorskip("onnxruntime")

MULTI_HEAD = CONFIGS / "small_multi_head.py"

RESNET = """
pts_backbone=dict(_delete_=True, type="BEVResNet", depth=18, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1),
    out_indices=(0, 1, 2), deep_stem=True, conv1_stride=1, with_pool=False, base_channels=16, in_channels=32,
    norm_cfg=dict(type="BN", eps=1e-3), norm_eval=False, frozen_stages=-1, style="pytorch"),
pts_neck=dict(in_channels=[16, 32, 64])
"""
VOVNET = """
pts_backbone=dict(_delete_=True, type="BEVVoVNet", spec_name="V-57-eSE", input_ch=32, stem_strides=(2, 1, 2),
    out_features=("stem", "stage2", "stage3"), no_pool_stages=(3,), norm_eval=False, frozen_stages=-1),
pts_neck=dict(in_channels=[128, 256, 512], upsample_strides=[2, 2, 2])
"""


def changed(folder: Path, model: str, base: Path = SMALL) -> Path:
    path = folder / "model.py"
    path.write_text(f'_base_ = ["{base}"]\nmodel = dict({model})\n')
    return path


class OnnxSession:
    """Components' ONNX files in ONNX Runtime."""

    settings: dict = {}  # noqa: RUF012 (never written)

    def __init__(self, folder: Path) -> None:
        self._sessions = {
            path.stem: ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            for path in folder.glob("*.onnx")
        }

    def run(self, component: str, inputs: Any) -> dict[str, Any]:
        session = self._sessions[component]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def exported(components: Any, folder: Path) -> None:
    """ONNX files, and programs, which have been compared with the modules."""
    from exporter.artifacts.checks import check_onnx
    from exporter.artifacts.onnx_export import export_onnx
    from exporter.artifacts.programs import export_program

    for component in components:
        path = folder / f"{component.name}.onnx"
        export_onnx(component, path, exporter="torchscript", opset_version=17)
        check_onnx(path, component, 17)
        export_program(component, folder / f"{component.name}.pt2")


def infer(adapter: Any, model: Any, training: Any, options: Any, folder: Path, sample: Any) -> Any:
    """What the runtime makes of the files in a folder."""
    from runtime.pipeline import build_pipeline
    from shared.spec import ModelSpec

    components = adapter.components(model, sample, options)
    spec = ModelSpec(
        model="centerpoint",
        task="detection3d",
        classes=adapter.classes(model),
        components=[component.spec(f"onnx/{component.name}.onnx", None) for component in components],
        parameters=adapter.parameters(model, training, options),
    )
    return build_pipeline(spec, OnnxSession(folder)).infer(sample.numpy())


@pytest.mark.parametrize(
    ("backbone", "weights"),
    [
        (RESNET, {"stem.0.weight": (8, 32, 3, 3), "layer3.0.downsample.0.weight": (64, 32, 1, 1)}),
        (
            VOVNET,
            {
                "stem.stem_1/conv.weight": (64, 32, 3, 3),
                "stage2.OSA2_1.layers.4.OSA2_1_4/norm.running_var": (128,),
                "stage3.OSA3_1.concat.OSA3_1_concat/conv.weight": (512, 1056, 1, 1),
                "stage3.OSA3_1.ese.fc.bias": (512,),
            },
        ),
    ],
    ids=["resnet", "vovnet"],
)
def test_backbones(backbone: str, weights: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    """AWML's names of the weights (compared once with its classes, whole), and files that answer as the module does."""
    from exporter.models.centerpoint import adapter

    model, _, options = built(changed(tmp_path, backbone))
    state = model.pts_backbone.state_dict()
    assert {name: tuple(state[name].shape) for name in weights} == weights
    _, head = adapter.components(model, points(4), options)
    small = {"batch_size": 2, "height": 64, "width": 96}
    exported([replace(head, check_sizes=(small, {**small, "batch_size": 1, "height": 32}))], tmp_path)


@pytest.mark.parametrize(
    ("features", "stages", "entries"),
    [(("stage2", "stage4"), ["stage2", "stage3", "stage4"], 246), (("stage5",), None, 360)],
)
def test_a_vovnet_ends_with_the_last_stage_that_is_asked_for(features: Any, stages: Any, entries: int) -> None:
    from exporter.models.centerpoint.bev_vovnet import BEVVoVNet

    backbone = BEVVoVNet(spec_name="V-57-eSE", input_ch=32, out_features=features)
    assert stages is None or backbone.stage_names == stages
    assert len(backbone.state_dict()) == entries


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spec_name": "V-19-eSE"}, "no variant 'V-19-eSE'. there are V-57-eSE, V-99-eSE"),
        ({"spec_name": "V-57-eSE", "out_features": ["stage6"]}, "out_features are .*there are stem, stage2"),
    ],
)
def test_vovnets_that_are_not_there(options: dict[str, Any], message: str) -> None:
    from exporter.models.centerpoint.bev_vovnet import BEVVoVNet

    with pytest.raises(ConfigError, match=message):
        BEVVoVNet(**options)


def test_tasks_of_different_resolutions(tmp_path: Path) -> None:
    from exporter.models.centerpoint import adapter

    model, training, options = built(MULTI_HEAD)
    parameters = adapter.parameters(model, training, options)
    assert parameters["out_size_factor"] == 4
    assert [task.get("out_size_factor") for task in parameters["tasks"]] == [None, 8, 2]
    assert model.state_dict()["pts_bbox_head.task_heads.1.heatmap.0.conv.weight"].shape == (16, 16, 5, 5)

    sample = points(4)
    components = adapter.components(model, sample, options)
    head = components[1]
    assert head.output_names()[::6] == ["heatmap_0", "heatmap_1", "heatmap_2"]
    assert [head.deployed_sizes[f"output_height{suffix}"] for suffix in ("", "_1", "_2")] == [48, 24, 96]
    exported(components, tmp_path)

    answer = infer(adapter, model, training, options, tmp_path, sample)
    raw, boxes, _ = adapter.answer(model, sample)
    assert {name: values.shape[2:] for name, values in raw.items() if name.startswith("reg")} == {
        "reg_0": (48, 64),
        "reg_1": (24, 32),
        "reg_2": (96, 128),
    }
    for name, values in raw.items():
        np.testing.assert_allclose(answer.outputs[name], values, rtol=0, atol=2e-5 * np.abs(values).max())
    ours = answer.predictions
    assert len(ours) == len(boxes) > 50 and set(ours.labels) >= {0, 1, 3}
    np.testing.assert_array_equal(ours.labels, boxes.labels)
    for name in ("centers", "sizes", "yaws", "velocities", "scores"):
        np.testing.assert_allclose(getattr(ours, name), getattr(boxes, name), rtol=1e-3, atol=2e-3, err_msg=name)


def test_as_many_resolutions_as_tasks(tmp_path: Path) -> None:
    from exporter.models.centerpoint import adapter

    coder = "pts_bbox_head=dict(bbox_coder=dict(out_size_factor=[1, 2]))"
    model, training, options = built(changed(tmp_path, coder, MULTI_HEAD))
    with pytest.raises(ConfigError, match="out_size_factor: has 2 values for 3 tasks"):
        adapter.parameters(model, training, options)


def test_targets_are_mmdet3ds_where_the_tasks_have_one_resolution(tmp_path: Path) -> None:
    from exporter.models.centerpoint.training import prepare

    model, training, _ = built(MULTI_HEAD)
    with pytest.raises(ConfigError, match=r"out_size_factor are \[4, 8, 2\]"):
        prepare(model, training)
    settings = model.pts_bbox_head.train_cfg
    settings.update(out_size_factor=[2, 2, 2], point_cloud_range=[0, 0, 0, 1, 1, 1], code_weights=[1.0] * 10)
    prepare(model, training)
    assert settings["out_size_factor"] == 2

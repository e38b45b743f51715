"""The package by itself: the network that is exported against the one that is trained, decoding, rare frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from awml_deploy_transfusion import configs
from awml_deploy_transfusion.exporter_model import adapter, network, trace
from awml_deploy_transfusion.exporter_model.cells import best_first, centers_of_cells, local_maxima
from awml_deploy_transfusion.exporter_model.coordinates import Decoration
from awml_deploy_transfusion.names import COMPONENT, COORS, INPUTS, NUM_POINTS, OUTPUTS, VOXELS, VOXELS_AXIS
from awml_deploy_transfusion.runtime_model.pipeline import build

from exporter.training_config import TrainingConfig, random_weights, read_training_config
from runtime.backends import Session
from runtime.pipeline import Inference, steps_of
from shared.config import load_config
from shared.errors import ConfigError, ManifestError
from shared.spec import ModelSpec
from shared.tasks.detection3d import Boxes3D

CONFIG = Path(configs.__path__[0]) / "transfusion_demo.py"
OPTIONS = adapter.read_options({})
#: Voxels of AWML's engines.
SIZES = (("min", 5000), ("opt", 30000), ("max", 60000))


@pytest.fixture(scope="module")
def config() -> TrainingConfig:
    return read_training_config(CONFIG)


@pytest.fixture(scope="module")
def model(config: TrainingConfig) -> Any:
    built = adapter.build(config, OPTIONS)
    random_weights(built, seed=0)
    return built


@pytest.fixture(scope="module")
def parameters(model: Any, config: TrainingConfig) -> dict[str, Any]:
    return adapter.parameters(model, config, OPTIONS)


@pytest.fixture(scope="module")
def spec(model: Any, parameters: dict[str, Any]) -> ModelSpec:
    (component,) = adapter.components(model, points(1000), OPTIONS)
    return ModelSpec(
        model="transfusion", task="detection3d", classes=adapter.classes(model), parameters=parameters,
        components=[component.spec("onnx/transfusion.onnx", None)],
    )  # fmt: skip


class InTorch(Session):
    """The exported network's module, run as it is."""

    def __init__(self, model: Any) -> None:
        self._network = network.Network(model, model.decoration).eval()

    @property
    def settings(self) -> dict[str, Any]:
        return {}

    def run(self, component: str, inputs: Any) -> dict[str, npt.NDArray[Any]]:
        assert component == COMPONENT
        with torch.no_grad():
            answers = self._network(*(torch.from_numpy(inputs[name]) for name in INPUTS))
        return {name: answer.numpy() for name, answer in zip(OUTPUTS, answers, strict=True)}


def points(count: int) -> torch.Tensor:
    """(count, 5) float32: x, y, z, intensity, time lag."""
    rng = np.random.default_rng(count)
    values = rng.normal(0, (20, 20, 1, 0.3, 0.05), (count, 5)).astype(np.float32)
    values[:, 3:] = np.abs(values[:, 3:])
    return torch.from_numpy(values)


def run(model: Any, spec: ModelSpec, frame: torch.Tensor) -> Inference:
    return build(spec, InTorch(model)).infer(frame.numpy())


def test_weights_have_the_names_and_shapes_of_awmls(model: Any) -> None:
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    head = "pts_bbox_head."
    expected = {
        "pts_voxel_encoder.pfn_layers.0.linear.weight": (16, 11),
        "pts_backbone.blocks.0.0.weight": (48, 32, 3, 3),
        f"{head}shared_conv.weight": (32, 60, 3, 3),
        f"{head}shared_conv.bias": (32,),
        f"{head}heatmap_head.0.conv.weight": (32, 32, 3, 3),
        f"{head}heatmap_head.0.bn.running_var": (32,),
        f"{head}heatmap_head.1.bias": (5,),
        f"{head}class_encoding.weight": (32, 5, 1),
        f"{head}decoder.0.self_attn.attn.in_proj_weight": (96, 32),
        f"{head}decoder.0.cross_attn.attn.out_proj.bias": (32,),
        f"{head}decoder.0.ffn.layers.0.0.weight": (64, 32),
        f"{head}decoder.0.norms.2.weight": (32,),
        f"{head}decoder.0.self_posembed.position_embedding_head.0.weight": (32, 2, 1),
        f"{head}decoder.0.cross_posembed.position_embedding_head.3.bias": (32,),
        f"{head}prediction_heads.0.center.0.conv.weight": (64, 32, 1),
        f"{head}prediction_heads.0.heatmap.1.weight": (5, 64, 1),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert not [name for name in shapes if name.startswith("pts_bbox_head.") and "pos" in name.split(".")[1]]


@pytest.mark.parametrize("count", [20_000, 400, 1, 0])
def test_the_pipeline_answers_as_the_framework_does(model: Any, spec: ModelSpec, count: int) -> None:
    frame = points(count)
    raw, boxes, counters = adapter.answer(model, frame.clone())
    ours = run(model, spec, frame)
    for name, values in raw.items():
        assert values.shape == ours.outputs[name].shape == tuple(spec.components[0].outputs[OUTPUTS.index(name)].shape)
        np.testing.assert_allclose(ours.outputs[name], values, atol=2e-4, rtol=1e-3, err_msg=name)
    assert counters["voxels"] == ours.counters["voxels"]
    assert isinstance(ours.predictions, Boxes3D)
    assert len(ours.predictions) == len(boxes) > 0
    for name in Boxes3D.columns():
        np.testing.assert_allclose(
            getattr(ours.predictions, name), getattr(boxes, name), atol=1e-3, rtol=1e-3, err_msg=name
        )


def test_the_frameworks_trace_is_what_the_runtime_has_between_its_steps(
    model: Any, spec: ModelSpec, parameters: dict[str, Any]
) -> None:
    frame = points(20_000)
    theirs, _ = trace.states(model, frame, parameters)
    assert tuple(theirs) == trace.STEPS
    state: Any = frame.numpy()
    read, *steps = steps_of(build(spec, InTorch(model)), "transfusion")
    assert read.name == "read"
    for step in steps:
        state = step.run(state)
        for name, values in theirs.get(step.name, {}).items():
            np.testing.assert_allclose(
                step.packing.pack(state)[name], values, atol=1e-3, rtol=1e-3, err_msg=f"{step.name}: {name}"
            )


def test_the_network_does_not_change_its_inputs(model: Any) -> None:
    (component,) = adapter.components(model, points(3000), OPTIONS)
    inputs = component.trace_inputs()
    before = [value.clone() for value in inputs]
    with torch.no_grad():
        component.module(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("distance", [False, True])
@pytest.mark.parametrize("cluster", [False, True])
def test_points_are_decorated_as_by_mmdet3d(model: Any, legacy: bool, distance: bool, cluster: bool) -> None:
    from mmdet3d.models.voxel_encoders import PillarFeatureNet

    from exporter.recorded_calls import recorded_calls

    (component,) = adapter.components(model, points(3000), OPTIONS)
    voxels, num_points, coors = component.trace_inputs()
    ours = Decoration(
        model.pts_voxel_encoder,
        {"cluster_center": cluster, "voxel_center": True, "distance": distance, "legacy": legacy},
    )
    encoder = PillarFeatureNet(
        5, (8,), distance, cluster, True, (0.4, 0.4, 8.0), (-51.2, -51.2, -3.0, 51.2, 51.2, 5.0), legacy=legacy
    ).eval()  # fmt: skip
    with torch.no_grad(), recorded_calls(encoder.pfn_layers[0]) as calls:
        decorated = ours(voxels, num_points, coors)
        encoder(voxels.clone(), num_points, coors)
    torch.testing.assert_close(decorated, calls[0].inputs[0], atol=1e-4, rtol=1e-5)


def test_of_equal_cells_the_first_are_chosen() -> None:
    scores = torch.tensor([0.1, 0.5, 0.5, 0.0, 0.5, 0.9, 0.0])
    assert best_first(scores, 4).tolist() == [5, 1, 2, 4]


def test_cells_with_a_better_neighbor_and_those_at_the_border_are_zero() -> None:
    heatmap = torch.full((1, 1, 4, 5), 0.2)
    heatmap[0, 0, 2, 2] = 0.7
    heatmap[0, 0, 0, 0] = 0.9
    kept = local_maxima(heatmap, 3)[0, 0]
    assert kept.nonzero().tolist() == [[2, 2]]
    assert kept[2, 2] == pytest.approx(0.7)


def test_positions_are_the_centers_of_cells() -> None:
    centers = centers_of_cells(rows=2, columns=3)
    assert centers[0].tolist() == [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5], [0.5, 1.5], [1.5, 1.5], [2.5, 1.5]]


def test_voxels_without_points_leave_the_map_as_it_is(model: Any) -> None:
    (component,) = adapter.components(model, points(3000), OPTIONS)
    module = component.module
    voxels, num_points, coors = component.trace_inputs()
    with torch.no_grad():
        alone = module(voxels, num_points, coors)
        more = module(
            torch.cat([voxels, torch.zeros_like(voxels[:3])]),
            torch.cat([num_points, torch.zeros_like(num_points[:3])]),
            torch.cat([coors, torch.zeros_like(coors[:3])]),
        )
    assert not (coors[:, 2:] == 0).all(dim=1).any()
    for a, b in zip(alone, more, strict=True):
        torch.testing.assert_close(a, b)


def test_a_frame_with_nan_and_one_too_large(model: Any, spec: ModelSpec) -> None:
    frame = points(20_000)
    frame[::7, 2] = float("nan")
    small = spec.model_copy(update={"parameters": {**spec.parameters, "max_voxels": 500}})
    pipeline = build(small, InTorch(model))
    answer = pipeline.infer(frame.numpy())
    assert answer.counters["points_nan"] == len(frame[::7])
    assert answer.counters["voxels"] == 500
    assert answer.counters["voxels_dropped"] > 0
    assert all(np.isfinite(values).all() for values in answer.outputs.values())
    (line,) = pipeline.alerts({**answer.counters, "read_nan": 0})
    assert "voxels did not fit" in line


def test_what_a_frame_leaves_behind_is_gone_in_the_next(model: Any, spec: ModelSpec) -> None:
    pipeline = build(spec, InTorch(model))
    alone = pipeline.infer(points(400).numpy()).outputs
    pipeline.infer(points(20_000).numpy())
    again = pipeline.infer(points(400).numpy()).outputs
    assert all(np.array_equal(alone[name], again[name]) for name in alone)


def test_scores_are_of_the_request_that_they_are_asked_of(model: Any) -> None:
    head = model.pts_bbox_head
    rng = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, 60, 64, 64, generator=rng) for _ in range(2)]
    with torch.no_grad():
        first, other = (head([features], [])[0][0] for features in maps)
    assert not torch.equal(first["query_labels"], other["query_labels"])
    assert torch.equal(head.scores(first).argmax(dim=1), first["query_labels"])


def test_circle_suppression_is_that_of_the_data_set(model: Any, spec: ModelSpec) -> None:
    """nuScenes' ninth and tenth class are suppressed, each by itself; here, by hand, those of the demo."""
    suppressing = [{"label": 0, "radius": 100.0, "most": 83}, {"label": 4, "radius": 100.0, "most": 2}]
    changed = spec.model_copy(update={"parameters": {**spec.parameters, "circle_nms": suppressing}})
    free = run(model, spec, points(20_000)).predictions
    kept = run(model, changed, points(20_000)).predictions
    assert isinstance(free, Boxes3D)
    assert isinstance(kept, Boxes3D)
    for label in range(5):
        before, after = free.select(free.labels == label), kept.select(kept.labels == label)
        if label in (1, 2, 3):
            assert np.array_equal(before.scores, after.scores)
    assert (kept.labels == 4).sum() <= 2
    near = kept.select(kept.labels == 0).centers[:, :2].astype(np.float64)
    distances = ((near[:, None] - near[None]) ** 2).sum(axis=2)
    assert (distances[~np.eye(len(near), dtype=bool)] > 100.0).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pts_bbox_head": {"nms_kernel_size": 1}}, "nms_kernel_size"),
        ({"test_cfg": {"pts": {"nms_type": "rotate"}}}, "nms_type 'rotate'"),
        ({"test_cfg": {"pts": {"grid_size": [256, 128, 1]}}}, "square"),
        ({"pts_voxel_encoder": {"type": "HardSimpleVFE"}}, "pts_voxel_encoder is HardSimpleVFE"),
        ({"pts_bbox_head": {"num_classes": 7}}, "names 5 classes"),
        ({"type": "BEVFusion"}, "model is a BEVFusion, not a TransFusion"),
    ],
)
def test_what_cannot_be_deployed_is_refused(config: TrainingConfig, change: dict[str, Any], said: str) -> None:
    from dataclasses import replace

    section = _merged(config.model, change)
    with pytest.raises(ConfigError, match=said):
        adapter.build(replace(config, model=section), OPTIONS)


def test_a_deploy_config_of_mmdeploy_names_the_tensors_that_are_exported(model: Any, tmp_path: Path) -> None:
    """AWML's form has no types, and two of the inputs are no float32."""
    path = tmp_path / "projects" / "TransFusion" / "configs" / "deploy" / "dynamic.py"
    path.parent.mkdir(parents=True)
    shapes = ", ".join(
        f"{name}=dict(" + ", ".join(f"{kind}_shape=[{count}{rest}]" for kind, count in SIZES) + ")"
        for name, rest in zip(INPUTS, (", 20, 5", "", ", 4"), strict=True)
    )
    axes = {name: {0: VOXELS_AXIS} for name in INPUTS}
    path.write_text(
        'codebase_config = dict(type="mmdet3d", task="VoxelDetection", model_type="end2end")\n'
        'onnx_config = dict(type="onnx", opset_version=11, save_file="end2end.onnx", input_shape=None,\n'
        f"    input_names={list(INPUTS)}, output_names={list(OUTPUTS)}, dynamic_axes={axes})\n"
        f'backend_config = dict(type="tensorrt", model_inputs=[dict(input_shapes=dict({shapes}))])\n'
    )
    config = load_config(path)
    assert (config.task_type, config.model.type) == ("detection3d", "transfusion")
    settings = config.components[COMPONENT]
    (component,) = adapter.components(model, points(3000), OPTIONS)
    for named, own in ((settings.io.inputs, component.inputs), (settings.io.outputs, component.outputs)):
        assert [(tensor.name, tensor.dtype) for tensor in named] == [(tensor.name, tensor.dtype) for tensor in own]
    assert settings.io.dynamic_axes == axes
    assert settings.tensorrt_profile[VOXELS].opt_shape == (30000, 20, 5)


def test_a_spec_of_another_model_is_refused(model: Any, spec: ModelSpec) -> None:
    (component,) = spec.components
    renamed = component.model_copy(update={"inputs": component.inputs[::-1]})
    with pytest.raises(ManifestError, match=f"{COORS}.*{NUM_POINTS}.*{VOXELS}"):
        build(spec.model_copy(update={"components": [renamed]}), InTorch(model))


def _merged(section: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    return {**section, **{k: _merged(section[k], v) if isinstance(v, dict) else v for k, v in change.items()}}

"""CenterPoint of AWML's and mmdet3d's configs: built, loaded strictly, exported, and equal to the framework."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shared.errors import ConfigError, ExportError
from tests.support.exporting import CONFIGS, SMALL, built, points, save_checkpoint

pytestmark = pytest.mark.exporter

OUTPUTS = ["heatmap", "reg", "height", "dim", "rot", "vel"]

# Config, encoder features, grid, offsets to the pillar's center, stride of the head's output.
AWML = [
    ("base_121m", 10, [1020, 1020, 1], "xyz", 2),
    ("j6gen2_121m", 11, [1020, 1020, 1], "xyz", 2),
    ("short_range_convnext", 10, [640, 640, 1], "xyz", 4),
    ("short_range_backward", 9, [640, 640, 1], "xy", 1),
]


def small_checks(component):
    """The component with one size to check, and that a small one: these networks are large."""
    small = {"batch_size": 2, "height": 64, "width": 96, "num_voxels": 500, "num_max_points": 32}
    return replace(component, check_sizes=({axis: small[axis] for axis in component.trace_sizes},))


def exported_and_checked(component, tmp_path):
    from exporter.artifacts.checks import check_onnx
    from exporter.artifacts.onnx_export import export_onnx
    from exporter.artifacts.programs import export_program

    path = tmp_path / f"{component.name}.onnx"
    export_onnx(component, path, exporter="torchscript", opset_version=17)
    assert len(check_onnx(path, component, 17)) == len(component.check_sizes)
    assert len(export_program(component, tmp_path / f"{component.name}.pt2")) == len(component.check_sizes)
    return path


@pytest.mark.parametrize(("name", "features", "grid", "center", "factor"), AWML, ids=[row[0] for row in AWML])
def test_awml_configs(name, features, grid, center, factor, tmp_path):
    from exporter.checkpoints import load_weights
    from exporter.models.centerpoint import adapter as centerpoint

    trained, _, _ = built(CONFIGS / f"{name}.py")
    model, training, options = built(CONFIGS / f"{name}.py")
    for value in model.state_dict().values():
        value.zero_()
    load_weights(model, save_checkpoint(trained, tmp_path / "model.pth"))

    parameters = centerpoint.parameters(model, training, options)
    assert parameters["grid_size"] == grid
    assert parameters["decoration"]["voxel_center"] == center
    assert parameters["out_size_factor"] == factor
    assert parameters["max_points_per_voxel"] == 32
    assert parameters["points"]["range_filter"] == parameters["point_cloud_range"]
    assert parameters["points"]["remove_close"] and parameters["points"]["sweeps_num"] == 1
    assert parameters["nms"] == {"type": "circle", "radius": [1.0], "pre_max_size": None, "post_max_size": 100}
    assert parameters["bbox_coder"] == {
        "max_num": 500,
        "score_threshold": 0.1,
        "post_center_range": [-200, -200, -10, 200, 200, 10],
    }
    assert centerpoint.classes(model) == ["car", "truck", "bus", "bicycle", "pedestrian"]

    sample = points(parameters["decoration"]["raw_features"])
    encoder, head = centerpoint.components(model, sample, options)
    assert encoder.inputs[0].shape == ["num_voxels", "num_max_points", features]
    assert encoder.outputs[0].shape == ["num_voxels", 1, 32]
    assert head.inputs[0].shape == ["batch_size", 32, "height", "width"]
    assert head.output_names() == OUTPUTS
    assert [tensor.shape[1] for tensor in head.outputs] == [5, 2, 1, 3, 2, 2]
    exported_and_checked(small_checks(encoder), tmp_path)
    exported_and_checked(small_checks(head), tmp_path)


@pytest.fixture(scope="module")
def mmdet3d_configs() -> Path:
    mmdet3d = pytest.importorskip("mmdet3d")
    return Path(mmdet3d.__file__).parent / ".mim" / "configs" / "centerpoint"


CIRCLE = "centerpoint_pillar02_second_secfpn_head-circlenms_8xb4-cyclic-20e_nus-3d.py"
ROTATED = "centerpoint_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py"


def test_mmdet3d_config_with_six_tasks(mmdet3d_configs, tmp_path):
    from exporter.checkpoints import load_weights
    from exporter.models.centerpoint import adapter as centerpoint

    model, training, options = built(mmdet3d_configs / CIRCLE)
    load_weights(model, save_checkpoint(model, tmp_path / "model.pth"))
    parameters = centerpoint.parameters(model, training, options)
    assert len(parameters["tasks"]) == 6
    assert parameters["tasks"][1] == {
        "classes": ["truck", "construction_vehicle"],
        "outputs": {kind: f"{kind}_1" for kind in OUTPUTS},
    }
    assert parameters["nms"]["radius"] == [4, 12, 10, 1, 0.85, 0.175]
    assert parameters["points"]["sweeps_num"] == 9 and parameters["points"]["range_filter"] is None
    assert len(centerpoint.classes(model)) == 10

    encoder, head = centerpoint.components(model, points(5), options)
    assert encoder.inputs[0].shape[2] == 11
    assert head.output_names() == [f"{kind}_{task}" for task in range(6) for kind in OUTPUTS]
    exported_and_checked(small_checks(encoder), tmp_path)
    exported_and_checked(small_checks(head), tmp_path)


def test_rotated_suppression_is_refused_unless_circle_suppression_is_asked_for(mmdet3d_configs):
    from exporter.models.centerpoint import adapter as centerpoint

    with pytest.raises(ConfigError, match=r"nms_type is 'rotate'.*--set model.options.nms_type=circle"):
        built(mmdet3d_configs / ROTATED)
    model, training, options = built(mmdet3d_configs / ROTATED, {"nms_type": "circle"})
    assert centerpoint.parameters(model, training, options)["nms"]["type"] == "circle"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("centerpoint_voxel01_second_secfpn_8xb4-cyclic-20e_nus-3d.py", "only a CenterPoint on pillars"),
        ("centerpoint_pillar02_second_secfpn_head-dcn-circlenms_8xb4-cyclic-20e_nus-3d.py", "deformable"),
    ],
)
def test_variants_that_cannot_be_deployed_say_so(mmdet3d_configs, name, message):
    with pytest.raises(ConfigError, match=message):
        built(mmdet3d_configs / name)


# -- a grid that is not square ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    return built(SMALL)


@pytest.fixture(scope="module")
def small_components(small):
    from exporter.models.centerpoint import adapter as centerpoint

    model, _, options = small
    return centerpoint.components(model, points(4), options)


def test_the_components_joined_give_what_the_framework_gives(small, small_components):
    """Framework's own forward against encoder, scatter and head run one after the other."""
    import torch

    from exporter.models.centerpoint import adapter as centerpoint

    model, _, _ = small
    encoder, head = small_components
    sample = points(4)
    raw, _, counters = centerpoint.answer(model, sample)
    with torch.no_grad():
        voxels = model.data_preprocessor({"inputs": {"points": [sample]}})["inputs"]["voxels"]
        decorated = encoder.inputs_of({"num_voxels": counters["voxels"], "num_max_points": 32})[0]
        pillars = encoder.module(decorated).squeeze(1)
        canvas = torch.zeros(1, 32, 192, 256)
        canvas[0, :, voxels["coors"][:, 2].long(), voxels["coors"][:, 3].long()] = pillars.T
        outputs = head.module(canvas)
    for name, value in zip(OUTPUTS, outputs, strict=True):
        # The encoder's batch norms are folded, which rounds otherwise.
        np.testing.assert_allclose(value.numpy(), raw[name], rtol=0, atol=1e-5 * abs(raw[name]).max(), err_msg=name)


def test_windows_of_the_map_hold_pillars(small_components):
    head = small_components[1]
    for sizes in (*head.check_sizes, head.trace_sizes):
        window = head.inputs_of(sizes)[0]
        assert tuple(window.shape) == (sizes["batch_size"], 32, sizes["height"], sizes["width"])
        assert window.count_nonzero() > 0


def test_three_sizes_differ_on_every_dynamic_axis(small_components):
    for component in small_components:
        assert len(component.check_sizes) == 3
        for axis in component.trace_sizes:
            assert len({sizes[axis] for sizes in component.check_sizes}) > 1, axis


def test_a_sample_without_points_in_range_is_refused(small):
    from exporter.models.centerpoint import adapter as centerpoint

    model, _, options = small
    with pytest.raises(ExportError, match=r"data.sample_idx: no point.*choose another sample"):
        centerpoint.components(model, points(4) + 1000, options)


def test_a_network_without_velocity(tmp_path):
    from exporter.models.centerpoint import adapter as centerpoint

    config = tmp_path / "no_velocity.py"
    config.write_text(
        f'_base_ = ["{SMALL}"]\nheads = dict(_delete_=True, reg=(2, 2), height=(1, 2), dim=(3, 2), rot=(2, 2))\n'
        "model = dict(pts_bbox_head=dict(common_heads=heads, bbox_coder=dict(code_size=7)))\n"
    )
    model, training, options = built(config)
    parameters = centerpoint.parameters(model, training, options)
    assert list(parameters["tasks"][0]["outputs"]) == OUTPUTS[:-1]
    head = centerpoint.components(model, points(4), options)[1]
    assert head.output_names() == OUTPUTS[:-1]
    raw, boxes, _ = centerpoint.answer(model, points(4))
    assert "vel" not in raw
    assert len(boxes) and np.isnan(boxes.velocities).all()


# -- yaw from the y axis -----------------------------------------------------------------------------------------------


def test_y_axis_reference_is_exported_and_recorded_and_nothing_else_changes(small, tmp_path):
    """Autoware's convention: w, l, h and [-cos, -sin]; outputs in the same order; no arithmetic but the sign."""
    import onnx
    import torch

    from exporter.models.centerpoint import adapter as centerpoint

    model, training, plain = small
    turned = centerpoint.read_options({"rot_y_axis_reference": True})
    assert centerpoint.parameters(model, training, turned)["rot_y_axis_reference"] is True
    assert centerpoint.parameters(model, training, plain)["rot_y_axis_reference"] is False

    head = centerpoint.components(model, points(4), turned)[1]
    path = exported_and_checked(small_checks(head), tmp_path)
    graph = onnx.load(path).graph
    assert [value.name for value in graph.output] == OUTPUTS
    assert "Mul" not in {node.op_type for node in graph.node}

    inputs = head.trace_inputs()
    with torch.no_grad():
        before = dict(zip(OUTPUTS, centerpoint.components(model, points(4), plain)[1].module(*inputs), strict=True))
        after = dict(zip(OUTPUTS, head.module(*inputs), strict=True))
    for name in ("heatmap", "reg", "height", "vel"):
        assert after[name].equal(before[name])
    assert after["dim"].equal(before["dim"][:, [1, 0, 2]])
    assert after["rot"].equal(-before["rot"][:, [1, 0]])
    # What Autoware computes from it is the yaw that ROS expects.
    autoware = -torch.atan2(after["rot"][:, 0], after["rot"][:, 1]) - math.pi / 2
    ours = torch.atan2(before["rot"][:, 0], before["rot"][:, 1])
    difference = torch.remainder(autoware - ours + math.pi, 2 * math.pi) - math.pi
    assert difference.abs().max() < 1e-5


def test_a_network_trained_on_the_y_axis_is_exported_as_it_is(small, tmp_path):
    """AWML's box coder has a flag for it; mmdet3d's answer must be the same boxes in either convention."""
    import torch

    from exporter.models.centerpoint import adapter as centerpoint

    config = tmp_path / "y_axis.py"
    config.write_text(
        f'_base_ = ["{SMALL}"]\nmodel = dict(pts_bbox_head=dict(bbox_coder=dict(y_axis_reference=True)))\n'
    )
    model, training, options = built(config)
    assert centerpoint.parameters(model, training, options)["rot_y_axis_reference"] is True
    both = centerpoint.read_options({"rot_y_axis_reference": True})
    inputs = centerpoint.components(model, points(4), options)[1].trace_inputs()
    with torch.no_grad():
        as_it_is = centerpoint.components(model, points(4), options)[1].module(*inputs)
        asked_for = centerpoint.components(model, points(4), both)[1].module(*inputs)
    for one, other in zip(as_it_is, asked_for, strict=True):
        assert one.equal(other)
    # The reference is in the framework's usual convention: decoding its raw maps gives its boxes.
    raw, boxes, _ = centerpoint.answer(model, points(4))
    plain_raw, _, _ = centerpoint.answer(small[0], points(4))
    np.testing.assert_array_equal(raw["dim"], plain_raw["dim"][:, [1, 0, 2]])
    best = int(boxes.scores.argmax())
    yaws = np.arctan2(raw["rot"][0, 0], raw["rot"][0, 1])
    difference = np.abs(np.angle(np.exp(1j * (yaws - boxes.yaws[best])))).min()
    assert difference < 1e-4


# -- options and contradictions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rot_y_axis_referense": True}, r"model.options.rot_y_axis_referense.*options of centerpoint"),
        ({"rot_y_axis_reference": "yes"}, r"model.options.rot_y_axis_reference"),
        ({"nms_type": "rotate"}, r"model.options.nms_type"),
    ],
)
def test_wrong_options(options, message):
    from exporter.models.centerpoint import adapter as centerpoint

    with pytest.raises(ConfigError, match=message):
        centerpoint.read_options(options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('type="MVXFasterRCNN"', "model is a MVXFasterRCNN, not a CenterPoint"),
        ('pts_voxel_encoder=dict(type="HardSimpleVFE")', "pts_voxel_encoder is HardSimpleVFE"),
        ('pts_voxel_encoder=dict(mode="avg")', "averages over points"),
        ('pts_bbox_head=dict(type="MultiHeadCenterPointHead")', "is a MultiHeadCenterPointHead, which is not known"),
        ("pts_bbox_head=dict(bbox_coder=dict(post_center_range=None))", "no post_center_range"),
        ("data_preprocessor=dict(voxel=False)", "does not voxelize"),
        ('data_preprocessor=dict(voxel_type="dynamic")', "not into voxels of a fixed size"),
        ("test_cfg=dict(pts=None)", "no test_cfg.pts"),
    ],
)
def test_a_config_of_another_kind_of_model(change, message, tmp_path):
    config = tmp_path / "other.py"
    config.write_text(f'_base_ = ["{SMALL}"]\nmodel = dict({change})\n')
    with pytest.raises(ConfigError, match=message) as caught:
        built(config)
    assert "other.py" in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("pts_voxel_encoder=dict(in_channels=5)", r"loads 4 columns \[0, 1, 2, 4\], the voxel encoder takes 5"),
        ("pts_voxel_encoder=dict(voxel_size=[0.2, 0.2, 8])", "the voxel encoder's voxel_size"),
        ("pts_voxel_encoder=dict(point_cloud_range=[0, 0, 0, 1, 1, 1])", "the voxel encoder's point_cloud_range"),
        ("pts_bbox_head=dict(bbox_coder=dict(pc_range=[0, 0]))", "the box coder's pc_range"),
        ("pts_middle_encoder=dict(output_shape=(256, 192))", r"output_shape \(y, x\)"),
        ("test_cfg=dict(pts=dict(min_radius=[1.0, 2.0]))", "min_radius has 2 values for 1 tasks"),
    ],
)
def test_a_config_that_contradicts_itself(change, message, tmp_path):
    from exporter.models.centerpoint import adapter as centerpoint

    config = tmp_path / "contradiction.py"
    config.write_text(f'_base_ = ["{SMALL}"]\nmodel = dict({change})\n')
    model, training, options = built(config)
    with pytest.raises(ConfigError, match=message):
        centerpoint.parameters(model, training, options)

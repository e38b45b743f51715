"""Mode trt takes ONNX files made elsewhere, checks them against the model, and refuses what is not the model."""

from __future__ import annotations

import itertools
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from exporter.artifacts.given_onnx import Rejected, commands_to_bisect
from shared.errors import ConfigError, ExportError, InputError
from shared.workspace import Workspace

pytestmark = pytest.mark.exporter

TRAINING_CONFIG = """
_base_ = "{base}"
point_cloud_range = [-25.6, -25.6, -3.0, 25.6, 25.6, 5.0]
model = dict(
    data_preprocessor=dict(voxel_layer=dict(point_cloud_range=point_cloud_range, max_voxels=(2000, 2000))),
    pts_voxel_encoder=dict(point_cloud_range=point_cloud_range),
    pts_middle_encoder=dict(output_shape=(128, 128)),
    pts_bbox_head=dict(bbox_coder=dict(pc_range=point_cloud_range[:2])),
    test_cfg=dict(pts=dict(grid_size=[128, 128, 1], pc_range=point_cloud_range[:2])),
)
test_pipeline = [
    dict(type="LoadPointsFromFile", coord_type="LIDAR", load_dim=5, use_dim=5),
    dict(type="LoadPointsFromMultiSweeps", sweeps_num=1, use_dim=[0, 1, 2, 4], pad_empty_sweeps=False,
         remove_close=True, test_mode=True),
    dict(type="PointsRangeFilter", point_cloud_range=point_cloud_range),
    dict(type="Pack3DDetInputs", keys=["points"]),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a deploy config, and a workspace exported from it."""
    import torch

    from exporter.export import export
    from exporter.models.centerpoint import adapter as centerpoint
    from exporter.training_config import random_weights, read_training_config

    root = tmp_path_factory.mktemp("given")
    base = Path(__file__).parents[2] / "configs" / "train" / "centerpoint_demo.py"
    (root / "training.py").write_text(TRAINING_CONFIG.replace("{base}", str(base)))
    model = centerpoint.build(read_training_config(root / "training.py"), centerpoint.read_options({}))
    random_weights(model, seed=3)
    torch.save({"state_dict": model.state_dict()}, root / "weights.pth")
    points = np.random.default_rng(0).uniform((-25, -25, -2, 0, 0), (25, 25, 2, 255, 0), (4000, 5)).astype(np.float32)
    (root / "frames").mkdir()
    points.tofile(root / "frames" / "0.bin")
    deploy = {
        "model": {"type": "centerpoint", "config": "training.py", "checkpoint": "weights.pth"},
        "data": {"format": "folder", "root": "frames", "num_features": 5},
        "verification": {"num_verify_samples": 1},
    }
    (root / "deploy.yaml").write_text(yaml.safe_dump(deploy))
    export(root / "deploy.yaml", root / "first", ["export.mode=onnx"])
    return root


def take(root: Path, onnx: Path, work: Path, *overrides: str) -> Workspace:
    from exporter.export import export

    export(root / "deploy.yaml", work, ["export.mode=trt", f"export.onnx_path={onnx}", *overrides])
    return Workspace.open(work)


def test_files_are_taken_whole_and_checked(exported: Path, tmp_path: Path) -> None:
    first = Workspace.open(exported / "first")
    taken = take(exported, exported / "first" / "onnx", tmp_path / "work")
    assert [component.name for component in taken.spec().components] == ["pts_voxel_encoder", "pts_backbone_neck_head"]
    for component in taken.spec().components:
        assert taken.artifact(component.onnx).read_bytes() == first.artifact(component.onnx).read_bytes()
    assert taken.manifest().stages["export"].status == "done"
    assert taken.manifest().results["export"]["agreement"]["pts_voxel_encoder"]["onnx"]


def test_another_models_file_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "onnx"
    shutil.copytree(exported / "first" / "onnx", folder)
    shutil.copy(folder / "pts_voxel_encoder.onnx", folder / "pts_backbone_neck_head.onnx")
    with pytest.raises(ExportError, match="has the inputs"):
        take(exported, folder, tmp_path / "work")


def test_missing_truncated_and_absent_files_are_told(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "onnx"
    folder.mkdir()
    with pytest.raises(InputError, match="no ONNX files here"):
        take(exported, folder, tmp_path / "work")
    content = (exported / "first" / "onnx" / "pts_voxel_encoder.onnx").read_bytes()
    (folder / "pts_voxel_encoder.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"pts_backbone_neck_head\.onnx: no such ONNX file"):
        take(exported, folder, tmp_path / "work")
    (folder / "pts_voxel_encoder.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"pts_voxel_encoder\.onnx: not a whole ONNX file"):
        take(exported, folder, tmp_path / "work")


def test_a_task_or_quantization_that_is_not_there_is_refused(exported: Path, tmp_path: Path) -> None:
    onnx = exported / "first" / "onnx"
    with pytest.raises(ConfigError, match=r"task_type: is classification, but model.type centerpoint does detection3d"):
        take(exported, onnx, tmp_path / "a", "task_type=classification")
    with pytest.raises(
        InputError, match=r"quantization\.enabled: is true, and the workspace has no quantized/ptq\.pth"
    ):
        take(exported, onnx, tmp_path / "b", "quantization.enabled=true")


def test_a_plugin_of_tensorrt_is_no_mistake_and_any_other_unknown_operator_is(tmp_path: Path) -> None:
    """AWML's exporter writes EfficientNMS_TRT without a domain."""
    import onnx

    from exporter.adopt import check
    from tests.support import suppression_graphs

    model = suppression_graphs.plugin()
    model.graph.node[0].domain = ""
    del model.opset_import[1:]
    onnx.save(model, str(tmp_path / "plugin.onnx"))
    check(tmp_path / "plugin.onnx", where="it")
    model.graph.node[0].op_type = "Invented"
    onnx.save(model, str(tmp_path / "unknown.onnx"))
    with pytest.raises(InputError, match="No Op registered for Invented"):
        check(tmp_path / "unknown.onnx", where="it")


@pytest.fixture(scope="module")
def faulty(exported: Path) -> Path:
    """A folder with ONNX files of the model, one of which has a weight that is wrong."""
    import onnx

    folder = exported / "faulty"
    shutil.copytree(exported / "first" / "onnx", folder)
    model = onnx.load(str(folder / "pts_backbone_neck_head.onnx"))
    convolution = [node for node in model.graph.node if node.op_type == "Conv"][3]
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == convolution.input[1])
    values = onnx.numpy_helper.to_array(weight) * np.float32(1.5)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, str(folder / "pts_backbone_neck_head.onnx"))
    return folder


def test_a_file_that_computes_something_else_leads_on_to_bisect(exported: Path, faulty: Path, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="ONNX Runtime and PyTorch differ") as error:
        take(exported, faulty, tmp_path / "work")
    head, *commands = error.value.lines()
    assert head.endswith("To find the nodes that do it:")
    given = f"--set export.onnx_path={faulty}"
    assert given in commands[0]
    assert "export.mode=none" in commands[0]
    assert "export.mode=trt" not in commands[0]
    assert given not in commands[1]
    assert f"--work {tmp_path / 'work-own'}" in commands[1]
    assert commands[-1] == f"  verifier bisect --work {tmp_path / 'work'} --reference-work {tmp_path / 'work-own'}"


def test_mode_none_keeps_such_a_file_with_a_warning(
    exported: Path, faulty: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = take(exported, faulty, tmp_path / "work", "export.mode=none")
    onnx = "onnx/pts_backbone_neck_head.onnx"
    assert kept.artifact(onnx).read_bytes() == (faulty / "pts_backbone_neck_head.onnx").read_bytes()
    agreement = kept.manifest().results["export"]["agreement"]
    assert agreement["pts_backbone_neck_head"]["onnx"] == []
    assert agreement["pts_voxel_encoder"]["onnx"]
    assert "It is kept; to find the nodes that do it:" in caplog.text
    assert "verifier bisect" in caplog.text


def test_a_file_of_other_tensors_is_refused_in_every_mode(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "onnx"
    shutil.copytree(exported / "first" / "onnx", folder)
    shutil.copy(folder / "pts_voxel_encoder.onnx", folder / "pts_backbone_neck_head.onnx")
    with pytest.raises(ExportError, match="has the inputs"):
        take(exported, folder, tmp_path / "work", "export.mode=none")


@pytest.mark.parametrize("overrides", [["export.mode=trt", "a.b=x y"], []])
def test_the_commands_that_lead_on_are_typed_as_they_are(overrides: list[str]) -> None:
    commands = commands_to_bisect(Path("c.yaml"), Path("work/m"), overrides, Path("my data"))
    words = [shlex.split(command) for command in commands]
    assert [each[:2] for each in words[:2]] == [["exporter", "export"]] * 2
    for each in words[:3]:
        assert each[each.index("--data") + 1] == "my data"
    sets = [[word for before, word in itertools.pairwise(each) if before == "--set"] for each in words[:2]]
    others = [override for override in overrides if not override.startswith("export.")]
    assert sets == [[*others, "export.mode=none"], [*others, "export.mode=onnx", "export.onnx_path=null"]]

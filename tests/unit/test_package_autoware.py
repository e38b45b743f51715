"""Bundles for Autoware: named and filled as its nodes read them; models that a node would misread are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from click.testing import CliRunner
from onnx import TensorProto, helper

from exporter import autoware
from exporter.autoware import BundleOptions, Precision
from exporter.autoware.package import package_autoware
from exporter.autoware.refusals import NodeRefuses
from exporter.cli import cli
from exporter.package_commands import package_group
from shared.errors import InputError, ManifestError, UsageError
from shared.files import sha256_of_file
from shared.manifest import Manifest, update_manifest
from shared.several_tasks import qualified_classes
from shared.spec import ComponentSpec, ModelSpec, TensorSpec
from shared.workspace import Workspace
from tests.support import plugin_packages
from tests.support.autoware_schemas import SCHEMAS, problems

CLASSES = ["car", "truck", "bus", "bicycle", "pedestrian"]


def _tensor(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=list(shape))


def centerpoint(**changes: Any) -> ModelSpec:
    """The spec of an AWML CenterPoint exported for Autoware; ``changes`` to its parameters."""
    cells = ("batch_size", "output_height", "output_width")
    channels = {"heatmap": len(CLASSES), "reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
    features = changes.pop("features", 11)
    parameters = {
        "point_cloud_range": [-122.4, -122.4, -3.0, 122.4, 122.4, 5.0],
        "voxel_size": [0.24, 0.24, 8.0],
        "grid_size": [1020, 1020, 1],
        "max_points_per_voxel": 32,
        "max_voxels": 96000,
        "points": {"sweeps_num": 1},
        "decoration": {
            "raw_features": 5, "cluster_center": True, "voxel_center": "xyz", "distance": False, "legacy": False,
        },
        "encoder_channels": 32,
        "out_size_factor": 2,
        "norm_bbox": True,
        "rot_y_axis_reference": True,
        "bbox_coder": {"max_num": 500},
        "tasks": [{"classes": CLASSES}],
    }  # fmt: skip
    return ModelSpec(
        model="centerpoint",
        task="detection3d",
        classes=changes.pop("classes", CLASSES),
        components=[
            ComponentSpec(
                name="pts_voxel_encoder",
                inputs=[_tensor("input_features", "num_voxels", "num_max_points", features)],
                outputs=[_tensor("pillar_features", "num_voxels", 1, 32)],
                onnx="onnx/pts_voxel_encoder.onnx",
            ),
            ComponentSpec(
                name="pts_backbone_neck_head",
                inputs=[_tensor("spatial_features", "batch_size", 32, "height", "width")],
                outputs=[_tensor(name, cells[0], count, *cells[1:]) for name, count in channels.items()],
                onnx="onnx/pts_backbone_neck_head.onnx",
            ),
        ],
        parameters=parameters | changes,
    )


def yolox(**changes: Any) -> ModelSpec:
    """The spec of AWML's YOLOX; ``changes`` to its parameters."""
    usual = ["unknown", "car", "truck", "bus", "trailer", "motorcycle", "pedestrian", "bicycle"]
    classes = changes.pop("classes", usual)
    image = {"height": 960, "width": 960, "fill": 114, "color": "bgr", "mean": None, "std": None, "resize": "mmdet"}
    return ModelSpec(
        model="yolox",
        task="detection2d",
        classes=classes,
        components=[
            ComponentSpec(
                name="yolox",
                inputs=[_tensor("images", 1, 3, 960, 960)],
                outputs=[_tensor("output", 1, 18900, 13)],
                onnx="onnx/yolox.onnx",
            )
        ],
        parameters={
            "image": image | changes.pop("image", {}), "strides": [8, 16, 32], "output": "raw", "score_threshold": 0.01,
        } | changes,
    )  # fmt: skip


def calibration(**changes: Any) -> ModelSpec:
    """The spec of AWML's calibration status classifier; ``changes`` to its parameters."""
    return ModelSpec(
        model="calibration",
        task="classification",
        classes=["miscalibrated", "calibrated"],
        components=[
            ComponentSpec(
                name="end2end",
                inputs=[_tensor("input", "batch_size", 5, "height", "width")],
                outputs=[_tensor("output", "batch_size", 2)],
                onnx="onnx/end2end.onnx",
            )
        ],
        parameters={
            "max_depth": 128.0, "dilation_size": 1, "undistort": True, "miscalibration_confidence_threshold": 0.5,
        } | changes,
    )  # fmt: skip


def _write_onnx(path: Path, component: ComponentSpec, *, dtype: int = TensorProto.FLOAT) -> None:
    """A graph with a component's inputs and outputs, and nothing sensible between them."""

    def info(tensor: TensorSpec) -> Any:
        return helper.make_tensor_value_info(tensor.name, dtype, tensor.shape)

    nodes = [helper.make_node("Identity", [component.inputs[0].name], [output.name]) for output in component.outputs]
    graph = helper.make_graph(
        nodes, component.name, [info(t) for t in component.inputs], [info(t) for t in component.outputs]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), str(path))


def exported(root: Path, spec: ModelSpec, *, dtype: int = TensorProto.FLOAT, **config: Any) -> Path:
    """A workspace after an export of ``spec``; ``config``: sections of its deploy config."""
    ws = Workspace.create(root)
    stage = ws.stage("export", tool="exporter", inputs={"checkpoint": "c" * 64})
    with stage:
        for component in spec.components:
            with stage.artifact(component.onnx, kind="onnx") as path:
                _write_onnx(path, component, dtype=dtype)
        stage.spec(spec)
        stage.config({"tensorrt": {"precision_policy": "fp16"}} | config)
    return root


def _parameters(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text())
    assert list(content) == ["/**"]
    assert list(content["/**"]) == ["ros__parameters"]
    return content["/**"]["ros__parameters"]


# -- what the nodes of a release read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("release", SCHEMAS)
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_parameter_files_are_those_of_the_release(tmp_path: Path, release: str, precision: Precision) -> None:
    written = set()
    for spec in (centerpoint(), yolox(), calibration()):
        work, out = exported(tmp_path / f"{spec.model}-work", spec), tmp_path / spec.model
        package_autoware(work, out, BundleOptions(autoware=release, precision=precision))
        for path in out.glob("*.param.yaml"):
            assert problems(yaml.safe_load(path.read_text()), SCHEMAS[release][path.name]) == []
            written.add(path.name)
        about = yaml.safe_load((out / "deploy_metadata.yaml").read_text())
        assert about["autoware_universe"] == release
    assert written == SCHEMAS[release].keys()


def test_a_wrong_parameter_file_has_problems() -> None:
    schema = SCHEMAS["0.53"]["ml_package_calibration_status_classifier.param.yaml"]
    good = {"max_depth": 128.0, "dilation_size": 1, "height": [1, 2, 3], "width": [1, 2, 3]}
    for wrong in ({"ego_box": [0.0] * 6}, {"max_depth": 128}, {"height": [1, 2]}, {"dilation_size": 1.5}):
        assert problems({"/**": {"ros__parameters": good | wrong}}, schema)
    assert problems({"/**": {"ros__parameters": good}}, schema) == []
    assert problems({"ros__parameters": good}, schema)


def test_bundles_have_versions_of_their_own(tmp_path: Path) -> None:
    versions = {}
    for spec in (centerpoint(), yolox(), calibration()):
        out = tmp_path / spec.model
        package_autoware(exported(tmp_path / f"{spec.model}-work", spec), out, BundleOptions())
        about = yaml.safe_load((out / "deploy_metadata.yaml").read_text())
        versions[about["node"]] = about["version"]
    assert versions == {
        "autoware_lidar_centerpoint": "v4.1",
        "autoware_tensorrt_yolox": "v1.0",
        "autoware_calibration_status_classifier": "v1.0",
    }


@pytest.mark.parametrize(("version", "release"), [("0.53", "0.53"), ("0.53.1", "0.53"), ("v0.52.1", "0.52")])
def test_a_patch_release_reads_what_its_release_reads(version: str, release: str) -> None:
    assert autoware.release(version) == release


def test_the_newest_release_is_the_default() -> None:
    assert BundleOptions().autoware == next(iter(autoware.RELEASES))
    option = next(each for each in package_group.commands["autoware"].params if each.name == "release")
    assert option.default == BundleOptions().autoware


def test_an_unknown_release_is_refused(tmp_path: Path) -> None:
    work = exported(tmp_path / "work", centerpoint())
    answer = CliRunner().invoke(
        cli, ["package", "autoware", "--work", str(work), "--out", str(tmp_path / "base"), "--autoware", "0.40"]
    )
    assert answer.exit_code == 2
    assert "known are 0.53, 0.52" in answer.output


@pytest.mark.parametrize("label", ["ANIMAL", "HAZARD"])
@pytest.mark.parametrize("make", ["centerpoint", "yolox"])
def test_animals_and_hazards_have_labels(tmp_path: Path, make: str, label: str) -> None:
    classes = ["car", "truck", "bus", "bicycle", label.lower()]
    spec = (centerpoint if make == "centerpoint" else yolox)(classes=classes)
    bundle = package_autoware(exported(tmp_path / "work", spec), tmp_path / "out", BundleOptions())
    told = any(f"no name for {label}" in note for note in bundle.notes)
    assert told == (make == "centerpoint")
    if make == "yolox":
        number = {"ANIMAL": 8, "HAZARD": 9}[label]
        assert f"{label},{number}" in (tmp_path / "out" / "roi_remap.csv").read_text()


# -- CenterPoint ------------------------------------------------------------------------------------------------------


SMALL = {
    "pts_voxel_encoder": {"input_features": [50, 32, 11]},
    "pts_backbone_neck_head": {"spatial_features": [1, 32, 8, 8]},
}


def test_a_strongly_typed_bundle_has_files_in_both_precisions(tmp_path: Path) -> None:
    components = {
        name: {"tensorrt_profile": {tensor: {f"{kind}_shape": shape for kind in ("min", "opt", "max")}}}
        for name, inputs in SMALL.items()
        for tensor, shape in inputs.items()
    }
    work = exported(tmp_path / "work", centerpoint(grid_size=[8, 8, 1]), components=components)
    bundle = package_autoware(work, tmp_path / "base", BundleOptions(precision="strongly-typed"))
    package = _parameters(tmp_path / "base" / "ml_package.param.yaml")
    assert package["trt_precision"] == "strongly-typed"
    about = yaml.safe_load((tmp_path / "base" / "deploy_metadata.yaml").read_text())
    for part, name in (("encoder", "pts_voxel_encoder"), ("head", "pts_backbone_neck_head")):
        assert package[f"{part}_onnx_path"] == f"{name}.fp16.onnx"
        assert package[f"{part}_engine_path"] == f"{name}.fp16.engine"
        assert sha256_of_file(tmp_path / "base" / f"{name}.onnx") == sha256_of_file(work / "onnx" / f"{name}.onnx")
        assert about["typed_fp16"][f"{name}.fp16.onnx"]["fp16_nodes"] > 0
        assert any(note.startswith(f"{name}.fp16.onnx: ") for note in bundle.notes)


def test_the_node_before_knows_no_strong_types(tmp_path: Path) -> None:
    work = exported(tmp_path / "work", centerpoint())
    with pytest.raises(UsageError, match=r"0\.52 builds engines in fp32 or fp16, and strongly-typed was asked for"):
        package_autoware(work, tmp_path / "base", BundleOptions(autoware="0.52", precision="strongly-typed"))


def test_files_of_a_shared_folder_have_the_name_of_the_model(tmp_path: Path) -> None:
    work = exported(tmp_path / "work", centerpoint())
    package_autoware(work, tmp_path / "flat", BundleOptions(autoware="0.52", model_name="centerpoint_town"))
    assert {path.name for path in (tmp_path / "flat").iterdir()} == {
        "pts_voxel_encoder_centerpoint_town.onnx", "pts_backbone_neck_head_centerpoint_town.onnx",
        "centerpoint_town_ml_package.param.yaml", "centerpoint_town.param.yaml",
        "detection_class_remapper.param.yaml", "deploy_metadata.yaml",
    }  # fmt: skip
    node = _parameters(tmp_path / "flat" / "centerpoint_town.param.yaml")
    inside = node["head_onnx_path"].replace("$(var model_path)", str(tmp_path / "flat"))
    assert Path(inside.replace("$(var model_name)", "centerpoint_town")).is_file()
    assert node["post_process_params"]["yaw_norm_thresholds"] == [0.3, 0.3, 0.3, 0.3, 0.0]


@pytest.mark.parametrize("name", ["../up", "a b", ""])
def test_a_model_name_is_part_of_file_names(tmp_path: Path, name: str) -> None:
    work = exported(tmp_path / "work", centerpoint())
    arguments = ["--work", str(work), "--out", str(tmp_path / "flat"), "--autoware", "0.52", "--model-name", name]
    answer = CliRunner().invoke(cli, ["package", "autoware", *arguments])
    assert answer.exit_code == (2 if name else 0)


def test_motorcycles_have_the_name_that_the_node_knows(tmp_path: Path) -> None:
    """Of MOTORCYCLE, the label's name, it makes UNKNOWN."""
    work = exported(tmp_path / "work", centerpoint(classes=["car", "truck", "bus", "motorcycle", "pedestrian"]))
    arguments = ["--work", str(work), "--out", str(tmp_path / "base"), "--score-threshold", "motorcycle=0.5"]
    assert CliRunner().invoke(cli, ["package", "autoware", *arguments]).exit_code == 0
    model = _parameters(tmp_path / "base" / "ml_package.param.yaml")["model_params"]
    assert model["class_names"][3] == "MOTORBIKE"
    assert model["detection_score_thresholds"]["min_confidence_scores"]["MOTORBIKE"] == [0.5] * 4


def test_all_reasons_of_a_refusal_are_told_at_once(tmp_path: Path) -> None:
    spec = centerpoint(rot_y_axis_reference=False, tasks=[{}] * 6, classes=["car", "truck", "bus", "bicycle", "tram"])
    work = exported(tmp_path / "work", spec)
    with pytest.raises(NodeRefuses) as error:
        package_autoware(work, tmp_path / "base", BundleOptions())
    assert len(error.value.reasons) == 3
    head, *lines = error.value.lines()
    assert "for 3 reasons" in head
    for line, says in zip(lines, ("rot_y_axis_reference=true", "6 heads", "class TRAM"), strict=True):
        assert says in line
        assert says in str(error.value)


def test_centerpoint_bundle_has_what_the_node_reads(tmp_path: Path) -> None:
    work = exported(tmp_path / "work", centerpoint())
    package_autoware(work, tmp_path / "base", BundleOptions())
    assert {path.name for path in (tmp_path / "base").iterdir()} == {
        "pts_voxel_encoder.onnx", "pts_backbone_neck_head.onnx", "ml_package.param.yaml",
        "detection_class_remapper.param.yaml", "deploy_metadata.yaml",
    }  # fmt: skip
    package = _parameters(tmp_path / "base" / "ml_package.param.yaml")
    for key in ("encoder_onnx_path", "head_onnx_path", "class_remapper_param_path"):
        assert (tmp_path / "base" / package[key]).is_file()
    model = package["model_params"]
    assert model["class_names"] == ["CAR", "TRUCK", "BUS", "BICYCLE", "PEDESTRIAN"]
    assert (model["point_feature_size"], model["encoder_in_feature_size"]) == (5, 11)
    assert model["max_voxel_size"] == 96000
    assert model["downsample_factor"] == 2
    assert model["yaw_norm_thresholds"] == [0.3, 0.3, 0.3, 0.3, 0.0]
    assert model["detection_score_thresholds"] == {
        "distance_bin_upper_limits": [50.0, 90.0, 121.0, 200.0],
        "min_confidence_scores": {name: [0.35] * 4 for name in model["class_names"]},
    }


def test_the_class_remapper_changes_no_class(tmp_path: Path) -> None:
    package_autoware(exported(tmp_path / "work", centerpoint()), tmp_path / "base", BundleOptions())
    remapper = _parameters(tmp_path / "base" / "detection_class_remapper.param.yaml")
    assert {len(matrix) for matrix in remapper.values()} == {64}
    assert not any(remapper["allow_remapping_by_area_matrix"])


def test_files_are_those_of_the_manifest_and_metadata_says_so(tmp_path: Path) -> None:
    work = exported(tmp_path / "work", centerpoint())
    package_autoware(work, tmp_path / "base", BundleOptions())
    about = yaml.safe_load((tmp_path / "base" / "deploy_metadata.yaml").read_text())
    assert about["version"] == "v4.1"
    assert about["made_from"] == {"checkpoint": "c" * 64}
    artifacts = Workspace.open(work).manifest().artifacts
    for name, sha256 in about["sha256"].items():
        assert sha256_of_file(tmp_path / "base" / name) == sha256
    assert about["sha256"]["pts_voxel_encoder.onnx"] == artifacts["onnx/pts_voxel_encoder.onnx"].sha256


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rot_y_axis_reference": False}, r"rot_y_axis_reference=true"),
        ({"max_points_per_voxel": 20}, "20 points a pillar"),
        ({"encoder_channels": 64}, "64 channels"),
        ({"norm_bbox": False}, "sizes are not logarithms"),
        ({"tasks": [{}, {}]}, "2 heads"),
        ({"features": 10}, r"encoder's input is .*, the node's is \[96000, 32, 11\]"),
        ({"decoration": {"raw_features": 5, "cluster_center": True, "voxel_center": "xy"}}, "encoder's input"),
        (
            {"decoration": {"raw_features": 5, "cluster_center": True, "voxel_center": "xyz", "distance": True}},
            "encoder's input",
        ),
        ({"classes": ["car", "truck", "bus", "bicycle", "barrier"]}, "no label for class BARRIER"),
    ],
)
def test_a_model_that_the_node_would_misread_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    work = exported(tmp_path / "work", centerpoint(**changes))
    with pytest.raises(InputError, match=says) as error:
        package_autoware(work, tmp_path / "base", BundleOptions())
    assert error.value.exit_code == 3
    assert not (tmp_path / "base").exists()


def test_a_head_without_velocity_is_refused(tmp_path: Path) -> None:
    value = centerpoint().model_dump()
    value["components"][1]["outputs"].pop()
    work = exported(tmp_path / "work", ModelSpec.model_validate(value))
    with pytest.raises(InputError, match="binds them by position"):
        package_autoware(work, tmp_path / "base", BundleOptions())


def test_an_onnx_file_of_other_tensors_is_refused(tmp_path: Path) -> None:
    work = exported(tmp_path / "work", centerpoint(), dtype=TensorProto.FLOAT16)
    with pytest.raises(InputError, match="input_features float16"):
        package_autoware(work, tmp_path / "base", BundleOptions())


def test_a_changed_onnx_file_is_refused(tmp_path: Path) -> None:
    work = exported(tmp_path / "work", centerpoint())
    with (work / "onnx" / "pts_voxel_encoder.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ManifestError, match="differs from its hash"):
        package_autoware(work, tmp_path / "base", BundleOptions())
    assert not (tmp_path / "base").exists()


def test_thresholds_by_class_and_distance(tmp_path: Path) -> None:
    work = exported(tmp_path / "work", centerpoint())
    arguments = ["package", "autoware", "--work", str(work), "--out", str(tmp_path / "base")]
    scores = ["--score-threshold", "0.2", "--score-threshold", "car=0.5,0.4,0.3,0.2", "--score-threshold", "BUS=0.6"]
    answer = CliRunner().invoke(cli, [*arguments, *scores])
    assert answer.exit_code == 0, answer.output
    assert "num_past_frames: 1" in answer.output
    package = _parameters(tmp_path / "base" / "ml_package.param.yaml")
    found = package["model_params"]["detection_score_thresholds"]["min_confidence_scores"]
    assert found["CAR"] == [0.5, 0.4, 0.3, 0.2]
    assert found["BUS"] == [0.6] * 4
    assert found["TRUCK"] == [0.2] * 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--score-threshold", "CAR=1.5"], "not a score"),
        (["--score-threshold", "CAR=0.1,0.2"], "2 values for CAR"),
        (["--score-threshold", "TRAM=0.1"], "no class TRAM"),
        (["--bundle-version", "v3.0"], "'v3.0' is not read"),
        (["--bundle-version", "4"], "'4' is not read"),
        (["--precision", "int8"], "int8"),
    ],
)
def test_wishes_that_make_no_sense(tmp_path: Path, arguments: list[str], says: str) -> None:
    work = exported(tmp_path / "work", centerpoint())
    answer = CliRunner().invoke(
        cli, ["package", "autoware", "--work", str(work), "--out", str(tmp_path / "base"), *arguments]
    )
    assert answer.exit_code == 2
    assert says in answer.output
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize(
    ("policy", "requested", "expected"),
    [("fp16", None, "fp16"), ("explicit_int8", None, "fp16"), ("fp32_tf32", None, "fp32"), ("auto", "fp32", "fp32")],
)
def test_precision_follows_the_policy(tmp_path: Path, policy: str, requested: str | None, expected: str) -> None:
    work = exported(tmp_path / "work", centerpoint(), tensorrt={"precision_policy": policy})
    package_autoware(work, tmp_path / "base", BundleOptions(precision=requested))
    assert _parameters(tmp_path / "base" / "ml_package.param.yaml")["trt_precision"] == expected


def test_a_policy_without_a_counterpart_needs_a_decision(tmp_path: Path) -> None:
    work = exported(tmp_path / "work", centerpoint(), tensorrt={"precision_policy": "bf16"})
    with pytest.raises(UsageError, match="--precision fp16"):
        package_autoware(work, tmp_path / "base", BundleOptions())


def test_an_existing_folder_is_replaced_only_by_force(tmp_path: Path) -> None:
    work = exported(tmp_path / "work", centerpoint())
    (tmp_path / "base").mkdir()
    package_autoware(work, tmp_path / "base", BundleOptions(), force=True)
    (tmp_path / "base" / "old").write_text("old")
    with pytest.raises(UsageError, match="--force"):
        package_autoware(work, tmp_path / "base", BundleOptions())
    package_autoware(work, tmp_path / "base", BundleOptions(), force=True)
    assert not (tmp_path / "base" / "old").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_force_replaces_nothing_but_a_bundle(tmp_path: Path) -> None:
    work = exported(tmp_path / "models" / "work", centerpoint())
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine").write_text("mine")
    # Not even where a bundle was made beside it.
    (tmp_path / "models" / "deploy_metadata.yaml").touch()
    (tmp_path / "link").symlink_to(tmp_path / "models")
    files = {path for path in tmp_path.rglob("*") if path.name != "manifest.json"}
    for name, says in {
        "notes": r"holds no bundle \(deploy_metadata\.yaml\)",
        "notes/mine": "holds no bundle",
        "models/work/onnx": "holds no bundle",
        "models/work": "is the workspace, or holds it",
        "models": "is the workspace, or holds it",
        "link": "is the workspace, or holds it",
        "link/../notes/../models/work": "is the workspace, or holds it",
    }.items():
        with pytest.raises(UsageError, match=says):
            package_autoware(work, tmp_path / name, BundleOptions(), force=True)
    with pytest.raises(UsageError, match="is the workspace, or holds it"):
        package_autoware(work, work, BundleOptions())
    assert files <= set(tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("make", "arguments", "says"),
    [
        ("centerpoint", ["--ego-box", *"000111"], "--ego-box: autoware_lidar_centerpoint has no value for it"),
        ("centerpoint", ["--model-name", "town"], "--model-name: autoware_lidar_centerpoint has no value for it"),
        ("yolox", ["--ego-box", *"000111"], "--ego-box: autoware_tensorrt_yolox has no value for it"),
        ("yolox", ["--model-name", "town"], "--model-name: autoware_tensorrt_yolox has no value for it"),
        ("yolox", ["--score-threshold", "car=0.5"], "one threshold for all classes, none for CAR"),
        (
            "calibration",
            ["--score-threshold", "0.5"],
            "--score-threshold: autoware_calibration_status_classifier has no value",
        ),
        ("calibration", ["--model-name", "town"], "--model-name: autoware_calibration_status_classifier has no value"),
    ],
)
def test_an_option_that_the_node_has_no_value_for_is_refused(
    tmp_path: Path, make: str, arguments: list[str], says: str
) -> None:
    work = exported(tmp_path / "work", {"centerpoint": centerpoint, "yolox": yolox, "calibration": calibration}[make]())
    answer = CliRunner().invoke(
        cli, ["package", "autoware", "--work", str(work), "--out", str(tmp_path / "base"), *arguments]
    )
    assert answer.exit_code == 2
    assert says in answer.output
    assert not (tmp_path / "base").exists()


# -- YOLOX ------------------------------------------------------------------------------------------------------------


def test_yolox_bundle_has_what_the_node_reads(tmp_path: Path) -> None:
    work = exported(tmp_path / "work", yolox())
    package_autoware(work, tmp_path / "yolox", BundleOptions(score_thresholds={"": (0.4,)}))
    package = _parameters(tmp_path / "yolox" / "yolox_s_plus_opt.param.yaml")
    assert (package["score_threshold"], package["nms_threshold"]) == (0.4, 0.7)
    labels = (tmp_path / "yolox" / "label.txt").read_text().split()
    assert labels[:3] == ["UNKNOWN", "CAR", "TRUCK"]
    header, *rows = (tmp_path / "yolox" / "roi_remap.csv").read_text().splitlines()
    assert header == "label_name,label_id"
    # The node stops when a label of label.txt has no row; numbers are those of autoware_perception_msgs.
    assert dict(row.split(",") for row in rows) == {
        "UNKNOWN": "0", "CAR": "1", "TRUCK": "2", "BUS": "3", "TRAILER": "4", "MOTORCYCLE": "5", "BICYCLE": "6",
        "PEDESTRIAN": "7",
    }  # fmt: skip
    assert (tmp_path / "yolox" / "yolox_s_plus_opt.onnx").is_file()


def test_a_yolox_with_a_mask_brings_its_colors_and_which_boxes_may_cover_it(tmp_path: Path) -> None:
    detector = yolox()
    masks = ["road", "car", "wall, fence", "motorbike"]
    (component,) = detector.components
    component = component.model_copy(update={"outputs": [*component.outputs, _tensor("mask", 1, 4, 960, 960)]})
    classes = qualified_classes({"detection2d": detector.classes, "segmentation2d": masks})
    changes = {
        "model": "yolox_seg",
        "task": "detection2d+segmentation2d",
        "classes": classes,
        "components": [component],
    }
    work = exported(tmp_path / "work", detector.model_copy(update=changes))
    package_autoware(work, tmp_path / "yolox", BundleOptions())
    header, *colors = (tmp_path / "yolox" / "semseg_color_map.csv").read_text().splitlines()
    assert header == "id,name,r,g,b"
    rows = [line.split(",") for line in colors]
    # The node wants five columns, and takes a name as it stands.
    assert [row[:2] for row in rows] == [["0", "road"], ["1", "car"], ["2", "wall_ fence"], ["3", "motorbike"]]
    assert len({tuple(row[2:]) for row in rows}) == 4
    assert all(0 <= int(share) <= 255 for row in rows for share in row[2:])
    header, *remapped = (tmp_path / "yolox" / "roi_to_semseg_remap.csv").read_text().splitlines()
    labels = (tmp_path / "yolox" / "label.txt").read_text().split()
    assert [row.split(",")[0] for row in remapped] == labels  # the node stops when one is missing
    assert {row for row in remapped if not row.endswith(",-1")} == {"CAR,1", "MOTORCYCLE,3"}
    model = onnx.load(str(tmp_path / "yolox" / "yolox_s_plus_opt.onnx"))
    assert [output.name for output in model.graph.output] == ["output", "mask"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image": {"color": "rgb"}}, "blue, green, red"),
        ({"image": {"mean": [1.0, 1.0, 1.0], "std": [1.0, 1.0, 1.0]}}, "without mean"),
        ({"image": {"fill": 0}}, "fills with 114"),
        ({"output": "decoded"}, "decodes boxes itself"),
        ({"strides": [8, 16]}, "strides"),
    ],
)
def test_a_yolox_that_the_node_would_misread_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    work = exported(tmp_path / "work", yolox(**changes))
    with pytest.raises(InputError, match=says):
        package_autoware(work, tmp_path / "yolox", BundleOptions())


# -- calibration ------------------------------------------------------------------------------------------------------


def test_calibration_bundle_has_what_the_node_reads(tmp_path: Path) -> None:
    profile = {"min_shape": [1, 5, 300, 480], "opt_shape": [1, 5, 300, 480], "max_shape": [1, 5, 300, 480]}
    large = {"min_shape": [1, 5, 720, 1280], "opt_shape": [1, 5, 1860, 2880], "max_shape": [1, 5, 2160, 3840]}
    components = {"end2end": {"tensorrt_profile": {"input": profile}, "extra_tensorrt_profiles": [{"input": large}]}}
    work = exported(tmp_path / "work", calibration(), components=components)
    box = (-1.5, -1.0, -0.1, 5.7, 1.0, 3.1)
    bundle = package_autoware(work, tmp_path / "calibration", BundleOptions(ego_box=box))
    package = _parameters(tmp_path / "calibration" / "ml_package_calibration_status_classifier.param.yaml")
    assert package["height"] == [720, 1860, 2160]
    assert package["width"] == [1280, 2880, 3840]
    assert any(f"ego_box: {list(box)}" in note for note in bundle.notes)
    assert any("miscalibration_confidence_threshold: 0.5" in note for note in bundle.notes)


def test_calibration_sizes_default_to_those_of_the_node(tmp_path: Path) -> None:
    work = exported(tmp_path / "work", calibration())
    package_autoware(work, tmp_path / "calibration", BundleOptions())
    package = _parameters(tmp_path / "calibration" / "ml_package_calibration_status_classifier.param.yaml")
    assert (package["height"], package["width"]) == ([1080, 1860, 2160], [1920, 2880, 3840])


def test_a_calibration_model_of_fixed_size_is_refused(tmp_path: Path) -> None:
    value = calibration().model_dump()
    value["components"][0]["inputs"][0]["shape"] = [1, 5, 1080, 1920]
    work = exported(tmp_path / "work", ModelSpec.model_validate(value))
    with pytest.raises(InputError, match="any size"):
        package_autoware(work, tmp_path / "calibration", BundleOptions())


# -- other models -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tools_alone")
def test_a_model_without_a_node(tmp_path: Path) -> None:
    work = exported(tmp_path / "work", yolox())

    def rename(manifest: Manifest) -> None:
        manifest.spec = ModelSpec.model_validate(json.loads(yolox().model_dump_json()) | {"model": "bevfusion"})

    update_manifest(work / "manifest.json", rename)
    with pytest.raises(UsageError, match="there is one for calibration, centerpoint, frnet, yolox"):
        package_autoware(work, tmp_path / "out", BundleOptions())


def test_another_package_adds_the_bundle_of_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundler = """
        from exporter.autoware import Bundle


        def bundle(spec, config, wishes):
            return Bundle({"lanes.onnx": spec.components[0]}, {"lanes.param.yaml": {"classes": spec.classes}})
    """
    points = {"awml_deploy.exporter_models": {"lanes": "lanes_plugin.lanes"}}
    plugin_packages.install(monkeypatch, tmp_path / "site", "lanes_plugin", {"lanes/autoware.py": bundler}, points)
    spec = calibration().model_copy(update={"model": "lanes"})
    package_autoware(exported(tmp_path / "work", spec), tmp_path / "out", BundleOptions())
    assert _parameters(tmp_path / "out" / "lanes.param.yaml") == {"classes": spec.classes}
    assert (tmp_path / "out" / "lanes.onnx").is_file()

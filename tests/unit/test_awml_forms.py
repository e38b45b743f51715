"""AWML's deploy configs of every generation load, in their own place or elsewhere; those of other models are refused.

The configs here have the forms of AWML's, not its words; `test_awml_files` reads AWML's own where they are at hand.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from shared import plugins
from shared.config import DeployConfig, load_config
from shared.config.awml import read_awml
from shared.config.awml_models import Deployed
from shared.config.convert import convert_awml
from shared.config.model_sections import Profile
from shared.errors import ConfigError

# mmdeploy's form, of AWML's main branch.
MMDEPLOY = """
    codebase_config = dict(type="mmpretrain", task="Classification", model_type="end2end")
    backend_config = dict(type="tensorrt", common_config=dict(max_workspace_size=1 << 30, fp16_mode=True),
        model_inputs=[dict(input_shapes=dict(input=dict(
            min_shape=[1, 5, 64, 96], opt_shape=[1, 5, 128, 192], max_shape=[1, 5, 256, 384])))])
    onnx_config = dict(type="onnx", export_params=True, opset_version=16, save_file="net.onnx", input_shape=None,
        input_names=["input"], output_names=["output"],
        dynamic_axes={"input": {0: "batch_size", 2: "height", 3: "width"}, "output": {0: "batch_size"}})
    """
# The first form of AWML's framework, without task, model_io or scenarios.
FIRST_YOLOX = """
    export = dict(mode="both", verify=True, device="cuda:0", work_dir="w")
    runtime_io = dict(ann_file="val.json", img_prefix="val/", sample_idx=3)
    onnx_config = dict(opset_version=11, input_names=["images"], output_names=["outputs"], save_file="net.onnx",
        dynamic_axes={"images": {0: "batch_size"}, "outputs": {0: "batch_size"}})
    backend_config = dict(common_config=dict(precision_policy="fp16"),
        model_inputs=[dict(name="images", shape=(1, 3, 64, 96), dtype="float32")])
    evaluation = dict(enabled=True, models_to_evaluate=["onnx"])
    """
FIRST_CENTERPOINT = """
    export = dict(mode="both", verify=True, device="cuda:0", work_dir="w")
    onnx_config = dict(opset_version=13, save_file="net.onnx", input_names=["voxels", "coors"], output_names=["hm"],
        dynamic_axes={"voxels": {0: "num_voxels"}})
    backend_config = dict(common_config=dict(precision_policy="fp32", disable_optimizations=False),
        model_inputs=[dict(name="voxels", shape=(-1, 32, 4), dtype="float32"), dict(name="coors", shape=(-1, 4))])
    evaluation = dict(enabled=False, models=dict(pytorch="a.pth"), onnx_device="cuda:0", pytorch_device="cpu")
    """
# model_io, sizes that are another model's, metrics in the deploy config.
SECOND_YOLOX = """
    task_type = "detection2d"
    export = dict(mode="both", work_dir="w", checkpoint_path="a.pth", onnx_path=None)
    model_io = dict(input_name="images", input_shape=(3, 64, 96), input_dtype="float32", output_name="output",
        batch_size=6, dynamic_axes={"images": {0: "batch_size"}})
    onnx_config = dict(opset_version=16, save_file="net.onnx", simplify=True, model_wrapper=dict(type="yolox"))
    backend_config = dict(common_config=dict(precision_policy="auto"), model_inputs=[dict(input_shapes=dict(input=dict(
        min_shape=[1, 5, 64, 96], opt_shape=[1, 5, 64, 96], max_shape=[1, 5, 64, 96])))])
    """
SECOND_CENTERPOINT = """
    task_type = "detection3d"
    export = dict(mode="both", work_dir="w", checkpoint_path="a.pth")
    model_io = dict(input_name="voxels", input_shape=(32, 4), output_name="reg", additional_outputs=["hm"],
        batch_size=None, dynamic_axes={"voxels": {0: "num_voxels"}})
    onnx_config = dict(opset_version=16, save_file="net.onnx", multi_file=True)
    backend_config = dict(common_config=dict(), model_inputs=None)
    class_names = ["car", "bus"]
    perception_evaluator_configs = dict(target_labels=class_names, max_distance=121.0)
    frame_id = "base_link"
    data_root = "data/t4dataset/"
    """
# Sections ``components``: first with a name in each, later with the name as the key; artifact folders derived.
_COMPONENTS = """
    import os.path as osp
    checkpoint_path = "a.pth"
    devices = dict(cpu="cpu", cuda="cuda:0")
    export = dict(mode="none", work_dir="work/", onnx_path=None, sample_idx=4)
    _WORK = str(export["work_dir"]).rstrip("/")
    _ONNX = f"{{_WORK}}/onnx"
    components = dict({0}=dict({1}onnx_file="e.onnx", engine_file="e.engine",
            io=dict(inputs=[dict(name="input_features", dtype="float32")],
                    outputs=[dict(name="pillar_features", dtype="float32")],
                    dynamic_axes={{"input_features": {{0: "num_voxels"}}, "pillar_features": {{0: "num_voxels"}}}}),
            tensorrt_profile=dict(input_features=dict(
                min_shape=[10, 32, 11], opt_shape=[20, 32, 11], max_shape=[40, 32, 11]))),
        {2}=dict({3}onnx_file="h.onnx", engine_file="h.engine",
            io=dict(inputs=[dict(name="spatial_features")], outputs=[dict(name="heatmap")])))
    runtime_io = dict(info_file="infos.pkl", sample_idx=1)
    onnx_config = dict(opset_version=22)
    tensorrt_config = dict(precision_policy="auto", max_workspace_size=2 << 30)
    evaluation = dict(enabled=True, num_warmup=2, backends=dict(
        onnx=dict(enabled=True, device=devices["cuda"], model_dir=_ONNX),
        tensorrt=dict(enabled=True, device=devices["cuda"], engine_dir=osp.join(_WORK, "tensorrt"))))
    verification = dict(enabled=False, devices=devices)
    """
NAMED_CENTERPOINT = _COMPONENTS.format(
    "voxel_encoder", 'name="pts_voxel_encoder", ', "backbone_head", 'name="pts_backbone_neck_head", '
)
KEYED_CENTERPOINT = _COMPONENTS.format("pts_voxel_encoder", "", "pts_backbone_neck_head", "")
NEWEST_YOLOX = """
    checkpoint_path = "a.pth"
    model_cfg = "projects/YOLOX_opt_elan/configs/yolox.py"
    export = dict(mode="onnx", sample_idx=2)
    _SIZE = [1, 3, 64, 96]
    components = dict(model=dict(onnx_file="net.onnx", engine_file="net.engine",
        io=dict(inputs=[dict(name="images", shape=_SIZE)], outputs=[dict(name="output")],
                dynamic_axes={"images": {0: "batch_size"}, "output": {0: "batch_size"}}),
        tensorrt_profile=dict(images=dict(min_shape=_SIZE, opt_shape=_SIZE, max_shape=_SIZE))))
    """
NEWEST_CALIBRATION = """
    codebase_config = dict(type="mmpretrain", task="Classification", model_type="end2end")
    task_type = "classification"
    checkpoint_path = "a.pth"
    export = dict(mode="both", work_dir="w", onnx_path=None)
    components = dict(model=dict(name="classifier", onnx_file="net.onnx", engine_file="net.engine",
        io=dict(inputs=[dict(name="input", shape=[1, 5, 64, 96], dtype="float32")], outputs=[dict(name="output")],
                dynamic_axes={"input": {0: "batch_size", 2: "height", 3: "width"}, "output": {0: "batch_size"}}),
        tensorrt_profile=dict(input=dict(
            min_shape=[1, 5, 32, 48], opt_shape=[1, 5, 64, 96], max_shape=[1, 5, 64, 96]))))
    """
# The newest INT8 configs: a file a model, over a base with what they have in common.
NEWEST_INT8 = """
    _base_ = ["./_base.py"]
    checkpoint_path = "epoch_30_ptq.pth"
    quantization = dict(enabled=True, mode="ptq", fuse_bn=True, default_precision="int8",
        keep_fp16=["pts_voxel_encoder", "pts_backbone.stem"],
        ptq=dict(checkpoint="epoch_30.pth", calibrate_samples=400))
    export = dict(mode="both", work_dir="work/", sample_idx=1)
    _ONNX = f'{str(export["work_dir"]).rstrip("/")}/onnx'
    components = dict(pts_voxel_encoder=dict(tensorrt_profile=dict(input_features=dict(
        min_shape=[1, 32, 10], opt_shape=[2, 32, 10], max_shape=[3, 32, 10]))))
    onnx_config = dict(opset_version=21)
    evaluation = dict(num_samples=-1, backends=dict(onnx=dict(model_dir=_ONNX)))
    """

# A script's of its own: sizes and ONNX names over the training config, which computes.
SIZES = """
    _base_ = ["../training.py"]
    custom_imports = dict(imports=["projects.FRNet.frnet.models"])
    num_classes = _base_.num_classes
    tensorrt_config = dict(
        points=dict(min_shape=[50, 4], opt_shape=[300, 4], max_shape=[600, 4]),
        voxel_coors=dict(min_shape=[50, 3], opt_shape=[300, 3], max_shape=[600, 3]),
        seg_logit=dict(min_shape=[50, num_classes], opt_shape=[300, num_classes], max_shape=[600, num_classes]),
    )
    onnx_config = dict(export_params=True, keep_initializers_as_inputs=False, opset_version=16,
        input_names=["points", "coors", "voxel_coors", "inverse_map"], output_names=["seg_logit"],
        dynamic_axes={"points": {0: "num_points"}, "seg_logit": {0: "num_points"}})
    """
TRAINING = """
    _base_ = ["_data.py"]
    custom_imports = dict(imports=["projects.FRNet.frnet.datasets"])
    custom_imports["imports"] += _base_.custom_imports["imports"]
    num_classes = 27
    data_root = "data/t4/"
    class_names = []
    metainfo = _base_.metainfo
    metainfo.update(dict(class_mapping=dict(car=5)))
    model = dict(type="FRNet", decode_head=dict(num_classes=num_classes))
    """
TRAINING_DATA = """
    custom_imports = dict(imports=["autoware_ml.datasets"])
    metainfo = dict(palette=[[0, 0, 0]])
    """


def write(folder: Path, text: str, name: str = "deploy_config.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def told(path: Path) -> str:
    return "\n".join(str(note).removeprefix(f"{path}:") for note in read_awml(path).notes)


def fixed(*shape: int) -> Profile:
    return Profile(min_shape=shape, opt_shape=shape, max_shape=shape)


@pytest.mark.parametrize(
    ("place", "text", "model", "components"),
    [
        ("projects/CalibrationStatusClassification/configs/deploy", MMDEPLOY, "calibration", ["end2end"]),
        ("projects/YOLOX/deploy", FIRST_YOLOX, "yolox", ["yolox"]),
        ("projects/YOLOX_opt_elan/deploy/configs", SECOND_YOLOX, "yolox", ["yolox"]),
        ("anywhere", SECOND_YOLOX, "yolox", ["yolox"]),
        ("anywhere", NEWEST_YOLOX, "yolox", ["yolox"]),
        ("projects/CenterPoint/deploy", FIRST_CENTERPOINT, "centerpoint", None),
        ("anywhere", SECOND_CENTERPOINT, "centerpoint", None),
        ("anywhere", NAMED_CENTERPOINT, "centerpoint", None),
        ("deployment/projects/centerpoint/config", KEYED_CENTERPOINT, "centerpoint", None),
        ("anywhere", NEWEST_CALIBRATION, "calibration", ["end2end"]),
        ("anywhere", NEWEST_INT8, "centerpoint", None),
    ],
)
def test_every_form_loads_and_its_conversion_means_the_same(
    tmp_path: Path, place: str, text: str, model: str, components: list[str] | None
) -> None:
    path = write(tmp_path, text, f"{place}/deploy_config.py")
    write(path.parent, KEYED_CENTERPOINT.replace("export = ", "_w = ").replace("export[", "_w["), "_base.py")
    config = load_config(path)
    assert config.model.type == model
    assert list(config.components) == (components or ["pts_voxel_encoder", "pts_backbone_neck_head"])
    out = tmp_path / "elsewhere" / "converted.yaml"
    out.parent.mkdir()
    yaml, notes = convert_awml(path, out)
    out.write_text(yaml, encoding="utf-8")
    assert load_config(out) == config
    assert yaml.count("\n# - ") >= len(notes)


def test_mmdeploys_form_says_what_is_built(tmp_path: Path) -> None:
    path = write(tmp_path, MMDEPLOY, "projects/CalibrationStatusClassification/deploy.py")
    config = load_config(path)
    assert (config.task_type, config.export.mode) == ("classification", "both")
    assert config.tensorrt.precision_policy == "fp16"
    assert config.verification == DeployConfig.model_validate({"model": {"type": "x"}}).verification
    component = config.components["end2end"]
    assert (component.onnx_file, component.engine_file) == ("net.onnx", "net.engine")
    assert component.tensorrt_profile["input"].max_shape == (1, 5, 256, 384)
    assert "export.mode is both" in told(path)
    only_onnx = write(tmp_path, MMDEPLOY.replace('"tensorrt"', '"onnxruntime"'), path.name)
    assert load_config(only_onnx, ["model.type=calibration"]).export.mode == "onnx"


def over_training(folder: Path, text: str = SIZES) -> Path:
    write(folder, TRAINING, "configs/training.py")
    write(folder, TRAINING_DATA, "configs/_data.py")
    return write(folder, text, "configs/deploy/frnet_tensorrt_dynamic.py")


def test_sizes_over_a_training_config(tmp_path: Path) -> None:
    path = over_training(tmp_path)
    config = load_config(path)
    assert (config.model.type, config.task_type, config.export.mode) == ("frnet", "segmentation3d", "both")
    assert config.model.config is not None and config.model.config.resolve() == tmp_path / "configs" / "training.py"
    assert config.model.options == {"form": "scatter", "output": "seg_logit"}
    assert config.export.opset_version == 18
    assert config.tensorrt.max_workspace_size == 4 << 30
    component = config.components["frnet"]
    assert [(tensor.name, tensor.dtype) for tensor in component.io.inputs] == [
        ("points", "float32"), ("coors", "int64"), ("voxel_coors", "int64"), ("inverse_map", "int64"),
    ]  # fmt: skip
    assert {name: profile.max_shape for name, profile in component.tensorrt_profile.items()} == {
        "points": (600, 4), "voxel_coors": (600, 3),
    }  # fmt: skip
    # The training config's own keys are no keys of a deploy config.
    assert (config.data.root, config.data.classes) == (None, ())
    assert "sizes of 'seg_logit' dropped" in told(path)
    assert "num_classes: dropped: the training config says it" in told(path)
    yaml, _ = convert_awml(path, tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text(yaml)
    assert load_config(tmp_path / "c.yaml").model_dump(exclude={"model"}) == config.model_dump(exclude={"model"})
    alone = write(tmp_path, SIZES.replace('_base_ = ["../training.py"]', "").replace("_base_.num_classes", "2"), "d.py")
    with pytest.raises(ConfigError, match="num_classes: unknown key"):
        load_config(alone)


def test_an_output_that_the_model_does_not_call_so_gets_its_name(tmp_path: Path) -> None:
    config = load_config(over_training(tmp_path, SIZES.replace("seg_logit", "scores")))
    assert config.model.options == {"form": "scatter"}
    assert [tensor.name for tensor in config.components["frnet"].io.outputs] == ["pred_probs"]
    unnamed = load_config(over_training(tmp_path, SIZES.replace('output_names=["seg_logit"],', "")))
    assert unnamed.model.options == {"form": "scatter"}


def test_a_wrong_size_is_named_where_the_file_has_it(tmp_path: Path) -> None:
    path = over_training(tmp_path, SIZES.replace("points=dict(min_shape=[50, 4]", "points=dict(min_shap=[50, 0]"))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    (line,) = caught.value.lines()
    assert line.startswith(f"{path}:6: tensorrt_config.points.min_shap: unknown key; did you mean 'min_shape'?")


def test_a_config_without_export_is_a_base_of_others(tmp_path: Path) -> None:
    base = write(tmp_path, KEYED_CENTERPOINT.replace("export = ", "_unused = ").replace("export[", "_unused["), "b.py")
    with pytest.raises(ConfigError, match=r"export: is missing; AWML's form has it"):
        load_config(base)
    path = write(tmp_path, '_base_ = ["./b.py"]\nexport = dict(mode="onnx")\nonnx_config = dict(opset_version=18)\n')
    config = load_config(path)
    assert (config.export.mode, config.export.opset_version) == ("onnx", 18)
    assert "b.py:16: runtime_io.info_file" in told(path)


def test_an_output_of_another_name_and_a_batch_that_varies(tmp_path: Path) -> None:
    path = write(tmp_path, FIRST_YOLOX, "projects/YOLOX/deploy_config.py")
    config = load_config(path)
    component = config.components["yolox"]
    assert [tensor.name for tensor in component.io.outputs] == ["output"]
    assert component.io.dynamic_axes == {"images": {0: "batch_size"}, "output": {0: "batch_size"}}
    assert component.tensorrt_profile["images"] == fixed(1, 3, 64, 96)
    assert config.model.options == {"batch_size": "dynamic"}
    assert config.export.opset_version == 16
    assert config.evaluation.backends.onnx.enabled
    assert not config.evaluation.backends.pytorch.enabled
    notes = told(path)
    assert "onnx_config.opset_version: raised from 11 to 16" in notes
    assert "tensor 'outputs' is 'output' here" in notes


def test_sizes_that_belong_to_no_input_are_dropped_and_told(tmp_path: Path) -> None:
    path = write(tmp_path, SECOND_YOLOX)
    config = load_config(path)
    assert config.components["yolox"].tensorrt_profile == {"images": fixed(6, 3, 64, 96)}
    assert config.model.options == {"batch_size": 6}
    assert "sizes of 'input' dropped: no component has such an input; there are images" in told(path)


def test_a_model_in_parts_is_not_described_by_one_file(tmp_path: Path) -> None:
    path = write(tmp_path, FIRST_CENTERPOINT, "projects/CenterPoint/deploy_config.py")
    config = load_config(path)
    assert all(component.io.inputs == () for component in config.components.values())
    assert config.tensorrt.precision_policy == "fp32"
    assert config.evaluation.backends.onnx.device == "cuda:0"
    notes = told(path)
    assert "onnx_config.save_file: dropped: the model is exported in parts" in notes
    assert "sizes of 'voxels' dropped: no component has such an input" in notes


def test_metrics_of_a_deploy_config_are_told(tmp_path: Path) -> None:
    path = write(tmp_path, SECOND_CENTERPOINT)
    config = load_config(path)
    assert config.data.classes == ("car", "bus")
    assert config.data.root == tmp_path / "data/t4dataset"
    assert config.model.checkpoint == tmp_path / "a.pth"
    assert "perception_evaluator_configs: dropped: the metrics" in told(path)


@pytest.mark.parametrize("text", [NAMED_CENTERPOINT, KEYED_CENTERPOINT])
def test_the_newer_forms_keep_their_components(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    config = load_config(path)
    assert config.components["pts_voxel_encoder"].onnx_file == "e.onnx"
    assert config.components["pts_voxel_encoder"].tensorrt_profile["input_features"].max_shape == (40, 32, 11)
    assert (config.data.sample_idx, config.export.opset_version) == (4, 22)
    notes = told(path)
    assert "export.sample_idx: is data.sample_idx here" in notes
    assert "runtime_io.sample_idx: dropped: export.sample_idx" in notes
    assert "evaluation.backends.tensorrt.engine_dir: dropped" in notes


def test_the_training_config_of_the_newest_form(tmp_path: Path) -> None:
    path = write(tmp_path, NEWEST_YOLOX)
    config = load_config(path)
    assert config.model.config == tmp_path / "projects/YOLOX_opt_elan/configs/yolox.py"
    assert config.data.sample_idx == 2
    assert config.components["yolox"].io.dynamic_axes == {"images": {0: "batch_size"}, "output": {0: "batch_size"}}
    assert "model_cfg: is model.config here" in told(path)


def test_the_newest_int8_form(tmp_path: Path) -> None:
    write(tmp_path, KEYED_CENTERPOINT.replace("export = ", "_w = ").replace("export[", "_w["), "_base.py")
    path = write(tmp_path, NEWEST_INT8)
    config = load_config(path)
    assert config.model.checkpoint == tmp_path / "epoch_30.pth"
    assert config.quantization.sensitive_layers == ("pts_voxel_encoder", "pts_backbone.stem")
    assert config.quantization.calibration.num_batches == 400
    assert (config.export.opset_version, config.evaluation.num_samples, config.data.sample_idx) == (21, -1, 1)
    assert config.components["pts_voxel_encoder"].tensorrt_profile["input_features"].max_shape == (3, 32, 10)
    assert config.components["pts_backbone_neck_head"].onnx_file == "h.onnx"


FOREIGN = {
    "BEVFusion": """
        custom_imports = dict(imports=["projects.BEVFusion.deploy", "projects.SparseConvolution"])
        codebase_config = dict(type="mmdet3d", task="VoxelDetection", model_type="end2end")
        feature_dims = (60, 80)
        """,
    "PTv3": """
        _base_ = ["../../missing.py"]
        custom_imports = dict(imports=["projects.PTv3.ptv3.models"], allow_failed_imports=False)
        num_classes = _base_.num_classes
        """,
    "MobileNetv2": """
        codebase_config = dict(type="mmpretrain", task="Classification", model_type="end2end")
        onnx_config = dict(opset_version=11, save_file="traffic_light_classifier_mobilenetv2_batch_1.onnx")
        """,
    "StreamPETR": """
        model_cfg = "projects/StreamPETR/configs/t4dataset/base.py"
        def _static(shape):
            return dict(min_shape=shape, opt_shape=shape, max_shape=shape)
        export = dict(mode="none")
        """,
}


@pytest.mark.usefixtures("tools_alone")
@pytest.mark.parametrize("project", FOREIGN)
def test_a_config_of_another_model_is_one_line(tmp_path: Path, project: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, FOREIGN[project]))
    (line,) = caught.value.lines()
    assert f"is a deploy config of {project}, which is not among the models here (calibration, centerpoint" in line
    assert "--set model.type=NAME" in line
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ['model = dict(type="X")', "a = [1, 2]\ntrain_dataloader = dict(a=a[:1])"])
def test_a_training_config_is_called_so(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"is a training config\. name it as model\.config"):
        load_config(write(tmp_path, text))


@pytest.mark.usefixtures("tools_alone")
@pytest.mark.parametrize("project", ["TransFusion", "PTv3", "bevfusion_l", "BEVFusion"])
def test_the_place_of_a_file_says_its_model(tmp_path: Path, project: str) -> None:
    path = write(tmp_path, "onnx_config = dict(opset_version=11)\n", f"projects/{project}/configs/deploy/deploy.py")
    with pytest.raises(ConfigError, match="is a deploy config of"):
        load_config(path)


def test_a_folder_of_ones_own_called_projects_says_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, SECOND_YOLOX, "projects/my_car/deploy_config.py")
    assert load_config(path).model.type == "yolox"


def test_the_user_has_the_last_word(tmp_path: Path) -> None:
    path = write(tmp_path, SECOND_YOLOX, "projects/FRNet/deploy_config.py")
    assert load_config(path, ["model.type=yolox"]).model.type == "yolox"
    assert "type: yolox" in convert_awml(path, tmp_path / "c.yaml", "yolox")[0]


@pytest.mark.parametrize("says_so", [True, False])
def test_a_model_that_a_package_adds_is_not_foreign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says_so: bool
) -> None:
    name = "point_transformer" if says_so else "ptv3"
    added = ModuleType("awml")
    if says_so:
        vars(added)["DEPLOYED"] = Deployed(projects=("PTv3",), task="detection3d", components={})
    ours, part = plugins.available, plugins.part
    monkeypatch.setattr(plugins, "available", lambda group: [*ours(group), name])
    monkeypatch.setattr(
        plugins, "part", lambda group, model, wanted: added if model == name else part(group, model, wanted)
    )
    path = write(tmp_path, 'export = dict(mode="none")\n', "projects/PTv3/configs/deploy/deploy.py")
    assert load_config(path).model.type == name

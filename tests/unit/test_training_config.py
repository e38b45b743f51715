"""Training configs: mmengine's forms are read, AWML's imports replaced, mistakes told in one line."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from shared.config import DeployConfig
from shared.errors import ConfigError, EnvironmentLacks
from tests.support import tiny_yolox as yolox
from tests.support.exporting import CONFIGS, SMALL
from tests.support.plugin_packages import install

pytestmark = pytest.mark.exporter


def read(path):
    from exporter.training_config import read_training_config

    return read_training_config(path)


def build(config):
    from exporter.training_config import build_model

    return build_model(config)


def written(tmp_path, text, name="config.py"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_bases_are_merged_and_imports_listed():
    config = read(SMALL)
    assert config.model["pts_backbone"]["out_channels"] == [32, 32, 64]
    assert config.model["pts_backbone"]["layer_strides"] == [1, 2, 2]
    assert "projects.CenterPoint.models" in config.imports and "autoware_ml.hooks" in config.imports
    assert [step["type"] for step in config.pipeline][:2] == ["LoadPointsFromFile", "LoadPointsFromMultiSweeps"]


def test_digest_follows_the_model_and_not_the_rest(tmp_path):
    base = read(SMALL).digest
    assert read(written(tmp_path, f'_base_ = ["{SMALL}"]\nlr = 1e-3  # a comment\n')).digest == base
    changed = read(written(tmp_path, f'_base_ = ["{SMALL}"]\nmodel = dict(pts_bbox_head=dict(norm_bbox=False))\n'))
    assert changed.digest != base


def test_awml_modules_are_replaced_and_that_is_said(caplog):
    with caplog.at_level(logging.INFO, "exporter"):
        model = build(read(SMALL))
    assert type(model.pts_bbox_head.task_heads[0]).__module__ == "exporter.models.centerpoint.awml_types"
    text = caplog.text
    assert "projects.CenterPoint.models can't be imported" in text and "CustomSeparateHead" in text
    assert "AmpGaussianFocalLoss is not installed" in text


def test_the_folder_of_another_package_stands_in_for_a_package_of_awml(tmp_path, monkeypatch):
    from exporter.awml import stand_in_for

    assert stand_in_for("projects.Segmentor.models") == []
    install(
        monkeypatch,
        tmp_path,
        "segmentors",
        {"segmentor/awml.py": "REGISTRATIONS = {'projects.Segmentor': lambda: ['RangeHead']}\n"},
        {"awml_deploy.exporter_models": {"segmentor": "segmentors.segmentor"}},
    )
    assert stand_in_for("projects.Segmentor.models") == ["RangeHead"]


def test_awml_that_can_be_imported_is_used(tmp_path):
    """In a process of its own: registrations are global."""
    package = tmp_path / "projects" / "CenterPoint"
    package.mkdir(parents=True)
    (tmp_path / "projects" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "models.py").write_text(
        "from mmdet3d.models.dense_heads.centerpoint_head import SeparateHead\n"
        "from mmdet3d.registry import MODELS\n"
        "@MODELS.register_module(force=True)\n"
        "class CustomSeparateHead(SeparateHead):\n    pass\n"
    )
    code = (
        "from pathlib import Path\n"
        "from exporter.training_config import read_training_config, build_model\n"
        f"model = build_model(read_training_config(Path({str(SMALL)!r})))\n"
        "print(type(model.pts_bbox_head.task_heads[0]).__module__)\n"
    )
    environment = {"PYTHONPATH": f"{tmp_path}:{SMALL.parents[3]}", "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "projects.CenterPoint.models", done.stderr


def test_other_missing_imports_end_it(tmp_path):
    path = written(tmp_path, f'_base_ = ["{SMALL}"]\ncustom_imports = dict(imports=["no_such_package.models"])\n')
    with pytest.raises(ConfigError, match=r"config.py: custom_imports: 'no_such_package.models'.*PYTHONPATH"):
        build(read(path))


def test_other_missing_imports_that_may_fail(tmp_path):
    imports = (
        "custom_imports = dict(imports=['projects.CenterPoint.models', 'no_such_package'], allow_failed_imports=True)"
    )
    build(read(written(tmp_path, f'_base_ = ["{SMALL}"]\n{imports}\n')))


def test_metrics_that_are_not_installed_are_no_part_of_a_model(tmp_path):
    imports = "custom_imports = dict(imports=['projects.CenterPoint.models', 'mmother.evaluation.metrics'])"
    build(read(written(tmp_path, f'_base_ = ["{SMALL}"]\n{imports}\n')))
    path = written(tmp_path, f'_base_ = ["{SMALL}"]\ncustom_imports = dict(imports=["mmother.models"])\n')
    with pytest.raises(ConfigError, match=r"'mmother.models' can't be imported"):
        build(read(path))


def test_classes_that_names_are_mapped_to(tmp_path):
    text = """
class_names = []
mapping = {"road": 0, "ghost": 2, "car": 1, "noise": 2, "unpainted": 3}
test_dataloader = dict(dataset=dict(type="T4SegDataset", metainfo=dict(class_mapping=mapping), ignore_index=3))
model = dict(type="FRNet")
"""
    assert read(written(tmp_path, text)).classes == ("road", "car", "ghost")
    assert read(written(tmp_path, text.replace("class_names = []", 'class_names = ["a"]'))).classes == ("a",)


def test_an_unknown_type_names_the_module_that_has_no_stand_in(tmp_path):
    path = written(
        tmp_path,
        f'_base_ = ["{SMALL}"]\ncustom_imports = dict(imports=["projects.CenterPoint.models", "projects.Fast.vit", '
        '"autoware_ml.hooks"])\nmodel = dict(pts_backbone=dict(type="Vit"))\n',
    )
    with pytest.raises(ConfigError, match=r"pts_backbone is a Vit, which is not known here \(of projects.Fast.vit\)"):
        build(read(path))


def test_an_unknown_type_that_no_import_explains(tmp_path):
    path = written(tmp_path, 'model = dict(type="Other")\n')
    with pytest.raises(ConfigError, match=r"model is a Other, .*\(the config imports no package that could have it\)"):
        build(read(path))


def test_arguments_for_training_are_dropped_and_that_is_said(tmp_path, caplog):
    path = written(
        tmp_path,
        f'_base_ = ["{SMALL}"]\nmodel = dict(\n'
        "  pts_voxel_encoder=dict(frozen_stages=[0]), pts_backbone=dict(frozen_stages=[0, 1]),\n"
        "  pts_neck=dict(frozen_stages=-1),\n"
        "  pts_bbox_head=dict(freeze_shared_conv=True, freeze_task_heads=False))\n",
    )
    plain = build(read(SMALL)).state_dict()
    caplog.clear()
    with caplog.at_level(logging.INFO, "exporter"):
        model = build(read(path))
    assert model.state_dict().keys() == plain.keys()
    (line,) = [record.message for record in caplog.records if "only training needs" in record.message]
    assert line.endswith("pts_backbone.frozen_stages, pts_bbox_head.loss_cls (mmdet.AmpGaussianFocalLoss is not "
                         "installed), pts_bbox_head.freeze_shared_conv")  # fmt: skip
    assert "pts_voxel_encoder.frozen_stages" in line and "pts_neck" not in line


def test_weights_are_never_downloaded(tmp_path):
    """Pretrained weights are for training; a config that names some builds all the same."""
    pretrained = 'init_cfg=dict(type="Pretrained", checkpoint="https://example.invalid/x.pth")'
    path = written(tmp_path, f'_base_ = ["{SMALL}"]\nmodel = dict(pts_backbone=dict({pretrained}))\n')
    build(read(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = dict(", "can't be read as a training config"),
        ("model = dict(type=no_such_name)", "can't be read as a training config"),
        ("_base_ = ['sub/../nowhere.py']\n", r"its base \S+\w/nowhere.py is not there.*work_dirs"),
        ("import sys\nsys.exit(0)", "can't be read as a training config"),
        ("lr = 1", "has no model"),
        ("model = dict(backbone=1)", "has no model"),
    ],
)
def test_files_that_are_no_training_configs(tmp_path, text, message):
    with pytest.raises(ConfigError, match=f"config.py: {message}") as caught:
        read(written(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('custom_imports = "a.b"', "custom_imports is a str, not a dict"),
        ("custom_imports = dict(imports=5)", r"a value is missing or not what it should be \(TypeError"),
        ("test_dataloader = [dict()]", "test_dataloader is a list, not a dict"),
        ("test_dataloader = dict(dataset=[1])", r"test_dataloader\.dataset is a list, not a dict"),
        ("test_dataloader = dict(dataset=dict(dataset=5))", r"test_dataloader\.dataset\.dataset is a int, not a dict"),
        ("test_pipeline = ['LoadPointsFromFile']", "a step of the test pipeline is 'LoadPointsFromFile'"),
        (
            "metainfo = [1]",
            r"a value is missing or not what it should be \(AttributeError: .* it is read here: names =",
        ),
    ],
)
def test_values_of_another_kind_are_told(tmp_path, text, message):
    with pytest.raises(ConfigError, match=f"config.py: {message}") as caught:
        read(written(tmp_path, f'model = dict(type="FRNet")\n{text}\n'))
    assert "\n" not in str(caught.value)


CENTERPOINT = [
    ("model = dict(pts_neck=dict(in_channels=[32, 32]))", "the model can't be built"),
    ("model = dict(pts_backbone=dict(layer_nums=[]))", "the model can't be built"),
    ("model = dict(pts_voxel_encoder=dict(feat_channels=[]))", "the model can't be built"),
    ("model = dict(pts_bbox_head=dict(separate_head=None))", "'NoneType' .*separate_head"),
    ("model = dict(pts_bbox_head=dict(bbox_coder=None))", "'NoneType' .*bbox_coder"),
    ("model = dict(pts_bbox_head=dict(bbox_coder=dict(max_num=None)))", "'NoneType'.*max_num"),
    ("model = dict(test_cfg=dict(pts=dict(min_radius=4)))", "TypeError.*min_radius"),
    ("model = dict(test_cfg=dict(pts=dict(post_max_size=None)))", "'NoneType'.*post_max_size"),
    ("model = dict(data_preprocessor=dict(voxel_layer=dict(max_voxels=(20000,))))", "IndexError.*max_voxels"),
    ('test_pipeline = [dict(type="LoadPointsFromFile", use_dim="all")]\n'
     "test_dataloader = dict(dataset=dict(pipeline=test_pipeline))", "ValueError.*use_dim"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), CENTERPOINT)
def test_a_value_that_a_centerpoint_cant_have_is_told_with_where_it_is_read(tmp_path, text, message):
    from exporter import models

    adapter = models.find("centerpoint")
    training = read(written(tmp_path, f'_base_ = ["{SMALL}"]\n{text}\n'))
    options = adapter.read_options({})
    with pytest.raises(ConfigError, match=rf"config\.py: .*{message}") as caught:
        models.parameters(adapter, models.build(adapter, training, options), training, options)
    assert "\n" not in str(caught.value)


def test_other_suppression_without_radii_says_that_these_are_missing(tmp_path):
    from exporter import models

    adapter = models.find("centerpoint")
    text = 'model = dict(test_cfg=dict(pts=dict(_delete_=True, nms_type="rotate", post_max_size=83)))'
    training = read(written(tmp_path, f'_base_ = ["{SMALL}"]\n{text}\n'))
    with pytest.raises(ConfigError, match=r"add min_radius, one for each task, to test_cfg\.pts, and --set"):
        models.build(adapter, training, adapter.read_options({}))
    options = adapter.read_options({"nms_type": "circle"})
    model = models.build(adapter, training, options)
    with pytest.raises(ConfigError, match=r"KeyError: min_radius\).*it is read here: radius = "):
        models.parameters(adapter, model, training, options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ('test_cfg=dict(score_thr=0.01, nms=dict(type="nms", iou_threshold=0.65))', "test_cfg=None"),
            "'NoneType'.*test_cfg",
        ),
        ((f"scale=({yolox.SIZE}, {yolox.SIZE})", f"scale={yolox.SIZE}"), "TypeError.*scale"),
    ],
)
def test_a_value_that_a_yolox_cant_have_is_told(tmp_path, change, message):
    from exporter import models

    adapter = models.find("yolox")
    text = yolox.TRAINING_CONFIG.replace(*change)
    assert text != yolox.TRAINING_CONFIG
    training, options = read(written(tmp_path, text)), adapter.read_options({})
    with pytest.raises(ConfigError, match=rf"config\.py: .*{message}"):
        models.parameters(adapter, models.build(adapter, training, options), training, options)


@pytest.mark.parametrize(("value", "message"), [("max_depth=None", "depth"), ("transform_config=5", "settings")])
def test_a_value_that_a_calibration_classifier_cant_have_is_told(tmp_path, value, message, caplog):
    from exporter import models

    adapter = models.find("calibration")
    step = f'test_pipeline = [dict(type="CalibrationClassificationTransform", {value})]'
    training = read(written(tmp_path, f'model = dict(type="ImageClassifier")\n{step}\n'))
    with caplog.at_level(logging.DEBUG, "exporter"), pytest.raises(ConfigError, match=f"TypeError.*{message}"):
        models.parameters(adapter, None, training, adapter.read_options({}))
    assert "Traceback" in caplog.text


def test_errors_of_ours_are_told_as_they_are(tmp_path):
    from exporter.training_config import explain_config_errors

    with pytest.raises(EnvironmentLacks, match=r"^no GPU$"), explain_config_errors(tmp_path):
        raise EnvironmentLacks("no GPU")


def test_a_config_of_hydra_is_called_so(tmp_path):
    path = tmp_path / "base.yaml"
    path.write_text("defaults: [_self_]\nmodel: {_target_: autoware_ml.models.detection3d.transfusion.Model}\n")
    with pytest.raises(ConfigError, match=r"base.yaml: is Hydra's, as autoware-ml's configs are\. mmengine's are read"):
        read(path)


@pytest.mark.parametrize("key", ["config", "checkpoint"])
def test_what_a_deploy_config_does_not_name_can_be_given(key):
    """Those of AWML name no training config."""
    from exporter.training_config import checkpoint_of, training_config_of

    config = DeployConfig.model_validate(
        {"task_type": "detection3d", "model": {"type": "centerpoint"}, "data": {"format": "t4"}, "export": {}}
    )
    with pytest.raises(ConfigError, match=rf"^model\.{key}: is missing\. give it: --set model\.{key}=FILE$"):
        {"config": training_config_of, "checkpoint": checkpoint_of}[key](config)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere.py: no such training config"):
        read(tmp_path / "nowhere.py")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            'pts_backbone=dict(type="SECONDD")',
            r"pts_backbone is a SECONDD, which is not known here \(of projects.CenterPoint.models\)\. docs/ext",
        ),
        (
            'pts_bbox_head=dict(separate_head=dict(type="Heads"))',
            r"pts_bbox_head.separate_head is a Heads, which is not known here \(of projects.CenterPoint",
        ),
        ("pts_backbone=dict(layer_numss=[1, 1, 1])", "the model can't be built: .*layer_numss"),
    ],
)
def test_a_type_or_argument_that_does_not_exist(tmp_path, change, message):
    path = written(tmp_path, f'_base_ = ["{SMALL}"]\nmodel = dict({change})\n')
    with pytest.raises(ConfigError, match=message) as caught:
        build(read(path))
    assert "\n" not in str(caught.value)


# -- how points are loaded ---------------------------------------------------------------------------------------------


def loading(config):
    from exporter.lidar.points import point_loading

    return point_loading(config)


def test_unknown_pipeline_step_is_refused(tmp_path):
    path = written(
        tmp_path,
        f'_base_ = ["{SMALL}"]\ntest_pipeline = [dict(type="LoadPointsFromFile", load_dim=5, use_dim=5), '
        'dict(type="PointSample", num_points=1000)]\ntest_dataloader = dict(dataset=dict(pipeline=test_pipeline))\n',
    )
    with pytest.raises(ConfigError, match="steps PointSample, which the runtime does not know"):
        loading(read(path))


def test_config_without_pipeline_is_refused(tmp_path):
    path = written(tmp_path, "model = dict(type='CenterPoint')\n")
    with pytest.raises(ConfigError, match="no test pipeline with LoadPointsFromFile"):
        loading(read(path))


def test_pipeline_without_sweeps(tmp_path):
    path = written(
        tmp_path,
        "model = dict(type='CenterPoint')\n"
        "test_pipeline = [dict(type='LoadPointsFromFile', load_dim=4, use_dim=[0, 1, 2])]\n",
    )
    found = loading(read(path))
    assert (found.load_dim, found.use_dim, found.merge_sweeps, found.range_filter) == (4, (0, 1, 2), False, None)


@pytest.mark.parametrize(
    ("arguments", "known"),
    [("offset=[0.0, 0.0, 0.0], sensor_id='FRONT'", True), ("offset=[0, 0, 0.1]", False), ("rotation=[0, 0, 1]", False)],
)
def test_an_offset_of_nothing_is_no_step(tmp_path, arguments, known):
    path = written(
        tmp_path,
        "model = dict(type='CenterPoint')\n"
        "test_pipeline = [dict(type='LoadPointsFromFile', load_dim=4, use_dim=4), "
        f"dict(type='PointOffset', {arguments})]\n",
    )
    if known:
        assert loading(read(path)).use_dim == (0, 1, 2, 3)
    else:
        with pytest.raises(ConfigError, match="steps PointOffset"):
            loading(read(path))


def test_pipeline_inside_a_wrapped_data_set(tmp_path):
    path = written(
        tmp_path,
        "model = dict(type='CenterPoint')\n"
        "pipeline = [dict(type='LoadPointsFromFile', load_dim=5, use_dim=4, norm_intensity=True),\n"
        "  dict(type='PointsRangeFilter', point_cloud_range=[0, -1, -2, 3, 4, 5])]\n"
        "test_dataloader = dict(dataset=dict(type='RepeatDataset', dataset=dict(pipeline=pipeline)))\n",
    )
    found = loading(read(path))
    assert found.use_dim == (0, 1, 2, 3)
    assert found.range_filter == (0, -1, -2, 3, 4, 5)
    assert found.norm_intensity is True


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            "dict(type='LoadPointsFromFile', load_dim=5, use_dim=4), dict(type='LoadPointsFromMultiSweeps')",
            "takes points of 5 columns, LoadPointsFromFile gives 4 of 5",
        ),
        (
            "dict(type='LoadPointsFromFile', load_dim=6, use_dim=6), dict(type='LoadPointsFromMultiSweeps')",
            "takes points of 5 columns, LoadPointsFromFile gives 6 of 6",
        ),
        ("dict(type='LoadPointsFromFile', load_dim=6, use_dim=6, use_color=True)", "has use_color"),
    ],
)
def test_pipelines_that_can_not_be_reproduced(tmp_path, steps, message):
    path = written(tmp_path, f"model = dict(type='CenterPoint')\ntest_pipeline = [{steps}]\n")
    with pytest.raises(ConfigError, match=message):
        loading(read(path))


@pytest.mark.parametrize("name", ["base_121m", "j6gen2_121m", "short_range_backward", "small", "mmdet3d"])
def test_points_are_those_of_the_configs_own_pipeline(tmp_path, name):
    """mmdet3d builds the pipeline of the config; we build settings from it: the same bits must come out."""
    import copy
    import pickle
    from dataclasses import asdict

    import mmdet3d
    import numpy as np

    from exporter.mmcv_ops import provide_mmcv_ops
    from exporter.models.centerpoint import adapter as centerpoint
    from shared.data import DataSettings, open_dataset
    from tests.support.multi_sweep import write_scene

    provide_mmcv_ops()
    from mmdet3d.datasets import transforms

    nuscenes = "centerpoint_pillar02_second_secfpn_head-circlenms_8xb4-cyclic-20e_nus-3d.py"
    folder = Path(mmdet3d.__file__).parent / ".mim" / "configs" / "centerpoint"
    config = read(folder / nuscenes if name == "mmdet3d" else CONFIGS / f"{name}.py")
    info, _ = write_scene(tmp_path, sweeps=3)
    (tmp_path / "infos.pkl").write_bytes(pickle.dumps({"metainfo": {"classes": ["car"]}, "data_list": [info]}))
    sample = open_dataset(DataSettings("info", tmp_path, Path("infos.pkl"))).sample(0)
    ours = centerpoint.load_input(sample, {"points": asdict(loading(config))}).numpy()

    results = copy.deepcopy(info)
    for entry in (results, *results["lidar_sweeps"]):
        entry["lidar_points"]["lidar_path"] = str(tmp_path / entry["lidar_points"]["lidar_path"])
    for step in config.pipeline:
        if step["type"] not in ("LoadPointsFromFile", "LoadPointsFromMultiSweeps", "PointsRangeFilter"):
            continue
        arguments = {key: value for key, value in step.items() if key != "type"}
        if step["type"] == "LoadPointsFromMultiSweeps":
            arguments["test_mode"] = True  # else it draws sweeps at random
        results = getattr(transforms, step["type"])(**arguments)(results)
    theirs = results["points"].tensor.numpy()
    assert len(theirs) > 500
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))

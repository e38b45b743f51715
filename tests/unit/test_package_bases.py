"""Training configs that build upon files of packages: read where the package is installed, done without where not."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from shared.errors import ConfigError

pytestmark = pytest.mark.exporter

CLASSIFIER = """
model = dict(
    type="absentlib.ImageClassifier",
    backbone=dict(type="ResNet", depth=18, in_channels=5, num_stages=4, out_indices=(3,), style="pytorch"),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(type="LinearClsHead", num_classes=2, in_channels=512, loss=dict(type="CrossEntropyLoss")),
)
"""


def read(folder: Path, text: str):
    from exporter.training_config import read_training_config

    path = folder / "config.py"
    path.write_text(text)
    return read_training_config(path)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    """A package that can be found and not imported, with configs."""
    for name, text in {"absentlib/__init__.py": "raise ImportError('needs a compiler')\n", **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.parametrize("configs", ["absentlib/.mim/configs", "absentlib/configs", "configs"])
def test_a_base_is_read_from_the_package_which_is_not_imported(tmp_path, monkeypatch, configs):
    base = "model = dict(backbone=dict(depth=34), extra=1)\n"
    install(tmp_path / "site", monkeypatch, {f"{configs}/_base_/models/resnet.py": base})
    config = read(tmp_path, '_base_ = ["absentlib::_base_/models/resnet.py"]\n' + CLASSIFIER)
    assert config.model["extra"] == 1 and config.model["backbone"]["depth"] == 18
    assert config.absent_bases == ()


def test_a_real_package_s_base_is_read():
    """mmdet is installed, and setuptools may be without pkg_resources, which mmengine asks for."""
    from exporter.package_bases import _find_base

    path = _find_base("mmdet::_base_/default_runtime.py")
    assert path is not None and "default_scope" in path.read_text()


def test_a_base_of_a_package_that_is_not_installed_counts_as_empty_and_that_is_said(tmp_path, caplog):
    from exporter.models.calibration import adapter

    bases = '_base_ = ["absentlib::_base_/default_runtime.py", "absentlib::_base_/models/resnet18.py"]\n'
    with caplog.at_level(logging.INFO, "exporter"):
        config = read(tmp_path, bases + CLASSIFIER)
    assert "absentlib::_base_/models/resnet18.py" in caplog.text
    model = adapter.build(config, adapter.read_options({}))
    assert model.backbone.conv1.in_channels == 5 and len(model.backbone.layer1) == 2


def test_what_such_a_base_would_have_given_is_asked_for(tmp_path):
    from exporter.models.calibration import adapter

    text = CLASSIFIER.replace("depth=18, ", "")
    config = read(tmp_path, '_base_ = ["absentlib::_base_/models/resnet18.py"]\n' + text)
    with pytest.raises(ConfigError, match=r"depth.*resnet18.py was not read: pip install --no-deps absentlib"):
        adapter.build(config, adapter.read_options({}))


def test_a_data_set_of_a_package_that_is_not_installed_is_refused(tmp_path):
    """It has the test pipeline: what the runtime does would be a guess."""
    with pytest.raises(ConfigError, match=r"config.py: _base_ 'absentlib::_base_/datasets/x.py'.*pip install"):
        read(tmp_path, '_base_ = ["absentlib::_base_/datasets/x.py"]\n' + CLASSIFIER)


def test_an_installed_package_without_the_config_is_refused(tmp_path, monkeypatch):
    install(tmp_path / "site", monkeypatch, {})
    with pytest.raises(ConfigError, match="absentlib is installed without this config"):
        read(tmp_path, '_base_ = ["absentlib::_base_/default_runtime.py"]\n' + CLASSIFIER)


def test_a_base_in_awml_s_container_is_found_in_the_repository(tmp_path):
    shared_config = tmp_path / "autoware_ml/configs/gen2_base.py"
    shared_config.parent.mkdir(parents=True)
    shared_config.write_text("transform_config = dict(max_distance=1.5)\n")
    folder = tmp_path / "projects/Status/configs"
    folder.mkdir(parents=True)
    text = f'_base_ = ["/workspace/autoware_ml/configs/gen2_base.py"]\n{CLASSIFIER}\nmodel["extra"] = '
    config = read(folder, text + "_base_.transform_config.max_distance\n")
    assert config.model["extra"] == 1.5


def test_an_import_of_awml_s_modules_is_no_obstacle(tmp_path):
    import sys

    module = "autoware_ml.calibration_classification.datasets.t4_calibration_classification_dataset"
    config = read(tmp_path, f"_base_ = []\nimport {module}\n{CLASSIFIER}")
    assert config.imports == (module,)
    assert not [name for name in sys.modules if name.partition(".")[0] == "autoware_ml"]


def test_a_scaling_of_the_whole_config_is_seen(tmp_path):
    """mmengine's runner gives a data preprocessor beside the model to the model."""
    from exporter.models.calibration import adapter

    config = read(tmp_path, CLASSIFIER + "data_preprocessor = dict(mean=[1.0] * 5, std=[2.0] * 5)\n")
    with pytest.raises(ConfigError, match=r"data_preprocessor\.mean is set"):
        adapter.build(config, adapter.read_options({}))

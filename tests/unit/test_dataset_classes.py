"""Class names that a training config leaves to the type of its data set."""

from __future__ import annotations

import pytest

from exporter.dataset_classes import classes_of_dataset
from shared.errors import ConfigError
from tests.support.tiny_yolox import TRAINING_CONFIG, built

pytestmark = pytest.mark.exporter

LISTED = "type=\"T4Dataset\", metainfo=dict(classes=['car', 'truck', 'pedestrian'])"


def with_dataset(kind: str, num_classes: int) -> str:
    text = TRAINING_CONFIG.replace(LISTED, f'type="{kind}"').replace("num_classes=3", f"num_classes={num_classes}")
    assert text != TRAINING_CONFIG
    return text


@pytest.mark.parametrize("kind", ["CocoDataset", "mmdet.CocoDataset", "mmdet.datasets.coco.CocoDataset"])
def test_coco_by_any_of_its_names(kind):
    names = classes_of_dataset(kind)
    assert len(names) == 80 and names[:3] == ("person", "bicycle", "car") and names[-1] == "toothbrush"


@pytest.mark.parametrize(
    ("kind", "count", "first"),
    [
        ("VOCDataset", 20, "aeroplane"),
        ("CityscapesDataset", 8, "person"),
        ("NuScenesDataset", 10, "car"),
        ("BDD100kDataset", 10, "pedestrian"),
    ],
)
def test_other_data_sets(kind, count, first):
    names = classes_of_dataset(kind)
    assert (len(names), names[0]) == (count, first)


@pytest.mark.parametrize(
    "kind", [None, "OpenImagesDataset", "NoSuchDataset", "no_such_package.CocoDataset", "T4Dataset"]
)
def test_what_is_not_known_has_none(kind):
    assert classes_of_dataset(kind) == ()


def test_they_are_those_that_mmdet_itself_has():
    """Read from its sources; here compared with the imported class."""
    from exporter.mmcv_ops import provide_mmcv_ops

    provide_mmcv_ops()
    from mmdet.datasets import CocoDataset

    assert classes_of_dataset("CocoDataset") == CocoDataset.METAINFO["classes"]


def test_a_model_of_a_stock_config_has_names(tmp_path):
    model = built(tmp_path, text=with_dataset("CocoDataset", 80))[0]
    assert model.deploy.classes[0] == "person"


def test_names_that_do_not_fit_the_head_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"names 80 classes, the head has 3.*data\.classes"):
        built(tmp_path, text=with_dataset("CocoDataset", 3))


def test_the_data_set_of_the_deploy_config_says_them_where_the_training_config_does_not(tmp_path):
    from exporter.models.yolox import adapter as yolox
    from exporter.training_config import read_training_config
    from tests.support.tiny_yolox import write_config

    silent = read_training_config(write_config(tmp_path, with_dataset("CocoDataset", 3)))
    named = silent.with_data_classes(("one", "two", "three"))
    assert yolox.build(named, yolox.read_options({})).deploy.classes == ["one", "two", "three"]
    assert named.digest != silent.digest
    listed = read_training_config(write_config(tmp_path))
    assert listed.with_data_classes(("one", "two", "three")).classes == ("car", "truck", "pedestrian")


def test_labels_of_fewer_classes_than_the_model_knows_do_not_name_them(tmp_path):
    """mmdet's own config on a data set with labels of six of COCO's classes."""
    from exporter.training_config import read_training_config
    from tests.support.tiny_yolox import write_config

    stock = read_training_config(write_config(tmp_path, with_dataset("CocoDataset", 80)))
    assert stock.with_data_classes(("person", "car")).class_names(80) == classes_of_dataset("CocoDataset")
    assert stock.with_data_classes(("person", "car")).class_names(2) == ("person", "car")

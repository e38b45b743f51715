"""Paths, boxes and labels of an info file are those of mmdet3d's own data set class."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.data import DataSettings, open_dataset
from shared.data.formats.nuscenes_mini_val import CLASSES
from tests.unit.test_info_files import NUSCENES_PREFIX, instance, nuscenes_info

pytestmark = pytest.mark.exporter


def nuscenes_dataset(root: Path, info_file: str, **options: Any) -> Any:
    from exporter.mmcv_ops import provide_mmcv_ops

    provide_mmcv_ops()
    from mmdet3d.datasets import NuScenesDataset

    return NuScenesDataset(data_root=str(root), ann_file=info_file, pipeline=[], test_mode=True, **options)


def test_paths_and_labels(tmp_path: Path) -> None:
    content = nuscenes_info()
    entry = content["data_list"][0]
    entry["images"] = {}
    entry["instances"] = [instance(label, points=3) for label in (0, 4, 7, -1, 3)]
    content["metainfo"] = {"categories": {name: label for label, name in enumerate(CLASSES)}, "dataset": "nuscenes"}
    (tmp_path / "infos.pkl").write_bytes(pickle.dumps(content))
    classes = ("pedestrian", "car", "bus")
    prefix = {"pts": NUSCENES_PREFIX["pts"], "sweeps": NUSCENES_PREFIX["sweeps"]}
    theirs = nuscenes_dataset(tmp_path, "infos.pkl", data_prefix=dict(prefix), metainfo={"classes": classes})
    entry = theirs.get_data_info(0)
    ours = open_dataset(DataSettings("info", tmp_path, Path("infos.pkl"), classes=classes, data_prefix=prefix)).sample(
        0
    )
    assert str(ours.lidar.path) == entry["lidar_points"]["lidar_path"]
    assert [str(sweep.points.path) for sweep in ours.sweeps] == [
        sweep["lidar_points"]["lidar_path"] for sweep in entry["lidar_sweeps"]
    ]
    assert ours.ground_truth is not None
    labels = entry["eval_ann_info"]["gt_labels_3d"]
    assert ours.ground_truth.labels.tolist() == labels[labels >= 0].tolist() == [1, 0, 2], "car, pedestrian, bus"


def test_boxes_of_the_demo_frame(real_data: Path) -> None:
    root = real_data / "nuscenes_demo"
    info = next(root.glob("*.pkl"))
    dataset = open_dataset(DataSettings("info", root, Path(info.name)))
    theirs = nuscenes_dataset(root, info.name, metainfo={"classes": dataset.classes}, data_prefix={"pts": ""})
    expected = theirs.get_data_info(0)["eval_ann_info"]
    boxes = dataset.sample(0).ground_truth
    assert boxes is not None
    # mmdet3d leaves boxes without points out, and ignored ones in; unknown velocities become 0.
    boxes = boxes.select(boxes.num_points > 0)
    kept = expected["gt_labels_3d"] >= 0
    tensor = expected["gt_bboxes_3d"].tensor.numpy()[kept]
    assert boxes.labels.tolist() == expected["gt_labels_3d"][kept].tolist()
    np.testing.assert_allclose(boxes.centers, expected["gt_bboxes_3d"].gravity_center.numpy()[kept], atol=1e-5)
    np.testing.assert_array_equal(boxes.sizes, tensor[:, 3:6])
    np.testing.assert_array_equal(boxes.yaws, tensor[:, 6])
    np.testing.assert_array_equal(np.nan_to_num(boxes.velocities), tensor[:, 7:9])

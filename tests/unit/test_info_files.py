"""Info files of mmdet3d and AWML: labels, boxes, paths and sweeps by each one's rules; bad ones in one line."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.data import Dataset, DataSettings, open_dataset
from shared.errors import ConfigError, InputError
from shared.geometry import pose

MATRIX = pose([1.0, 2.0, 3.0], [0.9, 0.1, -0.2, 0.3])
CAMERA = {
    "img_path": "db/scene/0/data/CAM_FRONT/0.jpg",
    "height": 928,
    "width": 1440,
    "cam2img": [[1000.0, 0, 720], [0, 1000.0, 464], [0, 0, 1]],
    "cam2ego": pose([1.5, 0, 1.2], [0.5, -0.5, 0.5, -0.5]).tolist(),
    "timestamp": 1700000000.02,
}


def instance(label: int, points: int = 10, **more: Any) -> dict[str, Any]:
    box = [10.0 + label, -3.0, 0.5, 4.4, 1.8, 1.6, 0.3]
    return {
        "bbox_3d": box,
        "bbox_label": label,
        "bbox_label_3d": label,
        "bbox_3d_isvalid": points > 0,
        "num_lidar_pts": points,
        "num_radar_pts": 0,
        "velocity": [1.0, -2.0],
        **more,
    }


def awml_info(**changes: Any) -> dict[str, Any]:
    entry = {
        "sample_idx": 0,
        "token": "s0",
        "timestamp": 1700000000.0,
        "scene_token": "scene0",
        "ego2global": MATRIX.tolist(),
        "lidar_points": {
            "num_pts_feats": 5,
            "lidar_path": "db/scene/0/data/LIDAR_CONCAT/1.pcd.bin",
            "lidar2ego": np.eye(4).tolist(),
        },
        "lidar_sweeps": [
            {
                "timestamp": 1699999999.9,
                "lidar_points": {
                    "lidar_path": "db/scene/0/data/LIDAR_CONCAT/0.pcd.bin",
                    "lidar2sensor": MATRIX.astype(np.float32),
                    "num_pts_feats": 5,
                },
            }
        ],
        "images": {"CAM_FRONT": CAMERA},
        "instances": [
            instance(0, gt_nusc_name="vehicle.car"),
            instance(4, points=0),
            instance(-1),
            instance(2, velocity=[np.nan, np.nan]),
        ],
    }
    entry.update(changes)
    classes = ["car", "truck", "bus", "bicycle", "pedestrian"]
    return {"metainfo": {"classes": classes, "version": "t4"}, "data_list": [entry]}


def opened(root: Path, content: Any, **settings: Any) -> Dataset:
    (root / "infos.pkl").write_bytes(pickle.dumps(content))
    return open_dataset(DataSettings("info", root, Path("infos.pkl"), **settings))


def test_awml_entry(tmp_path: Path) -> None:
    dataset = opened(tmp_path, awml_info())
    assert dataset.classes == ("car", "truck", "bus", "bicycle", "pedestrian")
    assert len(dataset) == 1
    sample = dataset.sample(0)
    assert (sample.index, sample.token, sample.timestamp, sample.scene) == (0, "s0", 1700000000.0, "scene0")
    assert sample.lidar.path == tmp_path / "db/scene/0/data/LIDAR_CONCAT/1.pcd.bin"
    assert sample.lidar.columns == 5
    assert sample.sweeps[0].points.path == tmp_path / "db/scene/0/data/LIDAR_CONCAT/0.pcd.bin", "the whole path counts"
    assert sample.sweeps[0].lidar2sensor.dtype == np.float32
    assert sample.lists_sweeps
    assert sample.ego2global is not None
    np.testing.assert_array_equal(sample.ego2global, MATRIX)
    camera = sample.cameras["CAM_FRONT"]
    assert camera.image == tmp_path / CAMERA["img_path"]
    assert (camera.width, camera.height, camera.timestamp) == (1440, 928, 1700000000.02)
    np.testing.assert_allclose(camera.lidar2cam, np.linalg.inv(CAMERA["cam2ego"]), atol=1e-12)
    assert camera.intrinsics.shape == (3, 3)


def test_ground_truth_rules(tmp_path: Path) -> None:
    """-1 is dropped, boxes without points stay, unknown velocity is NaN, centers are gravity centers."""
    truth = opened(tmp_path, awml_info()).sample(0).ground_truth
    assert truth is not None
    assert truth.labels.tolist() == [0, 4, 2]
    assert truth.num_points.tolist() == [10, 0, 10]
    assert truth.scores.tolist() == [1, 1, 1]
    np.testing.assert_allclose(truth.centers[0], [10, -3, 0.5])
    np.testing.assert_allclose(truth.sizes[0], [4.4, 1.8, 1.6], rtol=1e-6)
    np.testing.assert_allclose(truth.velocities[:2], [[1, -2], [1, -2]])
    assert np.isnan(truth.velocities[2]).all()


def test_classes_of_the_config_reorder_and_drop(tmp_path: Path) -> None:
    """As mmdet3d's metainfo does: labels by name, others ignored."""
    truth = opened(tmp_path, awml_info(), classes=("pedestrian", "car")).sample(0).ground_truth
    assert truth is not None
    assert truth.labels.tolist() == [1, 0]


def test_label_map(tmp_path: Path) -> None:
    settings = {"classes": ("vehicle", "pedestrian"), "label_map": {"car": "vehicle", "bus": "vehicle"}}
    truth = opened(tmp_path, awml_info(), **settings).sample(0).ground_truth
    assert truth is not None
    assert truth.labels.tolist() == [0, 1, 0]
    truth = opened(tmp_path, awml_info(), label_map={"car": None}).sample(0).ground_truth
    assert truth is not None
    assert truth.labels.tolist() == [4, 2]


def test_categories_of_mmdet3d(tmp_path: Path) -> None:
    content = awml_info()
    content["metainfo"] = {"categories": {"bus": 2, "car": 0, "truck": 1, "pedestrian": 4, "bicycle": 3}}
    assert opened(tmp_path, content).classes == ("car", "truck", "bus", "bicycle", "pedestrian")


def test_no_instances_means_no_labels(tmp_path: Path) -> None:
    content = awml_info()
    del content["data_list"][0]["instances"]
    sample = opened(tmp_path, content).sample(0)
    assert sample.ground_truth is None
    content["data_list"][0]["instances"] = []
    truth = opened(tmp_path, content).sample(0).ground_truth
    assert truth is not None
    assert len(truth) == 0


def test_no_sweep_list_is_not_an_empty_one(tmp_path: Path) -> None:
    content = awml_info(lidar_sweeps=[])
    assert opened(tmp_path, content).sample(0).lists_sweeps
    del content["data_list"][0]["lidar_sweeps"]
    assert not opened(tmp_path, content).sample(0).lists_sweeps


def nuscenes_info() -> dict[str, Any]:
    """Paths as mmdet3d's converter writes them."""
    sweeps = []
    for name in ("./data/nuscenes/sweeps/LIDAR_TOP/a.pcd.bin", "./data/nuscenes/samples/LIDAR_TOP/b.pcd.bin"):
        lidar = {"lidar_path": name, "lidar2sensor": np.eye(4).tolist(), "num_pts_feats": 5}
        sweeps.append({"timestamp": 1.0, "lidar_points": lidar})
    key_frame = {"num_pts_feats": 5, "lidar_path": "key.pcd.bin", "lidar2ego": np.eye(4).tolist()}
    image = {**CAMERA, "img_path": "front.jpg", "lidar2cam": MATRIX.tolist()}
    images = {"CAM_FRONT": image, "CAM_BACK": {**image, "img_path": "back.jpg"}}
    return awml_info(lidar_points=key_frame, lidar_sweeps=sweeps, images=images)


NUSCENES_PREFIX = {
    "pts": "samples/LIDAR_TOP",
    "sweeps": "sweeps/LIDAR_TOP",
    "img": "samples/other",
    "CAM_FRONT": "samples/CAM_FRONT",
}


def test_prefixes_follow_mmdet3d(tmp_path: Path) -> None:
    sample = opened(tmp_path, nuscenes_info(), data_prefix=NUSCENES_PREFIX).sample(0)
    assert sample.lidar.path == tmp_path / "samples/LIDAR_TOP/key.pcd.bin"
    assert [sweep.points.path for sweep in sample.sweeps] == [
        tmp_path / "sweeps/LIDAR_TOP/a.pcd.bin",
        tmp_path / "samples/LIDAR_TOP/b.pcd.bin",
    ]
    assert sample.cameras["CAM_FRONT"].image == tmp_path / "samples/CAM_FRONT/front.jpg"
    assert sample.cameras["CAM_BACK"].image == tmp_path / "samples/other/back.jpg"
    np.testing.assert_array_equal(sample.cameras["CAM_FRONT"].lidar2cam, MATRIX)


def test_json_info_file(tmp_path: Path) -> None:
    content = awml_info()
    content["data_list"][0]["lidar_sweeps"] = []
    (tmp_path / "infos.json").write_text(json.dumps(content))
    assert len(open_dataset(DataSettings("info", tmp_path, Path("infos.json")))) == 1


def test_order_is_that_of_the_file(tmp_path: Path) -> None:
    content = awml_info()
    content["data_list"] = [
        {**content["data_list"][0], "token": token, "timestamp": 100.0 - position}
        for position, token in enumerate("zebra")
    ]
    dataset = opened(tmp_path, content)
    assert [dataset.sample(index).token for index in range(len(dataset))] == list("zebra")
    for index in (-1, 5):
        with pytest.raises(IndexError):
            dataset.sample(index)


# --- digest ----------------------------------------------------------------------------------------------------------


def test_digest_is_of_what_defines_the_samples(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    digest = opened(here, awml_info()).digest()
    assert digest == opened(there, awml_info()).digest(), "not of where the data lies"
    moved = awml_info()
    moved["data_list"][0]["instances"][0]["bbox_3d"][0] += 1e-3
    others = [
        opened(there, moved),
        opened(here, awml_info(), classes=("car",)),
        opened(here, awml_info(), label_map={"car": None}),
        opened(here, awml_info(), pad_to=6),
        opened(here, awml_info(), intensity_scale=2.0),
        opened(here, awml_info(), data_prefix={"pts": "x"}),
    ]
    digests = {digest, *(other.digest() for other in others)}
    assert len(digests) == len(others) + 1


# --- bad input -------------------------------------------------------------------------------------------------------


def test_no_frames(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no frames") as error:
        opened(tmp_path, {"metainfo": {}, "data_list": []})
    assert error.value.exit_code == 3


@pytest.mark.parametrize("content", [{"infos": []}, [1, 2], None, {"metainfo": {}}])
def test_other_pickles(tmp_path: Path, content: Any) -> None:
    with pytest.raises(InputError, match="not an info file"):
        opened(tmp_path, content)


def test_missing_file_and_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pkl: no such info file.*--data where it was given"):
        open_dataset(DataSettings("info", tmp_path, Path("none.pkl")))
    with pytest.raises(InputError, match=r"none\.pkl: no such info file.*current folder in --set"):
        open_dataset(DataSettings("info", tmp_path, tmp_path.parent / "none.pkl"))
    with pytest.raises(InputError, match="no such data folder"):
        open_dataset(DataSettings("info", tmp_path / "none", Path("infos.pkl")))
    with pytest.raises(ConfigError, match=r"data\.info_file"):
        open_dataset(DataSettings("info", tmp_path))
    with pytest.raises(ConfigError, match=r"data\.root"):
        open_dataset(DataSettings("info", None, Path("infos.pkl")))


def test_labels_without_class_names(tmp_path: Path) -> None:
    content = awml_info()
    content["metainfo"] = {}
    with pytest.raises(ConfigError, match=r"data\.classes"):
        opened(tmp_path, content)


def without(entry: dict[str, Any], *keys: str) -> None:
    for key in keys[:-1]:
        entry = entry[key]
    del entry[keys[-1]]


def broken(entry: dict[str, Any], how: str) -> None:
    changes = {
        "no lidar": lambda: without(entry, "lidar_points"),
        "no path": lambda: without(entry, "lidar_points", "lidar_path"),
        "no lidar2ego": lambda: without(entry, "lidar_points", "lidar2ego"),
        "no timestamp": lambda: without(entry, "timestamp"),
        "flat pose": lambda: entry.update(ego2global=[1, 2, 3]),
        "short box": lambda: entry["instances"][0].update(bbox_3d=[1, 2, 3]),
        "text box": lambda: entry["instances"][0].update(bbox_3d="zebra"),
        "label": lambda: entry["instances"][0].update(bbox_label_3d=99),
        "no count": lambda: without(entry["instances"][0], "num_lidar_pts"),
        "sweep matrix": lambda: entry["lidar_sweeps"][0]["lidar_points"].update(lidar2sensor=[[1]]),
    }
    changes[how]()


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("no lidar", "'lidar_points'"),
        ("no path", "'lidar_path'"),
        ("no lidar2ego", "'lidar2ego'"),
        ("no timestamp", "'timestamp'"),
        ("flat pose", r"\(4, 4\)"),
        ("short box", "malformed"),
        ("text box", "malformed"),
        ("label", "label 99, but the file names 5"),
        ("no count", "'num_lidar_pts'"),
        ("sweep matrix", r"\(4, 4\)"),
    ],
)
def test_broken_entries_name_file_and_entry(tmp_path: Path, how: str, why: str) -> None:
    content = awml_info()
    content["data_list"].append(copy.deepcopy(content["data_list"][0]))
    broken(content["data_list"][1], how)
    dataset = opened(tmp_path, content)
    dataset.sample(0)
    with pytest.raises(InputError, match=why) as error:
        dataset.sample(1)
    assert "infos.pkl: data_list[1]" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../../etc/passwd", "db/../../x.bin", "/etc/passwd", "", "a\0b"])
@pytest.mark.parametrize("place", ["key frame", "sweep", "image"])
def test_paths_stay_in_the_data_folder(tmp_path: Path, place: str, name: str) -> None:
    content = awml_info()
    entry = content["data_list"][0]
    if place == "key frame":
        entry["lidar_points"]["lidar_path"] = name
    elif place == "sweep":
        entry["lidar_sweeps"][0]["lidar_points"]["lidar_path"] = name
    else:
        entry["images"]["CAM_FRONT"] = {**CAMERA, "img_path": name}
    with pytest.raises(InputError, match=r"leaves its folder|absolute|not a file name"):
        opened(tmp_path, content).sample(0)


def test_absolute_paths_where_allowed(tmp_path: Path) -> None:
    content = awml_info()
    elsewhere = tmp_path / "elsewhere.bin"
    content["data_list"][0]["lidar_points"]["lidar_path"] = str(elsewhere)
    assert opened(tmp_path, content, allow_absolute_paths=True).sample(0).lidar.path == elsewhere
    content["data_list"][0]["lidar_points"]["lidar_path"] = "/data/../x.bin"
    with pytest.raises(InputError, match="leaves its folder"):
        opened(tmp_path, content, allow_absolute_paths=True).sample(0)


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data format 'waymo' is not known\. these have: argoverse2, folder, info"):
        open_dataset(DataSettings("waymo", tmp_path))

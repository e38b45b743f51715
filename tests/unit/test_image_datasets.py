"""Images with 2D boxes: AWML's and mmdet3d's info files, COCO, KITTI, T4, folders; and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.data import Dataset, DataSettings, ImageSample, open_dataset
from shared.errors import ConfigError, InputError

CLASSES = ["car", "pedestrian"]


def opened(format_: str, root: Path, **settings: Any) -> Dataset[ImageSample]:
    return open_dataset(DataSettings(format_, root, **settings), task="detection2d")


def boxes(sample: ImageSample) -> list[tuple[int, list[float]]]:
    assert sample.labels is not None
    own = sample.labels.boxes
    return [(int(label), corners.tolist()) for label, corners in zip(own.labels, own.corners, strict=True)]


# --- AWML ------------------------------------------------------------------------------------------------------------


def awml_info(**changes: Any) -> dict[str, Any]:
    entry = {
        "img_id": 7,
        "img_path": "db/scene1/0/data/CAM_FRONT/0.jpg",
        "width": 100,
        "height": 60,
        "instances": [
            {"bbox": [1, 2, 11, 22], "bbox_label": 1, "mask": [], "extra_anns": {}, "ignore_flag": 0},
            {"bbox": [5, 5, 6, 6], "bbox_label": 0, "mask": [], "extra_anns": {}, "ignore_flag": 1},
            {"bbox": [5, 5, 6, 6], "bbox_label": -1, "mask": [], "extra_anns": {}, "ignore_flag": 0},
            {"bbox": [9, 9, 9, 20], "bbox_label": 0, "mask": [], "extra_anns": {}, "ignore_flag": 0},
        ],
        **changes,
    }
    return {"metainfo": {"dataset_type": "t4dataset", "classes": CLASSES}, "data_list": [entry]}


def written(root: Path, content: Any, name: str = "yolox_infos_val.json") -> Path:
    (root / name).write_text(json.dumps(content))
    return Path(name)


def test_awml_info(tmp_path: Path) -> None:
    dataset = opened("info", tmp_path, info_file=written(tmp_path, awml_info()))
    sample = dataset.sample(0)
    assert dataset.classes == ("car", "pedestrian")
    assert (sample.token, sample.scene, sample.width, sample.height) == ("7", "db/scene1/0", 100, 60)
    assert sample.image == tmp_path / "db/scene1/0/data/CAM_FRONT/0.jpg"
    # The box of label -1 and the one without width are left out; the ignored one stays, marked.
    assert boxes(sample) == [(1, [1, 2, 11, 22]), (0, [5, 5, 6, 6])]
    assert sample.labels is not None
    assert sample.labels.ignored.tolist() == [False, True]
    assert sample.labels.areas.tolist() == [200.0, 1.0]


def test_classes_of_the_model_and_label_map(tmp_path: Path) -> None:
    info = written(tmp_path, awml_info())
    dataset = opened("info", tmp_path, info_file=info, classes=["bus", "person"], label_map={"pedestrian": "person"})
    assert boxes(dataset.sample(0)) == [(1, [1, 2, 11, 22])]


def test_absolute_paths_as_awml_writes_them_need_a_word(tmp_path: Path) -> None:
    info = written(tmp_path, awml_info(img_path="/data/a.jpg"))
    with pytest.raises(InputError, match=r"is absolute.*allow_absolute_paths"):
        opened("info", tmp_path, info_file=info).sample(0)
    assert opened("info", tmp_path, info_file=info, allow_absolute_paths=True).sample(0).image == Path("/data/a.jpg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"metainfo": {"classes": CLASSES}, "data_list": []}, "has no images"),
        ({"images": []}, "is not an info file"),
        ([], "is not an info file"),
        (awml_info(instances=[{"bbox": [0, 0, 1, 1]}]), "lacks the key 'bbox_label'"),
        (awml_info(instances=[{"bbox": [0, 0, 1], "bbox_label": 0}]), "is malformed"),
        (awml_info(instances=[{"bbox": [0, 0, 1, 1], "bbox_label": 5}]), "has label 5, but the file names 2 classes"),
        (awml_info(img_path="../a.jpg"), "leaves its folder"),
    ],
)
def test_info_files_that_are_wrong(content: Any, message: str, tmp_path: Path) -> None:
    info = written(tmp_path, content)
    with pytest.raises(InputError, match=message):
        opened("info", tmp_path, info_file=info).sample(0)


def test_an_empty_annotation_file(tmp_path: Path) -> None:
    for name in ("a.json", "b.pkl"):
        (tmp_path / name).touch()
        with pytest.raises(InputError, match=name):
            opened("info", tmp_path, info_file=Path(name))
    with pytest.raises(InputError, match=r"a\.json"):
        opened("coco", tmp_path, info_file=Path("a.json"))


# --- mmdet3d ---------------------------------------------------------------------------------------------------------


def test_mmdet3d_info_gives_an_image_a_camera(tmp_path: Path) -> None:
    frame = {
        "token": "f", "timestamp": 2.0,
        "images": {
            "CAM_A": {"img_path": "a.jpg", "height": 9, "width": 16, "timestamp": 3.0}, "CAM_B": {"img_path": "b.jpg"},
        },
        "cam_instances": {"CAM_A": [{"bbox": [0, 0, 4, 4], "bbox_label": 1}, {"bbox": [0, 0, 4, 4], "bbox_label": -1}]},
    }  # fmt: skip
    content = {"metainfo": {"categories": {"car": 0, "pedestrian": 1}}, "data_list": [frame, {"token": "g"}]}
    (tmp_path / "infos.pkl").write_bytes(pickle.dumps(content))
    dataset = opened("info", tmp_path, info_file=Path("infos.pkl"), data_prefix={"CAM_A": "samples/CAM_A"})
    assert len(dataset) == 2
    first, second = dataset.sample(0), dataset.sample(1)
    assert (first.token, second.token) == ("f/CAM_A", "f/CAM_B")
    assert first.image == tmp_path / "samples/CAM_A/a.jpg"
    assert (first.timestamp, second.timestamp) == (3.0, 2.0)
    assert boxes(first) == [(1, [0, 0, 4, 4])]
    assert boxes(second) == []


# --- COCO ------------------------------------------------------------------------------------------------------------


def coco_file() -> dict[str, Any]:
    return {
        "images": [{"id": 3, "file_name": "a.jpg", "width": 50, "height": 40}, {"id": 4, "file_name": "b.jpg"}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 18, "bbox": [1, 2, 10, 20], "area": 120.0, "iscrowd": 0},
            {"id": 2, "image_id": 3, "category_id": 3, "bbox": [0, 0, 5, 5], "iscrowd": 1},
        ],
    }


def test_coco(tmp_path: Path) -> None:
    info = written(tmp_path, coco_file(), "instances.json")
    dataset = opened("coco", tmp_path, info_file=info, data_prefix={"img": "val2017"})
    assert dataset.classes == ("car", "dog")  # by category number
    sample = dataset.sample(0)
    assert (sample.token, sample.image) == ("3", tmp_path / "val2017/a.jpg")
    assert boxes(sample) == [(1, [1, 2, 11, 22]), (0, [0, 0, 5, 5])]
    assert sample.labels is not None
    assert sample.labels.areas.tolist() == [120.0, 25.0]
    assert sample.labels.ignored.tolist() == [False, True]
    assert boxes(dataset.sample(1)) == []


def test_coco_without_annotations_has_no_labels(tmp_path: Path) -> None:
    content = coco_file()
    del content["annotations"]
    info = written(tmp_path, content, "image_info.json")
    assert opened("coco", tmp_path, info_file=info).sample(0).labels is None


# --- KITTI, T4, folders ----------------------------------------------------------------------------------------------


def test_kitti(tmp_path: Path) -> None:
    for folder in ("image_2", "label_2"):
        (tmp_path / folder).mkdir()
    for name in ("000001.png", "000004.png"):
        (tmp_path / "image_2" / name).touch()
    rest = "1 1 1 0 0 0 0"
    (tmp_path / "label_2" / "000001.txt").write_text(
        f"Van 0 0 0 10 20 30 40 {rest}\nDontCare -1 -1 -10 1 2 3 4 {rest}\nTram 0 0 0 1 2 3 4 {rest}\n"
    )
    dataset = opened("kitti", tmp_path, classes=CLASSES)
    first, second = dataset.sample(0), dataset.sample(1)
    # A van is a car; where nobody was to look, nothing counts, for both classes.
    assert boxes(first) == [(0, [10, 20, 30, 40]), (0, [1, 2, 3, 4]), (1, [1, 2, 3, 4])]
    assert first.labels is not None
    assert first.labels.ignored.tolist() == [False, True, True]
    assert second.labels is None
    (tmp_path / "label_2" / "000001.txt").write_text("Car 1 2\n")
    with pytest.raises(InputError, match=r"000001\.txt: is malformed .3 columns"):
        opened("kitti", tmp_path, classes=CLASSES).sample(0)


def test_t4_real_sample(real_data: Path) -> None:
    dataset = opened("t4", real_data / "t4_minimal")
    labeled = [dataset.sample(index) for index in range(len(dataset))]
    assert len(labeled) == 6
    assert sum(len(boxes(sample)) for sample in labeled) == 4
    assert all(sample.image.is_file() for sample in labeled)


def test_folder_of_images(tmp_path: Path) -> None:
    for name in ("10.jpg", "9.PNG", "notes.txt"):
        (tmp_path / name).touch()
    dataset = opened("folder", tmp_path)
    assert [dataset.sample(index).token for index in range(len(dataset))] == ["9.PNG", "10.jpg"]
    assert dataset.sample(0).labels is None
    (tmp_path / "9.PNG").unlink()
    (tmp_path / "10.jpg").unlink()
    with pytest.raises(InputError, match="no images here"):
        opened("folder", tmp_path)


def test_concatenation(tmp_path: Path) -> None:
    written(tmp_path, awml_info())
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.jpg").touch()
    sources = (
        DataSettings("info", info_file=Path("yolox_infos_val.json")),
        DataSettings("folder", root=Path("more")),
    )
    dataset = opened("concat", tmp_path, sources=sources)
    assert [dataset.sample(index).token for index in range(2)] == ["yolox_infos_val/7", "more/x.jpg"]
    assert [dataset.sample(index).index for index in range(2)] == [0, 1]


def test_the_view_depends_on_the_task(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'argoverse2' has no images, which task detection2d needs"):
        opened("argoverse2", tmp_path)
    with pytest.raises(ConfigError, match="'coco' has no lidar frames, which task detection3d needs"):
        open_dataset(DataSettings("coco", tmp_path))


def test_the_digest_is_of_the_labels_not_of_the_place(tmp_path: Path) -> None:
    digests = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        info = written(tmp_path / folder, awml_info())
        digests.append(opened("info", tmp_path / folder, info_file=info).digest())
    other = opened("info", tmp_path / "a", info_file=written(tmp_path / "a", awml_info(width=101))).digest()
    assert digests[0] == digests[1] != other


def test_real_images_have_labels_where_there_are_any(real_data: Path) -> None:
    dataset = opened("real", real_data)
    samples = [dataset.sample(index) for index in range(len(dataset))]
    assert all(sample.image.is_file() for sample in samples)
    kitti = next(sample for sample in samples if sample.token == "kitti/000008")
    assert kitti.labels is not None
    assert np.sum(~kitti.labels.ignored) == 6  # cars

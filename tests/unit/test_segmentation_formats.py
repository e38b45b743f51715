"""Data sets with labels of points and pixels as others keep them: SemanticKITTI, info files, folders of masks."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from shared.config import DeployConfig
from shared.config.model_sections import Data
from shared.data import DataSettings, open_dataset, read_points
from shared.data.label_file import read_ids
from shared.data.labels import labels_in
from shared.data.unpickle import load_pickle
from shared.errors import ConfigError, InputError
from shared.metrics.confusion import UNLABELED
from shared.tasks import find


def _labels(settings: Data | DataSettings, task: str, index: int = 0) -> list[Any]:
    dataset = open_dataset(settings, task=task)
    classes = dataset.classes
    found = find(task).labels_of(dataset.sample(index), labels_in(classes, classes))
    return (
        ["none"] if found is None else [classes[label] if label != UNLABELED else "-" for label in found.labels.ravel()]
    )


@pytest.fixture(name="kitti")
def _kitti(tmp_path: Path) -> Path:
    for sequence, scans in (("00", 2), ("08", 1)):
        for kind in ("velodyne", "labels"):
            (tmp_path / "sequences" / sequence / kind).mkdir(parents=True)
        for scan in range(scans):
            folder = tmp_path / "sequences" / sequence
            np.full((7, 4), scan, np.float32).tofile(folder / f"velodyne/{scan:06}.bin")
            ids = np.array([10, 252, 40, 60, 256, 0, 99], np.uint32) + (5 << 16)  # instances in the upper half
            ids.tofile(folder / f"labels/{scan:06}.label")
    (tmp_path / "sequences/00/labels/000001.label").unlink()
    return tmp_path


def test_semantickitti(kitti: Path) -> None:
    dataset = open_dataset(DataSettings("semantickitti", kitti), task="segmentation3d")
    samples = [dataset.sample(index) for index in range(len(dataset))]
    assert [(sample.token, sample.scene) for sample in samples] == [
        ("00/000000", "00"), ("00/000001", "00"), ("08/000000", "08")
    ]  # fmt: skip
    assert read_points(samples[1].lidar).tolist() == [[1.0] * 4] * 7
    assert len(dataset.classes) == 19
    expected = ["car", "car", "road", "road", "other-vehicle", "-", "-"]
    assert _labels(DataSettings("semantickitti", kitti), "segmentation3d") == expected
    assert samples[1].point_labels is None
    one = open_dataset(DataSettings("semantickitti", kitti, data_prefix={"pts": "sequences/08"}), task="segmentation3d")
    assert [one.sample(0).token] == ["08/000000"] and len(one) == 1
    assert one.digest() != dataset.digest()


def test_semantickitti_with_classes_of_ones_own(kitti: Path) -> None:
    settings = DataSettings("semantickitti", kitti, classes=["car", "moving-car", "lane-marking"])
    assert _labels(settings, "segmentation3d") == ["car", "moving-car", "-", "lane-marking", "-", "-", "-"]
    mapped = DataSettings("semantickitti", kitti, classes=["car"], label_map={"moving-car": None, "road": "car"})
    assert _labels(mapped, "segmentation3d") == ["car", "-", "car", "car", "-", "-", "-"]
    given = DataSettings("semantickitti", kitti, classes=["thing"], label_ids={"thing": [10, 40, 99], "rest": [0, 60]})
    with pytest.raises(InputError, match="label 252 is outside the list of 5"):
        _labels(given, "segmentation3d")


def _info(folder: Path, entry: Mapping[str, Any], metainfo: Mapping[str, Any], **settings: Any) -> DataSettings:
    """An info file of one lidar frame with three points, labeled 24, 17 and 0."""
    np.zeros((3, 5), np.float32).tofile(folder / "points.bin")
    (folder / "lidarseg").mkdir(exist_ok=True)
    np.array([24, 17, 0], np.uint8).tofile(folder / "lidarseg/labels.bin")
    lidar = {"lidar_path": "points.bin", "num_pts_feats": 5, "lidar2ego": np.eye(4).tolist()}
    frame = {"token": "a", "timestamp": 0.0, "lidar_points": lidar, **entry}
    (folder / "info.json").write_text(json.dumps({"metainfo": metainfo, "data_list": [frame]}))
    return DataSettings("info", folder, Path("info.json"), **{"classes": ["road", "car"], **settings})


def test_labels_of_points_in_info_files(tmp_path: Path) -> None:
    # As mmdet3d writes nuScenes: the config says which id is of which class.
    named = {"pts_semantic_mask_path": "labels.bin"}
    ids = {"road": [24], "car": [17, 23], "noise": [0]}
    settings = _info(tmp_path, named, {}, label_ids=ids, data_prefix={"pts_semantic_mask": "lidarseg"})
    assert _labels(settings, "segmentation3d") == ["road", "car", "-"]
    before = open_dataset(settings, task="segmentation3d").digest()
    (tmp_path / "lidarseg/labels.bin").write_bytes(b"\x18\x18\x18")
    assert open_dataset(settings, task="segmentation3d").digest() != before
    # As AWML writes T4: each entry says it.
    named = {"pts_semantic_mask_path": "lidarseg/labels.bin"}
    own = {"pts_semantic_mask_categories": {"noise": 0, "sedan": 17, "road": 24}}
    assert _labels(_info(tmp_path, {**named, **own}, {}, label_map={"sedan": "car"}), "segmentation3d") == [
        "road",
        "car",
        "-",
    ]
    # By the file's own list.
    segments = {"segments": ["noise", *["other"] * 16, "car", *["other"] * 6, "road"]}
    assert _labels(_info(tmp_path, named, segments), "segmentation3d") == ["road", "car", "-"]
    assert _labels(_info(tmp_path, {}, segments), "segmentation3d") == ["none"]


def test_labels_of_points_name_classes_where_the_config_names_none(tmp_path: Path) -> None:
    named = {"pts_semantic_mask_path": "lidarseg/labels.bin"}
    own = {"pts_semantic_mask_categories": {"noise": 0, "sedan": 17, "road": 24}}
    by_entry = _info(tmp_path, {**named, **own}, {"classes": ["sedan"]}, classes=[])
    assert open_dataset(by_entry, task="segmentation3d").classes == ("sedan", "noise", "road")
    assert _labels(by_entry, "segmentation3d") == ["road", "sedan", "noise"]
    segments = {"segments": ["noise", *["other"] * 16, "car", *["other"] * 6, "road"]}
    assert _labels(_info(tmp_path, named, segments, classes=[]), "segmentation3d") == ["road", "car", "noise"]
    by_config = _info(tmp_path, named, {}, classes=[], label_ids={"road": [24], "car": [17], "noise": [0]})
    assert _labels(by_config, "segmentation3d") == ["road", "car", "noise"]
    # Boxes alone are of the classes that boxes have.
    assert open_dataset(_info(tmp_path, {}, segments, classes=[]), task="detection3d").classes == ()


def _image_info(folder: Path, metainfo: Mapping[str, Any], mask: str = "mask.png", **settings: Any) -> DataSettings:
    """An info file of one image with a mask of 0 and 2."""
    Image.new("RGB", (2, 1)).save(folder / "image.jpg")
    Image.fromarray(np.array([[0, 2]], np.uint8)).save(folder / "mask.png")
    entry = {"img_path": "image.jpg", "img_id": "a", "width": 2, "height": 1, "seg_map_path": mask}
    (folder / "info.json").write_text(json.dumps({"metainfo": metainfo, "data_list": [entry]}))
    return DataSettings("info", folder, Path("info.json"), **settings)


def test_masks_name_classes_where_the_config_names_none(tmp_path: Path) -> None:
    settings = _image_info(tmp_path, {"classes": ["car"], "segments": ["car", "sky", "road"]})
    assert open_dataset(settings, task="segmentation2d").classes == ("car", "sky", "road")
    assert _labels(settings, "segmentation2d") == ["car", "road"]


def test_masks_that_nobody_explains_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not say which label is of which class") as caught:
        open_dataset(_image_info(tmp_path, {"classes": ["car"]}), task="segmentation2d")
    assert "label_ids" in str(caught.value.hint)


def test_labels_elsewhere_where_that_is_allowed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "data").mkdir()
    elsewhere.mkdir()
    Image.fromarray(np.array([[2, 0]], np.uint8)).save(elsewhere / "mask.png")
    metainfo = {"segments": ["car", "sky", "road"]}
    place = str(elsewhere / "mask.png")
    settings = _image_info(tmp_path / "data", metainfo, place, allow_absolute_paths=True)
    assert _labels(settings, "segmentation2d") == ["road", "car"]
    before = open_dataset(settings, task="segmentation2d").digest()
    Image.fromarray(np.array([[2, 1]], np.uint8)).save(elsewhere / "mask.png")
    assert open_dataset(settings, task="segmentation2d").digest() != before
    with pytest.raises(InputError, match="is absolute"):
        open_dataset(_image_info(tmp_path / "data", metainfo, place), task="segmentation2d")


def test_labels_that_nobody_explains_are_refused(tmp_path: Path) -> None:
    settings = _info(tmp_path, {"pts_semantic_mask_path": "lidarseg/labels.bin"}, {})
    with pytest.raises(ConfigError, match="does not say which label is of which class") as caught:
        _labels(settings, "segmentation3d")
    assert "label_ids" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["../labels.bin", "/etc/passwd"])
def test_labels_stay_in_the_data_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        open_dataset(_info(tmp_path, {"pts_semantic_mask_path": name}, {}), task="segmentation3d")


@pytest.fixture(name="cityscapes")
def _cityscapes(tmp_path: Path) -> Path:
    for kind in ("leftImg8bit", "gtFine"):
        (tmp_path / kind / "val/ulm").mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (3, 1)).save(tmp_path / f"leftImg8bit/val/ulm/ulm_{number}_leftImg8bit.png")
    for ending, values in (("labelIds", [7, 26, 3]), ("color", [0, 0, 0]), ("labelTrainIds", [0, 13, 255])):
        mask = np.array([values], np.uint8)
        Image.fromarray(mask).save(tmp_path / f"gtFine/val/ulm/ulm_0_gtFine_{ending}.png")
    return tmp_path


def _masks(folder: Path, ending: str, **settings: Any) -> DataSettings:
    return DataSettings(
        "folder", folder, classes=["road", "car"], data_prefix={"img": "leftImg8bit/val", "seg_map_path": "gtFine/val"},
        img_suffix="_leftImg8bit.png", seg_map_suffix=f"_gtFine_{ending}.png", **settings,
    )  # fmt: skip


def test_masks_of_cityscapes(cityscapes: Path) -> None:
    ids = {"road": [7], "car": [26], "void": [3]}
    settings = _masks(cityscapes, "labelIds", label_ids=ids)
    assert _labels(settings, "segmentation2d") == ["road", "car", "-"]
    dataset = open_dataset(settings, task="segmentation2d")
    assert [dataset.sample(index).token for index in range(2)] == [
        "ulm/ulm_0_leftImg8bit.png",
        "ulm/ulm_1_leftImg8bit.png",
    ]
    assert dataset.sample(1).mask is None
    train = _masks(cityscapes, "labelTrainIds", label_ids={"road": [0], "car": [13]})
    assert _labels(train, "segmentation2d") == ["road", "car", "-"], "255 is not judged"
    with pytest.raises(InputError, match="label 13 is outside the list of 3"):
        _labels(_masks(cityscapes, "labelTrainIds"), "segmentation2d")


def test_masks_named_as_their_images(tmp_path: Path) -> None:
    # As COCO's, whose images are JPEG files.
    for kind in ("val2017", "maps"):
        (tmp_path / kind).mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "val2017/000000000139.jpg")
    Image.fromarray(np.array([[2, 0], [61, 255]], np.uint8)).save(tmp_path / "maps/000000000139.png")
    settings = DataSettings(
        "folder", tmp_path, classes=["person", "car"], data_prefix={"img": "val2017", "seg_map_path": "maps"},
        label_ids={"person": [0], "car": [2], "table": [61]},
    )  # fmt: skip
    assert _labels(settings, "segmentation2d") == ["car", "person", "-", "-"]


@pytest.mark.parametrize(("place", "image"), [("masks", "a.jpg"), (".", "a.jpg"), ("masks", "a.png")])
def test_masks_among_the_images_are_none(tmp_path: Path, place: str, image: str) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    Image.new("RGB", (2, 1)).save(tmp_path / image)
    Image.fromarray(np.array([[1, 0]], np.uint8)).save(tmp_path / place / "a.png")
    settings = DataSettings("folder", tmp_path, classes=["road", "car"], data_prefix={"seg_map_path": place})
    dataset = open_dataset(settings, task="segmentation2d")
    assert [dataset.sample(index).token for index in range(len(dataset))] == [image]
    assert _labels(settings, "segmentation2d") == ["car", "road"]


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("palette", [False, True])
def test_masks_of_few_bits(tmp_path: Path, bits: int, palette: bool) -> None:
    ids = np.arange(1 << bits, dtype=np.uint8)[None]
    image = Image.fromarray(ids)
    if palette:
        image.putpalette(list(range(3 << bits)))
        image.save(tmp_path / "mask.png", bits=bits)
    else:
        (tmp_path / "mask.png").write_bytes(_gray_png(ids, bits))
    np.testing.assert_array_equal(read_ids(tmp_path / "mask.png"), ids)


def _gray_png(ids: np.ndarray[Any, Any], bits: int) -> bytes:
    """A PNG file of gray values of so many bits (PNG specification, 2nd edition, 11.2.2 and 7.2)."""
    height, width = ids.shape
    packed = np.packbits(np.unpackbits(ids[..., None], axis=2)[..., 8 - bits :].reshape(height, -1), axis=1)
    lines = b"".join(b"\0" + line.tobytes() for line in packed)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_masks_that_are_not_there_or_have_no_classes(cityscapes: Path) -> None:
    with pytest.raises(InputError, match=r"has no mask of ulm_0_leftImg8bit\.png"):
        open_dataset(_masks(cityscapes, "polygons"), task="segmentation2d")
    settings = DataSettings("folder", cityscapes, data_prefix={"seg_map_path": "gtFine"})
    with pytest.raises(ConfigError, match="masks don't name their classes"):
        open_dataset(settings, task="segmentation2d")


@pytest.mark.parametrize("ids", [{"a": [1], "b": [1]}, {"a": [1 << 16]}, {"a": [-1]}, {"a": ["1"]}])
def test_ids_that_are_none(ids: dict[str, list[Any]]) -> None:
    with pytest.raises(ValidationError):
        Data.model_validate({"label_ids": ids})


def test_the_config_takes_them(kitti: Path) -> None:
    data = {"format": "semantickitti", "root": str(kitti), "classes": ["car"], "label_ids": {"car": [10, 252]}}
    config = DeployConfig.model_validate({"model": {"type": "frnet"}, "task_type": "segmentation3d", "data": data})
    assert open_dataset(config.data, task="segmentation3d").sample(0).point_labels.ids == {10: 0, 252: 0}


def test_real_scans_have_a_label_for_each_point(real_data: Path, tmp_path: Path) -> None:
    """KITTI's scans in SemanticKITTI's folders, and mmdet3d's nuScenes frame: the labels are made up."""
    for kind in ("velodyne", "labels"):
        (tmp_path / "sequences/00" / kind).mkdir(parents=True)
    scan = min((real_data / "kitti/velodyne").glob("*.bin"))
    (tmp_path / "sequences/00/velodyne" / scan.name).symlink_to(scan)
    np.full(scan.stat().st_size // 16, 40, "<u4").tofile(tmp_path / f"sequences/00/labels/{scan.stem}.label")
    nuscenes = real_data / "nuscenes_demo"
    info = load_pickle(next(nuscenes.glob("*.pkl")))
    [points] = nuscenes.glob("*LIDAR_TOP*.bin")
    (tmp_path / points.name).symlink_to(points)
    np.full(points.stat().st_size // 20, 24, np.uint8).tofile(tmp_path / "lidarseg.bin")
    entry = {key: value for key, value in info["data_list"][0].items() if key in ("token", "timestamp", "lidar_points")}
    lidar = {**entry["lidar_points"], "lidar_path": points.name}
    labeled = {**entry, "lidar_points": lidar, "pts_semantic_mask_path": "lidarseg.bin"}
    (tmp_path / "info.json").write_text(json.dumps({"metainfo": {}, "data_list": [labeled]}, default=np.ndarray.tolist))
    ids = {"road": [24]}
    for settings in (
        DataSettings("semantickitti", tmp_path),
        DataSettings("info", tmp_path, Path("info.json"), classes=["road"], label_ids=ids),
    ):
        dataset = open_dataset(settings, task="segmentation3d")
        labels = _labels(settings, "segmentation3d")
        assert len(labels) == len(read_points(dataset.sample(0).lidar)) > 30_000
        assert set(labels) == {"road"}

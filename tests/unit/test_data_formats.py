"""Folders of points, KITTI, Argoverse, concatenations: order, tokens, layouts, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from shared.data import Dataset, DataSettings, PointLoading, Sample, load_points, open_dataset
from shared.data.labels import IGNORED, class_index
from shared.errors import ConfigError, InputError
from shared.geometry import transform_points


def write_cloud(path: Path, columns: int = 4, count: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.arange(count * columns, dtype=np.float32).tofile(path)


def tokens(dataset: Dataset) -> list[str]:
    return [dataset.sample(index).token for index in range(len(dataset))]


# --- folder ----------------------------------------------------------------------------------------------------------


def test_folder_sorts_numbers_as_numbers(tmp_path: Path) -> None:
    for name in ("10.bin", "9.bin", "b2.bin", "b10.bin", "notes.txt", "100.pcd.bin"):
        write_cloud(tmp_path / name)
    dataset = open_dataset(DataSettings("folder", tmp_path, num_features=4))
    assert tokens(dataset) == ["9.bin", "10.bin", "100.pcd.bin", "b2.bin", "b10.bin"]
    sample = dataset.sample(0)
    assert sample.ground_truth is None
    assert load_points(sample, PointLoading(load_dim=4, use_dim=(0, 1, 2, 3), merge_sweeps=False)).shape == (6, 4)


def test_folder_needs_the_number_of_columns(tmp_path: Path) -> None:
    write_cloud(tmp_path / "a.bin")
    with pytest.raises(ConfigError, match=r"data\.num_features"):
        open_dataset(DataSettings("folder", tmp_path))


def test_folder_of_arrays_does_not_say_that_they_lack_columns(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 5), np.float32))
    with pytest.raises(ConfigError, match=r"data\.num_features: how many columns of a\.npy to read is not known"):
        open_dataset(DataSettings("folder", tmp_path))


def test_folder_without_points(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(InputError, match="no point files"):
        open_dataset(DataSettings("folder", tmp_path))


@pytest.mark.parametrize("within", [".", "training"])
def test_a_folder_in_kittis_layout_is_known(tmp_path: Path, within: str) -> None:
    write_kitti(tmp_path / within, "")
    with pytest.raises(InputError, match=rf"data.format=kitti, data.root={tmp_path / within} "):
        open_dataset(DataSettings("folder", tmp_path))


def test_folder_digest(tmp_path: Path) -> None:
    write_cloud(tmp_path / "a.bin")
    settings = DataSettings("folder", tmp_path, num_features=4)
    before = open_dataset(settings).digest()
    assert open_dataset(settings).digest() == before
    write_cloud(tmp_path / "b.bin")
    assert open_dataset(settings).digest() != before


# --- KITTI -----------------------------------------------------------------------------------------------------------

# Camera looking along the lidar's x: camera (right, down, forward) = lidar (-y, -z, x), mounted 0.5 m below and ahead.
CALIBRATION = """P0: 700 0 600 0 0 700 180 0 0 0 1 0
P2: 700 0 600 42 0 700 180 0 0 0 1 0
R0_rect: 1 0 0 0 1 0 0 0 1
Tr_velo_to_cam: 0 -1 0 0 0 0 -1 -0.5 1 0 0 -0.3
"""


def write_kitti(root: Path, label: str, frame: str = "000000") -> None:
    for folder, content in (("calib", CALIBRATION), ("label_2", label)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / f"{frame}.txt").write_text(content)
    points = np.array([[20, 2, -0.6, 0.5], [20.9, 2, -0.6, 0.5], [23, 2, -0.6, 0.5]], np.float32)
    (root / "velodyne").mkdir(exist_ok=True)
    points.tofile(root / "velodyne" / f"{frame}.bin")


def test_kitti_label_by_hand(tmp_path: Path) -> None:
    """h 1.6, w 1.8, l 4.0; bottom center at camera (-2, 0.9, 19.7): lidar (20, 2, -1.4), so the center is at -0.6.
    ry = -pi/2 looks away along the camera's z: lidar +x."""
    write_kitti(tmp_path, "Car 0 0 0 1 2 3 4 1.6 1.8 4.0 -2 0.9 19.7 -1.5708\nDontCare -1 -1 -10 0 0 1 1" + " -1" * 7)
    sample = open_dataset(DataSettings("kitti", tmp_path)).sample(0)
    truth = sample.ground_truth
    assert truth is not None
    np.testing.assert_allclose(truth.centers, [[20, 2, -0.6]], atol=1e-5)
    np.testing.assert_allclose(truth.sizes, [[4.0, 1.8, 1.6]], rtol=1e-6)
    assert truth.yaws[0] == pytest.approx(0, abs=1e-4)
    assert truth.num_points.tolist() == [2]
    camera = sample.cameras["image_2"]
    seen = transform_points(camera.lidar2cam, [[20, 2, -0.6]]) @ camera.intrinsics.T
    by_projection = np.array([[700, 0, 600, 42], [0, 700, 180, 0], [0, 0, 1, 0]]) @ [-2, 0.1, 19.7, 1]
    np.testing.assert_allclose(seen[0] / seen[0, 2], by_projection / by_projection[2], atol=1e-9)


@pytest.mark.parametrize(("rotation_y", "yaw"), [(0.0, -np.pi / 2), (np.pi / 2, np.pi), (-1.0, 1.0 - np.pi / 2)])
def test_kitti_headings(tmp_path: Path, rotation_y: float, yaw: float) -> None:
    """ry turns from the camera's x (lidar -y) clockwise seen from above: yaw = -ry - pi/2."""
    write_kitti(tmp_path, f"Car 0 0 0 1 2 3 4 1.6 1.8 4.0 -2 0.9 19.7 {rotation_y}")
    truth = open_dataset(DataSettings("kitti", tmp_path)).sample(0).ground_truth
    assert truth is not None
    assert np.cos(truth.yaws[0] - yaw) == pytest.approx(1, abs=1e-6)


def test_kitti_without_labels_and_with_other_classes(tmp_path: Path) -> None:
    write_kitti(tmp_path, "Van 0 0 0 1 2 3 4 1.6 1.8 4.0 -2 0.9 19.7 0\nTram 0 0 0 1 2 3 4 3 2 9 -9 1 30 0")
    truth = open_dataset(DataSettings("kitti", tmp_path, classes=("pedestrian", "car"))).sample(0).ground_truth
    assert truth is not None
    assert truth.labels.tolist() == [1]
    (tmp_path / "label_2" / "000000.txt").unlink()
    assert open_dataset(DataSettings("kitti", tmp_path)).sample(0).ground_truth is None


def test_kitti_in_the_layout_of_the_others(tmp_path: Path) -> None:
    write_kitti(tmp_path, "")
    loading = PointLoading(use_dim=(0, 1, 2, 3, 4))
    with pytest.raises(InputError, match="5 columns, this file has 4"):
        load_points(open_dataset(DataSettings("kitti", tmp_path)).sample(0), loading)
    padded = open_dataset(DataSettings("kitti", tmp_path, pad_to=5, intensity_scale=255.0)).sample(0)
    points = load_points(padded, loading)
    np.testing.assert_array_equal(points[:, 3:], [[127.5, 0]] * 3)


def test_broken_kitti(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="velodyne"):
        open_dataset(DataSettings("kitti", tmp_path))
    write_kitti(tmp_path, "Car 1 2 3")
    dataset = open_dataset(DataSettings("kitti", tmp_path))
    with pytest.raises(InputError, match=r"000000\.txt.*4 columns instead of 15"):
        dataset.sample(0)
    (tmp_path / "calib" / "000000.txt").write_text("P2: 1 2 3")
    with pytest.raises(InputError, match="calib"):
        dataset.sample(0)
    (tmp_path / "calib" / "000000.txt").unlink()
    with pytest.raises(InputError, match="without calibration"):
        dataset.sample(0)


# --- others ----------------------------------------------------------------------------------------------------------


def test_broken_argoverse_and_mini_val(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no Argoverse 2 logs"):
        open_dataset(DataSettings("argoverse2", tmp_path))
    (tmp_path / "log.json").write_text("{}")
    with pytest.raises(InputError, match="'sweeps'"):
        open_dataset(DataSettings("argoverse2", tmp_path))
    with pytest.raises(InputError, match=r"mini_val_infos\.json\.gz"):
        open_dataset(DataSettings("nuscenes_mini_val", tmp_path))
    file = tmp_path / "mini_val_infos.json.gz"
    for content in (b"no gzip", gzip.compress(b"no json"), gzip.compress(json.dumps({"frames": []}).encode())):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"mini_val_infos\.json\.gz"):
            open_dataset(DataSettings("nuscenes_mini_val", tmp_path))


def test_an_empty_real_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the known"):
        open_dataset(DataSettings("real", tmp_path))


# --- concatenation ---------------------------------------------------------------------------------------------------


def test_concat_keeps_order_and_makes_tokens_unique(tmp_path: Path) -> None:
    for name in ("a/x/1.bin", "a/x/2.bin", "b/x/1.bin"):
        write_cloud(tmp_path / name)
    sources = tuple(DataSettings("folder", Path(f"{part}/x"), num_features=4, classes=("car",)) for part in "aba")
    dataset = open_dataset(DataSettings("concat", tmp_path, sources=sources))
    assert tokens(dataset) == ["x/1.bin", "x/2.bin", "x#2/1.bin", "x#3/1.bin", "x#3/2.bin"]
    assert dataset.classes == ("car",)
    samples: list[Sample] = [dataset.sample(index) for index in range(len(dataset))]
    assert [sample.index for sample in samples] == [0, 1, 2, 3, 4]
    assert samples[2].lidar.path == tmp_path / "b/x/1.bin"
    reversed_order = open_dataset(DataSettings("concat", tmp_path, sources=sources[::-1]))
    assert len(reversed_order) == 5
    changed = open_dataset(DataSettings("concat", tmp_path, sources=sources[:2]))
    assert changed.digest() != dataset.digest()


def test_concat_sources_may_differ_in_layout(tmp_path: Path) -> None:
    write_kitti(tmp_path / "kitti", "")
    write_cloud(tmp_path / "mine" / "1.bin", columns=5)
    sources = (
        DataSettings("kitti", Path("kitti"), pad_to=5, intensity_scale=255.0, classes=("car",)),
        DataSettings("folder", Path("mine"), num_features=5),
    )
    dataset = open_dataset(DataSettings("concat", tmp_path, sources=sources))
    assert [load_points(dataset.sample(index), PointLoading()).shape for index in range(2)] == [(3, 4), (6, 4)]
    assert dataset.classes == ("car",)


def test_concat_refuses_different_classes_and_nothing(tmp_path: Path) -> None:
    write_kitti(tmp_path, "")
    sources = (DataSettings("kitti", tmp_path), DataSettings("kitti", tmp_path, classes=("car",)))
    with pytest.raises(ConfigError, match="different classes"):
        open_dataset(DataSettings("concat", sources=sources))
    with pytest.raises(ConfigError, match="at least one"):
        open_dataset(DataSettings("concat", tmp_path))


# --- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("car", ("truck", "car"), 1),
        ("vehicle.trailer", ("truck", "trailer"), 1),
        ("vehicle.trailer", ("truck", "car"), 0),
        ("MOTORCYCLIST", ("motorcycle", "bicycle"), 0),
        ("MOTORCYCLIST", ("car", "bicycle"), 1),
        ("zebra", ("car",), IGNORED),
        ("animal", ("car", "pedestrian"), IGNORED),
    ],
)
def test_names_are_generalized_no_further_than_needed(name: str, classes: tuple[str, ...], expected: int) -> None:
    assert class_index(name, classes, {}, generalize=True) == expected
    if name not in classes:
        assert class_index(name, classes, {}, generalize=False) == IGNORED


def test_label_map_goes_first() -> None:
    assert class_index("car", ("car", "bus"), {"car": "bus"}, generalize=True) == 1
    assert class_index("car", ("car", "bus"), {"car": None}, generalize=True) == IGNORED
    assert class_index("car", ("car",), {"car": "zebra"}, generalize=True) == IGNORED

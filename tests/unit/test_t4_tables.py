"""T4 scenes from their tables: frames, units, sweeps, velocities, and the schema's variants."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.data import Dataset, DataSettings, PointLoading, load_points, open_dataset
from shared.errors import InputError
from shared.geometry import box_corners, invert_pose, matrix_to_quaternion, pose, rotation_z, transform_points

Tables = dict[str, list[dict[str, Any]]]

LIDAR_MOUNT = pose([0.9, 0.1, 1.8], [0.70, 0.02, -0.03, 0.71])
CAMERA_MOUNT = pose([1.5, 0.0, 1.4], [0.5, -0.5, 0.5, -0.5])
START = 1_700_000_000_000_000  # microseconds
SPEED, TURN = 8.0, 0.2
# One object: where it is in the world at each sample, 0.5 s apart.
OBJECT_YAW = 0.9
OBJECT_AT = np.array([[20.0, 5.0, 1.0], [21.5, 6.0, 1.1], [23.0, 7.0, 1.2]])


def ego_pose_at(seconds: float) -> np.ndarray:
    return pose([100 + SPEED * seconds, -50, 0.2], rotation_z(0.5 + TURN * seconds))


def write_scene(root: Path, change: Callable[[Tables], None] = lambda tables: None, samples: int = 3) -> Tables:
    """Key frames 0.5 s apart with lidar and camera, and four lidar frames between them; ``change`` edits the tables."""
    tables: Tables = {name: [] for name in ("sample", "sample_data", "ego_pose", "sample_annotation")}
    tables |= {
        "sensor": [
            {"token": "lidar", "channel": "LIDAR_TOP", "modality": "lidar"},
            {"token": "camera", "channel": "CAM_FRONT", "modality": "camera"},
        ],
        "calibrated_sensor": [
            calibrated("lidar", LIDAR_MOUNT, [], []),
            calibrated("camera", CAMERA_MOUNT, np.diag([900.0, 900, 1]).tolist(), [0.1, 0.2, 0.0, 0.0, 0.3]),
        ],
        "category": [{"token": "c0", "name": "car"}, {"token": "c1", "name": "vehicle.bicycle"}],
        "instance": [{"token": "i0", "category_token": "c0"}, {"token": "i1", "category_token": "c1"}],
        "attribute": [{"token": "a0", "name": "vehicle_state.parked"}],
        "scene": [{"token": "scene", "name": "scene"}],
    }
    frames = 5 * (samples - 1) + 1
    for frame in range(frames):
        seconds, sample = 0.1 * frame, frame // 5
        stamp = START + round(seconds * 1e6)
        tables["ego_pose"].append({"token": f"e{frame}", **record_of(ego_pose_at(seconds)), "timestamp": stamp})
        lidar = data_record(f"l{frame}", sample, f"e{frame}", "lidar", f"data/LIDAR_TOP/{frame}.pcd.bin", stamp)
        lidar |= {"is_key_frame": frame % 5 == 0, "prev": f"l{frame - 1}" if frame else "", "next": ""}
        tables["sample_data"].append(lidar)
        write_points(root / lidar["filename"], frame)
        if frame % 5 == 0:
            tables["sample"].append({"token": f"s{sample}", "timestamp": stamp, "scene_token": "scene"})
            camera_stamp = stamp + 20_000
            pose_token = f"ec{frame}"
            camera_pose = record_of(ego_pose_at(seconds + 0.02))
            tables["ego_pose"].append({"token": pose_token, **camera_pose, "timestamp": camera_stamp})
            image = f"data/CAM_FRONT/{frame}.jpg"
            camera = data_record(f"k{frame}", sample, pose_token, "camera", image, camera_stamp)
            tables["sample_data"].append(camera | {"is_key_frame": True, "width": 1440, "height": 928})
            tables["sample_annotation"].append(
                {
                    "token": f"n{sample}",
                    "sample_token": f"s{sample}",
                    "instance_token": "i0",
                    "attribute_tokens": [],
                    "translation": OBJECT_AT[sample].tolist(),
                    "size": [1.9, 4.5, 1.6],
                    "rotation": matrix_to_quaternion(rotation_z(OBJECT_YAW)).tolist(),
                    "num_lidar_pts": 7 * sample,
                    "num_radar_pts": 0,
                    "prev": f"n{sample - 1}" if sample else "",
                    "next": f"n{sample + 1}" if sample + 1 < samples else "",
                }
            )
    change(tables)
    (root / "annotation").mkdir(parents=True, exist_ok=True)
    for name, records in tables.items():
        (root / "annotation" / f"{name}.json").write_text(json.dumps(records))
    return tables


def calibrated(name: str, mount: np.ndarray, intrinsic: list[Any], distortion: list[float]) -> dict[str, Any]:
    return {
        "token": f"x{name}",
        "sensor_token": name,
        **record_of(mount),
        "camera_intrinsic": intrinsic,
        "camera_distortion": distortion,
    }


def record_of(matrix: np.ndarray) -> dict[str, Any]:
    return {"translation": matrix[:3, 3].tolist(), "rotation": matrix_to_quaternion(matrix[:3, :3]).tolist()}


def data_record(token: str, sample: int, ego: str, sensor: str, filename: str, stamp: int) -> dict[str, Any]:
    return {
        "token": token,
        "sample_token": f"s{sample}",
        "ego_pose_token": ego,
        "calibrated_sensor_token": f"x{sensor}",
        "filename": filename,
        "timestamp": stamp,
        "width": 0,
        "height": 0,
    }


WORLD = np.random.default_rng(3).uniform([60, -90, 0], [140, -10, 6], (400, 3))


def write_points(path: Path, frame: int) -> None:
    """The same world points in every frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    points = np.zeros((len(WORLD), 5), np.float32)
    points[:, :3] = transform_points(invert_pose(ego_pose_at(0.1 * frame) @ LIDAR_MOUNT), WORLD)
    points.tofile(path)


def opened(root: Path, **settings: Any) -> Dataset:
    return open_dataset(DataSettings("t4", root, **settings))


def test_samples_in_order_of_time(tmp_path: Path) -> None:
    write_scene(tmp_path, lambda tables: tables["sample"].reverse())
    dataset = opened(tmp_path)
    assert dataset.classes == ("car", "vehicle.bicycle")
    assert [dataset.sample(index).token for index in range(3)] == ["s0", "s1", "s2"]
    sample = dataset.sample(1)
    assert sample.timestamp == (START + 500_000) / 1e6
    assert sample.lidar.path == tmp_path / "data/LIDAR_TOP/5.pcd.bin"
    assert sample.lidar.columns == 5
    assert sample.scene == "scene"


def test_boxes_are_where_the_world_has_them(tmp_path: Path) -> None:
    """All eight corners, taken back to the world through the lidar's pose."""
    write_scene(tmp_path)
    dataset = opened(tmp_path)
    for index in range(3):
        sample = dataset.sample(index)
        truth = sample.ground_truth
        assert truth is not None
        assert len(truth) == 1
        np.testing.assert_allclose(truth.sizes[0], [4.5, 1.9, 1.6], rtol=1e-6, err_msg="length, width, height")
        assert truth.num_points.tolist() == [7 * index], "boxes without points stay"
        assert sample.ego2global is not None
        lidar2world = sample.ego2global @ sample.lidar2ego
        back = transform_points(lidar2world, box_corners(truth.centers, truth.sizes, truth.yaws)[0])
        expected = box_corners(OBJECT_AT[index : index + 1], [[4.5, 1.9, 1.6]], [OBJECT_YAW])[0]
        # The lidar is mounted 5 degrees askew, which a box without roll and pitch can't follow: 0.1 m in height.
        np.testing.assert_allclose(back.mean(axis=0), OBJECT_AT[index], atol=1e-5)
        np.testing.assert_allclose(back, expected, atol=0.3)
        front = back[[0, 3, 4, 7]].mean(axis=0) - back.mean(axis=0)
        assert np.arctan2(front[1], front[0]) == pytest.approx(OBJECT_YAW, abs=0.01)


def test_an_upright_lidar_gives_exact_boxes(tmp_path: Path) -> None:
    def upright(tables: Tables) -> None:
        tables["calibrated_sensor"][0] |= record_of(np.eye(4))
        tables["sensor"][0]["channel"] = "LIDAR_CONCAT"

    write_scene(tmp_path, upright)
    sample = opened(tmp_path).sample(2)
    truth = sample.ground_truth
    assert truth is not None
    np.testing.assert_array_equal(sample.lidar2ego, np.eye(4))
    world2base = invert_pose(ego_pose_at(1.0))
    np.testing.assert_allclose(truth.centers[0], transform_points(world2base, OBJECT_AT[2:])[0], atol=1e-5)
    assert truth.yaws[0] == pytest.approx(OBJECT_YAW - 0.5 - TURN, abs=1e-6)
    velocity = rotation_z(-0.5 - TURN) @ [3.0, 2.0, 0.2]
    np.testing.assert_allclose(truth.velocities[0], velocity[:2], atol=1e-5)


def test_velocity_of_the_table_counts_first(tmp_path: Path) -> None:
    def with_velocity(tables: Tables) -> None:
        tables["calibrated_sensor"][0] |= record_of(np.eye(4))
        tables["sample_annotation"][0]["velocity"] = [1.0, 0.0, 0.0]
        tables["sample_annotation"][1]["velocity"] = None

    write_scene(tmp_path, with_velocity)
    dataset = opened(tmp_path)
    first, second = dataset.sample(0).ground_truth, dataset.sample(1).ground_truth
    assert first is not None
    assert second is not None
    np.testing.assert_allclose(first.velocities[0], [np.cos(0.5), -np.sin(0.5)], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(second.velocities[0]), np.hypot(3, 2), atol=1e-2)


def test_velocity_is_unknown_without_near_neighbors(tmp_path: Path) -> None:
    def far_apart(tables: Tables) -> None:
        tables["sample"][0]["timestamp"] -= 1_200_000
        for annotation in tables["sample_annotation"]:
            annotation["next"] = ""
        tables["sample_annotation"][2]["prev"] = "gone"

    write_scene(tmp_path, far_apart)
    dataset = opened(tmp_path)
    for index, why in enumerate(["no neighbor", "1.7 s to the only one", "neighbor not in the table"]):
        truth = dataset.sample(index).ground_truth
        assert truth is not None
        assert np.isnan(truth.velocities).all(), why


def test_sweeps_fall_onto_the_key_frame(tmp_path: Path) -> None:
    write_scene(tmp_path)
    dataset = opened(tmp_path, max_sweeps=4)
    assert dataset.sample(0).sweeps == ()
    assert dataset.sample(0).lists_sweeps
    sample = dataset.sample(1)
    assert [sweep.points.path.name for sweep in sample.sweeps] == [f"{frame}.pcd.bin" for frame in (4, 3, 2, 1)]
    lags = [sample.timestamp - sweep.timestamp for sweep in sample.sweeps]
    np.testing.assert_allclose(lags, [0.1, 0.2, 0.3, 0.4], atol=1e-6)
    assert sample.sweeps[0].lidar2sensor.dtype == np.float32
    points = load_points(sample, PointLoading(sweeps_num=4, exact_sweeps=True)).reshape(5, -1, 4)
    for sweep in points[1:]:
        np.testing.assert_allclose(sweep[:, :3], points[0, :, :3], atol=1e-4)


def test_cameras(tmp_path: Path) -> None:
    """A point seen by the lidar, through the camera's own pose 20 ms later."""
    write_scene(tmp_path)
    sample = opened(tmp_path).sample(1)
    camera = sample.cameras["CAM_FRONT"]
    assert camera.image == tmp_path / "data/CAM_FRONT/5.jpg"
    assert (camera.width, camera.height) == (1440, 928)
    assert camera.timestamp == (START + 520_000) / 1e6
    assert camera.distortion.tolist() == [0.1, 0.2, 0, 0, 0.3]
    points = np.fromfile(sample.lidar.path, np.float32).reshape(-1, 5)[:, :3]
    expected = transform_points(invert_pose(ego_pose_at(0.52) @ CAMERA_MOUNT), WORLD)
    np.testing.assert_allclose(transform_points(camera.lidar2cam, points), expected, atol=1e-4)


def test_older_schema(tmp_path: Path) -> None:
    """No camera_distortion, and neighbors that are not in the tables."""

    def older(tables: Tables) -> None:
        for record in tables["calibrated_sensor"]:
            del record["camera_distortion"]
        for record in tables["sample_data"]:
            del record["width"], record["height"]
        tables["sample_data"][0]["prev"] = "gone"
        tables["sample"][-1]["next"] = "gone"

    write_scene(tmp_path, older)
    sample = opened(tmp_path).sample(0)
    assert sample.sweeps == ()
    assert sample.cameras["CAM_FRONT"].distortion.shape == (0,)
    assert sample.cameras["CAM_FRONT"].width is None


def test_a_camera_without_calibration_is_left_out(tmp_path: Path) -> None:
    write_scene(tmp_path, lambda tables: tables["calibrated_sensor"][1].update(camera_intrinsic=[]))
    assert opened(tmp_path).sample(0).cameras == {}


def test_classes_generalize_and_filter(tmp_path: Path) -> None:
    def two_objects(tables: Tables) -> None:
        bicycle = {**tables["sample_annotation"][0], "token": "n9", "instance_token": "i1", "attribute_tokens": ["a0"]}
        tables["sample_annotation"].append(bicycle)

    write_scene(tmp_path, two_objects)

    def labels(**settings: Any) -> list[int]:
        truth = opened(tmp_path, **settings).sample(0).ground_truth
        assert truth is not None
        return [int(label) for label in truth.labels]

    assert labels(classes=("bicycle", "car")) == [1, 0]
    assert labels(classes=("car",)) == [0]
    assert labels(classes=("bicycle", "car"), label_map={"car": None}) == [0]
    parked = (("vehicle.bicycle", "vehicle_state.parked"),)
    assert labels(classes=("bicycle", "car"), filter_attributes=parked) == [1]
    other = (("car", "vehicle_state.parked"),)
    assert labels(classes=("bicycle", "car"), filter_attributes=other) == [1, 0]


def test_number_of_features_from_the_frame_info(tmp_path: Path) -> None:
    def with_info(tables: Tables) -> None:
        tables["sample_data"][0]["info_filename"] = "data/LIDAR_TOP_INFO/0.json"
        tables["sample_data"][1]["info_filename"] = "data/LIDAR_TOP_INFO/gone.json"

    write_scene(tmp_path, with_info)
    (tmp_path / "data/LIDAR_TOP_INFO").mkdir()
    (tmp_path / "data/LIDAR_TOP_INFO/0.json").write_text(json.dumps({"num_pts_feats": 8}))
    dataset = opened(tmp_path)
    assert dataset.sample(0).lidar.num_features == 8
    assert dataset.sample(1).lidar.num_features == 5


def test_a_data_base_of_scenes(tmp_path: Path) -> None:
    """``<uuid>/<version>``: the highest version of each, by number; scenes by path."""
    for scene in ("b-uuid/0", "b-uuid/2", "b-uuid/10", "a-uuid/1"):
        write_scene(tmp_path / scene, samples=2)
    dataset = opened(tmp_path)
    assert len(dataset) == 4
    paths = [dataset.sample(index).lidar.path.relative_to(tmp_path).parts[:2] for index in range(4)]
    assert paths == [("a-uuid", "1"), ("a-uuid", "1"), ("b-uuid", "10"), ("b-uuid", "10")]


def test_digest(tmp_path: Path) -> None:
    write_scene(tmp_path / "a")
    write_scene(tmp_path / "b")
    assert opened(tmp_path / "a").digest() == opened(tmp_path / "b").digest()
    write_scene(tmp_path / "b", lambda tables: tables["sample_annotation"][0].update(num_lidar_pts=99))
    assert opened(tmp_path / "a").digest() != opened(tmp_path / "b").digest()
    assert opened(tmp_path / "a", max_sweeps=1).digest() != opened(tmp_path / "a").digest()


# --- bad input -------------------------------------------------------------------------------------------------------


def test_no_scene(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no T4 scene"):
        opened(tmp_path)


def test_missing_and_malformed_tables(tmp_path: Path) -> None:
    write_scene(tmp_path)
    table = tmp_path / "annotation" / "ego_pose.json"
    table.write_text("{")
    with pytest.raises(InputError, match=r"ego_pose\.json: can't be read as JSON"):
        opened(tmp_path)
    table.write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"ego_pose\.json: is not a list"):
        opened(tmp_path)
    table.unlink()
    with pytest.raises(InputError, match=r"ego_pose\.json: can't be read \(No such file or directory\)"):
        opened(tmp_path)


def test_tables_without_samples(tmp_path: Path) -> None:
    write_scene(tmp_path, lambda tables: tables["sample"].clear())
    with pytest.raises(InputError, match="no samples"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda tables: tables["sample_data"].pop(0), "no LIDAR_TOP key frame"),
        (lambda tables: tables["ego_pose"].pop(0), "'e0'"),
        (lambda tables: tables["sample_data"][0].update(filename="../x.bin"), "leaves its folder"),
        (lambda tables: tables["sample_annotation"][0].pop("size"), "'size'"),
        (lambda tables: tables["sample_annotation"][0].update(rotation=[0, 0, 0, 0]), "quaternion"),
        (lambda tables: tables["instance"].clear(), "'i0'"),
    ],
)
def test_broken_records_name_the_sample(tmp_path: Path, change: Callable[[Tables], None], why: str) -> None:
    write_scene(tmp_path, change)
    with pytest.raises(InputError, match=why) as error:
        opened(tmp_path).sample(0)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_which_lidar(tmp_path: Path) -> None:
    def renamed(*channels: str) -> Callable[[Tables], None]:
        def change(tables: Tables) -> None:
            tables["sensor"][0]["channel"] = channels[0]
            for number, channel in enumerate(channels[1:]):
                tables["sensor"].append({"token": f"y{number}", "channel": channel, "modality": "lidar"})
                mount = calibrated(f"y{number}", np.eye(4), [], [])
                tables["calibrated_sensor"].append(mount)
                record = {**tables["sample_data"][0], "token": f"z{number}", "calibrated_sensor_token": f"xy{number}"}
                tables["sample_data"].append(record)

        return change

    write_scene(tmp_path, renamed("LIDAR_LEFT"))
    assert len(opened(tmp_path)) == 3
    write_scene(tmp_path, renamed("LIDAR_LEFT", "LIDAR_CONCAT"))
    np.testing.assert_array_equal(opened(tmp_path).sample(0).lidar2ego, np.eye(4))
    write_scene(tmp_path, renamed("LIDAR_LEFT", "LIDAR_RIGHT"))
    with pytest.raises(InputError, match="LIDAR_LEFT, LIDAR_RIGHT"):
        opened(tmp_path)

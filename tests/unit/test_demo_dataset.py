"""The demo's data set: what the files say fits together, and the same seed gives the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from demo.camera import HEIGHT, WIDTH
from demo.cli import cli
from demo.data_set import CONTENTS
from demo.hard_cases import HARD_CASES, hard_case
from demo.objects import CLASSES
from demo.recording import record_scene
from demo.t4_writer import info_name, write_dataset
from exporter.demo_lidar import merged_points
from shared.data import DataSettings, open_dataset
from shared.data.points import read_points
from shared.data.sweeps import PointLoading, load_points
from shared.data.unpickle import load_pickle
from shared.errors import UsageError
from tests.support.killed_at import killed_at

ROOT = Path(__file__).parents[2]
FRAMES = 3
# Scene 0 of the demo's evaluation set.
EVAL_OBJECTS = [92, 91, 91, 92, 91, 89, 88, 87]
EVAL_POINTS_IN_BOXES = 65_925


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scene of three frames with cameras."""
    out = tmp_path_factory.mktemp("demo") / "data"
    write_dataset(out, "eval", [record_scene(7, "eval", 0, FRAMES, cameras=True)], {"seed": 7})
    return out


@pytest.fixture(scope="module")
def infos(folder: Path) -> list[dict[str, Any]]:
    content = load_pickle(folder / info_name("eval"))
    assert content["metainfo"]["classes"] == list(CLASSES)
    return list(content["data_list"])


def _points(folder: Path, path: str) -> np.ndarray:
    return np.fromfile(folder / path, np.float32).reshape(-1, 5)


def _local(points: np.ndarray, box: list[float]) -> np.ndarray:
    """Points (n, 3) in the axes of a box [x, y, z, l, w, h, yaw], from its center."""
    offset = points[:, :3].astype(np.float64) - box[:3]
    cos, sin = np.cos(box[6]), np.sin(box[6])
    return np.stack([cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0], offset[:, 2]], 1)


def test_num_lidar_pts_is_the_number_of_points_inside(folder: Path, infos: list[dict[str, Any]]) -> None:
    some = 0
    for info in infos:
        points = _points(folder, info["lidar_points"]["lidar_path"])
        for instance in info["instances"]:
            box = instance["bbox_3d"]
            inside = (np.abs(_local(points, box)) <= np.array(box[3:6]) / 2).all(axis=1)
            assert instance["num_lidar_pts"] == np.count_nonzero(inside)
            assert instance["bbox_3d_isvalid"] == (instance["num_lidar_pts"] > 0)
            some += instance["num_lidar_pts"] > 20
    assert some > 10


def test_swapping_length_and_width_or_bottom_and_center_changes_the_counts(
    folder: Path, infos: list[dict[str, Any]]
) -> None:
    """The count is a check of the box convention only if a wrong convention gives other counts."""
    points = _points(folder, infos[0]["lidar_points"]["lidar_path"])
    boxes = [i["bbox_3d"] for i in infos[0]["instances"] if i["num_lidar_pts"] > 50 and i["bbox_label"] < 3]

    def count(box: list[float]) -> int:
        return int((np.abs(_local(points, box)) <= np.array(box[3:6]) / 2).all(axis=1).sum())

    right = np.array([count(b) for b in boxes])
    swapped = np.array([count([*b[:3], b[4], b[3], *b[5:]]) for b in boxes])
    bottom = np.array([count([*b[:2], b[2] - b[5] / 2, *b[3:]]) for b in boxes])
    assert (swapped < 0.9 * right).all()
    assert (bottom < 0.9 * right).all()


def test_points_have_five_columns_and_their_ranges(folder: Path, infos: list[dict[str, Any]]) -> None:
    for info in infos:
        points = _points(folder, info["lidar_points"]["lidar_path"])
        assert np.isfinite(points).all()
        assert points[:, 3].min() >= 0 and points[:, 3].max() <= 255
        assert set(np.unique(points[:, 4])) <= set(range(40))
        distance = np.linalg.norm(points[:, :3] - [0.9, 0.0, 1.95], axis=1)
        assert distance.min() > 1.3  # blind zone, less noise
        assert distance.max() > 100


def test_the_first_frame_has_an_empty_sweep_list_and_the_others_one(infos: list[dict[str, Any]]) -> None:
    assert [len(info["lidar_sweeps"]) for info in infos] == [0] + [1] * (FRAMES - 1)
    for info in infos[1:]:
        sweep = info["lidar_sweeps"][0]
        assert info["timestamp"] - sweep["timestamp"] == pytest.approx(0.1, abs=1e-5)
        stored = np.array(sweep["lidar_points"]["lidar2sensor"])
        sweep2key = np.linalg.inv(info["ego2global"]) @ np.array(sweep["ego2global"])
        rotation, translation = sweep2key[:3, :3], sweep2key[:3, 3]
        np.testing.assert_allclose(stored[:3, :3], rotation.T, atol=1e-6)
        np.testing.assert_allclose(stored[:3, 3], -rotation.T @ translation, atol=1e-5)


def _project(image: dict[str, Any], points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """OpenCV's projectPoints with five coefficients, written out; returns pixels (n, 2) and depths (n,)."""
    lidar2cam, camera = np.array(image["lidar2cam"]), np.array(image["cam2img"])
    k1, k2, p1, p2, k3 = image["distortion_coefficients"]
    xyz = points @ lidar2cam[:3, :3].T + lidar2cam[:3, 3]
    x, y = xyz[:, 0] / xyz[:, 2], xyz[:, 1] / xyz[:, 2]
    r2 = x**2 + y**2
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    u = camera[0, 0] * (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x**2)) + camera[0, 2]
    v = camera[1, 1] * (y * radial + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y) + camera[1, 2]
    return np.stack([u, v], axis=1), xyz[:, 2]


def _corners(box: list[float]) -> np.ndarray:
    signs = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    local = signs * box[3:6]
    cos, sin = np.cos(box[6]), np.sin(box[6])
    turned = np.stack([cos * local[:, 0] - sin * local[:, 1], sin * local[:, 0] + cos * local[:, 1], local[:, 2]], 1)
    return turned + box[:3]


def test_projected_corners_give_the_2d_boxes(folder: Path, infos: list[dict[str, Any]]) -> None:
    images = json.loads((folder / "info" / "yolox_infos_eval.json").read_text())["data_list"]
    by_path = {entry["img_path"]: entry for entry in images}
    assert len(by_path) == FRAMES * 6
    compared = 0
    for info in infos:
        for image in info["images"].values():
            found = np.array([i["bbox"] for i in by_path[image["img_path"]]["instances"]]).reshape(-1, 4)
            labels = np.array([i["bbox_label"] for i in by_path[image["img_path"]]["instances"]])
            assert (found[:, 2:] <= [WIDTH, HEIGHT]).all() and (found >= 0).all()
            expected, expected_labels = [], []
            for instance in info["instances"]:
                pixels, depth = _project(image, _corners(instance["bbox_3d"]))
                whole = (depth > 0.5).all() and (np.abs(pixels) < 2 * WIDTH).all()
                low, high = np.clip(pixels.min(0), 0, [WIDTH, HEIGHT]), np.clip(pixels.max(0), 0, [WIDTH, HEIGHT])
                if whole and (high > low).all():
                    expected.append([*low, *high])
                    expected_labels.append(instance["bbox_label_3d"])
            for box, label in zip(found, labels, strict=True):
                if box.min() <= 0 or box[2] >= WIDTH or box[3] >= HEIGHT:
                    continue  # cut by the border: the lens bends what lies outside
                gaps = np.abs(np.array(expected) - box).max(axis=1)
                assert gaps.min() < 1e-3
                assert expected_labels[int(gaps.argmin())] == label
                compared += 1
    assert compared > 30


def test_lidar_points_of_an_object_lie_in_its_2d_box_and_on_its_colors(
    folder: Path, infos: list[dict[str, Any]]
) -> None:
    """Camera and lidar see one geometry: sky is never where the lidar has a return."""
    sky_hits = total = 0
    for info in infos:
        points = _points(folder, info["lidar_points"]["lidar_path"])
        points = points[points[:, 2] > 0.6]
        for image in info["images"].values():
            pixels, depth = _project(image, points[:, :3].astype(np.float64))
            column, row = np.round(pixels).astype(int).T
            inside = (depth > 3) & (depth < 40) & (column >= 2) & (column < WIDTH - 2) & (row >= 2) & (row < HEIGHT - 2)
            picture = np.asarray(Image.open(folder / image["img_path"])).astype(int)
            red, blue = picture[row[inside], column[inside], 0], picture[row[inside], column[inside], 2]
            sky_hits += np.count_nonzero((blue - red > 20) & (blue > 200))
            total += np.count_nonzero(inside)
    assert total > 5000
    assert sky_hits < 0.05 * total  # silhouettes: the two sensors stand in different places


def test_calibration_info_has_an_entry_a_camera_image(folder: Path, infos: list[dict[str, Any]]) -> None:
    content = load_pickle(folder / "info" / "t4dataset_demo_calibration_infos_eval.pkl")
    entries = content["data_list"]
    assert len(entries) == FRAMES * 6
    for entry in entries:
        image, lidar = entry["image"], entry["lidar_points"]
        assert len(image["distortion_coefficients"]) == 5
        assert all(c != 0 for c in image["distortion_coefficients"])
        inverse = np.linalg.inv
        expected = inverse(image["cam2ego"]) @ inverse(image["cam_pose"]) @ lidar["lidar_pose"] @ lidar["lidar2ego"]
        np.testing.assert_allclose(image["lidar2cam"], expected, atol=1e-6)
        assert isinstance(image["timestamp"], int) and image["timestamp"] > 10**15  # microseconds
        assert entry["frame_id"].startswith("CAM_")
        rotation = np.array(image["cam2ego"])[:3, :3]
        assert np.abs(rotation - np.round(rotation)).max() > 5e-3  # a transposed or rounded matrix would show


def test_t4_tables_and_info_file_say_the_same(folder: Path) -> None:
    by_info = open_dataset(
        DataSettings(format="info", root=folder, info_file=folder / info_name("eval"), classes=CLASSES)
    )
    by_tables = open_dataset(DataSettings(format="t4", root=folder, classes=CLASSES))
    assert len(by_info) == len(by_tables) == FRAMES
    for index in range(FRAMES):
        one, other = by_info.sample(index), by_tables.sample(index)
        assert one.token == other.token
        assert one.timestamp == pytest.approx(other.timestamp, abs=1e-6)
        np.testing.assert_array_equal(read_points(one.lidar), read_points(other.lidar))
        assert one.ground_truth is not None and other.ground_truth is not None
        first = np.lexsort(one.ground_truth.centers.T)
        second = np.lexsort(other.ground_truth.centers.T)
        for name, tolerance in (("centers", 1e-4), ("sizes", 1e-5), ("labels", 0), ("num_points", 0)):
            np.testing.assert_allclose(
                getattr(one.ground_truth, name)[first], getattr(other.ground_truth, name)[second], atol=tolerance
            )
        turn = one.ground_truth.yaws[first] - other.ground_truth.yaws[second]
        np.testing.assert_allclose(np.exp(1j * turn), 1.0, atol=1e-5)
        assert len(one.sweeps) == min(index, 1)
        if index:
            np.testing.assert_array_equal(read_points(one.sweeps[0].points), read_points(other.sweeps[0].points))


def test_training_merges_sweeps_as_every_tool_does(folder: Path) -> None:
    dataset = open_dataset(
        DataSettings(format="info", root=folder, info_file=folder / info_name("eval"), classes=CLASSES)
    )
    recording = record_scene(7, "eval", 0, FRAMES, cameras=False)
    for index, frame in enumerate(recording.frames):
        loaded = load_points(dataset.sample(index), PointLoading(remove_close=True, pad_empty_sweeps=True))
        np.testing.assert_allclose(merged_points(frame), loaded, atol=2e-5)


def test_t4_tables_are_complete_and_linked(folder: Path) -> None:
    scene = next((folder / "db_demo_v1").iterdir()) / "0"
    tables = {p.stem: json.loads(p.read_text()) for p in (scene / "annotation").glob("*.json")}
    mandatory = (
        "attribute calibrated_sensor category ego_pose instance log map sample sample_annotation sample_data scene"
    )
    assert {*mandatory.split(), "sensor", "visibility", "object_ann"} <= set(tables)
    tokens = {name: {row["token"] for row in rows} for name, rows in tables.items()}
    for name, rows in tables.items():
        assert len(tokens[name]) == len(rows), f"tokens of {name} repeat"
        for row in rows:
            for key, value in row.items():
                target = key.removesuffix("_token")
                if key.endswith("_token") and target in tables:
                    assert value in tokens[target], f"{name}.{key}"
            for key in ("prev", "next"):
                assert row.get(key, "") in {"", *tokens[name]}
    for row in tables["sample_data"]:
        assert (scene / row["filename"]).is_file()
    for row in tables["instance"]:
        count = sum(a["instance_token"] == row["token"] for a in tables["sample_annotation"])
        assert count == row["nbr_annotations"]


def test_the_seed_is_the_data_set(folder: Path, tmp_path: Path) -> None:
    for name, seed in (("same", 7), ("other", 8)):
        write_dataset(tmp_path / name, "eval", [record_scene(seed, "eval", 0, FRAMES, cameras=True)], {"seed": seed})
    files = json.loads((folder / CONTENTS).read_text())["files"]
    assert json.loads((tmp_path / "same" / CONTENTS).read_text())["files"] == files
    other = json.loads((tmp_path / "other" / CONTENTS).read_text())["files"]
    assert not set(other.values()) & {v for k, v in files.items() if k.endswith((".bin", ".jpg", ".pkl"))}


def test_splits_of_one_seed_share_no_scene() -> None:
    clouds = [record_scene(7, split, 0, 1, cameras=False).frames[0].key.points for split in ("train", "val", "eval")]
    assert not np.array_equal(clouds[0][:100], clouds[1][:100])
    assert not np.array_equal(clouds[1][:100], clouds[2][:100])


def test_every_bucket_has_objects_with_points_of_every_class() -> None:
    counts = np.zeros((3, len(CLASSES)), int)
    for number in range(5):
        for frame in record_scene(7, "eval", number, 8, cameras=False).frames[::2]:
            distance = np.hypot(frame.annotations.centers[:, 0], frame.annotations.centers[:, 1])
            for bucket, (low, high) in enumerate(((0, 50), (50, 90), (90, 121))):
                seen = (distance >= low) & (distance < high) & (frame.num_lidar_pts > 0)
                counts[bucket] += np.bincount(frame.annotations.labels[seen], minlength=len(CLASSES))
    assert (counts > 0).all(), counts


def test_the_evaluation_frames_are_those_that_the_checkpoint_was_judged_on() -> None:
    """A change of the generator moves the figures of models/centerpoint_demo.log: train again, then change these."""
    frames = record_scene(7, "eval", 0, 8, cameras=False).frames
    assert [len(frame.annotations) for frame in frames] == EVAL_OBJECTS
    assert sum(int(frame.num_lidar_pts.sum()) for frame in frames) == pytest.approx(EVAL_POINTS_IN_BOXES, rel=1e-3)


def test_generate_is_up_to_date_the_second_time_and_repairs_what_was_changed(tmp_path: Path) -> None:
    arguments = ["generate", "--out", str(tmp_path / "d"), "--frames", "1", "--no-cameras", "--seed", "3"]
    run = CliRunner()
    assert "1 frames" in run.invoke(cli, arguments).output
    assert "up to date" in run.invoke(cli, arguments).output
    cloud = next((tmp_path / "d").rglob("*.bin"))
    whole = cloud.read_bytes()
    cloud.write_bytes(whole[:-20])
    assert "up to date" not in run.invoke(cli, arguments).output
    assert cloud.read_bytes() == whole
    for broken in ("", "[]", '{"arguments": {}}'):
        (tmp_path / "d" / CONTENTS).write_text(broken)
        assert "up to date" not in run.invoke(cli, arguments).output


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="did not write"):
        write_dataset(tmp_path, "eval", [], {})
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_killed_run_leaves_no_data_set(tmp_path: Path) -> None:
    out = tmp_path / "d"
    killed_at("demo.t4_writer:_write_bytes", 3, "demo", "generate", "--out", out, "--frames", "2", "--no-cameras")
    partial = tmp_path / ".d.partial"
    assert list(partial.rglob("*.bin"))
    assert not out.exists() and partial.exists()
    result = CliRunner().invoke(cli, ["generate", "--out", str(out), "--frames", "1", "--no-cameras"])
    assert result.exit_code == 0 and (out / CONTENTS).is_file() and not partial.exists()


@pytest.fixture(scope="module")
def hard() -> dict[str, Any]:
    return {name: hard_case(name, seed=7) for name in HARD_CASES}


def test_hard_cases_are_as_hard_as_they_say(hard: dict[str, Any]) -> None:
    frames = {name: recording.frames for name, recording in hard.items()}
    assert all(len(f.key.points) == 0 and len(f.annotations) > 0 for f in frames["empty_frame"])
    for frame in frames["no_objects_in_range"]:
        assert (np.hypot(frame.annotations.centers[:, 0], frame.annotations.centers[:, 1]) > 121).all()
    assert all((f.num_lidar_pts == 0).all() and len(f.annotations) > 5 for f in frames["zero_point_objects"])
    assert all(len(f.key.points) == 1_000_000 for f in frames["million_points"])
    assert all(np.isnan(f.key.points).any() and np.isinf(f.key.points).any() for f in frames["nan_points"])
    for frame in frames["pillar_overflow"]:
        cells = np.floor(frame.key.points[:, :2] / 0.4).astype(int)
        assert len(np.unique(cells, axis=0)) > 128_000
    assert all("CAM_BACK_LEFT" not in f.pictures and len(f.pictures) == 5 for f in frames["missing_camera"])


@pytest.mark.parametrize("name", ["empty_frame", "nan_points", "missing_camera", "no_objects_in_range"])
def test_hard_cases_are_readable_data_sets(hard: dict[str, Any], name: str, tmp_path: Path) -> None:
    write_dataset(tmp_path / name, "hard", [hard[name]], {"case": name})
    dataset = open_dataset(
        DataSettings(
            format="info", root=tmp_path / name, info_file=tmp_path / name / info_name("hard"), classes=CLASSES
        )
    )
    for index, frame in enumerate(hard[name].frames):
        np.testing.assert_array_equal(read_points(dataset.sample(index).lidar), frame.key.points)


def test_an_unknown_hard_case_is_a_usage_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["hard-cases", "--out", str(tmp_path), "--case", "rain"])
    assert result.exit_code == 2
    assert "no hard case 'rain'" in result.output

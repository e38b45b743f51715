"""nuScenes' own tables: frames, boxes, labels of points, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from evaluator.cli import cli
from shared.data import DataSettings, Sample, open_dataset, read_points
from shared.data.labels import labels_in
from shared.errors import InputError
from shared.metrics.confusion import UNLABELED
from shared.tasks.segmentation3d import TASK
from tests.support.report_workspaces import labeled_runs

# Category, and its class in the benchmark of lidarseg, None: not judged. The order is that of their indices.
CATEGORIES = {
    "noise": None,
    "animal": None,
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.personal_mobility": None,
    "human.pedestrian.police_officer": "pedestrian",
    "human.pedestrian.stroller": None,
    "human.pedestrian.wheelchair": None,
    "movable_object.barrier": "barrier",
    "movable_object.debris": None,
    "movable_object.pushable_pullable": None,
    "movable_object.trafficcone": "traffic_cone",
    "static_object.bicycle_rack": None,
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.emergency.ambulance": None,
    "vehicle.emergency.police": None,
    "vehicle.motorcycle": "motorcycle",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
    "flat.driveable_surface": "driveable_surface",
    "flat.other": "other_flat",
    "flat.sidewalk": "sidewalk",
    "flat.terrain": "terrain",
    "static.manmade": "manmade",
    "static.other": None,
    "static.vegetation": "vegetation",
    "vehicle.ego": None,
}
NAMES = list(CATEGORIES)
# Objects of every key frame: a truck, its trailer behind it, and a stroller.
OBJECTS = ("vehicle.truck", "vehicle.trailer", "human.pedestrian.stroller")
LIDAR_HEIGHT = 1.8
START = 1_500_000_000_000_000  # microseconds
SCENES, FRAMES = 2, 2  # key frames of each scene; a sweep between them
MOUNTS = {"LIDAR_TOP": [0.0, 0.0, LIDAR_HEIGHT], "CAM_FRONT": [1.5, 0.0, 1.5], "RADAR_FRONT": [3.0, 0.0, 0.5]}


def write_nuscenes(root: Path, version: str = "v1.0-mini") -> Path:
    """Scenes of an upright lidar, one point per category, in the folders of nuScenes; the folder of the tables."""
    moments = [(scene, step) for scene in range(SCENES) for step in range(2 * FRAMES - 1)]
    data = [data_record(scene, step, channel) for scene, step in moments for channel in MOUNTS]
    key_frames = [record for record in data if record["is_key_frame"]]
    samples = [record for record in key_frames if record["channel"] == "LIDAR_TOP"]
    tables: dict[str, list[dict[str, Any]]] = {
        "scene": [{"token": f"scene{scene}", "name": f"scene-{scene:04}"} for scene in range(SCENES)],
        "sample": [
            {"token": record["sample_token"], "timestamp": record["timestamp"], "scene_token": record["scene"]}
            for record in samples
        ],
        "sample_data": data,
        "ego_pose": [
            {
                "token": record["ego_pose_token"],
                "translation": [ego_x(record), 0, 0],
                "rotation": [1, 0, 0, 0],
            }
            for record in data
        ],
        "sensor": [{"token": channel, "channel": channel, "modality": modality_of(channel)} for channel in MOUNTS],
        "calibrated_sensor": [
            {
                "token": f"mounted {channel}",
                "sensor_token": channel,
                "translation": place,
                "rotation": [1, 0, 0, 0],
                "camera_intrinsic": np.diag([900.0, 900.0, 1.0]).tolist() if channel == "CAM_FRONT" else [],
            }
            for channel, place in MOUNTS.items()
        ],
        "category": [{"token": f"c {name}", "name": name, "index": index} for index, name in enumerate(NAMES)],
        "attribute": [{"token": "moving", "name": "vehicle.moving"}],
        "instance": [{"token": name, "category_token": f"c {name}"} for name in OBJECTS],
        "sample_annotation": [
            {
                "token": f"{record['sample_token']} {name}",
                "sample_token": record["sample_token"],
                "instance_token": name,
                "attribute_tokens": ["moving"],
                "translation": [ego_x(record) + 10.0 - 7.0 * number, 4.0, 1.0],
                "size": [2.5, 6.0, 3.0],
                "rotation": [1, 0, 0, 0],
                "num_lidar_pts": number,
                "prev": "",
                "next": "",
            }
            for record in samples
            for number, name in enumerate(OBJECTS)
        ],
        "lidarseg": [
            {
                "token": record["token"],
                "sample_data_token": record["token"],
                "filename": f"lidarseg/{version}/{record['token']}_lidarseg.bin",
            }
            for record in samples
        ],
        **{name: [] for name in ("log", "map", "visibility")},
    }
    for folder in (version, "samples/LIDAR_TOP", "sweeps/LIDAR_TOP", f"lidarseg/{version}"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, records in tables.items():
        (root / version / f"{name}.json").write_text(json.dumps(records))
    points = np.arange(5 * len(NAMES), dtype=np.float32).reshape(-1, 5)
    for record in data:
        if record["channel"] == "LIDAR_TOP":
            points.tofile(root / record["filename"])
    for record in tables["lidarseg"]:
        np.arange(len(NAMES), dtype=np.uint8).tofile(root / record["filename"])
    return root / version


def ego_x(record: dict[str, Any]) -> float:
    """Meters: the vehicle drives 10 m/s in the direction of x."""
    return float(record["timestamp"] - START) / 1e5


def modality_of(channel: str) -> str:
    return {"LIDAR": "lidar", "CAM": "camera", "RADAR": "radar"}[channel.split("_", maxsplit=1)[0]]


def data_record(scene: int, step: int, channel: str) -> dict[str, Any]:
    """A file of a sensor: steps of 0.25 s, every other one a key frame."""
    key = step % 2 == 0
    stamp = START + scene * 60_000_000 + step * 250_000
    token = f"{scene}-{step}-{channel}"
    ending = {"lidar": "pcd.bin", "camera": "jpg", "radar": "pcd"}[modality_of(channel)]
    return {
        "token": token,
        "sample_token": f"sample {scene}-{(step + 1) // 2}",
        "scene": f"scene{scene}",
        "ego_pose_token": f"ego {token}",
        "calibrated_sensor_token": f"mounted {channel}",
        "filename": f"{'samples' if key else 'sweeps'}/{channel}/{token}.{ending}",
        "channel": channel,
        "timestamp": stamp,
        "is_key_frame": key,
        "width": 1600 if channel == "CAM_FRONT" else 0,
        "height": 900 if channel == "CAM_FRONT" else 0,
        "prev": f"{scene}-{step - 1}-{channel}" if step else "",
        "next": "",
    }


def samples_of(root: Path, **settings: Any) -> tuple[tuple[str, ...], list[Sample]]:
    dataset = open_dataset(DataSettings("nuscenes", root, **settings), task="segmentation3d")
    return dataset.classes, [dataset.sample(index) for index in range(len(dataset))]


def names_of(root: Path, **settings: Any) -> list[str | None]:
    """The class of each point of the first key frame."""
    classes, samples = samples_of(root, **settings)
    found = TASK.labels_of(samples[0], labels_in(classes, classes))
    assert found is not None
    return [None if label == UNLABELED else classes[label] for label in found.labels]


def test_key_frames_of_all_scenes(tmp_path: Path) -> None:
    write_nuscenes(tmp_path)
    _, samples = samples_of(tmp_path)
    assert [(sample.scene, sample.token) for sample in samples] == [
        ("scene0", "sample 0-0"), ("scene0", "sample 0-1"), ("scene1", "sample 1-0"), ("scene1", "sample 1-1")
    ]  # fmt: skip
    second = samples[1]
    assert second.lidar.path == tmp_path / "samples/LIDAR_TOP/0-2-LIDAR_TOP.pcd.bin"
    assert read_points(second.lidar).shape == (len(NAMES), 5)
    assert [sweep.points.path.relative_to(tmp_path).as_posix() for sweep in second.sweeps] == [
        "sweeps/LIDAR_TOP/0-1-LIDAR_TOP.pcd.bin", "samples/LIDAR_TOP/0-0-LIDAR_TOP.pcd.bin"
    ]  # fmt: skip
    assert list(second.cameras) == ["CAM_FRONT"]
    camera = second.cameras["CAM_FRONT"]
    assert camera.image == tmp_path / "samples/CAM_FRONT/0-2-CAM_FRONT.jpg"
    np.testing.assert_allclose(camera.lidar2cam[:3, 3], [-1.5, 0.0, LIDAR_HEIGHT - 1.5], atol=1e-9)


def test_labels_of_points_are_those_of_the_benchmark(tmp_path: Path) -> None:
    write_nuscenes(tmp_path)
    classes, _ = samples_of(tmp_path)
    assert len(classes) == 16
    assert set(classes) == set(CATEGORIES.values()) - {None}
    assert names_of(tmp_path) == list(CATEGORIES.values())


def test_labels_of_points_in_classes_of_ones_own(tmp_path: Path) -> None:
    write_nuscenes(tmp_path)
    own = names_of(tmp_path, classes=["road", "truck"], label_map={"flat.driveable_surface": "road"})
    assert {name for name, label in zip(NAMES, own, strict=True) if label == "road"} == {"flat.driveable_surface"}
    assert {name for name, label in zip(NAMES, own, strict=True) if label == "truck"} == {
        "vehicle.construction", "vehicle.trailer", "vehicle.truck"
    }  # fmt: skip
    ids = {"low": range(16), "high": range(16, 32)}
    assert names_of(tmp_path, classes=["low", "high"], label_ids=ids) == ["low"] * 16 + ["high"] * 16


def test_boxes_come_along_and_trailers_are_not_merged(tmp_path: Path) -> None:
    write_nuscenes(tmp_path)
    classes, samples = samples_of(tmp_path)
    truth = samples[0].ground_truth
    assert truth is not None
    assert [classes[label] for label in truth.labels] == ["truck", "trailer"]
    np.testing.assert_allclose(truth.centers, [[10, 4, 1 - LIDAR_HEIGHT], [3, 4, 1 - LIDAR_HEIGHT]], atol=1e-4)
    np.testing.assert_allclose(truth.sizes, [[6, 2.5, 3]] * 2)
    assert truth.num_points.tolist() == [0, 1]
    few = samples_of(tmp_path, classes=["car", "truck"])[1][0].ground_truth
    assert few is not None
    assert few.labels.tolist() == [1, 1], "each trailer is a truck, as in nuscenes_mini_val"


def test_labels_are_part_of_the_digest(tmp_path: Path) -> None:
    write_nuscenes(tmp_path)
    settings = DataSettings("nuscenes", tmp_path)
    before = open_dataset(settings).digest()
    next(tmp_path.glob("lidarseg/*/*.bin")).write_bytes(bytes(len(NAMES)))
    assert open_dataset(settings).digest() != before


def test_one_version_of_several(tmp_path: Path) -> None:
    for version in ("v1.0-mini", "v1.0-trainval"):
        write_nuscenes(tmp_path, version)
    (tmp_path / "v1.0-test").mkdir()  # without tables
    with pytest.raises(InputError, match=r"has several versions: v1\.0-mini, v1\.0-trainval") as caught:
        samples_of(tmp_path)
    assert "data.data_prefix: {tables: v1.0-mini}" in str(caught.value.hint)
    _, samples = samples_of(tmp_path, data_prefix={"tables": "v1.0-trainval"})
    assert samples[0].point_labels is not None
    assert samples[0].point_labels.path.parent == tmp_path / "lidarseg/v1.0-trainval"
    with pytest.raises(InputError, match=r"no v1\.0-test/sample\.json here"):
        samples_of(tmp_path, data_prefix={"tables": "v1.0-test"})
    with pytest.raises(InputError, match="leaves its folder"):
        samples_of(tmp_path, data_prefix={"tables": "../v1.0-mini"})


def test_no_version(tmp_path: Path) -> None:
    tables = write_nuscenes(tmp_path)
    with pytest.raises(InputError, match=r"no v1\.0-\*/sample\.json here") as caught:
        samples_of(tables)  # one folder too deep
    assert "data.root is the folder that has v1.0-mini" in str(caught.value.hint)


def test_without_lidarseg_frames_have_no_labels(tmp_path: Path) -> None:
    (write_nuscenes(tmp_path) / "lidarseg.json").unlink()
    _, samples = samples_of(tmp_path)
    assert samples[0].point_labels is None
    assert samples[0].ground_truth is not None


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    write_nuscenes(tmp_path)
    next(tmp_path.glob("lidarseg/*/0-0-*.bin")).unlink()
    with pytest.raises(InputError, match=r"0-0-LIDAR_TOP_lidarseg\.bin: can't be read"):
        names_of(tmp_path)


def test_categories_without_an_index(tmp_path: Path) -> None:
    """nuScenes' own table of categories, which that of nuScenes-lidarseg should have replaced."""
    table = write_nuscenes(tmp_path) / "category.json"
    records = json.loads(table.read_text())
    table.write_text(
        json.dumps([{key: value for key, value in record.items() if key != "index"} for record in records])
    )
    with pytest.raises(InputError, match=r"category\.json: no category has an index") as caught:
        names_of(tmp_path)
    assert "nuScenes-lidarseg has a category.json of its own" in str(caught.value.hint)
    assert names_of(tmp_path, classes=["thing"], label_ids={"thing": range(32)}) == ["thing"] * 32


def test_a_run_is_evaluated_and_labels_of_another_length_refused(tmp_path: Path) -> None:
    write_nuscenes(tmp_path / "data")
    work = labeled_runs(tmp_path, "segmentation3d", {"format": "nuscenes"}, lambda labels, index, backend: None).root
    score = json.loads((work / "evaluation/pytorch-cpu.json").read_text())
    assert score["headline"]["mIoU"] == 1.0
    with (tmp_path / "data/samples/LIDAR_TOP/1-0-LIDAR_TOP.pcd.bin").open("ab") as file:
        file.write(np.zeros(5, np.float32).tobytes())
    refused = CliRunner().invoke(cli, ["evaluate", "--work", str(work), "--force"])
    assert refused.exit_code == InputError.exit_code
    assert "1-0-LIDAR_TOP_lidarseg.bin: has 32 labels for the 33 points of 1-0-LIDAR_TOP.pcd.bin" in refused.output

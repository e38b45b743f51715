"""Real frames of every format: the points inside each box are as many as its label says, and cameras see the boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shared.data import (
    Dataset,
    DataSettings,
    PointLoading,
    Sample,
    load_points_counted,
    open_dataset,
    read_points,
)
from shared.data.formats.kitti.frames import CLASSES
from shared.data.formats.nuscenes_mini_val import open_mini_val
from shared.data.unpickle import load_pickle
from shared.geometry import box_corners, count_points_in_boxes, transform_points
from shared.tasks.detection3d import Boxes3D


def demo_settings(real_data: Path) -> DataSettings:
    info = next((real_data / "nuscenes_demo").glob("*.pkl"))
    return DataSettings("info", info.parent, Path(info.name))


def truth_of(sample: Sample) -> Boxes3D:
    assert sample.ground_truth is not None
    return sample.ground_truth


def counted(sample: Sample, boxes: Boxes3D) -> np.ndarray:
    return count_points_in_boxes(read_points(sample.lidar), boxes.centers, boxes.sizes, boxes.yaws)


def samples_of(dataset: Dataset) -> list[Sample]:
    return [dataset.sample(index) for index in range(len(dataset))]


# --- points in boxes -------------------------------------------------------------------------------------------------


def test_nuscenes_demo(real_data: Path) -> None:
    """61 of its 69 boxes have the labeled count (nuScenes counts a little outside too); one of them is ignored."""
    settings = demo_settings(real_data)
    sample = open_dataset(settings).sample(0)
    assert sample.lidar.columns == 5
    assert read_points(sample.lidar).shape == (34688, 5)
    truth = truth_of(sample)
    assert len(truth) == 68
    assert int((counted(sample, truth) == truth.num_points).sum()) == 60
    assert settings.root is not None
    assert settings.info_file is not None
    instances = load_pickle(settings.root / settings.info_file)["data_list"][0]["instances"]
    boxes = np.array([instance["bbox_3d"] for instance in instances])
    every = count_points_in_boxes(read_points(sample.lidar), boxes[:, :3], boxes[:, 3:6], boxes[:, 6])
    labeled = np.array([instance["num_lidar_pts"] for instance in instances])
    assert (len(every), int((every == labeled).sum())) == (69, 61)
    assert not sample.lists_sweeps
    assert len(sample.cameras) == 6


def test_nuscenes_mini_val(real_data: Path) -> None:
    root = real_data / "nuscenes_mini_val"
    all_names = ("static_object.bicycle_rack", "movable_object.pushable_pullable")
    settings = DataSettings("nuscenes_mini_val", root)
    everything = replace(settings, classes=(*open_dataset(settings).classes, *all_names))
    dataset = open_dataset(everything)
    assert len(dataset) == 1, "one sweep is there"
    sample = dataset.sample(0)
    truth = truth_of(sample)
    assert len(truth) == 55
    assert int((counted(sample, truth) == truth.num_points).sum()) == 50


def test_nuscenes_mini_val_labels(real_data: Path) -> None:
    """All 81 frames have labels: 4,514 boxes, those of ignored categories included."""
    dataset = open_mini_val(DataSettings("nuscenes_mini_val"), real_data / "nuscenes_mini_val", only_with_points=False)
    assert len(dataset) == 81
    boxes = [truth_of(sample) for sample in samples_of(dataset)]
    assert sum(map(len, boxes)) == 4514 - 54 - 19, "without bicycle racks and pushables"
    velocities = np.concatenate([part.velocities for part in boxes])
    assert 0 < np.isnan(velocities).any(axis=1).mean() < 0.2
    # Cars drive where they point: nearly all fast ones within 10 degrees of their heading.
    cars = [part.select((part.labels == 0) & (np.linalg.norm(part.velocities, axis=1) > 3)) for part in boxes]
    along = np.concatenate(
        [
            (car.velocities * np.stack([np.cos(car.yaws), np.sin(car.yaws)], 1)).sum(1)
            / np.linalg.norm(car.velocities, axis=1)
            for car in cars
        ]
    )
    assert len(along) > 50
    assert (along > np.cos(np.radians(10))).mean() > 0.95


def test_argoverse(real_data: Path) -> None:
    samples = samples_of(open_dataset(DataSettings("argoverse2", real_data / "argoverse2")))
    assert [len(truth_of(sample)) for sample in samples] == [81, 81, 47]
    for sample in samples:
        np.testing.assert_array_equal(counted(sample, truth_of(sample)), truth_of(sample).num_points)
    assert samples[1].timestamp - samples[0].timestamp == pytest.approx(0.1002, abs=1e-4)
    assert read_points(samples[0].lidar).shape == (99229, 5)


def test_argoverse_poses_align_the_two_sweeps(real_data: Path) -> None:
    """What stands still in the city is seen at the same place from both ego poses; most labeled objects do."""
    first, second = samples_of(open_dataset(DataSettings("argoverse2", real_data / "argoverse2")))[:2]
    assert first.ego2global is not None
    assert second.ego2global is not None
    here = transform_points(first.ego2global, truth_of(first).centers)
    there = transform_points(second.ego2global, truth_of(second).centers)
    moved = np.linalg.norm(here[:, None] - there[None], axis=2).min(axis=1)
    assert np.median(moved) < 0.05


def test_kitti(real_data: Path) -> None:
    """KITTI labels no counts, but every visible object must have points, and none of them below its box."""
    samples = samples_of(open_dataset(DataSettings("kitti", real_data / "kitti")))
    assert [sample.token for sample in samples] == ["000001", "000008"]
    names = [[CLASSES[label] for label in truth_of(sample).labels] for sample in samples]
    assert names == [["Truck", "Car", "Cyclist"], ["Car"] * 6]
    for sample in samples:
        truth = truth_of(sample)
        assert (truth.num_points > 5).all()
        points = read_points(sample.lidar)
        assert points.shape[1] == 4
        assert points[:, 3].min() >= 0
        assert points[:, 3].max() <= 1
        grown = count_points_in_boxes(points, truth.centers, truth.sizes * [1.1, 1.1, 1.0], truth.yaws)
        assert (truth.num_points >= 0.8 * grown).all(), "a box that is turned or shifted loses points"


def test_t4_scene_is_the_nuscenes_demo_frame(real_data: Path) -> None:
    """The same sweep and pedestrian through T4's tables (quaternions, global frame) and through mmdet3d's info."""
    scene = open_dataset(DataSettings("t4", real_data / "t4_perception_eval_sample", classes=("pedestrian",))).sample(0)
    demo = open_dataset(replace(demo_settings(real_data), classes=("pedestrian",))).sample(0)
    assert scene.token == demo.token
    assert scene.timestamp == demo.timestamp
    np.testing.assert_array_equal(read_points(scene.lidar), read_points(demo.lidar))
    np.testing.assert_allclose(scene.lidar2ego, demo.lidar2ego, atol=1e-5)
    ours, theirs = truth_of(scene), truth_of(demo)
    assert len(ours) == 1
    np.testing.assert_allclose(ours.centers[0], theirs.centers[0], atol=1e-3)
    np.testing.assert_allclose(ours.sizes[0], theirs.sizes[0], atol=1e-6)
    assert ours.yaws[0] == pytest.approx(theirs.yaws[0], abs=1e-3)
    assert ours.num_points[0] == counted(scene, ours)[0] == 1
    front = "CAM_FRONT"
    np.testing.assert_allclose(scene.cameras[front].lidar2cam, demo.cameras[front].lidar2cam, atol=1e-3)
    np.testing.assert_allclose(scene.cameras[front].intrinsics, demo.cameras[front].intrinsics)


def test_t4_minimal_scene(real_data: Path) -> None:
    samples = samples_of(open_dataset(DataSettings("t4", real_data / "t4_minimal")))
    assert [len(truth_of(sample)) for sample in samples] == [2, 2, 0]
    assert [len(sample.sweeps) for sample in samples] == [0, 1, 2]
    truth = truth_of(samples[0])
    # Ego at the origin, lidar 2 m up: the car at (10, 5, 1) is 1 m below it; it is 2 m (w, l = 4.5, 2.0) long.
    np.testing.assert_allclose(truth.centers[0], [10, 5, -1], atol=1e-6)
    np.testing.assert_allclose(truth.sizes[0], [2.0, 4.5, 1.8], rtol=1e-6)
    np.testing.assert_allclose(truth.velocities[0], [2.0, 0.2], rtol=1e-5)


# --- cameras ---------------------------------------------------------------------------------------------------------


def test_kitti_boxes_project_onto_their_2d_labels(real_data: Path) -> None:
    for sample in samples_of(open_dataset(DataSettings("kitti", real_data / "kitti"))):
        truth, camera = truth_of(sample), sample.cameras["image_2"]
        labels = (real_data / "kitti" / "label_2" / f"{sample.token}.txt").read_text().splitlines()
        rows = [line.split() for line in labels if not line.startswith("DontCare")]
        for corners, row in zip(box_corners(truth.centers, truth.sizes, truth.yaws), rows, strict=True):
            if float(row[1]) > 0:  # cut by the image's edge: its 2D box is too
                continue
            seen = transform_points(camera.lidar2cam, corners) @ camera.intrinsics.T
            pixels = seen[:, :2] / seen[:, 2:]
            box = np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])
            np.testing.assert_allclose(box, [float(value) for value in row[4:8]], atol=12)


def test_nuscenes_boxes_project_onto_their_2d_labels(real_data: Path) -> None:
    """Centers of the info's own 2D annotations, in all six cameras."""
    settings = demo_settings(real_data)
    sample = open_dataset(settings).sample(0)
    assert settings.root is not None
    assert settings.info_file is not None
    entry = load_pickle(settings.root / settings.info_file)["data_list"][0]
    centers = np.array([instance["bbox_3d"][:3] for instance in entry["instances"]])
    compared = 0
    for channel, labeled_2d in entry["cam_instances"].items():
        camera = sample.cameras[channel]
        assert camera.image is not None
        assert camera.image.is_file()
        seen = transform_points(camera.lidar2cam, centers) @ camera.intrinsics.T
        pixels = seen[seen[:, 2] > 0.5, :2] / seen[seen[:, 2] > 0.5, 2:]
        for annotation in labeled_2d:
            nearest = np.linalg.norm(pixels - annotation["center_2d"], axis=1).min()
            assert nearest < 3, f"{channel}: {annotation['center_2d']}"
            compared += 1
    assert compared > 50


def test_mini_val_cameras_agree_with_their_poses(real_data: Path) -> None:
    """lidar2cam comes from sensor2lidar there; it must nearly be what the mounts alone give (ego motion apart)."""
    sample = open_dataset(DataSettings("nuscenes_mini_val", real_data / "nuscenes_mini_val")).sample(0)
    assert len(sample.cameras) == 6
    for camera in sample.cameras.values():
        by_mounts = np.linalg.inv(camera.sensor2ego) @ sample.lidar2ego
        np.testing.assert_allclose(camera.lidar2cam[:3, :3], by_mounts[:3, :3], atol=0.02)
        np.testing.assert_allclose(camera.lidar2cam[:3, 3], by_mounts[:3, 3], atol=0.6)


# --- everything together ---------------------------------------------------------------------------------------------


def test_all_real_frames_in_one_layout(real_data: Path) -> None:
    dataset = open_dataset(DataSettings("real", real_data))
    assert dataset.classes == ("car", "truck", "bus", "bicycle", "pedestrian")
    samples = samples_of(dataset)
    assert [sample.index for sample in samples] == list(range(11))
    assert len({sample.token for sample in samples}) == 11
    names = [sample.token.split("/")[0].split("-")[0] for sample in samples]
    assert names == ["n015", "nuscenes_mini_val", *["kitti"] * 2, *["argoverse2"] * 3, *["t4_minimal"] * 3, names[-1]]
    assert names[-1] == "t4_perception_eval_sample"
    loading = PointLoading(use_dim=(0, 1, 2, 3, 4), range_filter=(-122.4, -122.4, -3, 122.4, 122.4, 5))
    for sample in samples:
        loaded = load_points_counted(sample, loading)
        assert loaded.points.shape[1] == 5
        assert loaded.invalid == 0
        assert loaded.points[:, 3].max() > 1, "intensity 0-255 everywhere"
        assert loaded.points[:, 3].max() <= 255
        truth = truth_of(sample)
        assert (truth.labels < 5).all()
    sizes = {sample.token.split("/")[0]: len(truth_of(sample)) for sample in samples}
    assert sizes["kitti"] == 6
    assert open_dataset(DataSettings("real", real_data)).digest() == dataset.digest()


def test_a_model_with_other_classes(real_data: Path) -> None:
    """The ten of nuScenes: its own frames keep trailers and motorcycles apart."""
    nuscenes = open_mini_val(DataSettings("nuscenes_mini_val"), real_data / "nuscenes_mini_val").classes
    dataset = open_dataset(DataSettings("real", real_data, classes=nuscenes))
    assert dataset.classes == nuscenes
    labels = np.concatenate([truth_of(sample).labels for sample in samples_of(dataset)])
    assert {nuscenes[label] for label in np.unique(labels)} >= {"motorcycle", "traffic_cone", "construction_vehicle"}

"""A generated T4 data set through its info file and through its tables: the same frames, boxes, sweeps and cameras."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from demo.cli import cli
from shared.data import DataSettings, PointLoading, Sample, load_points, open_dataset, read_points
from shared.data.types import Dataset
from shared.geometry import count_points_in_boxes
from shared.tasks.detection3d import Boxes3D


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    result = CliRunner().invoke(cli, ["generate", "--out", str(folder), "--frames", "5"])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def both(root: Path) -> tuple[Dataset, Dataset]:
    by_info = open_dataset(DataSettings("info", root, Path("info/t4dataset_demo_infos_eval.pkl")))
    return by_info, open_dataset(DataSettings("t4", root, classes=by_info.classes))


def samples(dataset: Dataset) -> list[Sample]:
    return [dataset.sample(index) for index in range(len(dataset))]


def by_position(boxes: Boxes3D | None) -> Boxes3D:
    """The tables list annotations by instance, the info file by frame."""
    assert boxes is not None
    return boxes.select(np.lexsort(np.round(boxes.centers.astype(np.float64), 2).T))


def test_same_frames_in_the_same_order(both: tuple[Dataset, Dataset]) -> None:
    ours, tables = (samples(dataset) for dataset in both)
    assert len(ours) == 5
    assert [sample.token for sample in ours] == [sample.token for sample in tables]
    assert [sample.lidar.path for sample in ours] == [sample.lidar.path for sample in tables]
    assert [sample.timestamp for sample in ours] == pytest.approx([sample.timestamp for sample in tables])


def test_same_boxes_with_the_points_they_say(both: tuple[Dataset, Dataset]) -> None:
    for ours, tables in zip(*map(samples, both), strict=True):
        left, right = by_position(ours.ground_truth), by_position(tables.ground_truth)
        assert len(left) > 20
        np.testing.assert_allclose(left.centers, right.centers, atol=1e-4)
        np.testing.assert_allclose(left.sizes, right.sizes, atol=1e-4)
        np.testing.assert_allclose(np.cos(left.yaws - right.yaws), 1, atol=1e-6)
        # Tables have no velocity of an object that is there for one frame only.
        known = ~np.isnan(right.velocities).any(axis=1)
        assert known.mean() > 0.9
        np.testing.assert_allclose(left.velocities[known], right.velocities[known], atol=1e-2)
        np.testing.assert_array_equal(left.labels, right.labels)
        np.testing.assert_array_equal(left.num_points, right.num_points)
        counts = count_points_in_boxes(read_points(ours.lidar), left.centers, left.sizes, left.yaws)
        np.testing.assert_array_equal(counts, left.num_points)


def test_swapped_sizes_and_bottom_centers_would_show(both: tuple[Dataset, Dataset]) -> None:
    """The count above must fail for the mistakes that it is there to catch."""
    sample = both[0].sample(0)
    boxes = by_position(sample.ground_truth)
    points = read_points(sample.lidar)
    wrong = {
        "width and length": replace(boxes, sizes=boxes.sizes[:, [1, 0, 2]]),
        "bottom center": replace(boxes, centers=boxes.centers - boxes.sizes * [0, 0, 0.5]),
        "sign of yaw": replace(boxes, yaws=-boxes.yaws),
    }
    for mistake, mistaken in wrong.items():
        counts = count_points_in_boxes(points, mistaken.centers, mistaken.sizes, mistaken.yaws)
        assert not np.array_equal(counts, boxes.num_points), mistake


def test_same_sweeps_and_cameras(both: tuple[Dataset, Dataset]) -> None:
    loading = PointLoading(exact_sweeps=True)
    for ours, tables in zip(*map(samples, both), strict=True):
        assert len(tables.sweeps) >= len(ours.sweeps)
        for left, right in zip(ours.sweeps, tables.sweeps, strict=False):
            assert left.points.path == right.points.path
            np.testing.assert_allclose(left.lidar2sensor, right.lidar2sensor, atol=1e-5)
        np.testing.assert_allclose(load_points(ours, loading), load_points(tables, loading), atol=1e-4)
        assert set(ours.cameras) == set(tables.cameras)
        assert ours.cameras
        for channel, left in ours.cameras.items():
            right = tables.cameras[channel]
            assert left.image == right.image
            assert left.image is not None
            assert left.image.is_file()
            np.testing.assert_allclose(left.intrinsics, right.intrinsics, atol=1e-6)
            np.testing.assert_allclose(left.lidar2cam, right.lidar2cam, atol=1e-5)

"""Hard voxelization against a sequential reference written from its definition, and on adversarial frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtime.lidar.voxelize import cell_table, voxelize
from tests.support.tiny_centerpoint import dense_tensor, grid_of

GRID = grid_of((-4.0, -3.0, -1.0), (0.5, 0.75, 2.0), (16, 8, 1), max_points=3, max_voxels=20)
EDGES = np.float32([-4.0, -3.0, -1.0, 0.5, 0.75, 1.0, 3.0, 4.0, -0.0, 0.0, 1e-38, 3.999999, -4.0000005, 1e9, -1e30])


def sequential(points, grid):
    """Point by point, as the operator is defined: (V, max_points, C), (V, 3) z y x, (V,), voxels that did not fit."""
    number_of_cell, voxels, coordinates, counts, dropped = {}, [], [], [], set()
    for point in points:
        cell = []
        for axis in range(3):
            quotient = np.float32(
                np.float32(point[axis] - np.float32(grid.point_cloud_range[axis])) / np.float32(grid.voxel_size[axis])
            )
            cell.append(np.floor(quotient))
        if not np.isfinite(point).all() or any(not 0 <= c < n for c, n in zip(cell, grid.grid_size, strict=True)):
            continue
        key = tuple(int(c) for c in reversed(cell))
        if key not in number_of_cell:
            if len(voxels) >= grid.max_voxels:
                dropped.add(key)
                continue
            number_of_cell[key] = len(voxels)
            voxels.append(np.zeros((grid.max_points_per_voxel, points.shape[1]), np.float32))
            coordinates.append(key)
            counts.append(0)
        number = number_of_cell[key]
        if counts[number] < grid.max_points_per_voxel:
            voxels[number][counts[number]] = point
            counts[number] += 1
    dense = np.array(voxels, np.float32).reshape(len(voxels), grid.max_points_per_voxel, points.shape[1])
    return dense, np.array(coordinates, np.int32).reshape(-1, 3), np.array(counts, np.int32), len(dropped)


def assert_same(points, grid, table=None):
    voxels = voxelize(points, grid, cell_table(grid) if table is None else table)
    dense, coordinates, counts, dropped = sequential(points, grid)
    assert dense_tensor(voxels, grid.max_points_per_voxel).tobytes() == dense.tobytes()
    np.testing.assert_array_equal(voxels.coordinates, coordinates)
    np.testing.assert_array_equal(voxels.num_points, counts)
    assert voxels.counters["voxels_dropped"] == dropped
    assert voxels.counters["voxels"] == len(counts)
    lost = sum(
        voxels.counters[f"points_{why}"] for why in ("nan", "out_of_range", "in_dropped_voxels", "over_voxel_limit")
    )
    assert voxels.counters["points"] == len(points) == lost + int(counts.sum())
    return voxels


coordinate = st.one_of(st.sampled_from([float(edge) for edge in EDGES]), st.floats(-5, 5, width=32))


@settings(max_examples=200)
@given(
    points=hnp.arrays(np.float32, st.tuples(st.integers(0, 120), st.integers(3, 5)), elements=coordinate),
    max_points=st.integers(1, 5),
    max_voxels=st.integers(1, 30),
)
def test_equals_the_sequential_definition(points, max_points, max_voxels):
    assert_same(points, GRID.model_copy(update={"max_points_per_voxel": max_points, "max_voxels": max_voxels}))


@settings(max_examples=100)
@given(
    points=hnp.arrays(np.float32, (60, 4), elements=st.one_of(coordinate, st.sampled_from([np.nan, np.inf, -np.inf])))
)
def test_points_that_are_not_finite_are_left_out_and_counted(points):
    voxels = assert_same(points, GRID)
    assert voxels.counters["points_nan"] == np.count_nonzero(~np.isfinite(points).all(axis=1))


def test_several_layers_along_z():
    grid = grid_of((-4.0, -3.0, -1.0), (0.5, 0.75, 0.5), (16, 8, 4), 2, 40)
    points = np.random.default_rng(3).uniform(-4, 4, (300, 4)).astype(np.float32)
    assert_same(points, grid)


def test_empty_frame():
    voxels = assert_same(np.zeros((0, 4), np.float32), GRID)
    assert dense_tensor(voxels, 3).shape == (0, 3, 4)
    assert voxels.coordinates.shape == (0, 3)


def test_one_point():
    assert_same(np.float32([[0.1, 0.2, 0.3, 9.0]]), GRID)


def test_only_points_outside():
    voxels = assert_same(np.full((5, 4), 100, np.float32), GRID)
    assert voxels.counters["points_out_of_range"] == 5


def test_all_points_in_one_voxel_keep_the_first():
    points = np.tile(np.float32([0.1, 0.2, 0.3, 0.0]), (100, 1))
    points[:, 3] = np.arange(100)
    voxels = assert_same(points, GRID)
    assert voxels.points[:, 3].tolist() == [0, 1, 2]
    assert voxels.counters["points_over_voxel_limit"] == 97


def test_points_of_kept_voxels_come_in_after_the_voxels_have_run_out():
    grid = grid_of((0, 0, 0), (1, 1, 1), (10, 10, 1), max_points=2, max_voxels=2)
    points = np.float32([[0.5, 0.5, 0.5], [1.5, 0.5, 0.5], [2.5, 0.5, 0.5], [2.6, 0.5, 0.5], [0.6, 0.5, 0.5]])
    voxels = assert_same(points, grid)
    assert voxels.counters["voxels_dropped"] == 1
    assert voxels.counters["points_in_dropped_voxels"] == 2
    assert voxels.num_points.tolist() == [2, 1]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_borders_belong_to_the_cell_above(axis):
    low, size, count = GRID.point_cloud_range[axis], GRID.voxel_size[axis], GRID.grid_size[axis]
    borders = np.float32(low) + np.arange(count + 1, dtype=np.float32) * np.float32(size)
    values = np.concatenate([borders, np.nextafter(borders, np.float32(-9)), np.nextafter(borders, np.float32(9))])
    points = np.zeros((len(values), 4), np.float32)
    points[:, axis] = values
    assert_same(points, GRID)


def test_a_full_size_frame():
    grid = grid_of((-122.4, -122.4, -3.0), (0.24, 0.24, 8.0), (1020, 1020, 1), 32, 600)
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(0, 1.2, (6000, 5)), rng.uniform(-125, 125, (2000, 5))]).astype(np.float32)
    voxels = assert_same(points, grid)
    assert voxels.counters["points_over_voxel_limit"] > 0
    assert voxels.counters["voxels_dropped"] > 0


def test_frames_that_share_the_table_do_not_see_each_other():
    table = cell_table(GRID)
    rng = np.random.default_rng(1)
    for count in (200, 0, 3, 150, 1):
        assert_same(rng.uniform(-5, 5, (count, 4)).astype(np.float32), GRID, table)


def test_the_frame_is_not_written_to():
    points = np.random.default_rng(2).uniform(-5, 5, (50, 4)).astype(np.float32)
    points[3, 1] = np.nan
    before = points.copy()
    voxelize(points, GRID, cell_table(GRID))
    assert points.tobytes() == before.tobytes()

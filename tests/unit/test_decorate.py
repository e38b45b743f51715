"""Pillar decoration against the formula, pillar by pillar; buffers that forget the frame before."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from runtime.buffers import RowBuffer
from runtime.lidar.voxelize import cell_table, voxelize
from runtime.models.centerpoint.decorate import decorate
from tests.support.tiny_centerpoint import decoration_of, dense_tensor, grid_of

GRID = grid_of((-8.0, -6.0, -3.0), (0.5, 0.75, 8.0), (32, 16, 1), max_points=4, max_voxels=300)


def frame(count, features=4, seed=0):
    points = np.random.default_rng(seed).normal(0, 2.5, (count, features)).astype(np.float32)
    return voxelize(points, GRID, cell_table(GRID))


def naive(voxels, decoration):
    """(V, max_points, F) float64, straight from the definition."""
    out = np.zeros((len(voxels), GRID.max_points_per_voxel, decoration.num_features))
    for number in range(len(voxels)):
        points = voxels.points[voxels.voxel_of_point == number].astype(np.float64)
        center = [
            GRID.point_cloud_range[axis] + (voxels.coordinates[number][2 - axis] + 0.5) * GRID.voxel_size[axis]
            for axis in range(3)
        ]
        mean = points[:, :3].mean(axis=0)
        for slot, point in enumerate(points):
            raw = point.copy()
            if decoration.legacy:
                axes = decoration.center_axes
                raw[:axes] -= center[:axes]
            parts = [raw]
            if decoration.cluster_center:
                parts.append(point[:3] - mean)
            parts.append((point[:3] - center)[: decoration.center_axes])
            if decoration.distance:
                parts.append([np.linalg.norm(raw[:3])])
            out[number, slot] = np.concatenate(parts)
    return out


@pytest.mark.parametrize(
    ("features", "cluster", "axes", "distance", "legacy"),
    [
        (4, True, 3, False, False),
        (5, True, 3, False, False),
        (4, True, 2, False, False),
        *itertools.product([3, 5], [True, False], [0, 3], [True, False], [True, False]),
    ],
)
def test_equals_the_formula(features, cluster, axes, distance, legacy):
    decoration = decoration_of(features, cluster, axes, distance, legacy)
    voxels = frame(400, features)
    buffer = RowBuffer(GRID.max_voxels * GRID.max_points_per_voxel, decoration.num_features)
    decorated = decorate(voxels, decoration, GRID, buffer)
    assert decorated.shape == (GRID.max_voxels, GRID.max_points_per_voxel, decoration.num_features)
    assert voxels.counters["points_over_voxel_limit"] > 0
    np.testing.assert_allclose(decorated[: len(voxels)], naive(voxels, decoration), rtol=0, atol=3e-6)
    assert not decorated[len(voxels) :].any()


def test_feature_counts_of_the_known_models():
    assert decoration_of(4, True, 3, False, False).num_features == 10
    assert decoration_of(5, True, 3, False, False).num_features == 11
    assert decoration_of(4, True, 2, False, False).num_features == 9


def test_raw_features_are_copied_bit_for_bit():
    voxels = frame(300)
    decoration = decoration_of(4, True, 3, False, False)
    decorated = decorate(voxels, decoration, GRID, RowBuffer(GRID.max_voxels * GRID.max_points_per_voxel, 10))
    assert decorated[: len(voxels), :, :4].tobytes() == dense_tensor(voxels, GRID.max_points_per_voxel).tobytes()


def test_a_reused_buffer_equals_a_new_one():
    decoration = decoration_of(4, True, 3, False, False)
    reused = RowBuffer(GRID.max_voxels * GRID.max_points_per_voxel, 10)
    for seed, count in enumerate([500, 20, 0, 300, 1, 500]):
        voxels = frame(count, seed=seed)
        fresh = decorate(voxels, decoration, GRID, RowBuffer(GRID.max_voxels * GRID.max_points_per_voxel, 10))
        assert decorate(voxels, decoration, GRID, reused).tobytes() == fresh.tobytes()

"""The stand-in for mmcv's operators: voxelization point by point as mmcv's CPU operator does it, and clear refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from exporter.mmcv_ops import STAND_IN, hard_voxelize, provide_mmcv_ops
from shared.errors import EnvironmentLacks

SIZE = np.array([0.5, 0.25, 4.0], np.float32)
RANGE = np.array([-2.0, -1.0, -3.0, 2.0, 1.0, 5.0], np.float32)


def one_by_one(points, size, limits, max_points, max_voxels):
    """mmcv's loop, in plain Python."""
    grid = [int(np.floor((limits[3 + i] - limits[i]) / size[i] + np.float32(0.5))) for i in range(3)]
    voxels, cells, index = [], [], {}
    for point in points:
        position = [np.floor((point[i] - limits[i]) / size[i]) for i in range(3)]
        if not all(0 <= position[i] < grid[i] for i in range(3)):
            continue
        cell = tuple(int(value) for value in position[::-1])
        if cell not in index:
            if len(voxels) >= max_voxels:
                continue
            index[cell] = len(voxels)
            voxels.append([])
            cells.append(cell)
        if len(voxels[index[cell]]) < max_points:
            voxels[index[cell]].append(point)
    dense = np.zeros((len(voxels), max_points, points.shape[1]), np.float32)
    for i, members in enumerate(voxels):
        dense[i, : len(members)] = members
    return dense, np.array(cells, np.int32).reshape(-1, 3), np.array([len(v) for v in voxels], np.int32)


def assert_equal(actual, expected):
    for got, wanted in zip(actual, expected, strict=True):
        assert got.dtype == wanted.dtype
        assert got.shape == wanted.shape
        assert got.tobytes() == wanted.tobytes()


@given(
    points=hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 60), st.just(4)),
        elements=st.floats(-6, 6, width=32) | st.sampled_from([np.nan, np.inf, -np.inf, -2.0, 2.0, 0.25, 0.5]),
    ),
    max_points=st.integers(1, 4),
    max_voxels=st.integers(1, 12),
)
@settings(max_examples=200)
def test_same_voxels_as_the_sequential_loop(points, max_points, max_voxels):
    actual = hard_voxelize(points, SIZE, RANGE, max_points=max_points, max_voxels=max_voxels)
    assert_equal(actual, one_by_one(points, SIZE, RANGE, max_points, max_voxels))


def test_a_point_on_the_upper_limit_is_outside_and_one_on_the_lower_inside():
    points = np.array([[-2, -1, -3], [2, 0, 0], [0, 1, 0], [0, 0, 5]], np.float32)
    _, cells, counts = hard_voxelize(points, SIZE, RANGE, max_points=2, max_voxels=9)
    assert cells.tolist() == [[0, 0, 0]]
    assert counts.tolist() == [1]


@pytest.mark.exporter
def test_another_operator_is_refused_by_name_with_the_command_that_installs_it():
    if provide_mmcv_ops() != STAND_IN:
        pytest.skip("mmcv's compiled operators are installed here")
    import torch
    from mmcv.ops import nms_rotated

    with pytest.raises(EnvironmentLacks, match=r"'nms_rotated' of mmcv.*make setup-full"):
        nms_rotated(torch.rand(3, 5), torch.rand(3), 0.5)


@pytest.mark.mmcv_ops
@pytest.mark.parametrize("seed", range(8))
def test_bit_equal_to_the_compiled_operator(seed):
    import torch
    from mmcv.ops import Voxelization

    rng = np.random.default_rng(seed)
    points = (rng.normal(size=(30_000, 5)) * [30, 30, 2, 1, 1]).astype(np.float32)
    # Points exactly on cell edges are where float32 division decides.
    points[::7, :2] = np.round(points[::7, :2] / 0.24) * np.float32(0.24)
    points[::501] = np.nan
    size, limits = [0.24, 0.24, 8.0], [-61.2, -45.6, -3.0, 61.2, 45.6, 5.0]
    layer = Voxelization(size, limits, max_num_points=4, max_voxels=(6000, 6000)).eval()
    expected = [value.numpy() for value in layer(torch.from_numpy(points))]
    actual = hard_voxelize(
        points, np.array(size, np.float32), np.array(limits, np.float32), max_points=4, max_voxels=6000
    )
    # NaN points are outside in both; those inside hold no NaN, so bytes compare.
    assert_equal(actual, expected)

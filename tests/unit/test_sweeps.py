"""Merging sweeps: against independent float64 formulas, and mmdet3d's rules one by one."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.data import DataSettings, PointLoading, Sample, load_points, load_points_counted, open_dataset
from shared.errors import InputError
from shared.geometry import transform_points
from tests.support.multi_sweep import lidar_poses, write_scene

EVERYTHING = (0, 1, 2, 3, 4)


def sample_of(root: Path, info: dict[str, Any], **settings: Any) -> Sample:
    content = {"metainfo": {"classes": ["car"]}, "data_list": [info]}
    (root / "infos.pkl").write_bytes(pickle.dumps(content))
    return open_dataset(DataSettings("info", root, Path("infos.pkl"), **settings)).sample(0)


def file_points(root: Path, entry: dict[str, Any]) -> np.ndarray:
    return np.fromfile(root / entry["lidar_points"]["lidar_path"], np.float32).reshape(-1, 5)


def test_key_frame_first_then_sweeps_in_order(tmp_path: Path) -> None:
    info, _ = write_scene(tmp_path, 3)
    points = load_points(sample_of(tmp_path, info), PointLoading(use_dim=EVERYTHING, sweeps_num=2))
    assert points.dtype == np.float32
    assert points.shape == (6000, 5)
    key_frame = file_points(tmp_path, info)
    np.testing.assert_array_equal(points[:2000, :4], key_frame[:, :4])
    np.testing.assert_array_equal(points[:2000, 4], 0)
    for position, sweep in enumerate(info["lidar_sweeps"][:2], start=1):
        part = points[2000 * position : 2000 * (position + 1)]
        np.testing.assert_array_equal(part[:, 3], file_points(tmp_path, sweep)[:, 3])
        np.testing.assert_array_equal(part[:, 4], np.float32(info["timestamp"] - sweep["timestamp"]))
    assert points[2000, 4] == pytest.approx(0.1, abs=1e-6)
    assert points[4000, 4] == pytest.approx(0.2, abs=1e-6)


def test_alignment_is_that_of_mmdet3d(tmp_path: Path) -> None:
    """R^T p - t with [R | t] = lidar2sensor, in float64; float32 rounding is at most 2^-18 m at 120 m."""
    info, _ = write_scene(tmp_path, 2)
    points = load_points(sample_of(tmp_path, info), PointLoading(use_dim=EVERYTHING, sweeps_num=2))
    for position, sweep in enumerate(info["lidar_sweeps"], start=1):
        matrix = np.array(sweep["lidar_points"]["lidar2sensor"])
        rotation, translation = matrix[:3, :3], matrix[:3, 3]
        raw = file_points(tmp_path, sweep)[:, :3].astype(np.float64)
        expected = np.einsum("ji,nj->ni", rotation, raw) - translation
        np.testing.assert_allclose(points[2000 * position : 2000 * (position + 1), :3], expected, rtol=0, atol=2e-5)


def test_its_error_grows_with_the_turn_and_exact_sweeps_have_none(tmp_path: Path) -> None:
    """Every frame sees the same world points: exactly aligned sweeps fall onto the key frame."""
    for turn, low, high in ((0.0, 0.0, 1e-4), (0.3, 0.02, 0.2), (1.0, 0.07, 0.6)):
        info, world = write_scene(tmp_path, 1, turn=turn)
        sample = sample_of(tmp_path, info)
        key_frame = file_points(tmp_path, info)[:, :3]
        exact = load_points(sample, PointLoading(use_dim=EVERYTHING, exact_sweeps=True))[2000:, :3]
        np.testing.assert_allclose(exact, key_frame, atol=3e-5)
        quirk = load_points(sample, PointLoading(use_dim=EVERYTHING))[2000:, :3]
        error = np.linalg.norm(quirk - key_frame, axis=1).max()
        assert low <= error <= high, f"turning at {turn} rad/s"
        lidar2world = lidar_poses(1, turn, 12.0)[0]
        np.testing.assert_allclose(transform_points(lidar2world, exact), world, atol=3e-5)


def test_a_float32_matrix_is_used_as_float32(tmp_path: Path) -> None:
    """AWML stores float32: NumPy then multiplies in float32, and the result differs in the last bits."""
    info, _ = write_scene(tmp_path, 1, points=20_000)
    single = copy.deepcopy(info)
    matrix = np.array(info["lidar_sweeps"][0]["lidar_points"]["lidar2sensor"], np.float32)
    single["lidar_sweeps"][0]["lidar_points"]["lidar2sensor"] = matrix
    sample = sample_of(tmp_path, single)
    assert sample.sweeps[0].lidar2sensor.dtype == np.float32
    points = load_points(sample, PointLoading(use_dim=EVERYTHING))[20_000:]
    raw = file_points(tmp_path, info["lidar_sweeps"][0])
    np.testing.assert_array_equal(points[:, :3], (raw[:, :3] @ matrix[:3, :3]) - matrix[:3, 3])
    double = load_points(sample_of(tmp_path, info), PointLoading(use_dim=EVERYTHING))[20_000:]
    assert not np.array_equal(points, double)
    np.testing.assert_allclose(points, double, atol=1e-4)


def test_remove_close_drops_sweep_points_in_their_own_frame_only(tmp_path: Path) -> None:
    info, _ = write_scene(tmp_path, 1)
    points = load_points(sample_of(tmp_path, info), PointLoading(use_dim=EVERYTHING, remove_close=True))
    raw = file_points(tmp_path, info["lidar_sweeps"][0])
    close = (np.abs(raw[:, 0]) < 1) & (np.abs(raw[:, 1]) < 1)
    assert close.sum() > 10
    np.testing.assert_array_equal(points[2000:, 3], raw[~close, 3])
    key_frame = file_points(tmp_path, info)
    assert ((np.abs(key_frame[:, 0]) < 1) & (np.abs(key_frame[:, 1]) < 1)).sum() > 10
    np.testing.assert_array_equal(points[:2000, :3], key_frame[:, :3])


def test_padding_only_where_the_list_is_absent(tmp_path: Path) -> None:
    info, _ = write_scene(tmp_path, 0)
    padded = PointLoading(use_dim=EVERYTHING, sweeps_num=3, pad_empty_sweeps=True)
    assert len(load_points(sample_of(tmp_path, info), padded)) == 2000, "an empty list: the first frame of a scene"
    del info["lidar_sweeps"]
    sample = sample_of(tmp_path, info)
    points = load_points(sample, padded)
    assert points.shape == (8000, 5)
    np.testing.assert_array_equal(points[2000:4000], points[:2000])
    np.testing.assert_array_equal(points[6000:], points[:2000])
    close = (np.abs(points[:2000, 0]) < 1) & (np.abs(points[:2000, 1]) < 1)
    cleaned = load_points(
        sample, PointLoading(use_dim=EVERYTHING, sweeps_num=3, pad_empty_sweeps=True, remove_close=True)
    )
    assert len(cleaned) == 2000 + 3 * int((~close).sum())
    assert len(load_points(sample, PointLoading(use_dim=EVERYTHING, sweeps_num=3))) == 2000


def test_range_filter_is_strict_and_float32(tmp_path: Path) -> None:
    info, _ = write_scene(tmp_path, 0)
    limit = np.float32(0.1)
    rows = [[limit, 0, 0], [np.nextafter(limit, np.float32(0)), 0, 0], [0, -1, 0], [0, -0.999, 0], [0, 0, 1], [0, 0, 0]]
    frame = np.zeros((len(rows), 5), np.float32)
    frame[:, :3] = rows
    frame[:, 3] = np.arange(len(rows))
    frame.tofile(tmp_path / info["lidar_points"]["lidar_path"])
    loading = PointLoading(use_dim=EVERYTHING, range_filter=(-1, -1, -1, 0.1, 1, 1))
    assert load_points(sample_of(tmp_path, info), loading)[:, 3].tolist() == [1, 3, 5]


def test_what_is_dropped_is_counted(tmp_path: Path) -> None:
    info, _ = write_scene(tmp_path, 0)
    frame = np.zeros((6, 5), np.float32)
    frame[1, 0], frame[2, 2], frame[3, 3], frame[4, 1] = np.nan, np.inf, np.nan, 99
    frame.tofile(tmp_path / info["lidar_points"]["lidar_path"])
    sample = sample_of(tmp_path, info)
    loaded = load_points_counted(sample, PointLoading(use_dim=EVERYTHING, range_filter=(-9, -9, -9, 9, 9, 9)))
    assert (loaded.read, loaded.invalid, loaded.outside, len(loaded.points)) == (6, 3, 1, 3)
    assert np.isnan(loaded.points[1, 3]), "a NaN intensity stays, as in mmdet3d"
    unused = load_points_counted(sample, PointLoading(use_dim=(0, 1, 2, 4), range_filter=(-9, -9, -9, 9, 9, 9)))
    assert unused.invalid == 2
    whole = load_points_counted(sample, PointLoading(use_dim=EVERYTHING))
    assert (len(whole.points), whole.invalid, whole.outside) == (6, 3, 0)


def test_an_empty_cloud_gives_no_points(tmp_path: Path) -> None:
    info, _ = write_scene(tmp_path, 1, points=10)
    (tmp_path / info["lidar_points"]["lidar_path"]).write_bytes(b"")
    (tmp_path / info["lidar_sweeps"][0]["lidar_points"]["lidar_path"]).write_bytes(b"")
    loading = PointLoading(remove_close=True, range_filter=(-9, -9, -9, 9, 9, 9))
    points = load_points(sample_of(tmp_path, info), loading)
    assert points.shape == (0, 4)
    assert points.dtype == np.float32


def test_without_merging_column_4_stays(tmp_path: Path) -> None:
    info, _ = write_scene(tmp_path, 1)
    points = load_points(sample_of(tmp_path, info), PointLoading(use_dim=(0, 1, 2, 3, 4), merge_sweeps=False))
    np.testing.assert_array_equal(points, file_points(tmp_path, info))


def test_norm_intensity_is_for_the_key_frame(tmp_path: Path) -> None:
    info, _ = write_scene(tmp_path, 1)
    points = load_points(sample_of(tmp_path, info), PointLoading(use_dim=EVERYTHING, norm_intensity=True))
    np.testing.assert_array_equal(points[:2000, 3], np.tanh(file_points(tmp_path, info)[:, 3]))
    np.testing.assert_array_equal(points[2000:, 3], file_points(tmp_path, info["lidar_sweeps"][0])[:, 3])


def test_a_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    info, _ = write_scene(tmp_path, 0)
    with pytest.raises(InputError, match=r"5 columns, this file has 4.*pad_to"):
        load_points(sample_of(tmp_path, info, num_features=4), PointLoading())
    assert load_points(sample_of(tmp_path, info, num_features=4, pad_to=5), PointLoading()).shape == (2500, 4)


def test_a_missing_sweep_is_named(tmp_path: Path) -> None:
    info, _ = write_scene(tmp_path, 2)
    name = info["lidar_sweeps"][1]["lidar_points"]["lidar_path"]
    (tmp_path / name).unlink()
    sample = sample_of(tmp_path, info)
    load_points(sample, PointLoading(sweeps_num=1))
    with pytest.raises(InputError, match=name):
        load_points(sample, PointLoading(sweeps_num=2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"use_dim": (0, 1, 2, 5)},
        {"use_dim": ()},
        {"use_dim": (0, -1, 2)},
        {"load_dim": 4, "use_dim": (0, 1, 2, 3)},
        {"sweeps_num": -1},
        {"use_dim": (2, 1, 0), "range_filter": (0, 0, 0, 1, 1, 1)},
        {"load_dim": 3, "use_dim": (0, 1, 2), "merge_sweeps": False, "norm_intensity": True},
    ],
)
def test_impossible_loading_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"use_dim|load_dim|sweeps_num"):
        PointLoading(**wrong)

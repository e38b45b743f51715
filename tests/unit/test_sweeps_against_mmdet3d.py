"""The points that a model gets are mmdet3d's own, bit for bit."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.data import DataSettings, PointLoading, load_points, open_dataset
from tests.support.multi_sweep import write_scene

pytestmark = pytest.mark.exporter

LIMITS = (-51.2, -51.2, -3.0, 51.2, 51.2, 5.0)


def mmdet3d_points(root: Path, info: dict[str, Any], loading: PointLoading) -> np.ndarray:
    """The info entry through mmdet3d's transforms, paths made absolute as its data set class does."""
    from exporter.mmcv_ops import provide_mmcv_ops

    provide_mmcv_ops()
    from mmdet3d.datasets.transforms import LoadPointsFromFile, LoadPointsFromMultiSweeps, PointsRangeFilter

    results = copy.deepcopy(info)
    for entry in (results, *results.get("lidar_sweeps", ())):
        entry["lidar_points"]["lidar_path"] = str(root / entry["lidar_points"]["lidar_path"])
    steps = [
        LoadPointsFromFile("LIDAR", loading.load_dim, loading.load_dim, norm_intensity=loading.norm_intensity)
        if loading.merge_sweeps
        else LoadPointsFromFile("LIDAR", loading.load_dim, list(loading.use_dim), norm_intensity=loading.norm_intensity)
    ]
    if loading.merge_sweeps:
        steps.append(
            LoadPointsFromMultiSweeps(
                sweeps_num=loading.sweeps_num,
                load_dim=loading.load_dim,
                use_dim=list(loading.use_dim),
                pad_empty_sweeps=loading.pad_empty_sweeps,
                remove_close=loading.remove_close,
                test_mode=True,
            )
        )
    if loading.range_filter is not None:
        steps.append(PointsRangeFilter(list(loading.range_filter)))
    for step in steps:
        results = step(results)
    return results["points"].tensor.numpy()


def assert_same_bits(root: Path, info: dict[str, Any], loading: PointLoading) -> None:
    (root / "infos.pkl").write_bytes(pickle.dumps({"metainfo": {"classes": ["car"]}, "data_list": [info]}))
    ours = load_points(open_dataset(DataSettings("info", root, Path("infos.pkl"))).sample(0), loading)
    theirs = mmdet3d_points(root, info, loading)
    assert ours.dtype == theirs.dtype == np.float32
    assert ours.shape == theirs.shape
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))


LOADINGS = {
    "awml": PointLoading(remove_close=True, pad_empty_sweeps=True, range_filter=LIMITS),
    "awml_intensity": PointLoading(use_dim=(0, 1, 2, 3, 4), remove_close=True, range_filter=LIMITS),
    "nuscenes": PointLoading(
        use_dim=(0, 1, 2, 3, 4), sweeps_num=9, remove_close=True, pad_empty_sweeps=True, range_filter=LIMITS
    ),
    "no_filter": PointLoading(use_dim=(0, 1, 2, 4), sweeps_num=10),
    "norm_intensity": PointLoading(use_dim=(0, 1, 2, 3), norm_intensity=True, range_filter=LIMITS),
    "file_only": PointLoading(use_dim=(0, 1, 2, 3), merge_sweeps=False, range_filter=LIMITS),
}


@pytest.mark.parametrize("name", LOADINGS)
@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("sweeps", [0, 1, 5, 12])
def test_multi_sweep_points(tmp_path: Path, name: str, precision: type, sweeps: int) -> None:
    info, _ = write_scene(tmp_path, sweeps, seed=sweeps, points=5003, turn=0.7)
    for sweep in info["lidar_sweeps"]:
        lidar = sweep["lidar_points"]
        lidar["lidar2sensor"] = np.array(lidar["lidar2sensor"], precision)
    assert_same_bits(tmp_path, info, LOADINGS[name])
    del info["lidar_sweeps"]
    assert_same_bits(tmp_path, info, LOADINGS[name])


def test_matrices_stored_as_lists(tmp_path: Path) -> None:
    info, _ = write_scene(tmp_path, 4, points=5003)
    assert_same_bits(tmp_path, info, LOADINGS["nuscenes"])


def test_nan_points_and_an_empty_sweep(tmp_path: Path) -> None:
    info, _ = write_scene(tmp_path, 2, points=100)
    key_frame = np.fromfile(tmp_path / info["lidar_points"]["lidar_path"], np.float32).reshape(-1, 5)
    key_frame[3, 0], key_frame[4, 3], key_frame[5, 2] = np.nan, np.nan, np.inf
    key_frame.tofile(tmp_path / info["lidar_points"]["lidar_path"])
    (tmp_path / info["lidar_sweeps"][0]["lidar_points"]["lidar_path"]).write_bytes(b"")
    for loading in LOADINGS.values():
        assert_same_bits(tmp_path, info, loading)


@pytest.mark.parametrize("name", LOADINGS)
def test_nuscenes_key_frame(tmp_path: Path, real_data: Path, name: str) -> None:
    """The demo frame has no sweep list: mmdet3d pads where told to."""
    source = next((real_data / "nuscenes_demo").glob("*.pcd.bin"))
    (tmp_path / "key.pcd.bin").write_bytes(source.read_bytes())
    info = {
        "token": "demo",
        "timestamp": 1532402927.647951,
        "lidar_points": {"lidar_path": "key.pcd.bin", "num_pts_feats": 5, "lidar2ego": np.eye(4).tolist()},
    }
    assert_same_bits(tmp_path, info, LOADINGS[name])

"""Generated multi-sweep data: a turning vehicle among fixed points, as an AWML or mmdet3d info file describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from shared.geometry import invert_pose, pose, rotation_z, transform_points


def lidar_poses(count: int, turn: float, speed: float) -> list[np.ndarray]:
    """Lidar to world, 0.1 s apart, the newest first, with a tilted mount off the vehicle's center."""
    mount = pose([0.9, 0.1, 1.8], [0.9998, 0.01, -0.015, 0.003])
    poses = []
    for step in range(count):
        yaw = -turn * 0.1 * step
        poses.append(pose([-speed * 0.1 * step, 0.3 * step * step * 0.01, 0.0], rotation_z(yaw)) @ mount)
    return poses


def write_scene(
    root: Path, sweeps: int, *, seed: int = 0, points: int = 2000, turn: float = 0.3, speed: float = 12.0
) -> tuple[dict[str, Any], np.ndarray]:
    """Write the point files of a key frame and its sweeps.

    Args:
        root: data folder.
        sweeps: number of sweeps.
        seed: random seed.
        points: points per frame, some of them close to the sensor.
        turn: yaw rate in rad/s.
        speed: m/s.

    Returns:
        The info entry (``lidar2sensor`` float64 lists), and the world points (points, 3) that every frame sees in the
        same order, so that aligned sweeps can be compared point by point.
    """
    rng = np.random.default_rng(seed)
    world = rng.uniform([-60, -60, -2], [60, 60, 4], (points, 3))
    world[: points // 10, :2] = rng.uniform(-3, 3, (points // 10, 2))
    poses = lidar_poses(sweeps + 1, turn, speed)
    entries: list[dict[str, Any]] = []
    for step, lidar2world in enumerate(poses):
        frame = np.empty((points, 5), np.float32)
        frame[:, :3] = transform_points(invert_pose(lidar2world), world)
        frame[:, 3] = rng.uniform(0, 255, points)
        frame[:, 4] = rng.integers(0, 32, points)
        name = f"{'samples' if step == 0 else 'sweeps'}/LIDAR_TOP/{step}.pcd.bin"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        frame.tofile(root / name)
        lidar2sensor = invert_pose(lidar2world) @ poses[0]
        entries.append(
            {
                "timestamp": 1_700_000_000.0 - 0.1 * step - 0.0123,
                "lidar_points": {"lidar_path": name, "num_pts_feats": 5, "lidar2sensor": lidar2sensor.tolist()},
            }
        )
    key_frame = {"lidar_path": entries[0]["lidar_points"]["lidar_path"], "num_pts_feats": 5}
    info: dict[str, Any] = {
        "sample_idx": 0,
        "token": "t0",
        "timestamp": entries[0]["timestamp"],
        "ego2global": np.eye(4).tolist(),
        "lidar_points": {**key_frame, "lidar2ego": np.eye(4).tolist()},
        "lidar_sweeps": entries[1:],
        "instances": [],
    }
    return info, world

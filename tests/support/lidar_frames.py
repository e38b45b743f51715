"""Lidar frames for comparisons with the framework: every real one, and synthetic ones with what real ones have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared.data import DataSettings, PointLoading, load_points, open_dataset

Float32 = npt.NDArray[np.float32]

_LOADING = PointLoading(load_dim=5, use_dim=(0, 1, 2, 3, 4), merge_sweeps=False)


def real_frames(folder: Path) -> list[tuple[str, Float32]]:
    """Token and (N, 5) points of every real frame."""
    dataset = open_dataset(DataSettings(format="real"), root=folder)
    samples = [dataset.sample(index) for index in range(len(dataset))]
    return [(sample.token, load_points(sample, _LOADING)) for sample in samples]


def synthetic_frame(seed: int) -> Float32:
    """(N, 5) points: rings on the ground, clusters, points on voxel borders, repeated ones, some out of range."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(500, 9000))
    distance = rng.gamma(2.0, 12.0, count)
    angle = rng.uniform(-np.pi, np.pi, count)
    ground = np.stack([distance * np.cos(angle), distance * np.sin(angle), rng.normal(-1.7, 0.1, count)], axis=1)
    centers = rng.uniform(-45, 45, (int(rng.integers(3, 25)), 1, 3)) * [1, 1, 0.02]
    clusters = (centers + rng.normal(0, 1.0, (len(centers), 120, 3)) * [1.5, 0.7, 0.6]).reshape(-1, 3)
    # Multiples of common voxel sizes: the quotient is an integer, or one rounding away from it.
    border = rng.integers(-200, 200, (300, 3)) * rng.choice([0.16, 0.2, 0.24, 0.25, 0.8], (300, 1)) * [1, 1, 0.01]
    points = np.concatenate([ground, clusters, border, ground[:40]])
    rng.shuffle(points)
    extra = np.stack([rng.integers(0, 256, len(points)), rng.choice([0.0, 0.05], len(points))], axis=1)
    return np.concatenate([points, extra], axis=1).astype(np.float32)

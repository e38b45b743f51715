"""Voxelization and decoration: the runtime's NumPy steps against mmdetection3d's CPU path, in one run, on one core.

Baseline: what mmdetection3d 1.4 does on a CPU for the same frame, its hard voxelization operator (mmcv's compiled one)
and the part of ``PillarFeatureNet.forward`` in front of the layers. Needs the exporter's environment; without compiled
operators the baseline's first half is the exporter's stand-in, and the output says so.

    .venv/exporter-full/bin/python -m benchmarks.voxelization
    .venv/exporter-full/bin/python -m benchmarks.voxelization --points 34688 --repeats 50
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from runtime.buffers import RowBuffer
from runtime.lidar.grid import VoxelGrid
from runtime.lidar.voxelize import cell_table, voxelize
from runtime.models.centerpoint.decorate import decorate
from runtime.models.centerpoint.parameters import Decoration
from shared.arrays import Float32

# AWML's 121 m model with intensity: 11 features a point.
GRID = VoxelGrid(
    point_cloud_range=(-122.4, -122.4, -3.0, 122.4, 122.4, 5.0),
    voxel_size=(0.24, 0.24, 8.0),
    grid_size=(1020, 1020, 1),
    max_points_per_voxel=32,
    max_voxels=96000,
)
DECORATION = Decoration(raw_features=5, cluster_center=True, voxel_center="xyz")


def frame(count: int, seed: int = 0) -> Float32:
    """(count, 5) float32 x, y, z, intensity, time, thinning out with range; 200,000 points fill 89,000 pillars."""
    rng = np.random.default_rng(seed)
    distance = np.minimum(rng.gamma(1.82, 13.0, count), 122.0)
    angle = rng.uniform(-np.pi, np.pi, count)
    columns = [
        distance * np.cos(angle),
        distance * np.sin(angle),
        rng.uniform(-2.5, 4.5, count),
        rng.integers(0, 256, count),
        rng.choice([0.0, 0.05, 0.1], count),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def medians_ms(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median wall time [ms] of each function, called in turn so that what disturbs the machine disturbs all."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats + 3):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            times[name].append((time.perf_counter() - started) * 1e3)
    # The first three calls are warm-up.
    return {name: round(statistics.median(values[3:]), 3) for name, values in times.items()}


def own_steps(points: Float32) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Voxelization and decoration of the runtime as calls."""
    table, buffer = cell_table(GRID), RowBuffer(GRID.max_voxels * GRID.max_points_per_voxel, DECORATION.num_features)
    voxels = voxelize(points, GRID, table)
    return (
        lambda: voxelize(points, GRID, table),
        lambda: decorate(voxels, DECORATION, GRID, buffer),
    )


def framework_steps(points: Float32) -> tuple[str, Callable[[], Any], Callable[[], Any], tuple[Any, ...]]:
    """What the operator is; voxelization and decoration of mmdetection3d as calls; and what they give."""
    import torch

    from exporter.mmcv_ops import provide_mmcv_ops

    operator = provide_mmcv_ops()
    from mmdet3d.models.data_preprocessors.voxelize import VoxelizationByGridShape
    from mmdet3d.models.voxel_encoders import PillarFeatureNet

    layer = VoxelizationByGridShape(
        point_cloud_range=GRID.point_cloud_range,
        max_num_points=GRID.max_points_per_voxel,
        voxel_size=list(GRID.voxel_size),
        max_voxels=(GRID.max_voxels, GRID.max_voxels),
    ).eval()
    encoder = PillarFeatureNet(
        in_channels=DECORATION.raw_features,
        feat_channels=(32,),
        voxel_size=GRID.voxel_size,
        point_cloud_range=GRID.point_cloud_range,
        legacy=False,
    ).eval()
    # Without its layers, forward ends with the decorated points.
    encoder.pfn_layers = torch.nn.ModuleList()
    tensor = torch.from_numpy(points)
    voxels, coordinates, num_points = layer(tensor)
    batched = torch.nn.functional.pad(coordinates, (1, 0))
    decorated = encoder(voxels, num_points, batched)
    return (
        operator,
        lambda: layer(tensor),
        lambda: encoder(voxels, num_points, batched),
        (voxels, coordinates, num_points, decorated),
    )


def measure(count: int, repeats: int) -> dict[str, Any]:
    """Both paths on one frame: equal results, and times in milliseconds."""
    import torch

    from exporter.mmcv_ops import COMPILED
    from tests.support.tiny_centerpoint import dense_tensor

    torch.set_num_threads(1)
    points = frame(count)
    own_voxelize, own_decorate = own_steps(points)
    voxels = own_voxelize()
    ours = own_decorate()[: len(voxels)]
    with torch.inference_mode():
        operator, their_voxelize, their_decorate, theirs = framework_steps(points)
        np.testing.assert_array_equal(dense_tensor(voxels, GRID.max_points_per_voxel), theirs[0].numpy())
        np.testing.assert_array_equal(voxels.coordinates, theirs[1].numpy())
        difference = float(np.abs(ours - theirs[3].numpy()).max())
        times = medians_ms(
            {
                "baseline voxelize": their_voxelize,
                "baseline decorate": their_decorate,
                "runtime voxelize": own_voxelize,
                "runtime decorate": own_decorate,
            },
            repeats,
        )
    baseline = times["baseline voxelize"] + times["baseline decorate"]
    own = times["runtime voxelize"] + times["runtime decorate"]
    return {
        "points": count,
        "pillars": len(voxels),
        "baseline_operator": operator,
        "baseline_is_compiled": operator == COMPILED,
        "milliseconds": {**times, "baseline": baseline, "runtime": own},
        "speed_up": baseline / own,
        "largest_difference_of_a_feature": difference,
    }


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200_000, help="points of the frame")
    parser.add_argument("--repeats", type=int, default=20, help="calls that the medians are taken of")
    options = parser.parse_args()
    print(json.dumps(measure(options.points, options.repeats), indent=2))


if __name__ == "__main__":
    main()

"""Five-channel input of the calibration status classifier: how long each step takes, on one core.

A synthetic frame with every point in view, which is the most work there can be; by default the size and the number of
points that Autoware's cameras and lidars have. Compared, in the same run, with the step by step form of AWML's
transform that the framework reference is made with (`exporter/models/calibration/transform.py`): the results are
equal bit for bit, which is checked before anything is timed.

    OMP_NUM_THREADS=1 .venv/tools/bin/python -m benchmarks.projection
    OMP_NUM_THREADS=1 .venv/tools/bin/python -m benchmarks.projection --points 40000 --height 1080 --width 1920
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from benchmarks.voxelization import medians_ms
from exporter.models.calibration import transform as framework
from runtime.models.calibration.paint import paint
from runtime.models.calibration.project import project
from runtime.models.calibration.undistort import undistort, undistortion_map

MAX_DEPTH = 128.0
DILATION = 1
FOCAL = 1500.0  # [px]
DISTORTION = np.array([-0.3, 0.1, 0.001, -0.001, -0.01])


def frame(count: int, height: int, width: int, seed: int = 0) -> tuple[Any, Any, Any]:
    """Points (count, 4) spread evenly over the image, an image of noise, and intrinsics."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(2, 120, count)
    points = np.column_stack(
        [
            (rng.uniform(0, width - 1, count) - width / 2) / FOCAL * depth,
            (rng.uniform(0, height - 1, count) - height / 2) / FOCAL * depth,
            depth,
            rng.uniform(0, 255, count),
        ]
    ).astype(np.float32)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return points, image, np.array([[FOCAL, 0, width / 2], [0, FOCAL, height / 2], [0, 0, 1]])


def own_steps(points: Any, image: Any, intrinsics: Any, fused: Any) -> dict[str, Callable[[], Any]]:
    """The runtime's steps as calls, which fill ``fused`` (5, height, width)."""
    cv2.setNumThreads(1)
    height, width = fused.shape[1:]
    mapping = undistortion_map(intrinsics, DISTORTION, height, width)
    straight = undistort(image, mapping)

    def fuse() -> None:
        for channel in range(3):
            np.divide(straight[..., channel], np.float32(255), out=fused[channel])

    def project_points() -> Any:
        return project(points, np.eye(4), mapping.intrinsics, height, width, MAX_DEPTH)

    def project_and_paint() -> None:
        paint(project_points(), points[:, 3], MAX_DEPTH, DILATION, fused[3], fused[4])

    return {
        "undistort": lambda: undistort(image, mapping),
        "project": project_points,
        "project and paint": project_and_paint,
        "fuse": fuse,
    }


def measure(count: int, height: int, width: int, repeats: int) -> dict[str, Any]:
    """Time every step; returns milliseconds by step, and what the framework's form takes."""
    points, image, intrinsics = frame(count, height, width)
    fused = np.zeros((5, height, width), np.float32)
    own = own_steps(points, image, intrinsics, fused)

    def by_framework() -> Any:
        return framework.five_channels(
            image, points, intrinsics, DISTORTION, np.eye(4), max_depth=MAX_DEPTH, dilation_size=DILATION
        )

    own["fuse"]()
    own["project and paint"]()
    if not np.array_equal(by_framework(), fused):
        raise SystemExit("runtime and framework give different inputs; nothing is timed")
    steps = medians_ms({**own, "framework, all of it": by_framework}, repeats)
    whole = steps["undistort"] + steps["project and paint"] + steps["fuse"]
    return {
        "height": height,
        "width": width,
        "points": count,
        "points_seen": len(own["project"]()),
        "median_ms": steps,
        "runtime_all_of_it_ms": round(whole, 2),
        "speed_up": round(steps["framework, all of it"] / whole, 2),
    }


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200_000)
    parser.add_argument("--height", type=int, default=1860)
    parser.add_argument("--width", type=int, default=2880)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    print(json.dumps(measure(options.points, options.height, options.width, options.repeats), indent=1))


if __name__ == "__main__":
    main()

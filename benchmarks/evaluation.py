"""The metrics of 3D detection: time and memory on a made-up set, and nuscenes-devkit's time on the same boxes.

40 ground truths and 100 predictions a frame, 5 classes, boxes out to 121 m. Each metric runs in a process of its own,
so that its peak memory is its own; the devkit's time is for matching and averaging alone, without building its boxes.

    .venv/tools/bin/python -m benchmarks.evaluation
    .venv/tools/bin/python -m benchmarks.evaluation --frames 40000 --without-devkit
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable

from evaluator.boxes3d import t4, t4_matching
from evaluator.metrics.detection3d import RANGES
from shared.metrics import nuscenes
from tests.support.nuscenes_devkit import devkit_boxes, load_devkit
from tests.support.scenes import CLASSES, random_tables

SEED = 20261120
REACH = 121.0


def time_nuscenes(frames: int) -> float:
    """Seconds for the nuScenes metric at 0-121 m."""
    predictions, truths = random_tables(SEED, frames)
    started = time.perf_counter()
    nuscenes.score_range(nuscenes.find_candidates(predictions, truths), CLASSES, 0.0, REACH)
    return time.perf_counter() - started


def time_t4(frames: int) -> float:
    """Seconds for the T4 metric: four ranges, all rules, AP and APH."""
    predictions, truths = random_tables(SEED, frames)
    started = time.perf_counter()
    candidates = t4_matching.find_candidates(predictions, truths)
    for limits in RANGES:
        t4.score_range(candidates, CLASSES, *limits)
    return time.perf_counter() - started


def time_devkit(frames: int) -> float:
    """Seconds that nuscenes-devkit takes for the nuScenes metric at 0-121 m."""
    algo, _, utils = load_devkit()
    predictions, truths = random_tables(SEED, frames)
    near = [table.select(table.distances_to_ego() < REACH) for table in (predictions, truths)]
    predicted, actual = (devkit_boxes(table, CLASSES, frames) for table in near)
    started = time.perf_counter()
    for name in CLASSES:
        for distance in nuscenes.DISTANCES:
            algo.calc_ap(algo.accumulate(actual, predicted, name, utils.center_distance, distance), 0.1, 0.1)
    return time.perf_counter() - started


def measure(work: Callable[[int], float], frames: int) -> dict[str, float]:
    """Seconds, and peak memory in MiB, of ``work`` in a process of its own; input included."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds = pool.apply(work, (frames,))
        usage = pool.apply(resource.getrusage, (resource.RUSAGE_SELF,))
    return {"seconds": round(seconds, 3), "peak_mib": round(usage.ru_maxrss / 1024)}


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--without-devkit", action="store_true", help="the devkit takes 10 s per 1,000 frames")
    arguments = parser.parse_args()
    result = {"frames": arguments.frames, "nuscenes": measure(time_nuscenes, arguments.frames)}
    result["t4"] = measure(time_t4, arguments.frames)
    if not arguments.without_devkit:
        result["nuscenes_devkit"] = measure(time_devkit, arguments.frames)
        result["times_faster"] = round(result["nuscenes_devkit"]["seconds"] / result["nuscenes"]["seconds"], 1)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

"""How long the metrics of labeled points take on one core, and whether memory grows with the frames.

    OMP_NUM_THREADS=1 .venv/tools/bin/python -m benchmarks.labels --folder work/labels

Frames of made-up labels, as many different ones as `DIFFERENT`, over and over. The folder must not exist, and is
removed at the end: 1,000 frames of 120,000 points need 1.2 GB there. Time is that of the processor, so that others on
the machine hardly matter.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evaluator.bootstrap import draw, replicate
from evaluator.metrics import segmentation3d as metric
from shared.config.check_sections import Evaluation
from shared.data.label_file import LabelFile
from shared.data.types import PointFile, Sample
from shared.runs import Run, RunHeader, RunWriter
from shared.tasks.segmentation3d import PointClasses

DIFFERENT = 20


def write_frames(folder: Path, frames: int, points: int, num_classes: int) -> tuple[Run, list[Sample]]:
    """A run over frames of points that lie anywhere up to 120 m; two labels in three are right."""
    rng = np.random.default_rng(20261129)
    answers, files = [], []
    for index in range(DIFFERENT):
        truth = rng.integers(0, num_classes, points).astype(np.uint8)
        given = np.where(rng.random(points) < 0.33, rng.integers(0, num_classes, points), truth)
        answers.append(PointClasses.build(given, rng.random(points), rng.random(points)))
        truth.tofile(folder / f"{index}.labels.bin")
        rng.uniform(-85, 85, (points, 5)).astype(np.float32).tofile(folder / f"{index}.points.bin")
        lidar = PointFile(folder / f"{index}.points.bin", folder, 5)
        files.append((lidar, LabelFile(folder / f"{index}.labels.bin", {label: label for label in range(num_classes)})))
    samples = []
    for index in range(frames):
        lidar, labels = files[index % DIFFERENT]
        samples.append(Sample(index, str(index), 0.0, f"drive {index // 40}", lidar, point_labels=labels))
    header = RunHeader(
        backend="onnx", device="cpu", model="made up", task="segmentation3d",
        classes=list(map(str, range(num_classes))), dataset="made up",
        tokens=[sample.token for sample in samples], raw_samples=[], fingerprint="benchmark",
    )  # fmt: skip
    writer = RunWriter.open(folder / "run", header)
    for index in range(frames):
        writer.commit(index, answers[index % DIFFERENT], {"total": 1.0})
    writer.finish()
    return Run.open(folder / "run"), samples


def measured(step: Callable[[], Any]) -> tuple[Any, float]:
    """What a step gives, and the seconds of a processor that it took."""
    started = time.process_time()
    result = step()
    return result, time.process_time() - started


def main() -> None:
    """Write, measure, print JSON, clean up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--points", type=int, default=120_000)
    parser.add_argument("--classes", type=int, default=26)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    try:
        run, samples = write_frames(arguments.folder, arguments.frames, arguments.points, arguments.classes)
        names = run.header.classes
        truth = metric.ground_truth(samples, names, names)
        assert truth is not None
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        matched, counting = measured(lambda: metric.match(run, truth, names, Evaluation()))
        result, scoring = measured(lambda: metric.evaluate(matched))
        _, intervals = measured(lambda: replicate(draw(truth.tokens), partial(metric.resample, matched), "intervals"))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    finally:
        shutil.rmtree(arguments.folder)
    print(json.dumps({
        "frames": arguments.frames, "points": arguments.points, "classes": arguments.classes,
        "mIoU": round(result["overall"]["mIoU"], 4), "counting_s": round(counting, 2),
        "scores_s": round(scoring, 2), "intervals_s": round(intervals, 2), "memory_grew_mb": round(grown / 1024),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()

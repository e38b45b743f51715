"""Recording a run: what a sample's commit costs, and what a run of very many samples takes to resume, finish and read.

Compared, in the same run, with a .npz file a sample, flushed and renamed, which is the obvious other way.

    OMP_NUM_THREADS=1 .venv/tools/bin/python -m benchmarks.runs --folder work/benchmark
    OMP_NUM_THREADS=1 .venv/tools/bin/python -m benchmarks.runs --folder work/benchmark --samples 10000 --boxes 100

The folder lies on the disk that is meant and must not exist; it is removed at the end. 100,000 samples of 500 boxes
need 7 GB there.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shared.arrays import Arrays, write_arrays
from shared.runs import Run, RunHeader, RunWriter
from shared.sample_journal import SampleJournal
from shared.tasks.detection3d import Boxes3D

POINTS, CLASSES = 120_000, 16
_STAGES = ("voxelize", "decorate", "encoder", "scatter", "head", "decode", "nms", "total")
_LATENCIES = dict.fromkeys(_STAGES, 1.234567)
_COUNTERS = {"read": 200_000, "voxels": 40_000, "voxels_dropped": 0, "boxes": 500}


def boxes(count: int, seed: int = 0) -> Boxes3D:
    """Boxes with numbers of all digits."""
    random = np.random.default_rng(seed)
    return Boxes3D.build(
        random.normal(size=(count, 3)), random.random((count, 3)), random.random(count), scores=random.random(count)
    )


def labeled_points() -> Arrays:
    """Labels (120000,) int64 and scores (120000, 16) float32."""
    random = np.random.default_rng(0)
    labels, scores = random.integers(0, CLASSES, POINTS), random.random((POINTS, CLASSES), np.float32)
    return {"segmentation3d/labels": labels, "segmentation3d/scores": scores}


def header(samples: int) -> RunHeader:
    """The header of a run of so many samples."""
    return RunHeader(
        backend="onnx", device="cpu", model="centerpoint", task="detection3d", classes=["car"], dataset="benchmark",
        tokens=[f"{index:032x}" for index in range(samples)], raw_samples=[], fingerprint="benchmark",
    )  # fmt: skip


def commits_ms(add: Callable[[int], None], repeats: int) -> dict[str, float]:
    """Median, 99th percentile and maximum of a commit [ms]."""
    times = []
    for index in range(repeats):
        started = time.perf_counter()
        add(index)
        times.append((time.perf_counter() - started) * 1e3)
    p99 = float(np.percentile(times, 99))
    return {"median": round(statistics.median(times), 3), "p99": round(p99, 3), "max": round(max(times), 3)}


def measure_commits(folder: Path, box_count: int, repeats: int) -> dict[str, Any]:
    """What a commit costs, for boxes and for labeled points, and with a file a sample."""
    found, points = boxes(box_count), labeled_points()
    writer = RunWriter.open(folder / "boxes", header(repeats))
    (folder / "points").mkdir()
    journal = SampleJournal.open(folder / "points", repeats)
    measured = {
        f"{box_count} boxes": commits_ms(lambda index: writer.commit(index, found, _LATENCIES, _COUNTERS), repeats),
        f"{POINTS} points, {CLASSES} scores": commits_ms(
            lambda index: journal.add(index, _LATENCIES, _COUNTERS, points), repeats // 10
        ),
        f"{box_count} boxes, a file a sample": commits_ms(
            lambda index: write_arrays(folder / "files" / f"{index:06d}.npz", found.arrays()), repeats // 10
        ),
    }
    for name in ("boxes", "points", "files"):
        shutil.rmtree(folder / name)
    return measured


def _timed(found: dict[str, Any], name: str, action: Callable[[], Any]) -> Any:
    started, used = time.perf_counter(), time.process_time()
    result = action()
    found[f"{name}_s"] = round(time.perf_counter() - started, 2)
    found[f"{name}_cpu_s"] = round(time.process_time() - used, 2)
    return result


def finish_and_read(folder: Path, samples: int) -> dict[str, Any]:
    """Seconds to resume a run whose samples are all committed, to finish it, to open it and to read every sample."""
    found: dict[str, Any] = {}
    writer = _timed(found, "resume", lambda: RunWriter.open(folder, header(samples)))
    assert not writer.missing()
    _timed(found, "finish", writer.finish)
    run = _timed(found, "open", lambda: Run.open(folder))
    total = _timed(found, "read", lambda: sum(len(run.boxes(index)) for index in range(samples)))
    found["boxes"] = total
    found["peak_rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return found


def measure(folder: Path, samples: int, box_count: int, repeats: int) -> dict[str, Any]:
    """Everything, in ``folder``, which is removed."""
    folder.mkdir(parents=True)
    try:
        commits = measure_commits(folder, box_count, repeats)
        writer, found = RunWriter.open(folder / "run", header(samples)), boxes(box_count)
        started = time.perf_counter()
        for index in range(samples):
            writer.commit(index, found, _LATENCIES, _COUNTERS)
        commits[f"all {samples} samples [s]"] = round(time.perf_counter() - started, 1)
        # A process of its own, whose peak memory is that of reading alone.
        command = [sys.executable, "-m", "benchmarks.runs", "--folder", str(folder / "run"), "--samples", str(samples)]
        answer = subprocess.run([*command, "--finish"], check=True, capture_output=True, text=True)
        whole = json.loads(answer.stdout)
        assert whole.pop("boxes") == samples * box_count
        return {"commit_ms": commits, f"{samples} samples of {box_count} boxes": whole}
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What recording a run costs")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--boxes", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--finish", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.finish:
        result = finish_and_read(given.folder, given.samples)
    else:
        result = measure(given.folder, given.samples, given.boxes, given.repeats)
    print(json.dumps(result, indent=1))

"""Does a backend stay flat over 20,000 requests, and a run over 20,000 samples? Memory, descriptors and latency, by
backend; where the latency is not flat, `benchmarks.drift` says why.

A tiny CenterPoint, so that what grows is ours or the backend's and not the network's. Each measurement has a process of
its own; the growth is from the tenth part of the way to its end, so that what is made once does not count.

    OMP_NUM_THREADS=1 .venv/tools/bin/python -m benchmarks.soak --folder work/benchmark-soak

The folder must not exist; it is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.drift import Part, drift
from runtime.model import open_model
from runtime.run import run
from runtime.waiting import waited_ms
from shared.latency import TOTAL
from tests.support import tiny_centerpoint

BACKENDS = ("onnx", "pytorch")
_FRAMES = 50
_POINTS = 300
_PAGE = os.sysconf("SC_PAGE_SIZE")


def resources() -> tuple[int, int]:
    """Resident memory of this process [bytes], and how many descriptors it has open."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    return resident, len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (a Path each would be memory of ours)


def growth(marks: list[tuple[int, int]], count: int) -> dict[str, float]:
    """From the first tenth of ``marks`` to the last: medians of a tenth each, so that single readings don't count."""
    tenth = max(len(marks) // 10, 1)
    first, last = marks[tenth : 2 * tenth] or marks[:1], marks[-tenth:]
    memory = [statistics.median(mark[0] for mark in part) for part in (first, last)]
    return {
        "resident MB": round(memory[1] / 1e6, 1),
        "grown MB": round((memory[1] - memory[0]) / 1e6, 2),
        "grown bytes a request": round((memory[1] - memory[0]) / (0.85 * count), 1),
        "descriptors grown": statistics.median(m[1] for m in last) - statistics.median(m[1] for m in first),
    }


def requests(work: Path, backend: str, count: int) -> dict[str, float | str]:
    """``count`` requests on one pipeline."""
    model = open_model(work, backend, "cpu", None, 1)
    _, pipeline = model.load()
    data = pipeline.read(model.dataset.sample(0)).data
    marks, tenths, started = [], [], time.perf_counter()
    for numbers in np.array_split(np.arange(count), 10):
        times, waited = [], waited_ms()
        for number in numbers.tolist():
            times.append(pipeline.infer(data).latency_ms[TOTAL])
            if number % (count // 200 or 1) == 0:
                marks.append(resources())
        tenths.append(Part.of(times, [], (waited_ms() - waited) / sum(times)))
    flat = drift(tenths)
    return {
        "milliseconds each": round((time.perf_counter() - started) * 1e3 / count, 3),
        **growth(marks, count),
        "latency": flat.cause,
        "greatest median of a tenth over the least": round(flat.spread, 3),
    }


def samples(work: Path, backend: str, count: int) -> dict[str, float | str]:
    """`runtime run` over ``count`` samples; memory is read by a thread beside it."""
    marks: list[tuple[int, int]] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            marks.append(resources())

    started = time.perf_counter()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run(work, backend, "cpu", num_samples=count, threads=1)
    finally:
        ended.set()
        watcher.join()
    return {"milliseconds each": round((time.perf_counter() - started) * 1e3 / count, 3), **growth(marks, count)}


def alone(
    task: Callable[[Path, str, int], dict[str, float | str]], work: Path, backend: str, count: int
) -> dict[str, float | str]:
    """The answer of ``task`` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(task, (work, backend, count))


def main() -> None:
    """Print the growth of every backend as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20_000)
    options = parser.parse_args()
    frames = tiny_centerpoint.write_frames(options.folder / "frames", [_POINTS] * _FRAMES)
    try:
        for number in range(_FRAMES, options.count):
            (frames / f"{number:06d}.bin").hardlink_to(frames / f"{number % _FRAMES:03d}.bin")
        workspace = tiny_centerpoint.make_workspace(options.folder / "work", frames)
        results = {
            f"{backend}: {options.count} {task.__name__}": alone(task, workspace.root, backend, options.count)
            for backend in BACKENDS
            for task in (requests, samples)
        }
        print(json.dumps(results, indent=1))
    finally:
        shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()

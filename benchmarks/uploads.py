"""How an array in ordinary host memory gets into page-locked memory, and from there to a GPU: by whose threads.

    python benchmarks/uploads.py                     the copy alone, on any machine
    python benchmarks/uploads.py --device cuda       until the bytes are on the device

One thread is `ctypes.memmove`; OpenCV's copy all bytes before the device fetches them; `runtime.cuda.staging`, which
requests use, has OpenCV's threads copy the second part while the device fetches the first, of which there are several
shares. The driver, where there is a GPU, stages by itself. Arrays take turns, so that none is in a cache.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.voxelization import medians_ms
from runtime.cuda.gpu import open_gpu
from runtime.cuda.staging import FIRST_SHARE, Staging, copy_by_threads
from runtime.devices import parse_device
from shared.arrays import UInt8

# 120,000 points of FRNet, 200,000 of CenterPoint, an image of 1080 x 1920, one of 1860 x 2880.
SIZES = (2_400_000, 4_000_000, 6_220_800, 16_070_400)
# Of the part that is fetched first.
SHARES = (1 / 2, FIRST_SHARE, 3 / 4)
ARRAYS = 12


class CopyAlone:
    """In place of a GPU: memory that nobody fetches."""

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> UInt8:
        """Ordinary memory, touched."""
        return np.ones(shape, dtype)

    def is_page_locked(self, array: UInt8) -> bool:  # noqa: ARG002 - as `Gpu`
        """Never."""
        return False

    def to_device(self, array: UInt8, address: int, stream: Any) -> None:
        """Nothing."""

    def synchronize(self) -> None:
        """Nothing."""


def measure(size: int, repeats: int, device: str = "cpu") -> dict[str, float]:
    """Median [ms] of each way of bringing bytes to a device.

    Args:
        size: how many.
        repeats: of each way, in turn.
        device: ``cpu``: only the copy into memory that a device would fetch them from.

    Raises:
        UsageError: no such device.
        EnvironmentLacks: no pycuda, no driver, or no such GPU.
    """
    parsed = parse_device(device)
    gpu: Any = CopyAlone() if parsed.is_cpu else open_gpu(parsed)
    stream = None if parsed.is_cpu else gpu.stream()
    memory = None if parsed.is_cpu else gpu.allocate((size,), np.uint8)
    address = 0 if memory is None else memory.address
    rng = np.random.default_rng(0)
    arrays = itertools.cycle([rng.integers(0, 256, size, np.uint8) for _ in range(ARRAYS)])
    locked = gpu.pinned((size,), np.uint8)

    def through(copy: Callable[[UInt8, UInt8], Any]) -> Callable[[], None]:
        def upload() -> None:
            copy(next(arrays), locked)
            gpu.to_device(locked, address, stream)
            gpu.synchronize()

        return upload

    def staged(share: float) -> Callable[[], None]:
        staging = Staging(gpu, share)

        def upload() -> None:
            staging.begin()
            staging.to_device(next(arrays), address, stream)
            gpu.synchronize()

        return upload

    def driver() -> None:
        gpu.to_device(next(arrays), address, stream)
        gpu.synchronize()

    ways = {
        "one thread": through(lambda source, target: ctypes.memmove(target.ctypes.data, source.ctypes.data, size)),
        "OpenCV's threads": through(copy_by_threads),
        **{f"the same, {share:.2f} of it first": staged(share) for share in SHARES},
    }
    if not parsed.is_cpu:
        ways |= {"the driver": driver, "page-locked": through(lambda source, target: None)}
    return medians_ms(ways, repeats)


def main() -> None:
    """Print a line of JSON for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="bytes")
    parser.add_argument("--repeats", type=int, default=150)
    options = parser.parse_args()
    for size in options.sizes:
        times = measure(size, options.repeats, options.device)
        print(json.dumps({"bytes": size, "opencv_threads": cv2.getNumThreads(), "ms": times}), flush=True)


if __name__ == "__main__":
    main()

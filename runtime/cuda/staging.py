"""Uploads from ordinary host memory: copied into page-locked memory by several threads, and fetched from there.

The driver stages such copies too, with one thread. The threads here are OpenCV's, which wake up together and share an
image by its lines; any array is one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shared.arrays import UInt8
from shared.lazy import lazy_import

if TYPE_CHECKING:
    from runtime.cuda.gpu import Gpu

# It takes the number of its threads when it is loaded, which a command may set before (`shared.openmp`).
cv2 = lazy_import("cv2")

# Smaller arrays are left to the driver: a second thread is not worth its waking.
LEAST_BYTES = 1 << 20
# While the device fetches the first part, the threads copy the second; further parts cost more than they save. Behind
# the copies comes the second fetch, so that part is the smaller one: as copies take 1.5 to 3 times as long as fetches
# (4 MB 0.18 to 0.32 ms, 0.10), the first fetch has ended by then.
FIRST_SHARE = 2 / 3
# The threads share an array by lines of so many bytes.
LINE = 4096


class Staging:
    """Page-locked memory of one lane, through which arrays go to the device one request at a time.

    Args:
        gpu: where to.
        first_share: of an array that the device fetches while the rest is copied.
    """

    def __init__(self, gpu: Gpu, first_share: float = FIRST_SHARE) -> None:
        self._gpu, self._first_share = gpu, first_share
        self._memory: UInt8 = np.zeros(0, np.uint8)
        self._used = 0

    def begin(self) -> None:
        """The request before has been answered: its bytes are worth nothing any more."""
        self._used = 0

    def to_device(self, array: npt.NDArray[Any], address: int, stream: Any) -> None:
        """Enqueue a copy to device memory; the array may be written again when this returns.

        Arrays in page-locked memory are fetched from there, and must stay as they are until the request is answered.
        """
        source: UInt8 = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if source.nbytes < LEAST_BYTES or cv2.getNumThreads() == 1 or self._gpu.is_page_locked(source):
            self._gpu.to_device(source, address, stream)
            return
        staged = self._room(source.nbytes)
        for start, end in parts_of(source.nbytes, self._first_share):
            copy_by_threads(source[start:end], staged[start:end])
            self._gpu.to_device(staged[start:end], address + start, stream)

    def _room(self, size: int) -> UInt8:
        """So many bytes that nobody uses, from the start of a line."""
        taken = _in_lines(size)
        if self._used + taken > self._memory.nbytes:
            # What is on its way comes from the old memory.
            self._gpu.synchronize()
            self._memory, self._used = self._gpu.pinned((2 * (self._used + taken),), np.uint8), 0
        first, self._used = self._used, self._used + taken
        return self._memory[first : first + size]


def parts_of(size: int, first_share: float) -> list[tuple[int, int]]:
    """Start and end of each part of so many bytes, in whole lines but for the last."""
    end = min(_in_lines(math.ceil(size * first_share)), size)
    return [part for part in ((0, end), (end, size)) if part[0] < part[1]]


def copy_by_threads(source: UInt8, target: UInt8) -> None:
    """Copy (N,) bytes by OpenCV's threads: a threshold that sets to 0 what is not above 0, and so changes none."""
    lines = source.size // LINE * LINE
    if lines:
        shape = (-1, LINE)
        cv2.threshold(source[:lines].reshape(shape), 0, 255, cv2.THRESH_TOZERO, target[:lines].reshape(shape))
    target[lines:] = source[lines:]


def _in_lines(size: int) -> int:
    """So many bytes, filled up to whole lines."""
    return -(-size // LINE) * LINE

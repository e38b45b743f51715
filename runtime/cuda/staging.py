"""Host arrays to the device by way of page-locked memory: in parts, which several threads copy and the device fetches.

One thread copies about 14 GB/s on a server, a quarter of what the bus takes: for a frame of 4 MB that is 0.2 ms.
"""

from __future__ import annotations

import functools
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.cuda.gpu import driver

# More threads than this wait for memory, not for one another.
MOST_PARTS = 4
# A part below this is copied sooner than a thread wakes.
LEAST_PART = 1 << 19


def upload(source: npt.NDArray[Any], staged: npt.NDArray[Any], address: int, stream: Any) -> None:
    """Copy an array to the device. Returns when it may be changed again; the device may still be at work.

    Args:
        source: host memory of any kind.
        staged: page-locked memory of the same shape, contiguous; must stay as it is until the stream got there.
        address: of device memory for as many bytes.
        stream: that the device's copies go to.
    """
    if staged.nbytes == 0:
        return
    parts = min(MOST_PARTS, _cores(), staged.nbytes // LEAST_PART)
    if parts < 2:
        staged[...] = source
        driver.memcpy_htod_async(address, staged, stream)
        return
    edges = np.linspace(0, len(staged), parts + 1, dtype=int)
    rows = [slice(first, last) for first, last in itertools.pairwise(edges)]
    # The calling thread copies the first part, while the others wake.
    copies = [_threads().submit(np.copyto, staged[part], source[part]) for part in rows[1:]]
    np.copyto(staged[rows[0]], source[rows[0]])
    for number, part in enumerate(rows):
        if number > 0:
            copies[number - 1].result()
        driver.memcpy_htod_async(address + int(part.start) * staged.strides[0], staged[part], stream)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST_PARTS - 1, thread_name_prefix="staging")


@functools.cache
def _cores() -> int:
    return len(os.sched_getaffinity(0))

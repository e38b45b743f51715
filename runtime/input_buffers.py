"""Memory that a reader process writes inputs into and the process of the model takes them from, without a copy.

A buffer is a file without a name: it goes with the last process that has it open, however that ends, and is not bound
by the size of /dev/shm, which is 64 MB in a container. Both sides map it; whoever writes makes it larger where an input
does not fit.
"""

from __future__ import annotations

import mmap
import os
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shared.arrays import Arrays

# Arrays begin at lines of the processor's cache.
_ALIGNMENT = 64
# Buffers grow in steps: an input that is a little larger than the last fits.
_STEP = 1 << 21


class Placed(NamedTuple):
    """Where an array is in a buffer: its name, NumPy's text for its dtype, its shape, its first byte."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int


class InputBuffer:
    """One of the buffers.

    Attributes:
        descriptor: of its file.
    """

    def __init__(self, descriptor: int) -> None:
        """Open what another process made; `make` makes one."""
        self.descriptor = descriptor
        self._bytes: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)

    @staticmethod
    def make() -> InputBuffer:
        """An empty one."""
        return InputBuffer(os.memfd_create("awml-deploy input"))

    def mapped(self) -> npt.NDArray[np.uint8]:
        """All of it as bytes, as large as it is now; the same array until somebody has made it larger."""
        size = os.fstat(self.descriptor).st_size
        if size != len(self._bytes):
            self._bytes = np.frombuffer(mmap.mmap(self.descriptor, size), np.uint8)
        return self._bytes

    def write(self, arrays: Arrays, start: int = 0) -> tuple[list[Placed], int]:
        """Put arrays into it from a byte on, and make it larger where they don't fit.

        Args:
            arrays: by name.
            start: the byte, a multiple of 64.

        Returns:
            Where they are, and the byte after them, a multiple of 64 too.
        """
        placed, end = [], start
        for name, array in arrays.items():
            placed.append(Placed(name, array.dtype.str, array.shape, end))
            end += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        if end > os.fstat(self.descriptor).st_size:
            os.ftruncate(self.descriptor, -(-end // _STEP) * _STEP)
        for name, target in self.read(placed).items():
            target[...] = arrays[name]
        return placed, end

    def read(self, placed: list[Placed]) -> Arrays:
        """The arrays, by name, as views: they change when the next input is written."""
        whole = self.mapped()
        return {name: np.ndarray(shape, dtype, whole, start) for name, dtype, shape, start in placed}

    def close(self) -> None:
        """Give up the file; arrays that were read from it stay valid."""
        os.close(self.descriptor)
        self._bytes = np.zeros(0, np.uint8)

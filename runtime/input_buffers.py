"""Memory that a reader process writes inputs into and the process of the model takes them from, without a copy.

A buffer is a file without a name: it goes with the last process that has it open, however that ends, and is not bound
by the size of /dev/shm, which is 64 MB in a container. Both sides map it; whoever writes makes it larger where an input
does not fit.
"""

from __future__ import annotations

import mmap
import os

import numpy as np
import numpy.typing as npt

from shared.arrays import Arrays

# Arrays begin at lines of the processor's cache.
_ALIGNMENT = 64
# Buffers grow in steps: an input that is a little larger than the last fits.
_STEP = 1 << 21


#: Where an array is in a buffer: its name, NumPy's text for its dtype, its shape, its first byte.
Placed = tuple[str, str, tuple[int, ...], int]


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

    def mapped(self, end: int) -> npt.NDArray[np.uint8]:
        """It as bytes, up to ``end`` at least; the same array until that is beyond it."""
        if end > len(self._bytes):
            self._bytes = np.frombuffer(mmap.mmap(self.descriptor, os.fstat(self.descriptor).st_size), np.uint8)
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
            placed.append((name, array.dtype.str, array.shape, end))
            end += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        if end > os.fstat(self.descriptor).st_size:
            os.ftruncate(self.descriptor, -(-end // _STEP) * _STEP)
        for name, target in arrays_in(self.mapped(end), placed).items():
            target[...] = arrays[name]
        return placed, end

    def close(self) -> None:
        """Give up the file; arrays that were read from it stay valid."""
        os.close(self.descriptor)
        self._bytes = np.zeros(0, np.uint8)


def arrays_in(mapped: npt.NDArray[np.uint8], placed: list[Placed]) -> Arrays:
    """Arrays of a buffer that is mapped, by name, as views: they change when the next input is written."""
    return {name: np.ndarray(shape, dtype, mapped, start) for name, dtype, shape, start in placed}

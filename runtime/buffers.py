"""Buffers that live as long as the pipeline and are cleared only where the request before wrote."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shared.arrays import Float32, Int64


def rows_as_items(array: npt.NDArray[np.generic]) -> npt.NDArray[np.void]:
    """A 1-D view (rows,) of a C-contiguous 2-D array in which a whole row is one item.

    NumPy moves such an item with one memcpy; indexing the 2-D array would loop over its columns, at half the speed.
    """
    return array.view(np.dtype((np.void, array.shape[1] * array.itemsize)))[:, 0]


class RowBuffer:
    """A (rows, columns) float32 array that is zero wherever the current request did not write.

    A CenterPoint encoder reads 96,000 x 32 x 11 floats (135 MB), of which a frame fills a few percent: clearing what
    the last frame filled costs milliseconds, a new array costs its page faults each time.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.array: Float32 = np.zeros((rows, columns), np.float32)
        self._items = rows_as_items(self.array)
        self._zero = np.zeros((), self._items.dtype)
        self._written: Int64 = np.zeros(0, np.int64)

    def write(self, rows: Int64, values: Float32) -> None:
        """Replace the contents: ``values`` (N, columns) at the distinct ``rows`` (N,), zero everywhere else."""
        self._items[self._written] = self._zero
        # Noted before it is written: after an interrupt in between, clearing too much is harmless.
        self._written = rows
        self._items[rows] = rows_as_items(values)

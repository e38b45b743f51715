"""How magnitudes are spread, whatever their scale and number, in half a megabyte.

One bin per binary exponent and leading five bits of the mantissa, read straight off the bits of a number: every size
from 0 to the largest number, in bins 1/32 of an octave wide. Quantiles are exact to 3.2 %.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from shared.arrays import Float64

_MANTISSA_BITS_KEPT = 5
_SHIFT = 52 - _MANTISSA_BITS_KEPT
_BINS = 1 << (11 + _MANTISSA_BITS_KEPT)
_BINS_PER_OCTAVE = 1 << _MANTISSA_BITS_KEPT
_EXPONENT_OF_ONE = 1023
_TOGETHER = 4096

#: Quantiles that are reported.
QUANTILES = (0.5, 0.9, 0.99, 0.999)


class Histogram:
    """Counts of magnitudes; `add` feeds it."""

    def __init__(self) -> None:
        self._counts: npt.NDArray[np.int64] = np.zeros(_BINS, np.int64)
        self._largest = 0.0
        # Not counted yet: to count the few errors of each sample took most of a comparison.
        self._waiting: list[Float64] = []
        self._num_waiting = 0

    def add(self, magnitudes: Float64) -> None:
        """Count (N,) finite numbers that are not negative; they must not change afterwards."""
        if not len(magnitudes):
            return
        self._waiting.append(magnitudes)
        self._num_waiting += len(magnitudes)
        if self._num_waiting >= _TOGETHER:
            self._count()

    def _count(self) -> None:
        if self._num_waiting:
            magnitudes = np.concatenate(self._waiting)
            bins = magnitudes.view(np.uint64) >> np.uint64(_SHIFT)
            self._counts += np.bincount(bins.astype(np.int64), minlength=_BINS)
            self._largest = max(self._largest, float(magnitudes.max()))
        self._waiting, self._num_waiting = [], 0

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """(bins,) numbers in each bin."""
        self._count()
        return self._counts

    @property
    def largest(self) -> float:
        """The largest magnitude so far, 0 before the first."""
        self._count()
        return self._largest

    def __len__(self) -> int:
        return int(self.counts.sum())

    def quantile(self, q: float) -> float:
        """Upper bound of the ``q`` quantile, at most 3.2 % above it.

        Args:
            q: in (0, 1].
        """
        rank = max(1, math.ceil(q * len(self)))
        bin_index = int(np.searchsorted(np.cumsum(self.counts), rank))
        if bin_index == 0:
            # Zero and numbers below the smallest bin edge, which are denormal.
            return 0.0
        edge = np.array([(bin_index + 1) << _SHIFT], np.uint64).view(np.float64)[0]
        return float(min(edge, self.largest))

    def quantiles(self) -> dict[str, float]:
        """The reported quantiles by their number as text; empty when nothing was counted."""
        return {str(q): self.quantile(q) for q in QUANTILES} if len(self) else {}

    def octaves(self) -> dict[str, int]:
        """Numbers per binary exponent: "-10" counts those in [2^-10, 2^-9), "0 error" zeros."""
        counts = self.counts.reshape(-1, _BINS_PER_OCTAVE).sum(axis=1)
        octaves = {str(e - _EXPONENT_OF_ONE): int(counts[e]) for e in np.flatnonzero(counts) if e}
        return {"0 error": int(counts[0]), **octaves} if counts[0] else octaves

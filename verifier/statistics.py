"""How far two recordings of the same output are apart: statistics in float64, one sample at a time.

Memory is bounded by one sample, whatever the number of samples: sums, extremes and a histogram (`verifier.histogram`,
quantiles exact to 3.2 %) are kept.

Thresholds live elsewhere (`verifier.tolerances`): what is stored can be judged again without comparing again.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.arrays import Bool, Float64
from verifier.histogram import Histogram

# Elements handled at a time, so that an output of any size needs some 50 MB besides itself.
_CHUNK = 1 << 20


class OutputStatistics:
    """Statistics of one output over the samples seen so far; `add` feeds it, `summary` gives them.

    Elements that are NaN or infinite on either side are counted and left out of everything else.

    Attributes:
        problems: what could not be compared, a line each.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._samples = self._elements = 0
        self._reference_nan = self._reference_inf = self._test_nan = self._test_inf = 0
        self._max_abs = self._max_relative = self._peak = 0.0
        self._sum_abs = self._sum_relative = 0.0
        self._signal_energy = self._test_energy = self._noise_energy = self._dot = 0.0
        self._worst_cosine = 1.0
        self._worst_cosine_sample: int | None = None
        self._worst: dict[str, Any] | None = None
        self._histogram = Histogram()

    def add(self, sample: int, reference: npt.NDArray[Any], test: npt.NDArray[Any]) -> None:
        """Compare one sample's output.

        Args:
            sample: position of the sample in the run.
            reference: what is right; any shape, numeric or boolean.
            test: what is compared; a different shape is recorded as a problem and nothing else is.
        """
        if reference.shape != test.shape:
            self.problems.append(f"sample {sample}: shape {test.shape}, the reference has {reference.shape}")
            return
        self._samples += 1
        self._elements += reference.size
        flat_reference, flat_test = reference.reshape(-1), test.reshape(-1)
        scale = _root_mean_square(flat_reference)
        dot = signal = energy = 0.0
        for start in range(0, reference.size, _CHUNK):
            a = flat_reference[start : start + _CHUNK].astype(np.float64)
            b = flat_test[start : start + _CHUNK].astype(np.float64)
            finite = self._count_non_finite(a, b)
            if finite is not None:
                positions, a, b = np.flatnonzero(finite), a[finite], b[finite]
                if not len(a):
                    continue
            error = np.abs(a - b)
            self._add_errors(error, np.abs(a) + scale)
            dot, signal, energy = dot + float(a @ b), signal + float(a @ a), energy + float(b @ b)
            self._peak = max(self._peak, float(np.abs(a).max()))
            where = int(error.argmax())
            if self._worst is None or error[where] > self._max_abs:
                position = start + (where if finite is None else int(positions[where]))
                index = [int(axis) for axis in np.unravel_index(position, reference.shape)]
                values = {"reference": float(a[where]), "test": float(b[where])}
                self._worst = {"sample": sample, "index": index, **values}
                self._max_abs = float(error[where])
        cosine = _cosine(dot, signal, energy)
        if cosine < self._worst_cosine:
            self._worst_cosine, self._worst_cosine_sample = cosine, sample
        self._dot, self._signal_energy, self._test_energy = (
            self._dot + dot,
            self._signal_energy + signal,
            self._test_energy + energy,
        )

    def _count_non_finite(self, a: Float64, b: Float64) -> Bool | None:
        """Count NaN and Inf; the mask of elements that are finite on both sides, or None when all are."""
        finite = np.isfinite(a) & np.isfinite(b)
        if finite.all():
            return None
        self._reference_nan += int(np.isnan(a).sum())
        self._reference_inf += int(np.isinf(a).sum())
        self._test_nan += int(np.isnan(b).sum())
        self._test_inf += int(np.isinf(b).sum())
        return finite

    def _add_errors(self, error: Float64, magnitude: Float64) -> None:
        # |error| / (|reference| + root mean square of the output): finite at zeros, 0 for no error, inf only where the
        # whole reference is zero and the test is not.
        relative = np.divide(error, magnitude, out=np.where(error > 0, np.inf, 0.0), where=magnitude > 0)
        self._max_relative = max(self._max_relative, float(relative.max()))
        self._sum_relative += float(relative.sum())
        self._sum_abs += float(error.sum())
        self._noise_energy += float(error @ error)
        self._histogram.add(error)

    @property
    def compared(self) -> int:
        """Elements that were finite on both sides."""
        return len(self._histogram)

    def summary(self) -> dict[str, Any]:
        """What is stored: JSON, without NaN and infinities (null: infinite or nothing to compute it from).

        Absolute errors are ``max_abs``, ``mean_abs``, ``rmse`` and ``quantiles_abs``; ``max_relative`` and
        ``mean_relative`` are theirs over |reference| plus the output's root mean square. ``cosine`` is that of all
        samples, ``worst_cosine`` that of one. ``worst`` is where the largest absolute error was: sample of the run,
        index in the output, and the two values. ``snr_db`` and ``psnr_db`` are null when there is no error at all
        (``noise_energy`` 0) or no signal.
        """
        count = self.compared
        return {
            "samples": self._samples,
            "elements": self._elements,
            "compared": count,
            "reference_nan": self._reference_nan,
            "reference_inf": self._reference_inf,
            "test_nan": self._test_nan,
            "test_inf": self._test_inf,
            "max_abs": _json(self._max_abs) if count else None,
            "mean_abs": _json(self._sum_abs / count) if count else None,
            "rmse": _json(math.sqrt(self._noise_energy / count)) if count else None,
            "quantiles_abs": self._histogram.quantiles(),
            "max_relative": _json(self._max_relative) if count else None,
            "mean_relative": _json(self._sum_relative / count) if count else None,
            "cosine": _cosine(self._dot, self._signal_energy, self._test_energy) if count else None,
            "worst_cosine": self._worst_cosine if count else None,
            "worst_cosine_sample": self._worst_cosine_sample,
            "snr_db": _decibel(self._signal_energy, self._noise_energy),
            "psnr_db": _decibel(self._peak**2, self._noise_energy / count) if count else None,
            "signal_energy": _json(self._signal_energy),
            "noise_energy": _json(self._noise_energy),
            "peak": self._peak,
            "worst": self._worst,
            "histogram_octaves": self._histogram.octaves(),
            "problems": self.problems,
        }


def _root_mean_square(values: npt.NDArray[Any]) -> float:
    """Root mean square of the finite values; 0 for none."""
    total, count = 0.0, 0
    for start in range(0, values.size, _CHUNK):
        chunk = values[start : start + _CHUNK].astype(np.float64)
        chunk = chunk[np.isfinite(chunk)]
        total, count = total + float(chunk @ chunk), count + len(chunk)
    return math.sqrt(total / count) if count else 0.0


def _cosine(dot: float, first: float, second: float) -> float:
    """Cosine of the angle between two vectors from their products; two zero vectors agree, zero and not-zero don't."""
    if first == 0.0 and second == 0.0:
        return 1.0
    if first == 0.0 or second == 0.0:
        return 0.0
    # Rounding of the sums may exceed 1 by an ulp.
    return min(1.0, dot / (math.sqrt(first) * math.sqrt(second)))


def _decibel(signal: float, noise: float) -> float | None:
    return 10.0 * math.log10(signal / noise) if signal > 0.0 and noise > 0.0 else None


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None

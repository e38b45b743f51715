"""How far two recordings of the same output are apart: statistics in float64, one sample at a time.

Memory is bounded by one sample, whatever the number of samples: sums, extremes and a histogram (`verifier.histogram`,
quantiles exact to 3.2 %) are kept.

Thresholds live elsewhere (`verifier.tolerances`): what is stored can be judged again without comparing again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.arrays import Bool, Float64
from verifier.histogram import Histogram

# Elements handled at a time, so that an output of any size needs some 50 MB besides itself.
_CHUNK = 1 << 20


@dataclass
class OutputStatistics:
    """Statistics of one output over the samples seen so far; `add` feeds it.

    Elements that are NaN or infinite on either side are counted and left out of everything else.
    """

    samples: int = 0
    elements: int = 0
    reference_nan: int = 0
    reference_inf: int = 0
    test_nan: int = 0
    test_inf: int = 0
    max_abs: float = 0.0
    max_relative: float = 0.0
    peak: float = 0.0
    sum_abs: float = 0.0
    sum_relative: float = 0.0
    signal_energy: float = 0.0
    test_energy: float = 0.0
    noise_energy: float = 0.0
    dot: float = 0.0
    worst_cosine: float = 1.0
    worst_cosine_sample: int | None = None
    worst: dict[str, Any] | None = None
    problems: list[str] = field(default_factory=list)
    histogram: Histogram = field(default_factory=Histogram)

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
        self.samples += 1
        self.elements += reference.size
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
            self.peak = max(self.peak, float(np.abs(a).max()))
            where = int(error.argmax())
            if self.worst is None or error[where] > self.max_abs:
                position = start + (where if finite is None else int(positions[where]))
                index = [int(axis) for axis in np.unravel_index(position, reference.shape)]
                values = {"reference": float(a[where]), "test": float(b[where])}
                self.worst = {"sample": sample, "index": index, **values}
                self.max_abs = float(error[where])
        cosine = _cosine(dot, signal, energy)
        if cosine < self.worst_cosine:
            self.worst_cosine, self.worst_cosine_sample = cosine, sample
        self.dot, self.signal_energy, self.test_energy = (
            self.dot + dot,
            self.signal_energy + signal,
            self.test_energy + energy,
        )

    def _count_non_finite(self, a: Float64, b: Float64) -> Bool | None:
        """Count NaN and Inf; the mask of elements that are finite on both sides, or None when all are."""
        finite = np.isfinite(a) & np.isfinite(b)
        if finite.all():
            return None
        self.reference_nan += int(np.isnan(a).sum())
        self.reference_inf += int(np.isinf(a).sum())
        self.test_nan += int(np.isnan(b).sum())
        self.test_inf += int(np.isinf(b).sum())
        return finite

    def _add_errors(self, error: Float64, magnitude: Float64) -> None:
        # |error| / (|reference| + root mean square of the output): finite at zeros, 0 for no error, inf only where the
        # whole reference is zero and the test is not.
        relative = np.divide(error, magnitude, out=np.where(error > 0, np.inf, 0.0), where=magnitude > 0)
        self.max_relative = max(self.max_relative, float(relative.max()))
        self.sum_relative += float(relative.sum())
        self.sum_abs += float(error.sum())
        self.noise_energy += float(error @ error)
        self.histogram.add(error)

    @property
    def compared(self) -> int:
        """Elements that were finite on both sides."""
        return len(self.histogram)

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
            "samples": self.samples,
            "elements": self.elements,
            "compared": count,
            "reference_nan": self.reference_nan,
            "reference_inf": self.reference_inf,
            "test_nan": self.test_nan,
            "test_inf": self.test_inf,
            "max_abs": _json(self.max_abs) if count else None,
            "mean_abs": _json(self.sum_abs / count) if count else None,
            "rmse": _json(math.sqrt(self.noise_energy / count)) if count else None,
            "quantiles_abs": self.histogram.quantiles(),
            "max_relative": _json(self.max_relative) if count else None,
            "mean_relative": _json(self.sum_relative / count) if count else None,
            "cosine": _cosine(self.dot, self.signal_energy, self.test_energy) if count else None,
            "worst_cosine": self.worst_cosine if count else None,
            "worst_cosine_sample": self.worst_cosine_sample,
            "snr_db": _decibel(self.signal_energy, self.noise_energy),
            "psnr_db": _decibel(self.peak**2, self.noise_energy / count) if count else None,
            "signal_energy": _json(self.signal_energy),
            "noise_energy": _json(self.noise_energy),
            "peak": self.peak,
            "worst": self.worst,
            "histogram_octaves": self.histogram.octaves(),
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

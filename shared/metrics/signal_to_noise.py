"""How far outputs of a network are from a reference, as a ratio of powers."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from shared.arrays import Arrays

#: Bounds of the ratios [dB]: outputs that are not finite, and equal outputs.
SNR_BOUNDS = (-100.0, 200.0)


def snr_db(pairs: Iterable[tuple[Arrays, Arrays]]) -> dict[str, float]:
    """Signal to noise ratio per output over some samples, ``10 log10(sum(r^2) / sum((r - o)^2))`` [dB].

    Args:
        pairs: of each sample the reference's outputs and the others', by name.

    Returns:
        By name, within `SNR_BOUNDS`. Outputs whose shape differs (as many rows as boxes) are left out.
    """
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    other = set[str]()
    for reference, outputs in pairs:
        for name, right in reference.items():
            if name not in outputs or outputs[name].shape != right.shape:
                other.add(name)
                continue
            wide = right.astype(np.float64)
            signal[name] = signal.get(name, 0.0) + float(np.sum(wide**2))
            noise[name] = noise.get(name, 0.0) + float(np.sum((wide - outputs[name]) ** 2))
    return {name: _decibel(signal[name], noise[name]) for name in signal if name not in other}


def _decibel(signal: float, noise: float) -> float:
    low, high = SNR_BOUNDS
    if not math.isfinite(noise):
        return low
    if noise == 0.0 or signal == 0.0:
        return high if noise == 0.0 else low
    return float(np.clip(10.0 * math.log10(signal / noise), low, high))

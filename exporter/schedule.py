"""The learning rate over a training: one rise and one fall."""

from __future__ import annotations

import math

WARM_UP = 0.3  # share of the training in which the learning rate rises
START_DIVISOR, END_DIVISOR = 10.0, 1e4  # of the greatest learning rate


def one_cycle(progress: float, greatest: float) -> float:
    """Return the learning rate at a share of the training: cosine up to the greatest, cosine down."""
    if progress < WARM_UP:
        start, end, share = greatest / START_DIVISOR, greatest, progress / WARM_UP
    else:
        start, end = greatest, greatest / END_DIVISOR
        share = min((progress - WARM_UP) / (1 - WARM_UP), 1.0)
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

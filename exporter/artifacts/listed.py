"""Lists of what a network found, in an order that rounding decides where two are nearly equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

# Rounding decides between neighbors: an entry that lies further off is a fault, such as a list the other way round.
MOST_PLACES = 4


def in_order_of(
    reference: Sequence[npt.NDArray[Any]], values: Sequence[npt.NDArray[Any]], axis: int
) -> list[npt.NDArray[Any]]:
    """The same list with each entry at the place of the reference's that is most like it, all of them taken together.

    No entry moves by more than `MOST_PLACES`.

    Args:
        reference: outputs of a network, each with N entries along ``axis``.
        values: another computation of them, of the same shapes and finite.
        axis: of every output.

    Returns:
        The values, with one permutation of the entries in all outputs.
    """
    rows = cdist(_entries(reference, reference, axis), _entries(values, reference, axis), "sqeuclidean")
    places = np.arange(len(rows))
    rows[np.abs(places[:, None] - places) > MOST_PLACES] = np.inf
    _, places = linear_sum_assignment(rows)
    return [np.take(value, places, axis) for value in values]


def _entries(
    outputs: Sequence[npt.NDArray[Any]], reference: Sequence[npt.NDArray[Any]], axis: int
) -> npt.NDArray[np.float64]:
    """(N, F): what all outputs say of an entry, each relative to the reference's largest value."""
    columns = []
    for output, scale in zip(outputs, reference, strict=True):
        entries = np.moveaxis(output, axis, 0).reshape(output.shape[axis], -1).astype(np.float64)
        columns.append(entries / max(float(np.abs(scale).max(initial=0.0)), 1e-6))
    return np.concatenate(columns, axis=1)

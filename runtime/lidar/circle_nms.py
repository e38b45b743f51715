"""Circle NMS: of boxes whose centers lie close together, keep the one with the best score."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shared.arrays import Float32, Int64


def circle_nms(centers: Float32, scores: Float32, radius: float, post_max_size: int) -> Int64:
    """Greedy suppression by distance in the x, y plane, whatever the classes.

    The rule of mmdetection3d (``models/layers/box3d_nms.py``): from the highest score down, a box suppresses every
    later one at a *squared* distance of at most ``radius`` [m²], so that ``radius`` 4 reaches 2 m. Equal scores are
    taken in the order given (there, an unstable sort leaves their order open).

    Args:
        centers: (N, 2) float32, x and y [m].
        scores: (N,) float32.
        radius: limit of the squared distance [m²].
        post_max_size: boxes to keep at most.

    Returns:
        (K,) int64, the boxes kept, highest score first.
    """
    order = np.argsort(-scores, kind="stable")
    x, y = centers[order].T
    # A float64 scalar lifts the comparison to double, as there: 0.85 is no float32.
    limit = np.float64(radius)
    alive = np.ones(len(order), np.bool_)
    kept: list[int] = []
    position = 0
    while position < len(order) and len(kept) < post_max_size:
        kept.append(position)
        distances = np.square(x[position] - x[position:]) + np.square(y[position] - y[position:])
        alive[position:] &= ~(distances <= limit)
        alive[position] = False
        position = _next_alive(alive, position)
    return order[np.array(kept, np.int64)]


def _next_alive(alive: npt.NDArray[np.bool_], start: int) -> int:
    """First position from ``start`` on that is not suppressed; the length when there is none."""
    step = int(np.argmax(alive[start:]))
    return start + step if alive[start + step] else len(alive)

"""Decoding of a center head: from the raw outputs of one task to boxes, before suppression.

The rules of mmdetection3d 1.4 (``dense_heads/centerpoint_head.py`` ``predict_by_feat``, and
``coders/centerpoint_bbox_coders.py``): the ``max_num`` best cells of each class, of those the ``max_num`` best of all
classes, then those above the score threshold whose center lies in ``post_center_range``. As both limits are the same,
that is the ``max_num`` best of all cells, and the threshold can come first. There is no local-maximum search.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from runtime.models.centerpoint.parameters import BoxCoder, CenterPointParameters
from shared.arrays import Float32, Int64
from shared.tasks.detection3d import Boxes3D


def undo_y_axis_reference(dim: Float32, rot: Float32) -> tuple[Float32, Float32]:
    """Bring sizes and rotation of a ``rot_y_axis_reference`` export back to the convention of training.

    Such an export has w, l, h for l, w, h, and (-cos, -sin) for (sin, cos): Autoware's convention.

    Args:
        dim: (3, ...) float32, w, l, h.
        rot: (2, ...) float32, -cos, -sin.

    Returns:
        The same two as l, w, h and sin, cos. Exact: nothing is rounded.
    """
    return dim[[1, 0, 2]], -rot[[1, 0]]


def decode(
    outputs: Mapping[str, Float32], parameters: CenterPointParameters, out_size_factor: int | None = None
) -> Boxes3D:
    """Boxes of one task, best score first, labels from 0.

    Args:
        outputs: raw outputs (1, channels, H, W) float32 of one task: ``heatmap`` (logits, a channel a class), ``reg``
            (offset in the cell: x, y), ``height`` (z of the gravity center), ``dim`` (l, w, h), ``rot`` (sin, cos),
            and, where the head has it, ``vel`` (x, y [m/s]).
        parameters: of the model.
        out_size_factor: voxels per output cell, if not the model's.

    Returns:
        At most ``max_num`` boxes. Equal scores are ordered by class, then by cell (row by row).
    """
    heatmap = outputs["heatmap"][0]
    width = heatmap.shape[2]
    cells_per_class = heatmap.shape[1] * width
    best, scores = _best_cells(heatmap.reshape(-1), parameters.bbox_coder)
    labels, cells = np.divmod(best, cells_per_class)
    rows, columns = np.divmod(cells, width)

    def gather(name: str) -> Float32:
        """(channels, K) values of an output at the chosen cells."""
        channels: Float32 = outputs[name][0].reshape(-1, cells_per_class)
        return channels[:, cells]

    offset = gather("reg")
    sizes, rotation = gather("dim"), gather("rot")
    if parameters.rot_y_axis_reference:
        sizes, rotation = undo_y_axis_reference(sizes, rotation)
    if parameters.norm_bbox:
        # A size that float32 can't hold is infinite, in the framework too.
        with np.errstate(over="ignore"):
            sizes = np.exp(sizes.astype(np.float64)).astype(np.float32)
    factor = out_size_factor or parameters.out_size_factor
    centers = np.stack(
        [
            _meters(columns, offset[0], factor, parameters, axis=0),
            _meters(rows, offset[1], factor, parameters, axis=1),
            gather("height")[0],
        ],
        axis=1,
    )
    low, high = np.array(parameters.bbox_coder.post_center_range, np.float32).reshape(2, 3)
    in_range = np.flatnonzero(((centers >= low) & (centers <= high)).all(axis=1))
    return Boxes3D.build(
        centers=centers,
        sizes=sizes.T,
        yaws=np.arctan2(rotation[0].astype(np.float64), rotation[1].astype(np.float64)),
        velocities=gather("vel").T if "vel" in outputs else None,
        labels=labels,
        scores=scores,
    ).select(in_range)


def _best_cells(logits: Float32, coder: BoxCoder) -> tuple[Int64, Float32]:
    """The best cells of a task's flattened heatmap (classes * H * W,): numbers and scores, best first.

    NaN is never chosen.
    """
    # The sigmoid is computed where it can matter: of a million cells a few hundred.
    candidates = np.flatnonzero(logits >= logit_threshold(coder.score_threshold))
    scores = _sigmoid(logits[candidates])
    if len(scores) > coder.max_num:
        # Everything that ties with the last one stays until the order among ties is settled below.
        limit = np.partition(scores, len(scores) - coder.max_num)[len(scores) - coder.max_num]
        contenders = scores >= limit
        candidates, scores = candidates[contenders], scores[contenders]
    best = np.argsort(-scores, kind="stable")[: coder.max_num]
    return candidates[best], scores[best]


@functools.lru_cache
def logit_threshold(score_threshold: float | None) -> np.float32:
    """The smallest logit whose score, as `_sigmoid` rounds it, lies above the threshold.

    A GPU that compares logits with it chooses the same cells to the bit.

    Args:
        score_threshold: at least 0 and below 1; None or 0: no threshold.

    Returns:
        float32; minus infinity without a threshold, NaN (no logit reaches it) where no score is above.
    """
    if not score_threshold:
        return np.float32(-np.inf)
    limit = np.float32(score_threshold)
    # Bisection over the float32 numbers from -inf to inf, in their order: about 2**32 of them.
    below, above = _place(np.float32(-np.inf)), _place(np.float32(np.inf))
    if not _sigmoid(_at(above))[0] > limit:
        return np.float32(np.nan)
    while above - below > 1:
        middle = (below + above) // 2
        if _sigmoid(_at(middle))[0] > limit:
            above = middle
        else:
            below = middle
    return np.float32(_at(above)[0])


def _place(value: np.float32) -> int:
    """The place of a float32 number among all of them in their order; 0 for zero."""
    bits = int(value.view(np.int32))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _at(place: int) -> Float32:
    """(1,) the float32 number at a place."""
    bits = np.array([place if place >= 0 else -place | 0x80000000], np.uint32)
    return bits.view(np.float32)


def _sigmoid(logits: Float32) -> Float32:
    """1 / (1 + exp(-x)), in double and rounded once: the same number wherever it is computed.

    Below x = -709 exp overflows to infinity, and the score is the zero that it should be.
    """
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def _meters(cells: Int64, offset: Float32, factor: int, parameters: CenterPointParameters, axis: int) -> Float32:
    """Centers along x (0) or y (1) [m] from cells and offsets in cells: float32, in the framework's order."""
    position = (cells.astype(np.float32) + offset) * np.float32(factor)
    return position * np.float32(parameters.voxel_size[axis]) + np.float32(parameters.point_cloud_range[axis])


def count_nan(heatmap: npt.NDArray[np.float32]) -> int:
    """Cells of a heatmap that are NaN: detections lost to a numeric failure. One pass when there are none."""
    if not np.isnan(heatmap.max(initial=-np.inf)):
        return 0
    return int(np.count_nonzero(np.isnan(heatmap)))

"""The area common to two rectangles in a plane, turned by any angle: what rotated boxes share from above."""

from __future__ import annotations

import numpy as np

from shared.arrays import Bool, Float64


def intersection_areas(first: Float64, second: Float64) -> Float64:
    """(K,) area common to two rectangles.

    The common part is convex; its corners are the corners of one that lie in the other and the points where edges
    cross. Sorted by angle about their mean, they give the area by the shoelace formula.

    Args:
        first, second: (K, 4, 2) corners, counter-clockwise.
    """
    # Near the origin, coordinates keep their digits.
    origin = first.mean(axis=1, keepdims=True)
    first, second = first - origin, second - origin
    crossings, crossing = _edge_crossings(first, second)
    points = np.concatenate([first, second, crossings], axis=1)
    used = np.concatenate([_inside(first, second), _inside(second, first), crossing], axis=1)
    counts = used.sum(axis=1)
    mean = (points * used[..., None]).sum(axis=1) / np.maximum(counts, 1)[:, None]
    around = points - mean[:, None]
    angles = np.where(used, np.arctan2(around[..., 1], around[..., 0]), np.inf)
    order = np.argsort(angles, axis=1)
    ring = np.take_along_axis(around, order[..., None], axis=1)
    # Beyond the used points, repeat the first: edges of no length close the ring.
    beyond = np.arange(points.shape[1]) >= counts[:, None]
    ring = np.where(beyond[..., None], ring[:, :1], ring)
    after = np.roll(ring, -1, axis=1)
    area = (ring[..., 0] * after[..., 1] - ring[..., 1] * after[..., 0]).sum(axis=1) / 2
    return np.where(counts >= 3, np.maximum(area, 0.0), 0.0)


def _cross(a: Float64, b: Float64) -> Float64:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])


def _inside(corners: Float64, other: Float64) -> Bool:
    """(K, 4) whether each corner lies in the other rectangle, its border included."""
    edges = np.roll(other, -1, axis=1) - other
    lengths = np.sqrt((edges**2).sum(axis=2))
    # Signed distance from each edge's line; a border point may miss it by rounding.
    distances = _cross(edges[:, None], corners[:, :, None] - other[:, None]) / np.maximum(lengths, 1e-300)[:, None]
    return np.asarray((distances >= -1e-12 * np.abs(other).max(axis=(1, 2), initial=0.0)[:, None, None]).all(axis=2))


def _edge_crossings(first: Float64, second: Float64) -> tuple[Float64, Bool]:
    """(K, 16, 2) points where edges cross, and (K, 16) whether they do; parallel edges don't."""
    edges, others = np.roll(first, -1, axis=1) - first, np.roll(second, -1, axis=1) - second
    denominator = _cross(edges[:, :, None], others[:, None])
    between = second[:, None] - first[:, :, None]
    # Edges this nearly parallel meet at corners that are in already.
    scale = np.sqrt((edges**2).sum(axis=2))[:, :, None] * np.sqrt((others**2).sum(axis=2))[:, None]
    parallel = np.abs(denominator) <= 1e-12 * scale
    safe = np.where(parallel, 1.0, denominator)
    along, along_other = _cross(between, others[:, None]) / safe, _cross(between, edges[:, :, None]) / safe
    crossing = ~parallel & (along >= 0) & (along <= 1) & (along_other >= 0) & (along_other <= 1)
    points = first[:, :, None] + along[..., None] * edges[:, :, None]
    return points.reshape(len(first), 16, 2), crossing.reshape(len(first), 16)

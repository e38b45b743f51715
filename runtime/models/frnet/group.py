"""Points by frustum, as inputs of the network (AWML's FrustumRangePreprocessor, and our padded form of it)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.models.frnet.parameters import RangeImage, Sensor
from runtime.models.frnet.project import project
from shared.arrays import Float32, Int32, Int64


@dataclass(frozen=True)
class Frustums:
    """Points grouped by the pixels that they are in. M frustums, in the order of their pixels, row by row.

    Attributes:
        points: (N, 4) float32 in the sensor's frame.
        coors: (N, 3) int64: 0, row and column of each point's pixel.
        voxel_coors: (M, 3) int64, the same of each frustum.
        inverse_map: (N,) int64, frustum of each point.
    """

    points: Float32
    coors: Int64
    voxel_coors: Int64
    inverse_map: Int64


def group(points: Float32, sensor: Sensor, image: RangeImage) -> Frustums:
    """Group points (N, 4) in the sensor's frame by pixels of an image."""
    rows, columns = project(points, sensor, image)
    pixels, inverse = np.unique(rows * image.width + columns, return_inverse=True)
    return Frustums(points, _coordinates(rows, columns), _coordinates(*np.divmod(pixels, image.width)), inverse)


def _coordinates(rows: Int64, columns: Int64) -> Int64:
    return np.stack([np.zeros_like(rows), rows, columns], axis=1)


def padded_index(inverse_map: Int64, frustums: int, slots: int) -> tuple[Int32, int]:
    """Which points are in each frustum.

    Args:
        inverse_map: (N,) frustum of each point.
        frustums: M.
        slots: K, points of a frustum at most.

    Returns:
        (M, K) int32, points in their order; free slots repeat the first. And how many points found no slot.
    """
    by_frustum = np.argsort(inverse_map, kind="stable")
    counts = np.bincount(inverse_map, minlength=frustums)
    first = np.cumsum(counts) - counts
    owner = inverse_map[by_frustum]
    slot = np.arange(len(owner)) - first[owner]
    index = np.repeat(by_frustum[first][:, None], slots, axis=1).astype(np.int32)
    fits = slot < slots
    index[owner[fits], slot[fits]] = by_frustum[fits]
    return index, int(len(fits) - fits.sum())


def pixel_map(voxel_coors: Int64, image: RangeImage, strides: Sequence[int]) -> Int32:
    """Which frustum a pixel of each of the network's maps shows: 1 + its row, 0 where there is none.

    Of several in one pixel of a coarser map it is the last: PyTorch on a CPU keeps what is written last, and that is
    what AWML's network does there.

    Args:
        voxel_coors: (M, 3) int64, sorted.
        image: of the finest map.
        strides: of the maps.

    Returns:
        (P,) int32, the maps one after another, row by row.
    """
    maps = []
    numbers = np.arange(1, len(voxel_coors) + 1, dtype=np.int32)
    for stride in strides:
        shown = np.zeros((image.height // stride, image.width // stride), np.int32)
        shown[voxel_coors[:, 1] // stride, voxel_coors[:, 2] // stride] = numbers
        maps.append(shown.ravel())
    return np.concatenate(maps)

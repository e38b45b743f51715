"""Depth and intensity of projected points as images, the nearest point in front."""

from __future__ import annotations

import numpy as np

from runtime.models.calibration.project import ProjectedPoints
from shared.arrays import Float32, Int64


def paint(
    projected: ProjectedPoints,
    intensities: Float32,
    max_depth: float,
    dilation_size: int,
    depth_image: Float32,
    intensity_image: Float32,
) -> int:
    """Paint points, each (2 dilation_size + 1) pixels wide and high, over what the two images held.

    Where points overlap the nearest one is seen; of two at the same depth, the later one.

    Args:
        projected: what to paint.
        intensities: (M,) float32 of all points, 0-255; ``projected.index`` are positions in it.
        max_depth: becomes 1 in the depth image [m].
        dilation_size: pixels that a point is widened by in each direction.
        depth_image: (H, W) float32, C-contiguous; gets depth / max_depth, 0 where there is no point.
        intensity_image: (H, W) float32, C-contiguous; gets intensity / 255, 0 where there is no point.

    Returns:
        How many pixels show a point.
    """
    height, width = depth_image.shape
    depth_image.fill(0)
    intensity_image.fill(0)
    if not len(projected):
        return 0
    order = np.argsort(-projected.depths, kind="stable")
    pixels = _patches(projected.rows[order], projected.columns[order], dilation_size, height, width)
    # In two roundings, as AWML has it: 0-255 first, then all channels are divided by 255.
    depths = (255.0 * projected.depths[order] / max_depth).astype(np.float32) / np.float32(255)
    shades = intensities[projected.index[order]] / np.float32(255)
    patch = pixels.shape[1]
    flat = pixels.ravel()
    # Written in order, far to near: of what is written to a pixel, the last stays.
    depth_image.reshape(-1)[flat] = np.repeat(depths, patch)
    intensity_image.reshape(-1)[flat] = np.repeat(shades, patch)
    return int(np.count_nonzero(depth_image))


def _patches(rows: Int64, columns: Int64, reach: int, height: int, width: int) -> Int64:
    """(N, P) flat pixels of the patch around each point. What lies outside is moved to the patch's own border pixel."""
    steps = np.arange(-reach, reach + 1)
    patch_rows = np.clip(rows[:, None] + steps, 0, height - 1) * width
    patch_columns = np.clip(columns[:, None] + steps, 0, width - 1)
    flat = patch_rows[:, :, None] + patch_columns[:, None, :]
    return np.asarray(flat.reshape(len(rows), -1), np.int64)

"""Scatter into the canvas, and a canvas that forgets the frame before."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.models.centerpoint.scatter import Canvas


def pillars(count, channels, ny, nx, seed):
    rng = np.random.default_rng(seed)
    cells = rng.permutation(ny * nx)[:count]
    coordinates = np.stack([np.zeros_like(cells), cells // nx, cells % nx], axis=1).astype(np.int32)
    return rng.normal(size=(count, 1, channels)).astype(np.float32), coordinates


def naive(features, coordinates, channels, ny, nx):
    canvas = np.zeros((1, channels, ny, nx), np.float32)
    for feature, (_, y, x) in zip(features, coordinates, strict=True):
        canvas[0, :, y, x] = feature[0]
    return canvas


@pytest.mark.parametrize("count", [0, 1, 7, 60])
def test_each_pillar_lands_in_its_cell(count):
    features, coordinates = pillars(count, 3, 6, 10, seed=count)
    canvas = Canvas(3, ny=6, nx=10).scatter(features, coordinates)
    np.testing.assert_array_equal(canvas, naive(features, coordinates, 3, 6, 10))


def test_a_reused_canvas_equals_a_new_one():
    canvas = Canvas(2, ny=20, nx=30)
    # Few and many pillars: both ways of clearing.
    for seed, count in enumerate([500, 3, 0, 5, 1, 600, 2]):
        features, coordinates = pillars(count, 2, 20, 30, seed)
        np.testing.assert_array_equal(canvas.scatter(features, coordinates), naive(features, coordinates, 2, 20, 30))


def test_features_without_the_middle_axis():
    features, coordinates = pillars(9, 4, 5, 5, seed=1)
    canvas = Canvas(4, ny=5, nx=5).scatter(features[:, 0], coordinates)
    np.testing.assert_array_equal(canvas, naive(features, coordinates, 4, 5, 5))

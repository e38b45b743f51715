"""Colors of classes, for nodes that publish labels of points or pixels."""

from __future__ import annotations

import colorsys

_GOLDEN_RATIO = 0.618033988749895


def class_colors(count: int) -> list[tuple[int, int, int]]:
    """Red, green and blue from 0 to 255 of each class: neighbors differ most in hue, and every other one is paler."""
    shades = (
        colorsys.hsv_to_rgb(number * _GOLDEN_RATIO % 1.0, 0.5 + 0.5 * (number % 2), 0.9) for number in range(count)
    )
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in shades]

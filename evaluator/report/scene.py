"""A frame that the reader explores: its boxes and answers as data, its points and photos at a level of detail."""

from __future__ import annotations

import base64
import datetime
import math
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from evaluator.report.images import jpeg, read_photo
from shared.arrays import Int64, UInt8

_TOKEN = re.compile(r"[0-9a-f-]{20,}")
# Timestamps below are counted from the start of something, not from 1970.
_EPOCH_AFTER = 100_000_000.0
# Points are stored in centimeters, 16 bits each way.
_POINT_STEP = 0.01
_POINT_REACH = 327.0
# Edge of the cubes of which one point is kept, where there are too many [m]; made larger until they are few enough.
_FINEST_GRID = 0.12


@dataclass(frozen=True)
class Detail:
    """How much of the points and photos of a frame the page holds.

    Attributes:
        points: at most so many.
        width: of the photos of a frame with several cameras [pixels]; a single photo has twice as many.
        quality: of JPEG, 0 to 95.
    """

    points: int
    width: int
    quality: int


#: From fine to coarse: the page takes the first with which all frames fit.
DETAILS = (Detail(16_000, 640, 72), Detail(9_000, 440, 64), Detail(5_000, 320, 56))


@dataclass(frozen=True)
class Scene:
    """A frame as data, drawn by ``static/explorer.js``.

    Attributes:
        key: unique in the report; names the frame in its address.
        title: drive and time.
        note: what the frame is, in a sentence.
        head: what all frames of the task share: the kind that ``static/`` draws ("boxes3d", "boxes2d", "classes",
            "labels"), classes, thresholds.
        data: JSON values, small.
        media: points and photos, JSON values of up to a few 100 kB.
    """

    key: str
    title: str
    note: str
    head: Mapping[str, Any]
    data: Mapping[str, Any]
    media: Callable[[Detail], dict[str, Any]]
    kind: ClassVar[str] = "scene"


def title_of(scene: str, timestamp: float) -> str:
    """``<drive>, <time>``; one of them where the other is not known. Of a drive that is a token, the first digits."""
    if _TOKEN.fullmatch(scene):
        scene = scene[:8]
    return ", ".join(part for part in (scene, _time(timestamp)) if part)


def _time(timestamp: float) -> str:
    if timestamp <= 0:
        return ""
    if timestamp < _EPOCH_AFTER:
        return f"{timestamp:.2f} s"
    moment = datetime.datetime.fromtimestamp(timestamp, datetime.timezone.utc)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 100_000} UTC"


def numbers(values: npt.ArrayLike, digits: int) -> list[Any]:
    """``values`` as JSON, rounded; whole numbers lose their fraction, which keeps the page small. NaN becomes null."""
    rounded = np.round(np.asarray(values, np.float64), digits)
    return [_short(value) for value in rounded.ravel().tolist()]


def _short(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() else value


def cloud(points: npt.NDArray[np.floating[Any]], most: int, labels: UInt8 | None = None) -> dict[str, Any]:
    """At most ``most`` of the points (N, 3) [m], spread as evenly as they lie, for ``static/cloud.js``.

    Returns:
        ``count``, and ``data``: base64 of deflated int16 [cm], all x, then all y, then all z; with ``labels`` (P, N)
        those of these points, too, one after another.
    """
    inside = np.flatnonzero((np.abs(points) < _POINT_REACH).all(axis=1))
    kept = inside[_thinned(points[inside], most)]
    steps = np.round(points[kept] / _POINT_STEP).astype("<i2")
    # In the order of place, neighbors are alike and deflate better.
    order = np.lexsort((steps[:, 1], steps[:, 0] >> 7))
    packed = {"count": len(steps), "data": deflated(steps[order].T)}
    return packed if labels is None else {**packed, "labels": deflated(labels[:, kept[order]])}


def deflated(array: npt.NDArray[Any]) -> str:
    """Base64 of the deflated values, for ``static/cloud.js``."""
    return base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()


def _thinned(points: npt.NDArray[np.floating[Any]], most: int) -> Int64:
    """One point of each cube of a grid, which is as fine as ``most`` allows: far objects keep theirs."""
    edge = _FINEST_GRID
    kept = np.arange(len(points))
    while len(kept) > most:
        x, y, z = np.floor((points[kept] + _POINT_REACH) / edge).astype(np.int64).T
        cells = (x << 40) + (y << 20) + z
        kept = kept[np.sort(np.unique(cells, return_index=True)[1])]
        edge *= 1.4
    return kept


def photo(path: Path, width: int, quality: int, *, upright: bool) -> dict[str, Any]:
    """A photo for ``static/photo.js``: its data URI, and the size that boxes on it refer to.

    Raises:
        InputError: the file is missing, or is not a complete image.
    """
    pixels = read_photo(path, upright=upright)
    return {"uri": jpeg(pixels, width, quality), "width": pixels.shape[1], "height": pixels.shape[0]}

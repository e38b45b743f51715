"""Data sets: the same samples, in the same order, with the same points, for every tool.

``open_dataset`` gives a ``Dataset`` of ``Sample``s (for 2D detection: ``ImageSample``s); ``load_points`` gives a
sample's points the way a model was trained on them. NumPy only.
"""

from __future__ import annotations

from shared.data.opening import open_dataset
from shared.data.points import read_points
from shared.data.sweeps import LoadedPoints, PointLoading, load_points, load_points_counted
from shared.data.types import (
    Camera,
    Dataset,
    DataSettings,
    DataSource,
    ImageLabels,
    ImageSample,
    PointFile,
    Sample,
    Sweep,
)

__all__ = [
    "Camera",
    "DataSettings",
    "DataSource",
    "Dataset",
    "ImageLabels",
    "ImageSample",
    "LoadedPoints",
    "PointFile",
    "PointLoading",
    "Sample",
    "Sweep",
    "load_points",
    "load_points_counted",
    "open_dataset",
    "read_points",
]

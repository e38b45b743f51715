"""The class remapper that detectors of lidar frames come with, of autoware_lidar_centerpoint and the nodes after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exporter.autoware.labels import LABELS

REMAPPER = "detection_class_remapper.param.yaml"
# It has a row and a column for each of these labels; to the nodes, other names are UNKNOWN.
_REMAPPED = LABELS[: LABELS.index("PEDESTRIAN") + 1]


def class_remapper() -> dict[str, Any]:
    """A remapper that changes no class: what the model says is published. Row: from, column: to, in label order."""
    cells = len(_REMAPPED) ** 2
    return {
        "allow_remapping_by_area_matrix": [0] * cells,
        "min_area_matrix": [0.0] * cells,
        "max_area_matrix": [0.0] * cells,
    }


def unnamed(labels: Sequence[str]) -> list[str]:
    """A note on the labels that the node has no name for; none where it has all."""
    nameless = [label for label in labels if label not in _REMAPPED]
    return [f"the node has no name for {', '.join(nameless)}, and publishes such boxes as UNKNOWN"] if nameless else []

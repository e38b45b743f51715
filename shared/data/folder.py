"""A bare folder of point files, without labels: every file that ``read_points`` knows, by name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from shared.data.indexed import IndexedDataset, data_root, settings_part
from shared.data.points import ARGOVERSE_COLUMNS, POINT_SUFFIXES
from shared.data.types import DataSource, PointFile, Sample
from shared.errors import ConfigError, InputError

# Columns of the formats that bring their own names.
_FEATURES = {".npz": len(ARGOVERSE_COLUMNS), ".pcd": len(ARGOVERSE_COLUMNS)}


def open_folder(settings: DataSource, root: Path | None = None) -> IndexedDataset[Sample]:
    """Data set of the point files directly in a folder; numbers in names sort as numbers (2 before 10).

    Raises:
        InputError: no point files there.
        ConfigError: ``num_features`` is not given, and a file (.bin, .npy) does not say how many columns it has.
    """
    folder = data_root(settings, root)
    files = sorted((file for file in folder.iterdir() if file.suffix.lower() in POINT_SUFFIXES), key=_by_number)
    if not files:
        raise InputError("no point files here", where=str(folder), hint=f"expected {', '.join(POINT_SUFFIXES)}")

    def features(file: Path) -> int:
        known = settings.num_features or _FEATURES.get(file.suffix.lower())
        if known is None:
            raise ConfigError(
                f"how many columns {file.name} has is not in the file",
                where="data.num_features",
                hint="set it: 4 for KITTI, 5 for nuScenes and T4",
            )
        return known

    columns = [features(file) for file in files]

    def build(index: int) -> Sample:
        file = files[index]
        return Sample(
            index=index,
            token=file.name,
            timestamp=0.0,
            scene=folder.name,
            lidar=PointFile(file, folder, columns[index], settings.pad_to, settings.intensity_scale),
            sweeps=(),
            lists_sweeps=False,
            cameras={},
            lidar2ego=np.eye(4),
            ego2global=None,
            ground_truth=None,
            ground_truth_names=(),
        )

    return IndexedDataset(
        name=folder.name,
        classes=tuple(settings.classes),
        length=len(files),
        build=build,
        digest_parts=lambda: [settings_part(settings, settings.classes), [[f.name, f.stat().st_size] for f in files]],
    )


def _by_number(file: Path) -> list[tuple[int, str]]:
    """Sort key: digit runs by value, the rest by text."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name)]

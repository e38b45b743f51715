"""One door to every format. What a format's word means depends on the task, which wants another view of the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from shared.data.argoverse import open_argoverse
from shared.data.common import data_root
from shared.data.concat import concatenate
from shared.data.folder import open_folder
from shared.data.images import open_image_folder
from shared.data.images_coco import open_coco
from shared.data.images_info import open_image_info
from shared.data.images_kitti import open_kitti_images
from shared.data.images_t4 import open_t4_images
from shared.data.info import open_info
from shared.data.kitti import open_kitti
from shared.data.mini_val import open_mini_val
from shared.data.pairs_opening import PAIR_FORMATS
from shared.data.real import open_real, open_real_images
from shared.data.t4 import open_t4
from shared.data.types import Dataset, DataSource
from shared.errors import ConfigError

_Opener = Callable[[DataSource, Path], Dataset[Any]]

_LIDAR_FRAMES: dict[str, _Opener] = {
    "info": open_info,
    "t4": open_t4,
    "kitti": open_kitti,
    "argoverse2": open_argoverse,
    "nuscenes_mini_val": open_mini_val,
    "folder": open_folder,
    "real": open_real,
}
_IMAGES: dict[str, _Opener] = {
    "info": open_image_info,
    "t4": open_t4_images,
    "kitti": open_kitti_images,
    "coco": open_coco,
    "folder": open_image_folder,
    "real": open_real_images,
}
#: Task -> format -> what opens it. Format concat is the same for all.
_FORMATS: Mapping[str, Mapping[str, _Opener]] = {
    "detection3d": _LIDAR_FRAMES,
    "detection2d": _IMAGES,
    "classification": PAIR_FORMATS,
}


def open_dataset(config: DataSource, *, root: Path | None = None, task: str = "detection3d") -> Dataset[Any]:
    """Open the data set that the settings describe.

    Args:
        config: the deploy config's ``data`` section, or a ``DataSettings``.
        root: data folder to use instead of the settings' own.
        task: ``detection3d`` gives lidar frames (`Sample`), ``detection2d`` images (`ImageSample`), ``classification``
            camera-lidar pairs in both states of calibration (`shared.data.camera_pairs.CameraPair`).

    Raises:
        ConfigError: the format is unknown or has no such view, or lacks a setting it needs.
        InputError: files are missing, refused or malformed, or there are no frames.
    """
    if task not in _FORMATS:
        raise ConfigError(f"there are no data sets for task '{task}'", where="task_type")
    if config.format == "concat":
        return _open_concat(config, root, task)
    formats = _FORMATS[task]
    if config.format not in formats:
        raise ConfigError(
            f"data format '{config.format}' is not known for task {task}",
            where="data.format",
            hint=f"known: {', '.join([*formats, 'concat'])}",
        )
    return formats[config.format](config, data_root(config, root))


def _open_concat(settings: DataSource, root: Path | None, task: str) -> Dataset[Any]:
    """Sources in order. One without a root of its own has the concatenation's; a relative one starts there."""
    folder = root if root is not None else settings.root
    parts = []
    for source in settings.sources:
        own = source.root
        parts.append(open_dataset(source, root=own if folder is None else folder / (own or ""), task=task))
    return concatenate("concat", parts)

"""Data sets as camera-lidar pairs, the view of them that calibration status takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from shared.data.calibration_info import is_calibration_info, open_calibration_info
from shared.data.camera_pairs import CameraPair, pairs_of_frames
from shared.data.concat import concatenate
from shared.data.indexed import IndexedDataset, data_root
from shared.data.info import open_info
from shared.data.kitti import open_kitti
from shared.data.mini_val import open_mini_val
from shared.data.t4 import open_t4
from shared.data.types import DataSettings, DataSource, Sample
from shared.data.unpickle import load_pickle
from shared.errors import InputError

_REFLECTANCE_TO_INTENSITY = 255.0  # KITTI has 0-1
_KITTI_CLOUDS = ("velodyne_reduced", "velodyne")  # the first that is there; the reduced are cut to the camera's view


def open_pairs_info(settings: DataSource, root: Path | None = None) -> IndexedDataset[CameraPair]:
    """Pairs of an info file: AWML's of calibration status (an image an entry), or one of lidar frames with cameras.

    Raises:
        ConfigError: no info file is named.
        InputError: the file is missing, refused, malformed, or has no entries or no images.
    """
    folder = data_root(settings, root)
    entries = _entries(folder / settings.info_file) if settings.info_file is not None else ()
    if settings.info_file is not None and entries and is_calibration_info(entries):
        return open_calibration_info(folder / settings.info_file, entries, settings, folder)
    return pairs_of_frames(open_info(settings, root), settings.miscalibration)


def _entries(file: Path) -> Sequence[Any]:
    """``data_list`` of a file; empty where there is none, which `open_info` then explains."""
    if not file.is_file():
        return ()
    try:
        content = json.loads(file.read_bytes()) if file.suffix == ".json" else load_pickle(file)
    except ValueError:
        return ()
    entries = content.get("data_list") if isinstance(content, Mapping) else None
    return entries if isinstance(entries, Sequence) else ()


def open_pairs_t4(settings: DataSource, root: Path | None = None) -> IndexedDataset[CameraPair]:
    """Pairs of a T4 scene's key frames, or of all scenes in a folder; raises as `open_t4`, and without images."""
    return pairs_of_frames(open_t4(settings, root), settings.miscalibration)


def open_pairs_kitti(settings: DataSource, root: Path | None = None) -> IndexedDataset[CameraPair]:
    """Pairs of KITTI's left colour camera and lidar; raises as `open_kitti`, and without images."""
    return pairs_of_frames(open_kitti(settings, root), settings.miscalibration)


def open_pairs_mini_val(settings: DataSource, root: Path | None = None) -> IndexedDataset[CameraPair]:
    """Pairs of nuScenes mini_val's frames; raises as `open_mini_val`, and without images."""
    frames = open_mini_val(settings, root)
    return pairs_of_frames(_with_images_that_exist(frames), settings.miscalibration)


def _with_images_that_exist(frames: IndexedDataset[Sample]) -> IndexedDataset[Sample]:
    """The same frames, cameras without an image file left out: that data set comes without most of them."""

    def build(index: int) -> Sample:
        sample = frames.sample(index)
        there = {
            channel: camera
            for channel, camera in sample.cameras.items()
            if camera.image is not None and camera.image.is_file()
        }
        return replace(sample, cameras=there)

    return replace(frames, build=build)


def open_real_pairs(settings: DataSource, root: Path | None = None) -> IndexedDataset[CameraPair]:
    """Every real camera-lidar pair of a folder: nuScenes' demo key frames and KITTI.

    Raises:
        InputError: nothing known is there.
    """
    folder = data_root(settings, root)
    base = DataSettings(format="real", miscalibration=settings.miscalibration)
    parts = [
        open_pairs_info(replace(base, root=info.parent, info_file=Path(info.name)))
        for info in sorted((folder / "nuscenes_demo").glob("*.pkl"))
    ]
    clouds = next((name for name in _KITTI_CLOUDS if any((folder / "kitti" / name).glob("*.bin"))), None)
    if clouds is not None:
        kitti = replace(
            base,
            root=folder / "kitti",
            intensity_scale=_REFLECTANCE_TO_INTENSITY,
            data_prefix={"pts": clouds},
        )
        parts.append(open_pairs_kitti(kitti))
    if not parts:
        raise InputError(
            "none of the known real data sets with camera images is here",
            where=str(folder),
            hint="expected nuscenes_demo or kitti folders",
        )
    return concatenate("real", parts)


#: Format -> what opens it as camera-lidar pairs.
PAIR_FORMATS: Mapping[str, Callable[[DataSource, Path | None], IndexedDataset[CameraPair]]] = {
    "info": open_pairs_info,
    "t4": open_pairs_t4,
    "kitti": open_pairs_kitti,
    "nuscenes_mini_val": open_pairs_mini_val,
    "real": open_real_pairs,
}

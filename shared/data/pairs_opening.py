"""Data sets as camera-lidar pairs, the view of them that calibration status takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from shared.data.calibration_info import is_calibration_info, open_calibration_info
from shared.data.camera_pairs import CameraPair, pairs_of_frames
from shared.data.concat import concatenate_real
from shared.data.info import info_file, load_info, open_info
from shared.data.kitti import open_kitti
from shared.data.mini_val import open_mini_val
from shared.data.real import REFLECTANCE_TO_INTENSITY
from shared.data.t4 import open_t4
from shared.data.types import Dataset, DataSettings, DataSource, Sample

_KITTI_CLOUDS = ("velodyne_reduced", "velodyne")  # the first that is there; the reduced are cut to the camera's view

PairOpener = Callable[[DataSource, Path], Dataset[CameraPair]]


def open_pairs_info(settings: DataSource, folder: Path) -> Dataset[CameraPair]:
    """Pairs of an info file: AWML's of calibration status (an image an entry), or one of lidar frames with cameras.

    Raises:
        ConfigError: no info file is named.
        InputError: the file is missing, refused, malformed, or has no entries or no images.
    """
    file = info_file(settings, folder)
    content = load_info(file)
    entries = content.get("data_list") if isinstance(content, Mapping) else None
    if isinstance(entries, Sequence) and entries and is_calibration_info(entries):
        return open_calibration_info(file, entries, settings, folder)
    return pairs_of_frames(open_info(settings, folder), settings.miscalibration)


def _of_frames(open_frames: Callable[[DataSource, Path], Dataset[Sample]]) -> PairOpener:
    """What opens the pairs of the frames' cameras: raises as ``open_frames``, and where no frame has an image."""
    return lambda settings, folder: pairs_of_frames(open_frames(settings, folder), settings.miscalibration)


def open_real_pairs(settings: DataSource, folder: Path) -> Dataset[CameraPair]:
    """Every real camera-lidar pair of a folder: nuScenes' demo key frames and KITTI.

    Raises:
        InputError: nothing known is there.
    """
    base = DataSettings(format="real", miscalibration=settings.miscalibration)
    parts = [
        open_pairs_info(replace(base, info_file=Path(info.name)), info.parent)
        for info in sorted((folder / "nuscenes_demo").glob("*.pkl"))
    ]
    clouds = next((name for name in _KITTI_CLOUDS if any((folder / "kitti" / name).glob("*.bin"))), None)
    if clouds is not None:
        kitti = replace(base, intensity_scale=REFLECTANCE_TO_INTENSITY, data_prefix={"pts": clouds})
        parts.append(_of_frames(open_kitti)(kitti, folder / "kitti"))
    return concatenate_real(folder, parts, "nuscenes_demo or kitti folders, with images")


#: Format -> what opens it as camera-lidar pairs.
PAIR_FORMATS: Mapping[str, PairOpener] = {
    "info": open_pairs_info,
    "t4": _of_frames(open_t4),
    "kitti": _of_frames(open_kitti),
    "nuscenes_mini_val": _of_frames(open_mini_val),
    "real": open_real_pairs,
}

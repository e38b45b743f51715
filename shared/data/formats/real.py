"""Everything real in the folder that REAL_DATA names; parts that are not there are left out.

*Lidar frames*, in one layout, x, y, z, intensity 0-255, fifth column: the nuScenes demo key frame, the nuScenes
mini_val frames whose sweep is there, KITTI's full clouds, Argoverse 2, and the T4 scenes (every ``t4_*`` folder).
KITTI's reflectance is scaled to 0-255, its missing ring is 0. *Images*: nuScenes, KITTI, COCO's and YOLOX's; labels
where there are. *Camera-lidar pairs*: nuScenes and KITTI. Classes are AWML's five unless the settings name others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from shared.data.camera_pairs import CameraPair, pairs_opener
from shared.data.concat import concatenate_real
from shared.data.formats.argoverse2 import open_argoverse
from shared.data.formats.folder import open_image_folder
from shared.data.formats.info import open_pairs_info
from shared.data.formats.info.frames import open_info
from shared.data.formats.info.images import open_image_info
from shared.data.formats.kitti.frames import open_kitti
from shared.data.formats.kitti.images import open_kitti_images
from shared.data.formats.nuscenes_mini_val import INFO_FILE, open_mini_val
from shared.data.formats.t4.frames import open_t4
from shared.data.images import image_files
from shared.data.labels import COMMON_CLASSES, nuscenes_label_map
from shared.data.types import Dataset, DataSettings, DataSource, ImageSample, Sample
from shared.data.views import CAMERA_PAIR, IMAGE, LIDAR_FRAME

_COLUMNS = 5
_REFLECTANCE_TO_INTENSITY = 255.0  # KITTI has 0-1
_COCO_PICTURES = "coco_val2017_images"
_KITTI_CLOUDS = ("velodyne_reduced", "velodyne")  # for pairs, the first that is there: reduced to the camera's view


def open_real(settings: DataSource, folder: Path) -> Dataset[Sample]:
    """Every lidar frame.

    Raises:
        InputError: nothing known is there.
    """
    base = _base(settings)
    parts = _of_nuscenes_demo(base, folder, open_info)
    if (folder / "nuscenes_mini_val" / INFO_FILE).is_file():
        parts.append(open_mini_val(base, folder / "nuscenes_mini_val"))
    if any((folder / "kitti" / "velodyne").glob("*.bin")):
        kitti = replace(base, pad_to=_COLUMNS, intensity_scale=_REFLECTANCE_TO_INTENSITY)
        parts.append(open_kitti(kitti, folder / "kitti"))
    if any((folder / "argoverse2").glob("*.json")):
        parts.append(open_argoverse(base, folder / "argoverse2"))
    parts += [open_t4(base, scene) for scene in sorted(folder.glob("t4_*")) if scene.is_dir()]
    return concatenate_real(folder, parts, "nuscenes_demo, nuscenes_mini_val, kitti, argoverse2 or t4_* folders")


def open_real_images(settings: DataSource, folder: Path) -> Dataset[ImageSample]:
    """Every image.

    Raises:
        InputError: nothing known is there.
    """
    base = _base(settings)
    parts = _of_nuscenes_demo(base, folder, open_image_info)
    if any((folder / "kitti" / "image_2").glob("*.png")):
        parts.append(open_kitti_images(base, folder / "kitti"))
    if (folder / _COCO_PICTURES).is_dir():
        parts.append(open_image_folder(base, folder / _COCO_PICTURES))
    pictures = sorted(folder.glob("*.jpg"))
    if pictures:
        parts.append(image_files("pictures", folder, pictures, base))
    return concatenate_real(folder, parts, f"nuscenes_demo, kitti, {_COCO_PICTURES} or *.jpg")


def open_real_pairs(settings: DataSource, folder: Path) -> Dataset[CameraPair]:
    """Every camera-lidar pair: nuScenes' demo key frames and KITTI.

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
        kitti = replace(base, intensity_scale=_REFLECTANCE_TO_INTENSITY, data_prefix={"pts": clouds})
        parts.append(pairs_opener(open_kitti)(kitti, folder / "kitti"))
    return concatenate_real(folder, parts, "nuscenes_demo or kitti folders, with images")


def _base(settings: DataSource) -> DataSettings:
    classes = tuple(settings.classes) or COMMON_CLASSES
    return DataSettings(format="real", classes=classes, label_map=settings.label_map)


def _of_nuscenes_demo(
    base: DataSettings, folder: Path, opened: Callable[[DataSource, Path], Dataset[Any]]
) -> list[Dataset[Any]]:
    label_map = {**nuscenes_label_map(base.classes), **base.label_map}
    return [
        opened(replace(base, info_file=Path(info.name), label_map=label_map), info.parent)
        for info in sorted((folder / "nuscenes_demo").glob("*.pkl"))
    ]


VIEWS = {LIDAR_FRAME: open_real, IMAGE: open_real_images, CAMERA_PAIR: open_real_pairs}

"""Every real image of the folder that REAL_DATA names: nuScenes, KITTI, COCO's and YOLOX's; labels where there are.

Classes are AWML's five unless the settings name others.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from shared.data.concat import concatenate_real
from shared.data.images import image_files, open_image_folder
from shared.data.images_info import open_image_info
from shared.data.images_kitti import open_kitti_images
from shared.data.labels import COMMON_CLASSES, nuscenes_label_map
from shared.data.types import Dataset, DataSettings, DataSource, ImageSample

_COCO_PICTURES = "coco_val2017_images"


def open_real_images(settings: DataSource, folder: Path) -> Dataset[ImageSample]:
    """Concatenation of what is there; parts that are not are left out.

    Raises:
        InputError: nothing known is there.
    """
    classes = tuple(settings.classes) or COMMON_CLASSES
    base = DataSettings(format="real", classes=classes, label_map=settings.label_map)
    parts: list[Dataset[ImageSample]] = []
    for info in sorted((folder / "nuscenes_demo").glob("*.pkl")):
        label_map = {**nuscenes_label_map(classes), **settings.label_map}
        parts.append(open_image_info(replace(base, info_file=Path(info.name), label_map=label_map), info.parent))
    if any((folder / "kitti" / "image_2").glob("*.png")):
        parts.append(open_kitti_images(base, folder / "kitti"))
    if (folder / _COCO_PICTURES).is_dir():
        parts.append(open_image_folder(base, folder / _COCO_PICTURES))
    pictures = sorted(folder.glob("*.jpg"))
    if pictures:
        parts.append(image_files("pictures", folder, pictures, base))
    return concatenate_real(folder, parts, f"nuscenes_demo, kitti, {_COCO_PICTURES} or *.jpg")

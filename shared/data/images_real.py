"""Every real image of the folder that REAL_DATA names: nuScenes, KITTI, COCO's and YOLOX's; labels where there are.

Classes are AWML's five unless the settings name others.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from shared.data.concat import concatenate
from shared.data.images import image_files, open_image_folder
from shared.data.images_info import open_image_info
from shared.data.images_kitti import open_kitti_images
from shared.data.indexed import IndexedDataset, data_root
from shared.data.labels import COMMON_CLASSES, MORE_GENERAL
from shared.data.types import Dataset, DataSettings, DataSource, ImageSample
from shared.errors import InputError

# Categories of nuScenes' info files whose class a model may have under a more general name.
_NUSCENES = ("trailer", "construction_vehicle", "motorcycle", "pedestrian")
_COCO_PICTURES = "coco_val2017_images"


def open_real_images(settings: DataSource, root: Path | None = None) -> IndexedDataset[ImageSample]:
    """Concatenation of what is there; parts that are not are left out.

    Raises:
        InputError: nothing known is there.
    """
    folder = data_root(settings, root)
    classes = tuple(settings.classes) or COMMON_CLASSES
    base = DataSettings(format="real", classes=classes, label_map=settings.label_map)
    parts: list[Dataset[ImageSample]] = []
    for info in sorted((folder / "nuscenes_demo").glob("*.pkl")):
        label_map = {**_more_general(classes), **settings.label_map}
        parts.append(open_image_info(replace(base, root=info.parent, info_file=Path(info.name), label_map=label_map)))
    if any((folder / "kitti" / "image_2").glob("*.png")):
        parts.append(open_kitti_images(replace(base, root=folder / "kitti")))
    if (folder / _COCO_PICTURES).is_dir():
        parts.append(open_image_folder(replace(base, root=folder / _COCO_PICTURES)))
    pictures = sorted(folder.glob("*.jpg"))
    if pictures:
        parts.append(image_files("pictures", folder, pictures, base))
    if not parts:
        raise InputError(
            "none of the known real images is here",
            where=str(folder),
            hint=f"expected nuscenes_demo, kitti, {_COCO_PICTURES} or *.jpg",
        )
    return concatenate("real", parts)


def _more_general(classes: tuple[str, ...]) -> dict[str, str]:
    """Names of nuScenes that are no class of the model, to the next more general one that is."""
    found = {}
    for name in _NUSCENES:
        general = name
        while general not in classes and general in MORE_GENERAL:
            general = MORE_GENERAL[general]
        if general != name and general in classes:
            found[name] = general
    return found

"""Every real lidar frame of the folder that REAL_DATA names, in one layout: x, y, z, intensity 0-255, fifth column.

Parts, in order: the nuScenes demo key frame, the nuScenes mini_val frames whose sweep is there, KITTI's full clouds,
Argoverse 2, and the T4 scenes (every ``t4_*`` folder). KITTI's reflectance is scaled to 0-255, its missing ring is 0.
Classes are AWML's five unless the settings name others.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from shared.data.argoverse import open_argoverse
from shared.data.concat import concatenate_real
from shared.data.info import open_info
from shared.data.kitti import open_kitti
from shared.data.labels import COMMON_CLASSES, nuscenes_label_map
from shared.data.mini_val import INFO_FILE, open_mini_val
from shared.data.t4 import open_t4
from shared.data.types import Dataset, DataSettings, DataSource, Sample

_COLUMNS = 5
REFLECTANCE_TO_INTENSITY = 255.0  # KITTI has 0-1


def open_real(settings: DataSource, folder: Path) -> Dataset[Sample]:
    """Concatenation of what is there; parts that are not are left out.

    Raises:
        InputError: nothing known is there.
    """
    classes = tuple(settings.classes) or COMMON_CLASSES
    base = DataSettings(format="real", classes=classes, label_map=settings.label_map)
    parts: list[Dataset[Sample]] = []
    for info in sorted((folder / "nuscenes_demo").glob("*.pkl")):
        label_map = {**nuscenes_label_map(classes), **settings.label_map}
        parts.append(open_info(replace(base, info_file=Path(info.name), label_map=label_map), info.parent))
    if (folder / "nuscenes_mini_val" / INFO_FILE).is_file():
        parts.append(open_mini_val(base, folder / "nuscenes_mini_val"))
    if any((folder / "kitti" / "velodyne").glob("*.bin")):
        kitti = replace(base, pad_to=_COLUMNS, intensity_scale=REFLECTANCE_TO_INTENSITY)
        parts.append(open_kitti(kitti, folder / "kitti"))
    if any((folder / "argoverse2").glob("*.json")):
        parts.append(open_argoverse(base, folder / "argoverse2"))
    parts += [open_t4(base, scene) for scene in sorted(folder.glob("t4_*")) if scene.is_dir()]
    return concatenate_real(folder, parts, "nuscenes_demo, nuscenes_mini_val, kitti, argoverse2 or t4_* folders")

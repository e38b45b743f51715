"""Every real lidar frame of the folder that REAL_DATA names, in one layout: x, y, z, intensity 0-255, fifth column.

Parts, in order: the nuScenes demo key frame, the nuScenes mini_val frames whose sweep is there, KITTI's full clouds,
Argoverse 2, and the T4 scenes (every ``t4_*`` folder). KITTI's reflectance is scaled to 0-255, its missing ring is 0.
Classes are AWML's five unless the settings name others.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from shared.data.argoverse import open_argoverse
from shared.data.concat import concatenate
from shared.data.indexed import IndexedDataset, data_root
from shared.data.info import open_info
from shared.data.kitti import open_kitti
from shared.data.labels import COMMON_CLASSES
from shared.data.mini_val import INFO_FILE, open_mini_val
from shared.data.t4 import open_t4
from shared.data.types import Dataset, DataSettings, DataSource, Sample
from shared.errors import InputError

_COLUMNS = 5
_REFLECTANCE_TO_INTENSITY = 255.0
# nuScenes' detection classes that are AWML's under another name (its info file has class names, not categories).
_NUSCENES_LABELS = {"trailer": "truck", "construction_vehicle": "truck", "motorcycle": "bicycle"}


def open_real(settings: DataSource, root: Path | None = None) -> IndexedDataset[Sample]:
    """Concatenation of what is there; parts that are not are left out.

    Raises:
        InputError: nothing known is there.
    """
    folder = data_root(settings, root)
    classes = tuple(settings.classes) or COMMON_CLASSES
    base = DataSettings(format="real", classes=classes, label_map=settings.label_map)
    parts: list[Dataset[Sample]] = []
    for info in sorted((folder / "nuscenes_demo").glob("*.pkl")):
        label_map = {
            **{name: common for name, common in _NUSCENES_LABELS.items() if name not in classes},
            **settings.label_map,
        }
        parts.append(open_info(replace(base, root=info.parent, info_file=Path(info.name), label_map=label_map)))
    if (folder / "nuscenes_mini_val" / INFO_FILE).is_file():
        parts.append(open_mini_val(replace(base, root=folder / "nuscenes_mini_val")))
    if any((folder / "kitti" / "velodyne").glob("*.bin")):
        parts.append(
            open_kitti(replace(base, root=folder / "kitti", pad_to=_COLUMNS, intensity_scale=_REFLECTANCE_TO_INTENSITY))
        )
    if any((folder / "argoverse2").glob("*.json")):
        parts.append(open_argoverse(replace(base, root=folder / "argoverse2")))
    parts += [open_t4(replace(base, root=scene)) for scene in sorted(folder.glob("t4_*")) if scene.is_dir()]
    if not parts:
        raise InputError(
            "none of the known real data sets is here",
            where=str(folder),
            hint="expected nuscenes_demo, nuscenes_mini_val, kitti, argoverse2 or t4_* folders",
        )
    return concatenate("real", parts)

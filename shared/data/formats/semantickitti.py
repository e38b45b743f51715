"""SemanticKITTI: ``sequences/<number>/velodyne/*.bin`` with ``labels/*.label`` beside it.

Points are KITTI's: x, y, z and reflectance 0-1. Labels are ids of the table below; those of moving objects count as
those of their kind, and lane markings as road, where the classes have no name for them.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from shared.data.common import files_part, point_file, settings_part
from shared.data.label_file import LabelFile, class_of_ids
from shared.data.paths import data_path
from shared.data.types import Dataset, DataSource, Sample
from shared.data.views import LIDAR_FRAME
from shared.errors import InputError

_FEATURES = 4
_NAMES = {
    **{0: "unlabeled", 1: "outlier", 10: "car", 11: "bicycle", 13: "bus", 15: "motorcycle", 16: "on-rails"},
    **{18: "truck", 20: "other-vehicle", 30: "person", 31: "bicyclist", 32: "motorcyclist", 40: "road"},
    **{44: "parking", 48: "sidewalk", 49: "other-ground", 50: "building", 51: "fence", 52: "other-structure"},
    **{60: "lane-marking", 70: "vegetation", 71: "trunk", 72: "terrain", 80: "pole", 81: "traffic-sign"},
    **{99: "other-object", 252: "moving-car", 253: "moving-bicyclist", 254: "moving-person"},
    **{255: "moving-motorcyclist", 256: "moving-on-rails", 257: "moving-bus", 258: "moving-truck"},
    259: "moving-other-vehicle",
}
#: The 19 classes that its benchmark judges.
CLASSES = (
    *("car", "bicycle", "motorcycle", "truck", "other-vehicle", "person", "bicyclist", "motorcyclist", "road"),
    *("parking", "sidewalk", "other-ground", "building", "fence", "vegetation", "trunk", "terrain", "pole"),
    "traffic-sign",
)
_MORE_GENERAL = {"bus": "other-vehicle", "on-rails": "other-vehicle", "lane-marking": "road"}


def open_semantickitti(settings: DataSource, folder: Path) -> Dataset[Sample]:
    """Data set of the scans of all sequences, or of one (``data_prefix.pts``: ``sequences/08``), by number.

    Raises:
        InputError: no scans there.
    """
    place = data_path(folder, settings.data_prefix.get("pts", "sequences"), where="data.data_prefix.pts")
    scans = sorted([*place.glob("velodyne/*.bin"), *place.glob("*/velodyne/*.bin")])
    if not scans:
        raise InputError(f"no {place.name}/*/velodyne/*.bin here", where=str(folder), hint="check data.root")
    classes = tuple(settings.classes) or CLASSES
    known = {*classes, *settings.label_map}
    ids = class_of_ids(settings, classes, [(number, _general(name, known)) for number, name in _NAMES.items()])

    def labels_of(scan: Path) -> Path:
        return scan.parent.parent / "labels" / f"{scan.stem}.label"

    def build(index: int) -> Sample:
        scan = scans[index]
        sequence, labels = scan.parent.parent.name, labels_of(scan)
        return Sample(
            index=index,
            token=f"{sequence}/{scan.stem}",
            timestamp=0.0,
            scene=sequence,
            lidar=point_file(settings, folder, scan, _FEATURES),
            point_labels=LabelFile(labels, ids) if labels.is_file() else None,
        )

    return Dataset(
        name=folder.name,
        classes=classes,
        length=len(scans),
        build=build,
        digest_parts=lambda: [
            settings_part(settings, classes),
            [scan.relative_to(folder).as_posix() for scan in scans],
            files_part(folder, (file for scan in scans if (file := labels_of(scan)).is_file())),
        ],
    )


def _general(name: str, known: Container[str]) -> str:
    """The next more general name that is known, beginning with the name itself, which it stays if none is."""
    kind = name.removeprefix("moving-")
    return next((each for each in (name, kind, _MORE_GENERAL.get(kind, kind)) if each in known), name)


VIEWS = {LIDAR_FRAME: open_semantickitti}

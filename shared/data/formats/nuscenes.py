"""nuScenes from its own tables: ``v1.0-*/*.json`` beside ``samples``, ``sweeps`` and, where there is one, ``lidarseg``.

Their schema is T4's, whose code reads them. Points are x, y, z, intensity 0-255 and ring in the frame of LIDAR_TOP.
"""

from __future__ import annotations

from pathlib import Path

from shared.data.camera_pairs import pairs_opener
from shared.data.formats.nuscenes_mini_val import CLASSES as DETECTION_CLASSES
from shared.data.formats.t4.frames import Scene, frames_of, table_path
from shared.data.paths import data_path
from shared.data.types import Dataset, DataSource, Sample
from shared.data.views import CAMERA_PAIR, LIDAR_FRAME
from shared.errors import InputError

#: The 16 classes that its benchmark of lidarseg judges; the first ten are those of the detection benchmark.
CLASSES = (
    *DETECTION_CLASSES,
    *("driveable_surface", "other_flat", "sidewalk", "terrain", "manmade", "vegetation"),
)
_VERSION = "tables"  # key of data_prefix


def open_nuscenes(settings: DataSource, folder: Path) -> Dataset[Sample]:
    """Data set of all key frames of a version, by time; ``data_prefix.tables`` says which, if there are several.

    Raises:
        InputError: no version there, or several and none is chosen; a table is missing or malformed.
    """
    scenes = Scene(folder, _version(settings, folder), settings, trailers_merge=False)
    return frames_of([scenes], settings, folder, tuple(settings.classes) or CLASSES)


def _version(settings: DataSource, folder: Path) -> Path:
    """The folder of the tables."""
    chosen = settings.data_prefix.get(_VERSION)
    if chosen is None:
        named = sorted(folder.glob("v1.0-*"))
    else:
        named = [data_path(folder, chosen, where=f"data.data_prefix.{_VERSION}")]
    found = [version for version in named if table_path(version, "sample").is_file()]
    if not found:
        raise InputError(
            f"no {chosen or 'v1.0-*'}/sample.json here",
            where=str(folder),
            hint="data.root is the folder that has v1.0-mini or the like, and samples",
        )
    if len(found) > 1:
        raise InputError(
            f"has several versions: {', '.join(version.name for version in found)}",
            where=str(folder),
            hint=f"choose one, for example data.data_prefix: {{{_VERSION}: {found[0].name}}}",
        )
    return found[0]


VIEWS = {LIDAR_FRAME: open_nuscenes, CAMERA_PAIR: pairs_opener(open_nuscenes)}

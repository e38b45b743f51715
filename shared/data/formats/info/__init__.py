"""Info files of mmdet3d 1.x and AWML (.pkl or .json), which list what lies in a data folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from shared.data.camera_pairs import CameraPair, pairs_of_frames
from shared.data.common import info_file, load_info
from shared.data.formats.info.calibration import is_calibration_info, open_calibration_info
from shared.data.formats.info.frames import open_info
from shared.data.formats.info.images import open_image_info
from shared.data.types import Dataset, DataSource
from shared.data.views import CAMERA_PAIR, IMAGE, LIDAR_FRAME


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


VIEWS = {LIDAR_FRAME: open_info, IMAGE: open_image_info, CAMERA_PAIR: open_pairs_info}

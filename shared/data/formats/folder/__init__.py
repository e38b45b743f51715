"""A bare folder of point files or images, without labels."""

from __future__ import annotations

from shared.data.formats.folder.frames import open_folder
from shared.data.formats.folder.images import open_image_folder
from shared.data.views import IMAGE, LIDAR_FRAME

VIEWS = {LIDAR_FRAME: open_folder, IMAGE: open_image_folder}

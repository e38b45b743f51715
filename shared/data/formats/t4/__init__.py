"""T4 scenes, read from their own tables."""

from __future__ import annotations

from shared.data.camera_pairs import pairs_opener
from shared.data.formats.t4.frames import open_t4
from shared.data.formats.t4.images import open_t4_images
from shared.data.views import CAMERA_PAIR, IMAGE, LIDAR_FRAME

VIEWS = {LIDAR_FRAME: open_t4, IMAGE: open_t4_images, CAMERA_PAIR: pairs_opener(open_t4)}

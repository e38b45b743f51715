"""KITTI's 3D object data set."""

from __future__ import annotations

from shared.data.camera_pairs import pairs_opener
from shared.data.formats.kitti.frames import open_kitti
from shared.data.formats.kitti.images import open_kitti_images
from shared.data.views import CAMERA_PAIR, IMAGE, LIDAR_FRAME

VIEWS = {LIDAR_FRAME: open_kitti, IMAGE: open_kitti_images, CAMERA_PAIR: pairs_opener(open_kitti)}

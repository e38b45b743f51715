"""nuScenes mini_val as ``mini_val_infos.json.gz``: the contents of an info file of mmdet3d 0.x, converted to JSON.

Boxes there are center, (w, l, h) and yaw_old in the lidar frame, with yaw = -yaw_old - pi/2 (the convention before
mmdet3d 1.0). Categories that nuScenes' detection task ignores carry their full name.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from shared.data.camera_pairs import pairs_opener
from shared.data.common import explain_malformed, files_part, point_file, settings_part
from shared.data.labels import IGNORED, class_index
from shared.data.paths import data_path
from shared.data.types import Camera, Dataset, DataSource, Sample
from shared.data.views import CAMERA_PAIR, LIDAR_FRAME
from shared.errors import InputError
from shared.geometry import invert_pose, pose, wrap_angle
from shared.json_reader import parse_json
from shared.regular_files import read_bytes
from shared.tasks.detection3d import Boxes3D

INFO_FILE = "mini_val_infos.json.gz"
CLASSES = (
    *("car", "truck", "trailer", "bus", "construction_vehicle"),
    *("bicycle", "motorcycle", "pedestrian", "traffic_cone", "barrier"),
)
_FEATURES = 5
_MICROSECONDS = 1e6


def open_mini_val(settings: DataSource, folder: Path, *, only_with_points: bool = True) -> Dataset[Sample]:
    """Data set of the frames, in the file's order.

    Args:
        only_with_points: leave out frames whose sweep is not in the folder; labels alone need none.

    Raises:
        InputError: the info file is missing or malformed, or no frame has its sweep.
    """
    file = folder / INFO_FILE
    try:
        with explain_malformed(str(file)):
            frames = parse_json(gzip.decompress(read_bytes(file)), str(file), allow_nan=True)["frames"]
            frames = [
                frame for frame in frames if not only_with_points or _lidar_path(folder, frame, str(file)).is_file()
            ]
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"can't be read ({error})", where=str(file), hint="check data.root") from error
    if not frames:
        raise InputError("no frame of it has its lidar sweep here", where=str(file))
    classes = tuple(settings.classes) or CLASSES

    def build(index: int) -> Sample:
        with explain_malformed(f"{file}: frames[{index}]"):
            return _sample(folder, index, frames[index], settings, classes, str(file))

    return Dataset(
        name=folder.name,
        classes=classes,
        length=len(frames),
        build=build,
        digest_parts=lambda: [
            settings_part(settings, classes),
            [frame["token"] for frame in frames],
            files_part(folder, [file]),
        ],
    )


def _lidar_path(folder: Path, frame: dict[str, Any], where: str) -> Path:
    """Where nuScenes has it (samples/LIDAR_TOP/...), or by its file name beside the info file."""
    path = data_path(folder, frame["lidar_path"], where=where)
    return path if path.is_file() else folder / path.name


def _sample(
    folder: Path, index: int, frame: dict[str, Any], settings: DataSource, classes: tuple[str, ...], where: str
) -> Sample:
    lidar2ego = pose(frame["lidar2ego_translation"], frame["lidar2ego_rotation"])
    labels = np.array(
        [class_index(str(name), classes, settings.label_map, generalize=True) for name in frame["gt_names"]], np.int64
    )
    boxes = np.array(frame["gt_boxes"], np.float64).reshape(-1, 7)
    velocities = [[np.nan, np.nan] if velocity is None else velocity for velocity in frame["gt_velocity"]]
    ground_truth = Boxes3D.build(
        centers=boxes[:, :3],
        sizes=boxes[:, [4, 3, 5]],
        yaws=wrap_angle(-boxes[:, 6] - np.pi / 2),
        velocities=np.array(velocities, np.float64).reshape(-1, 2),
        labels=labels,
        num_points=np.array(frame["num_lidar_pts"], np.int64),
    ).select(labels != IGNORED)
    return Sample(
        index=index,
        token=str(frame["token"]),
        timestamp=frame["timestamp"] / _MICROSECONDS,
        scene="nuscenes_mini_val",
        lidar=point_file(settings, folder, _lidar_path(folder, frame, where), _FEATURES),
        cameras={channel: _camera(folder, camera, where) for channel, camera in frame["cams"].items()},
        lidar2ego=lidar2ego,
        ego2global=pose(frame["ego2global_translation"], frame["ego2global_rotation"]),
        ground_truth=ground_truth,
    )


def _camera(folder: Path, camera: dict[str, Any], where: str) -> Camera:
    """``sensor2lidar`` maps camera points into the lidar frame at the lidar's time, ego motion included."""
    image = data_path(folder, camera["data_path"], where=where)
    return Camera(
        image=image if image.is_file() else None,  # this data set comes without most of them
        intrinsics=np.asarray(camera["cam_intrinsic"], np.float64),
        distortion=np.zeros(0),
        sensor2ego=pose(camera["sensor2ego_translation"], camera["sensor2ego_rotation"]),
        lidar2cam=invert_pose(pose(camera["sensor2lidar_translation"], camera["sensor2lidar_rotation"])),
        timestamp=camera["timestamp"] / _MICROSECONDS,
    )


VIEWS = {LIDAR_FRAME: open_mini_val, CAMERA_PAIR: pairs_opener(open_mini_val)}

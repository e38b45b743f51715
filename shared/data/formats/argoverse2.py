"""Argoverse 2 sensor data as ``LOG.json`` (boxes, poses, calibration) and ``LOG_TIMESTAMP.npz`` (points).

Points and boxes are in the ego frame (x forward), so lidar2ego is the identity. Five columns: x, y, z, intensity
0-255, laser number 0-63. Boxes say how many points they have, not how fast they move.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from shared.data.common import explain_malformed, files_part, point_file, settings_part
from shared.data.labels import IGNORED, class_index
from shared.data.paths import data_path
from shared.data.points import ARGOVERSE_COLUMNS
from shared.data.types import Camera, Dataset, DataSource, Sample
from shared.data.views import LIDAR_FRAME
from shared.errors import InputError
from shared.geometry import invert_pose, pose, quaternion_to_matrix, yaw_of
from shared.json_reader import DATA_BYTES, read_json
from shared.tasks.detection3d import Boxes3D

_NANOSECONDS = 1e9
_CAMERA_PREFIXES = ("ring_", "stereo_")


def open_argoverse(settings: DataSource, folder: Path) -> Dataset[Sample]:
    """Data set of all sweeps of all logs in a folder, by log name and time.

    Raises:
        InputError: no logs there, or one is malformed.
    """
    files = sorted(folder.glob("*.json"))
    frames: list[tuple[Path, dict[str, Any], dict[str, Any]]] = []
    names = set()
    for file in files:
        with explain_malformed(str(file)):
            log = read_json(file, most_bytes=DATA_BYTES)
            for sweep in sorted(log["sweeps"], key=lambda sweep: int(sweep["timestamp_ns"])):
                frames.append((file, log, sweep))
                names |= {str(box["category"]) for box in sweep["boxes"]}
    if not frames:
        raise InputError("no Argoverse 2 logs here", where=str(folder), hint="expected LOG.json; check data.root")
    classes = tuple(settings.classes) or tuple(sorted(names))

    def build(index: int) -> Sample:
        file, log, sweep = frames[index]
        with explain_malformed(f"{file}: sweep {sweep['timestamp_ns']}"):
            return _sample(folder, index, log, sweep, settings, classes, str(file))

    return Dataset(
        name=folder.name,
        classes=classes,
        length=len(frames),
        build=build,
        digest_parts=lambda: [settings_part(settings, classes), files_part(folder, files)],
    )


def _sample(
    folder: Path,
    index: int,
    log: dict[str, Any],
    sweep: dict[str, Any],
    settings: DataSource,
    classes: tuple[str, ...],
    where: str,
) -> Sample:
    labeled = [
        (box, class_index(str(box["category"]), classes, settings.label_map, generalize=True)) for box in sweep["boxes"]
    ]
    boxes = [box for box, label in labeled if label != IGNORED]
    ground_truth = Boxes3D.build(
        centers=np.array([[box["tx_m"], box["ty_m"], box["tz_m"]] for box in boxes], np.float64).reshape(-1, 3),
        sizes=np.array([[box["length_m"], box["width_m"], box["height_m"]] for box in boxes]).reshape(-1, 3),
        yaws=np.array([yaw_of(quaternion_to_matrix(_quaternion(box))) for box in boxes]),
        labels=np.array([label for _, label in labeled if label != IGNORED], np.int64),
        num_points=np.array([box["num_interior_pts"] for box in boxes], np.int64),
    )
    return Sample(
        index=index,
        token=f"{log['log']}_{sweep['timestamp_ns']}",
        timestamp=int(sweep["timestamp_ns"]) / _NANOSECONDS,
        scene=str(log["log"]),
        lidar=point_file(
            settings, folder, data_path(folder, sweep["points_file"], where=where), len(ARGOVERSE_COLUMNS)
        ),
        cameras=_cameras(log),
        ego2global=_pose(sweep["city_SE3_egovehicle"]),
        ground_truth=ground_truth,
    )


def _quaternion(record: dict[str, Any]) -> list[float]:
    return [record["qw"], record["qx"], record["qy"], record["qz"]]


def _pose(record: dict[str, Any]) -> Any:
    return pose([record["tx_m"], record["ty_m"], record["tz_m"]], _quaternion(record))


def _row(table: dict[str, list[Any]], position: int) -> dict[str, Any]:
    return {column: values[position] for column, values in table.items()}


def _cameras(log: dict[str, Any]) -> dict[str, Camera]:
    """Calibration of the log's cameras, where it has one. Images are not part of this form; ego motion between the
    lidar's and a camera's time is not known and left out of ``lidar2cam``."""
    if "intrinsics" not in log or "egovehicle_SE3_sensor" not in log:
        return {}
    poses = log["egovehicle_SE3_sensor"]
    cameras = {}
    for position, name in enumerate(log["intrinsics"]["sensor_name"]):
        if not name.startswith(_CAMERA_PREFIXES):
            continue
        lens = _row(log["intrinsics"], position)
        sensor2ego = _pose(_row(poses, poses["sensor_name"].index(name)))
        cameras[name] = Camera(
            image=None,
            intrinsics=np.array(
                [[lens["fx_px"], 0.0, lens["cx_px"]], [0.0, lens["fy_px"], lens["cy_px"]], [0.0, 0.0, 1.0]]
            ),
            distortion=np.array([lens["k1"], lens["k2"], 0.0, 0.0, lens["k3"]]),
            sensor2ego=sensor2ego,
            lidar2cam=invert_pose(sensor2ego),
            width=int(lens["width_px"]),
            height=int(lens["height_px"]),
        )
    return cameras


VIEWS = {LIDAR_FRAME: open_argoverse}

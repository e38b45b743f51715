"""KITTI 3D object: ``velodyne/*.bin``, ``label_2``, ``calib``, ``image_2`` side by side.

Points are x, y, z (x forward, y left, z up) and reflectance 0-1, four columns. Labels are in the rectified camera
frame: bottom center, (h, w, l), rotation about the camera's y axis; they are turned into lidar boxes exactly, the small
tilt between the frames included. KITTI says neither how many points a box has (they are counted), nor how fast it
moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from shared.arrays import Float64
from shared.data.common import explain_malformed, files_part, point_file, settings_part
from shared.data.labels import IGNORED, class_index
from shared.data.paths import data_path
from shared.data.points import read_points
from shared.data.types import Camera, Dataset, DataSource, PointFile, Sample
from shared.errors import InputError
from shared.geometry import count_points_in_boxes, transform_points
from shared.regular_files import read_bytes
from shared.tasks.detection3d import Boxes3D

CLASSES = ("Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc")
_FEATURES = 4
_CLOUDS = "velodyne"  # folder of the points; data_prefix.pts names another (velodyne_reduced)
_LABEL_COLUMNS = 15


def open_kitti(settings: DataSource, folder: Path) -> Dataset[Sample]:
    """Data set of the frames that have a point file, by number.

    Raises:
        InputError: no point files there.
    """
    clouds = data_path(folder, settings.data_prefix.get("pts", _CLOUDS), where="data.data_prefix.pts")
    frames = sorted(file.stem for file in clouds.glob("*.bin"))
    if not frames:
        raise InputError(f"no {clouds.name}/*.bin here", where=str(folder), hint="check data.root")
    classes = tuple(settings.classes) or CLASSES

    def describing(frame: str) -> list[Path]:
        files = (folder / "label_2" / f"{frame}.txt", folder / "calib" / f"{frame}.txt")
        return [file for file in files if file.is_file()]

    return Dataset(
        name=folder.name,
        classes=classes,
        length=len(frames),
        build=lambda index: _sample(folder, clouds, index, frames[index], settings, classes),
        digest_parts=lambda: [
            settings_part(settings, classes),
            frames,
            files_part(folder, (file for frame in frames for file in describing(frame))),
        ],
    )


def _sample(
    folder: Path, clouds: Path, index: int, frame: str, settings: DataSource, classes: tuple[str, ...]
) -> Sample:
    lidar = point_file(settings, folder, clouds / f"{frame}.bin", _FEATURES)
    calibration_file = folder / "calib" / f"{frame}.txt"
    label_file = folder / "label_2" / f"{frame}.txt"
    cameras: dict[str, Camera] = {}
    ground_truth: Boxes3D | None = None
    if calibration_file.is_file():
        with explain_malformed(str(calibration_file)):
            calibration = _read_calibration(calibration_file)
            lidar2rect = _homogeneous(calibration["R0_rect"]) @ _homogeneous(calibration["Tr_velo_to_cam"])
            cameras = {"image_2": _camera(folder / "image_2" / f"{frame}.png", calibration["P2"], lidar2rect)}
        if label_file.is_file():
            with explain_malformed(str(label_file)):
                ground_truth = _ground_truth(label_file, lidar2rect, lidar, settings, classes)
    elif label_file.is_file():
        raise InputError("labels without calibration", where=str(label_file), hint=f"expected {calibration_file}")
    return Sample(
        index=index,
        token=frame,
        timestamp=0.0,
        scene="kitti",
        lidar=lidar,
        cameras=cameras,
        ground_truth=ground_truth,
    )


def _read_calibration(file: Path) -> dict[str, Float64]:
    """Matrices by name: P0-P3 and Tr_* (3, 4), R0_rect (3, 3)."""
    matrices = {}
    for line in read_bytes(file).decode("ascii").splitlines():
        name, _, numbers = line.partition(":")
        if numbers.strip():
            matrices[name] = np.array(numbers.split(), np.float64).reshape(3, -1)
    return matrices


def _homogeneous(matrix: Float64) -> Float64:
    """(3, 3) or (3, 4) as (4, 4)."""
    full = np.eye(4)
    full[:3, : matrix.shape[1]] = matrix
    return full


def _camera(image: Path, projection: Float64, lidar2rect: Float64) -> Camera:
    """The left color camera. Its projection is ``K [I | K^-1 p]``: the offset from the reference camera is a pose."""
    intrinsics = projection[:, :3]
    rect2cam = np.eye(4)
    rect2cam[:3, 3] = np.linalg.solve(intrinsics, projection[:, 3])
    lidar2cam = rect2cam @ lidar2rect
    return Camera(
        image=image if image.is_file() else None,
        intrinsics=intrinsics,
        distortion=np.zeros(0),
        sensor2ego=np.asarray(np.linalg.inv(lidar2cam), np.float64),
        lidar2cam=lidar2cam,
    )


def label_rows(file: Path) -> Iterator[list[str]]:
    """The words of each object in a label file.

    Raises:
        ValueError: a line has more or fewer of them than KITTI's.
    """
    for words in map(str.split, read_bytes(file).decode("ascii").splitlines()):
        if words and len(words) != _LABEL_COLUMNS:
            raise ValueError(f"{len(words)} columns instead of {_LABEL_COLUMNS}")
        if words:
            yield words


def _ground_truth(
    file: Path, lidar2rect: Float64, lidar: PointFile, settings: DataSource, classes: tuple[str, ...]
) -> Boxes3D:
    rows, labels = [], []
    for words in label_rows(file):
        label = class_index(words[0], classes, settings.label_map, generalize=True)
        if label != IGNORED:
            rows.append([float(word) for word in words[8:]])
            labels.append(label)
    height, width, length, x, y, z, rotation_y = np.array(rows, np.float64).reshape(-1, 7).T
    # Inverted as a general matrix: KITTI's rotations are rounded, so their transpose is not quite their inverse.
    rect2lidar = np.linalg.inv(lidar2rect)
    centers = transform_points(rect2lidar, np.stack([x, y - height / 2, z], axis=1))  # camera y points down
    headings = np.stack([np.cos(rotation_y), np.zeros_like(rotation_y), -np.sin(rotation_y)], axis=1)
    headings = headings @ rect2lidar[:3, :3].T
    sizes = np.stack([length, width, height], axis=1)
    yaws = np.arctan2(headings[:, 1], headings[:, 0])
    return Boxes3D.build(
        centers=centers,
        sizes=sizes,
        yaws=yaws,
        labels=np.array(labels, np.int64),
        num_points=count_points_in_boxes(read_points(lidar), centers, sizes, yaws),
    )

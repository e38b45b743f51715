"""The annotation tables of a T4 scene (nuScenes-like JSON, t4-devkit 0.8 schema).

Sizes are (w, l, h), poses quaternions (w, x, y, z), boxes in global coordinates, times in microseconds. Tokens are
hashes of what they name, so that the same seed gives the same tables.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo.camera import HEIGHT, WIDTH, Camera, camera_rig
from demo.elementary import product
from demo.labels import SEGMENTS
from demo.objects import CLASSES
from demo.recording import Frame, Recording, Sweep
from demo.scene import pose_matrix
from shared.geometry import matrix_to_quaternion

LIDAR = "LIDAR_CONCAT"
ATTRIBUTES = {
    "moving": "in motion",
    "stopped": "a vehicle that waits in traffic",
    "parked": "a vehicle without a driver",
    "standing": "a person who is standing",
}
# Smallest visible share of an object's pixels, by level.
VISIBILITY_LEVELS = {"full": 0.8, "most": 0.6, "partial": 0.0, "none": -1.0, "unavailable": -1.0}

Table = list[dict[str, Any]]


def token(*names: object) -> str:
    """Return the token of something by its path of names."""
    return hashlib.sha256("/".join(map(str, names)).encode()).hexdigest()[:32]


def point_file(frame: int, *, previous: bool) -> str:
    """Return the path of a sweep inside the scene's folder; files are numbered in order of time."""
    return f"data/{LIDAR}/{2 * frame + (0 if previous else 1):05d}.pcd.bin"


def label_file(scene: str, frame: int) -> str:
    """Return the path of the labels of a key frame's points inside the scene's folder."""
    return f"lidarseg/annotation/{token(scene, 'lidarseg', frame)}.bin"


def mask_file(channel: str, frame: int) -> str:
    """Return the path of the labels of an image's pixels inside the scene's folder."""
    return f"masks/{channel}/{frame:05d}.png"


def image_file(channel: str, frame: int) -> str:
    """Return the path of an image inside the scene's folder."""
    return f"data/{channel}/{frame:05d}.jpg"


def build_tables(recording: Recording) -> dict[str, Table]:
    """Return all tables of a scene by name, rows as the JSON files hold them."""
    scene = recording.name
    channels = sorted({channel for frame in recording.frames for channel in frame.pictures})
    cameras = [camera for camera in camera_rig() if camera.channel in channels]
    tables: dict[str, Table] = {
        "attribute": [{"token": token("attribute", n), "name": n, "description": d} for n, d in ATTRIBUTES.items()],
        "category": _categories(labeled=any(frame.key.labels is not None for frame in recording.frames)),
        "visibility": [
            {"token": token("visibility", level), "level": level, "description": f"{level} visible"}
            for level in VISIBILITY_LEVELS
        ],
        "log": [
            {
                "token": token(scene, "log"),
                "logfile": "",
                "vehicle": "ego",
                "data_captured": "2023-11-14",
                "location": "synthetic",
            }
        ],
        "map": [
            {"token": token(scene, "map"), "log_tokens": [token(scene, "log")], "category": "none", "filename": ""}
        ],
        "scene": [
            {
                "token": token(scene),
                "name": scene,
                "description": "synthetic",
                "log_token": token(scene, "log"),
                "nbr_samples": len(recording.frames),
                "first_sample_token": sample_token(scene, 0),
                "last_sample_token": sample_token(scene, len(recording.frames) - 1),
            }
        ],
        "surface_ann": [],
    }
    tables |= _sensor_tables(scene, cameras)
    tables |= _time_tables(recording, cameras)
    tables |= _annotation_tables(recording)
    labeled = [index for index, frame in enumerate(recording.frames) if frame.key.labels is not None]
    if labeled:
        tables["lidarseg"] = [
            {
                "token": token(scene, "lidarseg", index),
                "filename": label_file(scene, index),
                "sample_data_token": sample_data_token(scene, LIDAR, index),
            }
            for index in labeled
        ]
    return tables


def _categories(*, labeled: bool) -> Table:
    """The classes; with labels of points, what else they tell apart, and the number that stands for each."""
    names = [name for name in SEGMENTS if name != "sky"] if labeled else CLASSES
    numbers = [{"index": number} if labeled else {} for number in range(len(names))]
    return [
        {"token": token("category", name), "name": name, "description": name, **number}
        for name, number in zip(names, numbers, strict=True)
    ]


def sample_token(scene: str, frame: int) -> str:
    """Return the token of a key frame."""
    return token(scene, "sample", frame)


def sample_data_token(scene: str, channel: str, frame: int, *, previous: bool = False) -> str:
    """Return the token of one sensor reading."""
    return token(scene, channel, frame, "sweep" if previous else "key")


def _sensor_tables(scene: str, cameras: list[Camera]) -> dict[str, Table]:
    sensors = [{"token": token("sensor", LIDAR), "channel": LIDAR, "modality": "lidar"}]
    # LIDAR_CONCAT merges sensors in base_link, so its pose is the identity.
    calibrated: Table = [
        {
            "token": token(scene, "calibrated", LIDAR),
            "sensor_token": token("sensor", LIDAR),
            "translation": [0.0, 0.0, 0.0],
            "rotation": [1.0, 0.0, 0.0, 0.0],
            "camera_intrinsic": [],
            "camera_distortion": [],
        }
    ]
    for camera in cameras:
        sensors.append({"token": token("sensor", camera.channel), "channel": camera.channel, "modality": "camera"})
        calibrated.append(
            {
                "token": token(scene, "calibrated", camera.channel),
                "sensor_token": token("sensor", camera.channel),
                **_pose(camera.cam2ego),
                "camera_intrinsic": camera.cam2img.tolist(),
                "camera_distortion": camera.distortion.tolist(),
            }
        )
    return {"sensor": sensors, "calibrated_sensor": calibrated}


def _time_tables(recording: Recording, cameras: list[Camera]) -> dict[str, Table]:
    """Build sample, ego_pose and sample_data; readings of one channel are chained in order of time."""
    scene = recording.name
    samples: Table = []
    poses: dict[str, dict[str, Any]] = {}
    readings: dict[str, Table] = {channel: [] for channel in (LIDAR, *(c.channel for c in cameras))}

    def add(channel: str, index: int, sweep: Sweep, filename: str, *, key: bool, size: tuple[int, int]) -> None:
        pose = token(scene, "ego_pose", sweep.timestamp)
        poses[pose] = {"token": pose, "timestamp": sweep.timestamp, **_pose(sweep.ego2global)}
        readings[channel].append(
            {
                "token": sample_data_token(scene, channel, index, previous=not key),
                "sample_token": sample_token(scene, index),
                "ego_pose_token": pose,
                "calibrated_sensor_token": token(scene, "calibrated", channel),
                "filename": filename,
                "fileformat": filename.split(".", 1)[1],
                "width": size[0],
                "height": size[1],
                "timestamp": sweep.timestamp,
                "is_key_frame": key,
                "is_valid": True,
            }
        )

    for index, frame in enumerate(recording.frames):
        samples.append(
            {"token": sample_token(scene, index), "timestamp": frame.key.timestamp, "scene_token": token(scene)}
        )
        if frame.previous is not None:
            add(LIDAR, index, frame.previous, point_file(index, previous=True), key=False, size=(0, 0))
        add(LIDAR, index, frame.key, point_file(index, previous=False), key=True, size=(0, 0))
        for channel in frame.pictures:
            add(channel, index, frame.key, image_file(channel, index), key=True, size=(WIDTH, HEIGHT))
    _chain(samples)
    for rows in readings.values():
        _chain(rows)
    return {
        "sample": samples,
        "ego_pose": list(poses.values()),
        "sample_data": [row for rows in readings.values() for row in rows],
    }


def _annotation_tables(recording: Recording) -> dict[str, Table]:
    """Build instance, sample_annotation (global frame) and object_ann (2D)."""
    scene = recording.name
    by_instance: dict[int, Table] = {}
    labels: dict[int, int] = {}
    in_images: Table = []
    for index, frame in enumerate(recording.frames):
        boxes = frame.annotations
        seen = _best_visibility(frame)
        for row, instance in enumerate(boxes.instances.tolist()):
            labels[instance] = int(boxes.labels[row])
            box2ego = pose_matrix(boxes.centers[row], boxes.yaws[row])
            length, width, height = boxes.sizes[row].tolist()
            by_instance.setdefault(instance, []).append(
                {
                    "token": token(scene, "annotation", index, instance),
                    "sample_token": sample_token(scene, index),
                    "instance_token": token(scene, "instance", instance),
                    "attribute_tokens": [token("attribute", boxes.states[row])],
                    "visibility_token": token("visibility", _visibility_level(seen[row], frame.num_lidar_pts[row])),
                    **_pose(product(frame.key.ego2global, box2ego)),
                    "size": [width, length, height],
                    "num_lidar_pts": int(frame.num_lidar_pts[row]),
                    "num_radar_pts": 0,
                }
            )
        for channel, picture in frame.pictures.items():
            for corners, row in zip(picture.boxes.corners.tolist(), picture.boxes.objects.tolist(), strict=True):
                instance = int(boxes.instances[row])
                in_images.append(
                    {
                        "token": token(scene, "object", channel, index, instance),
                        "sample_data_token": sample_data_token(scene, channel, index),
                        "instance_token": token(scene, "instance", instance),
                        "category_token": token("category", CLASSES[boxes.labels[row]]),
                        "attribute_tokens": [token("attribute", boxes.states[row])],
                        "bbox": corners,
                        "mask": None,
                    }
                )
    for rows in by_instance.values():
        _chain(rows)
    instances: Table = [
        {
            "token": token(scene, "instance", instance),
            "category_token": token("category", CLASSES[labels[instance]]),
            "instance_name": f"{CLASSES[labels[instance]]}_{instance:03d}",
            "nbr_annotations": len(rows),
            "first_annotation_token": rows[0]["token"],
            "last_annotation_token": rows[-1]["token"],
        }
        for instance, rows in by_instance.items()
    ]
    return {
        "instance": instances,
        "sample_annotation": [row for rows in by_instance.values() for row in rows],
        "object_ann": in_images,
    }


def _best_visibility(frame: Frame) -> NDArray[np.float64]:
    """Return for each object the greatest share of it that a camera sees, NaN if none has it in view."""
    seen = np.full(len(frame.annotations), np.nan)
    for picture in frame.pictures.values():
        rows = picture.boxes.objects
        seen[rows] = np.fmax(seen[rows], picture.boxes.visibility)
    return seen


def _visibility_level(seen: float, num_lidar_pts: int) -> str:
    if np.isnan(seen):
        return "none" if num_lidar_pts == 0 else "unavailable"
    return next(level for level, least in VISIBILITY_LEVELS.items() if seen >= least)


def _pose(matrix: NDArray[np.float64]) -> dict[str, list[float]]:
    return {"translation": matrix[:3, 3].tolist(), "rotation": matrix_to_quaternion(matrix[:3, :3]).tolist()}


def _chain(rows: Table) -> None:
    """Fill `prev` and `next` of rows in order."""
    for row, before, after in zip(rows, [None, *rows[:-1]], [*rows[1:], None], strict=True):
        row["prev"] = before["token"] if before else ""
        row["next"] = after["token"] if after else ""

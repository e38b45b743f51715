"""The info files that training frameworks read: 3D detection, 2D detection and calibration status, as AWML writes them.

Matrices are nested lists, so that the pickles hold nothing but plain Python values and load under any NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from demo.camera import HEIGHT, WIDTH, Camera, camera_rig
from demo.elementary import inverse_pose, product
from demo.labels import SEGMENTS
from demo.objects import CLASSES
from demo.recording import Frame, Recording
from demo.t4_tables import LIDAR, image_file, mask_file, point_file, sample_data_token, sample_token, token

DATABASE = "db_demo_v1"
VERSION = "demo"
POINT_FEATURES = 5
IDENTITY = np.eye(4).tolist()
CAMERAS: dict[str, Camera] = {camera.channel: camera for camera in camera_rig()}

Info = dict[str, Any]


def scene_folder(recording: Recording) -> str:
    """Return the folder of a scene inside the data set: data base, scene, version, as AWML lays T4 out."""
    return f"{DATABASE}/{recording.name}/0"


def detection3d_info(recordings: list[Recording]) -> Info:
    """Build the content of ``t4dataset_<version>_infos_<split>.pkl`` (mmdet3d's 1.1 form with AWML's additions)."""
    return {
        "metainfo": {"classes": list(CLASSES), "version": VERSION, "dataset": "t4dataset", "info_version": "1.1"},
        "data_list": [
            _frame_info(recording, index, frame)
            for recording in recordings
            for index, frame in enumerate(recording.frames)
        ],
    }


def detection2d_info(recordings: list[Recording]) -> Info:
    """Build the content of ``yolox_infos_<split>.json``; image paths are relative to the data set."""
    images = [
        (recording, index, channel)
        for recording in recordings
        for index, frame in enumerate(recording.frames)
        for channel in frame.pictures
    ]
    labeled = any(recording.frames[index].pictures[channel].mask is not None for recording, index, channel in images)
    return {
        "metainfo": {
            "dataset_type": "t4dataset",
            "task_name": "detection2d_task",
            "classes": list(CLASSES),
            **({"segments": list(SEGMENTS)} if labeled else {}),
        },
        "data_list": [
            {
                "img_id": number,
                "img_path": f"{scene_folder(recording)}/{image_file(channel, index)}",
                "width": WIDTH,
                "height": HEIGHT,
                "instances": _instances_2d(recording.frames[index], channel),
                **(
                    {"seg_map_path": f"{scene_folder(recording)}/{mask_file(channel, index)}"}
                    if recording.frames[index].pictures[channel].mask is not None
                    else {}
                ),
            }
            for number, (recording, index, channel) in enumerate(images)
        ],
    }


def calibration_info(recordings: list[Recording]) -> Info:
    """Build the content of the calibration-status info: one entry per camera image, times in microseconds."""
    return {
        "metainfo": {"version": VERSION},
        "data_list": [
            _calibration_entry(recording, index, frame, channel)
            for recording in recordings
            for index, frame in enumerate(recording.frames)
            for channel in frame.pictures
        ],
    }


def _frame_info(recording: Recording, index: int, frame: Frame) -> Info:
    scene, folder = recording.name, scene_folder(recording)
    return {
        "sample_idx": index,  # within the scene, as AWML counts
        "token": sample_token(scene, index),
        "timestamp": frame.key.timestamp / 1e6,
        "scene_token": token(scene),
        "scene_name": scene,
        "location": "synthetic",
        "city": "synthetic",
        "vehicle_type": "ego",
        "ego2global": frame.key.ego2global.tolist(),
        "lidar_points": {
            "num_pts_feats": POINT_FEATURES,
            "lidar_path": f"{folder}/{point_file(index, previous=False)}",
            "lidar2ego": IDENTITY,
        },
        "lidar_sweeps": _sweep_infos(recording, index, frame),
        "lidar_sources": {},
        "images": {channel: _image_info(recording, index, frame, channel) for channel in frame.pictures},
        "instances": _instances_3d(frame),
    }


def _sweep_infos(recording: Recording, index: int, frame: Frame) -> list[Info]:
    sweep = frame.previous
    if sweep is None:
        return []
    key2sweep = product(inverse_pose(sweep.ego2global), frame.key.ego2global)
    return [
        {
            "timestamp": sweep.timestamp / 1e6,
            "sample_data_token": sample_data_token(recording.name, LIDAR, index, previous=True),
            "ego2global": sweep.ego2global.tolist(),
            "lidar_points": {
                "lidar_path": f"{scene_folder(recording)}/{point_file(index, previous=True)}",
                "lidar2ego": IDENTITY,
                "lidar2sensor": key2sweep.astype(np.float32).tolist(),
                "num_pts_feats": POINT_FEATURES,
            },
        }
    ]


def _image_info(recording: Recording, index: int, frame: Frame, channel: str) -> Info:
    camera = CAMERAS[channel]
    return {
        "img_path": f"{scene_folder(recording)}/{image_file(channel, index)}",
        "height": HEIGHT,
        "width": WIDTH,
        "cam2img": camera.cam2img.tolist(),
        "cam2ego": camera.cam2ego.tolist(),
        # base_link and LIDAR_CONCAT are one frame, and all sensors fire at once.
        "lidar2cam": inverse_pose(camera.cam2ego).tolist(),
        "distortion_coefficients": camera.distortion.tolist(),
        "timestamp": frame.key.timestamp / 1e6,
        "sample_data_token": sample_data_token(recording.name, channel, index),
    }


def _instances_3d(frame: Frame) -> list[Info]:
    boxes = frame.annotations
    return [
        {
            "bbox_label": int(boxes.labels[row]),
            "bbox_label_3d": int(boxes.labels[row]),
            "bbox_3d": [*boxes.centers[row].tolist(), *boxes.sizes[row].tolist(), float(boxes.yaws[row])],
            "bbox_3d_isvalid": bool(frame.num_lidar_pts[row] > 0),
            "num_lidar_pts": int(frame.num_lidar_pts[row]),
            "num_radar_pts": 0,
            "velocity": boxes.velocities[row].tolist(),
            "gt_nusc_name": CLASSES[boxes.labels[row]],
            "gt_attrs": [boxes.states[row]],
        }
        for row in range(len(boxes))
    ]


def _instances_2d(frame: Frame, channel: str) -> list[Info]:
    boxes = frame.pictures[channel].boxes
    return [
        {
            "bbox": corners,
            "bbox_label": int(frame.annotations.labels[row]),
            "mask": [],
            "extra_anns": {},
            "ignore_flag": 0,
        }
        for corners, row in zip(boxes.corners.tolist(), boxes.objects.tolist(), strict=True)
    ]


def _calibration_entry(recording: Recording, index: int, frame: Frame, channel: str) -> Info:
    camera, scene, folder = CAMERAS[channel], recording.name, scene_folder(recording)
    pose = frame.key.ego2global.tolist()
    return {
        "frame_idx": str(index),
        "frame_id": channel,
        "sample_idx": index,
        "scene_id": scene,
        "image": {
            "img_path": f"{folder}/{image_file(channel, index)}",
            "cam2img": camera.cam2img.tolist(),
            "cam2ego": camera.cam2ego.tolist(),
            "cam_pose": pose,
            "lidar2cam": inverse_pose(camera.cam2ego).tolist(),
            "distortion_coefficients": camera.distortion.tolist(),
            "height": HEIGHT,
            "width": WIDTH,
            "timestamp": frame.key.timestamp,
            "sample_data_token": sample_data_token(scene, channel, index),
        },
        "lidar_points": {
            "lidar_path": f"{folder}/{point_file(index, previous=False)}",
            "lidar_pose": pose,
            "lidar2ego": IDENTITY,
            "timestamp": frame.key.timestamp,
            "sample_data_token": sample_data_token(scene, LIDAR, index),
        },
        "lidar_sources": {},
    }

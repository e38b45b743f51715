"""Training samples of the demo calibration classifier: the network's input in both states, from generated frames.

Worker processes make them while the accelerator trains.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.camera import HEIGHT, WIDTH, Camera, camera_rig, render
from demo.recording import draw_scene, record_frame
from demo.scene import KEY_FRAME_PERIOD
from exporter.demo_training import through_jpeg
from exporter.models.calibration.transform import lidar_channels, straight_intrinsics, undistort
from shared.data.miscalibration import Disturbance, draw_disturbance, rotation_about
from shared.geometry import invert_pose

FRAMES_PER_TRAINING_SCENE = 2
JPEG_QUALITY = 90  # as the demo's data set is written
MAX_DEPTH, DILATION = 128.0, 1

# How differently from the demo's rig a camera is mounted at most [degrees], [m]: as much as AWML's disturbances.
MOUNT_ROTATION, MOUNT_TRANSLATION = 10.0, 0.2
BRIGHTNESS, CONTRAST = 0.15, 0.2  # largest change, as a share
FLIP_PROBABILITY = 0.5


def straight_image(image: NDArray[np.uint8], camera: Camera) -> NDArray[np.uint8]:
    """Return (3, H, W) blue, green, red, undistorted, of a rendered RGB image (H, W, 3) as its file has it."""
    stored = np.ascontiguousarray(through_jpeg(image, JPEG_QUALITY)[..., ::-1])
    return undistort(stored, camera.cam2img, camera.distortion)[0].transpose(2, 0, 1)


def painted(points: NDArray[np.float32], camera: Camera, disturbance: Disturbance | None) -> NDArray[np.float32]:
    """Return (2, H, W) float32 depth and intensity 0-255 of points (N, 5) in base_link, wrongly placed if disturbed."""
    lidar2cam = invert_pose(camera.cam2ego)
    if disturbance is not None:
        lidar2cam = disturbance.apply(lidar2cam)
    matrix = straight_intrinsics(camera.cam2img, camera.distortion, (WIDTH, HEIGHT))
    return lidar_channels(points, lidar2cam, matrix, HEIGHT, WIDTH, max_depth=MAX_DEPTH, dilation_size=DILATION)


@dataclass(frozen=True)
class Views:
    """One moment of a scene: points (N, 5) in base_link; of each camera where it is, and what it sees, undistorted.

    mounts (6, 4, 4) cam2ego in the order of the rig; images (6, 3, H, W) uint8 blue, green, red.
    """

    points: NDArray[np.float32]
    mounts: NDArray[np.float64]
    images: NDArray[np.uint8]

    @property
    def cameras(self) -> list[Camera]:
        """The rig's cameras as they are mounted here."""
        return [replace(c, cam2ego=mount) for c, mount in zip(camera_rig(), self.mounts, strict=True)]


def kept_views(seed: int, index: int, folder: Path) -> Views:
    """`training_views` from a file of the folder, which is written the first time."""
    path = folder / f"{seed}-{index}.npz"
    if not path.exists():
        views = training_views(seed, index)
        unfinished = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(unfinished, points=views.points, mounts=views.mounts, images=views.images)
        unfinished.replace(path)
    with np.load(path) as file:
        return Views(file["points"], file["mounts"], file["images"])


def training_views(seed: int, index: int) -> Views:
    """Record training frame `index` by a vehicle of its own: the scenes of split ``train`` in order.

    Every camera is mounted otherwise than in the demo's rig, by as much as a disturbance may be. With one rig for all,
    calibrated images would have the lidar's rings at the same places always, and the network would learn these places
    instead of comparing points and image.
    """
    rng = np.random.default_rng([seed, index])
    number, which = divmod(index, FRAMES_PER_TRAINING_SCENE)
    scene = draw_scene(seed, "train", number, FRAMES_PER_TRAINING_SCENE)
    frame = record_frame(scene, seed, "train", number, which, cameras=False, previous=False)
    cameras = tuple(mounted_otherwise(camera, rng) for camera in camera_rig())
    snapshot = scene.at(which * KEY_FRAME_PERIOD)
    images = [straight_image(render(camera, snapshot, scene.road).image, camera) for camera in cameras]
    return Views(frame.key.points, np.stack([c.cam2ego for c in cameras]), np.stack(images))


def mounted_otherwise(camera: Camera, rng: np.random.Generator) -> Camera:
    """Return the camera turned and moved at random, the rig's own place no likelier than any other.

    If small angles were likelier (as they are with angles drawn evenly: there are fewer ways to turn a little than to
    turn much), a camera near its place in the rig would be calibrated more often than not.
    """
    mount = np.eye(4)
    mount[:3, :3] = rotation_about(_direction(rng), np.deg2rad(MOUNT_ROTATION * np.cbrt(rng.random())))
    mount[:3, 3] = _direction(rng) * MOUNT_TRANSLATION * np.cbrt(rng.random())
    return replace(camera, cam2ego=camera.cam2ego @ mount)


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    vector = rng.normal(size=3)
    return np.asarray(vector / np.linalg.norm(vector), np.float64)


def training_samples(
    views: Views, rng: np.random.Generator, preset: str
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Return inputs (12, 5, H, W) float16 in 0..1 and labels (12,): six cameras, miscalibrated (0) and calibrated (1).

    Light, contrast and left-right are changed at random, for both states of a camera alike.
    """
    inputs = np.empty((2 * len(views.mounts), 5, HEIGHT, WIDTH), np.float16)
    for number, (camera, picture) in enumerate(zip(views.cameras, views.images, strict=True)):
        image = _in_other_light(picture.astype(np.float32), rng)
        turned = rng.random() < FLIP_PROBABILITY
        for label in (0, 1):
            wrong = draw_disturbance(preset, rng) if label == 0 else None
            channels = np.concatenate([image, painted(views.points, camera, wrong)]) / np.float32(255)
            inputs[2 * number + label] = channels[..., ::-1] if turned else channels
    return inputs, np.tile(np.array([0, 1], np.int64), len(views.mounts))


def _in_other_light(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    contrast = 1 + rng.uniform(-CONTRAST, CONTRAST)
    shift = 255 * rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    return np.asarray(np.clip((image - 127.5) * contrast + 127.5 + shift, 0, 255), np.float32)

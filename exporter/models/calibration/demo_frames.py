"""Training samples of the demo calibration classifier: the network's input in both states, from generated frames.

NumPy and Pillow alone (a training machine need not have OpenCV), so that worker processes can make samples while the
accelerator trains. The input is the same as AWML's transform gives, to within the rounding of image interpolation.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.camera import HEIGHT, WIDTH, Camera, camera_rig, distorted, render
from demo.recording import draw_scene, record_frame
from demo.scene import KEY_FRAME_PERIOD
from exporter.models.calibration.transform import paint
from shared.data.miscalibration import Disturbance, draw_disturbance, rotation_about
from shared.geometry import invert_pose

FRAMES_PER_TRAINING_SCENE = 2
JPEG_QUALITY = 90  # as the demo's data set is written
MAX_DEPTH, DILATION = 128.0, 1
GRID = 9  # OpenCV finds the border of an undistorted image from so many points a side
INVERSION_STEPS = 25  # of the lens model, by fixed-point iteration: far below a thousandth of a pixel

# How differently from the demo's rig a camera is mounted at most [degrees], [m]: as much as AWML's disturbances.
MOUNT_ROTATION, MOUNT_TRANSLATION = 10.0, 0.2
BRIGHTNESS, CONTRAST = 0.15, 0.2  # largest change, as a share
FLIP_PROBABILITY = 0.5


@dataclass(frozen=True)
class UndistortionMap:
    """How a camera's image is undistorted: intrinsics (3, 3) afterwards, and where each pixel comes from.

    corners (4, H * W) flat source pixels, weights (4, H * W) float32 of the bilinear interpolation.
    """

    cam2img: NDArray[np.float64]
    corners: NDArray[np.int64]
    weights: NDArray[np.float32]


@lru_cache(maxsize=6)
def undistortion_map(channel: str) -> UndistortionMap:
    """Return how the image of a camera is undistorted such that every pixel has content (OpenCV's alpha 0)."""
    camera = next(c for c in camera_rig() if c.channel == channel)
    matrix = undistorted_intrinsics(camera)
    column, row = np.meshgrid(np.arange(WIDTH, dtype=np.float64), np.arange(HEIGHT, dtype=np.float64))
    straight = np.stack([(column - matrix[0, 2]) / matrix[0, 0], (row - matrix[1, 2]) / matrix[1, 1]], axis=-1)
    bent = distorted(straight, camera.distortion)
    x = np.clip(bent[..., 0] * camera.cam2img[0, 0] + camera.cam2img[0, 2], 0, WIDTH - 1.001).ravel()
    y = np.clip(bent[..., 1] * camera.cam2img[1, 1] + camera.cam2img[1, 2], 0, HEIGHT - 1.001).ravel()
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, low = x - left, y - top
    first = top * WIDTH + left
    return UndistortionMap(
        matrix,
        np.stack([first, first + 1, first + WIDTH, first + WIDTH + 1]),
        np.stack([(1 - right) * (1 - low), right * (1 - low), (1 - right) * low, right * low]).astype(np.float32),
    )


def undistorted_intrinsics(camera: Camera) -> NDArray[np.float64]:
    """Return the intrinsics whose image is the largest upright rectangle inside the undistorted one."""
    u, v = np.meshgrid(np.linspace(0, WIDTH - 1, GRID), np.linspace(0, HEIGHT - 1, GRID))
    bent = np.stack(
        [(u - camera.cam2img[0, 2]) / camera.cam2img[0, 0], (v - camera.cam2img[1, 2]) / camera.cam2img[1, 1]], axis=-1
    )
    straight = bent.copy()
    for _ in range(INVERSION_STEPS):
        straight += bent - distorted(straight, camera.distortion)
    left, right = straight[:, 0, 0].max(), straight[:, -1, 0].min()
    top, bottom = straight[0, :, 1].max(), straight[-1, :, 1].min()
    fx, fy = (WIDTH - 1) / (right - left), (HEIGHT - 1) / (bottom - top)
    return np.array([[fx, 0.0, -fx * left], [0.0, fy, -fy * top], [0.0, 0.0, 1.0]])


def undistorted_image(image: NDArray[np.uint8], channel: str) -> NDArray[np.float32]:
    """Return (3, H, W) float32 blue, green, red 0-255, undistorted, of a rendered RGB image (H, W, 3)."""
    undistortion = undistortion_map(channel)
    flat = as_stored(image).reshape(-1, 3).astype(np.float32)
    mixed = np.einsum("kp,kpc->cp", undistortion.weights, flat[undistortion.corners])
    return np.asarray(np.round(mixed[::-1]).reshape(3, HEIGHT, WIDTH), np.float32)


def as_stored(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a rendered image as the data set's JPEG file has it."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return np.asarray(Image.open(buffer))


def lidar_channels(points: NDArray[np.float32], camera: Camera, disturbance: Disturbance | None) -> NDArray[np.float32]:
    """Return (2, H, W) float32 depth and intensity 0-255 of points (N, 5) in base_link, wrongly placed if disturbed."""
    lidar2cam = invert_pose(camera.cam2ego)
    if disturbance is not None:
        lidar2cam = disturbance.apply(lidar2cam)
    in_camera = points[:, :3].astype(np.float64) @ lidar2cam[:3, :3].T + lidar2cam[:3, 3]
    ahead = in_camera[:, 2] > 0
    in_camera = in_camera[ahead]
    matrix = undistortion_map(camera.channel).cam2img
    pixels = in_camera[:, :2] / in_camera[:, 2:] * np.diag(matrix)[:2] + matrix[:2, 2]
    return paint(pixels, in_camera[:, 2], points[ahead, 3], HEIGHT, WIDTH, max_depth=MAX_DEPTH, dilation_size=DILATION)


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
    images = [undistorted_image(render(camera, snapshot, scene.road).image, camera.channel) for camera in cameras]
    return Views(frame.key.points, np.stack([c.cam2ego for c in cameras]), np.stack(images).astype(np.uint8))


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
            channels = np.concatenate([image, lidar_channels(views.points, camera, wrong)]) / np.float32(255)
            inputs[2 * number + label] = channels[..., ::-1] if turned else channels
    return inputs, np.tile(np.array([0, 1], np.int64), len(views.mounts))


def _in_other_light(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    contrast = 1 + rng.uniform(-CONTRAST, CONTRAST)
    shift = 255 * rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    return np.asarray(np.clip((image - 127.5) * contrast + 127.5 + shift, 0, 255), np.float32)

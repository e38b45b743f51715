"""Camera images of the demo's scenes with their 2D boxes, as a detector is trained on and judged by.

Everything is NumPy, so that worker processes can make samples while the accelerator trains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from demo.camera import camera_rig, render
from demo.recording import FRAMES_PER_SCENE, draw_scene, scene_lengths
from demo.scene import KEY_FRAME_PERIOD
from exporter.demo_training import through_jpeg

CAMERAS = len(camera_rig())


@dataclass(frozen=True)
class LabeledImage:
    """One image: pixels (H, W, 3) uint8 BGR, corners (N, 4) left, top, right, bottom [px], labels (N,), and mask (H, W)
    uint8 where it is wanted (`demo.labels.SEGMENTS`).
    """

    pixels: NDArray[np.uint8]
    corners: NDArray[np.float32]
    labels: NDArray[np.int64]
    mask: NDArray[np.uint8] | None = None


def camera_image(
    seed: int, split: str, number: int, frames: int, index: int, camera: int, *, masks: bool = False
) -> LabeledImage:
    """What a camera sees at key frame ``index`` of scene ``number``, as `demo.recording` records it.

    Args:
        seed, split: the data set.
        number: number of the scene.
        frames: key frames that the scene is made for.
        index: number of the key frame.
        camera: position in the rig.
        masks: label the pixels.
    """
    scene = draw_scene(seed, split, number, frames)
    snapshot = scene.at(index * KEY_FRAME_PERIOD)
    seen = render(camera_rig()[camera], snapshot, scene.road, labels=masks)
    return LabeledImage(
        pixels=np.ascontiguousarray(seen.image[..., ::-1]),
        corners=seen.boxes.corners.astype(np.float32),
        labels=snapshot.annotations.labels[seen.boxes.objects].astype(np.int64),
        mask=seen.mask,
    )


def training_image(seed: int, number: int, *, masks: bool = False) -> LabeledImage:
    """Training image ``number``: a scene of its own, one camera after another, mirrored half of the time."""
    image = camera_image(seed, "train", number, 1, 0, number % CAMERAS, masks=masks)
    return mirrored(image) if np.random.default_rng([seed, number]).random() < 0.5 else image


def compressed(image: LabeledImage, quality: int | None) -> LabeledImage:
    """The image after JPEG compression (None: without); it puts noise on even surfaces, and a detector that never saw
    any invents cars."""
    if quality is None:
        return image
    return replace(image, pixels=np.ascontiguousarray(through_jpeg(image.pixels[..., ::-1], quality)[..., ::-1]))


def mirrored(image: LabeledImage) -> LabeledImage:
    """The image with left and right exchanged."""
    width = image.pixels.shape[1]
    left, top, right, bottom = image.corners.T
    return LabeledImage(
        pixels=np.ascontiguousarray(image.pixels[:, ::-1]),
        corners=np.stack([width - right, top, width - left, bottom], axis=1).astype(np.float32),
        labels=image.labels,
        mask=None if image.mask is None else np.ascontiguousarray(image.mask[:, ::-1]),
    )


def held_out_image(seed: int, frames: int, number: int, *, masks: bool = False) -> LabeledImage:
    """Image ``number`` of what ``python -m demo generate --split eval`` makes of ``frames`` key frames.

    Args:
        seed: its seed.
        frames: its number of key frames.
        number: frames in their order, the cameras of each in theirs.
        masks: label the pixels.
    """
    frame, camera = divmod(number, CAMERAS)
    scene, index = divmod(frame, FRAMES_PER_SCENE)
    return camera_image(seed, "eval", scene, scene_lengths(frames)[scene], index, camera, masks=masks)

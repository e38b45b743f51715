"""From a seed to recorded frames: which random stream draws what, and which sensor fires when."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from demo.camera import Picture, camera_rig, render
from demo.draws import Draws
from demo.labels import labels_of
from demo.lidar import count_points, scan, trace
from demo.scene import KEY_FRAME_PERIOD, SWEEP_PERIOD, Annotations, Scene, build_scene

# A split's place in this list is part of every seed: no two splits share a scene, whatever their seeds.
SPLITS = ("train", "val", "eval", "hard")
FRAMES_PER_SCENE = 8
FIRST_TIMESTAMP = 1_700_000_000_000_000  # [us]
SECONDS_BETWEEN_SCENES = 60

# What a random stream draws.
_LAYOUT, _KEY_FRAME, _SWEEP = range(3)


@dataclass(frozen=True)
class Sweep:
    """One lidar sweep: points (n, 5) float32 (x, y, z in base_link at its time, intensity, ring)."""

    timestamp: int  # [us]
    ego2global: NDArray[np.float64]
    points: NDArray[np.float32]
    labels: NDArray[np.uint8] | None = None  # (n,) of the points, index into `demo.labels.SEGMENTS`


@dataclass(frozen=True)
class Frame:
    """One annotated key frame."""

    key: Sweep
    previous: Sweep | None  # one sweep period earlier; the first frame of a scene has none, as in real recordings
    annotations: Annotations
    num_lidar_pts: NDArray[np.int64]
    pictures: dict[str, Picture]  # by camera channel


@dataclass(frozen=True)
class Recording:
    """One scene, recorded."""

    name: str
    ego_speed: float
    frames: tuple[Frame, ...]


def random_stream(seed: int, split: str, *path: int) -> Draws:
    """Return the stream of one purpose; streams of different paths are independent."""
    return Draws([seed, SPLITS.index(split), *path])


def draw_scene(seed: int, split: str, number: int, frames: int) -> Scene:
    """Return the scene with this number, made for `frames` key frames."""
    return build_scene(random_stream(seed, split, number, _LAYOUT), (frames - 1) * KEY_FRAME_PERIOD)


def record_frame(
    scene: Scene,
    seed: int,
    split: str,
    number: int,
    index: int,
    *,
    cameras: bool,
    previous: bool,
    labels: bool = False,
) -> Frame:
    """Record key frame `index` of scene `number`.

    Args:
        scene: what to record.
        seed: the data set.
        split: the part of the data set, see SPLITS.
        number: number of the scene, part of the sensors' random streams.
        index: number of the key frame in the scene.
        cameras: whether to render images.
        previous: whether to record the sweep before it as well.
        labels: whether to label points and pixels.
    """
    time = index * KEY_FRAME_PERIOD
    start = FIRST_TIMESTAMP + number * SECONDS_BETWEEN_SCENES * 1_000_000
    snapshot = scene.at(time)
    returns = trace(snapshot, random_stream(seed, split, number, _KEY_FRAME, index))
    points = returns.points
    point_labels = labels_of(returns.met, returns.exact, snapshot, scene.road) if labels else None
    annotations = _as_float32(snapshot.annotations)
    sweep = None
    if previous:
        before = scene.at(time - SWEEP_PERIOD)
        sweep = Sweep(
            timestamp=start + round((time - SWEEP_PERIOD) * 1e6),
            ego2global=before.ego2global,
            points=scan(before, random_stream(seed, split, number, _SWEEP, index)),
        )
    rig = camera_rig() if cameras else ()
    pictures = {camera.channel: render(camera, snapshot, scene.road, labels=labels) for camera in rig}
    return Frame(
        key=Sweep(start + round(time * 1e6), snapshot.ego2global, points, point_labels),
        previous=sweep,
        annotations=annotations,
        num_lidar_pts=count_points(points, annotations),
        pictures=pictures,
    )


def record_scene(seed: int, split: str, number: int, frames: int, *, cameras: bool, labels: bool = False) -> Recording:
    """Record scene `number` of a split with `frames` key frames; `labels`: of points and pixels, too."""
    scene = draw_scene(seed, split, number, frames)
    return Recording(
        name=f"{split}-{seed}-{number:03d}",
        ego_speed=scene.ego_speed,
        frames=tuple(
            record_frame(scene, seed, split, number, index, cameras=cameras, previous=index > 0, labels=labels)
            for index in range(frames)
        ),
    )


def scene_lengths(frames: int) -> list[int]:
    """Distribute `frames` key frames over scenes of FRAMES_PER_SCENE; the last one takes the rest."""
    full, rest = divmod(frames, FRAMES_PER_SCENE)
    return [FRAMES_PER_SCENE] * full + ([rest] if rest else [])


def _as_float32(boxes: Annotations) -> Annotations:
    """Round to float32, so that readers in single and in double precision count the same points inside."""
    names = ("centers", "sizes", "yaws", "velocities")
    return replace(boxes, **{name: getattr(boxes, name).astype(np.float32).astype(np.float64) for name in names})

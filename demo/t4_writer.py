"""Write recordings as a T4 data set with its info files, whole or not at all.

<folder>/
  dataset.json                                       what made it, and the sha256 of every other file
  db_demo_v1/<scene>/0/{annotation,data,map}/...     T4 scenes
  info/t4dataset_demo_infos_<split>.pkl              3D detection
  info/yolox_infos_<split>.json                      2D detection
  info/t4dataset_demo_calibration_infos_<split>.pkl  calibration status

"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from demo import jpeg, png
from demo.data_set import write_json, write_once
from demo.info_files import VERSION, calibration_info, detection2d_info, detection3d_info, scene_folder
from demo.recording import Recording, Sweep
from demo.t4_tables import build_tables, image_file, label_file, mask_file, point_file

PICKLE_PROTOCOL = 4  # read by every Python from 3.4 on


def info_name(split: str) -> str:
    """Return the path of a split's 3D info file inside the data set."""
    return f"info/t4dataset_{VERSION}_infos_{split}.pkl"


def write_dataset(folder: Path, split: str, recordings: Iterable[Recording], arguments: dict[str, Any]) -> bool:
    """Write a data set, unless `folder` holds it already.

    Args:
        folder: where it goes; a data set of other arguments there is replaced.
        split: names the info files.
        recordings: the scenes, made one at a time as they are written.
        arguments: what the data set depends on, as JSON; equal arguments give equal bytes.

    Returns:
        Whether anything was written.

    Raises:
        UsageError: `folder` exists and is not a data set of this generator.
        EnvironmentLacks: disk full, or no permission.
    """
    return write_once(folder, arguments, partial(_write_all, split=split, recordings=recordings))


def _write_all(folder: Path, split: str, recordings: Iterable[Recording]) -> None:
    written = []
    for recording in recordings:
        _write_scene(folder / scene_folder(recording), recording)
        written.append(_without_arrays(recording))
    info = folder / "info"
    info.mkdir()
    (folder / info_name(split)).write_bytes(pickle.dumps(detection3d_info(written), protocol=PICKLE_PROTOCOL))
    if any(frame.pictures for recording in written for frame in recording.frames):
        write_json(info / f"yolox_infos_{split}.json", detection2d_info(written))
        calibration = pickle.dumps(calibration_info(written), protocol=PICKLE_PROTOCOL)
        (info / f"t4dataset_{VERSION}_calibration_infos_{split}.pkl").write_bytes(calibration)


def _write_scene(folder: Path, recording: Recording) -> None:
    for index, frame in enumerate(recording.frames):
        _write_bytes(folder / point_file(index, previous=False), frame.key.points.tobytes())
        if frame.key.labels is not None:
            _write_bytes(folder / label_file(recording.name, index), frame.key.labels.tobytes())
        if frame.previous is not None:
            _write_bytes(folder / point_file(index, previous=True), frame.previous.points.tobytes())
        for channel, picture in frame.pictures.items():
            _write_bytes(folder / image_file(channel, index), jpeg.encode(picture.image))
            if picture.mask is not None:
                _write_bytes(folder / mask_file(channel, index), png.encode(picture.mask))
    (folder / "map").mkdir(parents=True, exist_ok=True)
    (folder / "annotation").mkdir(parents=True, exist_ok=True)
    for name, rows in build_tables(recording).items():
        write_json(folder / "annotation" / f"{name}.json", rows)
    write_json(folder / "status.json", {"generator": "demo", "scene": recording.name})


def _without_arrays(recording: Recording) -> Recording:
    """Drop points and pixels once they are on disk; the info files need neither, and long recordings are large."""
    no_points, no_pixels = np.zeros((0, 5), np.float32), np.zeros((0, 0, 3), np.uint8)
    no_labels = np.zeros((0, 0), np.uint8)

    def light(sweep: Sweep) -> Sweep:
        return replace(sweep, points=no_points, labels=None)

    frames = tuple(
        replace(
            frame,
            key=light(frame.key),
            previous=light(frame.previous) if frame.previous is not None else None,
            pictures={
                channel: replace(picture, image=no_pixels, mask=None if picture.mask is None else no_labels)
                for channel, picture in frame.pictures.items()
            },
        )
        for frame in recording.frames
    )
    return replace(recording, frames=frames)


def _write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)

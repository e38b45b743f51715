"""AWML's info files of calibration status: one entry a camera image, with its points and its calibration.

Times are microseconds there (seconds in info files of 3D detection). ``lidar2cam`` has the vehicle's motion between the
two exposures in it; where an entry has the poses only, it is computed from them as AWML's converter does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.data.camera_pairs import CameraPair, in_both_states
from shared.data.common import explain_malformed, point_file, settings_part
from shared.data.paths import data_path
from shared.data.types import Camera, Dataset, DataSource
from shared.errors import InputError
from shared.files import sha256_of_file
from shared.geometry import invert_pose

_DEFAULT_FEATURES = 5
_MICROSECONDS = 1e6


def is_calibration_info(entries: Sequence[Any]) -> bool:
    """Whether a file's ``data_list`` has an image an entry, not the six cameras of a frame."""
    return isinstance(entries[0], Mapping) and "image" in entries[0]


def open_calibration_info(
    file: Path, entries: Sequence[Any], settings: DataSource, folder: Path
) -> Dataset[CameraPair]:
    """Data set of the entries of an info file, each in both states.

    Args:
        file: where the entries are from.
        entries: its ``data_list``.
        settings: the config's ``data`` section.
        folder: what its paths are relative to.

    Raises:
        InputError: two entries are of the same image.
    """
    names = [_name(entry, f"{file}: data_list[{index}]") for index, entry in enumerate(entries)]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise InputError(f"has image {twice} more than once", where=str(file))

    def pair(index: int) -> CameraPair:
        where = f"{file}: data_list[{index}]"
        with explain_malformed(where):
            return _pair(index, names[index], entries[index], settings, folder, where)

    return in_both_states(
        file.stem,
        len(entries),
        pair,
        settings.miscalibration,
        lambda: [settings_part(settings, ()), sha256_of_file(file)],
    )


def _name(entry: Any, where: str) -> str:
    """Drive, frame and camera: the same however the file is split or sorted."""
    with explain_malformed(where):
        return f"{entry['scene_id']}/{entry.get('frame_idx', entry['sample_idx'])}/{entry['frame_id']}"


def _pair(
    index: int, name: str, entry: Mapping[str, Any], settings: DataSource, folder: Path, where: str
) -> CameraPair:
    image, lidar = entry["image"], entry["lidar_points"]

    def path(relative: str) -> Path:
        return data_path(folder, relative, where=where, allow_absolute=settings.allow_absolute_paths)

    return CameraPair(
        index=index,
        token=name,
        timestamp=float(lidar["timestamp"]) / _MICROSECONDS,
        scene=str(entry["scene_id"]),
        channel=str(entry["frame_id"]),
        lidar=point_file(
            settings, folder, path(lidar["lidar_path"]), int(lidar.get("num_pts_feats", _DEFAULT_FEATURES))
        ),
        image=path(image["img_path"]),
        camera=Camera(
            image=path(image["img_path"]),
            intrinsics=_numbers(image["cam2img"]),
            distortion=_numbers([] if (found := image.get("distortion_coefficients")) is None else found),
            sensor2ego=_numbers(image["cam2ego"]),
            lidar2cam=_lidar2cam(image, lidar),
            width=int(image["width"]) if image.get("width") else None,
            height=int(image["height"]) if image.get("height") else None,
            timestamp=float(image["timestamp"]) / _MICROSECONDS,
        ),
    )


def _lidar2cam(image: Mapping[str, Any], lidar: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """(4, 4) lidar at its time to camera at its time."""
    if image.get("lidar2cam") is not None:
        return _numbers(image["lidar2cam"])
    lidar2global = _numbers(lidar["lidar_pose"]) @ _numbers(lidar["lidar2ego"])
    return invert_pose(_numbers(image["cam_pose"]) @ _numbers(image["cam2ego"])) @ lidar2global


def _numbers(values: Any) -> npt.NDArray[np.float64]:
    return np.asarray(values, np.float64)

"""Info files of mmdet3d 1.x (version 1.1, nuScenes and others) and AWML (T4): one entry per lidar key frame.

Rules where the two, or the data sets behind them, differ:

- *Labels.* ``bbox_label_3d`` indexes the file's own class list (mmdet3d: ``metainfo.categories``, AWML:
  ``metainfo.classes``); -1 means ignored. Ignored boxes and those of classes that are not asked for are left out of the
  ground truth. Boxes with ``num_lidar_pts`` 0 stay in, for the evaluator to filter by ``num_points``.
- *Boxes* are gravity center, l, w, h, yaw in the lidar frame; unknown velocities are NaN.
- *Paths.* Without ``data_prefix`` every path is relative to the data folder as it is (AWML). With it, mmdet3d's
  nuScenes rule: key frames join the whole path to ``pts``; of a sweep only the file name counts, joined to ``pts``
  where its path has ``samples`` in it, else to ``sweeps``; images join the prefix of their camera, else ``img``.
- *Labels of points.* ``pts_semantic_mask_path`` is a file as `shared.data.label_file.read_ids` reads, below
  ``data_prefix.pts_semantic_mask``. Its ids are those of ``data.label_ids``, of the entry's
  ``pts_semantic_mask_categories`` (AWML: name to id), or indices into the ``segments`` of the metainfo.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.data.common import (
    explain_malformed,
    files_part,
    info_file,
    label_path,
    load_info,
    point_file,
    settings_part,
)
from shared.data.label_file import LabelFile, class_of_ids
from shared.data.labels import IGNORED, class_index
from shared.data.paths import data_path
from shared.data.types import Camera, Dataset, DataSource, PointFile, Sample, Sweep
from shared.errors import ConfigError, InputError
from shared.files import sha256_of_file
from shared.geometry import invert_pose
from shared.tasks.detection3d import Boxes3D

# What AWML's loaders assume where an entry does not say.
_DEFAULT_FEATURES = 5


def open_info(settings: DataSource, folder: Path) -> Dataset[Sample]:
    """Data set of an info file.

    Raises:
        ConfigError: no info file is named, or no class names are known.
        InputError: the file is missing, refused, malformed, or has no frames.
    """
    file = info_file(settings, folder)
    where, content = str(file), load_info(file)
    if not isinstance(content, Mapping) or "data_list" not in content:
        hint = "an info file has 'metainfo' and 'data_list'; convert older ones with mmdet3d's update_infos_to_v2"
        raise InputError("is not an info file of mmdet3d 1.x or AWML", where=where, hint=hint)
    entries = content["data_list"]
    if not isinstance(entries, Sequence) or not entries:
        raise InputError("has no frames", where=where, hint="its data_list is empty: was it made for another split?")
    with explain_malformed(f"{where}: metainfo"):
        own_classes = own_class_names(content.get("metainfo", {}))
        segments = [str(name) for name in content.get("metainfo", {}).get("segments", ())]
    with explain_malformed(where):
        labels = [
            label_path(settings, folder, entry, "pts_semantic_mask_path", "pts_semantic_mask", where)
            for entry in entries
        ]
    with explain_malformed(where):
        categories = [
            str(name)
            for entry, path in zip(entries, labels, strict=True)
            if path is not None
            for name in entry.get("pts_semantic_mask_categories") or ()
        ]
    of_points = [*segments, *categories, *settings.label_ids] if any(path is not None for path in labels) else ()
    classes = tuple(settings.classes) or names_in(own_classes, of_points)
    if not classes and any(entry.get("instances") for entry in entries if isinstance(entry, Mapping)):
        raise ConfigError("the info file does not name its classes", where=where, hint="list them in data.classes")
    reader = _Reader(folder, settings, classes, own_classes or classes)

    def build(index: int) -> Sample:
        entry, path = entries[index], labels[index]
        with explain_malformed(f"{where}: data_list[{index}]"):
            sample = reader.sample(index, entry, f"{where}: data_list[{index}]")
            if path is None:
                return sample
            own = entry.get("pts_semantic_mask_categories") or {}
            known = [(int(number), str(name)) for name, number in own.items()] or list(enumerate(segments))
            if not known and not settings.label_ids:
                raise ConfigError("does not say which label is of which class", where=where, hint=SAY_IDS)
            return replace(sample, point_labels=LabelFile(path, class_of_ids(settings, classes, known)))

    return Dataset(
        name=file.stem,
        classes=classes,
        length=len(entries),
        build=build,
        digest_parts=lambda: [
            settings_part(settings, classes),
            sha256_of_file(file),
            *files_part(folder, sorted({path for path in labels if path is not None and path.is_file()})),
        ],
    )


_MOST_CLASSES = 100_000
#: What to do where a file with labels of points or pixels names no classes.
SAY_IDS = "say it in data.label_ids, for example {road: [24], car: [17]}"


def names_in(*lists: Iterable[str]) -> tuple[str, ...]:
    """All names, each once, in order."""
    return tuple(dict.fromkeys(name for names in lists for name in names if name))


def own_class_names(metainfo: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names by label; an empty name where a label has none."""
    if "classes" in metainfo:
        return tuple(str(name) for name in metainfo["classes"])
    names: dict[int, str] = {}
    for name, label in metainfo.get("categories", {}).items():
        names.setdefault(int(label), str(name))
    if max(names, default=0) > _MOST_CLASSES:
        raise ValueError(f"a class has the label {max(names)}")
    return tuple(names.get(label, "") for label in range(max(names, default=-1) + 1))


class _Reader:
    """Turns entries into samples; holds what all entries share."""

    def __init__(
        self, root: Path, settings: DataSource, classes: tuple[str, ...], own_classes: tuple[str, ...]
    ) -> None:
        self.root = root
        self.settings = settings
        self.classes = classes
        self.own_classes = own_classes

    def sample(self, index: int, entry: Mapping[str, Any], where: str) -> Sample:
        lidar = entry["lidar_points"]
        lidar2ego = _pose(lidar["lidar2ego"])
        return Sample(
            index=index,
            token=str(entry["token"] if "token" in entry else entry["sample_idx"]),
            timestamp=float(entry["timestamp"]),
            scene=str(entry.get("scene_token") or entry.get("scene_name") or ""),
            lidar=self._point_file(self._prefixed("pts", lidar["lidar_path"]), lidar, where),
            sweeps=tuple(self._sweep(sweep, where) for sweep in entry.get("lidar_sweeps", ())),
            lists_sweeps="lidar_sweeps" in entry,
            cameras={
                str(channel): self._camera(str(channel), camera, lidar2ego, where)
                for channel, camera in entry.get("images", {}).items()
            },
            lidar2ego=lidar2ego,
            ego2global=_pose(entry["ego2global"]) if entry.get("ego2global") is not None else None,
            ground_truth=self._ground_truth(entry, where),
        )

    def _prefixed(self, kind: str, name: str) -> str:
        prefix = self.settings.data_prefix.get(kind, "")
        return f"{prefix}/{name}" if prefix else name

    def _point_file(self, name: str, entry: Mapping[str, Any], where: str) -> PointFile:
        path = data_path(self.root, name, where=where, allow_absolute=self.settings.allow_absolute_paths)
        return point_file(self.settings, self.root, path, int(entry.get("num_pts_feats", _DEFAULT_FEATURES)))

    def _sweep(self, sweep: Mapping[str, Any], where: str) -> Sweep:
        lidar = sweep["lidar_points"]
        name = str(lidar["lidar_path"])
        if self.settings.data_prefix:
            name = self._prefixed("pts" if "samples" in name else "sweeps", name.rsplit("/", 1)[-1])
        return Sweep(
            points=self._point_file(name, lidar, where),
            timestamp=float(sweep["timestamp"]),
            lidar2sensor=_float_matrix(lidar["lidar2sensor"]),
        )

    def _camera(
        self, channel: str, camera: Mapping[str, Any], lidar2ego: npt.NDArray[np.float64], where: str
    ) -> Camera:
        if "cam2ego" in camera:
            sensor2ego = _pose(camera["cam2ego"])
            lidar2cam = _pose(camera["lidar2cam"]) if "lidar2cam" in camera else invert_pose(sensor2ego) @ lidar2ego
        else:
            lidar2cam = _pose(camera["lidar2cam"])
            sensor2ego = lidar2ego @ invert_pose(lidar2cam)
        image = camera.get("img_path")
        if image is not None:
            name = self._prefixed(channel if channel in self.settings.data_prefix else "img", str(image))
            image = data_path(self.root, name, where=where, allow_absolute=self.settings.allow_absolute_paths)
        timestamp = camera.get("timestamp")
        return Camera(
            image=image,
            intrinsics=np.asarray(camera["cam2img"], np.float64)[:3, :3],
            distortion=np.asarray(camera.get("distortion_coefficients", ()), np.float64),
            sensor2ego=sensor2ego,
            lidar2cam=lidar2cam,
            width=_optional_int(camera.get("width")),
            height=_optional_int(camera.get("height")),
            timestamp=None if timestamp is None else float(timestamp),
        )

    def _ground_truth(self, entry: Mapping[str, Any], where: str) -> Boxes3D | None:
        if "instances" not in entry:
            return None
        kept: list[Mapping[str, Any]] = []
        labels: list[int] = []
        for instance in entry["instances"]:
            own_label = int(instance["bbox_label_3d"])
            if own_label == IGNORED:
                continue
            if not 0 <= own_label < len(self.own_classes):
                raise InputError(
                    f"has label {own_label}, but the file names {len(self.own_classes)} classes", where=where
                )
            name = self.own_classes[own_label]
            label = class_index(name, self.classes, self.settings.label_map, generalize=False)
            if label != IGNORED:
                kept.append(instance)
                labels.append(label)
        boxes = np.array([instance["bbox_3d"] for instance in kept], np.float64).reshape(-1, 7)
        unknown = (np.nan, np.nan)
        return Boxes3D.build(
            centers=boxes[:, :3],
            sizes=boxes[:, 3:6],
            yaws=boxes[:, 6],
            velocities=np.array([instance.get("velocity", unknown) for instance in kept], np.float64).reshape(-1, 2),
            labels=np.array(labels, np.int64),
            num_points=np.array([instance["num_lidar_pts"] for instance in kept], np.int64),
        )


def _pose(value: Any) -> npt.NDArray[np.float64]:
    matrix = np.asarray(value, np.float64)
    if matrix.shape != (4, 4):
        raise ValueError(f"a pose has shape (4, 4), not {matrix.shape}")
    return matrix


def _float_matrix(value: Any) -> npt.NDArray[np.floating[Any]]:
    """A pose with its own precision: float32 stays float32, lists of Python numbers become float64."""
    matrix = np.array(value)
    if matrix.shape != (4, 4):
        raise ValueError(f"a pose has shape (4, 4), not {matrix.shape}")
    return matrix if matrix.dtype.kind == "f" else matrix.astype(np.float64)


def _optional_int(value: Any) -> int | None:
    return None if value is None else int(value)

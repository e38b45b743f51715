"""T4 scenes, read from their annotation tables (t4-devkit 0.8 schema, and the older one without camera_distortion).

A scene folder has ``annotation/*.json`` and ``data/<CHANNEL>/...``; nuScenes has tables of the same schema, one folder
of them for all its scenes (`shared.data.formats.nuscenes`). The tables give annotations in the global frame with sizes
(w, l, h); samples give them in the lidar frame with (l, w, h). LIDAR_CONCAT has an identity ``calibrated_sensor``, so
its lidar frame is base_link.

Labels of points are in the files that ``lidarseg.json`` lists, as in nuScenes: 8 bits a point, the ``index`` of a
category.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.arrays import Float64
from shared.data.common import explain_malformed, files_part, point_file, settings_part
from shared.data.formats.t4.trailers import merge_trailers
from shared.data.label_file import LabelFile, class_of_ids
from shared.data.labels import IGNORED, class_index
from shared.data.paths import data_path
from shared.data.types import Camera, Dataset, DataSource, PointFile, Sample, Sweep
from shared.errors import InputError
from shared.geometry import invert_pose, pose, quaternion_to_matrix, transform_points, yaw_of
from shared.json_reader import DATA_BYTES, read_json
from shared.tasks.detection3d import Boxes3D

Record = Mapping[str, Any]

#: A scene's folder of tables.
ANNOTATION = "annotation"
_TABLES = (
    *("sample", "sample_data", "sample_annotation", "calibrated_sensor", "sensor", "ego_pose"),
    *("instance", "category", "scene", "attribute"),
)
_LABELS = "lidarseg"  # a table that most scenes lack
_LIDAR_CHANNELS = ("LIDAR_CONCAT", "LIDAR_TOP")  # the one to use where a vehicle has several
_DEFAULT_FEATURES = 5
_MICROSECONDS = 1e6
# Faster than anything that is labeled [m/s]: AWML's converter shortens what is longer, a label's jump.
_HIGHEST_SPEED = 50.0
# Velocity from neighboring annotations, as nuScenes defines it: at most this far apart, in seconds; twice as far where
# there is one on either side.
_NEIGHBOR_SECONDS = 1.5


def open_t4(settings: DataSource, folder: Path) -> Dataset[Sample]:
    """Data set of the scene in a folder, or of all scenes under it, in the order of their paths.

    Below a data base's folder (``<uuid>/<version>/annotation``) the highest version of each scene is taken.

    Raises:
        InputError: no scene there, or a table is missing or malformed.
    """
    scenes = [Scene(path, path / ANNOTATION, settings) for path in scene_folders(folder)]
    if not scenes:
        raise InputError(
            "no T4 scene here", where=str(folder), hint="a scene has annotation/sample.json; check data.root"
        )
    names = {name for scene in scenes for name in scene.category_names}
    return frames_of(scenes, settings, folder, tuple(settings.classes) or tuple(sorted(names)))


def frames_of(scenes: Sequence[Scene], settings: DataSource, folder: Path, classes: tuple[str, ...]) -> Dataset[Sample]:
    """Data set of the scenes' key frames.

    Args:
        scenes: in order.
        settings: the config's ``data`` section.
        folder: the data folder; all the scenes' files are in it.
        classes: of the data set.

    Raises:
        InputError: there is no sample.
    """
    samples = [(scene, sample) for scene in scenes for sample in scene.samples]
    if not samples:
        raise InputError("has no samples", where=str(folder), hint="the sample tables are empty")

    def build(index: int) -> Sample:
        scene, record = samples[index]
        with explain_malformed(f"{scene.root}: sample {record['token']}"):
            return scene.sample(index, record, classes)

    return Dataset(
        name=folder.name,
        classes=classes,
        length=len(samples),
        build=build,
        digest_parts=lambda: [
            settings_part(settings, classes),
            files_part(folder, (table_path(scene.folder, table) for scene in scenes for table in _TABLES)),
            *(files_part(folder, files) for scene in scenes if (files := scene.label_files())),
        ],
    )


def scene_folders(folder: Path) -> Iterator[Path]:
    """Scenes at most three levels down: data base, scene, version."""
    if table_path(folder / ANNOTATION, "sample").is_file():
        yield folder
        return
    by_parent: dict[Path, list[Path]] = defaultdict(list)
    for depth in range(1, 4):
        for table in folder.glob("/".join("*" * depth) + f"/{ANNOTATION}/sample.json"):
            by_parent[table.parents[2]].append(table.parents[1])
    for _parent, scenes in sorted(by_parent.items()):
        versions = [scene for scene in scenes if scene.name.isdigit()]
        yield from sorted(set(scenes) - set(versions))
        if versions:
            yield max(versions, key=lambda scene: int(scene.name))


def table_path(folder: Path, table: str) -> Path:
    """The file of a table in a folder of them."""
    return folder / f"{table}.json"


def read_table(folder: Path, table: str) -> list[Record]:
    """The records of a table in a folder of them.

    Raises:
        InputError: missing or malformed.
    """
    records = read_json(table_path(folder, table), most_bytes=DATA_BYTES)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise InputError("is not a list of records", where=str(table_path(folder, table)))
    return records


def _clipped(velocities: Float64) -> Float64:
    """(N, 2) velocities, none longer than `_HIGHEST_SPEED`."""
    speeds = np.linalg.norm(velocities, axis=1, keepdims=True)
    return np.asarray(velocities * np.where(speeds > _HIGHEST_SPEED, _HIGHEST_SPEED / np.maximum(speeds, 1.0), 1.0))


@dataclass(frozen=True)
class _LidarFrame:
    """A lidar sample_data record with its poses."""

    record: Record
    lidar2ego: Float64
    ego2global: Float64

    @property
    def lidar2global(self) -> Float64:
        return self.ego2global @ self.lidar2ego

    @property
    def seconds(self) -> float:
        return float(self.record["timestamp"]) / _MICROSECONDS


class Scene:
    """The tables of a scene, or of several in one folder, indexed by token.

    Attributes:
        samples: key frames, by time.
        category_names: of all categories.
    """

    def __init__(self, root: Path, folder: Path, settings: DataSource, *, trailers_merge: bool = True) -> None:
        """Read the tables.

        Args:
            root: what the names of files in them are relative to.
            folder: of the tables.
            settings: the config's ``data`` section.
            trailers_merge: with their trucks where trailers are no class (`shared.data.formats.t4.trailers`).

        Raises:
            InputError: a table is missing or malformed, or no lidar can be chosen.
        """
        self.root = root
        self.folder = folder
        self.settings = settings
        self.trailers_merge = trailers_merge
        self.tables = {table: read_table(folder, table) for table in _TABLES}
        self.has_labels = self._path(_LABELS).is_file()
        self.tables[_LABELS] = read_table(folder, _LABELS) if self.has_labels else []
        with explain_malformed(str(folder)):
            self._index()

    def _path(self, table: str) -> Path:
        return table_path(self.folder, table)

    def _index(self) -> None:
        self.by_token = {
            table: {str(record["token"]): record for record in records} for table, records in self.tables.items()
        }
        self.samples = sorted(self.tables["sample"], key=lambda record: (int(record["timestamp"]), record["token"]))
        self.category_names = {str(record["name"]) for record in self.tables["category"]}
        self.annotations: dict[str, list[Record]] = defaultdict(list)
        for annotation in self.tables["sample_annotation"]:
            self.annotations[annotation["sample_token"]].append(annotation)
        self.key_data: dict[str, dict[str, Record]] = defaultdict(dict)
        lidars = set()
        for record in self.tables["sample_data"]:
            sensor = self._sensor(record)
            if sensor["modality"] == "lidar":
                lidars.add(str(sensor["channel"]))
            if record["is_key_frame"]:
                self.key_data[record["sample_token"]][str(sensor["channel"])] = record
        self.lidar_channel = self._choose_lidar(lidars)
        self.label_names = {str(record["sample_data_token"]): record["filename"] for record in self.tables[_LABELS]}

    def label_files(self) -> list[Path]:
        """The table of labels and the files that it lists, those that are there; none without a table."""
        if not self.has_labels:
            return []
        listed = [self._label_path(name) for name in self.label_names.values()]
        return [self._path(_LABELS), *sorted(path for path in listed if path.is_file())]

    def _label_path(self, name: str) -> Path:
        return data_path(self.root, name, where=str(self._path(_LABELS)))

    def _point_labels(self, data: Record, classes: tuple[str, ...]) -> LabelFile | None:
        """The labels of a lidar frame's points; None where it has none."""
        name = self.label_names.get(data["token"])
        if name is None:
            return None
        known = [
            (int(record["index"]), str(record["name"]))
            for record in self.tables["category"]
            if record.get("index") is not None
        ]
        if not known and not self.settings.label_ids:
            raise InputError(
                "no category has an index, which labels of points are",
                where=str(self._path("category")),
                hint="nuScenes-lidarseg has a category.json of its own; or set data.label_ids",
            )
        return LabelFile(self._label_path(name), class_of_ids(self.settings, classes, known, generalize=True))

    def _choose_lidar(self, channels: set[str]) -> str:
        for channel in (*_LIDAR_CHANNELS, *channels):
            if channel in channels and (channel in _LIDAR_CHANNELS or len(channels) == 1):
                return channel
        found = ", ".join(sorted(channels)) or "none"
        raise InputError(
            f"has no lidar to use (found: {found})", where=str(self.root), hint=f"expected {_LIDAR_CHANNELS[0]}"
        )

    def _sensor(self, data: Record) -> Record:
        calibrated = self.by_token["calibrated_sensor"][data["calibrated_sensor_token"]]
        return self.by_token["sensor"][calibrated["sensor_token"]]

    def _is_calibrated_camera(self, data: Record) -> bool:
        calibrated = self.by_token["calibrated_sensor"][data["calibrated_sensor_token"]]
        return self._sensor(data)["modality"] == "camera" and bool(calibrated.get("camera_intrinsic"))

    def _calibration(self, data: Record) -> tuple[Record, Float64, Float64]:
        """calibrated_sensor record, sensor-to-ego and ego-to-global pose of a sample_data record."""
        calibrated = self.by_token["calibrated_sensor"][data["calibrated_sensor_token"]]
        ego = self.by_token["ego_pose"][data["ego_pose_token"]]
        return (
            calibrated,
            pose(calibrated["translation"], calibrated["rotation"]),
            pose(ego["translation"], ego["rotation"]),
        )

    def sample(self, index: int, record: Record, classes: tuple[str, ...]) -> Sample:
        """The key frame that a record of ``samples`` stands for, at a position in a data set of ``classes``."""
        token = str(record["token"])
        key_data = self.key_data[token]
        if self.lidar_channel not in key_data:
            raise InputError(f"sample {token} has no {self.lidar_channel} key frame", where=str(self.root))
        data = key_data[self.lidar_channel]
        _calibrated, lidar2ego, ego2global = self._calibration(data)
        frame = _LidarFrame(data, lidar2ego, ego2global)
        return Sample(
            index=index,
            token=token,
            timestamp=frame.seconds,
            scene=str(record["scene_token"]),
            lidar=self._point_file(data),
            sweeps=tuple(self._sweeps(frame)),
            lists_sweeps=True,
            cameras={
                channel: self._camera(camera, frame)
                for channel, camera in sorted(key_data.items())
                if self._is_calibrated_camera(camera)
            },
            lidar2ego=lidar2ego,
            ego2global=ego2global,
            ground_truth=self._ground_truth(token, frame, classes),
            point_labels=self._point_labels(data, classes),
        )

    def _point_file(self, data: Record) -> PointFile:
        path = data_path(self.root, data["filename"], where=str(self._path("sample_data")))
        return point_file(self.settings, self.root, path, self._num_features(data))

    def _num_features(self, data: Record) -> int:
        """``num_pts_feats`` of the frame's info file, where it has one that says."""
        if not data.get("info_filename"):
            return _DEFAULT_FEATURES
        path = data_path(self.root, data["info_filename"], where=str(self._path("sample_data")))
        if not path.is_file():
            return _DEFAULT_FEATURES
        return int(read_json(path).get("num_pts_feats", _DEFAULT_FEATURES))

    def _sweeps(self, frame: _LidarFrame) -> Iterator[Sweep]:
        """Earlier lidar frames, the most recent first: ``lidar2sensor`` as AWML's converter stores it (float32)."""
        data = frame.record
        for _ in range(self.settings.max_sweeps):
            previous = self.by_token["sample_data"].get(data.get("prev") or "")
            if previous is None:
                return
            data = previous
            _calibrated, lidar2ego, ego2global = self._calibration(data)
            sweep = _LidarFrame(data, lidar2ego, ego2global)
            lidar2sensor = invert_pose(sweep.lidar2global) @ frame.lidar2global
            yield Sweep(self._point_file(data), sweep.seconds, lidar2sensor.astype(np.float32))

    def _camera(self, data: Record, frame: _LidarFrame) -> Camera:
        calibrated, sensor2ego, ego2global = self._calibration(data)
        return Camera(
            image=data_path(self.root, data["filename"], where=str(self._path("sample_data"))),
            intrinsics=np.asarray(calibrated["camera_intrinsic"], np.float64),
            distortion=np.asarray(calibrated.get("camera_distortion") or (), np.float64),
            sensor2ego=sensor2ego,
            lidar2cam=invert_pose(ego2global @ sensor2ego) @ frame.lidar2global,
            width=int(data.get("width") or 0) or None,
            height=int(data.get("height") or 0) or None,
            timestamp=float(data["timestamp"]) / _MICROSECONDS,
        )

    def _category(self, annotation: Record) -> str:
        instance = self.by_token["instance"][annotation["instance_token"]]
        return str(self.by_token["category"][instance["category_token"]]["name"])

    def _is_filtered(self, annotation: Record, category: str) -> bool:
        pairs = set(self.settings.filter_attributes)
        attributes = (self.by_token["attribute"].get(token) for token in annotation.get("attribute_tokens", ()))
        return any((category, attribute["name"]) in pairs for attribute in attributes if attribute is not None)

    def _ground_truth(self, token: str, frame: _LidarFrame, classes: tuple[str, ...]) -> Boxes3D:
        merges = self.trailers_merge and "truck" in classes and "trailer" not in classes
        names = (*classes, "trailer") if merges else classes
        kept: list[Record] = []
        labels: list[int] = []
        for annotation in self.annotations[token]:
            name = self._category(annotation)
            label = class_index(name, names, self.settings.label_map, generalize=True)
            if label != IGNORED and not self._is_filtered(annotation, name):
                kept.append(annotation)
                labels.append(label)
        global2lidar = invert_pose(frame.lidar2global)
        rotation = global2lidar[:3, :3]
        positions = np.array([annotation["translation"] for annotation in kept], np.float64).reshape(-1, 3)
        widths_lengths = np.array([annotation["size"] for annotation in kept], np.float64).reshape(-1, 3)
        velocities = np.array([self._velocity(annotation) for annotation in kept], np.float64).reshape(-1, 3)
        boxes = Boxes3D.build(
            centers=transform_points(global2lidar, positions),
            sizes=widths_lengths[:, [1, 0, 2]],
            yaws=np.array([yaw_of(rotation @ quaternion_to_matrix(annotation["rotation"])) for annotation in kept]),
            velocities=_clipped((velocities @ rotation.T)[:, :2]),
            labels=np.array(labels, np.int64),
            num_points=np.array([annotation["num_lidar_pts"] for annotation in kept], np.int64),
        )
        return merge_trailers(boxes, classes.index("truck"), len(classes)) if merges else boxes

    def _velocity(self, annotation: Record) -> Float64:
        """Global velocity (3,) in m/s: the table's own where it has one, else from the neighboring annotations."""
        if annotation.get("velocity") is not None:
            return np.asarray(annotation["velocity"], np.float64)
        table = self.by_token["sample_annotation"]
        neighbors = [table.get(annotation.get(side) or "") for side in ("prev", "next")]
        first, last = (neighbor or annotation for neighbor in neighbors)
        seconds = self._seconds(last) - self._seconds(first)
        allowed = _NEIGHBOR_SECONDS * sum(neighbor is not None for neighbor in neighbors)
        if not 0 < seconds <= allowed:
            return np.full(3, np.nan)
        moved = np.asarray(last["translation"], np.float64) - np.asarray(first["translation"], np.float64)
        return np.asarray(moved / seconds)

    def _seconds(self, annotation: Record) -> float:
        return float(self.by_token["sample"][annotation["sample_token"]]["timestamp"]) / _MICROSECONDS

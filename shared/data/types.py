"""The parts of a data set: samples, point files, sweeps, cameras, images, and the settings that open one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Union

import numpy as np
import numpy.typing as npt

from shared.arrays import Bool, Float64
from shared.data.label_file import LabelFile
from shared.data.miscalibration import Law, Miscalibration
from shared.errors import ConfigError
from shared.files import sha256_of_json
from shared.tasks.detection2d import Boxes2D
from shared.tasks.detection3d import Boxes3D

if TYPE_CHECKING:
    from shared.config.model_sections import Data


# Part of every digest: raise it when a change of the code makes the same files give different samples.
SAMPLE_RULES = 2
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class PointFile:
    """A file of lidar points and how its columns are presented.

    Attributes:
        path: the file; ``read_points`` goes by its suffix (.bin, .pcd, .npz, .npy).
        root: the data folder it belongs to, for error messages.
        num_features: columns in the file (KITTI 4: x, y, z, reflectance; nuScenes and T4 5: x, y, z, intensity, ring).
        pad_to: present this many columns instead, the missing ones filled with 0. None: as in the file.
        intensity_scale: factor on column 3. KITTI's reflectance is 0-1 where nuScenes, T4 and Argoverse have 0-255:
            255 brings it to their scale. 1 leaves the column untouched, bit for bit.

    Raises:
        ConfigError: ``pad_to`` is less than ``num_features``.
    """

    path: Path
    root: Path
    num_features: int
    pad_to: int | None = None
    intensity_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.pad_to is not None and self.pad_to < self.num_features:
            raise ConfigError(
                f"{self.pad_to} is less than the {self.num_features} columns of {self.path}", where="data.pad_to"
            )

    @property
    def columns(self) -> int:
        """Columns that ``read_points`` returns."""
        return self.num_features if self.pad_to is None else self.pad_to


@dataclass(frozen=True)
class Sweep:
    """An earlier lidar frame that belongs to a sample.

    Attributes:
        points: its file.
        timestamp: seconds.
        lidar2sensor: (4, 4) pose from the sample's lidar frame into the sweep's, with the number type of the info file
            (float32 in AWML's, float64 in mmdet3d's): mmdet3d's arithmetic depends on it.
    """

    points: PointFile
    timestamp: float
    lidar2sensor: npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Camera:
    """A camera image of a sample and its calibration.

    Attributes:
        image: the image file, None where the data set does not say. Not checked to exist.
        intrinsics: (3, 3) float64, pixels.
        distortion: (K,) float64, OpenCV's order (k1, k2, p1, p2, k3, ...); empty where unknown or undistorted.
        sensor2ego: (4, 4) pose of the camera in the ego frame.
        lidar2cam: (4, 4) lidar frame at the lidar's time to camera frame at the camera's time.
        width, height: pixels, None where the data set does not say.
        timestamp: seconds, None where unknown.
    """

    image: Path | None
    intrinsics: Float64
    distortion: Float64
    sensor2ego: Float64
    lidar2cam: Float64
    width: int | None = None
    height: int | None = None
    timestamp: float | None = None


@dataclass(frozen=True)
class Sample:
    """One lidar key frame with everything that belongs to it.

    Attributes:
        index: position in its data set.
        token: unique in its data set.
        timestamp: seconds.
        scene: name or token of the drive that it belongs to.
        lidar: the key frame's points.
        sweeps: earlier frames, the most recent first.
        lists_sweeps: whether the source lists sweeps at all. mmdet3d pads only where the list is absent, not where it
            is empty (the first frame of a scene).
        cameras: by channel name.
        lidar2ego: (4, 4).
        ego2global: (4, 4) at the lidar's time, None where unknown.
        ground_truth: boxes of the data set's classes in the lidar frame, those without a point inside included
            (``num_points`` 0: the evaluator decides); None where there are no labels.
        point_labels: a label for each of the key frame's points; None where there are none.
    """

    index: int
    token: str
    timestamp: float
    scene: str
    lidar: PointFile
    sweeps: tuple[Sweep, ...] = ()
    lists_sweeps: bool = False
    cameras: Mapping[str, Camera] = field(default_factory=lambda: _NOTHING)
    lidar2ego: Float64 = field(default_factory=lambda: np.eye(4))
    ego2global: Float64 | None = None
    ground_truth: Boxes3D | None = None
    point_labels: LabelFile | None = None


@dataclass(frozen=True)
class ImageLabels:
    """The labels of an image. Rows are parallel.

    Attributes:
        boxes: of the data set's classes, in pixels of the image as it is stored.
        ignored: (N,) bool, boxes that count neither as missed nor as false positives (crowds, ``ignore_flag``).
        areas: (N,) float64, square pixels, by which COCO assigns size classes: the source's own where it has one (COCO:
            of the segmentation), else width times height.
    """

    boxes: Boxes2D
    ignored: Bool
    areas: Float64


@dataclass(frozen=True)
class ImageSample:
    """One image with its 2D labels.

    Attributes:
        index: position in its data set.
        token: unique in its data set.
        timestamp: seconds, 0 where unknown.
        scene: name of the drive, or of the data set where there are none.
        image: the file. Not checked to exist.
        width, height: pixels, None where the data set does not say.
        labels: None where there are no boxes.
        mask: a label for each pixel; None where there are none.
    """

    index: int
    token: str
    timestamp: float
    scene: str
    image: Path
    width: int | None = None
    height: int | None = None
    labels: ImageLabels | None = None
    mask: LabelFile | None = None


SampleT = TypeVar("SampleT")


@dataclass(frozen=True)
class Dataset(Generic[SampleT]):
    """Samples in a fixed order: the same for every tool that opens the same settings.

    What a sample is depends on the task: `Sample` for 3D detection, `ImageSample` for 2D detection. All have ``index``,
    ``token`` and ``scene``.

    Attributes:
        name: short name for messages and tokens.
        classes: class names that labels index; empty where there are no labels.
        length: number of samples.
        build: sample of an index within range.
        digest_parts: what defines the samples, as JSON values; computed only when the digest is asked for.
    """

    name: str
    classes: tuple[str, ...]
    length: int
    build: Callable[[int], SampleT]
    digest_parts: Callable[[], list[Any]]

    def __len__(self) -> int:
        return self.length

    def sample(self, index: int) -> SampleT:
        """The sample at ``index``, 0 <= index < len.

        Raises:
            InputError: its entry, or a file it is built from, is missing or malformed.
            IndexError: no such index.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"sample {index} of data set '{self.name}', which has {self.length}")
        return self.build(index)

    def digest(self) -> str:
        """Hex sha256 over everything that defines the samples: settings, info files, tables, labels.

        Independent of where the data folder lies, and of the contents of point files and images, which a machine that
        only evaluates need not have.
        """
        return sha256_of_json([SAMPLE_RULES, self.digest_parts()])


@dataclass(frozen=True)
class DataSettings:
    """The deploy config's ``data`` section (documented in `shared.config.model_sections.Data`) as a plain value."""

    format: str
    root: Path | None = None
    info_file: Path | None = None
    classes: Sequence[str] = ()
    label_map: Mapping[str, str | None] = field(default_factory=lambda: _NOTHING)
    filter_attributes: Sequence[tuple[str, str]] = ()
    sources: Sequence[DataSource] = ()
    num_features: int | None = None
    pad_to: int | None = None
    intensity_scale: float = 1.0
    data_prefix: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    label_ids: Mapping[str, Sequence[int]] = field(default_factory=lambda: _NOTHING)
    img_suffix: str = ""
    seg_map_suffix: str = ".png"
    miscalibration: Law = field(default_factory=Miscalibration)
    max_sweeps: int = 10
    allow_absolute_paths: bool = False


#: What opens a data set. Not ``Data | ...``: this is evaluated when the module is imported, by Python 3.10 too.
DataSource = Union["Data", DataSettings]

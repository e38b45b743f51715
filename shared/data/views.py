"""What the samples of a data set look like: a task names the view that it needs, a format opens those that it has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from shared.data.types import Dataset, DataSource
from shared.errors import ConfigError

#: A lidar key frame with 3D boxes: `shared.data.types.Sample`.
LIDAR_FRAME = "lidar_frame"
#: An image with 2D boxes: `shared.data.types.ImageSample`.
IMAGE = "image"
#: An image with the lidar's points, in both states of calibration: `shared.data.camera_pairs.CameraPair`.
CAMERA_PAIR = "camera_pair"
#: A part of an image and the class of what it shows: `shared.data.crops.ImageCrop`.
IMAGE_CROP = "image_crop"


SampleT = TypeVar("SampleT")


def sample_of(view: str, kind: type[SampleT], sample: Any) -> SampleT:
    """The sample, which a model of a task with several views takes only in one of them.

    Raises:
        ConfigError: it is of another view.
    """
    if not isinstance(sample, kind):
        raise ConfigError(
            f"the data set does not give {view.replace('_', ' ')}s, which the model takes",
            where="data.format",
            hint="docs/data.md lists what each format gives",
        )
    return sample


class Opener(Protocol):
    """Opens a data set in one view."""

    def __call__(self, settings: DataSource, folder: Path, /) -> Dataset[Any]:
        """The data set in a folder.

        Args:
            settings: the config's ``data`` section.
            folder: the data folder; it exists.

        Raises:
            ConfigError: a setting that the format needs is missing.
            InputError: files are missing, refused or malformed, or there are no samples.
        """


class FormatModule(Protocol):
    """What a module of `shared.data.formats` has, or one that another package adds under ``awml_deploy.formats``."""

    VIEWS: Mapping[str, Opener]
    """View -> what opens it. A package that adds a task may name a view of its own."""

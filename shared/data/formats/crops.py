"""The labeled boxes of the images of other data sets: what AWML's classifiers of traffic lights are trained on."""

from __future__ import annotations

from pathlib import Path

from shared.data.concat import concatenate
from shared.data.crops import ImageCrop, crops_of
from shared.data.opening import open_sources
from shared.data.types import Dataset, DataSource
from shared.data.views import IMAGE, IMAGE_CROP


def open_crops(settings: DataSource, folder: Path) -> Dataset[ImageCrop]:
    """The boxes of all sources, in order.

    Raises:
        ConfigError: a source is of a format without images, or the sources have different classes.
        InputError: files of a source are missing or malformed, or it has no labeled boxes.
    """
    parts = [crops_of(images) for images in open_sources(settings, folder, (IMAGE,), f"format {settings.format}")]
    return parts[0] if len(parts) == 1 else concatenate("crops", parts)


VIEWS = {IMAGE_CROP: open_crops}

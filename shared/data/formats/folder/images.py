"""Images of a bare folder, without labels."""

from __future__ import annotations

from pathlib import Path

from shared.data.images import image_files
from shared.data.paths import by_number
from shared.data.types import Dataset, DataSource, ImageSample
from shared.errors import InputError
from shared.images import IMAGE_SUFFIXES


def open_image_folder(settings: DataSource, folder: Path) -> Dataset[ImageSample]:
    """Data set of the images directly in a folder, without labels.

    Raises:
        InputError: no images there.
    """
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise InputError("no images here", where=str(folder), hint=f"expected {', '.join(IMAGE_SUFFIXES)}")
    return image_files(folder.name, folder, sorted(files, key=by_number), settings)

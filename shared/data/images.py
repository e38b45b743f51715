"""Images with 2D boxes, the view of a data set that 2D detection takes: what its formats share, and bare folders.

Rules for all formats: boxes are left, top, right, bottom in pixels of the image as it is stored; those of no class of
the model are left out, and so are boxes without extent; crowds and the like stay, marked as ignored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.data.indexed import IndexedDataset, data_root, settings_part
from shared.data.labels import IGNORED, class_index
from shared.data.types import DataSource, ImageLabels, ImageSample
from shared.errors import InputError
from shared.images import IMAGE_SUFFIXES
from shared.tasks import Boxes2D


@dataclass
class LabelCollector:
    """Gathers the boxes of one image.

    Attributes:
        classes: class list of the data set.
        settings: for the label map.
        generalise: whether a category counts as the next more general class that there is.
    """

    classes: Sequence[str]
    settings: DataSource
    generalise: bool
    _corners: list[Sequence[float]] = field(default_factory=list)
    _labels: list[int] = field(default_factory=list)
    _ignored: list[bool] = field(default_factory=list)
    _areas: list[float] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)

    def add(self, name: str, corners: Sequence[float], *, ignored: bool = False, area: float | None = None) -> None:
        """Add a box, if it is of a class of the model.

        Args:
            name: the source's category name.
            corners: left, top, right, bottom [px].
            ignored: neither wanted nor wrong.
            area: square pixels, None: width times height.
        """
        label = class_index(name, self.classes, self.settings.label_map, generalise=self.generalise)
        if label != IGNORED:
            self._add(label, name, corners, ignored, area)

    def ignore_region(self, name: str, corners: Sequence[float]) -> None:
        """Add a region in which nothing counts, of whatever class."""
        for label in range(len(self.classes)):
            self._add(label, name, corners, True, None)

    def _add(self, label: int, name: str, corners: Sequence[float], ignored: bool, area: float | None) -> None:
        left, top, right, bottom = (float(value) for value in corners)
        if not (right > left and bottom > top):
            return
        self._corners.append((left, top, right, bottom))
        self._labels.append(label)
        self._ignored.append(ignored)
        self._areas.append((right - left) * (bottom - top) if area is None else float(area))
        self._names.append(name)

    def labels(self) -> ImageLabels:
        """What was gathered."""
        return ImageLabels(
            boxes=Boxes2D.build(np.array(self._corners, np.float32), np.array(self._labels, np.int64)),
            ignored=np.array(self._ignored, np.bool_),
            areas=np.array(self._areas, np.float64),
            names=tuple(self._names),
        )


def open_image_folder(settings: DataSource, root: Path | None = None) -> IndexedDataset[ImageSample]:
    """Data set of the images directly in a folder, without labels; numbers in names sort as numbers.

    Raises:
        InputError: no images there.
    """
    folder = data_root(settings, root)
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise InputError("no images here", where=str(folder), hint=f"expected {', '.join(IMAGE_SUFFIXES)}")
    return image_files(folder.name, folder, sorted(files, key=_by_number), settings)


def image_files(name: str, root: Path, files: Sequence[Path], settings: DataSource) -> IndexedDataset[ImageSample]:
    """Data set of given image files below ``root``, without labels."""

    def build(index: int) -> ImageSample:
        return ImageSample(
            index=index,
            token=files[index].relative_to(root).as_posix(),
            timestamp=0.0,
            scene=name,
            image=files[index],
            width=None,
            height=None,
            labels=None,
        )

    return IndexedDataset(
        name=name,
        classes=tuple(settings.classes),
        length=len(files),
        build=build,
        digest_parts=lambda: [
            settings_part(settings, settings.classes),
            [[file.relative_to(root).as_posix(), file.stat().st_size] for file in files],
        ],
    )


def _by_number(file: Path) -> list[tuple[int, str]]:
    """Sort key: digit runs by value, the rest by text."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name)]

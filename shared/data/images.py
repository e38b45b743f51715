"""Images with 2D boxes, the view of a data set that 2D detection takes: what its formats share.

Rules for all formats: boxes are left, top, right, bottom in pixels of the image as it is stored; boxes of no class of
the model are left out, and so are boxes without area; crowds and the like stay, marked as ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.data.common import settings_part
from shared.data.labels import IGNORED, class_index
from shared.data.types import Dataset, DataSource, ImageLabels, ImageSample
from shared.tasks.detection2d import Boxes2D


@dataclass
class LabelCollector:
    """Gathers the boxes of one image.

    Attributes:
        classes: class list of the data set.
        settings: for the label map.
        generalize: whether a category without its own class counts as the next more general class.
    """

    classes: Sequence[str]
    settings: DataSource
    generalize: bool
    _rows: list[tuple[Sequence[float], int, bool, float]] = field(default_factory=list)

    def add(self, name: str, corners: Sequence[float], *, ignored: bool = False, area: float | None = None) -> None:
        """Add a box, if it is of a class of the model.

        Args:
            name: the source's category name.
            corners: left, top, right, bottom [px].
            ignored: counts neither as missed nor as a false positive.
            area: square pixels, None: width times height.
        """
        label = class_index(name, self.classes, self.settings.label_map, generalize=self.generalize)
        if label != IGNORED:
            self._add(label, corners, ignored, area)

    def ignore_region(self, corners: Sequence[float]) -> None:
        """Add a region in which detections of any class are ignored."""
        for label in range(len(self.classes)):
            self._add(label, corners, True, None)

    def _add(self, label: int, corners: Sequence[float], ignored: bool, area: float | None) -> None:
        left, top, right, bottom = (float(value) for value in corners)
        if right > left and bottom > top:
            size = (right - left) * (bottom - top) if area is None else float(area)
            self._rows.append(((left, top, right, bottom), label, ignored, size))

    def labels(self) -> ImageLabels:
        """The labels gathered so far."""
        corners, labels, ignored, areas = zip(*self._rows, strict=True) if self._rows else ((), (), (), ())
        return ImageLabels(Boxes2D.build(corners, labels), np.array(ignored, np.bool_), np.array(areas, np.float64))


def image_files(name: str, root: Path, files: Sequence[Path], settings: DataSource) -> Dataset[ImageSample]:
    """Data set of given image files below ``root``, without labels."""

    def build(index: int) -> ImageSample:
        return ImageSample(
            index=index,
            token=files[index].relative_to(root).as_posix(),
            timestamp=0.0,
            scene=name,
            image=files[index],
        )

    return Dataset(
        name=name,
        classes=tuple(settings.classes),
        length=len(files),
        build=build,
        digest_parts=lambda: [
            settings_part(settings, settings.classes),
            [[file.relative_to(root).as_posix(), file.stat().st_size] for file in files],
        ],
    )

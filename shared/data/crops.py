"""Crops for classification: every labeled box of a data set of images is a sample of its own."""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.arrays import UInt8
from shared.data.types import Dataset, ImageLabels, ImageSample
from shared.errors import InputError
from shared.images import read_image


@dataclass(frozen=True)
class ImageCrop:
    """A part of an image, and the class of what it shows.

    Attributes:
        index: position in its data set.
        token: unique in its data set; ends in the number of the box in its image.
        timestamp: seconds, 0 where unknown.
        scene: name of the drive, or of the data set where there are none.
        image: the file.
        box: left, top, right, bottom [px].
        label: index into the classes of the data set.
        channel: name of the camera, empty where there is none.
        disturbance: none; only calibrations are disturbed (`shared.data.camera_pairs.CameraPair`).
    """

    index: int
    token: str
    timestamp: float
    scene: str
    image: Path
    box: tuple[float, float, float, float]
    label: int
    channel: str = ""
    disturbance: None = None

    def read(self) -> UInt8:
        """(h, w, 3) uint8 pixels of the crop: blue, green, red. `pixels` says which.

        Raises:
            InputError: the file is missing, is no image, or has no pixel within the box.
        """
        image = read_image(self.image)
        left, top, right, bottom = self.pixels(image.shape[1], image.shape[0])
        if left >= right or top >= bottom:
            raise InputError(
                f"box {self.token} has no pixel within the image of {image.shape[1]} x {image.shape[0]}",
                where=str(self.image),
            )
        return image[top:bottom, left:right]

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in whole pixels of an image of that size; fractions are cut off, as AWML does."""
        left, top, right, bottom = (int(edge) for edge in self.box)
        return max(0, left), max(0, top), min(width, right), min(height, bottom)


def crops_of(images: Dataset[ImageSample]) -> Dataset[ImageCrop]:
    """The boxes of a data set of images in order, without those that are ignored.

    Raises:
        InputError: an image has no labels, or there is no box.
    """
    boxes = [_counted(images.sample(index).labels, images) for index in range(len(images))]
    ends = list(itertools.accumulate(len(rows) for rows in boxes))
    if not ends or not ends[-1]:
        raise InputError("no image has a labeled box to classify", where=images.name, hint="check data.classes")

    def build(index: int) -> ImageCrop:
        position = bisect.bisect_right(ends, index)
        row = boxes[position][index - (ends[position] - len(boxes[position]))]
        sample = images.sample(position)
        labels = sample.labels
        assert labels is not None
        left, top, right, bottom = labels.boxes.corners[row].tolist()
        return ImageCrop(
            index=index,
            token=f"{sample.token}/{row}",
            timestamp=sample.timestamp,
            scene=sample.scene,
            image=sample.image,
            box=(left, top, right, bottom),
            label=int(labels.boxes.labels[row]),
        )

    return Dataset(images.name, images.classes, ends[-1], build, lambda: ["crops", images.digest()])


def _counted(labels: ImageLabels | None, images: Dataset[ImageSample]) -> list[int]:
    if labels is None:
        raise InputError("images without labels have no boxes to classify", where=images.name)
    return [int(row) for row in np.flatnonzero(~labels.ignored)]

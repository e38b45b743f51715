"""Labels of points and pixels, and runs of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.arrays import UInt8
from shared.data.label_file import LabelFile
from shared.data.types import ImageSample, PointFile, Sample
from shared.metrics.confusion import UNLABELED
from shared.runs import Run
from shared.tasks.segmentation2d import ClassMask
from shared.tasks.segmentation3d import PointClasses
from tests.support.run_files import run_header, write_run

CLASSES = ["road", "car", "person", "tree"]


def wrong_here_and_there(rng: np.random.Generator, truth: UInt8, num_classes: int) -> UInt8:
    """What a model would make of labels: a third of them anything, no class among that."""
    anything = rng.integers(0, num_classes + 1, truth.shape).astype(np.uint8)
    anything[anything == num_classes] = UNLABELED
    drawn = rng.random(truth.shape) < 0.3
    judged = np.where(truth == UNLABELED, 0, truth)
    return np.where(drawn, anything, judged).astype(np.uint8)


def some_labels(rng: np.random.Generator, shape: int | tuple[int, int], num_classes: int) -> UInt8:
    """Labels, a tenth of them not judged; there is none of the last class."""
    labels = rng.integers(0, num_classes - 1, shape).astype(np.uint8)
    labels[rng.random(shape) < 0.1] = UNLABELED
    return labels


def run_of(folder: Path, task: str, answers: Sequence[Any], classes: Sequence[str] = CLASSES) -> Run:
    """A finished run with these answers."""
    return write_run(folder, answers, run_header(len(answers), task=task, classes=list(classes)))


def point_run(folder: Path, labels: Sequence[UInt8], classes: Sequence[str] = CLASSES) -> Run:
    """A run of `PointClasses`."""
    return run_of(folder, "segmentation3d", [PointClasses.build(each) for each in labels], classes)


def mask_run(folder: Path, masks: Sequence[UInt8], classes: Sequence[str] = CLASSES) -> Run:
    """A run of `ClassMask`."""
    return run_of(folder, "segmentation2d", [ClassMask.build(each) for each in masks], classes)


def _ids(num_classes: int) -> dict[int, int]:
    return {**{label: label for label in range(num_classes)}, UNLABELED: -1}


def frames(folder: Path, labels: Sequence[UInt8 | None], points: Sequence[Any], num_classes: int) -> list[Sample]:
    """Lidar frames of points (N, 4) with labels in ``.bin`` files; None: without."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for index, (own, cloud) in enumerate(zip(labels, points, strict=True)):
        np.asarray(cloud, np.float32).tofile(folder / f"{index}.points.bin")
        file = None
        if own is not None:
            own.tofile(folder / f"{index}.labels.bin")
            file = LabelFile(folder / f"{index}.labels.bin", _ids(num_classes))
        lidar = PointFile(folder / f"{index}.points.bin", folder, 4)
        samples.append(Sample(index, f"s{index}", float(index), f"drive{index % 3}", lidar, point_labels=file))
    return samples


def images(folder: Path, masks: Sequence[UInt8 | None], num_classes: int) -> list[ImageSample]:
    """Images with masks in PNG files; None: without."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for index, mask in enumerate(masks):
        file = None
        if mask is not None:
            Image.fromarray(mask).save(folder / f"{index}.png")
            file = LabelFile(folder / f"{index}.png", _ids(num_classes))
        samples.append(ImageSample(index, f"s{index}", 0.0, "drive", folder / f"{index}.jpg", mask=file))
    return samples

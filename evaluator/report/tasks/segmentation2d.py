"""2D segmentation: IoU, confusion, and masks over camera images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluator.report.blocks import Block
from evaluator.report.images import read_photo
from evaluator.report.labels import (
    FrameLabels,
    frame_scores,
    label_blocks,
    labels_at,
    log_classes,
    raster,
    scene,
)
from evaluator.report.material import Material
from evaluator.report.scene import Detail, Scene, photo, title_of
from shared.data.types import ImageSample
from shared.lazy import lazy_import
from shared.tasks.segmentation2d import ClassMask

rr = lazy_import("rerun", install="pip install 'awml-deploy[rerun]'")

__all__ = ["frame_scores", "log", "metric_blocks", "picture", "source"]


def metric_blocks(material: Material) -> list[Block]:
    """IoU of the classes, and the confusion of the shown run."""
    return label_blocks(material)


def source(sample: ImageSample) -> Path:
    """The image."""
    return sample.image


def picture(material: Material, position: int, key: str, title: str) -> Scene:
    """The image under the masks of ground truth and runs."""
    sample: ImageSample = material.sample(position)
    labels = labels_at(material, position, ClassMask)
    named = title_of(sample.scene, sample.timestamp) if sample.timestamp > 0 else sample.image.name
    return scene(material, key, named, title, labels, lambda detail: _media(sample, labels, detail), cloud=False)


def _media(sample: ImageSample, labels: FrameLabels, detail: Detail) -> dict[str, Any]:
    step = -(-labels.truth.shape[1] // detail.width)
    masks = raster(labels.planes()[:, ::step, ::step])
    return {"rasters": [{**masks, "photo": photo(sample.image, detail.width, detail.quality, upright=True)}]}


def log(stream: Any, material: Material, position: int) -> None:
    """Image and masks."""
    log_classes(stream, material.spec.classes)
    stream.log("image", rr.Image(read_photo(material.sample(position).image, upright=True)).compress())
    labels = labels_at(material, position, ClassMask)
    for name, mask in zip(["ground_truth", *material.drawn], labels.planes(), strict=True):
        stream.log(f"image/{name}", rr.SegmentationImage(mask))

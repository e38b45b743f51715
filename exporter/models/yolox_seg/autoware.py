"""The bundle of autoware_tensorrt_yolox for a model with a mask: a YOLOX's, with colors and labels of the mask.

The node takes the tensors in their order: the image, rows, and a mask of a score for each class, of which it publishes
the number of the highest above zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from exporter.autoware import Bundle, BundleOptions
from exporter.autoware.labels import label_of
from exporter.models.yolox import autoware as yolox
from shared.class_colors import class_colors
from shared.several_tasks import classes_of
from shared.spec import ModelSpec

COLORS, REMAP = "semseg_color_map.csv", "roi_to_semseg_remap.csv"


def bundle(spec: ModelSpec, config: Mapping[str, Any], options: BundleOptions) -> Bundle:
    """The bundle of a YOLOX with a mask head, see `exporter.autoware`.

    Raises:
        NodeRefuses: the node would misread the model; says why, and what to export instead.
        UsageError: an option that the node has no value for.
    """
    boxes, masks = (classes_of(task, spec.classes) for task in ("detection2d", "segmentation2d"))
    detector = yolox.detector_bundle(spec, boxes, config, options)
    notes = [
        f"launch: color_map_path: <bundle>/{COLORS}, roi_to_semseg_remap_path: <bundle>/{REMAP}",
        "the node publishes the labels of the network's pixels (model.options.mask: autoware), run by run",
    ]
    if spec.parameters["image"]["resize"] == "mmdet_stretched":
        notes.append("the node keeps the shape of images, and the model was trained on images stretched to a square")
    return replace(
        detector,
        texts={**detector.texts, COLORS: color_map(masks), REMAP: remap(boxes, masks)},
        notes=(*detector.notes, *notes),
    )


def color_map(classes: Sequence[str]) -> str:
    """A line for each class of the mask: its number, name and color."""
    lines = ["id,name,r,g,b"]
    for number, (name, color) in enumerate(zip(classes, class_colors(len(classes)), strict=True)):
        lines.append(",".join([str(number), _in_csv(name), *map(str, color)]))
    return "\n".join(lines) + "\n"


def _in_csv(name: str) -> str:
    """A name without what ends a field, or a line, for the node, which knows no quotes."""
    return "".join("_" if sign in ",#\r\n" else sign for sign in name)


def remap(boxes: Sequence[str], masks: Sequence[str]) -> str:
    """A line for each label of boxes: the number of the mask's class of the same label, -1 where there is none."""
    numbers = {label_of(name): number for number, name in enumerate(masks)}
    labels = [label_of(name) for name in boxes]
    return "from,to\n" + "".join(f"{label},{numbers.get(label, -1)}\n" for label in labels)

"""The one component of a YOLOX: raw rows, decoded rows, or detections after suppression in the graph."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from exporter.component import Component, Sizes
from exporter.models.yolox.framework import ModelInput, cells_of
from exporter.models.yolox.graph import BOX_COLUMNS, STRIDES, DecodedRows, Detections, Proposals, RawRows
from exporter.models.yolox.options import Options, suppression
from shared.spec import TensorSpec

COMPONENT = "yolox"
INPUT, OUTPUT = "images", "output"
DETECTIONS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")


def components(model: Any, model_input: ModelInput, options: Options) -> list[Component]:
    """The network, with the image of one sample.

    Args:
        model: mmdet's YOLOX.
        model_input: the sample.
        options: see `Options`.
    """
    return [network(model, model_input.normalized(model), options)]


def network(model: Any, images: Tensor, options: Options) -> Component:
    """The one component.

    Args:
        model: mmdet's YOLOX.
        images: (1, 3, H, W) float32, to trace and check with.
        options: see `Options`.
    """
    height, width = images.shape[2:]
    raw = RawRows(model, options.relu6_to_relu)
    module: nn.Module = raw
    rows = sum((height // stride) * (width // stride) for stride in STRIDES)
    columns = BOX_COLUMNS + len(model.deploy.classes)
    batch: int | str = "batch_size" if options.batch_size == "dynamic" else options.batch_size
    outputs: tuple[TensorSpec, ...] = (TensorSpec(name=OUTPUT, dtype="float32", shape=[batch, rows, columns]),)
    if options.output != "raw":
        decoded = DecodedRows(raw, cells_of(model, height, width))
        module = decoded
    before_plugin = None
    if options.output == "detections":
        settings = suppression(options, model.bbox_head.test_cfg)
        nms = settings["nms"]
        plugin = options.nms.operator == "EfficientNMS_TRT"
        module = Detections(
            decoded,
            nms["iou_threshold"],
            settings["score_threshold"],
            nms["max_boxes"],
            nms["class_agnostic"],
            plugin=plugin,
        )
        before_plugin = Proposals(decoded).eval() if plugin else None
        outputs = detection_tensors(batch, nms["max_boxes"])
    trace, check, deployed = _batch_sizes(options)

    def inputs_of(sizes: Sizes) -> tuple[Tensor]:
        count = sizes.get("batch_size", options.batch_size)
        return (images.expand(int(count), -1, -1, -1).contiguous(),)

    return Component(
        name=COMPONENT,
        module=module.eval(),
        inputs=(TensorSpec(name=INPUT, dtype="float32", shape=[batch, 3, height, width]),),
        outputs=outputs,
        inputs_of=inputs_of,
        trace_sizes=trace,
        check_sizes=check,
        deployed_sizes=deployed,
        before_plugin=before_plugin,
    )


def detection_tensors(batch: int | str, max_boxes: int) -> tuple[TensorSpec, ...]:
    """The outputs of a network that suppresses itself."""
    shapes: list[list[int | str]] = [[batch, 1], [batch, max_boxes, 4], [batch, max_boxes], [batch, max_boxes]]
    dtypes = ("int32", "float32", "float32", "int32")
    return tuple(
        TensorSpec(name=name, dtype=dtype, shape=shape)
        for name, dtype, shape in zip(DETECTIONS, dtypes, shapes, strict=True)
    )


def _batch_sizes(options: Options) -> tuple[Sizes, tuple[Sizes, ...], Sizes]:
    """Sizes to trace with, to check at, and to deploy with."""
    if options.batch_size == "dynamic":
        return {"batch_size": 2}, ({"batch_size": 1}, {"batch_size": 3}), {"batch_size": 1}
    return {}, ({},), {}

"""YOLOX models that exist as ONNX files only, see `exporter.adopt`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exporter.adopt import Adopted, tensors_of
from exporter.models.yolox.components import COMPONENT, DETECTIONS
from exporter.models.yolox.graph import BOX_COLUMNS, STRIDES
from exporter.models.yolox.options import Options, suppression
from shared.errors import ConfigError, InputError
from shared.spec import ComponentSpec, TensorSpec


def adopt(path: Path, options: Options) -> Adopted:
    """A YOLOX from an ONNX file alone, as Megvii's exporter writes it: one input, one output of rows or four of boxes.

    Args:
        path: the file.
        options: ``image`` says what its input is, ``classes`` what its labels are, ``nms`` what is done with its rows,
            ``output`` whether these are decoded.

    Raises:
        ConfigError: the options lack what the file does not say, or contradict it.
        InputError: not a YOLOX.
    """
    if options.image is None or not options.classes:
        missing = "image" if options.image is None else "classes"
        raise ConfigError(
            "is missing; an ONNX file does not say it", where=f"model.options.{missing}",
            hint="image: {color: bgr} for YOLOX 0.1.1 and later" if missing == "image" else "list the class names",
        )  # fmt: skip
    inputs, outputs = tensors_of(path)
    where = str(path)
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] != 3:
        raise InputError(
            f"has the inputs {[tensor.shape for tensor in inputs]}, not one image (B, 3, H, W)", where=where
        )
    height, width = inputs[0].shape[2:]
    if not isinstance(height, int) or not isinstance(width, int):
        raise InputError("its image size is not fixed", where=where, hint="export it with fixed height and width")
    image = options.image.model_dump(mode="json")
    if options.output == "detections":
        if [tensor.name for tensor in outputs] != list(DETECTIONS):
            raise InputError(f"has the outputs {[tensor.name for tensor in outputs]}, not {DETECTIONS}", where=where)
        strides = list(STRIDES)
    else:
        strides = _strides_of(outputs, height, width, len(options.classes), where)
    return Adopted(
        component=ComponentSpec(name=COMPONENT, inputs=inputs, outputs=outputs, onnx=f"onnx/{COMPONENT}.onnx"),
        classes=list(options.classes),
        parameters={
            "image": {"height": height, "width": width, **image},
            "strides": strides,
            "output": options.output,
            **suppression(options, {}),
        },
    )


def _strides_of(outputs: Sequence[TensorSpec], height: int, width: int, count: int, where: str) -> list[int]:
    """The strides that make as many rows as the output has.

    Raises:
        InputError: the output is no rows, or of another number of classes.
    """
    shape = outputs[0].shape if len(outputs) == 1 else []
    if len(shape) != 3 or shape[2] != BOX_COLUMNS + count:
        raise InputError(
            f"has outputs {[tensor.shape for tensor in outputs]}, {count} classes make {BOX_COLUMNS + count} columns",
            where=where, hint="check model.options.classes and model.options.output",
        )  # fmt: skip
    for strides in (list(STRIDES), [*STRIDES, 64], [4, *STRIDES]):
        if sum((height // stride) * (width // stride) for stride in strides) == shape[1]:
            return strides
    raise InputError(f"has {shape[1]} rows, which strides 8, 16, 32 of {height} x {width} px do not make", where=where)

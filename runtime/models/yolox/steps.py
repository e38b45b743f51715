"""YOLOX, from an image to 2D boxes: the steps in NumPy and OpenCV around the network.

image -> letterbox -> the network -> decode -> nms; a network that suppresses boxes itself is followed by place alone.

`runtime.models.yolox.device` has the letterbox and the choice of rows as CUDA kernels.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np

from runtime.backends import Session
from runtime.models.yolox.decode import cells, decode
from runtime.models.yolox.letterbox import Placement, letterbox
from runtime.models.yolox.nms import suppress, suppress_by_class, to_whole_pixels
from runtime.models.yolox.parameters import Nms, YoloxParameters
from runtime.pipeline import (
    BY_NAME,
    ArraysByName,
    Packing,
    Step,
    dataclass_of_arrays,
    one_array,
    predictions_of,
)
from shared.arrays import Float32, UInt8
from shared.errors import InferenceError
from shared.spec import ModelSpec
from shared.tasks.detection2d import Boxes2D

_PLACEMENT = "placement"


@dataclass(frozen=True)
class Placed:
    """A state, and where the image lies in the network's input: pixels, outputs by name, or candidates."""

    value: Any
    placement: Placement


def network_steps(spec: ModelSpec, parameters: YoloxParameters, session: Session) -> list[Step]:
    """The steps up to the network's outputs, with buffers that are allocated here, once."""
    (component,) = spec.components
    (tensor,) = component.inputs
    output = component.outputs[0].name
    # A network of a fixed batch gets the image in its first place; the others stay black.
    batch = tensor.shape[0]
    images = np.zeros(
        (batch if isinstance(batch, int) else 1, 3, parameters.image.height, parameters.image.width), np.float32
    )

    def boxed(image: UInt8) -> Placed:
        return Placed(images, letterbox(checked(image), parameters.image, images[0]))

    def answered(state: Placed) -> Placed:
        return Placed(session.run(component.name, {tensor.name: state.value}), state.placement)

    def rows_nan(state: Placed) -> dict[str, int]:
        return {"rows_nan": int(np.isnan(rows_of(state.value, output)).any(axis=1).sum())}

    return [
        Step("letterbox", boxed, placed(one_array(tensor.name))),
        Step(
            component.name,
            answered,
            placed(BY_NAME),
            count=None if parameters.output == "detections" else rows_nan,
            outputs=lambda state: state.value,
        ),
    ]


def steps(spec: ModelSpec, parameters: YoloxParameters, session: Session) -> list[Step]:
    """The steps of a request of one image."""
    output = spec.components[0].outputs[0].name
    row_cells = cells_of_raw(parameters)

    def decoded(state: Placed) -> Placed:
        return Placed(candidates(rows_of(state.value, output), row_cells, parameters), state.placement)

    before = network_steps(spec, parameters, session)
    if parameters.output == "detections":
        return [
            *before,
            Step(
                "place",
                lambda state: in_pixels_of_the_image(detections(state.value), state.placement),
                predictions_of(spec),
                count=boxes,
            ),
        ]
    return [
        *before,
        Step(
            "decode",
            decoded,
            placed(dataclass_of_arrays(Boxes2D)),
            count=lambda state: {"candidates": len(state.value.scores)},
        ),
        Step(
            "nms",
            lambda state: suppressed(state.value, state.placement, parameters.nms),
            predictions_of(spec),
            count=boxes,
        ),
    ]


def candidates(rows: Float32, row_cells: Float32 | None, parameters: YoloxParameters) -> Boxes2D:
    """The boxes of the rows that score high enough, see `decode`."""
    return decode(rows, row_cells, parameters.score_threshold, inclusive=parameters.inclusive)


def checked(image: UInt8) -> UInt8:
    """The image.

    Raises:
        InferenceError: it is no (H, W, 3) uint8.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InferenceError(f"the image has the shape {image.shape} and is {image.dtype}, expected (H, W, 3) uint8")
    return image


def cells_of_raw(parameters: YoloxParameters) -> Float32 | None:
    """(N, 3) the cell of each raw row; None: rows come decoded."""
    if parameters.output != "raw":
        return None
    return cells(parameters.image.height, parameters.image.width, parameters.strides)


def rows_of(outputs: ArraysByName, name: str) -> Float32:
    """(N, 5 + C) float32 rows of the first image."""
    return np.asarray(outputs[name][0], np.float32)


def detections(outputs: ArraysByName, number: int = 0) -> Boxes2D:
    """What a network that suppresses itself found in an image of its batch, in pixels of its input."""
    count = int(outputs["num_detections"].reshape(-1)[number])
    return Boxes2D(
        # Copies: memory of a lane is written again by its next request.
        np.array(outputs["detection_boxes"][number, :count], np.float32),
        np.array(outputs["detection_classes"][number, :count], np.int64),
        np.array(outputs["detection_scores"][number, :count], np.float32),
    )


def in_pixels_of_the_image(candidates: Boxes2D, placement: Placement) -> Boxes2D:
    """Boxes in pixels of the network's input, in pixels of the image."""
    scales = np.array([placement.scale_x, placement.scale_y] * 2, np.float32)
    return replace(candidates, corners=candidates.corners / scales)


def suppressed(candidates: Boxes2D, placement: Placement, nms: Nms) -> Boxes2D:
    """What is left of the candidates, in pixels of the image."""
    offset = 1 if nms.convention == "megvii" else 0
    if nms.convention == "autoware":
        corners = to_whole_pixels(candidates.corners)
    else:
        corners = in_pixels_of_the_image(candidates, placement).corners
    if nms.class_agnostic:
        kept = suppress(corners, candidates.scores, nms.iou_threshold, offset)
    else:
        kept = suppress_by_class(corners, candidates.scores, candidates.labels, nms.iou_threshold, offset)
    return finished(candidates.select(kept[: nms.max_boxes]), placement, nms)


def finished(kept: Boxes2D, placement: Placement, nms: Nms) -> Boxes2D:
    """Candidates that nothing suppressed, in pixels of the image."""
    if nms.convention != "autoware":
        return in_pixels_of_the_image(kept, placement)
    boxes = in_pixels_of_the_image(replace(kept, corners=to_whole_pixels(kept.corners)), placement)
    edges = np.array([placement.width - 1, placement.height - 1] * 2, np.float32)
    return replace(boxes, corners=to_whole_pixels(np.clip(boxes.corners, 0, edges)))


def boxes(found: Boxes2D) -> dict[str, int]:
    """How many boxes are left."""
    return {"boxes": len(found)}


def placed(value: Packing) -> Packing:
    """A value kept together with its placement."""

    def unpack(arrays: ArraysByName) -> Placed:
        scale_x, scale_y, width, height = arrays[_PLACEMENT].tolist()
        rest = {name: array for name, array in arrays.items() if name != _PLACEMENT}
        return Placed(value.unpack(rest), Placement(scale_x, scale_y, int(width), int(height)))

    return Packing(
        lambda state: {**value.pack(state.value), _PLACEMENT: np.array(astuple(state.placement), np.float64)}, unpack
    )

"""YOLOX with a mask head, from an image to 2D boxes and a mask: the steps in NumPy and OpenCV around the network.

image -> letterbox -> the network -> mask -> decode -> nms
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.backends import Session
from runtime.models.yolox.steps import (
    Placed,
    boxes,
    candidates,
    cells_of_raw,
    network_steps,
    placed,
    rows_of,
    suppressed,
)
from runtime.models.yolox_seg.mask import mask_of
from runtime.models.yolox_seg.parameters import DETECTION, SEGMENTATION, YoloxSegParameters
from runtime.pipeline import ArraysByName, Packing, Step, dataclass_of_arrays, one_array, predictions_of
from shared.metrics.confusion import UNLABELED
from shared.several_tasks import Answers, of_part, qualified
from shared.spec import ModelSpec
from shared.tasks import find
from shared.tasks.detection2d import Boxes2D
from shared.tasks.segmentation2d import ClassMask


@dataclass(frozen=True)
class Masked:
    """Rows or boxes on their way, and the mask, which is done."""

    value: Any
    mask: ClassMask


def steps(spec: ModelSpec, parameters: YoloxSegParameters, session: Session) -> list[Step]:
    """The steps of a request of one image."""
    rows_name, mask_name = (output.name for output in spec.components[0].outputs)
    row_cells = cells_of_raw(parameters)

    def labeled(state: Placed) -> Placed:
        probabilities = np.asarray(state.value[mask_name][0], np.float32)
        mask = mask_of(probabilities, state.placement, parameters)
        return Placed(Masked(rows_of(state.value, rows_name), mask), state.placement)

    def decoded(state: Placed) -> Placed:
        found = candidates(state.value.value, row_cells, parameters)
        return Placed(Masked(found, state.value.mask), state.placement)

    def answered(state: Placed) -> Answers:
        kept: Boxes2D = suppressed(state.value.value, state.placement, parameters.nms)
        return Answers({DETECTION: kept, SEGMENTATION: state.value.mask})

    return [
        *network_steps(spec, parameters, session),
        Step("mask", labeled, placed(_masked(one_array(rows_name))), count=lambda state: pixels_nan(state.value.mask)),
        Step(
            "decode",
            decoded,
            placed(_masked(dataclass_of_arrays(Boxes2D))),
            count=lambda state: {"candidates": len(state.value.value)},
        ),
        Step("nms", answered, predictions_of(spec), count=lambda answers: boxes(answers.parts[DETECTION])),
    ]


def pixels_nan(mask: ClassMask) -> dict[str, int]:
    """How many pixels have a probability that is NaN."""
    return {"pixels_nan": int(np.count_nonzero(mask.labels == UNLABELED))}


def _masked(value: Packing) -> Packing:
    """A value kept together with the mask."""
    task = find(SEGMENTATION)

    def pack(state: Masked) -> dict[str, Any]:
        return {**value.pack(state.value), **qualified(SEGMENTATION, task.arrays(state.mask))}

    def unpack(arrays: ArraysByName) -> Masked:
        rest = {name: array for name, array in arrays.items() if not name.startswith(f"{SEGMENTATION}/")}
        return Masked(value.unpack(rest), task.from_arrays(of_part(SEGMENTATION, arrays)))

    return Packing(pack, unpack)

"""YOLOX step by step: read, letterbox, the network, then decode and nms, or place where the graph suppresses itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backends import Session
from runtime.models.yolox.decode import Candidates, decode
from runtime.models.yolox.letterbox import Placement, letterbox
from runtime.models.yolox.pipeline import Yolox, checked_image, detections
from runtime.steps import Arrays, Step
from shared.data.types import ImageSample
from shared.spec import ModelSpec
from shared.tasks.detection2d import Boxes2D

_PLACEMENT = "placement"
_COLUMNS = ("corners", "scores", "labels")


@dataclass(frozen=True)
class Placed:
    """A state, and where the image lies in the network's input: pixels, outputs by name, or candidates."""

    value: Any
    placement: Placement


def steps(spec: ModelSpec, session: Session) -> list[Step]:
    """The steps of a YOLOX model, see `runtime.steps.steps_of`."""
    return _StagedYolox(spec, session).steps()


class _StagedYolox(Yolox):
    """The pipeline's buffer and settings, one step at a time."""

    def steps(self) -> list[Step]:
        """The steps, in order."""
        first = [
            Step("read", self._read_image, lambda image: {"image": image}, lambda arrays: arrays["image"]),
            Step(
                "letterbox",
                self._boxed,
                lambda state: {self._input_name: state.value, **_pack(state.placement)},
                lambda arrays: Placed(arrays[self._input_name], _unpack(arrays)),
            ),
            Step(
                self._component,
                lambda state: Placed(
                    self._session.run(self._component, {self._input_name: state.value}), state.placement
                ),
                lambda state: {**state.value, **_pack(state.placement)},
                lambda arrays: Placed(dict(arrays), _unpack(arrays)),
            ),
        ]
        if self._parameters.output == "detections":
            return [*first, Step("place", self._place, _pack_boxes, _unpack_boxes)]
        return [
            *first,
            Step("decode", self._decode, _pack_candidates, _unpack_candidates),
            Step("nms", lambda state: self._suppressed(state.value, state.placement), _pack_boxes, _unpack_boxes),
        ]

    def _read_image(self, sample: ImageSample) -> npt.NDArray[np.uint8]:
        return checked_image(self.read(sample).data)

    def _boxed(self, image: npt.NDArray[np.uint8]) -> Placed:
        placement = letterbox(image, self._letterbox, self._images[0])
        return Placed(self._images, placement)

    def _place(self, state: Placed) -> Boxes2D:
        found = detections(state.value)
        return self._placed(found, np.arange(len(found.scores)), state.placement)

    def _decode(self, state: Placed) -> Placed:
        rows = np.asarray(state.value[self._output_name][0], np.float32)
        found = decode(rows, self._cells, self._parameters.score_threshold, inclusive=self._inclusive)
        return Placed(found, state.placement)


def _pack(placement: Placement) -> dict[str, npt.NDArray[Any]]:
    return {_PLACEMENT: np.array(astuple(placement), np.float64)}


def _unpack(arrays: Arrays) -> Placement:
    scale_x, scale_y, width, height = arrays[_PLACEMENT].tolist()
    return Placement(scale_x, scale_y, int(width), int(height))


def _pack_candidates(state: Placed) -> dict[str, npt.NDArray[Any]]:
    return {**{name: getattr(state.value, name) for name in _COLUMNS}, **_pack(state.placement)}


def _unpack_candidates(arrays: Arrays) -> Placed:
    return Placed(Candidates(**{name: arrays[name] for name in _COLUMNS}), _unpack(arrays))


def _pack_boxes(boxes: Boxes2D) -> dict[str, npt.NDArray[Any]]:
    return {name: getattr(boxes, name) for name in Boxes2D.columns()}


def _unpack_boxes(arrays: Mapping[str, npt.NDArray[Any]]) -> Boxes2D:
    return Boxes2D(**{name: arrays[name] for name in Boxes2D.columns()})

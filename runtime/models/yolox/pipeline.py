"""YOLOX: an image to 2D boxes.

image -> letterbox -> the network -> decode -> nms; in-graph decoding and suppression leave the later steps out.

On a GPU the letterbox, and the choice of the rows that become boxes, run as CUDA kernels
(`runtime.models.yolox.device`), with the same results.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backends import Session
from runtime.cuda.session import DeviceSession
from runtime.models.yolox.decode import Candidates, cells, decode
from runtime.models.yolox.device import YoloxCuda, unsupported
from runtime.models.yolox.letterbox import Letterbox, Placement, letterbox
from runtime.models.yolox.nms import suppress, suppress_by_class, to_whole_pixels
from runtime.models.yolox.parameters import YoloxParameters, read_parameters
from runtime.pipeline import Inference, Pipeline, PipelineInput
from runtime.stage_clock import StageClock
from shared.data.types import ImageSample
from shared.errors import InferenceError
from shared.images import read_image
from shared.spec import ModelSpec
from shared.tasks.detection2d import Boxes2D

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]


_log = logging.getLogger("runtime")


def build(spec: ModelSpec, session: Session) -> Pipeline:
    """The pipeline of a YOLOX model, see `runtime.pipeline.build_pipeline`."""
    if isinstance(session, DeviceSession):
        reason = unsupported(read_parameters(spec))
        if reason is None:
            return YoloxOnDevice(spec, session)
        _log.warning("%s: the letterbox runs on the host", reason)
    return Yolox(spec, session)


class _Yolox:
    """What does not depend on where the steps run."""

    def __init__(self, spec: ModelSpec) -> None:
        self._parameters = read_parameters(spec)
        self._component = spec.components[0].name
        self._output_name = spec.components[0].outputs[0].name
        self._letterbox = _letterbox(self._parameters)
        image = self._parameters.image
        raw = self._parameters.output == "raw"
        self._cells = cells(image.height, image.width, self._parameters.strides) if raw else None
        self._inclusive = self._parameters.nms.convention == "mmdet"

    def read(self, sample: ImageSample) -> PipelineInput:
        """(H, W, 3) uint8 pixels of a sample: blue, green, red."""
        return PipelineInput(read_image(sample.image), {})

    def comparable(self, outputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """The first image's part of the output: (1, N, 5 + C); of in-graph detections the scores, by falling score.

        Boxes and classes of in-graph detections swap places where two scores are equal but for rounding; as boxes they
        are compared all the same.
        """
        if self._parameters.output == "detections":
            return {"detection_scores": outputs["detection_scores"][:1]}
        return {self._output_name: outputs[self._output_name][:1]}

    def alerts(self, counters: Mapping[str, int]) -> list[str]:
        """Rows that are not numbers: what is there is lost."""
        if counters.get("rows_nan", 0):
            return [f"{counters['rows_nan']} rows of the output are NaN: look for an overflow with the verifier"]
        return []

    def _suppressed(self, candidates: Candidates, placement: Placement) -> Boxes2D:
        """What is left of the candidates, in pixels of the image."""
        nms = self._parameters.nms
        if nms.convention == "mmdet":
            placed = self._placed(candidates, np.arange(len(candidates.scores)), placement)
            if nms.class_agnostic:
                kept = suppress(placed.corners, placed.scores, nms.iou_threshold)
            else:
                kept = suppress_by_class(placed.corners, placed.scores, placed.labels, nms.iou_threshold)
            return placed.select(kept[: nms.max_boxes])
        whole = Candidates(to_whole_pixels(candidates.corners), candidates.scores, candidates.labels)
        if nms.class_agnostic:
            kept = suppress(whole.corners, whole.scores, nms.iou_threshold)
        else:
            kept = suppress_by_class(whole.corners, whole.scores, whole.labels, nms.iou_threshold)
        boxes = self._placed(whole, kept[: nms.max_boxes], placement)
        edges = np.array([placement.width - 1, placement.height - 1] * 2, np.float32)
        corners = to_whole_pixels(np.clip(boxes.corners, 0, edges))
        return Boxes2D(corners, boxes.labels, boxes.scores)

    def _placed(self, candidates: Candidates, rows: npt.NDArray[np.int64], placement: Placement) -> Boxes2D:
        """Candidates at ``rows``, in pixels of the image."""
        scales = np.array([placement.scale_x, placement.scale_y] * 2, np.float32)
        return Boxes2D(candidates.corners[rows] / scales, candidates.labels[rows], candidates.scores[rows])


class Yolox(_Yolox):
    """A YOLOX model on a session, with its input buffer. One request, of one image, at a time."""

    def __init__(self, spec: ModelSpec, session: Session) -> None:
        super().__init__(spec)
        self._session = session
        self._input_name = spec.components[0].inputs[0].name
        batch, _, height, width = spec.components[0].inputs[0].shape
        # A network of a fixed batch gets the image in its first place; the others stay black.
        self._images = np.zeros((batch if isinstance(batch, int) else 1, 3, int(height), int(width)), np.float32)

    def infer(self, data: UInt8) -> Inference:
        """Boxes in pixels of the image.

        Args:
            data: (H, W, 3) uint8, blue, green, red.

        Raises:
            InferenceError: not such an image, or the backend failed.
        """
        clock = StageClock()
        placement = letterbox(checked_image(data), self._letterbox, self._images[0])
        clock.lap("letterbox")
        outputs = self._session.run(self._component, {self._input_name: self._images})
        clock.lap(self._component)
        if self._parameters.output == "detections":
            candidates = detections(outputs)
            boxes = self._placed(candidates, np.arange(len(candidates.scores)), placement)
            counters = {"boxes": len(boxes)}
            clock.lap("place")
        else:
            rows = np.asarray(outputs[self._output_name][0], np.float32)
            candidates = decode(rows, self._cells, self._parameters.score_threshold, inclusive=self._inclusive)
            clock.lap("decode")
            boxes = self._suppressed(candidates, placement)
            clock.lap("nms")
            rows_nan = int(np.isnan(rows).any(axis=1).sum())
            counters = {"candidates": len(candidates.scores), "rows_nan": rows_nan, "boxes": len(boxes)}
        return Inference(boxes, outputs, clock.stop(), counters)


class YoloxOnDevice(_Yolox):
    """A YOLOX model whose requests stay on the GPU until the rows that become boxes are known."""

    def __init__(self, spec: ModelSpec, session: DeviceSession) -> None:
        super().__init__(spec)
        self.lane = YoloxCuda(spec, self._parameters, self._letterbox, session)

    def infer(self, data: UInt8) -> Inference:
        """Boxes in pixels of the image, see `Yolox.infer`."""
        answer = self.lane.infer(checked_image(data))
        latency = dict(answer.latency_ms)
        began = time.perf_counter()
        if self._parameters.output == "detections":
            candidates = detections(answer.outputs)
            boxes = self._placed(candidates, np.arange(len(candidates.scores)), answer.placement)
            counters = {"boxes": len(boxes)}
        else:
            own = None if self._cells is None else self._cells[answer.picks]
            candidates = decode(answer.values, own, self._parameters.score_threshold, inclusive=self._inclusive)
            boxes = self._suppressed(candidates, answer.placement)
            counters = {"candidates": len(candidates.scores), "rows_nan": answer.rows_nan, "boxes": len(boxes)}
        total = latency.pop("total")
        latency["decode and nms"] = (time.perf_counter() - began) * 1e3
        return Inference(boxes, answer.outputs, {**latency, "total": total + latency["decode and nms"]}, counters)


def checked_image(data: UInt8) -> UInt8:
    """The image.

    Raises:
        InferenceError: it is no (H, W, 3) uint8.
    """
    if data.ndim != 3 or data.shape[2] != 3 or data.dtype != np.uint8 or not data.size:
        raise InferenceError(f"the image has the shape {data.shape} and is {data.dtype}, expected (H, W, 3) uint8")
    return data


def detections(outputs: Mapping[str, npt.NDArray[Any]]) -> Candidates:
    """What a network that suppresses itself found in the first image."""
    count = int(outputs["num_detections"].reshape(-1)[0])
    return Candidates(
        np.asarray(outputs["detection_boxes"][0, :count], np.float32),
        np.asarray(outputs["detection_scores"][0, :count], np.float32),
        np.asarray(outputs["detection_classes"][0, :count], np.int64),
    )


def _letterbox(parameters: YoloxParameters) -> Letterbox:
    image = parameters.image
    return Letterbox(
        height=image.height,
        width=image.width,
        fill=image.fill,
        rgb=image.color == "rgb",
        mean=image.mean,
        std=image.std,
        convention=image.resize,
    )

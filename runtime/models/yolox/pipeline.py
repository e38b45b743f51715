"""The pipeline of a YOLOX: on the host or on a GPU; how samples are read, what is compared, what a user is told."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from runtime.backends import Session
from runtime.cuda.session import DeviceSession, kernels_serve
from runtime.models.yolox.device import YoloxOnDevice, unsupported
from runtime.models.yolox.parameters import YoloxParameters, read_parameters
from runtime.models.yolox.steps import steps
from runtime.pipeline import (
    ArraysByName,
    Counters,
    HostPipeline,
    Interface,
    Pipeline,
    PipelineInput,
    one_array,
)
from shared.data.types import ImageSample
from shared.images import read_image
from shared.spec import ModelSpec


def build(spec: ModelSpec, session: Session) -> Pipeline:
    """The pipeline of a YOLOX model, see `runtime.pipeline.build_pipeline`."""
    parameters = read_parameters(spec)
    interface = interface_of(spec, parameters)
    if isinstance(session, DeviceSession) and kernels_serve(unsupported(parameters)):
        return YoloxOnDevice(interface, spec, parameters, session)
    return HostPipeline(interface, steps(spec, parameters, session))


def interface_of(spec: ModelSpec, parameters: YoloxParameters) -> Interface:
    """How samples are read, what is compared, and what a user is told."""
    name = spec.components[0].outputs[0].name

    def read(sample: ImageSample) -> PipelineInput:
        """(H, W, 3) uint8 pixels of a sample: blue, green, red."""
        return PipelineInput(read_image(sample.image), {})

    def comparable(outputs: ArraysByName) -> dict[str, npt.NDArray[Any]]:
        """The first image's part of the output: (1, N, 5 + C); of in-graph detections the scores, by falling score.

        Boxes and classes of in-graph detections swap places where two scores are equal but for rounding; as boxes they
        are compared all the same.
        """
        if parameters.output == "detections":
            return {"detection_scores": outputs["detection_scores"][:1]}
        return {name: outputs[name][:1]}

    def alerts(counters: Counters) -> list[str]:
        """NaN rows: detections there are lost."""
        if counters.get("rows_nan", 0):
            return [f"{counters['rows_nan']} rows of the output are NaN: look for an overflow with the verifier"]
        return []

    return Interface(read, one_array("image"), comparable, alerts)

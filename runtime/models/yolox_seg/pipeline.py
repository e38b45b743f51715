"""The pipeline of a YOLOX with a mask head: how samples are read, what is compared, what a user is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy.typing as npt

from runtime.backends import Session
from runtime.cuda.session import DeviceSession, kernels_serve
from runtime.models.yolox.device import unsupported
from runtime.models.yolox.pipeline import interface_of
from runtime.models.yolox_seg.device import YoloxSegOnDevice
from runtime.models.yolox_seg.parameters import read_parameters
from runtime.models.yolox_seg.steps import steps
from runtime.pipeline import ArraysByName, Counters, HostPipeline, Pipeline
from shared.spec import ModelSpec


def build(spec: ModelSpec, session: Session) -> Pipeline:
    """The pipeline of a YOLOX with a mask head, see `runtime.pipeline.build_pipeline`."""
    parameters = read_parameters(spec)
    name, every = spec.components[0].outputs[1].name, parameters.mask.compared_every
    of_boxes = interface_of(spec, parameters)

    def comparable(outputs: ArraysByName) -> dict[str, npt.NDArray[Any]]:
        """Those of a YOLOX, and some of the first image's probabilities: (1, K, H / every, W / every)."""
        return {**of_boxes.comparable(outputs), name: outputs[name][:1, :, ::every, ::every]}

    def alerts(counters: Counters) -> list[str]:
        """Those of a YOLOX, and pixels that have no class."""
        lines = of_boxes.alerts(counters)
        if counters.get("pixels_nan", 0):
            lines.append(f"{counters['pixels_nan']} pixels have a probability that is NaN: look for an overflow")
        return lines

    interface = replace(of_boxes, comparable=comparable, alerts=alerts)
    if isinstance(session, DeviceSession) and kernels_serve(unsupported(parameters)):
        return YoloxSegOnDevice(interface, spec, parameters, session)
    return HostPipeline(interface, steps(spec, parameters, session))

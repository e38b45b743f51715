"""The pipeline of a YOLOX with a mask head: how samples are read, what is compared, what a user is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy.typing as npt

from runtime.backends import Session
from runtime.models.yolox.pipeline import interface_of
from runtime.models.yolox_seg.parameters import read_parameters
from runtime.models.yolox_seg.steps import steps
from runtime.pipeline import ArraysByName, HostPipeline, Pipeline
from shared.spec import ModelSpec


def build(spec: ModelSpec, session: Session) -> Pipeline:
    """The pipeline of a YOLOX with a mask head, see `runtime.pipeline.build_pipeline`."""
    parameters = read_parameters(spec)
    name, every = spec.components[0].outputs[1].name, parameters.mask.compared_every
    of_boxes = interface_of(spec, parameters)

    def comparable(outputs: ArraysByName) -> dict[str, npt.NDArray[Any]]:
        """Those of a YOLOX, and some of the first image's probabilities: (1, K, H / every, W / every)."""
        return {**of_boxes.comparable(outputs), name: outputs[name][:1, :, ::every, ::every]}

    return HostPipeline(replace(of_boxes, comparable=comparable), steps(spec, parameters, session))

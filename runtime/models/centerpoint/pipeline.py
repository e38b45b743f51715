"""The pipeline of a CenterPoint: on the host or on a GPU; how samples are read, and what a user is told."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from runtime.backends import Session
from runtime.cuda.session import DeviceSession, kernels_serve
from runtime.lidar.frames import lost_points, reader
from runtime.models.centerpoint.decode import undo_y_axis_reference
from runtime.models.centerpoint.device import CenterPointOnDevice, unsupported
from runtime.models.centerpoint.parameters import CenterPointParameters, read_parameters
from runtime.models.centerpoint.steps import steps
from runtime.pipeline import (
    ArraysByName,
    Counters,
    HostPipeline,
    Interface,
    Pipeline,
    one_array,
)
from shared.spec import ModelSpec


def build(spec: ModelSpec, session: Session) -> Pipeline:
    """The pipeline of a CenterPoint model, see `runtime.pipeline.build_pipeline`."""
    parameters = read_parameters(spec)
    interface = interface_of(parameters)
    if isinstance(session, DeviceSession) and kernels_serve(unsupported(parameters)):
        return CenterPointOnDevice(interface, spec, parameters, session)
    return HostPipeline(interface, steps(spec, parameters, session))


def interface_of(parameters: CenterPointParameters) -> Interface:
    """How samples are read, what is compared, and what a user is told."""

    def comparable(outputs: ArraysByName) -> dict[str, npt.NDArray[Any]]:
        """The head's outputs with a ``rot_y_axis_reference`` export undone: (1, channels, H, W) each."""
        comparable = dict(outputs)
        if parameters.rot_y_axis_reference:
            for task in parameters.tasks:
                dim, rot = task.outputs["dim"], task.outputs["rot"]
                undone = undo_y_axis_reference(outputs[dim][0], outputs[rot][0])
                comparable[dim], comparable[rot] = undone[0][None], undone[1][None]
        return comparable

    def alerts(counters: Counters) -> list[str]:
        """Losses that change results."""
        lines = lost_points(counters, parameters)
        if counters["heatmap_nan"]:
            lines.append(
                f"{counters['heatmap_nan']} cells of the heatmap are NaN: detections there are lost; look for an "
                "overflow with the verifier"
            )
        return lines

    return Interface(reader(parameters), one_array("points"), comparable, alerts)

"""The pipeline of an FRNet: how samples are read, and what a user is told."""

from __future__ import annotations

from runtime.backends import Session
from runtime.cuda.session import DeviceSession, kernels_serve
from runtime.models.frnet.device import FRNetOnDevice, unsupported
from runtime.models.frnet.parameters import FRNetParameters, read_parameters
from runtime.models.frnet.steps import steps
from runtime.pipeline import Counters, HostPipeline, Interface, Pipeline, PipelineInput, one_array
from shared.data import load_points_counted
from shared.data.types import Sample
from shared.spec import ModelSpec


def build(spec: ModelSpec, session: Session) -> Pipeline:
    """The pipeline of an FRNet, see `runtime.pipeline.build_pipeline`."""
    parameters = read_parameters(spec)
    interface = interface_of(parameters)
    if isinstance(session, DeviceSession) and kernels_serve(unsupported(spec, parameters, session)):
        return FRNetOnDevice(interface, spec, parameters, session)
    return HostPipeline(interface, steps(spec, parameters, session))


def interface_of(parameters: FRNetParameters) -> Interface:
    """How samples are read, and what a user is told."""

    def read(sample: Sample) -> PipelineInput:
        """(N, 4) float32 points of a sample, all of the file: each gets a class."""
        loaded = load_points_counted(sample, parameters.points)
        return PipelineInput(loaded.points, {"points": loaded.read, "read_nan": loaded.invalid})

    def alerts(counters: Counters) -> list[str]:
        """Losses that change results."""
        lines = []
        if counters["read_nan"]:
            lines.append(f"{counters['read_nan']} of {counters['points']} points are NaN or infinite and get no class")
        if counters["points_over"]:
            lines.append(
                f"{counters['points_over']} of {counters['num_points']} points are beyond the "
                f"{parameters.points_per_frustum} that a frustum has room for, and don't tell others of it: raise "
                "model.options.points_per_frustum"
            )
        return lines

    return Interface(read, one_array("points"), alerts=alerts)

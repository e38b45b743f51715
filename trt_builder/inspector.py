"""What an engine is made of: its layers from TensorRT's inspector, and their times from a profiled run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shared.errors import BuildError
from trt_builder import compat, layers, measure
from trt_builder.layers import Layer
from trt_builder.messages import Messages
from trt_builder.target import Target


@dataclass(frozen=True)
class Report:
    """An engine from inside.

    Attributes:
        layers: its layers, in the order in which they run.
        times: mean milliseconds per layer, from a run with the profiles' opt shapes; empty without a GPU.
        memory: bytes of device memory that a context needs; None when the engine can't be loaded here.
    """

    layers: list[Layer]
    times: dict[str, float] = field(default_factory=dict)
    memory: int | None = None


def look(target: Target, logger: Any, messages: Messages, plan: bytes) -> Report:
    """Look into a plan that was built just now.

    Args:
        target: what it was built for.
        logger: TensorRT's logger.
        messages: what that logger collected; holds the layers where the engine can't be loaded.
        plan: the plan.

    Raises:
        BuildError: TensorRT can't load what it built, or says nothing about its layers.
    """
    if target.gpu is None:
        if messages.layers is None:
            raise BuildError("TensorRT said nothing about the layers that it built")
        return Report(layers.from_log(messages.layers))
    trt = target.tensorrt.trt
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildError(f"TensorRT does not load what it built: {' '.join(messages.problems()[-1:])}")
    return Report(
        layers=layers.from_inspector(engine_information(trt, engine)),
        times=measure.layer_times(trt, engine),
        memory=compat.engine_memory(trt, engine),
    )


def engine_information(trt: Any, engine: Any) -> str:
    """The inspector's JSON of a whole engine."""
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

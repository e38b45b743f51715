"""What an engine is made of: its layers from TensorRT's inspector, and their times from a profiled run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shared import cuda, engines
from shared.errors import BuildError
from trt_builder import io_formats, layers
from trt_builder.layers import Layer
from trt_builder.session import Session


@dataclass(frozen=True)
class Report:
    """An engine from inside.

    Attributes:
        layers: its layers, in the order in which they run.
        times: mean milliseconds per layer, from a run with the profiles' opt shapes; empty without a GPU.
        memory: bytes of device memory that a context needs; None when the engine can't be loaded here.
        formats: type and layout of inputs and outputs, by name; empty when the engine can't be loaded here.
    """

    layers: list[Layer]
    times: dict[str, float] = field(default_factory=dict)
    memory: int | None = None
    formats: dict[str, dict[str, str]] = field(default_factory=dict)


def look(session: Session, plan: bytes, *, component: str) -> Report:
    """Look into a plan that was built just now.

    Args:
        session: TensorRT; where the engine can't be loaded, its messages hold the layers.
        plan: the plan.
        component: for errors.

    Raises:
        BuildError: TensorRT can't load what it built, or says nothing about its layers.
    """
    if session.target.gpu is None:
        if session.messages.layers is None:
            raise BuildError("TensorRT said nothing about the layers that it built", where=component)
        return Report(layers.from_log(session.messages.layers))
    engine = session.load(plan, component=component)
    cuda.use_gpu(session.target.gpu.index)
    return Report(
        layers=layers.from_inspector(engine_information(session.trt, engine)),
        times=engines.layer_times(session.trt, engine),
        memory=engines.activation_memory(engine),
        formats=io_formats.chosen(engine),
    )


def engine_information(trt: Any, engine: Any) -> str:
    """The inspector's JSON of a whole engine."""
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

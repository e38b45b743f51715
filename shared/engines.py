"""TensorRT engines as the builder and the runtime both see them: loaded, asked for their tensors, and timed.

TensorRT is not imported here: `trt` is the module that the tool has loaded (``tensorrt`` or ``tensorrt_rtx``), and
every function works with 8.6 to 11.x.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from shared import cuda
from shared.errors import InferenceError, ModelLoadError

Shapes = Mapping[str, tuple[int, ...]]
#: Inputs by name.
Given = Mapping[str, npt.NDArray[Any]]
NOTHING_GIVEN: Given = MappingProxyType({})

_WARM_UP_RUNS = 5


def deserialize(runtime: Any, plan: bytes, *, version_compatible: bool) -> Any | None:
    """The engine in a plan, or None when TensorRT refuses; it has said why to its logger.

    A version compatible plan brings the code of TensorRT's lean runtime with it, which runs on the host: TensorRT loads
    it only where that is allowed. So it is a decision to trust the plan like a shared library. ``version_compatible``
    must come from the build itself or from the manifest of a workspace whose hash of the plan was checked, never from
    the plan or from a file beside it.

    Args:
        runtime: TensorRT's runtime object; it must outlive the engine.
        plan: the serialized engine.
        version_compatible: whether the plan was built so.
    """
    runtime.engine_host_code_allowed = version_compatible
    return runtime.deserialize_cuda_engine(plan)


def tensor_names(trt: Any, engine: Any, *, inputs: bool) -> list[str]:
    """Names of an engine's inputs or outputs, in its order."""
    wanted = trt.TensorIOMode.INPUT if inputs else trt.TensorIOMode.OUTPUT
    names = [str(engine.get_tensor_name(index)) for index in range(engine.num_io_tensors)]
    return [name for name in names if engine.get_tensor_mode(name) == wanted]


def profile_shapes(engine: Any, name: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Smallest, tuned-for and largest shape of an input in the first profile; its own three times where it is fixed."""
    shape = tuple(engine.get_tensor_shape(name))
    if -1 not in shape:
        return shape, shape, shape
    low, opt, high = (tuple(shapes) for shapes in engine.get_tensor_profile_shape(name, 0))
    return low, opt, high


def dtype_of(trt: Any, engine: Any, name: str) -> np.dtype[Any]:
    """NumPy dtype of a tensor of an engine."""
    dtype: np.dtype[Any] = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
    return dtype


def lies_channels_last(trt: Any, engine: Any, name: str) -> bool:
    """Whether the channels of a tensor (B, C, H, W) lie side by side in memory.

    Raises:
        ModelLoadError: an input or output of another layout than this or rows.
    """
    layout = engine.get_tensor_format(name)
    if layout == trt.TensorFormat.LINEAR:
        return False
    # Whole groups of eight: no channel is added to fill one up.
    if layout == trt.TensorFormat.HWC8 and engine.get_tensor_shape(name)[1] % 8 == 0:
        return True
    raise ModelLoadError(
        f"tensor '{name}' lies in memory as {layout.name}, which the runtime does not write",
        hint="build the engines here (trt_builder build)",
    )


def as_taken(trt: Any, engine: Any, name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An input as the engine reads it: of its type, C-contiguous, (B, H, W, C) where it wants channels last."""
    laid_out = np.moveaxis(array, 1, -1) if lies_channels_last(trt, engine, name) else array
    return np.ascontiguousarray(laid_out, dtype_of(trt, engine, name))


def activation_memory(engine: Any) -> int:
    """Bytes of device memory that a context needs for activations.

    ``device_memory_size_v2`` came with 10.9, and 11 has no other.
    """
    newer = getattr(engine, "device_memory_size_v2", None)
    return int(engine.device_memory_size if newer is None else newer)


def random_values(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Normally distributed numbers, always the same: zeros would make some kernels faster than data does."""
    return np.random.default_rng(0).standard_normal(shape, np.float32).astype(dtype)


def filled_up(array: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """An array with the rows that ``shape`` has more, each as the first; an array without rows gets zeros."""
    missing = shape[0] - len(array)
    if missing <= 0:
        return array
    row = array[:1] if len(array) else np.zeros((1, *shape[1:]), array.dtype)
    return np.concatenate([array, np.repeat(row, missing, axis=0)])


@dataclass(frozen=True)
class Bound:
    """An engine with an address for every tensor, ready to run on a stream of its own.

    Attributes:
        context: TensorRT's execution context.
        stream: where it runs.
        memory: device memory by tensor.
        shapes: by tensor.
    """

    context: Any
    stream: cuda.Stream
    memory: dict[str, cuda.Memory]
    shapes: dict[str, tuple[int, ...]]

    def enqueue(self) -> None:
        """Put a run on the stream; does not wait.

        Raises:
            InferenceError: TensorRT refuses.
        """
        if not self.context.execute_async_v3(self.stream.handle):
            raise InferenceError("the engine does not run")


def bind(trt: Any, engine: Any, shapes: Shapes) -> Bound:
    """A context of an engine with zeroed memory for every tensor, on the GPU whose context is current.

    Args:
        trt: the TensorRT module.
        engine: without a context yet (in 8.6 the second context of an engine has no profile).
        shapes: of the inputs.

    Raises:
        InferenceError: a shape that the engine does not take, or an output whose shape depends on the data.
    """
    context = engine.create_execution_context()
    inputs = tensor_names(trt, engine, inputs=True)
    for name in inputs:
        if not context.set_input_shape(name, shapes[name]):
            raise InferenceError(f"the engine does not take shape {list(shapes[name])}", where=name)
    bound = Bound(context, cuda.Stream(), {}, {})
    for name in (*inputs, *tensor_names(trt, engine, inputs=False)):
        shape = tuple(context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise InferenceError("the shape of this output depends on the data", where=name)
        bound.shapes[name] = shape
        bound.memory[name] = cuda.Memory(int(np.prod(shape, dtype=np.int64)) * engine.get_tensor_dtype(name).itemsize)
        context.set_tensor_address(name, bound.memory[name].address)
    return bound


def run_once(trt: Any, engine: Any, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The outputs of an engine for some inputs.

    Args:
        trt: the TensorRT module.
        engine: as for `bind`.
        inputs: by name; converted to the engine's types (TensorRT before 10 has no int64) and layouts.

    Raises:
        InferenceError: the engine does not run on these inputs.
    """
    bound = bind(trt, engine, {name: array.shape for name, array in inputs.items()})
    for name, array in inputs.items():
        cuda.upload(bound.memory[name].address, as_taken(trt, engine, name, array))
    bound.enqueue()
    bound.stream.synchronize()
    outputs = {}
    for name in tensor_names(trt, engine, inputs=False):
        outputs[name] = np.empty(bound.shapes[name], dtype_of(trt, engine, name))
        cuda.download(outputs[name], bound.memory[name].address)
    return outputs


def layer_times(
    trt: Any, engine: Any, *, shapes: Shapes | None = None, runs: int = 10, given: Given = NOTHING_GIVEN
) -> dict[str, float]:
    """Mean milliseconds of each layer; the events between layers slow the engine down, so they add up to more.

    Args:
        trt: the TensorRT module.
        engine: as for `bind`.
        shapes: input shapes; the first profile's opt shapes when None.
        runs: how many runs the mean is of, after a warm-up.
        given: inputs by name that are not random: indices, of which random numbers would all name a few rows.
    """
    sums: dict[str, float] = defaultdict(float)

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            sums[layer_name] += ms

    bound = _bind_random(trt, engine, shapes, given)
    for _ in range(_WARM_UP_RUNS):
        bound.enqueue()
    bound.stream.synchronize()
    profiler = Profiler()
    bound.context.profiler = profiler
    for _ in range(runs):
        bound.enqueue()
        bound.stream.synchronize()
    return {name: total / runs for name, total in sums.items()}


def request_times(trt: Any, engine: Any, runs: int, shapes: Shapes | None = None) -> list[float]:
    """Milliseconds on the GPU of each of ``runs`` requests, without copies, launched kernel by kernel.

    Args:
        trt: the TensorRT module.
        engine: as for `bind`.
        runs: how many, after a warm-up.
        shapes: input shapes; the first profile's opt shapes when None.
    """
    bound = _bind_random(trt, engine, shapes)
    for _ in range(max(_WARM_UP_RUNS, runs // 10)):
        bound.enqueue()
    events = [(cuda.Event(), cuda.Event()) for _ in range(runs)]
    for start, end in events:
        start.record(bound.stream)
        bound.enqueue()
        end.record(bound.stream)
    bound.stream.synchronize()
    return [start.milliseconds_until(end) for start, end in events]


def _bind_random(trt: Any, engine: Any, shapes: Shapes | None, given: Given = NOTHING_GIVEN) -> Bound:
    """Bound, with random numbers in floating-point inputs that are not given. NumPy has no BF16: such stay zero."""
    inputs = tensor_names(trt, engine, inputs=True)
    bound = bind(trt, engine, shapes or {name: profile_shapes(engine, name)[1] for name in inputs})
    for name in inputs:
        kind = engine.get_tensor_dtype(name)
        if name in given:
            array = as_taken(trt, engine, name, filled_up(given[name], bound.shapes[name]))
            cuda.upload(bound.memory[name].address, array)
        elif kind in (trt.DataType.FLOAT, trt.DataType.HALF):
            cuda.upload(bound.memory[name].address, random_values(bound.shapes[name], trt.nptype(kind)))
    return bound

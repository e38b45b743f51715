"""`trt_builder probe`: any ONNX file as an engine, run once, outside a workspace.

It is how `verifier bisect` asks TensorRT about windows of a graph, whatever version is installed here::

    verifier bisect … --runner-command "trt_builder probe --onnx {model} --inputs {inputs} --outputs {outputs}"
"""

from __future__ import annotations

import ctypes
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from shared.errors import BuildError, EnvironmentLacks, InferenceError, InputError
from shared.files import atomic_path, sha256_of_file
from shared.lazy import lazy_import
from trt_builder import cast_graph, cuda, one_engine, onnx_graph, policies
from trt_builder import gpu as gpu_devices
from trt_builder import target as targets
from trt_builder.profiles import Sizes
from trt_builder.session import Session, open_session
from trt_builder.settings import Job, Options

onnx = lazy_import("onnx")

Arrays = Mapping[str, npt.NDArray[Any]]

# As the config's defaults, but for the level: windows are built by the dozen, to be right and not to be fast.
_OPTIONS = Options(
    max_workspace_size=1 << 30,
    optimization_level=2,
    avg_timing_iterations=1,
    max_aux_streams=None,
    tactic_sources=None,
    version_compatible=False,
    hardware_compatibility="none",
    strip_weights=False,
    refittable=False,
    dla_core=None,
    gpu_fallback=True,
    plugins={},
)


def probe(
    model: Path,
    inputs: Path,
    outputs: Path,
    *,
    policy: str,
    target: str,
    timings: Path | None,
    keep_fp32: tuple[str, ...],
    libraries: bool = True,
) -> None:
    """Build an engine for the shapes of some inputs, run it, and write its outputs.

    Args:
        model: the ONNX file.
        inputs: .npz of arrays by input name.
        outputs: .npz to write, arrays by output name.
        policy: precision policy.
        target: ``auto``, ``tensorrt`` or ``rtx``.
        timings: folder that keeps kernel timings from one call to the next; None: none are kept.
        keep_fp32: patterns of node names that stay in FP32.
        libraries: kernels may come from cuBLAS and cuDNN.

    Raises:
        InputError: the inputs can't be read, or are not the graph's.
        EnvironmentLacks: no TensorRT, no GPU, or no such precision.
        BuildError: TensorRT failed.
        InferenceError: the engine does not run.
    """
    given = _read(inputs)
    graph = onnx_graph.load(model)
    names = [value.name for value in graph.graph.input]
    if sorted(given) != sorted(names):
        raise InputError(f"holds {sorted(given)}, the graph takes {sorted(names)}", where=str(inputs))
    found = targets.find(target)
    if not gpu_devices.find_gpus():
        raise EnvironmentLacks("no GPU to run it on: the driver shows none", hint="run this where the GPU is")
    with tempfile.TemporaryDirectory(prefix="probe-") as folder:
        options = _OPTIONS if libraries else replace(_OPTIONS, tactic_sources=[])
        session = open_session(found, options, timings or Path(folder))
        job = Job(
            component=model.stem,
            onnx=model,
            onnx_hash=sha256_of_file(model),
            engine_file="",
            policy=policies.resolve(policy, graph, keep_fp32, where=str(model)),
            keep_fp32=keep_fp32,
            profiles=[{name: Sizes(array.shape, array.shape, array.shape) for name, array in given.items()}]
            if _dynamic(graph)
            else [],
        )
        plan, _ = one_engine.build_plan(session, job, _as_built(session, job, graph, Path(folder)), None)
    answer = run_plan(session, plan, given)
    with atomic_path(outputs) as temporary, temporary.open("wb") as file:
        np.savez(file, **cast("dict[str, Any]", answer))


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"can't be read as arrays ({error})", where=str(path)) from error


def _dynamic(graph: Any) -> bool:
    return any(
        not dimension.HasField("dim_value")
        for value in graph.graph.input
        for dimension in value.type.tensor_type.shape.dim
    )


def _as_built(session: Session, job: Job, graph: Any, folder: Path) -> Path:
    """The file to parse: the given one, or where precision is baked in, one made from it."""
    low = job.policy.policy.low
    if low is None or policies.flags_do(job.policy, weakly_typed=session.target.tensorrt.weakly_typed):
        return job.onnx
    lowered, _ = cast_graph.lower(graph, low, keep=job.policy.keep)
    path = folder / "lowered.onnx"
    onnx.save(lowered, str(path))
    return path


def run_plan(session: Session, plan: bytes, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
    """The outputs of an engine.

    Args:
        session: TensorRT.
        plan: the engine.
        inputs: by name; converted to the engine's types (TensorRT before 10 has no int64).

    Raises:
        BuildError: the plan does not load.
        InferenceError: it does not run on these inputs.
    """
    trt = session.target.tensorrt.trt
    runtime = trt.Runtime(session.logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildError(f"TensorRT does not load what it built: {' '.join(session.messages.problems()[-1:])}")
    answer: dict[str, npt.NDArray[Any]] = {}
    with cuda.primary_context() as gpu:
        context = engine.create_execution_context()
        for name, array in inputs.items():
            if not context.set_input_shape(name, array.shape):
                raise InferenceError(f"the engine does not take shape {list(array.shape)}", where=name)
        addresses = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
            shape = tuple(context.get_tensor_shape(name))
            if min(shape, default=0) < 0:
                raise InferenceError("the shape of this output depends on the data", where=name)
            addresses[name] = gpu.allocate(int(np.prod(shape)) * dtype.itemsize)
            context.set_tensor_address(name, addresses[name])
            if name in inputs:
                gpu.upload(addresses[name], np.asarray(inputs[name], dtype, order="C").tobytes())
            else:
                answer[name] = np.empty(shape, dtype)
        stream = gpu.stream()
        if not context.execute_async_v3(stream):
            raise InferenceError("the engine does not run")
        gpu.synchronize(stream)
        for name, array in answer.items():
            pointer = array.ctypes.data_as(ctypes.c_void_p)
            gpu.call("cuMemcpyDtoH_v2", pointer, ctypes.c_uint64(addresses[name]), ctypes.c_size_t(array.nbytes))
        del context
    return answer

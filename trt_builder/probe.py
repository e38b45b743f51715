"""`trt_builder probe`: any ONNX file as an engine, run once, outside a workspace.

It is how `verifier bisect` asks TensorRT about windows of a graph, whatever version is installed here::

    verifier bisect … --runner-command "trt_builder probe --serve"
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from shared import cuda, engines, onnx_graph
from shared.arrays import read_arrays
from shared.config.tensorrt_section import TensorRT as Options
from shared.errors import EnvironmentLacks, InputError
from shared.files import atomic_path, sha256_of_file
from shared.lazy import lazy_import
from shared.work_path import WorkPath
from trt_builder import policies
from trt_builder import target as targets
from trt_builder.engine import build, lowered
from trt_builder.jobs import Job
from trt_builder.profiles import Sizes
from trt_builder.session import open_session

onnx = lazy_import("onnx")

Arrays = Mapping[str, npt.NDArray[Any]]


def probe(
    model: Path,
    inputs: Path,
    outputs: Path | None,
    *,
    policy: str,
    target: str,
    timings: Path | None,
    keep_fp32: tuple[str, ...],
    libraries: bool = True,
    optimization_level: int = 2,
) -> None:
    """Build an engine for the shapes of some inputs, run it, and write its outputs.

    Args:
        model: the ONNX file.
        inputs: .npz of arrays by input name.
        outputs: .npz to write, arrays by output name; None: build it, and run nothing.
        policy: precision policy.
        target: ``auto``, ``tensorrt`` or ``rtx``.
        timings: folder that keeps kernel timings from one call to the next; None: none are kept.
        keep_fp32: patterns of node names that stay in FP32.
        libraries: kernels may come from cuBLAS and cuDNN.
        optimization_level: the builder's. Windows of a graph are built by the dozen, to be right and not to be fast.

    Raises:
        InputError: the inputs can't be read, or are not the graph's.
        EnvironmentLacks: no TensorRT, no GPU, or no such precision.
        BuildError: TensorRT failed.
        InferenceError: the engine does not run.
    """
    arrays = read_arrays(inputs)
    graph = onnx_graph.load(model)
    names = [value.name for value in graph.graph.input]
    if sorted(arrays) != sorted(names):
        raise InputError(f"holds {sorted(arrays)}, the graph takes {sorted(names)}", where=str(inputs))
    this_target = targets.find(target)
    if outputs is not None and not cuda.find_gpus():
        raise EnvironmentLacks("no GPU to run it on: the driver shows none", hint="run this where the GPU is")
    with tempfile.TemporaryDirectory(prefix="probe-") as folder:
        options = Options(optimization_level=optimization_level, tactic_sources=None if libraries else ())
        session = open_session(this_target, options, {}, WorkPath(timings or Path(folder)))
        job = Job(
            component=model.stem,
            onnx=model,
            onnx_hash=sha256_of_file(model),
            engine_file="",
            policy=policies.resolve(policy, graph, keep_fp32, where=str(model)),
            keep_fp32=keep_fp32,
            profiles=[{name: Sizes(array.shape, array.shape, array.shape) for name, array in arrays.items()}]
            if any(given.dynamic for given in onnx_graph.graph_inputs(graph))
            else [],
        )
        to_build = model
        if (baked := lowered(session, job)) is not None:
            to_build = Path(folder) / "lowered.onnx"
            onnx.save(baked, str(to_build))
        plan, _ = build(session, job, to_build, None)
    if outputs is None:
        return
    cuda.use_gpu()
    answer = engines.run_once(session.trt, session.load(plan, component=model.stem), arrays)
    with atomic_path(outputs) as temporary, temporary.open("xb") as file:
        np.savez(file, **cast("dict[str, Any]", answer))

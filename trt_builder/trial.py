"""Whether a graph builds, tried in a process of its own: what it fails with may be a crash of TensorRT."""

from __future__ import annotations

import multiprocessing
import re
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy.typing as npt

from shared import onnx_graph
from shared.arrays import write_arrays
from shared.errors import BuildError, DeployError
from shared.lazy import lazy_import
from trt_builder.policies import POLICIES
from trt_builder.probe import probe

if TYPE_CHECKING:
    import onnx
else:
    onnx = lazy_import("onnx")

# What tells two messages of one cause apart: names, positions and sizes.
_VARYING = re.compile(r"'[^']*'|\[[^\]]*\]|\d+")


@dataclass(frozen=True)
class Failure:
    """Why a graph does not build.

    Attributes:
        message: TensorRT's, in a line.
    """

    message: str

    def is_like(self, other: Failure | None) -> bool:
        """Whether another graph fails for the same reason: the messages are the same but for names and numbers."""
        return other is not None and _VARYING.sub("", self.message) == _VARYING.sub("", other.message)


@dataclass(frozen=True)
class Options:
    """How graphs are built.

    Attributes:
        target: ``tensorrt`` or ``rtx``.
        policy: precision policy.
        keep: names of the nodes that stay in FP32.
        optimization_level: the builder's.
        libraries: kernels may come from cuBLAS and cuDNN.
    """

    target: str
    policy: str
    keep: Collection[str]
    optimization_level: int
    libraries: bool


class Trial:
    """Builds graphs in a process of its own, which is started anew where TensorRT ended it; use it as a context."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._worker: tuple[BaseProcess, Connection] | None = None

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *error: object) -> None:
        if self._worker is not None:
            process, connection = self._worker
            connection.close()  # which ends it
            process.join()
            self._worker = None

    def failure(self, model: onnx.ModelProto, inputs: Mapping[str, npt.NDArray[Any]]) -> Failure | None:
        """Build a graph for the shapes of ``inputs``; None: it builds, or is refused before TensorRT sees it."""
        if self._worker is None:
            self._worker = self._start()
        process, connection = self._worker
        with tempfile.TemporaryDirectory(prefix="reproduce-") as name:
            folder = Path(name)
            onnx.save(model, str(folder / "window.onnx"))
            write_arrays(folder / "inputs.npz", inputs)
            try:
                connection.send((folder, self._policy(model), self._patterns(model)))
                return cast("Failure | None", connection.recv())
            except (EOFError, ConnectionError):
                process.join()
                self._worker = None
                return Failure(f"TensorRT ended its process with exit code {process.exitcode}")

    def _start(self) -> tuple[BaseProcess, Connection]:
        # TensorRT does not survive a fork.
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, self._options), daemon=True)
        process.start()
        there.close()
        return process, here

    def _policy(self, model: onnx.ModelProto) -> str:
        # A part without Q/DQ nodes runs as the rest of a quantized graph does.
        policy = self._options.policy
        return policy if onnx_graph.is_quantized(model) or not POLICIES[policy].quantized else "fp16"

    def _patterns(self, model: onnx.ModelProto) -> tuple[str, ...]:
        names = {onnx_graph.node_name(node) for node in model.graph.node}
        return tuple(f"^{re.escape(name)}$" for name in self._options.keep if name in names)


def _serve(connection: Connection, options: Options) -> None:
    """Build what comes, and send why that failed, until nobody asks any more."""
    while True:
        try:
            folder, policy, keep_fp32 = connection.recv()
        except EOFError:
            return
        connection.send(_built(folder, policy, keep_fp32, options))


def _built(folder: Path, policy: str, keep_fp32: tuple[str, ...], options: Options) -> Failure | None:
    try:
        probe(
            folder / "window.onnx",
            folder / "inputs.npz",
            None,
            policy=policy,
            target=options.target,
            timings=None,
            keep_fp32=keep_fp32,
            libraries=options.libraries,
            optimization_level=options.optimization_level,
        )
    except BuildError as error:
        return Failure(error.message)
    except DeployError:
        return None
    return None


def smallest(count: int, fails: Callable[[int, int], bool]) -> range:
    """The fewest consecutive of ``count`` nodes that ``fails(first, last)`` says fail, if all of them do.

    Both ends are searched by halves, some 2 log2(count) questions. Only windows that were seen to fail are taken, so
    the answer fails, also where a smaller part of a window passes and a part of that fails again.
    """
    passes, last = 0, count
    while last - passes > 1:
        middle = (passes + last) // 2
        passes, last = (passes, middle) if fails(0, middle) else (middle, last)
    first, passes = 0, last
    while passes - first > 1:
        middle = (first + passes) // 2
        first, passes = (middle, passes) if fails(middle, last) else (first, middle)
    return range(first, last)

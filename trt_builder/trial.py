"""Whether a graph builds, tried in a process of its own: what it fails with may be a crash of TensorRT."""

from __future__ import annotations

import multiprocessing
import re
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
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
class Trial:
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

    def failure(self, model: onnx.ModelProto, inputs: Mapping[str, npt.NDArray[Any]]) -> Failure | None:
        """Build a graph for the shapes of ``inputs``; None: it builds, or is refused before TensorRT sees it."""
        here, there = multiprocessing.Pipe(duplex=False)
        with tempfile.TemporaryDirectory(prefix="reproduce-") as name:
            folder = Path(name)
            onnx.save(model, str(folder / "window.onnx"))
            write_arrays(folder / "inputs.npz", inputs)
            # TensorRT does not survive a fork.
            process = multiprocessing.get_context("spawn").Process(
                target=_try, args=(there, folder, self._policy(model), self._patterns(model), self)
            )
            process.start()
            there.close()
            try:
                return cast("Failure | None", here.recv())
            except EOFError:
                process.join()
                return Failure(f"TensorRT ended its process with exit code {process.exitcode}")
            finally:
                process.join()

    def _policy(self, model: onnx.ModelProto) -> str:
        # A part without Q/DQ nodes runs as the rest of a quantized graph does.
        return self.policy if onnx_graph.is_quantized(model) or not POLICIES[self.policy].quantized else "fp16"

    def _patterns(self, model: onnx.ModelProto) -> tuple[str, ...]:
        names = {onnx_graph.node_name(node) for node in model.graph.node}
        return tuple(f"^{re.escape(name)}$" for name in self.keep if name in names)


def _try(answer: Connection, folder: Path, policy: str, keep_fp32: tuple[str, ...], trial: Trial) -> None:
    """Build, in a process of its own, and send why that failed."""
    try:
        probe(
            folder / "window.onnx",
            folder / "inputs.npz",
            None,
            policy=policy,
            target=trial.target,
            timings=None,
            keep_fp32=keep_fp32,
            libraries=trial.libraries,
            optimization_level=trial.optimization_level,
        )
    except BuildError as error:
        answer.send(Failure(error.message))
    except DeployError:
        answer.send(None)
    else:
        answer.send(None)


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

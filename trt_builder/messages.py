"""What TensorRT says while it builds, and what its failures mean."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from typing import Any

from shared.errors import BuildError
from shared.qdq_lint import sum_advice

_log = logging.getLogger("tensorrt")

_NO_INT8_KERNEL = r"incorrectly marked as an int8 node"

# Words in TensorRT's messages -> what happened and what to do; the first that is found wins.
_MEANINGS: tuple[tuple[str, str, str], ...] = (
    (
        r"out of memory|OutOfMemory|outOfMemory|Requested amount of GPU memory|cudaErrorMemoryAllocation|"
        r"insufficient memory",
        "out of GPU memory",
        "free the GPU (nvidia-smi shows who uses it), or lower tensorrt.max_workspace_size or the profile's max_shape",
    ),
    (
        r"[Cc]ould not find any implementation for node|no tactics to implement the operation",
        "no kernel for a node",
        "raise tensorrt.max_workspace_size or optimization_level, or let the node run in FP32 with keep_fp32",
    ),
    (
        _NO_INT8_KERNEL,
        "no INT8 kernel for a quantized layer",
        "leave it in floating point (quantization.sensitive_layers) and export again; trt_builder reproduce finds it",
    ),
    (
        r"Plugin not found|No importer registered|Unsupported operator|UNSUPPORTED_NODE|not supported",
        "an operator that this TensorRT does not have",
        "export without it, name a plugin library that has it in tensorrt.plugin_libraries, or use a newer TensorRT",
    ),
    (
        r"Unable to load library: libnvinfer_lean",
        "version compatible engines carry TensorRT's lean runtime, and its library is not installed",
        "install the package tensorrt_lean of the same version, or set tensorrt.version_compatible: false",
    ),
    (
        r"CUDA driver version is insufficient|cudaErrorInsufficientDriver|forward compatibility",
        "the driver is older than this TensorRT's CUDA",
        "trt_builder doctor shows both versions; update the driver, or use an image with an older TensorRT",
    ),
)


class Messages:
    """Collects what TensorRT says; its own threads call this, so access is locked.

    Attributes:
        layers: the dump of the engine's layers, when it was logged (`make_logger` with ``layers=True``).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._problems: list[str] = []
        self.layers: str | None = None

    def add_problem(self, text: str) -> None:
        """Keep an error or warning."""
        with self._lock:
            self._problems.append(text)

    def problems(self) -> list[str]:
        """Errors and warnings so far."""
        with self._lock:
            return list(self._problems)

    def last(self) -> str:
        """The last of them; empty when there was none."""
        return " ".join(self.problems()[-1:])

    def clear(self) -> None:
        """Forget what was said about an earlier engine."""
        with self._lock:
            self._problems.clear()
            self.layers = None


_LOGGERS: list[tuple[Any, Any]] = []


def make_logger(trt: Any, messages: Messages, *, layers: bool) -> Any:
    """An ``ILogger`` that sends errors and warnings to our log and to ``messages``.

    TensorRT keeps the first logger of a process, by its address: it is made once, never freed, and writes to the
    messages that were given last.

    Args:
        trt: the TensorRT module.
        messages: where they go.
        layers: catch the dump of the engine's layers too, which is logged at the most verbose level.
    """
    logger = next((known for module, known in _LOGGERS if module is trt), None)
    if logger is None:
        logger = _new_logger(trt)
        _LOGGERS.append((trt, logger))
    logger.messages, logger.layers = messages, layers
    return logger


def _new_logger(trt: Any) -> Any:
    severity = trt.ILogger.Severity

    class BuildLogger(trt.ILogger):  # type: ignore[misc]
        messages: Messages
        layers: bool

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, level: Any, text: str) -> None:
            if level in (severity.INTERNAL_ERROR, severity.ERROR) or level == severity.WARNING:
                self.messages.add_problem(text)
                _log.debug("%s", text)
            elif self.layers and text.startswith("Layers:"):
                self.messages.layers = text

    return BuildLogger()


def failure(component: str, problems: Sequence[str], float_sums: Sequence[str] = ()) -> BuildError:
    """The error for a build that gave nothing.

    Args:
        component: what was built.
        problems: what TensorRT said.
        float_sums: see `shared.qdq_lint.float_sums`.
    """
    text = "\n".join(problems)
    last = _shorten(problems[-1]) if problems else "TensorRT gave no reason"
    for pattern, meaning, advice in _MEANINGS:
        match = re.search(pattern, text)
        if match is not None:
            line = next((line for line in problems if re.search(pattern, line)), last)
            hint = sum_advice(float_sums[0]) if pattern == _NO_INT8_KERNEL and float_sums else advice
            return BuildError(f"{meaning}: {_shorten(line)}", where=component, hint=hint)
    return BuildError(
        f"TensorRT could not build the engine: {last}", where=component, hint="--debug shows all its messages"
    )


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:297] + "..."

"""What engines are built for: a TensorRT, a GPU architecture, and the name that follows from them."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from shared import cuda
from shared.cuda import GpuInfo
from shared.errors import EnvironmentLacks
from trt_builder import compat
from trt_builder.compat import TensorRT

# The architecture of an engine that is finished on the GPU that loads it.
PORTABLE = "portable"

_log = logging.getLogger("target")


@dataclass(frozen=True)
class Target:
    """Where engines are built, and for what.

    Attributes:
        tensorrt: the TensorRT that builds.
        gpu: the GPU whose kernels are timed; None for TensorRT for RTX without one, which needs none to build.
    """

    tensorrt: TensorRT
    gpu: GpuInfo | None

    @property
    def architecture(self) -> str:
        """``sm90``, or ``portable`` for an engine that is finished on the GPU that loads it."""
        return self.gpu.architecture if self.gpu else PORTABLE

    def name(self, policy: str) -> str:
        """Name of the folder under ``tensorrt/``: ``trt8.6.0-sm90-fp16``, ``rtx1.7.1.116-portable-fp32``."""
        kind = "rtx" if self.tensorrt.flavor == "rtx" else "trt"
        return f"{kind}{self.tensorrt.version}-{self.architecture}-{policy}"


def find(wanted: str) -> Target:
    """The target that this machine can build for.

    Args:
        wanted: ``tensorrt``, ``rtx``, or ``auto``: TensorRT when it and a GPU are here, else TensorRT for RTX when it
            is installed.

    Raises:
        EnvironmentLacks: no TensorRT, or no GPU for it; says what is missing.
    """
    if wanted == "rtx":
        return _rtx()
    if wanted == "tensorrt":
        return _tensorrt()
    try:
        return _tensorrt()
    except EnvironmentLacks as missing:
        try:
            target = _rtx()
        except EnvironmentLacks:
            raise missing from None
        _log.info("%s; building with %s", missing.message, target.tensorrt.title)
        return target


def _tensorrt() -> Target:
    tensorrt = compat.load("tensorrt")
    gpus = cuda.find_gpus()
    if not gpus:
        raise EnvironmentLacks(
            f"no GPU: {tensorrt.title} is installed, but the driver shows no NVIDIA GPU, which it needs to build",
            hint="run it where the engines will run; in a container, start that with --gpus all",
        )
    return Target(tensorrt, gpus[0])


def _rtx() -> Target:
    # Without a device asked for, TensorRT for RTX builds an engine that is finished on the GPU that loads it.
    return Target(compat.load("rtx"), None)

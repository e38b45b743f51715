"""What this machine has for building engines, and what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shared import cuda
from shared.errors import EnvironmentLacks
from trt_builder import compat

_PACKAGES = ("onnx", "numpy")
_LIBRARIES = "libnvinfer*.so*"


class Finding(NamedTuple):
    """One line of the doctor's report: what, its state, and whether it is in order (None: neither)."""

    what: str
    state: str
    good: bool | None


def examine() -> list[Finding]:
    """Everything that matters, in the order in which to fix it."""
    return [*_driver(), *_gpus(), *_packages(), *_tensorrt(), *_libraries()]


def can_build(findings: list[Finding]) -> bool:
    """Whether engines of some kind can be built here: a TensorRT that works, and a GPU unless it is the RTX one."""
    state = {finding.what: finding.good for finding in findings}
    return bool(state.get(compat.TITLES["rtx"])) or bool(state.get(compat.TITLES["tensorrt"]) and state.get("GPU 0"))


def _driver() -> Iterator[Finding]:
    supported = cuda.supported_version()
    if supported is None:
        yield Finding("driver", "no NVIDIA driver (libcuda.so.1); in a container, start it with --gpus all", False)
    else:
        yield Finding("driver", f"{cuda.driver_version()}, supports CUDA {supported}", True)
    where = shutil.which("nvidia-smi")
    yield Finding("nvidia-smi", where or "not on the PATH", None)


def _gpus() -> Iterator[Finding]:
    gpus = cuda.find_gpus()
    if not gpus:
        yield Finding("GPU 0", "none", False)
    for gpu in gpus:
        yield Finding(
            f"GPU {gpu.index}",
            f"{gpu.name}, {gpu.architecture}, {gpu.multiprocessors} SM, {gpu.memory / 2**30:.1f} GiB",
            True,
        )


def _packages() -> Iterator[Finding]:
    yield Finding("python", platform.python_version(), True)
    for name in _PACKAGES:
        try:
            yield Finding(name, importlib.metadata.version(name), True)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "not installed", False)


def _tensorrt() -> Iterator[Finding]:
    wheels = sorted(
        f"{distribution.metadata['Name'].replace('_', '-')} {distribution.version}"
        for distribution in importlib.metadata.distributions()
        if (distribution.metadata["Name"] or "").lower().startswith("tensorrt")
    )
    yield Finding("wheels", ", ".join(dict.fromkeys(wheels)) or "no tensorrt wheel", None)
    for flavor, title in compat.TITLES.items():
        try:
            installed = compat.load(flavor)
        except EnvironmentLacks as missing:
            # Of the two, TensorRT for RTX is an extra: where it was not set up, nothing is missing.
            yield Finding(title, str(missing), False if flavor == "tensorrt" else None)
            continue
        known = compat.known_bad(installed)
        yield Finding(title, installed.version + (f"; {known.reason}" if known else ""), True)
        yield from _fits_driver(title, wheels, flavor)


def _fits_driver(title: str, wheels: list[str], flavor: str) -> Iterator[Finding]:
    """Whether the driver supports the CUDA that the wheels are for, which their names have (``-cu13``)."""
    prefix = "tensorrt-rtx" if flavor == "rtx" else "tensorrt-cu"
    wanted = [match[1] for wheel in wheels if wheel.startswith(prefix) and (match := re.search(r"-cu(\d+)", wheel))]
    supported = cuda.supported_version()
    if wanted and supported is not None and int(supported.split(".")[0]) < int(wanted[0]):
        yield Finding(
            f"{title}'s CUDA", f"it needs CUDA {wanted[0]}, the driver supports {supported}: update the driver", False
        )


def _libraries() -> Iterator[Finding]:
    """TensorRT libraries on LD_LIBRARY_PATH, where containers mount them: they come before those of the wheels."""
    libraries: list[str] = []
    for folder in filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":")):
        libraries += [str(path) for path in sorted(Path(folder).glob(_LIBRARIES))]
    yield Finding("mounted libraries", ", ".join(libraries) or "none on LD_LIBRARY_PATH", None)
